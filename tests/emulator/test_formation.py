"""Stacks: AWS Batch's resources, order, events, updates, rollback, change sets, and deletion without a trace."""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro.deployment.template_functions import TemplateError
from covalent_cirro.local.emulator.formation.template_checks import order
from tests.emulator.formation_stacks import Stacks

BATCH: dict[str, Any] = {
    "Parameters": {"Max": {"Type": "Number", "Default": 4, "MinValue": 0, "MaxValue": 64}},
    "Conditions": {"Some": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Max"}, "0"]}]}},
    "Resources": {
        "Queue": {
            "Type": "AWS::Batch::JobQueue",
            "Properties": {
                "Priority": 1,
                "ComputeEnvironmentOrder": [
                    {"Order": 1, "ComputeEnvironment": {"Ref": "Machines"}},
                    {
                        "Fn::If": [
                            "Some",
                            {"Order": 2, "ComputeEnvironment": {"Ref": "More"}},
                            {"Ref": "AWS::NoValue"},
                        ]
                    },
                ],
            },
        },
        "Machines": {
            "Type": "AWS::Batch::ComputeEnvironment",
            "Properties": {
                "Type": "MANAGED",
                "ReplaceComputeEnvironment": False,
                "Tags": {"TeamName": "a"},
                "ComputeResources": {
                    "Type": "EC2",
                    "AllocationStrategy": "BEST_FIT_PROGRESSIVE",
                    "MinvCpus": 0,
                    "MaxvCpus": 8,
                    "InstanceTypes": ["m6i"],
                    "InstanceRole": "role",
                    "Subnets": ["subnet-1"],
                    "SecurityGroupIds": ["sg-1"],
                    "UpdateToLatestImageVersion": True,
                },
            },
        },
        "More": {
            "Type": "AWS::Batch::ComputeEnvironment",
            "Condition": "Some",
            "Properties": {
                "Type": "MANAGED",
                "ComputeResources": {
                    "Type": "EC2",
                    "MaxvCpus": {"Ref": "Max"},
                    "InstanceTypes": ["m6i"],
                    "InstanceRole": "role",
                    "Subnets": ["subnet-1"],
                    "SecurityGroupIds": ["sg-1"],
                },
            },
        },
        "Job": {
            "Type": "AWS::Batch::JobDefinition",
            "Properties": {
                "Type": "container",
                "Parameters": {"CamelCase": "kept"},
                "Timeout": {"AttemptDurationSeconds": 60},
                "PropagateTags": True,
                "ContainerProperties": {
                    "Image": "image",
                    "Command": ["true"],
                    "Environment": [{"Name": "A", "Value": "b"}],
                    "ResourceRequirements": [{"Type": "VCPU", "Value": 1}, {"Type": "MEMORY", "Value": "64"}],
                },
            },
        },
    },
    "Outputs": {
        "Queue": {"Value": {"Fn::GetAtt": ["Queue", "JobQueueArn"]}},
        "Machines": {"Value": {"Fn::GetAtt": ["Machines", "ComputeEnvironmentArn"]}},
        "More": {"Condition": "Some", "Value": {"Ref": "More"}},
        "Job": {"Value": {"Fn::GetAtt": ["Job", "JobDefinitionArn"]}},
    },
}


@pytest.fixture
def stacks(aws: Any) -> Stacks:
    """A new stack's name."""
    return Stacks(aws)


def _changed(path: str, value: Any) -> dict[str, Any]:
    """The template with one property changed."""
    body = copy.deepcopy(BATCH)
    *parents, last = path.split(".")
    at = body["Resources"]
    for key in parents:
        at = at[key]
    at[last] = value
    return body


def test_a_stack_gives_a_batch_that_runs_jobs(aws: Any, stacks: Stacks) -> None:
    """Outputs are ARNs that SubmitJob takes; nothing of the definition is dropped or renamed."""
    assert stacks.create(BATCH) == "CREATE_COMPLETE"
    outputs = stacks.outputs()
    assert set(outputs) == {"Queue", "Machines", "More", "Job"}
    (definition,) = aws.batch.describe_job_definitions(jobDefinitions=[outputs["Job"]])["jobDefinitions"]
    assert definition["parameters"] == {"CamelCase": "kept"}
    assert definition["timeout"] == {"attemptDurationSeconds": 60}
    assert definition["propagateTags"] is True
    assert {"type": "VCPU", "value": "1"} in definition["containerProperties"]["resourceRequirements"]
    (machines,) = aws.batch.describe_compute_environments(computeEnvironments=[outputs["Machines"]])[
        "computeEnvironments"
    ]
    assert machines["tags"] == {"TeamName": "a"}
    job_id = aws.batch.submit_job(jobName="x", jobQueue=outputs["Queue"], jobDefinition=outputs["Job"])["jobId"]
    assert aws.done(job_id)["status"] == "SUCCEEDED"


def test_resources_are_made_after_what_they_refer_to(stacks: Stacks) -> None:
    """Each has its events."""
    stacks.create(BATCH)
    assert [status for status, _ in stacks.events("Queue")] == ["CREATE_IN_PROGRESS", "CREATE_COMPLETE"]
    events = stacks.client.describe_stack_events(StackName=stacks.name)["StackEvents"][::-1]
    made = [each["LogicalResourceId"] for each in events if each["ResourceStatus"] == "CREATE_COMPLETE"]
    assert made.index("Machines") < made.index("Queue")
    assert made[-1] == stacks.name
    resources = stacks.client.list_stack_resources(StackName=stacks.name)["StackResourceSummaries"]
    assert {each["LogicalResourceId"] for each in resources} == {"Queue", "Machines", "More", "Job"}


def test_who_describes_a_stack_meanwhile_makes_nothing(stacks: Stacks, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto makes a resource at the first access to it; a second subnet of the same addresses failed deployments."""
    from moto.ec2.models.subnets import Subnet

    began, looked, made = threading.Event(), threading.Event(), []
    make = Subnet.create_from_cloudformation_json

    def slowly(*args: Any, **kwargs: Any) -> Any:
        made.append(threading.get_ident())
        began.set()
        looked.wait(30)
        return make(*args, **kwargs)

    monkeypatch.setattr(Subnet, "create_from_cloudformation_json", slowly)
    body = {
        "Resources": {
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
            "Net": {"Type": "AWS::EC2::Subnet", "Properties": {"VpcId": {"Ref": "Vpc"}, "CidrBlock": "10.0.0.0/24"}},
        },
        "Outputs": {"Net": {"Value": {"Ref": "Net"}}},
    }
    creating = threading.Thread(target=stacks.create, args=(body,))
    creating.start()
    assert began.wait(30)
    (seen,) = stacks.client.describe_stacks(StackName=stacks.name)["Stacks"]
    assert (seen["StackStatus"], seen.get("Outputs")) == ("CREATE_IN_PROGRESS", None)
    stacks.client.describe_stack_resources(StackName=stacks.name)
    looked.set()
    creating.join(30)
    assert stacks.status() == "CREATE_COMPLETE"
    assert stacks.outputs()["Net"].startswith("subnet-")
    assert len(made) == 1


def test_deletion_leaves_nothing(aws: Any, stacks: Stacks) -> None:
    """Queue before environments, jobs ended, the definition INACTIVE."""
    stacks.create(BATCH)
    outputs = stacks.outputs()
    job_id = aws.batch.submit_job(
        jobName="x",
        jobQueue=outputs["Queue"],
        jobDefinition=outputs["Job"],
        containerOverrides={"command": ["sleep", "300"]},
    )["jobId"]
    aws.reach(job_id, "RUNNING")
    assert stacks.delete() == "DELETE_COMPLETE"
    assert aws.batch.describe_job_queues(jobQueues=[outputs["Queue"]])["jobQueues"] == []
    environments = [outputs["Machines"], outputs["More"]]
    found = aws.batch.describe_compute_environments(computeEnvironments=environments)["computeEnvironments"]
    assert found == []
    (definition,) = aws.batch.describe_job_definitions(jobDefinitions=[outputs["Job"]])["jobDefinitions"]
    assert definition["status"] == "INACTIVE"
    assert aws.done(job_id)["status"] == "FAILED"
    with pytest.raises(ClientError, match="does not exist"):
        stacks.client.describe_stacks(StackName=stacks.name)


def test_a_condition_leaves_out_a_resource(aws: Any, stacks: Stacks) -> None:
    """With the entry of the queue that refers to it, and its output."""
    assert stacks.create(BATCH, Max="0") == "CREATE_COMPLETE"
    outputs = stacks.outputs()
    assert "More" not in outputs
    (queue,) = aws.batch.describe_job_queues(jobQueues=[outputs["Queue"]])["jobQueues"]
    assert len(queue["computeEnvironmentOrder"]) == 1


def test_an_update_changes_in_place_what_can_be(aws: Any, stacks: Stacks) -> None:
    """The environment and the queue keep their ARNs."""
    stacks.create(BATCH)
    before = stacks.outputs()
    body = _changed("Machines.Properties.ComputeResources.MaxvCpus", 32)
    body["Resources"]["Machines"]["Properties"]["ComputeResources"]["InstanceTypes"] = ["c6i"]
    body["Resources"]["Queue"]["Properties"]["Priority"] = 5
    assert stacks.update(body) == "UPDATE_COMPLETE"
    assert stacks.outputs() == before
    (machines,) = aws.batch.describe_compute_environments(computeEnvironments=[before["Machines"]])[
        "computeEnvironments"
    ]
    assert machines["computeResources"]["maxvCpus"] == 32
    assert machines["computeResources"]["instanceTypes"] == ["c6i"]
    (queue,) = aws.batch.describe_job_queues(jobQueues=[before["Queue"]])["jobQueues"]
    assert queue["priority"] == 5


def test_an_update_replaces_what_must_be(aws: Any, stacks: Stacks) -> None:
    """A new environment is made, the queue uses it, then the old one is deleted."""
    stacks.create(BATCH)
    before = stacks.outputs()
    assert stacks.update(_changed("Machines.Properties.Tags", {"TeamName": "b"})) == "UPDATE_COMPLETE"
    after = stacks.outputs()
    assert after["Machines"] != before["Machines"]
    assert after["Queue"] == before["Queue"]
    (queue,) = aws.batch.describe_job_queues(jobQueues=[after["Queue"]])["jobQueues"]
    assert queue["computeEnvironmentOrder"][0]["computeEnvironment"] == after["Machines"]
    old = aws.batch.describe_compute_environments(computeEnvironments=[before["Machines"]])["computeEnvironments"]
    assert old == []


@pytest.mark.parametrize("keep", [False, True])
def test_an_updated_definition_is_a_new_revision(aws: Any, stacks: Stacks, keep: bool) -> None:
    """The one before is deregistered, unless the template says to keep it."""
    stacks.create(BATCH)
    first = stacks.outputs()["Job"]
    body = _changed("Job.Properties.ContainerProperties.Command", ["false"])
    body["Resources"]["Job"]["Properties"]["ResourceRetentionPolicy"] = {"SkipDeregisterOnUpdate": keep}
    stacks.update(body)
    second = stacks.outputs()["Job"]
    assert (first.rsplit(":", 1)[1], second.rsplit(":", 1)[1]) == ("1", "2")
    (before,) = aws.batch.describe_job_definitions(jobDefinitions=[first])["jobDefinitions"]
    assert before["status"] == ("ACTIVE" if keep else "INACTIVE")


def test_an_update_adds_and_removes(aws: Any, stacks: Stacks) -> None:
    """By a parameter that turns a condition."""
    stacks.create(BATCH, Max="0")
    assert stacks.update(BATCH, Max="2") == "UPDATE_COMPLETE"
    more = stacks.outputs()["More"]
    assert stacks.update(BATCH, Max="0") == "UPDATE_COMPLETE"
    assert aws.batch.describe_compute_environments(computeEnvironments=[more])["computeEnvironments"] == []


def test_nothing_to_update_is_an_error(stacks: Stacks) -> None:
    """In CloudFormation's words."""
    stacks.create(BATCH)
    with pytest.raises(ClientError, match=r"No updates are to be performed\."):
        stacks.update(BATCH)


def test_a_failed_creation_is_rolled_back(aws: Any, stacks: Stacks) -> None:
    """The event says which resource and why; what was made is deleted."""
    body = _changed("Job.Properties.Timeout", {"AttemptDurationSeconds": 1})
    body["Resources"]["Job"]["DependsOn"] = "Queue"
    assert stacks.create(body) == "ROLLBACK_COMPLETE"
    status, reason = stacks.events("Job")[-1]
    assert status == "CREATE_FAILED"
    assert "at least 60 seconds" in reason
    assert stacks.outputs() == {}
    queues = aws.batch.describe_job_queues()["jobQueues"]
    assert not [queue for queue in queues if queue["jobQueueName"].startswith(stacks.name)]
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE"):
        stacks.update(BATCH)
    assert stacks.delete() == "DELETE_COMPLETE"


def test_a_failed_update_leaves_all_as_it_was(aws: Any, stacks: Stacks) -> None:
    """What was changed before the failure is changed back."""
    stacks.create(BATCH)
    before = stacks.outputs()
    body = _changed("Machines.Properties.ComputeResources.MaxvCpus", 32)
    body["Resources"]["Queue"]["Properties"]["Priority"] = 5000
    assert stacks.update(body) == "UPDATE_ROLLBACK_COMPLETE"
    status, reason = next(event for event in stacks.events("Queue") if "FAILED" in event[0])
    assert status == "UPDATE_FAILED"
    assert "between 0 and 1000" in reason
    assert stacks.outputs() == before
    (machines,) = aws.batch.describe_compute_environments(computeEnvironments=[before["Machines"]])[
        "computeEnvironments"
    ]
    assert machines["computeResources"]["maxvCpus"] == 8


def test_a_custom_name_cannot_be_replaced(stacks: Stacks) -> None:
    """The trap of naming a compute environment."""
    named = _changed("Machines.Properties.ComputeEnvironmentName", f"{stacks.name}-machines")
    stacks.create(named)
    named["Resources"]["Machines"]["Properties"]["Tags"] = {"TeamName": "b"}
    assert stacks.update(named) == "UPDATE_ROLLBACK_COMPLETE"
    assert any("custom-named resource" in reason for _, reason in stacks.events("Machines"))


def test_an_unknown_type_fails_and_says_so(stacks: Stacks) -> None:
    """Better than a stack that is complete and lacks a resource."""
    body = {"Resources": {"Strange": {"Type": "AWS::Strange::Thing", "Properties": {}}}}
    assert stacks.create(body) == "ROLLBACK_COMPLETE"
    assert "AWS::Strange::Thing is not emulated" in stacks.events("Strange")[-1][1]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"Max": "65"}, "not greater than 64"),
        ({"Max": "many"}, "must be a number"),
        ({"Other": "1"}, "do not exist in the template"),
    ],
)
def test_parameters_are_checked(stacks: Stacks, parameters: dict[str, str], text: str) -> None:
    """Before anything is made."""
    with pytest.raises(ClientError, match=text):
        stacks.create(BATCH, **parameters)


