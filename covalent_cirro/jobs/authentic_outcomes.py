"""Checks whether the document at an outcome's key was written by the job of that call. Pure.

Any job of a deployment may write outcomes (``infra/roles.yaml``). The message authentication code shows which one the
call's own job wrote: its key can be read from AWS Batch only, and no job may ask AWS Batch. This module must not know
who reads an outcome, or why.
"""

from __future__ import annotations

from covalent_cirro.contract.documents import parse_outcome
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Outcome
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs.states import JobDetail

JOBS_KEPT_S = 7 * 24 * 3600.0
"""AWS Batch describes a job for at least this long after its end (User Guide, Job states)."""

MAX_ATTEMPTS = 10
"""Attempts that a job may have (Batch API Reference, RetryStrategy)."""


def outcome_of(data: bytes, place: Location) -> Outcome:
    """Parse an outcome, and check that it is of a call.

    Args:
        data: The object at the call's ``outcome_key``, or at one of its ``attempt_key``.
        place: Location of the call.

    Raises:
        OutcomeError: It is malformed, of another format, or of another call.
    """
    where = f"s3://{place.bucket}/{place.outcome_key}"
    try:
        outcome = parse_outcome(data)
    except ProtocolError as error:
        raise OutcomeError(f"The outcome of the job was refused, its form is wrong: {error} ({where})") from error
    if outcome.call_id != place.call_id:
        raise OutcomeError(f"The outcome at {where} is of call {outcome.call_id}, not {place.call_id}; it was refused.")
    if not outcome.is_of(place.call_id, place.child_index, place.compute_node):
        raise OutcomeError(
            f"The outcome at {where} is of job {outcome.job_id}, another one of the map; it was refused."
        )
    return outcome


def later_attempts(outcome: Outcome | None, mac_key: str, detail: JobDetail | None) -> range:
    """Attempts whose own outcomes may count instead of the one in ``outcome.json``, the latest first.

    Args:
        outcome: The outcome in ``outcome.json``; `None` where that is not an outcome of the call.
        mac_key: Key with which the job authenticates its outcomes.
        detail: What AWS Batch says of the job; `None` where that is not known.
    """
    if outcome is not None and outcome.is_authentic(mac_key):
        if outcome.is_final:
            return range(0)
        first = outcome.attempt + 1
    else:
        first = 1
    last = MAX_ATTEMPTS if detail is None or not detail.is_terminal else min(len(detail.attempts), MAX_ATTEMPTS)
    return range(last, first - 1, -1)


def refused(place: Location, outcome: Outcome, detail: JobDetail | None) -> OutcomeError:
    """The error about an outcome that no job of the call wrote.

    Args:
        detail: What AWS Batch says of the job that the outcome names; `None` where it does not know that job.
    """
    named = f"job {outcome.job_id!r}" if outcome.job_id else "no job"
    if detail is None:
        why = f"it names {named}, which AWS Batch does not know"
    elif detail.mac_key_of(place) is None:
        why = f"it names {named}, which is not a job of this call"
    else:
        why = f"it names {named}, but was not written with that job's key"
    return OutcomeError(
        f"The outcome at s3://{place.bucket}/{place.outcome_key} was refused: {why}. Another job, which may write to "
        "the bucket, has put it there: look at what ran with the same job role, then dispatch again."
    )
