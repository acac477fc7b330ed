"""What the emulated AWS Batch knows: jobs, attempts, queues, compute environments, definitions, hosts.

Data, and what follows from it alone (a job's resources, an array's summary). It must not know HTTP, processes or moto.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SUBMITTED = "SUBMITTED"
PENDING = "PENDING"
RUNNABLE = "RUNNABLE"
STARTING = "STARTING"
RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"

STATES = (SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED, FAILED)
"""The seven states of a job (API model, JobStatus)."""

TERMINAL = frozenset((SUCCEEDED, FAILED))
SPOT_TASK_INTERRUPTED = "Your Spot Task was interrupted."
"""ECS Developer Guide, Fargate capacity providers, Fargate Spot termination notices."""

FARGATE_MAINTENANCE = "ECS is performing maintenance on the underlying infrastructure hosting the task."
"""ECS Developer Guide, Task retirement and maintenance for Fargate."""

SPOT_STOP = "spot"
"""Why an attempt on Fargate Spot is being stopped (`Attempt.stopping`)."""

ACTIVE = frozenset((STARTING, RUNNING))

NODE_ADDRESS = "127.0.0.1"
"""The address of every node: processes, and containers with the host's network, are on this machine."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Durations of the emulated AWS, in seconds of AWS; `scaled` turns them into seconds here.

    Attributes:
        scale: Factor on every duration below and on the time limits of jobs; 0.01 makes a minute 0.6 s.
        boot_s: From the request for an instance until it takes jobs. AWS needs minutes.
        submitted_s: Time that a job stays SUBMITTED.
        starting_s: Time that a job stays STARTING: the image pull.
        idle_s: An instance without a job is terminated after this long.
        grace_s: Between SIGTERM and SIGKILL (User Guide, Job timeouts).
        task_start_s: Time that the program of a new target of a load balancer has at least until failed health checks
            count. Not scaled: a program needs real time to start.
        expiry_s: DescribeJobs no longer knows a terminal job after this long (User Guide, Job states: at least 7 days).
    """

    scale: float = 1.0
    boot_s: float = 0.3
    submitted_s: float = 0.0
    starting_s: float = 0.0
    idle_s: float = 60.0
    grace_s: float = 30.0
    task_start_s: float = 20.0
    expiry_s: float = 7 * 24 * 3600.0

    def scaled(self, seconds: float) -> float:
        """Seconds here for seconds of AWS."""
        return seconds * self.scale


@dataclass(frozen=True)
class Needs:
    """What one attempt occupies on its instance.

    Attributes:
        vcpus: Fractions only on Fargate.
        memory_mib: Hard limit.
        gpus: Whole GPUs.
    """

    vcpus: float
    memory_mib: int
    gpus: int


def needs_of(container: Json) -> Needs:
    """The needs that a container's ``resourceRequirements`` (or its deprecated ``vcpus`` and ``memory``) state."""
    values = {entry["type"]: entry["value"] for entry in container.get("resourceRequirements", [])}
    return Needs(
        vcpus=float(values.get("VCPU") or container.get("vcpus") or 1),
        memory_mib=int(values.get("MEMORY") or container.get("memory") or 0),
        gpus=int(values.get("GPU", 0)),
    )


@dataclass
class JobDefinition:
    """One revision of a job definition; ``body`` is the accepted request in the shape that AWS describes."""

    name: str
    revision: int
    arn: str
    body: Json
    status: str = "ACTIVE"
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def container(self) -> Json:
        """Its ``containerProperties``; a multi-node parallel one has none."""
        container: Json = self.body["containerProperties"]
        return container

    @property
    def node_properties(self) -> Json | None:
        """Its ``nodeProperties``; `None` where jobs have one node."""
        return self.body.get("nodeProperties")


