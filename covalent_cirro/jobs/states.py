"""States of AWS Batch jobs, and what DescribeJobs says of a job. Pure; `ends.py` says what an end means.

An unknown state or text is not an error: it is passed on as it is.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from covalent_cirro.contract import texts
from covalent_cirro.contract.packed_variables import (
    ENVIRONMENT_VARIABLE,
    dump_environment,
    load_environment,
    secrets_in,
)
from covalent_cirro.contract.places import Location, parse_call_argument
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import ARGUMENTS_PARAMETER, CALL_PARAMETER, Arguments
from covalent_cirro.jobs import fargate_texts, image_modules, job_extras, reuse_texts
from covalent_cirro.jobs.arguments import PARAMETER_CHARS, load_parameter


class JobState(str, enum.Enum):
    """The seven states of AWS Batch (User Guide, Job states). Between two DescribeJobs, a job may skip states."""

    SUBMITTED = "SUBMITTED"
    """In the queue, before the scheduler has evaluated it."""
    PENDING = "PENDING"
    """Waits for a job that it depends on; the parent of an array stays PENDING while its children run."""
    RUNNABLE = "RUNNABLE"
    """Waits for an instance, possibly for ever."""
    STARTING = "STARTING"
    """Has an instance; the image is pulled and the container created."""
    RUNNING = "RUNNING"
    """The container runs."""
    SUCCEEDED = "SUCCEEDED"
    """The container ended with exit code 0."""
    FAILED = "FAILED"
    """All attempts failed, or the job was cancelled or terminated."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job will not change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


_INSTANCE = re.compile(r"\bi-[0-9a-f]{8,17}\b")

ACTIVE_STATES = tuple(state.value for state in JobState if not state.is_terminal)
"""States of a job that has not ended, in the order in which a job takes them."""

TERMINAL_STATES = tuple(state.value for state in JobState if state.is_terminal)
"""States of a job that has ended."""

CANCEL_REASON = "Cancelled in Covalent"
"""Beginning of the reason that covalent-cirro gives to TerminateJob; DescribeJobs has it as the statusReason."""

ITEMS_STOPPED_REASON = "Stopped with its items"
"""Beginning of the reason that ``cirro stop DISPATCH:NODE[ITEM]`` gives to TerminateJob for one job of a map: the items
that this job has not computed fail, and nothing is cancelled."""

ITEM_FAILED_REASON = "An item failed, and on_error is stop"
"""The reason that covalent-cirro gives to TerminateJob for the other jobs of a map with ``on_error="stop"``."""

CANCELLED = "CANCELLED"
"""What lists show as the state of a job that a user cancelled; AWS Batch's own word is FAILED, as for a failure."""


class Attempt(NamedTuple):
    """One attempt of a job that has ended.

    Attributes:
        exit_code: Exit code of the container; `None` where no container ended.
        reason: The container's reason, ``"OutOfMemoryError: ..."``.
        status_reason: AWS's reason, ``"Host EC2 (instance i-0123) terminated."``
        log_stream: CloudWatch stream of the container; empty where it never ran.
        began_at, ended_at: Epoch seconds; `None` where AWS gives none: the container never ran.
        host: Id of the EC2 instance where AWS names it, else the end of the container instance's ARN; empty for none.
        cluster: Name of the ECS cluster of the compute environment; empty where the attempt never had an instance.
    """

    exit_code: int | None = None
    reason: str = ""
    status_reason: str = ""
    log_stream: str = ""
    began_at: float | None = None
    ended_at: float | None = None
    host: str = ""
    cluster: str = ""


