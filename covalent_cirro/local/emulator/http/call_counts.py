"""Counts calls and bytes, separately for jobs and for all other callers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

CALLERS = ("client", "job")
"""``job``: calls that are signed with the credentials of a job's role; ``client``: all others."""


class CallCounts:
    """Counters by caller and operation. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], list[int]] = {}

    def add(self, caller: str, operation: str, bytes_in: int, bytes_out: int) -> None:
        """Count one call; ``operation`` is such as ``"s3:PutObject"``, bytes are those of the bodies."""
        with self._lock:
            entry = self._counts.setdefault((caller, operation), [0, 0, 0])
            entry[0] += 1
            entry[1] += bytes_in
            entry[2] += bytes_out

    def reset(self) -> None:
        """Set all counts to zero."""
        with self._lock:
            self._counts.clear()

    def counts(self, caller: str | None = None) -> dict[str, dict[str, int]]:
        """``{"s3:PutObject": {"count", "bytes_in", "bytes_out"}}``, of one caller or of all together."""
        result: dict[str, dict[str, int]] = {}
        for who, operation, entry in self._entries():
            if caller in (None, who):
                total = result.setdefault(operation, {"count": 0, "bytes_in": 0, "bytes_out": 0})
                for field, value in zip(("count", "bytes_in", "bytes_out"), entry, strict=False):
                    total[field] += value
        return dict(sorted(result.items()))

    def _entries(self) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
        with self._lock:
            entries = [(*key, (value[0], value[1], value[2])) for key, value in self._counts.items()]
        yield from entries
