"""Chooses the jobs to look at next, from times that the caller gives. Has no clock, and asks nobody.

Rule 1: a job is looked at more often while its state is new: after `PATIENCE` of the time that its state has lasted, at
        least `FLOOR_S` and at most the job's own ceiling (``poll_freq``).
        An array of which jobs still wait for a machine cannot end yet: it is looked at after `ARRAY_SHARE` of the time
        that these jobs need at the rate so far, and every `ARRAY_S` at least.
Rule 2: a call has up to `MAX_DESCRIBED` ids and is always filled, since a further id costs nothing.
Rule 3: the most overdue job is first, and jobs that run are before jobs that wait for a machine, since they can end at
        any time. A job that waits is also looked at: the longer it waits for a look, the more overdue it is.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from covalent_cirro.aws.batch import MAX_DESCRIBED
from covalent_cirro.jobs.states import JobState

FLOOR_S = 1.0
"""Shortest time between two looks at a job."""

PATIENCE = 0.01
"""A state that has lasted 100 s is looked at every second, one that has lasted 10 min every 6 s."""

ARRAY_S = 10.0
"""Longest time between two looks at an array of which jobs have ended: its jobs by state are shown."""

ARRAY_SHARE = 1 / 3

WAITING_WEIGHT = 0.2
"""Weight of the overdue time of a job without a machine, compared with one that runs."""

MISSING_GRACE_S = 60.0
"""How long DescribeJobs may not know a job before it counts as lost: AWS guarantees no order between SubmitJob and
DescribeJobs."""

_RUNS = frozenset({JobState.STARTING.value, JobState.RUNNING.value})


@dataclass
class _Watched:
    ceiling_s: float
    state: str
    since: float
    looked: float
    seen: float
    idle_until: float
    left_s: float = 0.0


class Watchlist:
    """The jobs that are waited for, and the time of the last look at each. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def add(self, job_id: str, now: float, ceiling_s: float) -> None:
        """Watch a job, with at most ``ceiling_s`` seconds between two looks, and at least `FLOOR_S`."""
        # As if it was looked at now: the job was just submitted and cannot have ended.
        self._jobs[job_id] = _Watched(ceiling_s, JobState.SUBMITTED.value, now, now, now, now)

    def remove(self, job_id: str) -> None:
        """Stop watching a job; one that is not watched is no error."""
        self._jobs.pop(job_id, None)

    def saw(self, job_id: str, state: str, now: float, *, waiting: int = 0, begun: int = 0, ended: int = 0) -> None:
        """Store the state that a look has shown.

        Args:
            job_id: The job.
            state: Its state.
            now: Time of the look.
            waiting: Of an array, how many jobs have no machine yet.
            begun: How many have had one.
            ended: How many have ended.
        """
        job = self._jobs.get(job_id)
        if job is not None:
            if not begun:
                job.idle_until = now
            job.left_s = waiting * (now - job.idle_until) / ended if ended else 0.0
            if job.state != state:
                job.state, job.since = state, now
            job.looked = job.seen = now

    def missed(self, job_id: str, now: float) -> bool:
        """Store that AWS did not know a job. Returns whether it has not known the job for `MISSING_GRACE_S`."""
        job = self._jobs.get(job_id)
        if job is None:
            return False
        job.looked = now
        return now - job.seen >= MISSING_GRACE_S

    def next_due(self) -> float | None:
        """Time of the next look; `None` if no job is watched."""
        return min((job.looked + _interval_s(job) for job in self._jobs.values()), default=None)

    def pick(self, now: float) -> list[str]:
        """Ids for a look now, the most overdue first, at most `MAX_DESCRIBED`."""
        return heapq.nlargest(MAX_DESCRIBED, self._jobs, key=lambda job_id: _overdue(self._jobs[job_id], now))


def _interval_s(job: _Watched) -> float:
    lasted = job.looked - job.since
    return max(FLOOR_S, min(max(lasted * PATIENCE, min(job.left_s * ARRAY_SHARE, ARRAY_S)), job.ceiling_s))


def _overdue(job: _Watched, now: float) -> float:
    weight = 1.0 if job.state in _RUNS else WAITING_WEIGHT
    return (now - job.looked) / _interval_s(job) * weight
