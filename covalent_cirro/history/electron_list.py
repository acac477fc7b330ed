"""Rows of the list of electrons: one for each job, and one for each call whose job AWS Batch does not know any more.

Pure: it decides what each row says, and the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Arguments, Outcome, Reused
from covalent_cirro.contract.reports import Point
from covalent_cirro.history.instances import Instance
from covalent_cirro.history.queue_places import JobWait
from covalent_cirro.history.records import RUNNING, Record
from covalent_cirro.jobs import explanations, further_tries, image_modules, learning_curves
from covalent_cirro.jobs import states as jobs
from covalent_cirro.jobs.arguments import differing
from covalent_cirro.jobs.ends import Evidence
from covalent_cirro.jobs.formatting import MIB, duration, memory, sentences
from covalent_cirro.jobs.map_progress import ItemCounts, items_line, jobs_line
from covalent_cirro.jobs.reuse_texts import REUSED, origin_text, reason_lines
from covalent_cirro.jobs.states import TERMINAL_STATES, JobState

WITHOUT_JOB = "-"
"""State of a call without a job and without an outcome."""

NOBODY_KNOWS = (
    "AWS Batch knows no job of it, and there is no outcome: it was not submitted, or AWS has forgotten it (ended jobs "
    "are kept for at least 7 days)"
)

BEING_SUBMITTED = "It is being submitted"

SUBMITTED_WITHIN_S = 120.0
"""A younger call without job and outcome is taken for one that is being submitted."""


NEAR_THE_LIMIT = 0.8
"""Part of its time limit after which an electron that still runs is warned of."""


class Row(NamedTuple):
    """One electron's job.

    Attributes:
        dispatch_id: Id of the dispatch.
        lattice: Name of the lattice; empty where it is not known.
        node_id: Id of the node.
        electron: Name of the electron.
        state: State of the job in AWS's word; `WITHOUT_JOB` where there is no job, `states.CANCELLED` or `REUSED`.
        since: Epoch seconds since when the job is in this state; `None` where it is not known.
        why: What the job waits for and what to change, or why it failed, in one line; mostly empty.
        reason: Value of `waiting_reasons.Why` of a job that waits; else empty.
        position: Position in its queue, from 1, of a job that waits; `None` where it is not known.
        attempt: Number of the attempt that runs or was the last; 0 where none has begun.
        attempts_allowed: How often AWS Batch may start the job; `None` where it is not known.
        queue: Name of the queue; empty where AWS Batch does not know the job any more.
        where: Type and zone of the instance of the last attempt; empty where they are not known.
        memory_mib: Memory that the job asked for.
        used_bytes: Most memory that the job used; `None` before its end.
        job_id: Id of the job; empty where there is none.
        call_id: Id of the call; empty where it is not known.
        tried: Rows of earlier jobs of the electron that failed and were submitted again, oldest first.
        arguments: What the electron was called with; of a task group, the first one. Empty where it is not known.
        not_reused: Why no results of an earlier dispatch were reused; empty if that was not asked for.
        missing_modules: Modules that it imports and that its job does not find.
        jobs: Jobs of a map by state; empty for any other electron.
        items: How many items of a map are done and have failed; `None` where that is not known, and for any other.
        reported: The last value that it has reported and the extremes; empty where it has reported none.
    """

    dispatch_id: str
    lattice: str
    node_id: int
    electron: str
    state: str
    since: float | None
    why: str
    reason: str
    position: int | None
    attempt: int
    attempts_allowed: int | None
    queue: str
    where: str
    memory_mib: int | None
    used_bytes: int | None
    job_id: str
    call_id: str
    tried: tuple[Row, ...] = ()
    arguments: Arguments = ()
    not_reused: str = ""
    missing_modules: tuple[str, ...] = ()
    jobs: str = ""
    items: ItemCounts | None = None
    reported: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in (*TERMINAL_STATES, REUSED, jobs.CANCELLED)

    @property
    def is_under_way(self) -> bool:
        """Whether it is expected to change."""
        return not self.has_ended and (self.state != WITHOUT_JOB or self.why.startswith(BEING_SUBMITTED))


def row_of_job(
    record: Record,
    outcome: Outcome | None,
    waits: JobWait | None = None,
    host: Instance | None = None,
    problem: str = "",
    *,
    now: float,
    items: ItemCounts | None = None,
    reported: Sequence[Point] = (),
) -> Row:
    """The row of a job.

    Args:
        record: What AWS Batch says of the job.
        outcome: The job's outcome, if it has ended and wrote one.
        waits: Why the job waits, if it waits and the reason is known.
        host: Instance that the job runs on, if it runs and the instance is known.
        problem: Why the job's outcome cannot be read; mostly empty.
        now: Epoch seconds.
        items: Items of a map, if they are known.
        reported: What the electron has reported.
    """
    return Row(
        dispatch_id=record.dispatch_id,
        lattice=record.lattice,
        node_id=record.node_id,
        electron=record.electron,
        state=jobs.shown_state(record.detail),
        since=record.since,
        why=sentences(_why(record, outcome, waits, now, items), _one_line(problem)),
        reason="" if waits is None else waits.reason.why.value,
        position=None if waits is None else waits.place,
        # An array has none itself.
        attempt=0 if record.detail.array_size else record.attempt,
        attempts_allowed=None if record.detail.array_size else record.detail.max_attempts or None,
        queue=record.detail.queue,
        where=str(host or "") if outcome is None else _where(outcome),
        memory_mib=record.detail.memory_mib or None,
        used_bytes=None if outcome is None else outcome.usage.peak_memory_bytes,
        job_id=record.job_id,
        call_id="" if record.call is None else record.call.call_id,
        arguments=record.detail.arguments,
        not_reused=record.detail.not_reused,
        missing_modules=record.detail.missing_modules,
        jobs=jobs_line(record.detail),
        items=items,
        reported=learning_curves.line(reported),
    )


def row_of_call(
    place: Location,
    electron: str,
    outcome: Outcome | None,
    now: float,
    problem: str = "",
    arguments: Arguments = (),
) -> Row:
    """The row of a call whose job AWS Batch does not know: from its outcome, or why that cannot be read."""
    is_new = now - place.made_at < SUBMITTED_WITHIN_S
    state, since, why = WITHOUT_JOB, None, BEING_SUBMITTED if is_new else NOBODY_KNOWS
    if outcome is not None:
        state = JobState.SUCCEEDED.value if outcome.succeeded else JobState.FAILED.value
        since, why = outcome.times.get("stored"), _failure_line(outcome)
    if problem:
        why = _one_line(problem)
    limit = None if outcome is None else outcome.usage.memory_limit_bytes
    return Row(
        dispatch_id=place.dispatch_id,
        lattice="",
        node_id=place.node_id,
        electron=electron,
        state=state,
        since=since,
        why=why,
        reason="",
        position=None,
        attempt=0 if outcome is None else outcome.attempt,
        attempts_allowed=None,
        queue="",
        where="" if outcome is None else _where(outcome),
        memory_mib=None if limit is None else limit // MIB,
        used_bytes=None if outcome is None else outcome.usage.peak_memory_bytes,
        job_id="" if outcome is None else outcome.job_id,
        call_id=place.call_id,
        arguments=arguments,
    )


def row_of_reused(place: Location, reused: Reused) -> Row:
    """The row of an electron that has the results of an earlier job."""
    return Row(
        dispatch_id=place.dispatch_id,
        lattice=reused.lattice,
        node_id=place.node_id,
        electron=reused.nodes[0][1],
        state=REUSED,
        since=reused.at,
        why=origin_text(reused),
        reason="",
        position=None,
        attempt=0,
        attempts_allowed=None,
        queue="",
        where="",
        memory_mib=None,
        used_bytes=None,
        job_id=reused.job_id,
        call_id=place.call_id,
        arguments=reused.arguments,
    )


def folded(rows: Iterable[Row]) -> list[Row]:
    """One row for all tries of an electron: that of the last try, which says how the earlier ones ended."""
    by_call: dict[str, list[Row]] = {}
    found: list[Row] = []
    for row in rows:
        (by_call.setdefault(row.call_id, []) if row.call_id else found).append(row)
    for *earlier, last in further_tries.chains(by_call):
        before = tuple(row for call_id in earlier for row in by_call[call_id])
        found += [_after(row, before) for row in by_call[last]]
    return found


def _after(row: Row, before: tuple[Row, ...]) -> Row:
    if not before:
        return row
    was = before[-1]
    had = f", which had {memory(was.memory_mib)}," if was.memory_mib else ""
    where = f" in queue {was.queue}" if was.queue else ""
    why = f"{BEING_SUBMITTED} again" if row.state == WITHOUT_JOB else row.why
    failed = f"Try {len(before)}{had} failed{where}: {was.why}"
    return row._replace(tried=before, why=sentences(why, f"This is try {len(before) + 1}", failed))


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Running jobs first, then waiting ones, then ended ones; the longest running and the latest ended first."""

    def key(row: Row) -> tuple[int, float, str, int, str]:
        since = row.since or 0.0
        if row.state in RUNNING:
            return (0, since, row.dispatch_id, row.node_id, row.job_id)
        if row.has_ended or row.state == WITHOUT_JOB:
            return (2, -since, row.dispatch_id, row.node_id, row.job_id)
        return (1, since, row.dispatch_id, row.node_id, row.job_id)

    return sorted(rows, key=key)


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows are in each state, in the order in which a job takes the states."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.state] = found.get(row.state, 0) + 1
    states = [state.value for state in JobState]
    return dict(sorted(found.items(), key=lambda item: states.index(item[0]) if item[0] in states else len(states)))


