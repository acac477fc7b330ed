"""The history of one electron, from what AWS Batch and S3 say of it.

Pure: it makes a `Story` from facts, and a JSON document from a `Story`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from covalent_cirro.contract import texts
from covalent_cirro.contract.protocol import Arguments, Outcome, Usage
from covalent_cirro.history.electron_list import NOBODY_KNOWS, WITHOUT_JOB
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.instances import Instance
from covalent_cirro.history.queue_places import JobWait
from covalent_cirro.history.records import Record
from covalent_cirro.jobs import compute_nodes, console_links, explanations, map_progress
from covalent_cirro.jobs import further_tries as tries
from covalent_cirro.jobs.ends import Evidence
from covalent_cirro.jobs.formatting import sentences
from covalent_cirro.jobs.map_progress import ItemCounts
from covalent_cirro.jobs.reuse_texts import REUSED, origin_text
from covalent_cirro.jobs.states import CANCELLED, TERMINAL_STATES, JobDetail, JobState, cancelled_how, shown_state
from covalent_cirro.settings import Settings

TRACEBACK_LINES = 12
"""Lines of a traceback that are shown; `cirro logs` and Covalent have all."""

LINE_CHARS = 1000
"""Characters after which such a line is cut."""

MILESTONES = (
    ("started", "fetched", "fetching function and inputs"),
    ("fetched", "first_line", "importing, hooks"),
    ("first_line", "ran", "the electron itself"),
    ("ran", "stored", "storing the result"),
)
"""Parts of an attempt, with the times (`protocol.Outcome.times`) at which each begins and ends."""


class Period(NamedTuple):
    """A period between an electron's call and its end.

    Attributes:
        what: ``"upload"``, ``"waiting"``, ``"attempt 1"``, or a part of the attempt that wrote the outcome.
        began_at: Epoch seconds.
        ended_at: Epoch seconds; `None` for a period that goes on.
        part: Whether it is a part of the period before it.
    """

    what: str
    began_at: float
    ended_at: float | None
    part: bool = False


class StoryAttempt(NamedTuple):
    """One attempt of the job.

    Attributes:
        number: Number of the attempt, from 1.
        state: ``"ended"``, or AWS's word for the one that is under way.
        exit_code: Exit code of the container; `None` where no container ended.
        reason: The container's reason and AWS's, in AWS's words; empty without them.
        host: Instance with type and zone, as far as they are known.
        log_stream: CloudWatch stream of its log.
        log_link: URL of that stream in the AWS console; empty outside AWS.
    """

    number: int
    state: str
    exit_code: int | None
    reason: str
    host: str
    log_stream: str
    log_link: str


class EarlierTry(NamedTuple):
    """An earlier job of the electron that failed and was submitted again (`jobs/further_tries.py`).

    Attributes:
        number: Number of the try, from 1.
        job_id: Id of the job.
        end: Kind of its end (`ends.End`).
        attempts: How often AWS Batch started the job.
        memory_mib, queue: Memory and queue of the job.
        then: How the next try differs: ``"8 GB"``, ``"queue cirro-cpu-on-demand"``.
        reached_bytes: Most memory that it used; `None` where it was not measured.
        created_at, ended_at: Epoch seconds; `None` where AWS Batch does not know the job any more.
    """

    number: int
    job_id: str
    end: str
    attempts: int
    memory_mib: int
    queue: str
    then: str
    reached_bytes: int | None
    created_at: float | None
    ended_at: float | None


class Story(NamedTuple):
    """What is known of one electron. Empty texts and `None`: not known.

    Attributes:
        dispatch_id, lattice, node_id, electron: Ids and names of the electron.
        arguments: What it was called with.
        state: State of its newest job in AWS's word, or `states.CANCELLED`; from the outcome where AWS does not know
            the job any more.
        end: Kind of its end (`ends.End`); empty before the end.
        why: Why it waits or failed, in AWS's or the runner's words.
        not_reused: Why no results of an earlier dispatch were reused; empty if that was not asked for.
        missing_modules: Modules that it imports and that its job does not find.
        advice: What to do, with the figure to set; empty where the traceback says all.
        error: The first lines of its traceback.
        periods: Its periods, in order.
        attempts: Attempts of the newest job.
        job_id, queue, definition, image, call_uri, log_group: Names and ids of the newest job.
        vcpus, memory_mib, gpus, time_limit_s, attempts_allowed: What the newest job asked for, each node of it.
        usage: What it used, from the outcome.
        python, cloudpickle: Versions in its container.
        exit_code: Exit code of its last container.
        tried: Earlier tries.
        earlier_jobs: Ids and states of other jobs of its calls; mostly none.
        links: URLs in the AWS console by what they show; empty outside AWS.
        jobs: Jobs of a map by state; empty for any other electron.
        items: How many items of a map are done and have failed; empty where that is not known.
        num_nodes: Nodes of a multi-node job; 0 for any other electron.
        node_states: These nodes by state; empty for any other electron.
        peak_node: The node of such a job that used most memory; `None` where that is not known.
        raised: How its size was raised to one that Fargate has; empty where it was not.
        platform: ``"EC2"`` or ``"FARGATE"``.
        environment: Variables of its container that only the electron has, by name.
        secrets: Where secrets of its container are, by the names of their variables; never a value.
        extras: Share, tags and properties of the newest job's own, as texts by name (`job_extras.extras`).
    """

    dispatch_id: str
    lattice: str
    node_id: int
    electron: str
    arguments: Arguments
    state: str
    end: str
    why: str
    not_reused: str
    missing_modules: tuple[str, ...]
    advice: str
    error: str
    periods: tuple[Period, ...]
    attempts: tuple[StoryAttempt, ...]
    job_id: str
    queue: str
    definition: str
    image: str
    call_uri: str
    log_group: str
    vcpus: float | None
    memory_mib: int | None
    gpus: int | None
    time_limit_s: int | None
    attempts_allowed: int | None
    usage: Usage | None
    python: str
    cloudpickle: str
    exit_code: int | None
    tried: tuple[EarlierTry, ...]
    earlier_jobs: tuple[tuple[str, str], ...]
    links: dict[str, str]
    jobs: str = ""
    items: str = ""
    num_nodes: int = 0
    node_states: str = ""
    peak_node: int | None = None
    raised: str = ""
    platform: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    extras: Mapping[str, str] = {}


class Site(NamedTuple):
    """Region of the jobs, and its partition for links to the AWS console; the partition is empty outside AWS."""

    region: str
    partition: str


def tell(
    electron: Electron,
    settings: Settings,
    site: Site,
    *,
    turn: JobWait | None = None,
    hosts: Mapping[str, Instance] | None = None,
    items: ItemCounts | None = None,
) -> Story:
    """Make a story.

    Args:
        electron: The electron.
        settings: The executor's settings, for what AWS does not say.
        site: Region of its job.
        turn: What its job waits for, if it waits and the reason is known.
        hosts: Instances of its attempts, as far as they are known, by `states.Attempt.host`.
        items: Its items, if it is a map and they are known.
    """
    of, record = electron.newest, electron.record
    outcome, detail = of.outcome, record.detail if record else None
    result = next((each for each in outcome.results if each.node_id == electron.node_id), None) if outcome else None
    # While the job goes on, the outcome is that of an earlier attempt, whose failure does not count.
    goes_on = record is not None and not record.has_ended
    failure = result.failure if result is not None and not goes_on else None
    state = _state(of, record)
    evidence = Evidence(detail, failure, outcome.usage if outcome else None, outcome.attempt if outcome else 0)
    explanation = explanations.explain(evidence, settings, electron.name, electron.node_id, explanations.JobLinks())
    every = [each for call in electron.calls for each in call.records]
    tried = _tried(of, every)
    shown = failure if state != CANCELLED else None
    lines = shown.traceback.strip().splitlines()[:TRACEBACK_LINES] if shown is not None else []
    return Story(
        dispatch_id=electron.dispatch_id,
        lattice=next((each.lattice for each in reversed(every) if each.lattice), ""),
        node_id=electron.node_id,
        electron=electron.name,
        arguments=electron.arguments,
        state=state,
        end=explanation.end.value if state in (*TERMINAL_STATES, CANCELLED) else "",
        why=str(turn.reason) if turn is not None else _why(of, record, state, explanations.failure_words(evidence)),
        not_reused=of.call.not_reused if of.call is not None and of.reused is None else "",
        missing_modules=detail.missing_modules if detail is not None else (),
        advice=explanation.next_step if state == JobState.FAILED.value else "",
        error="\n".join(texts.cut(line, LINE_CHARS) for line in lines),
        periods=tuple(_periods(of, record)),
        attempts=tuple(_tries(of, record, site, hosts or {})),
        job_id=record.job_id if record else outcome.job_id if outcome else "",
        queue=detail.queue if detail else "",
        definition=record.definition if record else "",
        image=detail.image if detail else "",
        call_uri=of.place.call_uri,
        log_group=detail.log_group if detail else "",
        vcpus=detail.vcpus or None if detail else None,
        memory_mib=detail.memory_mib or None if detail else None,
        gpus=detail.gpus if detail else None,
        time_limit_s=detail.time_limit_s or None if detail else None,
        attempts_allowed=detail.max_attempts or None if detail else None,
        usage=outcome.usage if outcome else None,
        python=outcome.python if outcome else "",
        cloudpickle=outcome.cloudpickle if outcome else "",
        exit_code=detail.exit_code if detail else None,
        tried=tried,
        earlier_jobs=tuple(
            (each.job_id, each.state)
            for each in every
            if each is not record and each.job_id not in {one.job_id for one in tried}
        ),
        links=_links(record, site),
        jobs=map_progress.jobs_line(detail) if detail is not None else "",
        items="" if items is None else map_progress.items_line(items, _began(detail)),
        num_nodes=detail.num_nodes if detail is not None else 0,
        node_states=compute_nodes.nodes_line(detail) if detail is not None else "",
        peak_node=_peak_node(outcome),
        raised=detail.raised if detail is not None else "",
        platform=detail.platform if detail is not None else "",
        environment=tuple(detail.environment.items()) if detail is not None else (),
        secrets=tuple(detail.secrets.items()) if detail is not None else (),
        extras=dict(detail.extras) if detail is not None else {},
    )


def document(story: Story) -> dict[str, Any]:
    """The story for programs: plain JSON, times in epoch seconds."""
    return {
        **story._asdict(),
        "arguments": dict(story.arguments),
        "environment": dict(story.environment),
        "secrets": dict(story.secrets),
        "periods": [period._asdict() for period in story.periods],
        "attempts": [each._asdict() for each in story.attempts],
        "usage": None if story.usage is None else {**story.usage._asdict(), "gpus": list(story.usage.gpus)},
        "tried": [each._asdict() for each in story.tried],
        "earlier_jobs": [{"job_id": job_id, "state": state} for job_id, state in story.earlier_jobs],
    }


def _began(detail: JobDetail | None) -> float | None:
    return None if detail is None else detail.started_at or detail.created_at


def _peak_node(outcome: Outcome | None) -> int | None:
    known = {each.number: each.peak_memory_bytes or 0 for each in outcome.nodes} if outcome is not None else {}
    return max(known, key=lambda number: known[number]) if any(known.values()) else None


def _tried(of: CallHistory, records: list[Record]) -> tuple[EarlierTry, ...]:
    known = {record.job_id: record.detail for record in records}
    found = []
    for number, each in enumerate(of.call.tried if of.call is not None else (), 1):
        detail = known.get(each.job_id)
        found.append(
            EarlierTry(
                number=number,
                job_id=each.job_id,
                end=each.end,
                attempts=each.attempts,
                memory_mib=each.memory_mib,
                queue=each.queue,
                then=tries.what_next(each),
                reached_bytes=each.reached_bytes,
                created_at=detail.created_at if detail is not None else None,
                ended_at=detail.stopped_at if detail is not None else None,
            )
        )
    return tuple(found)


def _state(of: CallHistory, record: Record | None) -> str:
    if of.reused is not None:
        return REUSED
    if record is not None:
        return shown_state(record.detail)
    if of.outcome is None:
        return WITHOUT_JOB
    return JobState.SUCCEEDED.value if of.outcome.succeeded else JobState.FAILED.value


def _why(of: CallHistory, record: Record | None, state: str, failure: str) -> str:
    if of.problem and of.outcome is None:
        return of.problem
    if of.reused is not None:
        return origin_text(of.reused)
    if state == WITHOUT_JOB:
        return NOBODY_KNOWS
    if record is not None and state == CANCELLED:
        return sentences(f"It was cancelled {cancelled_how(record.detail)}.", of.problem)
    said = [failure]
    if record is not None and state != JobState.SUCCEEDED.value:
        last = record.attempts[-1] if record.attempts else None
        words = (record.detail.status_reason, last.status_reason if last else "", record.detail.reason)
        aws = "; ".join(dict.fromkeys(each.rstrip(".") for each in words if each))
        said += [f"AWS Batch says: {aws}."] if aws else []
        if record.detail.terminated and not record.has_ended:
            said.append("It is being stopped.")
    return sentences(*said, of.problem)


def _periods(of: CallHistory, record: Record | None) -> list[Period]:
    found: list[Period] = []
    times = of.outcome.times if of.outcome is not None else {}
    parts = [
        Period(what, times[begin], times[end], part=True)
        for begin, end, what in MILESTONES
        if begin in times and end in times
    ]
    with_parts = of.outcome.attempt if of.outcome is not None else 0
    if record is None:
        if "started" in times and "stored" in times:
            found = [Period(f"attempt {with_parts}", times["started"], times["stored"]), *parts]
        return found
    detail = record.detail
    waits_since = detail.created_at
    # Clocks of two machines; and the id of a further try (`jobs/further_tries.py`) does not tell when it was made.
    if waits_since is not None and of.place.made_at <= waits_since and not _is_further_try(of):
        found.append(Period("upload", of.place.made_at, waits_since))
    for number, attempt in enumerate(record.attempts, 1):
        if attempt.began_at is not None:
            if waits_since is not None:
                found.append(Period("waiting", waits_since, attempt.began_at))
            found.append(Period(f"attempt {number}", attempt.began_at, attempt.ended_at))
            if number == with_parts:
                started_at = times.get("started", attempt.began_at)
                if started_at > attempt.began_at:
                    found.append(Period("starting the container", attempt.began_at, started_at, part=True))
                found += parts
        waits_since = attempt.ended_at or waits_since
    if record.state == JobState.RUNNING.value and detail.started_at is not None:
        if waits_since is not None:
            found.append(Period("waiting", waits_since, detail.started_at))
        found.append(Period(f"attempt {record.attempt}", detail.started_at, None))
    elif not record.has_ended and waits_since is not None:
        found.append(Period("waiting", waits_since, None))
    elif not record.attempts and detail.created_at is not None:
        found.append(Period("waiting", detail.created_at, detail.stopped_at))
    return found


def _is_further_try(of: CallHistory) -> bool:
    return of.call is None or bool(of.call.tried)


def _tries(of: CallHistory, record: Record | None, site: Site, hosts: Mapping[str, Instance]) -> list[StoryAttempt]:
    facts = of.outcome.host if of.outcome is not None else {}
    known = [facts[key] for key in ("instance_type", "zone", "instance_id") if facts.get(key)]
    written_by = of.outcome.attempt if of.outcome is not None else 0

    def host(number: int, named: str) -> str:
        if number == written_by and known:
            return ", ".join(known)
        return ", ".join(each for each in hosts[named] if each) if named in hosts else named

    if record is not None and record.detail.array_size:
        return []  # its jobs have attempts
    if record is None:
        return (
            [StoryAttempt(written_by, "ended", None, "", host(written_by, ""), "", "")]
            if of.outcome is not None
            else []
        )

    def link(stream: str) -> str:
        return console_links.log_url(site.partition, record.log_region or site.region, record.detail.log_group, stream)

    tries = [
        StoryAttempt(
            number=number,
            state="ended",
            exit_code=each.exit_code,
            reason="; ".join(dict.fromkeys(part for part in (each.reason, each.status_reason) if part)),
            host=host(number, each.host),
            log_stream=each.log_stream,
            log_link=link(each.log_stream),
        )
        for number, each in enumerate(record.attempts, 1)
    ]
    if record.has_machine:
        stream = record.detail.log_stream if record.state == JobState.RUNNING.value else ""
        number = record.attempt
        tries.append(StoryAttempt(number, record.state, None, "", host(number, record.host), stream, link(stream)))
    return tries


def _links(record: Record | None, site: Site) -> dict[str, str]:
    if record is None:
        return {}
    detail = record.detail
    found = {
        "job": console_links.job_url(site.partition, site.region, record.job_id),
        "log": console_links.log_url(
            site.partition, record.log_region or site.region, detail.log_group, detail.log_stream
        ),
    }
    return {name: url for name, url in found.items() if url}
