"""The operations on consumable resources. `shapes` has checked their requests."""

from __future__ import annotations

import math
from collections import Counter

from covalent_cirro.local.emulator.batch import lookup, validation
from covalent_cirro.local.emulator.batch.consumables import NON_REPLENISHABLE, REPLENISHABLE, ConsumableResource
from covalent_cirro.local.emulator.batch.describe import present
from covalent_cirro.local.emulator.batch.model import Job, Json, epoch_ms
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError

PAGE = 100
"""Results of both lists (API model, maxResults)."""


def create(batch: Batch, request: Json) -> Json:
    """CreateConsumableResource."""
    name, total = request["consumableResourceName"], request.get("totalQuantity", 0)
    validation.resource_name("consumableResourceName", name)
    validation.tags(request.get("tags"))
    kind = request.get("resourceType") or REPLENISHABLE
    if kind not in (REPLENISHABLE, NON_REPLENISHABLE):
        raise ServiceError(f"resourceType {kind} is not valid: use {REPLENISHABLE} or {NON_REPLENISHABLE}")
    if total < 0:
        raise ServiceError(f"totalQuantity must not be negative, got {total}")
    arn = batch.arn("consumable-resource", name)
    with batch.lock:
        if arn in batch.fleet.consumables:
            raise ServiceError(f"Object already exists: ConsumableResource {name}")
        tags = dict(request.get("tags") or {})
        batch.fleet.consumables[arn] = ConsumableResource(name, arn, total, kind, batch.now(), tags=tags)
        batch.advance()
    return {"consumableResourceName": name, "consumableResourceArn": arn}


def describe(batch: Batch, request: Json) -> Json:
    """DescribeConsumableResource."""
    with batch.lock:
        found = lookup.consumable(batch, request["consumableResource"])
        return {
            **_summary(found),
            "availableQuantity": found.available,
            "createdAt": epoch_ms(found.created_at),
            "tags": found.tags,
        }


def update(batch: Batch, request: Json) -> Json:
    """UpdateConsumableResource."""
    operation, quantity = request.get("operation") or "SET", request.get("quantity", 0)
    if operation not in ("SET", "ADD", "REMOVE") or quantity < 0:
        raise ServiceError("operation must be SET, ADD or REMOVE, and quantity must not be negative")
    with batch.lock:
        found = lookup.consumable(batch, request["consumableResource"])
        total = {"SET": quantity, "ADD": found.total + quantity, "REMOVE": found.total - quantity}[operation]
        if total < 0:
            raise ServiceError(f"ConsumableResource {found.name} has a total of {found.total}: {quantity} is too much")
        found.total = total
        batch.advance()
    return {"consumableResourceName": found.name, "consumableResourceArn": found.arn, "totalQuantity": found.total}


def delete(batch: Batch, request: Json) -> Json:
    """DeleteConsumableResource."""
    with batch.lock:
        del batch.fleet.consumables[lookup.consumable(batch, request["consumableResource"]).arn]
    return {}


def list_all(batch: Batch, request: Json) -> Json:
    """ListConsumableResources: by name, where a filter says so."""
    with batch.lock:
        found = list(batch.fleet.consumables.values())
        for entry in request.get("filters") or []:
            if entry.get("name") != "CONSUMABLE_RESOURCE_NAME":
                raise ServiceError(f"Filter {entry.get('name')} is not valid: use CONSUMABLE_RESOURCE_NAME")
            found = [each for each in found if _like(each.name, entry.get("values") or [])]
        limit = min(request.get("maxResults") or PAGE, PAGE)
        shown, token = lookup.page(found, lambda each: each.arn, limit, request.get("nextToken"))
        return present(consumableResources=[_summary(each) for each in shown], nextToken=token)


def list_jobs(batch: Batch, request: Json) -> Json:
    """ListJobsByConsumableResource, newest first; of an array its parent."""
    with batch.lock:
        found = lookup.consumable(batch, request["consumableResource"])
        jobs = [each for each in batch.scheduler.jobs.values() if found.arn in each.consumables and each.parent is None]
        jobs.reverse()
        for entry in request.get("filters") or []:
            name, values = entry.get("name"), entry.get("values") or []
            if name not in ("JOB_STATUS", "JOB_NAME"):
                raise ServiceError(f"Filter {name} is not valid: use JOB_STATUS or JOB_NAME")
            jobs = [
                each for each in jobs if (each.status in values if name == "JOB_STATUS" else _like(each.name, values))
            ]
        limit = min(request.get("maxResults") or PAGE, PAGE)
        shown, token = lookup.page(jobs, lambda each: each.id, limit, request.get("nextToken"))
        return present(jobs=[_job(each, found.arn) for each in shown], nextToken=token)


def properties(batch: Batch, given: Json | None) -> dict[str, int]:
    """Quantities by ARN of ``consumableResourceProperties``.

    That AWS Batch refuses the name of a resource that does not exist, and with what words, is unverified.

    Raises:
        ServiceError: A resource that does not exist, or a quantity that is not possible.
    """
    wanted: dict[str, int] = {}
    for entry in (given or {}).get("consumableResourceList") or []:
        name, quantity = entry.get("consumableResource"), entry.get("quantity")
        if not name or quantity is None or quantity < 1:
            raise ServiceError("A consumable resource needs a name, and a quantity of at least 1")
        wanted[lookup.consumable(batch, name).arn] = quantity
    return wanted


def total(batch: Batch, *given: Json | None) -> dict[str, int]:
    """The sum of several ``consumableResourceProperties``: of a job, and of each of its nodes (unverified for these).

    Raises:
        ServiceError: As `properties`.
    """
    wanted: Counter[str] = Counter()
    for each in given:
        wanted.update(properties(batch, each))
    return dict(wanted)


def _summary(of: ConsumableResource) -> Json:
    return {
        "consumableResourceName": of.name,
        "consumableResourceArn": of.arn,
        "totalQuantity": of.total,
        "inUseQuantity": of.in_use,
        "resourceType": of.kind,
    }


def _job(of: Job, resource: str) -> Json:
    return present(
        jobArn=of.arn,
        jobQueueArn=of.queue.arn,
        jobName=of.name,
        jobDefinitionArn=of.definition.arn,
        shareIdentifier=of.share,
        jobStatus=of.status,
        quantity=of.consumables[resource],
        statusReason=of.status_reason,
        startedAt=epoch_ms(of.started_at),
        createdAt=math.floor(of.created_at * 1000),
        consumableResourceProperties=of.definition.body.get("consumableResourceProperties"),
    )


def _like(name: str, patterns: list[str]) -> bool:
    """As filters match: without regard to case, and by its beginning before an asterisk."""
    lower = name.lower()
    return any(
        lower.startswith(each[:-1].lower()) if each.endswith("*") else lower == each.lower() for each in patterns
    )
