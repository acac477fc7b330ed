"""Publishes the outcome of a call: once, whatever other attempts of the job do meanwhile.

Knows what an outcome that is there already stands for; it must not know how an electron is run. It is loaded when it
is needed, so that no electron waits for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from covalent_cirro import documents, protocol
from covalent_cirro.protocol import Outcome
from covalent_cirro.runner import outcomes, s3

if TYPE_CHECKING:
    from covalent_cirro.runner.s3_client import Client

_TRIES = 5
_CONFLICT_PAUSE_S = 0.3


class NotOurs(Exception):
    """What stands where the outcome belongs is not an outcome of this call."""


class NotStored(Exception):
    """The outcome could not be stored."""


def code_of(document: bytes, call_id: str, attempt: int) -> int | None:
    """The exit code that an outcome which is there stands for; `None` if this attempt has to do better.

    Raises:
        NotOurs: It is not an outcome, or one of another call.
    """
    try:
        outcome = documents.parse_outcome(document)
    except protocol.ProtocolError as error:
        raise NotOurs(f"the outcome that is there is not one: {error}") from error
    if outcome.call_id != call_id:
        raise NotOurs(f"the outcome that is there is of another call, {outcome.call_id}")
    if outcome.attempt < attempt and not outcomes.is_final(outcome):
        return None
    return outcomes.exit_code(outcome.results)


def publish(client: Client, where: protocol.Location, outcome: Outcome, earlier: s3.Answer | None) -> int | None:
    """Write the outcome, once.

    Args:
        client: S3.
        where: The call's place.
        outcome: The outcome.
        earlier: The outcome of an earlier attempt, to be replaced.

    Returns:
        `None` if it stands; otherwise the exit code of the one that stands in its place.

    Raises:
        NotStored: There is no way.
        NotOurs: Something else came to stand there.
    """
    data = documents.dump_outcome(outcome)
    bucket, key = where.bucket, where.outcome_key
    condition = {"If-None-Match": "*"} if earlier is None else {"If-Match": earlier.etag}
    for tries_left in reversed(range(_TRIES)):
        try:
            client.put(bucket, key, data, condition).result()
            return None
        except s3.ConditionFailed:
            # An overlapping attempt published, or our own PUT came through although its answer did not.
            try:
                there = client.get(bucket, key).result()
            except s3.S3Error as error:
                raise NotStored(f"there is an outcome already, and it cannot be read: {error}") from error
            code = code_of(there.body, outcome.call_id, outcome.attempt)
            if code is not None:
                return code
            condition = {"If-Match": there.etag}
        except s3.S3Error as error:
            if tries_left == 0 or (error.status is not None and error.status not in (404, 409) and error.status < 500):
                raise NotStored(f"cannot store the outcome: {error}") from error
            if error.status == 404:
                # What If-Match spoke of has gone.
                condition = {"If-None-Match": "*"}
            time.sleep(_CONFLICT_PAUSE_S)
    raise NotStored("cannot store the outcome: other attempts kept writing it")
