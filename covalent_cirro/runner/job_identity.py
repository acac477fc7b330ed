"""Which job this is: its call, its place among the jobs of that call, and its attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from covalent_cirro.contract import places


class JobIdentity(NamedTuple):
    """Which job this is.

    Attributes:
        where: Location of the call; for a job of an array, of this child; for a node that is not the main one, of it.
        mac_key: MAC key of the job.
        attempt: AWS_BATCH_JOB_ATTEMPT, from 1.
        job_id: AWS's id of the job; of the main node of a multi-node job, that of the whole job.
    """

    where: places.Location
    mac_key: str
    attempt: int
    job_id: str


def identify(argument: str, environ: Mapping[str, str]) -> JobIdentity:
    """The job that the runner was started for.

    Args:
        argument: Argument of the job, from `places.call_argument`.
        environ: The environment, with AWS Batch's variables.

    Raises:
        ProtocolError: The argument is malformed.
    """
    call, mac_key = places.parse_call_argument(argument)
    number = environ.get("AWS_BATCH_JOB_ATTEMPT", "")
    attempt = int(number) if number.isdigit() else 1
    index = environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "")
    where = call.child(int(index)) if index.isdigit() else call
    node = environ.get("AWS_BATCH_JOB_NODE_INDEX", "")
    if node.isdigit() and node != environ.get("AWS_BATCH_JOB_MAIN_NODE_INDEX"):
        where = call.on_node(int(node), attempt)
    job_id = environ.get("AWS_BATCH_JOB_ID", "")
    if where.compute_node is None:
        job_id = job_id.partition("#")[0]
    return JobIdentity(where, mac_key, attempt, job_id)
