"""Consumable resources: jobs hold them while they run, and wait for them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError


def _needs(resource: str, quantity: int = 1) -> dict[str, Any]:
    entry = {"consumableResource": resource, "quantity": quantity}
    return {"options": {"consumableResourceProperties": {"consumableResourceList": [entry]}}}


def test_a_job_waits_until_what_it_needs_is_free(aws: Any, poll: Any) -> None:
    """There is room on the instance, and one licence: the second job starts once the first has ended."""
    name = aws.name("license")
    arn = aws.batch.create_consumable_resource(consumableResourceName=name, totalQuantity=1)["consumableResourceArn"]
    queue, definition = aws.queue(), aws.definition("sleep", "0.3", **_needs(name))
    first = aws.submit(queue=queue, definition=definition)
    aws.reach(first, "RUNNING")
    second = aws.submit(queue=queue, definition=definition)
    aws.reach(second, "RUNNABLE", "SUCCEEDED")
    found = aws.batch.describe_consumable_resource(consumableResource=arn)
    assert (found["totalQuantity"], found["resourceType"]) == (1, "REPLENISHABLE")
    assert found["inUseQuantity"] + found["availableQuantity"] == 1
    assert aws.done(second)["startedAt"] >= aws.done(first)["stoppedAt"]
    assert aws.job(first)["consumableResourceProperties"]["consumableResourceList"][0]["consumableResource"] == name
    poll(lambda: aws.batch.describe_consumable_resource(consumableResource=name)["inUseQuantity"] == 0, "all free")
    jobs = aws.batch.list_jobs_by_consumable_resource(consumableResource=name)["jobs"]
    assert [(each["jobArn"].rsplit("/", 1)[1], each["quantity"]) for each in jobs] == [(second, 1), (first, 1)]


def test_the_job_at_the_head_of_a_queue_blocks_those_behind_it(aws: Any) -> None:
    """As AWS says: it waits RUNNABLE until all is available; more is added, and both start."""
    name = aws.name("license")
    aws.batch.create_consumable_resource(consumableResourceName=name, totalQuantity=1)
    queue = aws.queue()
    head = aws.submit(queue=queue, definition=aws.definition("true", **_needs(name, 2)))
    behind = aws.submit("true", queue=queue)
    aws.reach(head, "RUNNABLE")
    assert aws.reach(behind, "RUNNABLE")["status"] == "RUNNABLE"
    aws.batch.update_consumable_resource(consumableResource=name, operation="ADD", quantity=1)
    assert (aws.done(head)["status"], aws.done(behind)["status"]) == ("SUCCEEDED", "SUCCEEDED")


def test_a_waiting_job_that_is_terminated_holds_nothing(aws: Any) -> None:
    """And one that has run frees what it held, also if it failed."""
    name = aws.name("license")
    aws.batch.create_consumable_resource(consumableResourceName=name, totalQuantity=0)
    job = aws.submit(definition=aws.definition("true", **_needs(name)))
    aws.batch.terminate_job(jobId=job, reason="not wanted")
    assert aws.done(job)["status"] == "FAILED"
    aws.batch.update_consumable_resource(consumableResource=name, operation="SET", quantity=1)
    assert aws.done(aws.submit(definition=aws.definition("false", **_needs(name))))["status"] == "FAILED"
    assert aws.batch.describe_consumable_resource(consumableResource=name)["inUseQuantity"] == 0


def test_what_is_not_replenishable_is_used_up(aws: Any) -> None:
    """The total is less by what each job held."""
    name = aws.name("credits")
    aws.batch.create_consumable_resource(consumableResourceName=name, totalQuantity=5, resourceType="NON_REPLENISHABLE")
    aws.done(aws.submit(definition=aws.definition("true", **_needs(name, 2))))
    found = aws.batch.describe_consumable_resource(consumableResource=name)
    assert (found["totalQuantity"], found["inUseQuantity"], found["availableQuantity"]) == (3, 0, 3)


def test_children_of_an_array_hold_each_their_own(aws: Any) -> None:
    """With two licences, two of three run at a time."""
    name = aws.name("license")
    aws.batch.create_consumable_resource(consumableResourceName=name, totalQuantity=2)
    definition = aws.definition("sleep", "0.2", **_needs(name))
    parent = aws.submit(queue=aws.queue(), definition=definition, arrayProperties={"size": 3})
    aws.done(parent)
    children = aws.batch.describe_jobs(jobs=[f"{parent}:{index}" for index in range(3)])["jobs"]
    assert children[2]["startedAt"] >= min(child["stoppedAt"] for child in children[:2])


def test_resources_are_listed_tagged_and_deleted(aws: Any) -> None:
    """By the begin of a name too, as filters have it."""
    # No other test here names a resource so: what begins with the name is this one alone.
    name = aws.name("seats")
    made = aws.batch.create_consumable_resource(consumableResourceName=name, totalQuantity=1, tags={"team": "a"})
    asked = {"filters": [{"name": "CONSUMABLE_RESOURCE_NAME", "values": [f"{name[:-1].upper()}*"]}]}
    assert [
        each["consumableResourceName"] for each in aws.batch.list_consumable_resources(**asked)["consumableResources"]
    ] == [name]
    assert aws.batch.list_tags_for_resource(resourceArn=made["consumableResourceArn"])["tags"] == {"team": "a"}
    aws.batch.delete_consumable_resource(consumableResource=name)
    with pytest.raises(ClientError, match="does not exist"):
        aws.batch.describe_consumable_resource(consumableResource=name)
    with pytest.raises(ClientError, match=f"ConsumableResource {name} does not exist"):
        aws.definition("true", **_needs(name))
