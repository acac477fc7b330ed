"""The nodes of a multi-node parallel job, and what they say of the job. Pure.

DescribeJobs shows the job without a container: its exit code, log and attempts are those of the main node, whose id is
``<id>#0`` (Batch User Guide, Multi-node parallel jobs).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from covalent_cirro.jobs.ends import OUT_OF_MEMORY
from covalent_cirro.jobs.states import JobDetail, JobState

MAIN_NODE = 0

MAX_SEEN = 100
"""Nodes of a job that are described, at most: as many as one DescribeJobs call takes."""

_BEFORE = (JobState.SUBMITTED.value, JobState.PENDING.value, JobState.RUNNABLE.value)


def node_id(job_id: str, number: int) -> str:
    """Id of a node of a job."""
    return f"{job_id}#{number}"


def number_of_node(job_id: str) -> int:
    """Number of the node that has this id; that of the main node for the id of a job."""
    return int(job_id.partition("#")[2] or MAIN_NODE)


def ids_to_describe(details: Iterable[JobDetail]) -> list[str]:
    """Ids of the nodes of those jobs that have, or had, machines."""
    begun = [each for each in details if each.num_nodes > 1 and (each.state not in _BEFORE or each.attempts)]
    return [node_id(each.job_id, number) for each in begun for number in range(min(each.num_nodes, MAX_SEEN))]


def with_nodes(detail: JobDetail, nodes: Mapping[str, JobDetail]) -> JobDetail:
    """A job with what its nodes say: the main node's end and log, and how many nodes are in each state.

    Where a node ran out of memory, that is the reason: the main node ended because of it.

    Args:
        detail: The job; any other than a multi-node job is returned as it is.
        nodes: Described nodes by id.
    """
    if detail.num_nodes < 2:
        return detail
    main = nodes.get(node_id(detail.job_id, MAIN_NODE))
    if main is not None:
        detail = detail._replace(
            exit_code=main.exit_code if detail.exit_code is None else detail.exit_code,
            reason=detail.reason or main.reason,
            log_stream=main.log_stream or detail.log_stream,
            attempts=detail.attempts or main.attempts,
            started_at=detail.started_at or main.started_at,
        )
    own = [nodes[each] for number in range(detail.num_nodes) if (each := node_id(detail.job_id, number)) in nodes]
    reasons = (each.reason for each in own if each.reason.startswith(OUT_OF_MEMORY))
    counts = Counter(each.state for each in own)
    known = [state.value for state in JobState if counts[state.value]]
    return detail._replace(
        reason=next(reasons, detail.reason), node_states=tuple((state, counts[state]) for state in known)
    )


def nodes_line(detail: JobDetail) -> str:
    """The nodes of a job by state: ``4: 3 RUNNING, 1 STARTING``; empty for a job of one machine."""
    if detail.num_nodes < 2:
        return ""
    states = ", ".join(f"{count:,} {state}" for state, count in detail.node_states)
    return f"{detail.num_nodes:,}: {states}" if states else f"{detail.num_nodes:,}"
