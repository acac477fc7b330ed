"""Why a task ended, in ECS's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CONTAINER = "service"
"""Name of the container in ``infra/serving.yaml``."""

_NO_FAILURE = ("Scaling activity initiated by", "Task stopped by AZ rebalancing", "AWS maintenance")
"""How reasons begin for which a sound task ends: it is one too many, or an older one (ECS Developer Guide, Stopped
tasks error messages)."""


class FailedTask(NamedTuple):
    """A task that failed.

    Attributes:
        task_id: Id of the task.
        definition: ARN of its task definition.
        reason: Why it ended, in ECS's words, with its container's reason and exit code.
        log: Its last lines; empty where it printed nothing.
    """

    task_id: str
    definition: str
    reason: str
    log: str = ""


def task_id(arn: str) -> str:
    """Id of a task."""
    return arn.rsplit("/", 1)[-1]


def log_stream(service: str, task: str) -> str:
    """Name of the log stream of a task's container (ECS Developer Guide, awslogs-stream-prefix)."""
    return f"{service}/{CONTAINER}/{task}"


def failed(described: Mapping[str, Any]) -> FailedTask | None:
    """The failure of a stopped task; `None` for a task that had to go though nothing was wrong with it.

    Args:
        described: Entry of DescribeTasks' answer.
    """
    said = str(described.get("stoppedReason") or "").rstrip(".")
    if said.startswith(_NO_FAILURE):
        return None
    parts = [said] if said else []
    for container in described.get("containers") or ():
        reason, code = str(container.get("reason") or "").rstrip("."), container.get("exitCode")
        if reason and reason not in said:
            parts.append(reason)
        if code is not None:
            parts.append(f"exit code {code}")
    reason = "; ".join(parts) or str(described.get("stopCode") or "ECS does not say why")
    return FailedTask(task_id(str(described["taskArn"])), str(described.get("taskDefinitionArn") or ""), reason)


def in_words(task: FailedTask) -> str:
    """A failed task and its last lines, for a message of several lines."""
    lines = "".join(f"\n    {line}" for line in task.log.splitlines())
    printed = f". Its last lines:{lines}" if lines else "; it printed nothing"
    return f"task {task.task_id} ended: {task.reason}{printed}"
