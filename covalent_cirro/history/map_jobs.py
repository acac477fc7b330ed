"""The jobs of a map that are worth a look: those that failed, those with items that failed, and the slowest that run.

Their states are from ListJobs, a call for each 1,000 jobs that run or have failed; their items from what they stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from covalent_cirro.history import batch_jobs
from covalent_cirro.history.account import Account
from covalent_cirro.history.batch_jobs import ArrayChild
from covalent_cirro.history.map_items import MapState
from covalent_cirro.history.records import Record
from covalent_cirro.jobs import map_progress
from covalent_cirro.jobs.map_progress import JobItems
from covalent_cirro.jobs.states import JobState


class MapJob(NamedTuple):
    """A job of a map.

    Attributes:
        job_id: Its id, ``<parent>:<number>``.
        state: Its state in AWS's word.
        first, stop: Its items: ``first <= i < stop``.
        done: How many of them have a result or have failed.
        failed: How many have failed.
        started_at: Epoch seconds at which its latest attempt began; `None` where it never did.
        ran_s: Seconds that this attempt has run; `None` where it never did.
        reason: Why it failed, in AWS's words; mostly empty.
    """

    job_id: str
    state: str
    first: int
    stop: int
    done: int
    failed: int
    started_at: float | None
    ran_s: float | None
    reason: str


def worth_seeing(account: Account, parent: Record, of: MapState, now: float) -> tuple[list[MapJob], MapState]:
    """The jobs, the most urgent first; and the map with what their states tell of its items.

    Args:
        account: The account.
        parent: The array job.
        of: Its items.
        now: Epoch seconds.
    """
    states = [JobState.FAILED.value, *([] if parent.has_ended else [JobState.RUNNING.value])]
    known = {child.number: child for state in states for child in batch_jobs.of_array(account, parent.job_id, state)}
    failed = {number for number, child in known.items() if child.state == JobState.FAILED.value}
    jobs = tuple(map_progress.without_failed(of.jobs, failed))
    before = sum(job.done for job in of.jobs) - sum(job.done for job in jobs)
    counts = of.counts._replace(done=of.counts.done - before)
    found = [_job(parent, job, known.get(job.number), now) for job in jobs if job.number in known or job.failed]
    return ordered(found), of._replace(jobs=jobs, counts=counts)


def _job(parent: Record, job: JobItems, child: ArrayChild | None, now: float) -> MapJob:
    job_id = f"{parent.job_id}:{job.number}"
    if child is None:
        state = JobState.SUCCEEDED.value if job.has_outcome else JobState.RUNNABLE.value
        return MapJob(job_id, state, job.first, job.stop, job.done, job.failed, None, None, "")
    began, ended = child.started_at, child.stopped_at or now
    ran_s = None if began is None else max(0.0, ended - began)
    reason = child.reason if child.state == JobState.FAILED.value else ""
    return MapJob(job_id, child.state, job.first, job.stop, job.done, job.failed, began, ran_s, reason)


def ordered(jobs: Iterable[MapJob]) -> list[MapJob]:
    """Jobs that failed first, then those with items that failed, then the one that will run longest at its rate."""

    def key(job: MapJob) -> tuple[int, float, int]:
        if job.state == JobState.FAILED.value or job.failed:
            return (0 if job.state == JobState.FAILED.value else 1, -job.failed, job.first)
        # Half an item for one that has begun, so that a job that has just started is not the slowest.
        return (2, -(job.ran_s or 0.0) * (job.stop - job.first) / max(job.done, 0.5), job.first)

    return sorted(jobs, key=key)
