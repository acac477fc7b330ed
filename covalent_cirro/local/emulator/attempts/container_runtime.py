"""Runs an attempt as a container of its real image, on the Docker engine of this machine. It must not know jobs.

The network is the host's: the emulated AWS answers on the loopback, and has the same address in the container.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from covalent_cirro.errors import EmulatorError
from covalent_cirro.local.emulator.attempts.container_guard import OWNER
from covalent_cirro.local.emulator.attempts.container_memory import MemoryWatch
from covalent_cirro.local.emulator.attempts.runtime import OUT_OF_MEMORY, AttemptSpec, Exit, StartFailed

LABEL = "covalent-cirro-emulator"
"""Label of every container that is made here; its value is the task's id."""
CLOSE_S = 60.0
"""How long `ContainerRuntime.close` waits until all containers are removed."""
CONNECTIONS = 1024
"""Connections to the engine that are kept open: each container that runs needs two."""
OUTPUT_S = 10.0
"""How long the output may go on after the container has ended."""
PODMAN = "Podman Engine"
"""Name of the component by which podman is recognized (GET /version)."""
DAEMON = "Error response from daemon: "
"""What Docker's client, which the ECS agent uses, puts before a message of the engine."""

Login = Callable[[str], "Mapping[str, str] | None"]
"""User and password for an image of the emulated ECR; `None` for any other."""

log = logging.getLogger("covalent_cirro.local.emulator")


def _no_login(image: str) -> None:
    """No login: every image is of another registry."""


