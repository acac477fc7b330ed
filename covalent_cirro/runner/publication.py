"""Stores the outcome of a call exactly once, whatever other attempts of the job, or other jobs, do meanwhile.

No object is ever overwritten, and the job role does not allow it (``infra/roles.yaml``). If ``outcome.json`` exists
already, from an earlier attempt that may be repeated or from another job, the attempt's outcome gets a key of its own.
This module must not know how an electron is run. It is imported when it is needed, so that no electron waits for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from covalent_cirro.contract import documents, problems
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Outcome
from covalent_cirro.runner import exits
from covalent_cirro.runner.s3 import answers

if TYPE_CHECKING:
    from covalent_cirro.runner.job_identity import JobIdentity
    from covalent_cirro.runner.s3.job_bucket import JobBucket
    from covalent_cirro.runner.s3.s3_client import Client

_TRIES = 5
_CONFLICT_PAUSE_S = 0.3
_ONLY_IF_NEW = {"If-None-Match": "*"}


class NotStored(Exception):
    """The outcome could not be stored."""


def published(job: JobIdentity, bucket: JobBucket) -> int | None:
    """The exit code of an earlier attempt's outcome; `None` if this attempt has to run.

    Args:
        job: Which job and attempt this is.
        bucket: The bucket of the call.

    Raises:
        s3.S3Error: S3 cannot be read.
    """
    where, mac_key, attempt = job.where, job.mac_key, job.attempt
    keys = [where.outcome_key, *(where.attempt_key(mac_key, earlier) for earlier in range(2, attempt))]
    for key in keys:
        data = bucket.find(key)
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


def publish(outcome: Outcome, job: JobIdentity, bucket: JobBucket) -> int | None:
    """Store the outcome, once.

    Args:
        outcome: The outcome.
        job: Which job has it.
        bucket: The bucket of the call. If it has no client yet, and the request is simple, none is made.

    Returns:
        `None` if this outcome was stored; otherwise the exit code of the outcome that was there first.

    Raises:
        NotStored: S3 took it under no key.
    """

    where, mac_key = job.where, job.mac_key
    data = documents.dump_outcome(outcome, mac_key)
    if bucket.made is None and bucket.quick.put_new(where.bucket, where.outcome_key, data):
        return None
    client = bucket.client()

    def get(key: str) -> bytes | None:
        try:
            return client.get(where.bucket, key).result().body
        except answers.S3Error as error:
            raise NotStored(f"there is an outcome already, and it cannot be read: {error}") from error

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