def test_the_parts_of_a_list_have_no_spaces_around_them(stacks: Stacks) -> None:
    """As people type them after a comma; the parameter is shown as it was given."""
    body = {
        "Parameters": {"Names": {"Type": "CommaDelimitedList", "Default": "x , y"}},
        "Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}},
        "Outputs": {"Joined": {"Value": {"Fn::Join": ["|", {"Ref": "Names"}]}}},
    }
    stacks.create(body, Names="a, b ,c")
    assert stacks.outputs() == {"Joined": "a|b|c"}
    [stack] = stacks.client.describe_stacks(StackName=stacks.id)["Stacks"]
    assert stack["Parameters"] == [{"ParameterKey": "Names", "ParameterValue": "a, b ,c"}]


def test_a_circle_is_refused() -> None:
    """With the names that are in it."""
    with pytest.raises(TemplateError, match=r"Circular dependency between resources: \[A, B\]"):
        order({"A": {"Properties": {"X": {"Ref": "B"}}}, "B": {"DependsOn": ["A"]}})


def test_references_of_all_kinds_make_an_order() -> None:
    """Ref, GetAtt in both forms, Sub, DependsOn."""
    bodies = {
        "E": {"DependsOn": "D"},
        "D": {"P": {"Fn::Sub": "x-${C.Arn}-${!B}-${AWS::Region}"}},
        "C": {"P": [{"Fn::GetAtt": "B.Arn"}]},
        "B": {"P": {"Fn::GetAtt": ["A", "Arn"]}},
        "A": {},
    }
    assert order(bodies) == ["A", "B", "C", "D", "E"]


