"""One attempt as something that runs: what it is given, how it ends, and what a runtime for it must offer.

The contract between the service and `processes` or `containers`; it must not know jobs, queues or AWS's states.
"""

from __future__ import annotations

from collections.abc import Callable
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
        reason: The container's reason, ``CannotStartContainerError: ...``; `None` if it never came to be.
        status_reason: The attempt's.
    """

    def __init__(self, reason: str | None, status_reason: str = START_FAILED) -> None:
        super().__init__(reason or status_reason)
        self.reason = None if reason is None else reason[:REASON_LENGTH]
        self.status_reason = status_reason


@dataclass(frozen=True)
class Exit:
    """How an attempt ended: its exit code (128 + n for signal n), and the container's reason if there is one."""

    code: int
    reason: str | None = None


@dataclass(frozen=True)
class AttemptSpec:
    """What to run.

    Attributes:
        task_id: Names the working folder.
        image: The container's image; a process has none.
        command: Program and arguments; empty for the image's own.
        environment: All variables that AWS and the job set.
        memory_mib: Hard limit.
        shm_mib: ``/dev/shm``, for containers.
        gpus: Indices of GPUs of this machine to show, if it has any.
        options: ``containerProperties``, for what only a container can do.
        disk_full_s: After so many seconds its disk is full, for processes; `None`: it never is.
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


class RunningAttempt(Protocol):
    """An attempt that runs."""

    def stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL to all of it after the grace; returns at once."""

    def kill(self) -> None:
        """SIGKILL to all of it."""

    def wait(self) -> Exit:
        """Block until it ended and all of its output was delivered."""


class Runtime(Protocol):
    """Starts attempts."""

    def start(self, spec: AttemptSpec, output: Callable[[bytes], None]) -> RunningAttempt:
        """Start; ``output`` gets stdout and stderr as they come, in one stream, from one thread.

        Raises:
            StartFailed: It could not be started.
        """

    def close(self) -> None:
        """End all that runs."""


def scratch(folder: Path, task_id: str) -> Path:
    """The working folder of an attempt, made."""
    path = folder / task_id
    path.mkdir(parents=True, exist_ok=True)
    return path
