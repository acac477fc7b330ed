"""Consumable resources: what jobs hold while they run, such as licences (User Guide, Resource-aware scheduling).

A job that has reached the head of its queue waits until all that it needs is available, and the jobs behind it with it.
It holds its resources until it has ended, over retries too. Data and what follows from it; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covalent_cirro.local.emulator.batch.model import Job

REPLENISHABLE, NON_REPLENISHABLE = "REPLENISHABLE", "NON_REPLENISHABLE"
"""API model, CreateConsumableResourceRequest.resourceType. What a job held of the second kind is used up."""


@dataclass
class ConsumableResource:
    """A consumable resource. ``created_at`` is in epoch seconds."""

    name: str
    arn: str
    total: int
    kind: str
    created_at: float
    in_use: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def available(self) -> int:
        """What no job holds; 0 where the total was set below what jobs hold."""
        return max(0, self.total - self.in_use)


def take(job: Job, resources: Mapping[str, ConsumableResource]) -> bool:
    """Give a job all that it needs; returns whether it holds it now. A resource that was deleted is never available."""
    if job.holds:
        return True
    if any(arn not in resources or resources[arn].available < count for arn, count in job.consumables.items()):
        return False
    for arn, count in job.consumables.items():
        resources[arn].in_use += count
    job.holds = True
    return True


def give_back(job: Job, resources: Mapping[str, ConsumableResource], *, used: bool) -> None:
    """Free what a job holds.

    Args:
        job: The job.
        resources: By ARN.
        used: Whether the job has started: it has used up what is not replenishable.
    """
    if not job.holds:
        return
    job.holds = False
    for arn, count in job.consumables.items():
        resource = resources.get(arn)
        if resource is None:
            continue
        resource.in_use -= count
        if used and resource.kind == NON_REPLENISHABLE:
            resource.total = max(0, resource.total - count)
