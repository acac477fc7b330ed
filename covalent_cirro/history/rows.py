"""The list of an account's electrons: a row for each job, and for each call that AWS Batch no longer knows a job of.

Pure: which rows there are, what each says, and in which order they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from covalent_cirro import jobs
from covalent_cirro.history.records import ENDED, RUNNING, Record
from covalent_cirro.jobs import JobState
from covalent_cirro.protocol import Failure, Location, Outcome

WITHOUT_JOB = "-"
"""State of a call without job and outcome."""

NOBODY_KNOWS = (
    "AWS Batch knows no job of it, and there is no outcome: it was not submitted, or AWS has forgotten it (ended jobs "
    "are kept for at least 7 days)"
)


class Row(NamedTuple):
    """One electron's job.

    Attributes:
        dispatch_id: The dispatch.
        lattice: Its name; empty where it is not known.
        node_id: The node.
        electron: Its name.
        state: AWS's word; `WITHOUT_JOB` where there is no job to tell.
        since: Epoch seconds since when it is in this state; `None` where nobody knows.
        why: What it waits for, or why it failed, in one line; mostly empty.
        attempt: The attempt that runs or was the last; 0 where none has begun.
        attempts_allowed: How often AWS Batch may start it; `None` where nobody knows.
        queue: Name of the queue; empty where AWS Batch has forgotten the job.
        memory_mib: Memory that it asked for.
        used_bytes: Most memory that it used; `None` before its end.
        job_id: Id of the job; empty where there is none.
    """

    dispatch_id: str
    lattice: str
    node_id: int
    electron: str
    state: str
    since: float | None
    why: str
    attempt: int
    attempts_allowed: int | None
    queue: str
    memory_mib: int | None
    used_bytes: int | None
    job_id: str

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ENDED


def row_of_job(record: Record, outcome: Outcome | None) -> Row:
    """The row of a job.

    Args:
        record: What AWS Batch says.
        outcome: What the job left, if it has ended and left one.
    """
    return Row(
        dispatch_id=record.dispatch_id,
        lattice=record.lattice,
        node_id=record.node_id,
        electron=record.electron,
        state=record.state,
        since=record.since,
        why=_why(record, outcome),
        attempt=record.attempt,
        attempts_allowed=record.detail.max_attempts or None,
        queue=record.detail.queue,
        memory_mib=record.detail.memory_mib or None,
        used_bytes=None if outcome is None else outcome.usage.peak_memory_bytes,
        job_id=record.job_id,
    )


def row_of_call(place: Location, electron: str, outcome: Outcome | None) -> Row:
    """The row of a call whose job AWS Batch does not know: from what lies in S3."""
    *_, dispatch_id, node, _, _ = place.base.split("/")
    state, since, why = WITHOUT_JOB, None, NOBODY_KNOWS
    if outcome is not None:
        state = JobState.SUCCEEDED.value if outcome.succeeded else JobState.FAILED.value
        since, why = outcome.times.get("stored"), _failure_line(outcome)
    limit = None if outcome is None else outcome.usage.memory_limit_bytes
    return Row(
        dispatch_id=dispatch_id,
        lattice="",
        node_id=int(node),
        electron=electron,
        state=state,
        since=since,
        why=why,
        attempt=0 if outcome is None else outcome.attempt,
        attempts_allowed=None,
        queue="",
        memory_mib=None if limit is None else limit // (1024 * 1024),
        used_bytes=None if outcome is None else outcome.usage.peak_memory_bytes,
        job_id="" if outcome is None else outcome.job_id,
    )


def ordered(rows: Iterable[Row]) -> list[Row]:
    """What runs first, then what waits, then what has ended; the longest running and the latest ended first."""

    def key(row: Row) -> tuple[int, float, str, int, str]:
        since = row.since or 0.0
        if row.state in RUNNING:
            return (0, since, row.dispatch_id, row.node_id, row.job_id)
        if row.has_ended or row.state == WITHOUT_JOB:
            return (2, -since, row.dispatch_id, row.node_id, row.job_id)
        return (1, since, row.dispatch_id, row.node_id, row.job_id)

    return sorted(rows, key=key)


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows are in each state, in the order of a job's life."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.state] = found.get(row.state, 0) + 1
    states = [state.value for state in JobState]
    return dict(sorted(found.items(), key=lambda item: states.index(item[0]) if item[0] in states else len(states)))


def row_document(row: Row) -> Mapping[str, object]:
    """The row for programs."""
    return row._asdict()


def failure_of(outcome: Outcome) -> Failure | None:
    """The failure that ended a call: the first of its electrons that did not merely wait for another."""
    failures = [result.failure for result in outcome.results if result.failure is not None]
    return next((each for each in failures if each.kind != "not_run"), failures[0] if failures else None)


def _failure_line(outcome: Outcome) -> str:
    failure = failure_of(outcome)
    return "" if failure is None else _one_line(failure.message)


def _why(record: Record, outcome: Outcome | None) -> str:
    if outcome is not None and not outcome.succeeded:
        return _failure_line(outcome)
    detail = record.detail
    if record.state == JobState.FAILED.value:
        if jobs.was_cancelled_by_us(detail):
            return _one_line(detail.status_reason)
        words = (detail.reason, record.attempts[-1].status_reason if record.attempts else "", detail.status_reason)
        return _one_line(next((each for each in words if each), "no reason given"))
    if record.has_ended:
        return ""
    if detail.terminated:
        return "is being stopped"
    if record.attempts and not record.has_machine:
        return _one_line(detail.status_reason or f"again: {record.attempts[-1].status_reason}")
    return _one_line(detail.status_reason)


def _one_line(text: str) -> str:
    return " ".join(text.split())
