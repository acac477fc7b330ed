"""Joins the parts of an electron's log, and says what is missing. Pure."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from covalent_cirro.contract.limits import LOG_TAIL_BYTES
from covalent_cirro.contract.protocol import Log


class Bit(NamedTuple):
    """A piece of a log, or a note about the log.

    Attributes:
        text: The printed text, or the note.
        is_note: Whether it is a note.
    """

    text: str
    is_note: bool = False


class LogText:
    """A log whose parts are read one after the other. Bytes that are not UTF-8 become U+FFFD, also across parts.

    Args:
        log: The log.
        whole: Whether ``log.size`` is the size of the whole log; without an outcome that is not known.

    Attributes:
        is_over: Whether no further part is to be read.
    """

    def __init__(self, log: Log, *, whole: bool = True) -> None:
        self.is_over = False
        self._log = log
        self._whole = whole
        self._taken = 0
        self._has_holes = False
        self._end = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, uri: str, data: bytes) -> list[Bit]:
        """Add a part that was read; returns the new text and notes."""
        if self._whole and self._taken + len(data) > self._log.size:
            # Somebody has added bytes that the electron did not print.
            self.is_over = self._has_holes = True
            more = f"with it the log would have more than the {self._log.size} bytes that were printed"
            return self._note(f"the part {uri} of this log was not taken: {more}")
        self._taken += len(data)
        return self._text(self._decoder.decode(data))

    def lacks(self, uri: str, why: str, unread: int = 0) -> list[Bit]:
        """Note a part that cannot be read.

        Args:
            uri: URI of the part.
            why: Why it cannot be read.
            unread: How many parts after it are skipped; 0 where reading goes on.
        """
        self._has_holes = True
        self.is_over = unread > 0
        rest = f"; the {unread} parts after it were not read" if unread else ""
        return self._note(f"the part {uri} of this log is missing: {why}{rest}")

    def finish(self) -> list[Bit]:
        """What follows the last part: if something is missing, a note and the end of the log, which the outcome has."""
        bits = self._text(self._decoder.decode(b"", final=True))
        missing = self._log.size - self._taken if self._whole else 0
        if missing > 0:
            if not self._has_holes:
                note = f"{missing} of {self._log.size} bytes are missing: they were not stored, or not kept"
                bits.append(Bit(note, is_note=True))
            if not self._end.endswith(self._log.tail):
                bits += [Bit("it ended with:", is_note=True), Bit(self._log.tail)]
        return bits

    def _text(self, text: str) -> list[Bit]:
        self._end = (self._end + text)[-LOG_TAIL_BYTES:]
        return [Bit(text)] if text else []

    def _note(self, words: str) -> list[Bit]:
        return [*self._text(self._decoder.decode(b"", final=True)), Bit(words, is_note=True)]


def without_parts(log: Log) -> list[Bit]:
    """A log whose text is in the outcome itself."""
    missing = log.size - len(log.tail.encode())
    bits = [Bit(log.tail)] if log.tail else []
    if missing <= 0:
        return bits
    note = f"the first {missing} of {log.size} bytes are missing: they were not stored, or not kept"
    return [Bit(note, is_note=True), *bits]
