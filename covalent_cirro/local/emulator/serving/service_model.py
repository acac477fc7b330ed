"""What the emulated ECS knows: clusters, task definitions, services, deployments, tasks.

Data, and what follows from it alone. It must not know HTTP, processes or balancers.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, field

from covalent_cirro.local.emulator.batch.model import Json

EVENTS_KEPT = 100
"""DescribeServices has this many events at most (API model, Service.events)."""

ESSENTIAL = "EssentialContainerExited"
BY_SCHEDULER = "ServiceSchedulerInitiated"
BY_USER = "UserInitiated"
NOT_STARTED = "TaskFailedToStart"
"""``stopCode`` of a task (API model, TaskStopCode)."""

IN_PROGRESS, COMPLETED, FAILED = "IN_PROGRESS", "COMPLETED", "FAILED"
"""``rolloutState`` of a deployment."""


@dataclass(eq=False)
class TaskDefinition:
    """One revision of a task definition; ``body`` is the accepted request."""

    family: str
    revision: int
    arn: str
    body: Json
    registered_at: float
    status: str = "ACTIVE"
    deregistered_at: float | None = None
    tags: list[Json] = field(default_factory=list)

    @property
    def container(self) -> Json:
        """Its only container."""
        container: Json = self.body["containerDefinitions"][0]
        return container


@dataclass(eq=False)
class Deployment:
    """A deployment of a service.

    Attributes:
        failed: Tasks that failed before one of them was healthy.
        proven: Whether a task has been healthy: no task counts as failed from then on.
    """

    task_definition: TaskDefinition
    network: Json
    created_at: float
    updated_at: float
    id: str = field(default_factory=lambda: f"ecs-svc/{secrets.randbelow(9 * 10**18) + 10**18}")
    status: str = "PRIMARY"
    rollout_state: str = IN_PROGRESS
    rollout_reason: str = ""
    failed: int = 0
    proven: bool = False


@dataclass(eq=False)
class ServiceTask:
    """A task of a service.

    Attributes:
        port: Where its program answers, on the loopback; `None` where the service has no port.
        endpoint_id: Secret part of the URLs of its credentials and metadata.
        registered: Whether it is, or was, a target of the service's target groups.
        draining: Whether it was deregistered, and is stopped once it is drained.
        broke: Whether its end counts as a failure: nobody but a failed health check asked for it.
        killed: Whether a fault has killed it.
    """

    id: str
    arn: str
    deployment: Deployment
    created_at: float
    port: int | None = None
    endpoint_id: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    eni: str = field(default_factory=lambda: str(uuid.uuid4()))
    last_status: str = "PROVISIONING"
    desired_status: str = "RUNNING"
    started_at: float | None = None
    stopping_at: float | None = None
    stopped_at: float | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None
    exit_code: int | None = None
    container_reason: str | None = None
    registered: bool = False
    draining: bool = False
    broke: bool = False
    killed: bool = False

    @property
    def active(self) -> bool:
        """Whether it runs or will run, and nobody asked it to stop."""
        return self.desired_status == "RUNNING" and self.last_status != "STOPPED"

    def ask_to_stop(self, now: float, code: str, reason: str) -> None:
        """Note that it is to stop, and why; the first reason stays."""
        if self.desired_status == "RUNNING":
            self.desired_status, self.stop_code, self.stopped_reason, self.stopping_at = "STOPPED", code, reason, now


@dataclass(eq=False)
class Service:
    """A service; ``body`` has what CreateService and UpdateService set.

    Attributes:
        deployments: The PRIMARY first, then those whose tasks are replaced.
        latest: The deployment that the last create or update made, even if it was rolled back.
        completed: The last deployment that completed: to it a failed one is rolled back.
        tasks: Those that have not stopped yet.
        failures: Tasks that failed one after another: the more, the later the next one starts.
        start_after: Epoch seconds before which no task starts.
        steady: Whether the event that tells of the steady state was sent.
    """

    name: str
    arn: str
    cluster: Cluster
    body: Json
    created_at: float
    status: str = "ACTIVE"
    deployments: list[Deployment] = field(default_factory=list)
    latest: Deployment | None = None
    completed: Deployment | None = None
    tasks: list[ServiceTask] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    failures: int = 0
    start_after: float = 0.0
    steady: bool = False

    @property
    def desired(self) -> int:
        """The number of tasks that it should have."""
        return int(self.body.get("desiredCount") or 0)

    @property
    def primary(self) -> Deployment:
        """The deployment whose tasks it should have."""
        return self.deployments[0]

    @property
    def target_groups(self) -> list[str]:
        """ARNs of its target groups."""
        return [str(each["targetGroupArn"]) for each in self.body.get("loadBalancers") or []]

    def percent(self, which: str) -> int:
        """``minimumHealthyPercent`` or ``maximumPercent`` (defaults: API model, DeploymentConfiguration)."""
        default = {"minimumHealthyPercent": 100, "maximumPercent": 200}[which]
        value = (self.body.get("deploymentConfiguration") or {}).get(which)
        return default if value is None else int(value)

    @property
    def breaker(self) -> Json:
        """``deploymentCircuitBreaker``; off by default."""
        found = (self.body.get("deploymentConfiguration") or {}).get("deploymentCircuitBreaker")
        return found or {"enable": False, "rollback": False}

    @property
    def failures_allowed(self) -> int:
        """Failed tasks at which the circuit breaker ends a deployment (ECS Developer Guide, circuit breaker)."""
        return max(3, min(200, -(-self.desired // 2)))

    def of(self, deployment: Deployment) -> list[ServiceTask]:
        """The tasks of a deployment that are active."""
        return [each for each in self.tasks if each.deployment is deployment and each.active]

    def tell(self, now: float, text: str) -> None:
        """Add an event."""
        event = {"id": str(uuid.uuid4()), "createdAt": now, "message": f"(service {self.name}) {text}"}
        self.events = [event, *self.events][:EVENTS_KEPT]


@dataclass(eq=False)
class Cluster:
    """A cluster. ``stopped`` has the tasks of its services that stopped, with the service's name."""

    name: str
    arn: str
    body: Json
    status: str = "ACTIVE"
    services: dict[str, Service] = field(default_factory=dict)
    stopped: list[tuple[str, ServiceTask]] = field(default_factory=list)