def reasons(rows: Iterable[Row]) -> list[str]:
    """Why jobs wait, each reason once, that of most jobs first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.reason:
            found.setdefault((row.queue, row.reason), []).append(row)
    groups = sorted(found.values(), key=lambda some: -len(some))
    return [f"{len(some)} wait{'s' if len(some) == 1 else ''}: {some[0].why}" for some in groups]


def warnings(rows: Iterable[Row]) -> list[str]:
    """What electrons that have not ended are warned of, each warning once. Of those that have, the end says more."""
    return image_modules.warning_lines((row.electron, row.missing_modules) for row in rows if not row.has_ended)


def why_not_reused(rows: Iterable[Row]) -> list[str]:
    """Why electrons were not reused, each reason once, that of most electrons first."""
    return reason_lines((row.electron, row.not_reused) for row in rows if row.not_reused)


def differences(rows: Sequence[Row]) -> list[Arguments]:
    """For each row the arguments in which electrons of the same function differ in their dispatch."""
    return differing([((row.dispatch_id, row.electron), row.arguments) for row in rows])


def row_document(row: Row) -> Mapping[str, object]:
    """The row for programs."""
    tried = [row_document(each) for each in row.tried]
    items = None if row.items is None else row.items._asdict()
    return {**row._asdict(), "tried": tried, "arguments": dict(row.arguments), "items": items}


def failure_of(outcome: Outcome) -> Failure | None:
    """The failure that ended a call: that of the first electron that failed itself."""
    failures = [result.failure for result in outcome.results if result.failure is not None]
    return next((each for each in failures if each.kind != "not_run"), failures[0] if failures else None)


def _failure_line(outcome: Outcome, detail: jobs.JobDetail | None = None) -> str:
    failure = failure_of(outcome)
    return _one_line(explanations.failure_words(Evidence(detail, failure, outcome.usage, outcome.attempt)))


def _where(outcome: Outcome) -> str:
    return " ".join(outcome.host[key] for key in ("instance_type", "zone") if outcome.host.get(key))


def items_without_result(row: Row) -> str:
    """How many items of a map that has ended have no result, ``3 of 100 items failed``; empty where all have one."""
    return _failed_items(row.items)


def _failed_items(items: ItemCounts | None) -> str:
    if items is None or not items.over or not items.without_result:
        return ""
    return f"{items.without_result:,} of {items.length:,} items failed"


def _why(record: Record, outcome: Outcome | None, waits: JobWait | None, now: float, items: ItemCounts | None) -> str:
    detail = record.detail
    failed_items = _failed_items(items)
    if jobs.was_cancelled_by_us(detail):
        return _one_line(f"cancelled {jobs.cancelled_how(detail)}")
    if outcome is not None and not outcome.succeeded:
        return _failure_line(outcome, detail)
    if record.state == JobState.FAILED.value and failed_items and not detail.terminated:
        return failed_items  # AWS says that jobs of the array failed
    if record.state == JobState.FAILED.value:
        words = (detail.reason, record.attempts[-1].status_reason if record.attempts else "", detail.status_reason)
        return _one_line(next((each for each in words if each), "no reason given"))
    if record.has_ended:
        return failed_items
    if detail.terminated:
        return "is being stopped"
    if detail.has_begun:
        told = "" if items is None else f"items: {items_line(items, detail.started_at or detail.created_at)}; "
        return f"{told}jobs: {jobs_line(detail)}"
    if waits is not None:
        return str(waits)
    if record.attempts and not record.has_machine:
        return _one_line(detail.status_reason or f"again: {record.attempts[-1].status_reason}")
    if record.state == JobState.RUNNING.value and record.since is not None and detail.time_limit_s:
        left_s = record.since + detail.time_limit_s - now
        if left_s < (1 - NEAR_THE_LIMIT) * detail.time_limit_s:
            return (
                f"its time_limit of {duration(detail.time_limit_s)} ends it in {duration(max(0.0, left_s))}: next "
                f"time, set time_limit={2 * detail.time_limit_s} on its executor"
            )
    return _one_line(detail.status_reason)


def _one_line(text: str) -> str:
    return " ".join(text.split())