@dataclass
class SchedulingPolicy:
    """A fair-share policy."""

    name: str
    arn: str
    fairshare: Json
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class ComputeEnvironment:
    """A compute environment; ``resources`` is its ``computeResources``.

    Attributes:
        jobs_end_at: While it is UPDATING, epoch seconds at which jobs on its old instances are ended.
    """

    name: str
    arn: str
    uuid: str
    body: Json
    state: str = "ENABLED"
    status: str = "VALID"
    status_reason: str = "ComputeEnvironment Healthy"
    tags: dict[str, str] = field(default_factory=dict)
    jobs_end_at: float | None = None

    @property
    def resources(self) -> Json:
        """Its ``computeResources``."""
        resources: Json = self.body["computeResources"]
        return resources

    @property
    def fargate(self) -> bool:
        """Whether each job gets a host of exactly its size."""
        return str(self.resources["type"]).startswith("FARGATE")

    @property
    def max_vcpus(self) -> int:
        """``maxvCpus``."""
        return int(self.resources["maxvCpus"])

    @property
    def usable(self) -> bool:
        """Whether jobs may be placed here."""
        return self.state == "ENABLED" and self.status in ("VALID", "UPDATING")


@dataclass
class JobQueue:
    """A queue; ``order`` holds compute environment ARNs, first tried first."""

    name: str
    arn: str
    priority: int
    order: list[str]
    body: Json
    state: str = "ENABLED"
    status: str = "VALID"
    policy_arn: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    runnable: list[Job] = field(default_factory=list)


@dataclass
class Host:
    """An emulated instance.

    Attributes:
        instance_id: ``i-`` and 17 hex digits, as on EC2.
        arn: Its ECS container instance ARN.
        ready_at: When it takes jobs.
        idle_since: When its last job ended; `None` while it has one.
        gpu_ids: All its GPUs.
        free_gpus: Those that no job holds.
        single_use: It stands for a Fargate task: it is made for one job.
        exclusive: It has a node of a multi-node parallel job, beside which nothing else is placed.
        outdated: An update of its compute environment replaces it: it takes no more jobs.
        drains: Its ECS agent takes no more jobs after a Spot interruption notice.
        interrupted_at: Epoch seconds in its Spot interruption notice, at which EC2 terminates it; `None` without one.
    """

    instance_id: str
    arn: str
    environment: ComputeEnvironment
    instance_type: str
    vcpus: float
    memory_mib: int
    gpu_ids: list[str]
    ready_at: float
    single_use: bool = False
    exclusive: bool = False
    outdated: bool = False
    drains: bool = False
    interrupted_at: float | None = None
    used_vcpus: float = 0.0
    used_memory_mib: int = 0
    free_gpus: list[str] = field(default_factory=list)
    idle_since: float | None = None
    jobs: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free_gpus = list(self.gpu_ids)
        self.idle_since = self.ready_at

    @property
    def loss_reason(self) -> str:
        """``statusReason`` of an attempt on it, when it is taken away."""
        if not self.single_use:
            return f"Host EC2 (instance {self.instance_id}) terminated."
        if self.environment.resources["type"] == "FARGATE_SPOT":
            return SPOT_TASK_INTERRUPTED
        return FARGATE_MAINTENANCE

    @property
    def takes_jobs(self) -> bool:
        """Whether more jobs may be placed on it."""
        return not (self.single_use or self.exclusive or self.draining or self.outdated)

    @property
    def draining(self) -> bool:
        """Whether ECS places nothing more on it (ECS Developer Guide, Spot Instance draining)."""
        return self.drains and self.interrupted_at is not None

    def fits(self, needs: Needs) -> bool:
        """Whether it has enough free capacity."""
        return (
            self.used_vcpus + needs.vcpus <= self.vcpus
            and self.used_memory_mib + needs.memory_mib <= self.memory_mib
            and needs.gpus <= len(self.free_gpus)
            and not (self.single_use and self.jobs)
        )

    def take(self, job: Job) -> list[str]:
        """Reserve capacity for a job; returns the ids of its GPUs."""
        needs = job.needs
        self.used_vcpus += needs.vcpus
        self.used_memory_mib += needs.memory_mib
        gpus, self.free_gpus = self.free_gpus[: needs.gpus], self.free_gpus[needs.gpus :]
        self.jobs[job.id] = job
        self.exclusive = job.node_index is not None
        self.idle_since = None
        return gpus

    def give_back(self, job: Job, gpus: list[str], now: float) -> None:
        """Free the capacity that `take` reserved."""
        if self.jobs.pop(job.id, None) is None:
            return
        self.used_vcpus -= job.needs.vcpus
        self.used_memory_mib -= job.needs.memory_mib
        self.free_gpus = sorted(self.free_gpus + gpus)
        if not self.jobs:
            self.exclusive = False
            self.idle_since = now


