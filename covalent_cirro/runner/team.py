"""The compute nodes of a multi-node job: how they meet, and how each learns what became of the others.

The main node listens on a port, and stores an object that says on which. Each other node reads that object, connects,
and shows that it knows the key of the job. When all are there, the main node tells them where the processes of the
electron find one another. The connections stay: a node that fails says so, and the connection of a lost one ends
(docs/decisions/0026). The runner's loop looks at them once a second; there is no thread.

`main_node.py` and `other_node.py` have the two sides, `node_connection.py` what they say. Imported for distributed
electrons.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.runner.main_node import MainNode
from covalent_cirro.runner.node_connection import Meeting, NotMet, free_port
from covalent_cirro.runner.other_node import OtherNode
from covalent_cirro.runner.ranks import Placement
from covalent_cirro.runner.sigterm import Sigterm
from covalent_cirro.runner.times import times_of

if TYPE_CHECKING:
    from covalent_cirro.contract.protocol import Call
    from covalent_cirro.runner.job_identity import JobIdentity
    from covalent_cirro.runner.s3.job_bucket import JobBucket

Team = MainNode | OtherNode


def make_team(count: int, job: JobIdentity, bucket: JobBucket, environ: Mapping[str, str], sigterm: Sigterm) -> Team:
    """This node's side of the job.

    Args:
        count: Number of nodes that the call is for.
        job: Which job this is, and which of its nodes.
        bucket: Has the object that says where the main node listens.
        environ: The environment, with AWS Batch's variables.
        sigterm: Ends a wait for other nodes.

    Raises:
        ProtocolError: The job has another number of nodes.
    """
    there = environ.get("AWS_BATCH_JOB_NUM_NODES", "")
    if there != str(count):
        raise ProtocolError(
            f"the call is for {count} nodes, and the job has {there or 'none'} (AWS_BATCH_JOB_NUM_NODES)"
        )
    key = job.where.meeting_key(job.job_id.partition("#")[0], job.attempt)
    wait_s = times_of(environ).nodes
    if job.where.compute_node is None:

        def store(document: bytes) -> None:
            bucket.wait(bucket.put(key, document))

        return MainNode(count, job.mac_key, store, wait_s, sigterm.check)
    address = environ.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", "")
    find = functools.partial(bucket.find, key)
    return OtherNode(job.where.compute_node, job.mac_key, find, address, wait_s, sigterm.check)


def place_processes(
    call: Call, job: JobIdentity, team: Team | None, bucket: JobBucket, sigterm: Sigterm
) -> Placement | Failure:
    """Meet the other nodes, and say where the processes of the electron on this node stand.

    Args:
        call: The call.
        job: Which job this is, and which of its nodes.
        team: This node's side of a multi-node job; `None` for any other job.
        bucket: The bucket of the call.
        sigterm: Ends the wait for the other nodes.

    Returns:
        Where they stand; why the nodes have not all met, if they have not.

    Raises:
        SigtermArrived: While this node waited.
    """
    if team is None:
        meeting = Meeting("127.0.0.1", free_port())
    else:
        bucket.client()  # before SIGTERM may interrupt its import
        try:
            with sigterm.interrupts():
                meeting = team.meet()
        except NotMet as error:
            return error.failure
    return Placement(job.where.compute_node or 0, call.num_nodes, call.processes, *meeting)
