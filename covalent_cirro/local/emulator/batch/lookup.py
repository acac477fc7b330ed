"""Finds resources by the name, ARN or revision in a request, and cuts lists into pages. Changes nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from covalent_cirro.local.emulator.batch.consumables import ConsumableResource
from covalent_cirro.local.emulator.batch.model import ComputeEnvironment, Job, JobDefinition, JobQueue, SchedulingPolicy
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError

Item = TypeVar("Item")


def queue(batch: Batch, name: str) -> JobQueue:
    """A job queue by name or ARN.

    Raises:
        ServiceError: There is none.
    """
    arn = name if name.startswith("arn:") else batch.arn("job-queue", name)
    if arn not in batch.scheduler.queues:
        raise ServiceError(f"JobQueue {name} does not exist")
    return batch.scheduler.queues[arn]


def environment(batch: Batch, name: str) -> ComputeEnvironment:
    """A compute environment by name or ARN.

    Raises:
        ServiceError: There is none.
    """
    arn = name if name.startswith("arn:") else batch.arn("compute-environment", name)
    if arn not in batch.fleet.environments:
        raise ServiceError(f"ComputeEnvironment {name} does not exist")
    return batch.fleet.environments[arn]


def policy(batch: Batch, arn: str) -> SchedulingPolicy:
    """A scheduling policy by ARN.

    Raises:
        ServiceError: There is none.
    """
    if arn not in batch.fleet.policies:
        raise ServiceError(f"SchedulingPolicy {arn} does not exist")
    return batch.fleet.policies[arn]


def consumable(batch: Batch, name: str) -> ConsumableResource:
    """A consumable resource by name or ARN.

    Raises:
        ServiceError: There is none.
    """
    arn = name if name.startswith("arn:") else batch.arn("consumable-resource", name)
    if arn not in batch.fleet.consumables:
        raise ServiceError(f"ConsumableResource {name} does not exist")
    return batch.fleet.consumables[arn]


def revisions(batch: Batch, name: str) -> tuple[list[JobDefinition], int | None]:
    """All revisions of a definition given as name, ``name:revision`` or ARN with or without one, and that revision."""
    short = name.split("job-definition/", 1)[1] if name.startswith("arn:") and "/" in name else name
    base, _, revision = short.partition(":")
    return batch.definitions.get(base, []), int(revision) if revision.isdigit() else None


def definition(batch: Batch, name: str) -> JobDefinition:
    """The definition that a job can be submitted with: the one named, or the latest that is ACTIVE.

    Raises:
        ServiceError: There is none, or it is INACTIVE.
    """
    found, revision = revisions(batch, name)
    if revision is not None:
        found = [each for each in found if each.revision == revision]
    if not found:
        raise ServiceError(f"JobDefinition {name} does not exist")
    active = [each for each in found if each.status == "ACTIVE"]
    if not active:
        raise ServiceError(f"JobDefinition {name} is INACTIVE: a job can only be submitted with an ACTIVE one")
    return active[-1]


def not_done(batch: Batch, queue: JobQueue) -> list[Job]:
    """Jobs of a queue that are not terminal, parents included."""
    return [job for job in batch.scheduler.jobs.values() if job.queue is queue and not job.terminal]


def counts(batch: Batch) -> dict[str, int]:
    """Jobs by state; children of arrays are counted, but not their parents, nor nodes."""
    counts: dict[str, int] = {}
    for job in list(batch.scheduler.jobs.values()):
        if not job.children and job.node_index is None:
            counts[job.status] = counts.get(job.status, 0) + 1
    return counts


def page(
    items: Sequence[Item], key: Callable[[Item], str], limit: int, token: str | None
) -> tuple[Sequence[Item], str | None]:
    """One page of a list, and the token of the next. The token names the last item of the page, so
    that new items do not shift the next page.

    Raises:
        ServiceError: The token was not made here.
    """
    start = 0
    if token:
        try:
            last = base64.urlsafe_b64decode(token.encode()).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ServiceError(f"Invalid nextToken {token}") from None
        start = next((i for i, item in enumerate(items, start=1) if key(item) == last), -1)
        if start < 0:
            raise ServiceError(f"Invalid nextToken {token}")
    shown = items[start : start + limit]
    more = start + limit < len(items) and len(shown) > 0
    return shown, base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if more else None
