"""Runs an attempt as a container of its real image, on the Docker engine of this machine. It must not know jobs.

The network is the host's, as on AWS Batch with EC2, so the emulated AWS has the same address inside.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from covalent_cirro.emulator.attempts import OUT_OF_MEMORY, Exit, Spec, StartFailed
from covalent_cirro.errors import EmulatorError

LABEL = "covalent-cirro-emulator"
"""On every container made here, with the task's id."""


class ContainerAttempt:
    """A container that runs. Made by `Containers.start`."""

    def __init__(self, container: Any, output: Callable[[bytes], None]) -> None:
        self._container = container
        self._output = output
        self._timer: threading.Timer | None = None
        self._stream = container.logs(stream=True, follow=True, stdout=True, stderr=True)
        self._pump = threading.Thread(target=self._read, name=f"output-{container.short_id}", daemon=True)
        self._pump.start()

    def _read(self) -> None:
        for data in self._stream:
            self._output(data)

    def stop(self, grace_s: float) -> None:
        """SIGTERM to PID 1, SIGKILL after the grace."""
        if self._timer is not None:
            return
        self._signal("SIGTERM")
        self._timer = threading.Timer(grace_s, self.kill)
        self._timer.daemon = True
        self._timer.start()

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._signal("SIGKILL")

    def wait(self) -> Exit:
        """Block until it ended; then it is removed."""
        import docker.errors

        code = int(self._container.wait()["StatusCode"])
        if self._timer is not None:
            self._timer.cancel()
        self._pump.join(timeout=5)
        self._container.reload()
        killed = bool(self._container.attrs["State"].get("OOMKilled"))
        with contextlib.suppress(docker.errors.APIError):
            self._container.remove(force=True, v=True)
        return Exit(code, OUT_OF_MEMORY if killed else None)

    def _signal(self, name: str) -> None:
        import docker.errors

        with contextlib.suppress(docker.errors.APIError):  # it may have ended already
            self._container.kill(signal=name)


@dataclass
class Containers:
    """Runs attempts as containers."""

    client: Any
    _running: dict[str, ContainerAttempt] = field(default_factory=dict)

    @classmethod
    def connect(cls) -> Containers:
        """Connect to the engine that the environment names (``DOCKER_HOST``, or the usual socket).

        Raises:
            EmulatorError: None answers.
        """
        import docker.errors

        import docker

        try:
            client = docker.from_env()
            client.ping()
        except docker.errors.DockerException as error:
            raise EmulatorError(
                f"no Docker engine answers ({error}): start one, or run jobs as processes by leaving out --docker"
            ) from error
        return cls(client)

    def start(self, spec: Spec, output: Callable[[bytes], None]) -> ContainerAttempt:
        """Pull the image if it is not there, create, start (`attempts.Runtime.start`)."""
        import docker.errors

        self._pull(spec.image)
        try:
            container = self.client.containers.create(spec.image, **options(spec))
        except docker.errors.APIError as error:
            raise StartFailed(f"CannotCreateContainerError: {error.explanation}") from None
        try:
            container.start()
        except docker.errors.APIError as error:
            container.remove(force=True)
            raise StartFailed(f"CannotStartContainerError: {error.explanation}") from None
        attempt = ContainerAttempt(container, output)
        self._running[spec.task_id] = attempt
        return attempt

    def close(self) -> None:
        """Kill all that runs."""
        for attempt in list(self._running.values()):
            attempt.kill()
        self.client.close()

    def _pull(self, image: str) -> None:
        import docker.errors

        try:
            self.client.images.get(image)
            return
        except docker.errors.ImageNotFound:
            pass
        try:
            self.client.images.pull(image)
        except docker.errors.APIError as error:
            raise StartFailed(f"CannotPullContainerError: {error.explanation}") from None


def options(spec: Spec) -> dict[str, Any]:
    """What the Docker SDK is asked for. Pure."""
    linux = spec.options.get("linuxParameters") or {}
    given: dict[str, Any] = {
        "environment": spec.environment,
        "network_mode": "host",
        "mem_limit": f"{spec.memory_mib}m",
        "labels": {LABEL: spec.task_id},
        "init": bool(linux.get("initProcessEnabled")),
        "privileged": bool(spec.options.get("privileged")),
        "read_only": bool(spec.options.get("readonlyRootFilesystem")),
        "detach": True,
    }
    if spec.command:
        given["command"] = spec.command
    if spec.shm_mib is not None:
        given["shm_size"] = f"{spec.shm_mib}m"
    if spec.options.get("user"):
        given["user"] = spec.options["user"]
    if spec.gpus:
        from docker.types import DeviceRequest

        given["device_requests"] = [DeviceRequest(device_ids=[str(gpu) for gpu in spec.gpus], capabilities=[["gpu"]])]
    limits = spec.options.get("ulimits") or []
    if limits:
        from docker.types import Ulimit

        given["ulimits"] = [
            Ulimit(name=each["name"], soft=each["softLimit"], hard=each["hardLimit"]) for each in limits
        ]
    return given
