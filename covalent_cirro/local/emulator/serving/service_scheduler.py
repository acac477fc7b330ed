"""What an ECS service does next: start, replace and stop tasks, complete or fail a deployment.

All decisions follow from the state of services and tasks, and from their health; they are carried out by `Hands`. It
must not know threads, processes or balancers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.serving.service_model import (
    BY_SCHEDULER,
    COMPLETED,
    ESSENTIAL,
    FAILED,
    IN_PROGRESS,
    NOT_STARTED,
    Deployment,
    Service,
    ServiceTask,
)

PATIENCE = 3
"""Failed tasks in a row that are replaced at once; each further one is replaced later than the one before."""
FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 300.0
"""ECS throttles the start of tasks that fail again and again (ECS Developer Guide, Service throttle logic)."""
LEAST_DELAY_S = 0.2
"""Shortest such delay in seconds here."""
STOPPED_KEPT_S = 3600.0
"""DescribeTasks knows a stopped task this long (API Reference, DescribeTasks)."""

NOT_STARTED_TEXT = "tasks failed to start."
UNHEALTHY_TEXT = "tasks failed ELB health checks."
BREAKER = "ECS deployment circuit breaker: "


class Health(Protocol):
    """State of a target, and why it is not healthy (`target_groups.Target`)."""

    state: str
    reason: str
    description: str


class Hands(Protocol):
    """Carries decisions out. No method waits for a task."""

    def launch(self, service: Service, deployment: Deployment) -> ServiceTask:
        """Start a new task."""

    def stop(self, task: ServiceTask) -> None:
        """SIGTERM, and SIGKILL after the container's ``stopTimeout``. It may have ended, or be stopping already."""

    def register(self, group: str, task: ServiceTask) -> None:
        """Make a task a target of a target group."""

    def deregister(self, group: str, task: ServiceTask) -> None:
        """Begin to drain a task."""

    def health(self, group: str, task: ServiceTask) -> Health:
        """How a target is: ``unused`` once it is drained."""


