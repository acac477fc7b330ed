"""Whether what lies where an outcome belongs is that call's outcome. Pure; it must not know who reads it, or why."""

from __future__ import annotations

from covalent_cirro.documents import parse_outcome
from covalent_cirro.errors import OutcomeError
from covalent_cirro.protocol import Location, Outcome, ProtocolError


def outcome_of(data: bytes, place: Location) -> Outcome:
    """The outcome of the call at a place.

    Args:
        data: What lies at its ``outcome_key``.
        place: The call's.

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
    return outcome