class ContainerAttempt:
    """A container that runs. Made by `ContainerRuntime.start`."""

    def __init__(
        self,
        container: Any,
        memory: MemoryWatch,
        stream: Iterable[bytes],
        output: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self._container = container
        self._memory = memory
        self._stream = stream
        self._output = output
        self._ended = ended
        self._timer: threading.Timer | None = None
        self._reader = threading.Thread(target=self._read, name=f"output-{container.short_id}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        from docker.utils.socket import SocketError

        with contextlib.suppress(OSError, SocketError):  # the engine ended
            for data in self._stream:
                self._output(data)

    def stop(self, grace_s: float) -> None:
        """SIGTERM to PID 1, SIGKILL after the grace period."""
        if self._timer is not None:
            return
        self._signal("SIGTERM")
        self._timer = threading.Timer(grace_s, self.kill)
        self._timer.daemon = True
        self._timer.start()

    def kill(self) -> None:
        """SIGKILL to the container."""
        self._signal("SIGKILL")

    def wait(self) -> Exit:
        """Block until the container ended; remove it then."""
        import docker.errors

        try:
            kills = self._memory.kills_at_the_end()
            code = int(self._container.wait()["StatusCode"])
            self._reader.join(timeout=OUTPUT_S)
            self._container.reload()
            killed = bool(kills) or bool(self._container.attrs["State"].get("OOMKilled"))
            return Exit(code, OUT_OF_MEMORY if killed else None)
        except docker.errors.APIError as error:
            if isinstance(error, docker.errors.NotFound) or "no such container" in _said(error).lower():
                return Exit(137)  # it was removed while it ran, by the guard or by a person
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            _remove(self._container)
            self._ended()

    def _signal(self, name: str) -> None:
        import docker.errors
        import requests

        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):  # it may have ended already
            self._container.kill(signal=name)


@dataclass
class ContainerRuntime:
    """Runs attempts as containers. Made by `connect`.

    Attributes:
        client: Client of the engine.
        login: Gives user and password for images of the emulated ECR.
        owner: Id of this emulator: the label `OWNER` of its containers.
    """

    client: Any
    login: Login = _no_login
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[str, ContainerAttempt] = field(default_factory=dict)
    _closed: bool = False
    _has_init: bool = True
    _guard: subprocess.Popen[bytes] | None = None

    @classmethod
    def connect(cls, login: Login = _no_login) -> ContainerRuntime:
        """Connect to the engine that the environment names (``DOCKER_HOST``, or the usual socket).

        Raises:
            EmulatorError: No engine answers.
        """
        import docker.errors

        import docker

        try:
            client = docker.from_env(max_pool_size=CONNECTIONS)
            client.ping()
        except docker.errors.DockerException as error:
            raise EmulatorError(
                f"no Docker engine answers ({error}): start one, or run jobs as processes by leaving out --docker"
            ) from error
        made = cls(client, login)
        made._guard = subprocess.Popen(
            [sys.executable, "-m", "covalent_cirro.local.emulator.attempts.container_guard", made.owner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if made._guard.wait() != 0:  # its child goes on, without a parent
            raise EmulatorError(f"the guard of the containers does not start: exit code {made._guard.returncode}")
        return made

    def start(self, spec: AttemptSpec, output: Callable[[bytes], None]) -> ContainerAttempt:
        """Pull the image if the engine lacks it, create the container, start it (`runtime.Runtime.start`)."""
        self._pull(spec.image)
        asked = options(spec)
        asked["labels"][OWNER] = self.owner
        asked["init"] = init = asked["init"] and self._has_init
        try:
            run = self._run(spec.image, asked)
        except StartFailed as error:
            if not (init and "init" in str(error.reason)):
                raise
            run = self._run(spec.image, {**asked, "init": False})
            if self._has_init:
                log.warning("containers run without an init process, since the engine has none: %s", error.reason)
            self._has_init = False
        attempt = ContainerAttempt(*run, output, lambda: self._forget(spec.task_id))
        with self._lock:
            self._running[spec.task_id] = attempt
            closed = self._closed
        if closed:
            attempt.kill()
        return attempt

    def close(self) -> None:
        """Kill and remove all containers."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for attempt in running:
            attempt.kill()
        if self._guard is not None:
            assert self._guard.stdin is not None
            assert self._guard.stdout is not None
            self._guard.stdin.close()
            select.select([self._guard.stdout], [], [], CLOSE_S)
            self._guard.stdout.close()
        self.client.close()

    def _forget(self, task_id: str) -> None:
        with self._lock:
            self._running.pop(task_id, None)

    def _pull(self, image: str) -> None:
        import docker.errors
        import requests

        login = self.login(image)
        try:
            # An image of the emulated ECR is always pulled, as by the ECS agent: a tag may have moved.
            if login is None:
                with contextlib.suppress(docker.errors.ImageNotFound):
                    self.client.images.get(image)
                    return
            # The engine answers 200 before it pulls: a failure is a line of the answer.
            for line in _pulling(self.client.api, image, login):
                if line.get("error"):
                    raise StartFailed(f"CannotPullContainerError: {DAEMON}{line['error']}")
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise StartFailed(f"CannotPullContainerError: {DAEMON}{_said(error)}") from None

    def _run(self, image: str, asked: dict[str, Any]) -> tuple[Any, MemoryWatch, Iterable[bytes]]:
        import docker.errors

        try:
            container = self.client.containers.create(image, **asked)
        except docker.errors.DockerException as error:
            raise StartFailed(f"CannotCreateContainerError: {DAEMON}{_said(error)}") from None
        memory = MemoryWatch(container.id)
        try:
            # Attached before the start, and not by the engine's log: that of podman loses the end.
            stream = container.attach(stream=True, stdout=True, stderr=True)
            memory.begin(_pid(container))  # podman has made PID 1 already; Docker makes it at the start
            container.start()
            memory.begin(_pid(container))
        except docker.errors.DockerException as error:
            _remove(container)
            raise StartFailed(f"CannotStartContainerError: {DAEMON}{_said(error)}") from None
        return container, memory, stream


def _pulling(api: Any, image: str, login: Mapping[str, str] | None) -> Iterable[Any]:
    """The lines of the engine's answer to a pull."""
    if login is None or not any(each.get("Name") == PODMAN for each in api.version().get("Components") or ()):
        lines: Iterable[Any] = api.pull(
            image, stream=True, decode=True, auth_config=None if login is None else dict(login)
        )
        return lines
    # The emulated ECR speaks HTTP without TLS. Docker accepts that on the loopback. podman does so only in its own form
    # of the call, with `tlsVerify` (podman API, libpod/images/pull).
    from docker.auth import encode_header

    answer = api.post(
        f"{api.base_url}/v4.0.0/libpod/images/pull",
        params={"reference": image, "tlsVerify": "false", "policy": "always"},
        headers={"X-Registry-Auth": encode_header(dict(login))},
        stream=True,
        timeout=None,
    )
    return map(json.loads, filter(None, answer.iter_lines())) if answer.ok else [{"error": answer.text}]


def _pid(container: Any) -> int:
    container.reload()
    return int(container.attrs["State"].get("Pid") or 0)


def _said(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or error
    return explanation.decode("utf-8", "replace") if isinstance(explanation, bytes) else str(explanation)


def _remove(container: Any) -> None:
    import docker.errors
    import requests

    with contextlib.suppress(
        docker.errors.DockerException, requests.RequestException
    ):  # it was removed, or is being removed
        container.remove(force=True, v=True)


def options(spec: AttemptSpec) -> dict[str, Any]:
    """The options of the container, as the Docker SDK has them. Pure."""
    from docker.types import DeviceRequest, LogConfig, Ulimit

    linux = spec.options.get("linuxParameters") or {}
    given: dict[str, Any] = {
        "environment": spec.environment,
        "network_mode": "host",
        "mem_limit": f"{spec.memory_mib}m",
        # No swap by default: ECS's instances have none (API model, LinuxParameters.maxSwap).
        "memswap_limit": f"{spec.memory_mib + int(linux.get('maxSwap') or 0)}m",
        "labels": {LABEL: spec.task_id},
        "init": bool(linux.get("initProcessEnabled")),
        "privileged": bool(spec.options.get("privileged")),
        "read_only": bool(spec.options.get("readonlyRootFilesystem")),
        # The output goes to CloudWatch Logs; a copy at the engine is not read.
        "log_config": LogConfig(type="none"),
        "detach": True,
    }
    if spec.entrypoint is not None:
        given["entrypoint"] = spec.entrypoint
    if spec.command:
        given["command"] = spec.command
    if spec.shm_mib is not None:
        given["shm_size"] = f"{spec.shm_mib}m"
    if spec.options.get("user"):
        given["user"] = spec.options["user"]
    if spec.options.get("mountPoints"):
        given["volumes"] = _binds(spec)
    if linux.get("tmpfs"):
        given["tmpfs"] = {
            each["containerPath"]: ",".join([f"size={each['size']}m", *each.get("mountOptions", [])])
            for each in linux["tmpfs"]
        }
    if spec.gpus:
        given["device_requests"] = [DeviceRequest(device_ids=[str(gpu) for gpu in spec.gpus], capabilities=[["gpu"]])]
    limits = spec.options.get("ulimits") or []
    if limits:
        given["ulimits"] = [
            Ulimit(name=each["name"], soft=each["softLimit"], hard=each["hardLimit"]) for each in limits
        ]
    return given


def _binds(spec: AttemptSpec) -> list[str]:
    """``/host:/container:ro``; a volume without a path of the host is removed with the container."""
    binds = []
    for point in spec.options["mountPoints"]:
        source = spec.folders.get(point["sourceVolume"])
        access = "ro" if point.get("readOnly") else "rw"
        binds.append(f"{source}:{point['containerPath']}:{access}" if source else point["containerPath"])
    return binds
