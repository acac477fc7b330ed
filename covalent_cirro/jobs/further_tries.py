"""Whether a failed electron is submitted again by the executor, and with what: more memory, or no Spot. Pure.

The decision follows from the job's detail alone, and the next call's id from the id of the call before it: a server
that was restarted decides the same, and finds the job that the earlier server submitted.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import Call, Outcome, Tried
from covalent_cirro.jobs.ends import End, Evidence, end_of
from covalent_cirro.jobs.explanations import memory_left_to_ask_gb
from covalent_cirro.jobs.formatting import GIB, option_memory
from covalent_cirro.jobs.states import JobDetail, JobState
from covalent_cirro.settings import MIB_PER_GB, Settings

_TIME_CHARS = 12
_DIGEST_CHARS = 8
"""A call's id is its time in ms and 32 random bits, both in hex (`call_writer.new_call_id`)."""


class NextTry(NamedTuple):
    """A further try.

    Attributes:
        settings: Settings of the next job.
        tried: The try that failed, with what the next one asks for.
    """

    settings: Settings
    tried: Tried


def may_help(detail: JobDetail, settings: Settings) -> bool:
    """Whether a further try is possible; if not, the outcome need not be read."""
    if detail.state != JobState.FAILED.value or detail.terminated:
        return False
    return settings.memory_max is not None or settings.on_demand_queue is not None


def evidence_of(detail: JobDetail, outcome: Outcome | None) -> Evidence:
    """How a call ended, by its first electron that failed itself: others were not run because of it."""
    if outcome is None:
        return Evidence(detail)
    failures = [result.failure for result in outcome.results if result.failure is not None]
    failure = next((each for each in failures if each.kind != Kind.NOT_RUN), None)
    return Evidence(detail, failure, outcome.usage, outcome.attempt)


def next_try(evidence: Evidence, settings: Settings, call_id: str) -> NextTry | None:
    """The next try of a call's electrons; `None` if they are not submitted again.

    A job that somebody terminated is not submitted again.

    Args:
        evidence: How the call's job ended, from `evidence_of`.
        settings: The executor's settings.
        call_id: Id of the call.
    """
    detail = evidence.detail
    if detail is None or not may_help(detail, settings):
        return None
    end = end_of(evidence)
    memory_mib = detail.memory_mib or settings.memory_mib
    queue = settings.on_demand_queue
    on_demand = queue is not None and is_queue(detail.queue, queue)
    reached = evidence.usage.peak_memory_bytes if evidence.usage is not None else None
    next_mib = memory_mib
    if end == End.OUT_OF_MEMORY:
        asked_gb = memory_left_to_ask_gb(memory_mib / MIB_PER_GB, reached, settings.memory_max)
        if asked_gb is None:
            return None
        next_mib = int(asked_gb * MIB_PER_GB)
    elif end == End.HOST_LOST:
        if queue is None or on_demand:
            return None
        on_demand = True
    else:
        return None
    then = dataclasses.replace(settings, memory=next_mib / MIB_PER_GB, on_demand=on_demand)
    tried = Tried(
        call_id=call_id,
        job_id=detail.job_id,
        end=end.value,
        attempts=max(1, len(detail.attempts)),
        memory_mib=memory_mib,
        queue=detail.queue,
        reached_bytes=reached,
        next_memory_mib=next_mib,
        next_queue=then.queue.rsplit("/", 1)[-1],
    )
    return NextTry(then, tried)


def on_demand(settings: Settings) -> Settings:
    """The settings with the on-demand queue."""
    return dataclasses.replace(settings, on_demand=True)


def is_queue(name: str, name_or_arn: str) -> bool:
    """Whether a queue's name is that of a setting, which has a name or an ARN."""
    return name == name_or_arn.rsplit("/", 1)[-1]


# --- calls ----------------------------------------------------------------------------------------------------------


def next_call_id(call_id: str) -> str:
    """The id of the call that tries a call again. It follows from ``call_id`` alone, so that it need not be stored.

    Its time is a millisecond later, so that it sorts after ``call_id``.
    """
    begin = int(call_id[:_TIME_CHARS], 16) + 1
    digest = hashlib.sha256(f"next try of {call_id}".encode()).hexdigest()
    return f"{begin:0{_TIME_CHARS}x}{digest[:_DIGEST_CHARS]}"


def next_call(call: Call, tried: Tried) -> Call:
    """The call that tries a call again, with the same electrons and inputs, whose blobs are in S3 already."""
    return call._replace(call_id=next_call_id(call.call_id), tried=(*call.tried, tried))


def chains(call_ids: Iterable[str]) -> list[list[str]]:
    """Ids of an electron's calls, in chains of calls that try one another again; each chain oldest first."""
    known = set(call_ids)
    after = {call_id: _next_or_none(call_id) for call_id in known}
    firsts = sorted(known.difference(after.values()))
    return [[call_id, *following(call_id, after)] for call_id in firsts]


def following(call_id: str, call_ids: Container[str]) -> list[str]:
    """Those of the calls that try the given one again, oldest first."""
    found: list[str] = []
    while (after := _next_or_none(call_id)) in call_ids:
        found.append(after)
        call_id = after
    return found


def _next_or_none(call_id: str) -> str:
    try:
        return next_call_id(call_id)
    except ValueError:  # an id of another form has no next try
        return ""


# --- texts ---------------------------------------------------------------------------------------------------------


def what_happened(tried: Tried) -> str:
    """What follows the electron's name: ``ran out of memory at 4 GB in job ...``."""
    if tried.end == End.OUT_OF_MEMORY.value:
        reached = f" (it had reached {tried.reached_bytes / GIB:.2f} GB)" if tried.reached_bytes else ""
        return f"ran out of memory at {option_memory(tried.memory_mib)} GB{reached} in job {tried.job_id}"
    times = f"{tried.attempts} time{'s' if tried.attempts != 1 else ''}"
    return f"lost its host {times} in job {tried.job_id} in queue {tried.queue}"


def what_next(tried: Tried) -> str:
    """How the next try differs: ``8 GB``, or ``queue cirro-cpu-on-demand``."""
    if tried.end == End.OUT_OF_MEMORY.value:
        return f"{option_memory(tried.next_memory_mib)} GB"
    return f"queue {tried.next_queue}"


def summary(tried: Sequence[Tried]) -> str:
    """All earlier tries, and how the one after each differs, in one line of sentences; empty without any."""
    return " ".join(
        f"Try {number} {what_happened(each)}. Try {number + 1} {_has(each)}." for number, each in enumerate(tried, 1)
    )


def _has(tried: Tried) -> str:
    return f"{'has' if tried.end == End.OUT_OF_MEMORY.value else 'is in'} {what_next(tried)}"


def lines(tried: Sequence[Tried]) -> str:
    """A line for each earlier try, for the electron's stderr: what failed, and which setting avoids that try."""
    told = []
    for number, each in enumerate(tried, 1):
        if each.end == End.OUT_OF_MEMORY.value:
            saves = f"memory={option_memory(each.next_memory_mib)} on its executor"
        else:
            saves = f"batch_queue={each.next_queue!r} (with GPUs: batch_gpu_queue) on its executor"
        told.append(
            f"covalent-cirro: try {number} {what_happened(each)}. Try {number + 1} {_has(each)}. Next time, "
            f"{saves} saves this try.\n"
        )
    return "".join(told)
