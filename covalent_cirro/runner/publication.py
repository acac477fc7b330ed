"""Stores the outcome of a call exactly once, whatever other attempts of the job, or other jobs, do meanwhile.

No object is ever overwritten, and the job role does not allow it (``infra/roles.yaml``). If ``outcome.json`` exists
already, from an earlier attempt that may be repeated or from another job, the attempt's outcome gets a key of its own.
This module must not know how an electron is run. It is imported when it is needed, so that no electron waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from covalent_cirro.contract import documents, problems
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Outcome
from covalent_cirro.runner import exits
from covalent_cirro.runner.s3 import answers

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.quick_requests import QuickRequests
    from covalent_cirro.runner.s3.s3_client import Client

_TRIES = 5
_CONFLICT_PAUSE_S = 0.3
_ONLY_IF_NEW = {"If-None-Match": "*"}

Get = Callable[[str], bytes | None]
"""Reads an object of the call's bucket by its key; `None` if it does not exist."""


class NotStored(Exception):
    """The outcome could not be stored."""


def published(get: Get, where: Location, mac_key: str, attempt: int) -> int | None:
    """The exit code of an earlier attempt's outcome; `None` if this attempt has to run.

    Args:
        get: Reads from the call's bucket.
        where: Location of the call.
        mac_key: MAC key of the job.
        attempt: This attempt, from 1.

    Raises:
        s3.S3Error: S3 cannot be read.
    """
    keys = [where.outcome_key, *(where.attempt_key(mac_key, earlier) for earlier in range(2, attempt))]
    for key in keys:
        data = get(key)
        outcome = None if data is None else _own(data, where, mac_key)
        if outcome is not None and (outcome.is_final or outcome.attempt >= attempt):
            return exits.exit_code(outcome.results)
    return None


def _own(data: bytes, where: Location, mac_key: str) -> Outcome | None:
    """The outcome, if this call's job wrote it; `None` otherwise."""
    try:
        outcome = documents.parse_outcome(data)
    except problems.ProtocolError:
        return None
    return (
        outcome
        if outcome.is_of(where.call_id, where.child_index, where.compute_node) and outcome.is_authentic(mac_key)
        else None
    )


def publish(
    make_client: Callable[[], Client], where: Location, outcome: Outcome, mac_key: str, quick: QuickRequests | None
) -> int | None:
    """Store the outcome, once.

    Args:
        make_client: Returns the S3 client.
        where: Location of the call.
        outcome: The outcome.
        mac_key: MAC key of the job.
        quick: Writes it where that is simple, so that no client has to be made; `None` if there is a client already.

    Returns:
        `None` if this outcome was stored; otherwise the exit code of the outcome that was there first.

    Raises:
        NotStored: S3 took it under no key.
    """

    def get(key: str) -> bytes | None:
        try:
            return client.get(where.bucket, key).result().body
        except answers.S3Error as error:
            raise NotStored(f"there is an outcome already, and it cannot be read: {error}") from error

    data = documents.dump_outcome(outcome, mac_key)
    if quick is not None and quick.put_new(where.bucket, where.outcome_key, data):
        return None
    client = make_client()
    for key in (where.outcome_key, where.attempt_key(mac_key, outcome.attempt)):
        if _put(client, where.bucket, key, data):
            return None
        there = get(key)
        if there == data:  # our own PUT succeeded although its answer was lost
            return None
        stands = None if there is None else _own(there, where, mac_key)
        if stands is not None and (stands.is_final or stands.attempt >= outcome.attempt):
            return exits.exit_code(stands.results)
    raise NotStored(
        f"cannot store the outcome: other objects are at its two keys under s3://{where.bucket}/{where.base}"
    )


def _put(client: Client, bucket: str, key: str, data: bytes) -> bool:
    """Write an object that does not exist yet; False if it exists."""
    for tries_left in reversed(range(_TRIES)):
        try:
            client.put(bucket, key, data, _ONLY_IF_NEW).result()
            return True
        except answers.ConditionFailed:
            return False
        except answers.S3Error as error:
            passes = error.status is None or error.status == 409 or error.status >= 500
            if tries_left == 0 or not passes:
                raise NotStored(f"cannot store the outcome: {error}") from error
            time.sleep(_CONFLICT_PAUSE_S)
    raise AssertionError("the last try returns or raises")
