"""The emulated AWS Batch of one account and region: its jobs, its timer, and the faults that hit them.

`scheduler` decides, `attempt_threads` runs attempts, `describe` has the form of answers. Every change of state happens
under one lock, and what follows from it happens in the same call: nothing polls. It must not know HTTP.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from covalent_cirro.local.emulator.attempts import job_log_stream
from covalent_cirro.local.emulator.attempts.attempt_threads import AttemptThreads
from covalent_cirro.local.emulator.batch import describe, user_data
from covalent_cirro.local.emulator.batch.actions import Action, Changed, Kill, Launch, Stop
from covalent_cirro.local.emulator.batch.fleet import Fleet
from covalent_cirro.local.emulator.batch.model import (
    Attempt,
    ComputeEnvironment,
    Host,
    Job,
    JobDefinition,
    Json,
    needs_of,
)
from covalent_cirro.local.emulator.batch.scheduler import Scheduler
from covalent_cirro.local.emulator.context import EmulatorContext
from covalent_cirro.local.emulator.event_sender import EventSender
from covalent_cirro.local.emulator.moto_internals import moto_ec2, moto_events

HEALTHY = "ComputeEnvironment Healthy"
INVALID = (
    "CLIENT_ERROR - Your compute environment has been INVALIDATED and scaled down because none of the instances joined "
    "the underlying ECS Cluster. Common issues preventing instances joining are the following: VPC/Subnet "
    "configuration preventing communication to ECS, incorrect Instance Profile policy preventing authorization to ECS, "
    "or customized AMI or LaunchTemplate configurations affecting ECS agent."
)
"""User Guide, Troubleshooting: INVALID compute environment."""


@dataclass
class Batch:
    """AWS Batch of one region. `lock` guards its state and that of everything it refers to."""

    context: EmulatorContext
    region: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    definitions: dict[str, list[JobDefinition]] = field(default_factory=dict)
    hidden: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        context = self.context
        self.fleet = Fleet(
            region=self.region,
            account=context.account,
            boot_s=lambda: context.timing.scaled(context.timing.boot_s),
            quota_vcpus=context.quota_vcpus,
            no_capacity=lambda environment, job: bool(
                context.faults.holding("no_capacity", job.id, job.name, environment.name)
            ),
            drains=lambda environment: user_data.drains(self._user_data(environment)),
        )
        self.scheduler = Scheduler(
            fleet=self.fleet, timing=context.timing, new_attempt=self._new_attempt, stuck=self._stuck
        )
        self.events = EventSender(context.account, self.region)
        self._attempts = AttemptThreads(context, self.region, self.lock, self.scheduler, self.advance)
        self._wake = threading.Condition(self.lock)
        self._changed = threading.Condition(self.lock)
        self._closed = False
        self._timer = threading.Thread(target=self._keep_time, name=f"batch-{self.region}", daemon=True)
        self._timer.start()

    # --- identity ---------------------------------------------------------------------------------------------------

    def arn(self, kind: str, name: str) -> str:
        """``arn:aws:batch:<region>:<account>:<kind>/<name>``."""
        return f"arn:aws:batch:{self.region}:{self.context.account}:{kind}/{name}"

    def now(self) -> float:
        """Epoch seconds."""
        return self.context.clock()

    # --- jobs -------------------------------------------------------------------------------------------------------

    def submit(self, job: Job, array_size: int | None, node_containers: Sequence[Json] = ()) -> None:
        """Take a job that was accepted; make the children of an array, or the nodes of a multi-node parallel job.

        Args:
            job: The job.
            array_size: Number of children of an array; `None` for other jobs.
            node_containers: ``containerProperties`` of each node; empty for other jobs.
        """
        with self.lock:
            if array_size is not None:
                job.array_size = array_size
                job.children = [
                    self._part(
                        job,
                        f":{index}",
                        job.container,
                        array_index=index,
                        timeout_s=job.timeout_s,
                        consumables=job.consumables,
                    )
                    for index in range(array_size)
                ]
            # The time limit is the whole job's, which lasts as long as its main node (API model, JobTimeout).
            job.nodes = [
                self._part(
                    job,
                    f"#{index}",
                    container,
                    node_index=index,
                    timeout_s=job.timeout_s if index == (job.node_properties or {}).get("mainNode") else None,
                )
                for index, container in enumerate(node_containers)
            ]
            fault = self.context.faults.take_job("describe_omits", job.name)
            if fault is not None:
                self.hidden[job.id] = self.now() + fault.seconds
            self.scheduler.submit(job)
            self.advance()

    @staticmethod
    def _part(parent: Job, suffix: str, container: Json, **own: Any) -> Job:
        """A child of an array, or a node."""
        return Job(
            id=f"{parent.id}{suffix}",
            arn=f"{parent.arn}{suffix}",
            name=parent.name,
            queue=parent.queue,
            definition=parent.definition,
            container=container,
            created_at=parent.created_at,
            parameters=parent.parameters,
            propagate_tags=parent.propagate_tags,
            retry=parent.retry,
            share=parent.share,
            scheduling_priority=parent.scheduling_priority,
            parent=parent,
            overrides_size=parent.overrides_size,
            needs=needs_of(container),
            **own,
        )

    def shown(self, job_id: str) -> Job | None:
        """The job; `None` where it is unknown, expired, or hidden for now by a fault."""
        job = self.scheduler.jobs.get(job_id)
        if job is None or not self.hidden:
            return job
        until = self.hidden.get(re.split("[:#]", job_id)[0])
        return None if until is not None and self.now() < until else job

    def cancel(self, job: Job, reason: str) -> None:
        """CancelJob."""
        with self.lock:
            self.scheduler.cancel(job, reason, self.now())
            self.advance()

    def terminate(self, job: Job, reason: str) -> None:
        """TerminateJob."""
        with self.lock:
            self.scheduler.terminate(job, reason, self.now())
            self.advance()

    # --- time and action --------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Carry out everything that follows from a change. Call with `lock` held."""
        if self._closed:
            return
        self.scheduler.advance(self.now())
        while self.scheduler.actions:
            actions, self.scheduler.actions = self.scheduler.actions, []
            for action in actions:
                self._act(action)
        self._wake.notify()
        self._changed.notify_all()

    def updated(self, environment: ComputeEnvironment, timeout_s: float) -> bool:
        """Wait until a compute environment is no longer UPDATING; returns whether that happened in time."""
        with self.lock:
            return self._changed.wait_for(lambda: self._closed or environment.status != "UPDATING", timeout_s)

    def faults_changed(self) -> None:
        """Faults were added or ended: hosts may be lost, compute environments INVALID, blocked jobs may go on."""
        with self.lock:
            for environment in self.fleet.environments.values():
                fault = self.context.faults.holding("invalid", environment.arn, environment=environment.name)
                well = "VALID" if environment.jobs_end_at is None else "UPDATING"
                environment.status = well if fault is None else "INVALID"
                environment.status_reason = HEALTHY if fault is None else fault.reason or INVALID
            for job in list(self.scheduler.jobs.values()):
                if job.status == "RUNNING" and not job.nodes:
                    self._maybe_lose_host(job, job.status)
            self.advance()

    def lose_host(self, instance_id: str, notice_s: float | None = None) -> None:
        """Terminate an instance, with the attempts on it.

        Args:
            instance_id: Of the instance.
            notice_s: Seconds from now until it is terminated; until then its metadata has a Spot interruption notice.
                `None`: it is terminated at once, without a notice.

        Raises:
            KeyError: No such instance.
        """
        with self.lock:
            host = self.fleet.hosts[instance_id]
            if notice_s is not None:
                self._give_notice(host, notice_s)
                self._later(notice_s, self._lose, host)
                return
            self.scheduler.lose(host, self.now())
            self.advance()

    def close(self) -> None:
        """Make no more decisions, and end every attempt."""
        with self.lock:
            self._closed = True
            self._wake.notify_all()
            self._changed.notify_all()
        self._attempts.close()
        self._timer.join(timeout=5)
        self.events.close()

    def _keep_time(self) -> None:
        with self.lock:
            while not self._closed:
                due = self.scheduler.next_due
                fault_ends = self.context.faults.next_end()
                wait = min(due - self.now(), float("inf") if fault_ends is None else fault_ends + 0.001)
                if wait > 0:
                    self._wake.wait(None if wait == float("inf") else min(wait, 3600.0))
                else:
                    self.advance()
                    continue
                if not self._closed and (fault_ends is not None or self.scheduler.next_due <= self.now()):
                    self.advance()

    def _act(self, action: Action) -> None:
        if isinstance(action, Launch):
            self._attempts.launch(action.job, action.attempt)
        elif isinstance(action, Stop):
            self._attempts.stop(action.attempt)
        elif isinstance(action, Kill):
            self._attempts.kill(action.attempt)
        elif isinstance(action, Changed):
            if not (action.job.children or action.job.nodes):
                self._maybe_lose_host(action.job, action.status)
            if moto_events.wants_events():
                self._publish(action)

    def _publish(self, action: Changed) -> None:
        job = action.job
        kind = "Batch Job Queue Blocked" if action.blocked else "Batch Job State Change"
        resources = [job.arn, job.queue.arn] if action.blocked else [job.arn]
        self.events.publish(kind, resources, json.dumps({**describe.job(job), "status": action.status}))

    def _maybe_lose_host(self, job: Job, status: str) -> None:
        host = self._host_of(job)
        fault = None if host is None else self.context.faults.take_job("lose_host", job.fault_name, state=status)
        if fault is None or host is None:
            return
        if fault.notice_s is not None:
            self._later(max(0.0, fault.seconds - fault.notice_s), self._give_notice, host, fault.notice_s)
        self._later(fault.seconds, self._lose, host)

    def lose_host_of(self, job: Job) -> None:
        """Terminate the instance of a job, if it has one."""
        with self.lock:
            host = self._host_of(job)
            if host is not None:
                self._lose(host)

    @staticmethod
    def _host_of(job: Job) -> Host | None:
        """The host that the job runs on, or that boots for it."""
        if job.attempt is not None:
            return job.attempt.host
        place = job.placed[0].place
        return None if place is None else place[0]

    def _give_notice(self, host: Host, notice_s: float) -> None:
        with self.lock:
            host.interrupted_at = self.now() + notice_s
            if host.single_use and host.instance_id in self.fleet.hosts:
                self.scheduler.interrupt(host)
                self.advance()

    @staticmethod
    def _later(seconds: float, what: Callable[..., None], *args: object) -> None:
        timer = threading.Timer(seconds, what, args)
        timer.daemon = True
        timer.start()

    def _lose(self, host: Host) -> None:
        with self.lock:
            if host.instance_id in self.fleet.hosts and not self._closed:
                self.scheduler.lose(host, self.now())
                self.advance()

    def _user_data(self, environment: ComputeEnvironment) -> str:
        template = environment.resources.get("launchTemplate") or {}
        return moto_ec2.user_data(self.context.account, self.region, template) if template else ""

    def _stuck(self, job: Job) -> str | None:
        fault = self.context.faults.holding("stuck", job.id, job.name)
        return None if fault is None else fault.reason or "UNDETERMINED"

    # --- attempts ---------------------------------------------------------------------------------------------------

    def _new_attempt(self, job: Job, host: Host, gpus: list[str]) -> Attempt:
        task_id = secrets.token_hex(16)
        environment = host.environment
        cluster = f"{environment.name}_Batch_{environment.uuid}"
        return Attempt(
            number=len(job.attempts) + 1,
            task_id=task_id,
            task_arn=f"arn:aws:ecs:{self.region}:{self.context.account}:task/{cluster}/{task_id}",
            host=host,
            gpus=gpus,
            log_stream=job_log_stream.stream_name(job.container, job.definition.name, task_id),
        )


def new_id() -> str:
    """A job's id."""
    return str(uuid.uuid4())
