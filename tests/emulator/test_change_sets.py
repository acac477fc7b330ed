"""Change sets of the emulated CloudFormation: they show what an execution would change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.conftest import poll

TEMPLATE: dict[str, Any] = {
    "Description": "A machine and its queue",
    "Parameters": {
        "Max": {"Type": "Number", "Default": "8", "MinValue": 0},
        "Types": {"Type": "CommaDelimitedList", "Default": "m6i,m7i"},
        "Kind": {"Type": "String", "Default": "ECS"},
    },
    "Conditions": {"Has": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Max"}, "0"]}]}},
    "Resources": {
        "Template": {
            "Type": "AWS::EC2::LaunchTemplate",
            "Properties": {"LaunchTemplateData": {"InstanceType": "m6i.large"}},
        },
        "Environment": {
            "Type": "AWS::Batch::ComputeEnvironment",
            "Properties": {
                "Type": "MANAGED",
                "ReplaceComputeEnvironment": False,
                "ComputeResources": {
                    "Type": "EC2",
                    "AllocationStrategy": "BEST_FIT_PROGRESSIVE",
                    "MinvCpus": 0,
                    "MaxvCpus": {"Ref": "Max"},
                    "InstanceTypes": {"Ref": "Types"},
                    "InstanceRole": "arn:aws:iam::123456789012:instance-profile/machine",
                    "Subnets": ["subnet-1"],
                    "SecurityGroupIds": ["sg-1"],
                    "LaunchTemplate": {
                        "LaunchTemplateId": {"Ref": "Template"},
                        "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]},
                    },
                },
            },
            "Condition": "Has",
        },
        "Bucket": {"Type": "AWS::S3::Bucket"},
    },
    "Outputs": {"Bucket": {"Value": {"Ref": "Bucket"}}},
}


class ChangeSets:
    """The change sets of one stack."""

    def __init__(self, aws: Any) -> None:
        self.client = aws.client("cloudformation")
        self.name = aws.name("stack")
        self.made = 0

    def make(self, kind: str, template: dict[str, Any] = TEMPLATE, **parameters: str | None) -> dict[str, Any]:
        """Make one, and describe it; a parameter that is `None` keeps its value."""
        self.made += 1
        given = [
            {"ParameterKey": key, "UsePreviousValue": True}
            if value is None
            else {"ParameterKey": key, "ParameterValue": value}
            for key, value in parameters.items()
        ]
        made = self.client.create_change_set(
            StackName=self.name,
            ChangeSetName=f"change-{self.made}",
            ChangeSetType=kind,
            TemplateBody=json.dumps(template),
            Parameters=given,
            Tags=[{"Key": "team", "Value": "vision"}],
        )
        return dict(self.client.describe_change_set(ChangeSetName=made["Id"]))

    def execute(self, made: dict[str, Any]) -> dict[str, Any]:
        """Execute one, and describe the stack once that is over: what is waited for is not in the answer."""
        self.client.execute_change_set(ChangeSetName=made["ChangeSetId"])
        found: dict[str, Any] = poll(lambda: self._at_rest(), f"the end of the change of {self.name}")
        return found

    def delete(self) -> None:
        """Delete the stack, and wait until it is gone."""
        self.client.delete_stack(StackName=self.name)
        poll(lambda: not self._names(), f"the end of {self.name}")

    def _at_rest(self) -> dict[str, Any]:
        found = self.stack()
        return {} if found["StackStatus"].endswith("_IN_PROGRESS") else found

    def _names(self) -> list[str]:
        return [each["StackName"] for each in self.client.describe_stacks()["Stacks"] if each["StackName"] == self.name]

    def stack(self) -> dict[str, Any]:
        """The stack now."""
        [found] = self.client.describe_stacks(StackName=self.name)["Stacks"]
        return dict(found)


def short(made: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Action and replacement, by logical id."""
    changes = [each["ResourceChange"] for each in made["Changes"]]
    return {each["LogicalResourceId"]: (each["Action"], each.get("Replacement", "")) for each in changes}


@pytest.fixture
def sets(aws: Any) -> ChangeSets:
    """A stack that is not there yet."""
    return ChangeSets(aws)


