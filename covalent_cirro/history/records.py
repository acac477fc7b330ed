"""An electron's job as AWS Batch describes it, with everything that commands show about it.

Pure: it parses answers of DescribeJobs. `jobs/ends.py` says what a job's end means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from covalent_cirro.aws.batch import REPLACED, job_tail
from covalent_cirro.contract.places import Location, parse_call_argument
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import CALL_PARAMETER
from covalent_cirro.jobs import states
from covalent_cirro.jobs.states import TERMINAL_STATES, Attempt, JobDetail, JobState
from covalent_cirro.jobs.tags import DISPATCH_TAG, ELECTRON_TAG, LATTICE_TAG, NODE_TAG

RUNNING = (JobState.RUNNING.value, JobState.STARTING.value)
"""States in which a job has an instance, and costs money."""


_NODE = re.compile(r"[0-9]{1,9}")
_DISPATCH = re.compile(r"[^/\s]{1,64}")


class Record(NamedTuple):
    """A job of an electron.

    Attributes:
        detail: State, reasons, times and resources of the job.
        dispatch_id: Id of the dispatch, from the job's tags.
        lattice: Name of the lattice, from the tags; empty without one.
        electron: Name of the electron, from the tags; of a task group, its first electron.
        node_id: Id of the electron's node, from the tags.
        call: Location of its call; `None` where the job's parameter is not the URI of a call.
        definition: Job definition, ``name:revision``.
        log_region: Region of the log group; empty for the job's own region.
        host: Host of the running attempt, as `states.Attempt.host`.
        cluster: ECS cluster of the latest attempt, as `states.Attempt.cluster`.
    """

    detail: JobDetail
    dispatch_id: str
    lattice: str
    electron: str
    node_id: int
    call: Location | None
    definition: str
    log_region: str
    host: str
    cluster: str = ""

    @property
    def has_exact_names(self) -> bool:
        """Whether the tags have the exact names of electron and lattice; else the call has them."""
        return REPLACED not in self.electron and REPLACED not in self.lattice

    @property
    def job_id(self) -> str:
        """Id of the job."""
        return self.detail.job_id

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Attempts that have ended, oldest first."""
        return self.detail.attempts

    @property
    def state(self) -> str:
        """State of the job, in AWS's word."""
        return self.detail.state

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in TERMINAL_STATES

    @property
    def has_machine(self) -> bool:
        """Whether it has an instance, or is an array of which a job has or had one."""
        return self.state in RUNNING or (self.detail.has_begun and not self.has_ended)

    @property
    def attempt(self) -> int:
        """Number of the attempt that runs or was the last; 0 where none has begun."""
        return len(self.attempts) + (1 if self.has_machine else 0)

    @property
    def since(self) -> float | None:
        """Epoch seconds since when the job runs, waits or has ended; `None` if unknown."""
        detail = self.detail
        if self.has_ended:
            return detail.stopped_at or detail.started_at or detail.created_at
        if self.state == JobState.RUNNING.value:
            return detail.started_at or detail.created_at
        # A job that AWS Batch tries again waits since the end of its last attempt.
        last = self.attempts[-1].ended_at if self.attempts else None
        return last or detail.created_at

    @property
    def log_streams(self) -> tuple[str, ...]:
        """CloudWatch streams of its attempts, oldest first, including the running one; empty where one never ran."""
        streams = [each.log_stream for each in self.attempts]
        if not self.has_ended and self.detail.log_stream and self.detail.log_stream not in streams:
            streams.append(self.detail.log_stream)
        return tuple(streams)


def parse_record(described: Mapping[str, Any]) -> Record | None:
    """Parse one entry of DescribeJobs' ``jobs``; `None` for a job that is not an electron's."""
    call = _call((described.get("parameters") or {}).get(CALL_PARAMETER))
    tags = _tags(described, call)
    # Other users of the account may use these tags: values that no executor writes mean another program's job.
    node, dispatch_id = str(tags.get(NODE_TAG, "")), str(tags.get(DISPATCH_TAG, ""))
    if _NODE.fullmatch(node) is None or _DISPATCH.fullmatch(dispatch_id) is None:
        return None
    container = described.get("container") or {}
    log = (container.get("logConfiguration") or {}).get("options") or {}
    instance_arn = str(container.get("containerInstanceArn") or "")
    lattice = str(tags.get(LATTICE_TAG) or "")
    return Record(
        detail=states.parse_job(described),
        dispatch_id=dispatch_id,
        lattice="" if lattice == "-" else lattice,
        electron=str(tags.get(ELECTRON_TAG) or "-"),
        node_id=int(node),
        call=call,
        definition=str(described.get("jobDefinition") or "").rpartition("/")[2],
        log_region=str(log.get("awslogs-region") or ""),
        host=states.host_of(instance_arn),
        cluster=states.cluster_of(instance_arn or str(container.get("taskArn") or "")),
    )


def of_node(parent: Record, described: Mapping[str, Any]) -> Record:
    """The record of a node of a multi-node job, which has the names of the job."""
    arn = str((described.get("container") or {}).get("containerInstanceArn") or "")
    detail = states.parse_job(described)._replace(argument=parent.detail.argument, queue=parent.detail.queue)
    if not detail.log_group:
        detail = detail._replace(log_group=parent.detail.log_group)
    return parent._replace(detail=detail, host=states.host_of(arn), cluster=states.cluster_of(arn))


def _tags(described: Mapping[str, Any], call: Location | None) -> Mapping[str, Any]:
    """A job's tags. Where a policy forbids tags, its call and name have the same facts, except the lattice."""
    tags: Mapping[str, Any] = described.get("tags") or {}
    if DISPATCH_TAG in tags or call is None:
        return tags
    tail = job_tail(call.dispatch_id, call.node_id, call.call_id)
    electron = str(described.get("jobName") or "").removesuffix(tail)
    return {DISPATCH_TAG: call.dispatch_id, NODE_TAG: str(call.node_id), ELECTRON_TAG: electron}


def _call(argument: object) -> Location | None:
    try:
        return parse_call_argument(str(argument))[0]
    except ProtocolError:
        return None
