"""What a runtime of attempts gets and returns: what to run, how it ended, why it did not start.

`process_runtime` and `container_runtime` implement it. It must not know jobs, queues or states of AWS Batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from covalent_cirro.local.emulator.batch.model import Json

START_FAILED = "Task failed to start"
"""``statusReason`` of an attempt whose container did not start (ECS Developer Guide, stopped task errors)."""
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
"""``container.reason`` (ECS agent, agent/dockerclient/dockerapi/errors.go)."""
REASON_LENGTH = 255
"""The ECS agent cuts reasons here (API model, AttemptContainerDetail.reason)."""


class StartFailed(Exception):
    """The container could not be started.

    Attributes:
        reason: Reason of the container, such as ``CannotStartContainerError: ...``; `None` if there never was one.
        status_reason: Status reason of the attempt.
    """

    def __init__(self, reason: str | None, status_reason: str = START_FAILED) -> None:
        super().__init__(reason or status_reason)
        self.reason = None if reason is None else reason[:REASON_LENGTH]
        self.status_reason = status_reason


@dataclass(frozen=True)
class Exit:
    """How an attempt ended: its exit code (128 + n for signal n), and the container's reason; `None` without one."""

    code: int
    reason: str | None = None


@dataclass(frozen=True)
class AttemptSpec:
    """What to run.

    Attributes:
        task_id: Id of the ECS task, and name of the working folder.
        image: Image of the container.
        command: Program and arguments; empty: those of the image.
        entrypoint: In place of the image's entrypoint and command; `None`: the image's.
        environment: All variables that AWS and the job set.
        memory_mib: Hard limit.
        shm_mib: ``/dev/shm``, for containers.
        gpus: Indices of GPUs of this machine to show, if it has any.
        options: ``containerProperties`` of the job, which containers apply.
        folders: Folders of this machine behind volumes, by their names.
        disk_full_s: Seconds after which the disk of a process is full; `None`: it never is.
    """

    task_id: str
    image: str
    command: list[str]
    environment: dict[str, str]
    memory_mib: int
    shm_mib: int | None = None
    gpus: tuple[int, ...] = ()
    options: Json = field(default_factory=dict)
    disk_full_s: float | None = None
    entrypoint: list[str] | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageConfig:
    """What a process gets of its image, which is not pulled (OCI image specification, image configuration).

    Attributes:
        entrypoint: Program and first arguments of every job with this image.
        command: Arguments, or the program, of a job that has none of its own.
        environment: Variables; those of AWS and of the job have priority.
    """

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class RunningAttempt(Protocol):
    """An attempt that runs."""

    def stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL to all its processes after the grace period; returns at once."""

    def kill(self) -> None:
        """SIGKILL to all its processes."""

    def wait(self) -> Exit:
        """Block until it ended and all of its output was delivered."""


class Runtime(Protocol):
    """Starts attempts."""

    def start(self, spec: AttemptSpec, output: Callable[[bytes], None]) -> RunningAttempt:
        """Start an attempt; ``output`` gets stdout and stderr as they are written, in one stream, from one thread.

        Raises:
            StartFailed: It could not be started.
        """

    def close(self) -> None:
        """End all that runs."""


def image_config(images: Mapping[str, ImageConfig], image: str) -> ImageConfig:
    """The configuration of an image, by its name, its name without tag and digest, or that without the registry.

    An image that has none has no entrypoint, command and variables.
    """
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    repository = f"{folder}{slash}{last.partition(':')[0]}"
    host, _, path = repository.partition("/")
    in_registry = path if "." in host or ":" in host else repository
    found = (images.get(each) for each in (image, repository, in_registry))
    return next((each for each in found if each is not None), ImageConfig())


def scratch(folder: Path, task_id: str) -> Path:
    """Make the working folder of an attempt."""
    path = folder / task_id
    path.mkdir(parents=True, exist_ok=True)
    return path