def test_roles_need_a_capability(stacks: Stacks) -> None:
    """As on AWS."""
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": []}}}
    with pytest.raises(ClientError) as error:
        stacks.client.create_stack(StackName=stacks.name, TemplateBody=json.dumps({"Resources": {"Role": role}}))
    assert error.value.response["Error"]["Code"] == "InsufficientCapabilitiesException"


def test_a_change_set_makes_and_changes_a_stack(aws: Any, stacks: Stacks) -> None:
    """As ``aws cloudformation deploy`` does."""
    for kind, priority in (("CREATE", 1), ("UPDATE", 7)):
        stacks.client.create_change_set(
            StackName=stacks.name,
            ChangeSetName=f"change-{priority}",
            ChangeSetType=kind,
            TemplateBody=json.dumps(_changed("Queue.Properties.Priority", priority)),
        )
        stacks.client.execute_change_set(StackName=stacks.name, ChangeSetName=f"change-{priority}")
        stack = stacks.client.describe_stacks(StackName=stacks.name)["Stacks"][0]
        assert stack["StackStatus"] == f"{kind}_COMPLETE"
        stacks.id = stack["StackId"]
        (queue,) = aws.batch.describe_job_queues(jobQueues=[stacks.outputs()["Queue"]])["jobQueues"]
        assert queue["priority"] == priority