def test_one_for_a_new_stack_reserves_its_name(sets: ChangeSets) -> None:
    """Nothing is made before it is executed; then all of it is, with description, tags and outputs."""
    made = sets.make("CREATE", Max="0")
    assert (made["Status"], made["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    assert short(made) == {"Template": ("Add", ""), "Bucket": ("Add", "")}
    assert sets.stack()["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert "Outputs" not in sets.stack()
    done = sets.execute(made)
    assert done["StackStatus"] == "CREATE_COMPLETE"
    assert done["Description"] == "A machine and its queue"
    assert done["Tags"] == [{"Key": "team", "Value": "vision"}]
    assert done["Outputs"][0]["OutputValue"]


def test_parameters_are_told_as_they_were_given(sets: ChangeSets) -> None:
    """A list is text with commas, in the change set as in the stack, and is kept as it is."""
    made = sets.make("CREATE", Types="m7i,c7i")
    assert made["Parameters"] == [{"ParameterKey": "Types", "ParameterValue": "m7i,c7i"}]
    shown = {each["ParameterKey"]: each["ParameterValue"] for each in sets.execute(made)["Parameters"]}
    assert shown == {"Max": "8", "Types": "m7i,c7i", "Kind": "ECS"}
    again = sets.make("UPDATE", Types=None)
    assert again["Status"] == "FAILED"
    assert "didn't contain changes" in again["StatusReason"]
    assert again["ExecutionStatus"] == "UNAVAILABLE"


def test_an_update_tells_what_becomes_of_each_resource(sets: ChangeSets) -> None:
    """In place; perhaps in place, as CloudFormation does not look at ReplaceComputeEnvironment; or deleted."""
    sets.execute(sets.make("CREATE"))
    assert short(sets.make("UPDATE", Max="16")) == {"Environment": ("Modify", "False")}
    assert short(sets.make("UPDATE", Types="c7i")) == {"Environment": ("Modify", "Conditional")}
    assert short(sets.make("UPDATE", Max="0")) == {"Environment": ("Remove", "")}
    bigger = json.loads(json.dumps(TEMPLATE))
    bigger["Resources"]["Template"]["Properties"]["LaunchTemplateData"]["InstanceType"] = "m6i.xlarge"
    made = sets.make("UPDATE", bigger)
    assert short(made) == {"Template": ("Modify", "False"), "Environment": ("Modify", "Conditional")}
    [_, environment] = [each["ResourceChange"] for each in made["Changes"]]
    [detail] = environment["Details"]
    assert (detail["Evaluation"], detail["CausingEntity"]) == ("Dynamic", "Template.LatestVersionNumber")
    assert environment["PhysicalResourceId"].startswith("arn:aws:batch:")


def test_a_resource_that_has_to_be_replaced_is_told(sets: ChangeSets) -> None:
    """A property that never changes makes another one."""
    sets.execute(sets.make("CREATE"))
    spot = json.loads(json.dumps(TEMPLATE))
    spot["Resources"]["Environment"]["Properties"]["Tags"] = {"team": "vision"}
    assert short(sets.make("UPDATE", spot)) == {"Environment": ("Modify", "True")}


def test_looking_changes_nothing(sets: ChangeSets, aws: Any) -> None:
    """Neither the stack's parameters and template, nor what it made."""
    before = sets.execute(sets.make("CREATE"))
    events = sets.client.describe_stack_events(StackName=sets.name)["StackEvents"]
    made = sets.make("UPDATE", Max="16")
    sets.client.delete_change_set(ChangeSetName=made["ChangeSetId"])
    assert sets.stack() == before
    assert sets.client.describe_stack_events(StackName=sets.name)["StackEvents"] == events
    with pytest.raises(ClientError) as refused:
        sets.client.describe_change_set(ChangeSetName=made["ChangeSetId"])
    assert refused.value.response["Error"]["Code"] == "ChangeSetNotFound"


def test_executing_one_drops_the_others(sets: ChangeSets) -> None:
    """They were made for a stack that is another one now."""
    sets.execute(sets.make("CREATE"))
    first, second = sets.make("UPDATE", Max="16"), sets.make("UPDATE", Max="24")
    sets.execute(second)
    with pytest.raises(ClientError, match="does not exist"):
        sets.client.execute_change_set(ChangeSetName=first["ChangeSetId"])


def test_what_cannot_be_done_is_refused_at_once(sets: ChangeSets) -> None:
    """With CloudFormation's words: a stack that is not there, one that is, values that are not allowed."""
    with pytest.raises(ClientError, match="does not exist"):
        sets.make("UPDATE")
    with pytest.raises(ClientError, match="not less than 0"):
        sets.make("CREATE", Max="-1")
    with pytest.raises(ClientError, match=r"\[Typo\] do not exist in the template"):
        sets.make("CREATE", Typo="1")
    with pytest.raises(ClientError, match="does not exist"):
        sets.stack()
    sets.execute(sets.make("CREATE"))
    with pytest.raises(ClientError, match="already exists and cannot be created again"):
        sets.make("CREATE")
    empty = sets.make("UPDATE")
    with pytest.raises(ClientError) as refused:
        sets.client.execute_change_set(ChangeSetName=empty["ChangeSetId"])
    assert refused.value.response["Error"]["Code"] == "InvalidChangeSetStatus"


def test_a_failed_creation_is_rolled_back_and_has_to_be_deleted(sets: ChangeSets) -> None:
    """As one of CreateStack's; it cannot be updated, and its name is free once it is deleted."""
    assert sets.execute(sets.make("CREATE", Types="zz9"))["StackStatus"] == "ROLLBACK_COMPLETE"
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        sets.make("UPDATE", Types="m6i")
    sets.delete()
    assert sets.execute(sets.make("CREATE"))["StackStatus"] == "CREATE_COMPLETE"


def test_iam_resources_need_a_capability(sets: ChangeSets) -> None:
    """As for CreateStack."""
    trust = {"Version": "2012-10-17", "Statement": []}
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}}
    with pytest.raises(ClientError) as refused:
        sets.make("CREATE", {"Resources": {"Role": role}})
    assert refused.value.response["Error"]["Code"] == "InsufficientCapabilitiesException"
