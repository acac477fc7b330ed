"""The unfinished line that an electron is printing, read from stored parts: CloudWatch has a line only when it ends.

A progress bar, which overwrites its line again and again, is one line that may take hours. The runner stores it with
the rest of the log, at first every 10 s and later every minute.
"""

from __future__ import annotations

import contextlib

from covalent_cirro.contract import log_parts
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.places import Location
from covalent_cirro.errors import AccessDenied, NotFound, TooLarge
from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.log_events import EVENT_BYTES, LogEvents, is_piece_of_a_line

ENOUGH_BYTES = 2 * EVENT_BYTES
"""Bytes that are read back to the beginning of a line: of a longer line, CloudWatch has the beginning."""

OVERLAP_CHARS = 500
"""Characters at the end of CloudWatch's last message by which its place in the parts is found."""


class GrowingLine:
    """The unfinished line of one stream of an attempt.

    Attributes:
        text: The part of the line that stored parts have and CloudWatch has not.
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
        """Whether ``text`` was stored after CloudWatch's last event, so that no line in CloudWatch can have it."""
        return bool(self.text) and self.stored_at >= events.ingested_at

    def new_parts(self) -> list[str]:
        """Keys of the parts that were stored since the last call, in their order; takes one ListObjectsV2."""
        found = archive.objects(self._account, self._bucket, self._prefix, self._newest)
        keys = [key for key in sorted(found) if log_parts.parse(key[len(self._folder) :])]
        if keys:
            self._newest, self.stored_at = keys[-1], found[keys[-1]][1]
        return keys

    def look(self, last_message: str) -> tuple[bool, bool]:
        """Read the parts that were stored since the last call, from the end back to the beginning of the line.

        Args:
            last_message: The latest message in CloudWatch; it may be the beginning of the line.

        Returns:
            Whether anything was stored; and whether `text` begins anew, instead of having grown.
        """
        # A policy that allows to read the log in CloudWatch need not allow to read the bucket.
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
        # CloudWatch already has pieces of a long line: only what follows them is of use.
        overlap = last_message[-OVERLAP_CHARS:] if is_piece_of_a_line(last_message) else ""
        if overlap and overlap in text:
            self.text = text.rpartition(overlap)[2]
        else:
            self.text = "" if left and not ended else text
        return True
