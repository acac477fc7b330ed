"""Which jobs to look at next: pure decisions over times that the caller passes in. No clock, no AWS.

Rule 1: a job is looked at the sooner the younger its present state is: a look costs at most `PATIENCE` of what it has
        lasted, between `FLOOR_S` and the job's own ceiling (``poll_freq``).
Rule 2: a call takes up to `IDS_PER_LOOK` ids and is always filled: an id more costs nothing.
Rule 3: the id most overdue goes first; jobs that run, and may end any moment, before jobs that wait for a machine.
        A job that waits is still looked at: its overdue share grows until it is first (no id starves).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from covalent_cirro.jobs.states import JobState

IDS_PER_LOOK = 100
"""Ids in one DescribeJobs (Batch API Reference, DescribeJobs)."""

FLOOR_S = 1.0
"""No job is looked at more often than this."""

PATIENCE = 0.01
"""A state that has lasted 100 s is looked at every second, one that has lasted 10 min every 6 s."""

WAITING_WEIGHT = 0.2
"""A job without a machine counts as overdue five times slower than one that runs."""

MISSING_GRACE_S = 60.0
"""DescribeJobs may not know a new job for seconds: AWS promises no order between it and SubmitJob. After this long
without it, the job is lost."""

_RUNS = frozenset({JobState.STARTING.value, JobState.RUNNING.value})


@dataclass
class _Watched:
    ceiling_s: float
    state: str
    since: float
    looked: float
    seen: float


class Watchlist:
    """The jobs that somebody waits for, and when each was last looked at. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def add(self, job_id: str, now: float, ceiling_s: float) -> None:
        """Watch a job from now on, looked at every ``ceiling_s`` seconds at the least (but see `FLOOR_S`)."""
        # Looked at a moment ago, as far as it goes: the job was just submitted and cannot have ended.
        self._jobs[job_id] = _Watched(ceiling_s, JobState.SUBMITTED.value, now, now, now)

    def remove(self, job_id: str) -> None:
        """Stop watching a job; one that is not watched is no error."""
        self._jobs.pop(job_id, None)

    def saw(self, job_id: str, state: str, now: float) -> None:
        """Note what a look said."""
        job = self._jobs.get(job_id)
        if job is not None:
            if job.state != state:
                job.state, job.since = state, now
            job.looked = job.seen = now

    def missed(self, job_id: str, now: float) -> bool:
        """Note that a look did not know the job. True once that has lasted `MISSING_GRACE_S`."""
        job = self._jobs.get(job_id)
        if job is None:
            return False
        job.looked = now
        return now - job.seen >= MISSING_GRACE_S

    def next_due(self) -> float | None:
        """When the next look is due; `None` if nothing is watched."""
        return min((job.looked + _interval_s(job) for job in self._jobs.values()), default=None)

    def pick(self, now: float) -> list[str]:
        """The ids for a look now: the most overdue first, up to `IDS_PER_LOOK`."""
        return heapq.nlargest(IDS_PER_LOOK, self._jobs, key=lambda job_id: _overdue(self._jobs[job_id], now))


def _interval_s(job: _Watched) -> float:
    lasted = job.looked - job.since
    return max(FLOOR_S, min(lasted * PATIENCE, job.ceiling_s))


def _overdue(job: _Watched, now: float) -> float:
    weight = 1.0 if job.state in _RUNS else WAITING_WEIGHT
    return (now - job.looked) / _interval_s(job) * weight
