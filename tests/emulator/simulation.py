"""The emulator's scheduler alone, with a clock of its own: no processes, no threads."""

from __future__ import annotations

import itertools
from typing import Any

from covalent_cirro.local.emulator.batch.actions import Launch
from covalent_cirro.local.emulator.batch.fleet import Fleet
from covalent_cirro.local.emulator.batch.model import (
    Attempt,
    ComputeEnvironment,
    Host,
    Job,
    JobDefinition,
    JobQueue,
    Needs,
    Timing,
)
from covalent_cirro.local.emulator.batch.scheduler import Scheduler

_numbers = itertools.count()


class Simulation:
    """A scheduler, and what carries out its decisions, one step at a time.

    Attributes:
        now: Its clock.
        starts: Whether launched attempts start at once.
    """

    def __init__(
        self, timing: Timing, max_vcpus: int = 4, types: tuple[str, ...] = ("m6i.large",), **more: Any
    ) -> None:
        self.now = 1000.0
        self.starts = True
        self.fleet = Fleet("us-east-1", "1", boot_s=lambda: timing.scaled(timing.boot_s), **more)
        resources = {"type": "EC2", "maxvCpus": max_vcpus, "minvCpus": 0, "instanceTypes": list(types)}
        self.environment = ComputeEnvironment("ce", "arn:ce", "u", {"computeResources": resources})
        self.fleet.environments["arn:ce"] = self.environment
        self.queue = JobQueue("q", "arn:q", 1, ["arn:ce"], {})
        self.scheduler = Scheduler(self.fleet, timing, self._attempt, queues={"arn:q": self.queue})

    def _attempt(self, job: Job, host: Host, gpus: list[str]) -> Attempt:
        return Attempt(len(job.attempts) + 1, f"task-{next(_numbers)}", "arn:task", host, gpus, None)

    def nodes(self, count: int = 2, vcpus: int = 2, main: int = 0, **more: Any) -> Job:
        """Submit one with several nodes."""
        properties = {"numNodes": count, "mainNode": main, "nodeRangeProperties": [{"targetNodes": "0:"}]}
        name = f"job-{next(_numbers)}"
        definition = JobDefinition("d", 1, "arn:d", {"nodeProperties": properties})
        job = Job(name, name, name, self.queue, definition, {}, self.now, node_properties=properties, **more)
        for index in range(count):
            node_id = f"{name}#{index}"
            node = Job(node_id, node_id, name, self.queue, definition, {}, self.now, needs=Needs(vcpus, 512, 0))
            node.node_index, node.parent = index, job
            node.timeout_s = job.timeout_s if index == main else None
            job.nodes.append(node)
        self.scheduler.submit(job)
        self.go()
        return job

    def job(self, vcpus: int = 2, **more: Any) -> Job:
        """Submit one."""
        definition = JobDefinition("d", 1, "arn:d", {"containerProperties": {}})
        name = f"job-{next(_numbers)}"
        job = Job(name, name, name, self.queue, definition, {}, self.now, needs=Needs(vcpus, 512, 0), **more)
        self.scheduler.submit(job)
        self.go()
        return job

    def go(self, seconds: float = 0.0) -> list[Any]:
        """Let time pass; launched attempts start at once. Returns the actions."""
        self.now += seconds
        self.scheduler.advance(self.now)
        done = []
        while self.scheduler.actions:
            actions, self.scheduler.actions = self.scheduler.actions, []
            done += actions
            for action in actions:
                if isinstance(action, Launch) and self.starts:
                    self.scheduler.started(action.job, action.attempt, self.now)
        return done

    def end(self, job: Job, code: int) -> None:
        """Its process exits."""
        attempt = job.attempt
        assert attempt is not None
        attempt.exit_code, attempt.status_reason = code, "Essential container in task exited"
        self.scheduler.stopped(job, attempt, self.now)
        self.go()