class JobDetail(NamedTuple):
    """What DescribeJobs says of one job. What it leaves out is empty, `None` or 0.

    Attributes:
        job_id: Id of the job.
        name: Name of the job.
        state: State in AWS's word; not a `JobState` if AWS adds a new one.
        status_reason: Why it is in this state; empty where AWS gives no reason.
        exit_code: Exit code of the latest container; `None` if no container has ended.
        reason: Reason of the latest container, ``"OutOfMemoryError: ..."``.
        log_stream: CloudWatch stream of the latest container; empty before RUNNING.
        created_at, started_at, stopped_at: Epoch seconds; `None` where not reached.
        attempts: Finished attempts, oldest first.
        terminated: Whether TerminateJob or CancelJob was called for it.
        queue: Name of its job queue.
        image: Image of its container.
        log_group: CloudWatch group of its logs.
        memory_mib, vcpus, gpus: Resources that it asked for.
        time_limit_s: Seconds that an attempt may run.
        max_attempts: How often AWS Batch may start it.
        argument: `places.call_argument` of a job of an executor; empty for other jobs.
        called_with: The job's `protocol.ARGUMENTS_PARAMETER`; empty without it.
        array_size: Number of jobs of an array job, whose parent this is; 0 for any other job.
        array_states: How many jobs of the array are in each state, in the order of the states; no zeros.
        num_nodes: Nodes of a multi-node parallel job, whose id this is; 0 for any other job.
        node_states: How many of its nodes are in each state, in the order of the states; no zeros. Empty where nodes
            were not described (`compute_nodes.with_nodes`).
        lacks: The job's `image_modules.PARAMETER`; empty without it.
        not_reused: The job's `reuse_texts.PARAMETER`; empty without it.
        raised: The job's `fargate_texts.PARAMETER`; empty without it.
        platform: ``"EC2"`` or ``"FARGATE"``; empty where AWS Batch does not say it.
        architecture: On Fargate, ``"x86_64"`` or ``"arm64"``; empty on instances.
        packed_environment: The option `environment` as JSON (`contract/packed_variables.py`); empty without it.
        named_secrets: References to the container's secrets by name, as JSON; empty without any.
        consumables: Consumable resources that it holds while it runs, and how many of each.
        extras: `job_extras.extras`: share, tags and properties of its own, as texts by name.
    """

    job_id: str
    name: str = ""
    state: str = ""
    status_reason: str = ""
    exit_code: int | None = None
    reason: str = ""
    log_stream: str = ""
    created_at: float | None = None
    started_at: float | None = None
    stopped_at: float | None = None
    attempts: tuple[Attempt, ...] = ()
    terminated: bool = False
    queue: str = ""
    image: str = ""
    log_group: str = ""
    memory_mib: int = 0
    vcpus: float = 0.0
    gpus: int = 0
    time_limit_s: int = 0
    max_attempts: int = 0
    argument: str = ""
    called_with: str = ""
    array_size: int = 0
    array_states: tuple[tuple[str, int], ...] = ()
    num_nodes: int = 0
    node_states: tuple[tuple[str, int], ...] = ()
    lacks: str = ""
    not_reused: str = ""
    raised: str = ""
    platform: str = ""
    architecture: str = ""
    consumables: tuple[tuple[str, int], ...] = ()
    packed_environment: str = ""
    named_secrets: str = ""
    extras: tuple[tuple[str, str], ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The electrons' variables."""
        return load_environment(self.packed_environment)

    @property
    def secrets(self) -> dict[str, str]:
        """Where the electrons' secrets are, by the names of their variables."""
        return load_environment(self.named_secrets)

    @property
    def arguments(self) -> Arguments:
        """What the job's first electron was called with; empty where that is not known."""
        return load_parameter(self.called_with)

    @property
    def missing_modules(self) -> tuple[str, ...]:
        """Modules that the job's electrons import and that it will not find."""
        return image_modules.load_parameter(self.lacks)

    def mac_key_of(self, place: Location) -> str | None:
        """The key with which outcomes of a call are authenticated, if the job was submitted for that call."""
        try:
            call, mac_key = parse_call_argument(self.argument)
        except ProtocolError:
            return None
        return mac_key if call == place.of_job else None

    @property
    def all_vcpus(self) -> float:
        """vCPUs that it asked for, on all nodes of a multi-node job."""
        return self.vcpus * max(1, self.num_nodes)

    @property
    def has_begun(self) -> bool:
        """Whether it is an array job of which the container of a job has started."""
        return self.children_in(JobState.RUNNING.value, JobState.SUCCEEDED.value, JobState.FAILED.value) > 0

    def children_in(self, *states: str) -> int:
        """How many jobs of the array are in one of these states."""
        return sum(count for state, count in self.array_states if state in states)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended. An unknown state counts as not ended."""
        return self.state in (JobState.SUCCEEDED.value, JobState.FAILED.value)


def _seconds(milliseconds: object) -> float | None:
    # AWS sends 0 or nothing for a time that is not reached.
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) and milliseconds else None


def parse_job(job: Mapping[str, Any]) -> JobDetail:
    """One entry of DescribeJobs' ``jobs``. Every member but the id may be missing."""
    array = job.get("arrayProperties") or {}
    summary = array.get("statusSummary") or {}
    nodes = job.get("nodeProperties") or {}
    container, parameters = job_extras.container_of(job), job.get("parameters") or {}
    attempts = [_parse_attempt(attempt) for attempt in job.get("attempts") or ()]
    last = attempts[-1] if attempts else None
    asked = {str(entry.get("type")): entry.get("value") for entry in container.get("resourceRequirements") or ()}
    log = (container.get("logConfiguration") or {}).get("options") or {}
    return JobDetail(
        job_id=job["jobId"],
        name=job.get("jobName") or "",
        state=str(job.get("status") or ""),
        status_reason=job.get("statusReason") or "",
        exit_code=container.get("exitCode", last.exit_code if last else None),
        reason=container.get("reason") or (last.reason if last else ""),
        log_stream=container.get("logStreamName") or (last.log_stream if last else ""),
        created_at=_seconds(job.get("createdAt")),
        started_at=_seconds(job.get("startedAt")),
        stopped_at=_seconds(job.get("stoppedAt")),
        attempts=tuple(attempts),
        terminated=bool(job.get("isTerminated") or job.get("isCancelled")),
        queue=str(job.get("jobQueue") or "").rsplit("/", 1)[-1],
        image=str(container.get("image") or ""),
        log_group=str(log.get("awslogs-group") or ""),
        memory_mib=int(_number(asked.get("MEMORY"))),
        vcpus=_number(asked.get("VCPU")),
        gpus=int(_number(asked.get("GPU"))),
        time_limit_s=int(_number((job.get("timeout") or {}).get("attemptDurationSeconds"))),
        max_attempts=int(_number((job.get("retryStrategy") or {}).get("attempts"))),
        argument=str(parameters.get(CALL_PARAMETER) or ""),
        called_with=str(parameters.get(ARGUMENTS_PARAMETER) or "")[: PARAMETER_CHARS + 1],
        # A child has the index instead.
        array_size=int(_number(array.get("size"))) if summary or "index" not in array else 0,
        array_states=tuple((state.value, int(summary[state.value])) for state in JobState if summary.get(state.value)),
        # A node may have the properties of all nodes, and has details of its own.
        num_nodes=int(_number(nodes.get("numNodes"))) if not job.get("nodeDetails") else 0,
        lacks=str(parameters.get(image_modules.PARAMETER) or "")[: image_modules.PARAMETER_CHARS],
        not_reused=texts.valid(str(parameters.get(reuse_texts.PARAMETER) or "")[: reuse_texts.PARAMETER_CHARS]),
        raised=texts.valid(str(parameters.get(fargate_texts.PARAMETER) or "")[: fargate_texts.PARAMETER_CHARS]),
        platform=str(next(iter(job.get("platformCapabilities") or ()), "")),
        architecture=str((container.get("runtimePlatform") or {}).get("cpuArchitecture") or "").lower(),
        packed_environment=_environment_of(container),
        named_secrets=_secrets_of(container),
        consumables=job_extras.held(job),
        extras=job_extras.extras(job),
    )


def _environment_of(container: Mapping[str, Any]) -> str:
    values = (each.get("value") for each in container.get("environment") or () if each["name"] == ENVIRONMENT_VARIABLE)
    return str(next(values, None) or "")


def _secrets_of(container: Mapping[str, Any]) -> str:
    found = {str(each["name"]): str(each["valueFrom"]) for each in container.get("secrets") or ()}
    ours = secrets_in(found)
    return dump_environment(ours) if ours else ""


def _parse_attempt(attempt: Mapping[str, Any]) -> Attempt:
    container = attempt.get("container") or {}
    status_reason = str(attempt.get("statusReason") or "")
    instance_arn = str(container.get("containerInstanceArn") or "")
    task_arn = str(container.get("taskArn") or "")
    named = _INSTANCE.search(status_reason)
    return Attempt(
        exit_code=container.get("exitCode"),
        reason=str(container.get("reason") or ""),
        status_reason=status_reason,
        log_stream=str(container.get("logStreamName") or ""),
        began_at=_seconds(attempt.get("startedAt")),
        ended_at=_seconds(attempt.get("stoppedAt")),
        host=named[0] if named else host_of(instance_arn),
        # A task on Fargate has no container instance.
        cluster=cluster_of(instance_arn or task_arn),
    )


def host_of(instance_arn: str) -> str:
    """The id in ``arn:aws:ecs:<region>:<account>:container-instance/<cluster>/<id>``; empty for an empty ARN."""
    return instance_arn.rpartition("/")[2]


def cluster_of(instance_arn: str) -> str:
    """The cluster in ``arn:aws:ecs:<region>:<account>:container-instance/<cluster>/<id>``; empty where it has none.

    The ARN of a task, ``arn:aws:ecs:<region>:<account>:task/<cluster>/<id>``, has it in the same place.
    """
    parts = instance_arn.split("/")
    return parts[1] if len(parts) == 3 else ""


def _number(value: object) -> float:
    # A resource's value is a string (API model, ResourceRequirement).
    try:
        found = float(str(value))
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def dump_detail(detail: JobDetail) -> dict[str, Any]:
    """The detail as plain JSON; `load_detail` reads it."""
    return {**detail._asdict(), "attempts": [attempt._asdict() for attempt in detail.attempts]}


def load_detail(value: object) -> JobDetail | None:
    """Parse what `dump_detail` wrote; `None` if it is something else.

    Every user of the Covalent server can send a detail: fields of a wrong type are left out.
    """
    fields = _known(value, JobDetail(""))
    if not fields.get("job_id"):
        return None
    assert isinstance(value, Mapping)
    attempts = value.get("attempts")
    found = [Attempt(**_known(entry, Attempt())) for entry in attempts] if isinstance(attempts, (list, tuple)) else []
    pairs = {
        "array_states": _pairs(value.get("array_states"), int),
        "node_states": _pairs(value.get("node_states"), int),
        "consumables": _pairs(value.get("consumables"), int),
        "extras": _pairs(value.get("extras"), str),
    }
    return JobDetail(**{**fields, "attempts": tuple(found), **pairs})


def _pairs(value: object, kind: type) -> tuple[tuple[str, Any], ...]:
    """A list of pairs of a text and a value of a kind, without its other entries."""
    entries = [each for each in value if isinstance(each, (list, tuple))] if isinstance(value, (list, tuple)) else []
    return tuple((one[0], one[1]) for one in entries if len(one) == 2 and type(one[0]) is str and type(one[1]) is kind)


_NUMBERS = frozenset({"exit_code", "created_at", "started_at", "stopped_at", "began_at", "ended_at"})
"""Fields that are a number where they are not `None`."""


def _known(value: object, like: JobDetail | Attempt) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name, default in like._asdict().items():
        kind: Any = (int, float) if name in _NUMBERS or isinstance(default, float) else type(default)
        given = value.get(name)
        if isinstance(given, kind) and isinstance(given, bool) == isinstance(default, bool):
            found[name] = given
    return found


def was_cancelled_by_us(detail: JobDetail) -> bool:
    """Whether the job was terminated by Covalent, or by `cirro stop`."""
    return detail.state == JobState.FAILED.value and detail.status_reason.startswith(CANCEL_REASON)


def was_stopped_with_its_items(detail: JobDetail) -> bool:
    """Whether the job, one of a map, was terminated because a user stopped the items that it computes."""
    return detail.state == JobState.FAILED.value and detail.status_reason.startswith(ITEMS_STOPPED_REASON)


def shown_state(detail: JobDetail) -> str:
    """The state for people: AWS's word, but `CANCELLED` for a job that a user cancelled, and RUNNING for an array."""
    if was_cancelled_by_us(detail):
        return CANCELLED
    # AWS Batch shows an array as PENDING until all of its jobs have ended.
    return JobState.RUNNING.value if detail.has_begun and not detail.is_terminal else detail.state


def cancelled_how(detail: JobDetail) -> str:
    """How a job was cancelled, or stopped with its items: ``in Covalent``, ``with `cirro stop`, by ada on lab``."""
    how = (
        detail.status_reason.removeprefix(CANCEL_REASON)
        .removeprefix(ITEMS_STOPPED_REASON)
        .strip()
        .removeprefix("(")
        .removesuffix(")")
    )
    stop, comma, by = how.partition(", by ")
    return f"with `cirro stop`{comma}{by}" if stop == "cirro stop" else "in Covalent"
