"""Change sets: the request, what is read of them, and that none is left behind."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro.deployment import change_sets, stacks
from covalent_cirro.deployment.change_sets import Change, ChangeSet
from covalent_cirro.deployment.stack_events import Watch
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import StackError
from tests.unit.fake_formation import FakeFormation, Time

NAME = "cirro-storage"


def make(aws: FakeFormation, stack: Stack | None = None) -> ChangeSet | None:
    """Make a change set without waiting in earnest."""
    time = Time()
    request = change_sets.build_request(NAME, stack, body="Resources: {}", values={}, kept=(), tags={})
    return change_sets.make(aws, Watch(aws, sleep=time.sleep, clock=time.clock), request, stack)


def added(name: str) -> dict[str, Any]:
    """A change of the API's, of a resource that is new."""
    return {"Action": "Add", "LogicalResourceId": name, "ResourceType": "AWS::S3::Bucket"}


def test_the_request_of_a_new_stack() -> None:
    """IAM resources without names need no more than CAPABILITY_IAM."""
    assert change_sets.build_request(
        NAME, None, body="Resources: {}", values={"S3Prefix": "mine"}, kept=(), tags={"covalent-cirro": "cirro"}
    ) == {
        "StackName": NAME,
        "ChangeSetType": "CREATE",
        "TemplateBody": "Resources: {}",
        "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [{"ParameterKey": "S3Prefix", "ParameterValue": "mine"}],
        "Tags": [{"Key": "covalent-cirro", "Value": "cirro"}],
    }


def test_the_request_of_a_stack_that_is_there() -> None:
    """What is not given keeps its value, and the tags that somebody else put on it stay."""
    aws = FakeFormation()
    made = aws.add(NAME, "CREATE_COMPLETE", Tags=[{"Key": "team", "Value": "vision"}])
    request = change_sets.build_request(
        NAME,
        stacks.get(aws, made["StackId"]),
        body="Resources: {}",
        values={"S3Prefix": "mine"},
        kept=("KeepImages",),
        tags={"covalent-cirro": "cirro"},
    )
    assert request["ChangeSetType"] == "UPDATE"
    assert request["Parameters"] == [
        {"ParameterKey": "S3Prefix", "ParameterValue": "mine"},
        {"ParameterKey": "KeepImages", "UsePreviousValue": True},
    ]
    assert request["Tags"] == [{"Key": "team", "Value": "vision"}, {"Key": "covalent-cirro", "Value": "cirro"}]


@pytest.mark.parametrize("status", ["REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"])
def test_a_stack_with_nothing_in_it_is_created(status: str) -> None:
    """CloudFormation cannot update one that never was whole."""
    aws = FakeFormation()
    stack = stacks.get(aws, aws.add(NAME, status)["StackId"])
    request = change_sets.build_request(NAME, stack, body="", values={}, kept=(), tags={})
    assert request["ChangeSetType"] == "CREATE"


def test_changes_are_read_page_by_page() -> None:
    """With what becomes of each resource, and the properties that do it, each named once."""
    aws = FakeFormation()
    replaced = {
        **{"Action": "Modify", "LogicalResourceId": "Queue", "ResourceType": "AWS::Batch::JobQueue"},
        **{"PhysicalResourceId": "arn:queue", "Replacement": "True"},
        "Details": [
            {"Target": {"Attribute": "Properties", "Name": "JobQueueType"}},
            {"Target": {"Attribute": "Properties", "Name": "JobQueueType"}},
            {"Target": {"Attribute": "Tags"}},
        ],
    }
    aws.changes[NAME] = [*(added(f"R{n}") for n in range(4)), replaced]
    made = make(aws)
    assert made is not None
    assert [change.logical_id for change in made.changes] == ["R0", "R1", "R2", "R3", "Queue"]
    assert made.changes[0] == Change("Add", "R0", "AWS::S3::Bucket")
    assert made.changes[4] == Change(
        "Modify",
        "Queue",
        "AWS::Batch::JobQueue",
        "arn:queue",
        "True",
        ("JobQueueType", "Tags"),
        ("JobQueueType", "Tags"),
    )
    assert made.made_stack is True


@pytest.mark.parametrize(
    "reason", ["The submitted information didn't contain changes.", "No updates are to be performed."]
)
def test_one_without_changes_is_deleted(reason: str) -> None:
    """CloudFormation keeps it as a failed one, and says it in two ways."""
    aws = FakeFormation()
    aws.reason = reason
    stack = stacks.get(aws, aws.add(NAME, "CREATE_COMPLETE")["StackId"])
    assert make(aws, stack) is None
    assert aws.change_sets == {}


def test_one_that_cannot_be_made_tells_why_and_is_deleted() -> None:
    """With the empty stack that it made."""
    aws = FakeFormation()
    aws.reason = "Transform X failed"
    aws.changes[NAME] = None
    with pytest.raises(StackError, match=r"the change set of stack 'cirro-storage' is FAILED: Transform X failed\. "):
        make(aws)
    assert (aws.change_sets, aws.alive()) == ({}, {})


def test_discarding_takes_the_empty_stack_that_it_made() -> None:
    """A name that was reserved and is not used would be in the way of nobody else's, and of ours."""
    aws = FakeFormation()
    made = make(aws)
    assert made is not None
    assert aws.alive() == {NAME: "REVIEW_IN_PROGRESS"}
    change_sets.discard(aws, made)
    assert (aws.change_sets, aws.alive()) == ({}, {})
    change_sets.discard(aws, made)


def test_discarding_leaves_a_stack_that_was_there() -> None:
    """Whoever reserved its name may be about to use it."""
    aws = FakeFormation()
    stack = stacks.get(aws, aws.add(NAME, "REVIEW_IN_PROGRESS", description="")["StackId"])
    made = make(aws, stack)
    assert made is not None
    change_sets.discard(aws, made)
    assert aws.alive() == {NAME: "REVIEW_IN_PROGRESS"}
