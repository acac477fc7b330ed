"""Runs tasks of ECS services, each in a thread of its own, as processes or containers of the emulator's runtime.

A task's program answers on a free port of the loopback, which it gets in the variable ``PORT``, and ``127.0.0.1`` in
``HOST``: all tasks have the address of this machine, so no two can have the port of their definition.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable

from covalent_cirro.local.emulator.attempts.agent import Agent, AgentRole
from covalent_cirro.local.emulator.attempts.attempt_threads import NO_ROLE
from covalent_cirro.local.emulator.attempts.runtime import AttemptSpec, Exit, RunningAttempt, StartFailed
from covalent_cirro.local.emulator.attempts.tasks import DURATION_S
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.context import EmulatorContext
from covalent_cirro.local.emulator.moto_internals import moto_iam
from covalent_cirro.local.emulator.serving import service_scheduler
from covalent_cirro.local.emulator.serving.descriptions import HOST
from covalent_cirro.local.emulator.serving.service_model import Service, ServiceTask

STOP_TIMEOUT_S = 30.0
"""``stopTimeout`` of a container without one (API model, ContainerDefinition)."""
LEAST_STOP_S = 5.0
"""``stopTimeout`` is not scaled below this: a program needs real time to end."""
MEMORY_MIB = 512
"""Memory of a task whose definition states none."""

log = logging.getLogger("covalent_cirro.local.emulator")


class TaskThreads:
    """The tasks of one region that run. Safe for threads.

    Args:
        context: What all regions share.
        region: The region.
        lock: Guards the tasks' states.
        changed: Called when the state of a task has changed.
    """

    def __init__(
        self, context: EmulatorContext, region: str, lock: threading.RLock, changed: Callable[[], None]
    ) -> None:
        self._context, self._region, self._lock, self._changed = context, region, lock, changed
        registry = context.endpoint_url.partition("://")[2]
        self._agent = Agent(context.account, region, registry, context.clock, context.role_refused)
        self._running: dict[str, RunningAttempt] = {}
        self._by_endpoint: dict[str, ServiceTask] = {}
        self._issued: dict[str, Json] = {}
        self._closed = False

    # --- for the scheduler ------------------------------------------------------------------------------------------

    def launch(self, service: Service, task: ServiceTask) -> None:
        """Start a task; returns at once."""
        name = f"task-{task.id[:8]}"
        threading.Thread(target=self._task, args=(service, task), name=name, daemon=True).start()

    def stop(self, task: ServiceTask) -> None:
        """SIGTERM, SIGKILL after ``stopTimeout``; a task that does not run yet is stopped once it does."""
        with self._lock:
            running = self._running.get(task.id)
            if running is not None:
                task.last_status = "STOPPING"
                running.stop(self._stop_timeout_s(task))

    def kill(self, task: ServiceTask) -> None:
        """SIGKILL, as if the program had crashed."""
        running = self._running.get(task.id)
        if running is not None:
            running.kill()

    def close(self) -> None:
        """Kill all tasks, also those that are being started."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for each in running:
            each.kill()

    # --- for tasks --------------------------------------------------------------------------------------------------

    def credentials(self, endpoint_id: str) -> Json | None:
        """Credentials of the task's role, or `None` for a task that is unknown or has no role."""
        with self._lock:
            task = self._by_endpoint.get(endpoint_id)
            issued = self._issued.get(endpoint_id)
        if task is None or issued is not None:
            return issued
        role = task.deployment.task_definition.body.get("taskRoleArn")
        if not role:
            return None
        made = moto_iam.assume_role(self._context.account, self._region, role, task.id, DURATION_S)
        with self._lock:
            return self._issued.setdefault(endpoint_id, made)

    def metadata(self, endpoint_id: str) -> Json | None:
        """The container's part of ECS's task metadata, version 4, or `None` for an unknown task."""
        with self._lock:
            task = self._by_endpoint.get(endpoint_id)
        if task is None:
            return None
        definition = task.deployment.task_definition
        return {
            "DockerId": f"{task.id}-0",
            "Name": definition.container["name"],
            "Image": definition.container["image"],
            "Limits": {"CPU": float(definition.body.get("cpu") or 0) / 1024, "Memory": memory_mib(definition.body)},
            "DesiredStatus": task.desired_status,
            "KnownStatus": task.last_status,
            "Type": "NORMAL",
            "LogDriver": "awslogs",
            "ContainerARN": task.arn.replace(":task/", ":container/"),
            "Labels": {"com.amazonaws.ecs.task-arn": task.arn},
        }

    # --- one task ---------------------------------------------------------------------------------------------------

    def _task(self, service: Service, task: ServiceTask) -> None:
        """A task from PENDING to its end, in a thread of its own."""
        reserved: socket.socket | None = None
        ended: Exit | None = None
        failed = StartFailed("CannotStartContainerError: the task was stopped before it started")
        try:
            if task.deployment.task_definition.container.get("portMappings"):
                reserved = reserve_port()
                task.port = reserved.getsockname()[1]
                if not sys.platform.startswith("linux"):
                    reserved.close()
            ended = self._run(service, task)
        except StartFailed as error:
            failed = error
        except Exception as error:  # a mistake in the emulator must not leave a task PENDING for ever
            log.exception("task %s of service %s", task.id, service.name)
            failed = StartFailed(f"CannotStartContainerError: the emulator failed: {error!r}")
        finally:
            if reserved is not None:
                reserved.close()
        now = self._context.clock()
        with self._lock:
            self._running.pop(task.id, None)
            self._by_endpoint.pop(task.endpoint_id, None)
            self._issued.pop(task.endpoint_id, None)
            if ended is None:
                service_scheduler.failed_to_start(task, now, failed.reason or failed.status_reason)
            else:
                service_scheduler.ended(task, now, ended.code, ended.reason)
        self._changed()

    def _run(self, service: Service, task: ServiceTask) -> Exit | None:
        context, definition = self._context, task.deployment.task_definition
        container, body = definition.container, definition.body
        with self._lock:
            if not task.active or self._closed:
                return None
            task.last_status = "PENDING"
            self._by_endpoint[task.endpoint_id] = task
        fault = context.faults.take_job("image_pull", service.name)
        if fault is not None:
            detail = fault.reason or (
                f"failed to resolve reference {container['image']}: {container['image']}: not found"
            )
            raise StartFailed(f"CannotPullContainerError: {detail}")
        for needed in (body.get("taskRoleArn"), body.get("executionRoleArn")):
            if needed and not moto_iam.task_role_works(context.account, needed):
                raise StartFailed(None, NO_ROLE.format(needed))
        role = AgentRole(body.get("executionRoleArn"), task.id)
        self._agent.pull(container["image"], role)
        stream = self._agent.open_log(container, stream_name(container, task.id), role)
        spec = AttemptSpec(
            task_id=task.id,
            image=container["image"],
            command=[str(each) for each in container.get("command") or []],
            environment=self._environment(task),
            memory_mib=memory_mib(body),
            options={**container, "volumes": body.get("volumes") or []},
            entrypoint=[str(each) for each in container["entryPoint"]] if container.get("entryPoint") else None,
        )
        running = context.runtime.start(spec, (lambda data: None) if stream is None else stream.write)
        with self._lock:
            self._running[task.id] = running
            task.last_status, task.started_at = "RUNNING", context.clock()
            self._catch_up(task, running)
        self._changed()
        ended = running.wait()
        if stream is not None:
            stream.close()
        return ended

    def _catch_up(self, task: ServiceTask, running: RunningAttempt) -> None:
        """Stop or kill a task as it was decided while it was started."""
        if self._closed:
            running.kill()
        elif not task.active:
            self.stop(task)

    def _environment(self, task: ServiceTask) -> dict[str, str]:
        """The variables of the definition, and those of ECS.

        Source: ECS Developer Guide, task IAM roles, task metadata endpoint version 4.
        """
        url, definition = self._context.endpoint_url, task.deployment.task_definition
        variables = {each["name"]: each.get("value", "") for each in definition.container.get("environment") or []}
        variables.update(
            AWS_REGION=self._region,
            AWS_DEFAULT_REGION=self._region,
            AWS_ENDPOINT_URL=url,
            AWS_EXECUTION_ENV="AWS_ECS_FARGATE",
            ECS_CONTAINER_METADATA_URI_V4=f"{url}/_cirro/metadata/{task.endpoint_id}",
        )
        if task.port is not None:
            variables.update(HOST=HOST, PORT=str(task.port))
        if definition.body.get("taskRoleArn"):
            variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{url}/_cirro/credentials/{task.endpoint_id}"
        return variables

    def _stop_timeout_s(self, task: ServiceTask) -> float:
        seconds = float(task.deployment.task_definition.container.get("stopTimeout") or STOP_TIMEOUT_S)
        return min(seconds, max(LEAST_STOP_S, self._context.timing.scaled(seconds)))


def reserve_port() -> socket.socket:
    """A socket that holds a free port of the loopback, and does not listen.

    On Linux a server that sets SO_REUSEADDR, as servers do, can listen on the port while the socket holds it, and
    nothing else is given the port meanwhile (socket(7)).
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((HOST, 0))
    return holder


def stream_name(container: Json, task_id: str) -> str | None:
    """The log stream of a container; `None` where its log driver is not ``awslogs``, or without a prefix.

    Source: ECS Developer Guide, awslogs-stream-prefix, which Fargate requires.
    """
    configuration = container.get("logConfiguration") or {}
    prefix = (configuration.get("options") or {}).get("awslogs-stream-prefix")
    if configuration.get("logDriver") != "awslogs" or not prefix:
        return None
    return f"{prefix}/{container['name']}/{task_id}"


def memory_mib(definition: Json) -> int:
    """The memory of a task, which ``memory`` states in MiB or as ``2 GB``, or of its container."""
    container = definition["containerDefinitions"][0]
    text = str(container.get("memory") or definition.get("memory") or MEMORY_MIB).upper().replace(" ", "")
    return int(float(text[:-2]) * 1024) if text.endswith("GB") else int(text)
