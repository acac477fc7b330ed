"""What AWS says of a queue at one time, for `waiting.py`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from covalent_cirro.jobs.machines import InstanceType
from covalent_cirro.jobs.queues import Environment, Queue

FRONT_JOBS = 100
"""RUNNABLE jobs that GetJobQueueSnapshot shows (Batch API Reference)."""


class QueuePosition(NamedTuple):
    """A RUNNABLE job in its queue, and the epoch second since which it has its position."""

    job_id: str
    since: float


class Consumable(NamedTuple):
    """A consumable resource that a job needs.

    Attributes:
        name: Name or ARN of the resource.
        needed: How many the job needs.
        available: How many no job holds.
        total: How many there are; `None`: the resource does not exist.
    """

    name: str
    needed: int
    available: int
    total: int | None

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.needed} of {self.name}, which does not exist"
        return f"{self.needed} of {self.name}, of which {self.available} of {self.total} are free"


class QueueSnapshot(NamedTuple):
    """What AWS says of a queue at one time. `None`: not known.

    Attributes:
        queue: The queue; `None` where it does not exist, or where a call in ``denied`` is needed to know it.
        environments: Its compute environments, in their order.
        types: Instance types by name, at least those of the compute environments.
        running: Number of the queue's jobs that have an instance, at most `FRONT_JOBS`.
        front: Up to `FRONT_JOBS` jobs in the order in which they will start.
        head_reason: statusReason of the first of them.
        denied: Calls that the credentials do not allow: ``"batch:ListJobs"``.
        running_vcpus: vCPUs that these jobs asked for, on all their nodes; `None` also where there are more jobs than
            were looked at.
        head_lacks: Consumable resources of which the first job needs more than are free.
    """

    queue: Queue | None
    environments: tuple[Environment, ...]
    types: Mapping[str, InstanceType] | None
    running: int | None
    front: tuple[QueuePosition, ...] | None
    head_reason: str
    denied: tuple[str, ...] = ()
    running_vcpus: float | None = None
    head_lacks: tuple[Consumable, ...] = ()
