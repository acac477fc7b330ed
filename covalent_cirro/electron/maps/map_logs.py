"""The log of a map: what its jobs printed, one after the other, within a bound; those that failed come first."""

from __future__ import annotations

from covalent_cirro.contract.protocol import Log, NodeResult
from covalent_cirro.electron import log_files
from covalent_cirro.electron.maps.child_ends import ChildJob
from covalent_cirro.jobs.log_text import Bit, without_parts

LOG_BYTES = 1024 * 1024
"""Most bytes of one stream of the jobs that failed, and as many of the others."""


class MapLog:
    """One stream of all jobs of a map."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._texts: dict[bool, list[str]] = {True: [], False: []}
        self._room = {True: LOG_BYTES, False: LOG_BYTES}
        self._left_out = 0

    def add(self, job: ChildJob, result: NodeResult, failed: bool) -> None:
        """Add what a job printed; a job that printed nothing is left out."""
        log: Log = getattr(result, self._stream)
        if not log.size:
            return
        text = f"--- {job.items} (job {job.number}) ---\n{_text(log)}"
        text += "" if text.endswith("\n") else "\n"
        size = len(text.encode("utf-8", "replace"))
        if size > self._room[failed]:
            self._left_out += 1
            return
        self._room[failed] -= size
        self._texts[failed].append(text)

    def text(self, electron: str) -> str:
        """The whole text.

        Args:
            electron: ``DISPATCH:NODE``, for the command that shows what is left out.
        """
        more = [f"--- of {self._left_out:,} more jobs: cirro logs '{electron}[ITEM]' ---\n"] if self._left_out else []
        return "".join([*self._texts[True], *self._texts[False], *more])


def _text(log: Log) -> str:
    if log.parts:
        return log_files.as_text([Bit(f"of {log.size} bytes, the last ones", is_note=True), Bit(log.tail)])
    return log_files.as_text(without_parts(log))
