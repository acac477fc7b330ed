"""Puts an electron's log together from its parts, and says what is missing. Pure: bytes go in, text comes out."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from covalent_cirro.contract.protocol import LOG_TAIL_BYTES, Log


class Bit(NamedTuple):
    """Some of a log.

    Attributes:
        text: What was printed, or something about it.
        is_note: Whether it is about the log.
    """

    text: str
    is_note: bool = False


class LogText:
    """A log whose parts are read one after the other. What is not UTF-8 becomes U+FFFD, also across parts.

    Args:
        log: The log, which has parts.
        whole: Whether ``log.size`` tells how much there must be; without an outcome nobody knows.

    Attributes:
        is_over: Whether no further part is wanted.
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
        """A part as it was read."""
        if self._whole and self._taken + len(data) > self._log.size:
            # Somebody has put there what the electron did not print.
            self.is_over = self._has_holes = True
            more = f"with it the log would have more than the {self._log.size} bytes that were printed"
            return self._note(f"the part {uri} of this log was not taken: {more}")
        self._taken += len(data)
        return self._text(self._decoder.decode(data))

    def lacks(self, uri: str, why: str, unread: int = 0) -> list[Bit]:
        """A part that cannot be read.

        Args:
            uri: Where it is.
            why: Why not.
            unread: So many parts after it are not even asked for; 0 where they are.
        """
        self._has_holes = True
        self.is_over = unread > 0
        rest = f"; the {unread} parts after it were not read" if unread else ""
        return self._note(f"the part {uri} of this log is missing: {why}{rest}")

    def finish(self) -> list[Bit]:
        """What comes after the last part: where something is missing, at least the end, which the outcome has."""
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
    """A log that is in the outcome itself."""
    missing = log.size - len(log.tail.encode())
    bits = [Bit(log.tail)] if log.tail else []
    if missing <= 0:
        return bits
    note = f"the first {missing} of {log.size} bytes are missing: they were not stored, or not kept"
    return [Bit(note, is_note=True), *bits]
