"""Splits the output of an electron into parts and a tail, so that memory and outcome do not grow with the text.

Pure: it takes bytes and times, and returns parts; `pump.py` stores them.
"""

from __future__ import annotations

from covalent_cirro.contract.limits import LOG_TAIL_BYTES, MAX_PARTS
from covalent_cirro.contract.log_parts import Part, interval_s
from covalent_cirro.contract.protocol import Log

PART_BYTES = 2 * 1024 * 1024
"""A part is cut as soon as there is this much new text."""


def cut_text(data: bytes | bytearray) -> int:
    """Length of the text without an unfinished UTF-8 character at its end, which has at most 3 bytes.

    Bytes that are not UTF-8 are never held back for longer than that.
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:  # not a continuation byte
            wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(data) - back if wanted > back else len(data)
    return len(data)


class PartNames:
    """Names the parts of one stream, over all electrons of a job.

    Attributes:
        given: Number of names that were returned.
    """

    def __init__(self, attempt: int, stream: str) -> None:
        self.given = 0
        self._attempt, self._stream = attempt, stream

    def next(self) -> str | None:
        """The next name; `None` after `limits.MAX_PARTS` names."""
        part = Part(self._attempt, self._stream, self.given)
        self.given += 1
        return part.name if part.number < MAX_PARTS else None


class Stream:
    """One stream of one electron.

    Args:
        first_s: Seconds until the first part of new text is due.
        now: When the electron started; any clock, the same in all calls.
    """

    def __init__(self, first_s: float, now: float) -> None:
        self.size = 0
        self._first_s = first_s
        self._began = self._last_cut = now
        self._tail = bytearray()
        self._new = bytearray()
        self._parts: list[str] = []

    def feed(self, data: bytes) -> None:
        """Add bytes that were read."""
        self.size += len(data)
        self._new += data
        self._tail += data[-LOG_TAIL_BYTES:]
        del self._tail[: max(0, len(self._tail) - LOG_TAIL_BYTES)]

    def due_at(self) -> float | None:
        """Time at which the next part is due; `None` while there is no new text."""
        if not self._new:
            return None
        if len(self._new) >= PART_BYTES:
            return self._last_cut
        return self._last_cut + interval_s(self._first_s, self._last_cut - self._began)

    def cut(self, now: float) -> bytes:
        """Return the new text as a part that ends between two characters; empty if there is none."""
        self._last_cut = now
        end = cut_text(self._new)
        part = bytes(self._new[:end])
        del self._new[:end]
        return part

    def finish(self, tail_bytes: int = LOG_TAIL_BYTES) -> bytes:
        """Return the rest for the last part; empty if the tail of so many bytes is the whole text."""
        if not self._parts and self.size <= tail_bytes:
            return b""
        part = bytes(self._new)
        self._new.clear()
        return part

    def stored(self, name: str) -> None:
        """Note the name of the part that `cut` or `finish` returned."""
        self._parts.append(name)

    def lost(self, name: str) -> None:
        """Note that a part could not be stored after all."""
        self._parts.remove(name)

    def log(self, tail_bytes: int = LOG_TAIL_BYTES) -> Log:
        """The entry for the outcome, with a tail of at most so many bytes."""
        tail = bytes(self._tail[-tail_bytes:])
        if self.size > tail_bytes:
            # The tail may begin inside a character: up to 3 bytes of it are at the front.
            start = 0
            while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
                start += 1
            tail = tail[start:]
        return Log(self.size, tuple(self._parts), tail.decode("utf-8", "replace"))
