"""The emulated AWS Batch of one account and region: its jobs, and the threads that make decisions come true.

Decisions are `scheduler`'s and shapes are `describe`'s. Every change of state happens under one lock, and what
follows from it at once in the same call: nothing polls. It must not know HTTP.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covalent_cirro.emulator import credentials, describe, logs, moto_aws
from covalent_cirro.emulator.agent import Agent, Refused
from covalent_cirro.emulator.attempts import Exit, Running, Runtime, Spec, StartFailed
from covalent_cirro.emulator.events import Events
from covalent_cirro.emulator.faults import Faults
from covalent_cirro.emulator.hosts import Fleet
from covalent_cirro.emulator.model import Attempt, Host, Job, JobDefinition, Timing
from covalent_cirro.emulator.scheduler import (
    ESSENTIAL_EXITED,
    TIMED_OUT,
    Action,
    Changed,
    Kill,
    Launch,
    Scheduler,
    Stop,
)

NO_ROLE = (
    "ECS was unable to assume the role '{}' that was provided for this task. Please verify that the role being passed "
    "has the proper trust relationship and permissions and that your IAM user has permissions to pass this role."
)
"""What ECS says (ECS Developer Guide, troubleshooting)."""

log = logging.getLogger("covalent_cirro.emulator")


HEALTHY = "ComputeEnvironment Healthy"
INVALID = (
    "CLIENT_ERROR - Your compute environment has been INVALIDATED and scaled down because none of the instances joined "
    "the underlying ECS Cluster. Common issues preventing instances joining are the following: VPC/Subnet "
    "configuration preventing communication to ECS, incorrect Instance Profile policy preventing authorization to ECS, "
    "or customized AMI or LaunchTemplate configurations affecting ECS agent."
)
"""User Guide, Troubleshooting: INVALID compute environment."""


@dataclass(frozen=True)
class Setting:
    """What all Batches of one emulator share.

    Attributes:
        account: The account.
        endpoint_url: Where jobs reach the emulated AWS.
        runtime: Runs attempts.
        faults: Faults asked for.
        tasks: Credentials and metadata of tasks.
        timing: Durations.
        quota_vcpus: vCPUs of all hosts together; `None` for no limit.
        clock: Epoch seconds.
        role_refused: AWS's words if a role that the ECS agent uses may not do something; `None`: IAM is not enforced.
    """

    account: str
    endpoint_url: str
    runtime: Runtime
    faults: Faults
    tasks: credentials.Tasks
    timing: Timing
    quota_vcpus: float | None = None
    clock: Callable[[], float] = time.time
    role_refused: Refused | None = None


@dataclass
class Batch:
    """AWS Batch of one region. `lock` guards all that is reachable from here."""

    setting: Setting
    region: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    definitions: dict[str, list[JobDefinition]] = field(default_factory=dict)
    hidden: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        setting = self.setting
        self.fleet = Fleet(
            region=self.region,
            account=setting.account,
            boot_s=lambda: setting.timing.scaled(setting.timing.boot_s),
            quota_vcpus=setting.quota_vcpus,
            no_capacity=lambda environment, job: bool(
                setting.faults.holding("no_capacity", job.id, job.name, environment.name)
            ),
        )
        self.scheduler = Scheduler(
            fleet=self.fleet, timing=setting.timing, new_attempt=self._new_attempt, stuck=self._stuck
        )
        registry = setting.endpoint_url.partition("://")[2]
        self._agent = Agent(setting.account, self.region, registry, setting.clock, setting.role_refused)
        self.events = Events(setting.account, self.region)
        self._running: dict[str, Running] = {}
        self._wake = threading.Condition(self.lock)
        self._closed = False
        self._timer = threading.Thread(target=self._keep_time, name=f"batch-{self.region}", daemon=True)
        self._timer.start()

    # --- identity ---------------------------------------------------------------------------------------------------

    def arn(self, kind: str, name: str) -> str:
        """``arn:aws:batch:<region>:<account>:<kind>/<name>``."""
        return f"arn:aws:batch:{self.region}:{self.setting.account}:{kind}/{name}"

    def now(self) -> float:
        """Epoch seconds."""
        return self.setting.clock()

    # --- jobs -------------------------------------------------------------------------------------------------------

    def submit(self, job: Job, array_size: int | None) -> None:
        """Take a job that was accepted; makes an array's children."""
        with self.lock:
            if array_size is not None:
                job.array_size = array_size
                job.children = [self._child(job, index) for index in range(array_size)]
            fault = self.setting.faults.take_job("describe_omits", job.name)
            if fault is not None:
                self.hidden[job.id] = self.now() + fault.seconds
            self.scheduler.submit(job)
            self.advance()

    def _child(self, parent: Job, index: int) -> Job:
        return Job(
            id=f"{parent.id}:{index}",
            arn=f"{parent.arn}:{index}",
            name=parent.name,
            queue=parent.queue,
            definition=parent.definition,
            container=parent.container,
            created_at=parent.created_at,
            parameters=parent.parameters,
            propagate_tags=parent.propagate_tags,
            retry=parent.retry,
            timeout_s=parent.timeout_s,
            share=parent.share,
            scheduling_priority=parent.scheduling_priority,
            array_index=index,
            parent=parent,
            overrides_size=parent.overrides_size,
            needs=parent.needs,
        )

    def shown(self, job_id: str) -> Job | None:
        """The job, unless it is unknown, forgotten, or hidden for now by a fault."""
        job = self.scheduler.jobs.get(job_id)
        if job is None or not self.hidden:
            return job
        until = self.hidden.get(job_id.split(":")[0])
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
        """Let all follow that follows from a change, now. Call with `lock` held."""
        if self._closed:
            return
        self.scheduler.advance(self.now())
        while self.scheduler.actions:
            actions, self.scheduler.actions = self.scheduler.actions, []
            for action in actions:
                self._act(action)
        self._wake.notify()

    def faults_changed(self) -> None:
        """A fault came or went: hosts may be lost, compute environments INVALID, blocked jobs may go on."""
        with self.lock:
            for environment in self.fleet.environments.values():
                fault = self.setting.faults.holding("invalid", environment.arn, environment=environment.name)
                environment.status = "VALID" if fault is None else "INVALID"
                environment.status_reason = HEALTHY if fault is None else fault.reason or INVALID
            for job in list(self.scheduler.jobs.values()):
                if job.status == "RUNNING":
                    self._maybe_lose_host(job)
            self.advance()

    def lose_host(self, instance_id: str, notice_s: float | None = None) -> None:
        """The instance goes, with all that runs on it.

        Args:
            instance_id: Of the instance.
            notice_s: So long before, from now, Spot's notice is in its metadata; `None`: it goes at once, without.

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
        """Stop deciding and end every attempt."""
        with self.lock:
            self._closed = True
            running = list(self._running.values())
            self._wake.notify_all()
        for each in running:
            each.kill()
        self._timer.join(timeout=5)
        self.events.close()

    def _keep_time(self) -> None:
        with self.lock:
            while not self._closed:
                due = self.scheduler.next_due
                fault_ends = self.setting.faults.next_end()
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
            thread = threading.Thread(
                target=self._attempt,
                args=(action.job, action.attempt),
                name=f"attempt-{action.attempt.task_id[:8]}",
                daemon=True,
            )
            thread.start()
        elif isinstance(action, Stop):
            running = self._running.get(action.attempt.task_id)
            if running is not None:
                running.stop(self.setting.timing.scaled(self.setting.timing.grace_s))
        elif isinstance(action, Kill):
            running = self._running.get(action.attempt.task_id)
            if running is not None:
                running.kill()
        elif isinstance(action, Changed):
            if action.status == "RUNNING" and not action.job.children:
                self._maybe_lose_host(action.job)
            if moto_aws.wants_events():
                self._publish(action)

    def _publish(self, action: Changed) -> None:
        job = action.job
        kind = "Batch Job Queue Blocked" if action.blocked else "Batch Job State Change"
        resources = [job.arn, job.queue.arn] if action.blocked else [job.arn]
        self.events.publish(kind, resources, json.dumps({**describe.job(job), "status": action.status}))

    def _maybe_lose_host(self, job: Job) -> None:
        fault = self.setting.faults.take_job("lose_host", job.name)
        attempt = job.attempt
        if fault is None or attempt is None:
            return
        if fault.notice_s is not None:
            self._later(max(0.0, fault.seconds - fault.notice_s), self._give_notice, attempt.host, fault.notice_s)
        self._later(fault.seconds, self._lose, attempt.host)

    def _give_notice(self, host: Host, notice_s: float) -> None:
        host.goes_at = self.now() + notice_s

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

    def _stuck(self, job: Job) -> str | None:
        fault = self.setting.faults.holding("stuck", job.id, job.name)
        return None if fault is None else fault.reason or "UNDETERMINED"

    # --- attempts ---------------------------------------------------------------------------------------------------

    def _new_attempt(self, job: Job, host: Host, gpus: list[str]) -> Attempt:
        task_id = secrets.token_hex(16)
        environment = host.environment
        cluster = f"{environment.name}_Batch_{environment.uuid}"
        return Attempt(
            number=len(job.attempts) + 1,
            task_id=task_id,
            task_arn=f"arn:aws:ecs:{self.region}:{self.setting.account}:task/{cluster}/{task_id}",
            host=host,
            gpus=gpus,
            log_stream=logs.stream_name(job.container, job.definition.name, task_id),
        )

    def _attempt(self, job: Job, attempt: Attempt) -> None:
        """An attempt from STARTING to its end, in a thread of its own."""
        ended: Exit | None = None
        failed = StartFailed(None)
        try:
            ended = self._run(job, attempt)
        except StartFailed as error:
            failed = error
        except Exception as error:  # the emulator's own mistake must not leave a job running for ever
            log.exception("attempt %s of job %s", attempt.number, job.id)
            failed = StartFailed(f"CannotStartContainerError: the emulator failed: {error!r}")
        with self.lock:
            self._running.pop(attempt.task_id, None)
            self.setting.tasks.remove(attempt.task_id)
            if not attempt.lost:
                if ended is None:
                    attempt.status_reason, attempt.reason = failed.status_reason, failed.reason
                else:
                    attempt.status_reason = ESSENTIAL_EXITED
                    attempt.exit_code, attempt.reason = ended.code, ended.reason
                if attempt.stopping == "terminate":
                    attempt.status_reason = job.stop_reason
                elif attempt.stopping == "timeout":
                    attempt.status_reason = TIMED_OUT
                self.scheduler.stopped(job, attempt, self.now())
            self.advance()

    def _run(self, job: Job, attempt: Attempt) -> Exit | None:
        setting = self.setting
        delay = setting.timing.scaled(setting.timing.starting_s)
        if delay:
            time.sleep(delay)
        fault = setting.faults.take_job("image_pull", job.name)
        if fault is not None:
            detail = fault.reason or (
                f"Error response from daemon: manifest for {job.container['image']} not found: manifest unknown"
            )
            raise StartFailed(f"CannotPullContainerError: {detail}")
        role = job.container.get("jobRoleArn")
        for needed in (role, job.container.get("executionRoleArn")):
            if needed and not moto_aws.task_role_works(setting.account, needed):
                raise StartFailed(None, NO_ROLE.format(needed))
        self._agent.pull(job, attempt)
        setting.tasks.add(attempt.task_id, credentials.Grant(job, attempt, role))
        stream = self._agent.open_log(job, attempt)
        spec = Spec(
            task_id=attempt.task_id,
            image=job.container["image"],
            command=credentials.command(job),
            environment=credentials.environment(job, attempt, setting.endpoint_url, self.region),
            memory_mib=job.needs.memory_mib,
            shm_mib=(job.container.get("linuxParameters") or {}).get("sharedMemorySize"),
            gpus=tuple(attempt.host.gpu_ids.index(gpu) for gpu in attempt.gpus),
            options=job.container,
        )
        if attempt.lost or attempt.stopping:
            return None
        running = setting.runtime.start(spec, (lambda data: None) if stream is None else stream.write)
        with self.lock:
            self._running[attempt.task_id] = running
            self.scheduler.started(job, attempt, self.now())
            self._catch_up(attempt, running)
            self.advance()
        ended = running.wait()
        if stream is not None:
            stream.close()
        return ended

    def _catch_up(self, attempt: Attempt, running: Running) -> None:
        """What was decided while the process was being started."""
        if attempt.lost or self._closed:
            running.kill()
        elif attempt.stopping:
            running.stop(self.setting.timing.scaled(self.setting.timing.grace_s))


def runtime(
    folder: Path,
    *,
    docker: bool,
    image_commands: Mapping[str, Sequence[str]],
    login: Callable[[str], Mapping[str, str] | None],
) -> Runtime:
    """Processes, which take an image's own command from ``image_commands``; or containers if asked for.

    Args:
        login: User and password for an image of the emulated ECR; `None` for any other.

    Raises:
        EmulatorError: No Docker engine answers.
    """
    if docker:
        from covalent_cirro.emulator.containers import Containers

        return Containers.connect(login)
    from covalent_cirro.emulator.processes import Processes

    return Processes(folder, image_commands)


def new_id() -> str:
    """A job's id."""
    return str(uuid.uuid4())