@dataclass
class ServiceScheduler:
    """Advances services.

    Attributes:
        hands: Carries decisions out.
        timing: Durations.
    """

    hands: Hands
    timing: Timing

    def advance(self, service: Service, now: float) -> float | None:
        """Do what follows from the state of a service.

        Returns:
            Epoch seconds at which something follows from time alone; `None` where nothing does.
        """
        self._take_ended(service, now)
        self._take_started(service, now)
        healthy = self._check_health(service, now)
        if service.status == "ACTIVE":
            self._break_circuit(service, now)
        self._stop_surplus(service, healthy, now)
        self._stop_drained(service)
        due = self._start_missing(service, now)
        self._settle(service, healthy, now)
        return due

    # --- what has happened ------------------------------------------------------------------------------------------

    def _take_ended(self, service: Service, now: float) -> None:
        for task in [each for each in service.tasks if each.last_status == "STOPPED"]:
            service.tasks.remove(task)
            stopped = [each for each in service.cluster.stopped if now - (each[1].stopped_at or now) < STOPPED_KEPT_S]
            service.cluster.stopped = [*stopped, (service.name, task)]
            if task.registered and not task.draining:
                self._deregister(service, [task], now)
            if not task.broke:
                continue
            service.steady = False
            service.failures += 1
            if service.failures > PATIENCE:
                delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (service.failures - PATIENCE - 1))
                service.start_after = now + max(LEAST_DELAY_S, self.timing.scaled(delay_s))
                service.tell(now, "is unable to consistently start tasks successfully.")
            deployment = task.deployment
            if deployment.rollout_state == IN_PROGRESS and not deployment.proven:
                deployment.failed += 1
                deployment.updated_at = now

    def _take_started(self, service: Service, now: float) -> None:
        started = [each for each in service.tasks if each.last_status == "RUNNING" and not each.registered]
        for group in service.target_groups:
            for task in started:
                self.hands.register(group, task)
            if started:
                service.tell(now, f"registered {len(started)} targets in (target-group {group})")
        for task in started:
            task.registered = bool(service.target_groups)

    def _check_health(self, service: Service, now: float) -> set[ServiceTask]:
        """The active tasks that are healthy; one whose target is unhealthy is asked to stop."""
        grace_s = self.timing.scaled(float(service.body.get("healthCheckGracePeriodSeconds") or 0))
        healthy = set()
        for task in service.tasks:
            if not task.active or task.last_status != "RUNNING":
                continue
            states = {group: self.hands.health(group, task) for group in service.target_groups}
            if all(each.state == "healthy" for each in states.values()):
                healthy.add(task)
                task.deployment.proven = True
                service.failures = 0
            for group, health in states.items():
                if health.state == "unhealthy" and task.active and now >= (task.started_at or now) + grace_s:
                    service.tell(
                        now,
                        f"(task {task.id}) (port {task.port}) is unhealthy in (target-group {group}) due to "
                        f"(reason {health.description})",
                    )
                    task.broke = True
                    self._ask_to_stop(service, [task], f"Task failed ELB health checks in (target-group {group})", now)
        return healthy

    # --- deployments ------------------------------------------------------------------------------------------------

    def _break_circuit(self, service: Service, now: float) -> None:
        primary = service.primary
        if (
            not service.breaker.get("enable")
            or primary.rollout_state != IN_PROGRESS
            or primary.failed < service.failures_allowed
        ):
            return
        unhealthy = any(
            task.deployment is primary and task.broke and task.stop_code == BY_SCHEDULER
            for _, task in service.cluster.stopped
        )
        text = UNHEALTHY_TEXT if unhealthy else NOT_STARTED_TEXT
        primary.rollout_state, primary.rollout_reason, primary.updated_at = FAILED, f"{BREAKER}{text}", now
        service.tell(now, f"(deployment {primary.id}) deployment failed: {text}")
        back = service.completed
        if not service.breaker.get("rollback") or back is None or back is primary:
            return
        primary.status = back.status = "ACTIVE"
        service.deployments = [back, *(each for each in service.deployments if each is not back)]
        back.status, back.rollout_state, back.updated_at = "PRIMARY", IN_PROGRESS, now
        back.rollout_reason = f"{BREAKER}rolling back to deploymentId {back.id}."
        service.failures, service.start_after = 0, 0.0
        service.tell(now, f"rolling back to (deployment {back.id}).")

    def _settle(self, service: Service, healthy: set[ServiceTask], now: float) -> None:
        if service.status == "DRAINING":
            if not service.tasks:
                service.status, service.deployments = "INACTIVE", service.deployments[:1]
            return
        primary = service.primary
        tasks = service.of(primary)
        others = [task for task in service.tasks if task.deployment is not primary]
        kept = {id(task.deployment) for task in others} | {id(primary)}
        service.deployments = [each for each in service.deployments if id(each) in kept]
        if len(tasks) != service.desired or not healthy.issuperset(tasks) or len(service.tasks) != len(tasks):
            return
        if primary.rollout_state == IN_PROGRESS:
            primary.rollout_state, primary.updated_at = COMPLETED, now
            primary.rollout_reason = f"ECS deployment {primary.id} completed."
            service.completed = primary
            service.tell(now, f"(deployment {primary.id}) deployment completed.")
        if not service.steady:
            service.steady = True
            service.tell(now, "has reached a steady state.")

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _stop_surplus(self, service: Service, healthy: set[ServiceTask], now: float) -> None:
        """Stop tasks of old deployments as far as enough healthy ones are left, and tasks above the desired count."""
        primary, desired = service.primary, service.desired
        enough = math.ceil(desired * service.percent("minimumHealthyPercent") / 100)
        left = sum(task.active for task in healthy)
        old = [task for task in service.tasks if task.active and task.deployment is not primary]
        chosen: dict[Deployment, list[ServiceTask]] = {}
        for task in sorted(old, key=lambda each: (each in healthy, each.created_at)):
            if task in healthy:
                if left <= enough:
                    break
                left -= 1
            chosen.setdefault(task.deployment, []).append(task)
        current = service.of(primary)
        surplus = max(0, len(current) - desired)
        by_worth = sorted(current, key=lambda each: (each in healthy, -each.created_at))
        if surplus:
            chosen[primary] = by_worth[:surplus]
        for deployment, tasks in chosen.items():
            service.steady = False
            reason = f"Scaling activity initiated by (deployment {deployment.id})"
            self._ask_to_stop(service, tasks, reason, now)

    def _ask_to_stop(self, service: Service, tasks: list[ServiceTask], reason: str, now: float) -> None:
        for task in tasks:
            task.ask_to_stop(now, BY_SCHEDULER, reason)
        targets = [task for task in tasks if task.registered and not task.draining]
        if targets:
            service.tell(now, f"has begun draining connections on {len(targets)} tasks.")
            self._deregister(service, targets, now)
        listed = " ".join(f"(task {task.id})" for task in tasks)
        service.tell(now, f"has stopped {len(tasks)} running tasks: {listed}.")

    def _deregister(self, service: Service, tasks: Iterable[ServiceTask], now: float) -> None:
        tasks = list(tasks)
        for group in service.target_groups:
            for task in tasks:
                self.hands.deregister(group, task)
            service.tell(now, f"deregistered {len(tasks)} targets in (target-group {group})")
        for task in tasks:
            task.draining = True

    def _stop_drained(self, service: Service) -> None:
        for task in service.tasks:
            if task.desired_status != "STOPPED" or task.last_status in ("STOPPING", "STOPPED"):
                continue
            if task.registered and not task.draining:  # StopTask asked for it
                self._deregister(service, [task], task.stopping_at or task.created_at)
            if task.draining and any(
                self.hands.health(group, task).state == "draining" for group in service.target_groups
            ):
                task.last_status = "DEACTIVATING"
                continue
            self.hands.stop(task)

    def _start_missing(self, service: Service, now: float) -> float | None:
        primary = service.primary
        if service.status != "ACTIVE" or primary.rollout_state == FAILED:
            return None
        active = sum(task.active for task in service.tasks)
        room = max(math.floor(service.desired * service.percent("maximumPercent") / 100), 1) - active
        missing = min(service.desired - len(service.of(primary)), room)
        if missing <= 0:
            return None
        if now < service.start_after:
            return service.start_after
        service.steady = False
        tasks = [self.hands.launch(service, primary) for _ in range(missing)]
        listed = " ".join(f"(task {task.id})" for task in tasks)
        service.tell(now, f"has started {len(tasks)} tasks: {listed}.")
        return None


def failed_to_start(task: ServiceTask, now: float, reason: str) -> None:
    """Note that a task's container did not start, and why."""
    if task.desired_status == "RUNNING":
        task.broke = True
        task.ask_to_stop(now, NOT_STARTED, reason)
    task.container_reason, task.last_status, task.stopped_at = reason, "STOPPED", now


def ended(task: ServiceTask, now: float, code: int, reason: str | None) -> None:
    """Note the end of a task's container; where nobody asked for it, the task has failed.

    Args:
        code: Exit code.
        reason: Reason of the container, such as ``OutOfMemoryError: ...``.
    """
    if task.desired_status == "RUNNING":
        task.broke = True
        task.ask_to_stop(now, ESSENTIAL, "Essential container in task exited")
    task.exit_code, task.container_reason = code, reason
    task.last_status, task.stopped_at = "STOPPED", now