@dataclass
class Attempt:
    """One attempt of a job. Times are epoch seconds.

    Attributes:
        task_id: 32 hex digits, the ECS task's id; new for each attempt, and part of the name of its log stream.
        endpoint_id: Secret part of the URLs of the task's credentials and metadata; only the task gets it.
        stopping: Why it is being stopped: ``timeout``, ``terminate``, or ``main node`` once that of its job has ended;
            `None` while it is not.
        lost: Its host was terminated: it has no exit code.
    """

    number: int
    task_id: str
    task_arn: str
    host: Host
    gpus: list[str]
    log_stream: str | None
    started_at: float | None = None
    stopped_at: float | None = None
    exit_code: int | None = None
    reason: str | None = None
    status_reason: str | None = None
    stopping: str | None = None
    lost: bool = False
    endpoint_id: str = field(default_factory=lambda: secrets.token_urlsafe(24))


@dataclass
class Job:
    """A job, an array's parent or child, a multi-node parallel job or a node of one. Times are epoch seconds.

    Attributes:
        parent: Of an array's child its array, of a node its job.
        nodes: Of a multi-node parallel job, by index. The job waits in the queue and has state and reason; its nodes
            have hosts. Its attempts are those of its main node.
        node_properties: ``nodeProperties`` of a multi-node parallel job, with its overrides.
    """

    id: str
    arn: str
    name: str
    queue: JobQueue
    definition: JobDefinition
    container: Json
    created_at: float
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    propagate_tags: bool | None = None
    retry: Json = field(default_factory=lambda: {"attempts": 1, "evaluateOnExit": []})
    timeout_s: int | None = None
    depends_on: list[Json] = field(default_factory=list)
    share: str | None = None
    scheduling_priority: int | None = None
    array_size: int | None = None
    array_index: int | None = None
    parent: Job | None = None
    children: list[Job] = field(default_factory=list)
    node_index: int | None = None
    nodes: list[Job] = field(default_factory=list)
    node_properties: Json | None = None
    summary: Counter[str] = field(default_factory=Counter)
    summary_at: float | None = None
    status: str = SUBMITTED
    status_reason: str | None = None
    started_at: float | None = None
    stopped_at: float | None = None
    runnable_at: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    attempt: Attempt | None = None
    cancelled: bool = False
    terminated: bool = False
    stop_reason: str | None = None
    overrides_size: int = 0
    waits_for: set[str] = field(default_factory=set)
    consumables: dict[str, int] = field(default_factory=dict)
    """Quantities of consumable resources that it needs, by their ARNs."""
    holds: bool = False
    """Whether it holds them."""
    needs: Needs = field(default_factory=lambda: Needs(1, 0, 0))
    place: tuple[Host, list[str]] | None = None
    """Host and GPUs that are kept for it while the host boots."""

    @property
    def terminal(self) -> bool:
        """SUCCEEDED or FAILED."""
        return self.status in TERMINAL

    @property
    def placed(self) -> list[Job]:
        """What gets a host of its own: its nodes, or itself."""
        return self.nodes or [self]

    @property
    def main_node(self) -> Job:
        """The main node of a multi-node parallel job."""
        assert self.node_properties is not None
        return self.nodes[self.node_properties["mainNode"]]

    @property
    def is_main_node(self) -> bool:
        """Whether it is the main node of its job."""
        return self.node_index is not None and self.parent is not None and self.parent.main_node is self

    @property
    def fault_name(self) -> str:
        """The name by which faults find it: that of the job, and for a node ``#`` and its index."""
        return self.name if self.node_index is None else f"{self.name}#{self.node_index}"

    @property
    def last_attempt(self) -> Attempt | None:
        """The running attempt, or the last that ended."""
        if self.attempt is not None:
            return self.attempt
        return self.attempts[-1] if self.attempts else None


def epoch_ms(seconds: float | None) -> int | None:
    """AWS's times are epoch milliseconds."""
    return None if seconds is None else math.floor(seconds * 1000)
