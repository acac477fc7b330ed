"""Runs attempts, each in a thread of its own, from STARTING to its end.

Does what ECS does with a task that has a host; reasons of failures are in AWS's words. The scheduler decides what
follows from an end. This module must not know queues.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from covalent_cirro.local.emulator.attempts import mounts, tasks
from covalent_cirro.local.emulator.attempts.agent import Agent
from covalent_cirro.local.emulator.attempts.runtime import (
    AttemptSpec,
    Exit,
    ImageConfig,
    RunningAttempt,
    Runtime,
    StartFailed,
)
from covalent_cirro.local.emulator.batch.model import SPOT_STOP, Attempt, Job
from covalent_cirro.local.emulator.batch.retries import TIMED_OUT
from covalent_cirro.local.emulator.batch.scheduler import ESSENTIAL_EXITED, Scheduler
from covalent_cirro.local.emulator.context import EmulatorContext
from covalent_cirro.local.emulator.moto_internals import moto_iam

NO_ROLE = (
    "ECS was unable to assume the role '{}' that was provided for this task. Please verify that the role being passed "
    "has the proper trust relationship and permissions and that your IAM user has permissions to pass this role."
)
"""The reason that ECS gives (ECS Developer Guide, troubleshooting)."""

log = logging.getLogger("covalent_cirro.local.emulator")


class AttemptThreads:
    """The attempts of one region that run.

    Args:
        context: What all regions share.
        region: The region.
        lock: Guards the scheduler.
        scheduler: Gets starts and ends.
        advance: Carries out what follows from them; called with `lock` held.
    """

    def __init__(
        self,
        context: EmulatorContext,
        region: str,
        lock: threading.RLock,
        scheduler: Scheduler,
        advance: Callable[[], None],
    ) -> None:
        self._context, self._region, self._lock = context, region, lock
        self._scheduler, self._advance = scheduler, advance
        registry = context.endpoint_url.partition("://")[2]
        self._agent = Agent(context.account, region, registry, context.clock, context.role_refused)
        self._running: dict[str, RunningAttempt] = {}
        self._closed = False

    @functools.cached_property
    def _efs(self) -> Any:
        return self._context.efs(self._region)

    def launch(self, job: Job, attempt: Attempt) -> None:
        """Start the attempt; returns at once."""
        threading.Thread(
            target=self._attempt, args=(job, attempt), name=f"attempt-{attempt.task_id[:8]}", daemon=True
        ).start()

    def stop(self, attempt: Attempt) -> None:
        """SIGTERM, SIGKILL after the grace period; an attempt that does not run yet is stopped once it does."""
        running = self._running.get(attempt.task_id)
        if running is not None:
            running.stop(self._context.timing.scaled(self._context.timing.grace_s))

    def kill(self, attempt: Attempt) -> None:
        """SIGKILL; an attempt that does not run yet is killed once it does."""
        running = self._running.get(attempt.task_id)
        if running is not None:
            running.kill()

    def close(self) -> None:
        """End every attempt, also those that are being started."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for each in running:
            each.kill()

    def _attempt(self, job: Job, attempt: Attempt) -> None:
        """An attempt from STARTING to its end, in a thread of its own."""
        ended: Exit | None = None
        failed = StartFailed(None)
        try:
            ended = self._run(job, attempt)
        except StartFailed as error:
            failed = error
        except Exception as error:  # a mistake in the emulator must not leave a job RUNNING for ever
            log.exception("attempt %s of job %s", attempt.number, job.id)
            failed = StartFailed(f"CannotStartContainerError: the emulator failed: {error!r}")
        with self._lock:
            self._running.pop(attempt.task_id, None)
            self._context.tasks.remove(attempt.endpoint_id)
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
                elif attempt.stopping == SPOT_STOP:
                    attempt.status_reason = attempt.host.loss_reason
                self._scheduler.stopped(job, attempt, self._context.clock())
            self._advance()

    def _run(self, job: Job, attempt: Attempt) -> Exit | None:
        context = self._context
        delay = context.timing.scaled(context.timing.starting_s)
        if delay:
            time.sleep(delay)
        fault = context.faults.take_job("image_pull", job.fault_name)
        if fault is not None:
            detail = fault.reason or (
                f"Error response from daemon: manifest for {job.container['image']} not found: manifest unknown"
            )
            raise StartFailed(f"CannotPullContainerError: {detail}")
        role = job.container.get("jobRoleArn")
        for needed in (role, job.container.get("executionRoleArn")):
            if needed and not moto_iam.task_role_works(context.account, needed):
                raise StartFailed(None, NO_ROLE.format(needed))
        agent_role = self._agent.role_of(job, attempt)
        secrets = self._agent.secrets(job.container, agent_role, fargate=attempt.host.single_use)
        self._agent.pull(job.container["image"], agent_role)
        profile = str(attempt.host.environment.resources.get("instanceRole") or "")
        instance_role = moto_iam.role_of_instances(context.account, profile) if profile else None
        context.tasks.add(tasks.Task(job, attempt, role, instance_role))
        stream = self._agent.open_log(job.container, attempt.log_stream, agent_role)
        disk = context.faults.take_job("disk_full", job.fault_name)
        spec = AttemptSpec(
            task_id=attempt.task_id,
            image=job.container["image"],
            command=tasks.command(job),
            environment={**tasks.environment(job, attempt, context.endpoint_url, self._region), **secrets},
            memory_mib=job.needs.memory_mib,
            shm_mib=(job.container.get("linuxParameters") or {}).get("sharedMemorySize"),
            gpus=tuple(attempt.host.gpu_ids.index(gpu) for gpu in attempt.gpus),
            options=job.container,
            disk_full_s=None if disk is None else disk.seconds,
            folders=mounts.folders(job.container, context.files, self._efs) if job.container.get("volumes") else {},
        )
        if attempt.lost or attempt.stopping:
            return None
        running = context.runtime.start(spec, (lambda data: None) if stream is None else stream.write)
        with self._lock:
            self._running[attempt.task_id] = running
            self._scheduler.started(job, attempt, self._context.clock())
            self._catch_up(attempt, running)
            self._advance()
        ended = running.wait()
        if stream is not None:
            stream.close()
        return ended

    def _catch_up(self, attempt: Attempt, running: RunningAttempt) -> None:
        """Stop or kill an attempt as it was decided while it was started."""
        if attempt.lost or self._closed:
            running.kill()
        elif attempt.stopping:
            running.stop(self._context.timing.scaled(self._context.timing.grace_s))


def runtime(
    folder: Path,
    *,
    docker: bool,
    images: Mapping[str, ImageConfig],
    login: Callable[[str], Mapping[str, str] | None],
) -> Runtime:
    """The runtime of attempts: processes, or containers with ``docker``.

    Args:
        folder: Where processes have their working folders.
        docker: Run attempts as containers.
        images: Configurations of images, for processes.
        login: User and password for an image of the emulated ECR; `None` for any other.

    Raises:
        EmulatorError: No Docker engine answers.
    """
    if docker:
        from covalent_cirro.local.emulator.attempts.container_runtime import ContainerRuntime

        return ContainerRuntime.connect(login)
    from covalent_cirro.local.emulator.attempts.process_runtime import ProcessRuntime

    return ProcessRuntime(folder, images)
