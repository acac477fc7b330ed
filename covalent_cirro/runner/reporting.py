"""Sends what the electron's processes report (`covalent_cirro.trial`) to S3, and fails no electron.

The processes append records to a file. The supervisor's loop looks at the file now and then, and stores an empty object
whose name has the new points (`contract/reports.py`). An electron that reports nothing costs a `stat` now and then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from covalent_cirro.contract import log_parts, reports
from covalent_cirro.contract.protocol import REPORTS_FILE, Call, Task
from covalent_cirro.contract.reports import RECORD_BYTES, Point
from covalent_cirro.runner.s3.answers import S3Error

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.job_bucket import JobBucket
    from covalent_cirro.runner.s3.s3_client import Pending

_MOST_BYTES = 64 * 1024 * RECORD_BYTES
"""Bytes that are read in one look: of more, which is tens of thousands of points a second, the later ones count."""

_LOOKS = 8
"""Looks in the time between two objects, until something new is found."""


def report_on(
    task: Task, call: Call, control: str, attempt: int, bucket: JobBucket, first_s: float, say: Callable[[str], None]
) -> Reporting:
    """Begin to send what an electron of a call reports.

    Args:
        task: The electron.
        call: Its call.
        control: The folder that the electron's process and the runner share (`protocol.CHECKPOINT_VARIABLE`).
        attempt: Number of the attempt, from 1, counted over all tries.
        bucket: The bucket of the call.
        first_s: Seconds between two objects, at least, at first.
        say: Prints a line on the container's stderr.
    """
    base = reports.base(bucket.where.prefix, call.lattice or "-", bucket.where.dispatch_id, task.node_id)
    return Reporting(os.path.join(control, REPORTS_FILE), base, bucket, attempt, first_s, say)


class Reporting:
    """The reported values of one electron of a job.

    Args:
        path: The file; the electron makes it at its first report.
        base: What the keys of its objects begin with (`reports.base`).
        bucket: Where they are stored, once something was reported.
        attempt: Number of the attempt, from 1, counted over all tries.
        first_s: Seconds between two objects, at least, at first (`log_parts.interval_s`).
        complain: Prints a line on the container's stderr, once.
    """

    def __init__(
        self, path: str, base: str, bucket: JobBucket, attempt: int, first_s: float, complain: Callable[[str], None]
    ) -> None:
        self._path, self._base, self._bucket, self._attempt = path, base, bucket, attempt
        self._first_s, self._complain = first_s, complain
        self._began = time.monotonic()
        self._read_bytes = 0
        self._number = 0
        self._sending: list[Pending] = []

    def look(self) -> float:
        """Send what is new; returns the seconds until the next look. Does not wait for S3."""
        self._collect(only_done=True)
        interval_s = log_parts.interval_s(self._first_s, time.monotonic() - self._began)
        # If S3 is slow, what comes meanwhile is sent together.
        if not self._sending and self._send():
            return interval_s
        return interval_s / _LOOKS  # the next value, which comes after a while, is sent soon

    def finish(self) -> None:
        """Send the rest, and wait for all: the electron has ended."""
        self._send()
        self._collect(only_done=False)

    def _send(self) -> bool:
        points = self._new_points()
        if points:
            name = reports.name(self._attempt, self._number, points)
            self._sending.append(self._bucket.put(self._base + name, b""))
            self._number += 1
        return bool(points)

    def _new_points(self) -> list[Point]:
        try:
            size = os.stat(self._path).st_size
            if size - self._read_bytes < RECORD_BYTES:
                return []
            first = max(self._read_bytes, (size - _MOST_BYTES) // RECORD_BYTES * RECORD_BYTES)
            with open(self._path, "rb") as file:
                file.seek(first)
                data = file.read(size - first)
        except OSError:  # the electron has reported nothing, or has removed what it shares with the runner
            return []
        self._read_bytes = first + len(data) // RECORD_BYTES * RECORD_BYTES
        return reports.records(data)

    def _collect(self, *, only_done: bool) -> None:
        for pending in [each for each in self._sending if not only_done or each.done()]:
            self._sending.remove(pending)
            try:
                self._bucket.wait(pending)
            except S3Error as error:
                self._complain(f"values that the electron reported are lost: {error}")
                self._complain = _say_nothing


def _say_nothing(_: str) -> None:
    """Further errors have the same reason as the first one."""
