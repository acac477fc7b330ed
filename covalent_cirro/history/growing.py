"""The line that an electron is printing, which CloudWatch has when it has ended: read from stored parts as it grows.

A progress bar, which writes over its line again and again, is one line that takes hours. The runner stores it with all
else, at first every 10 s and later every minute.
"""

from __future__ import annotations

import contextlib

from covalent_cirro.contract import log_parts
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.protocol import Location
from covalent_cirro.errors import AccessDenied, NotFound, TooLarge
from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.log_events import EVENT_BYTES, LogEvents, is_piece_of_a_line

ENOUGH_BYTES = 2 * EVENT_BYTES
"""Of a longer line CloudWatch has the beginning: it is not looked for further back."""

OVERLAP_CHARS = 500
"""By so many characters the end of what CloudWatch has of a line is found in the parts."""


class GrowingLine:
    """The line that one stream of an attempt is at.

    Attributes:
        text: What the parts have of it, and CloudWatch has not.
        stored_at: Epoch seconds when the latest part was written.
    """

    def __init__(self, account: Account, place: Location, attempt: int, stream: str) -> None:
        self.text = ""
        self.stored_at = 0.0
        self._account = account
        self._bucket = place.bucket
        self._folder = place.log_key("")
        self._prefix = place.log_key(f"{attempt:02d}/{stream}.")
        self._newest = ""

    def is_newer_than(self, events: LogEvents) -> bool:
        """Whether there is a text that cannot be part of a line that CloudWatch has: that came before it was stored."""
        return bool(self.text) and self.stored_at >= events.ingested_at

    def new_parts(self) -> list[str]:
        """Keys of the parts that were stored since the last time, in their order; one list."""
        found = archive.objects(self._account, self._bucket, self._prefix, self._newest)
        keys = [key for key in sorted(found) if log_parts.parse(key[len(self._folder) :])]
        if keys:
            self._newest, self.stored_at = keys[-1], found[keys[-1]][1]
        return keys

    def look(self, last_message: str) -> tuple[bool, bool]:
        """Read what was stored since the last time, from the end back to the beginning of the line.

        Args:
            last_message: The latest that CloudWatch has; it may be the beginning of the line.

        Returns:
            Whether anything was stored; and whether `text` is not what it was and more, but of another line, or anew.
        """
        # Who may read the log in CloudWatch need not be allowed to read the bucket.
        with contextlib.suppress(AccessDenied, NotFound, TooLarge):
            is_first = not self._newest
            if keys := self.new_parts():
                return True, self._read(keys, is_first, last_message)
        return False, False

    def _read(self, keys: list[str], is_first: bool, last_message: str) -> bool:
        data, left = b"", list(keys)
        while left and b"\n" not in data and len(data) < ENOUGH_BYTES:
            data = (archive.read(self._account, self._bucket, left.pop(), MAX_PART_BYTES) or b"") + data
        *ended, text = data.decode("utf-8", "replace").rsplit("\n", 1)
        if not (ended or is_first or left):
            self.text += text
            return False
        # Of a long line CloudWatch has pieces already; where not even its beginning was read, what follows them is all.
        overlap = last_message[-OVERLAP_CHARS:] if is_piece_of_a_line(last_message) else ""
        if overlap and overlap in text:
            self.text = text.rpartition(overlap)[2]
        else:
            self.text = "" if left and not ended else text
        return True
