"""The emulated ECS of one region: its clusters and task definitions, and the thread that advances its services.

Every change of state happens under one lock. What follows from a change is decided in one thread, which waits for
changes. It must not know HTTP.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass, field

from covalent_cirro.local.emulator.context import EmulatorContext
from covalent_cirro.local.emulator.serving.descriptions import HOST
from covalent_cirro.local.emulator.serving.load_balancers import LoadBalancers
from covalent_cirro.local.emulator.serving.scaling import Scaling
from covalent_cirro.local.emulator.serving.service_model import (
    Cluster,
    Deployment,
    Service,
    ServiceTask,
    TaskDefinition,
)
from covalent_cirro.local.emulator.serving.service_scheduler import Health, ServiceScheduler
from covalent_cirro.local.emulator.serving.task_threads import TaskThreads

LOOK_S = 1.0
"""Longest time between two looks at services: grace periods and ends of faults follow from time alone."""

log = logging.getLogger("covalent_cirro.local.emulator")


@dataclass
class Ecs:
    """ECS of one region. `lock` guards its state."""

    context: EmulatorContext
    region: str
    balancers: LoadBalancers
    wake: threading.Event
    lock: threading.RLock = field(default_factory=threading.RLock)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    definitions: dict[str, list[TaskDefinition]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.threads = TaskThreads(self.context, self.region, self.lock, self.wake.set)
        self._scheduler = ServiceScheduler(self, self.context.timing)
        where = (self.context.account, self.region)
        self._scaling = Scaling(where, self.context.timing, self.balancers.metrics.requests_since)
        self._closed = False
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Epoch seconds."""
        return self.context.clock()

    def arn(self, kind: str, name: str) -> str:
        """``arn:aws:ecs:<region>:<account>:<kind>/<name>``."""
        return f"arn:aws:ecs:{self.region}:{self.context.account}:{kind}/{name}"

    def changed(self) -> None:
        """Have what follows from a change be decided soon."""
        with self.lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._advance_always, name=f"ecs-{self.region}", daemon=True)
                self._thread.start()
        self.wake.set()

    def close(self) -> None:
        """Make no more decisions, and kill all tasks."""
        with self.lock:
            self._closed = True
            thread = self._thread
        self.wake.set()
        self.threads.close()
        if thread is not None:
            thread.join(timeout=5)

    # --- what the scheduler decides ---------------------------------------------------------------------------------

    def launch(self, service: Service, deployment: Deployment) -> ServiceTask:
        """Start a new task (`service_scheduler.Hands`)."""
        task_id = secrets.token_hex(16)
        task = ServiceTask(task_id, self.arn("task", f"{service.cluster.name}/{task_id}"), deployment, self.now())
        service.tasks.append(task)
        self.threads.launch(service, task)
        return task

    def stop(self, task: ServiceTask) -> None:
        """Stop a task (`service_scheduler.Hands`)."""
        self.threads.stop(task)

    def register(self, group: str, task: ServiceTask) -> None:
        """Make a task a target (`service_scheduler.Hands`)."""
        self.balancers.register(group, _targets(task))

    def deregister(self, group: str, task: ServiceTask) -> None:
        """Begin to drain a task (`service_scheduler.Hands`)."""
        self.balancers.deregister(group, _targets(task))

    def health(self, group: str, task: ServiceTask) -> Health:
        """How a target is (`service_scheduler.Hands`)."""
        return self.balancers.health(group, _targets(task))[0]

    # --- time -------------------------------------------------------------------------------------------------------

    def _advance_always(self) -> None:
        wait_s = LOOK_S
        while not self._closed:
            self.wake.wait(wait_s)
            self.wake.clear()
            try:
                wait_s = self._advance()
            except Exception:  # a mistake here must not end all services
                log.exception("services of ECS in %s", self.region)
                wait_s = LOOK_S

    def _advance(self) -> float:
        """Advance all services; returns how many seconds later to look at the latest."""
        wait_s = LOOK_S
        with self.lock:
            if self._closed:
                return wait_s
            self._scaling.look(self.clusters, self.now())
            for cluster in self.clusters.values():
                for service in cluster.services.values():
                    if service.status == "INACTIVE":
                        continue
                    self._strike(service)
                    due = self._scheduler.advance(service, self.now())
                    if due is not None:
                        wait_s = min(wait_s, max(0.0, due - self.now()))
        return wait_s

    def _strike(self, service: Service) -> None:
        """Kill the tasks of a service that a fault hits."""
        for task in service.tasks:
            runs = task.active and task.last_status == "RUNNING" and not task.killed
            if runs and self.context.faults.take_job("kill_task", service.name) is not None:
                task.killed = True
                self.threads.kill(task)


def _targets(task: ServiceTask) -> list[tuple[str, int]]:
    assert task.port is not None
    return [(HOST, task.port)]
