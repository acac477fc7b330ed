"""The gateway to CloudFormation, against a CloudFormation of our own that changes a stack one step at each look."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro import stacks
from covalent_cirro.errors import AccessDenied, NotFound, StackError
from covalent_cirro.stacks import StackEvent

ROOT = Path(__file__).parents[2]
TEMPLATE = "Description: covalent-cirro, a small one"
NAME = "cirro"

OUTPUTS = {
    "S3BucketName": "cirro-bucket-1",
    "S3Prefix": "cirro",
    "BatchQueue": "cirro-cpu",
    "BatchGpuQueue": "cirro-gpu",
    "BatchJobRoleName": "cirro-JobRole-1",
    "BatchExecutionRoleName": "cirro-ExecutionRole-1",
    "BatchJobLogGroupName": "cirro-JobLogGroup-1",
    "Region": "eu-west-1",
    "OnDemandQueue": "cirro-cpu-on-demand",
    "ImageRepository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/cirro",
    "SubmitterPolicy": "arn:aws:iam::123456789012:policy/cirro",
}


def refusal(operation: str, message: str, code: str = "ValidationError") -> ClientError:
    """What botocore raises where AWS says no."""
    said: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(said, operation)


class FakeCloudFormation:
    """The part of CloudFormation that the gateway uses. Stacks change by one status at each DescribeStacks.

    Attributes:
        plan: Statuses (with events, if any) that the next operation runs through.
        requests: What CreateStack, UpdateStack and DeleteStack were given.
        unchanged: UpdateStack has nothing to do.
    """

    PAGE = 3

    def __init__(self) -> None:
        self.meta = SimpleNamespace(
            region_name="eu-west-1", endpoint_url="https://cloudformation.eu-west-1.amazonaws.com"
        )
        self.stacks: dict[str, dict[str, Any]] = {}
        self.plan: list[tuple[str, list[tuple[str, str, str, str]]]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.unchanged = False
        self.parameters = ["CpuSpotMaxVcpus", "S3Prefix"]
        self._events: dict[str, list[dict[str, str]]] = {}
        self._ids = itertools.count(1)

    def add(self, status: str, **more: Any) -> dict[str, Any]:
        """A stack that is there already."""
        stack_id = f"arn:aws:cloudformation:eu-west-1:123456789012:stack/{NAME}/{next(self._ids)}"
        stack = {"StackName": NAME, "StackId": stack_id, "StackStatus": status, "Description": TEMPLATE[13:], **more}
        self.stacks[stack_id] = stack
        self._events[stack_id] = []
        return stack

    def happen(self, stack: dict[str, Any], *events: tuple[str, str, str, str]) -> None:
        """Write events into a stack's history."""
        for logical_id, kind, status, reason in events:
            event = {"EventId": str(next(self._ids)), "LogicalResourceId": logical_id, "ResourceType": kind}
            event |= {"ResourceStatus": status} | ({"ResourceStatusReason": reason} if reason else {})
            self._events[stack["StackId"]].insert(0, event)

    def _find(self, name: str) -> dict[str, Any] | None:
        if name in self.stacks:
            return self.stacks[name]
        return next((s for s in self.stacks.values() if s["StackStatus"] != "DELETE_COMPLETE"), None)

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        stack = self._find(StackName)
        if stack is None:
            raise refusal("DescribeStacks", f"Stack with id {StackName} does not exist")
        seen = dict(stack)
        if stack["StackStatus"].endswith("_IN_PROGRESS") and self.plan:
            status, events = self.plan.pop(0)
            stack["StackStatus"] = status
            self.happen(stack, *events)
        return {"Stacks": [seen]}

    def describe_stack_events(self, StackName: str, NextToken: str = "0") -> dict[str, Any]:
        start, events = int(NextToken), self._events[StackName]
        page: dict[str, Any] = {"StackEvents": events[start : start + self.PAGE]}
        return page | ({"NextToken": str(start + self.PAGE)} if start + self.PAGE < len(events) else {})

    def get_template_summary(self, TemplateBody: str) -> dict[str, Any]:
        return {"Parameters": [{"ParameterKey": name} for name in self.parameters]}

    def create_stack(self, **request: Any) -> dict[str, Any]:
        self.requests.append(("create", request))
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in OUTPUTS.items()]
        return {"StackId": self.add("CREATE_IN_PROGRESS", Outputs=outputs)["StackId"]}

    def update_stack(self, **request: Any) -> dict[str, Any]:
        self.requests.append(("update", request))
        stack = self._find(request["StackName"])
        assert stack is not None
        if self.unchanged:
            raise refusal("UpdateStack", "No updates are to be performed.")
        stack["StackStatus"] = "UPDATE_IN_PROGRESS"
        return {"StackId": stack["StackId"]}

    def delete_stack(self, StackName: str) -> dict[str, Any]:
        self.requests.append(("delete", {"StackName": StackName}))
        self.stacks[StackName]["StackStatus"] = "DELETE_IN_PROGRESS"
        return {}

    def describe_stack_resources(self, StackName: str) -> dict[str, Any]:
        return {
            "StackResources": [
                {"ResourceType": "AWS::EC2::VPC", "PhysicalResourceId": "vpc-1"},
                {"ResourceType": "AWS::S3::Bucket", "PhysicalResourceId": "cirro-bucket-1"},
            ]
        }


class FakeS3:
    """A bucket with versions and delete markers, in pages of two."""

    def __init__(self, keys: list[str], refuse: str = "") -> None:
        self.meta = SimpleNamespace(region_name="eu-west-1", endpoint_url="https://s3.eu-west-1.amazonaws.com")
        self.left = keys
        self.refuse = refuse

    def get_paginator(self, operation: str) -> FakeS3:
        assert operation == "list_object_versions"
        return self

    def paginate(self, Bucket: str, PaginationConfig: dict[str, int]) -> Iterator[dict[str, Any]]:
        assert PaginationConfig["PageSize"] <= 1000
        keys = list(self.left)
        for start in range(0, len(keys), 2):
            first, *rest = ({"Key": key, "VersionId": "v1"} for key in keys[start : start + 2])
            yield {"Versions": [first]} | ({"DeleteMarkers": rest} if rest else {})
        yield {}

    def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        refused = [item["Key"] for item in Delete["Objects"] if item["Key"] == self.refuse]
        self.left = [key for key in self.left if key not in {item["Key"] for item in Delete["Objects"]} - set(refused)]
        return {"Errors": [{"Key": key, "Code": "AccessDenied", "Message": "not yours"} for key in refused]}


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def deploy(aws: FakeCloudFormation, parameters: dict[str, Any] | None = None, **more: Any) -> stacks.StackOutputs:
    """Deploy the small template without waiting in earnest."""
    time = Time()
    return stacks.deploy(aws, NAME, parameters, template=TEMPLATE, sleep=time.sleep, clock=time.clock, **more)


def delete(aws: FakeCloudFormation, **more: Any) -> bool:
    """Delete the stack without waiting in earnest."""
    time = Time()
    return stacks.delete(aws, NAME, sleep=time.sleep, clock=time.clock, **more)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "output"),
    [
        ("s3_bucket_name", "S3BucketName"),
        ("s3_prefix", "S3Prefix"),
        ("batch_queue", "BatchQueue"),
        ("batch_gpu_queue", "BatchGpuQueue"),
        ("batch_job_role_name", "BatchJobRoleName"),
        ("batch_execution_role_name", "BatchExecutionRoleName"),
        ("batch_job_log_group_name", "BatchJobLogGroupName"),
        ("container_image_uri", "ContainerImageUri"),
        ("region", "Region"),
    ],
)
def test_setting_and_output_name_each_other(setting: str, output: str) -> None:
    """One mapping, both ways."""
    assert stacks.output_key(setting) == output
    assert stacks.setting_name(output) == setting


@given(st.lists(st.from_regex(r"[a-z][a-z0-9]*", fullmatch=True), min_size=1).map("_".join))
def test_every_setting_survives_the_way_there_and_back(setting: str) -> None:
    """Whatever the next setting is called."""
    assert stacks.setting_name(stacks.output_key(setting)) == setting
    assert stacks.output_key(setting).isalnum()


def test_settings_from_outputs() -> None:
    """Settings under the executor's names, without what is none."""
    assert stacks.settings_from_outputs(OUTPUTS) == {
        "s3_bucket_name": "cirro-bucket-1",
        "s3_prefix": "cirro",
        "batch_queue": "cirro-cpu",
        "batch_gpu_queue": "cirro-gpu",
        "batch_job_role_name": "cirro-JobRole-1",
        "batch_execution_role_name": "cirro-ExecutionRole-1",
        "batch_job_log_group_name": "cirro-JobLogGroup-1",
        "region": "eu-west-1",
    }


def test_a_stack_without_gpus_gives_no_gpu_queue() -> None:
    """The setting is left as it is, not set to nothing."""
    outputs = {key: value for key, value in OUTPUTS.items() if key != "BatchGpuQueue"}
    assert "batch_gpu_queue" not in stacks.settings_from_outputs(outputs)


def test_outputs_of_a_newer_template_are_left_out() -> None:
    """An unknown setting would be refused by the executor."""
    assert stacks.settings_from_outputs({**OUTPUTS, "NewThing": "x"}) == stacks.settings_from_outputs(OUTPUTS)


def test_a_missing_output_is_named() -> None:
    """Half a set of settings would fail at the first electron only."""
    outputs = {key: value for key, value in OUTPUTS.items() if key not in ("BatchQueue", "Region")}
    with pytest.raises(StackError, match=r"no output BatchQueue, Region: .* Deploy it again"):
        stacks.settings_from_outputs(outputs)


# --- parameters and templates ------------------------------------------------------------------------------------


def test_parameters_that_are_not_given_keep_their_value() -> None:
    """A stack that is deployed again for one change does not fall back to the defaults."""
    assert stacks.build_parameters({"A": 1}, known=["A", "B", "C"], previous=["A", "B", "Gone"]) == [
        {"ParameterKey": "A", "ParameterValue": "1"},
        {"ParameterKey": "B", "UsePreviousValue": True},
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), ("", ""), (["g4dn", "g5"], "g4dn,g5"), (("a",), "a"), ([], ""), ("x y", "x y")]
)
def test_values_become_text(value: object, text: str) -> None:
    """0 and "" are values; a list is CloudFormation's text with commas."""
    assert stacks.build_parameters({"A": value}, [], []) == [{"ParameterKey": "A", "ParameterValue": text}]


def test_none_is_not_given() -> None:
    """What a command line option was not set to."""
    assert stacks.build_parameters({"A": None}, ["A"], ["A"]) == [{"ParameterKey": "A", "UsePreviousValue": True}]


def test_an_unknown_parameter_is_left_to_aws_to_refuse() -> None:
    """Dropping it would look like success."""
    assert stacks.build_parameters({"Typo": 1}, ["A"], []) == [{"ParameterKey": "Typo", "ParameterValue": "1"}]


def test_template_comes_from_the_package() -> None:
    """Not from the working folder."""
    assert stacks.template_body() == (ROOT / "infra/cirro.yaml").read_text("utf-8")


def test_an_unknown_template_is_named_with_those_there_are() -> None:
    """And no file outside of the package can be asked for."""
    with pytest.raises(StackError, match=r"no template '../setup'; installed are: cirro"):
        stacks.template_body("../setup")


def test_the_wheel_has_the_template(tmp_path: Path) -> None:
    """An installed package deploys without the repository."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("covalent_cirro", "infra"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("covalent_cirro/infra/cirro.yaml").decode() == stacks.template_body()


# --- deploy ------------------------------------------------------------------------------------------------------


def test_a_new_stack_is_created_and_waited_for() -> None:
    """Its outputs come back; IAM resources without names need no more than CAPABILITY_IAM."""
    aws = FakeCloudFormation()
    aws.plan = [("CREATE_IN_PROGRESS", []), ("CREATE_COMPLETE", [])]
    made = deploy(aws, {"CpuSpotMaxVcpus": 8}, tags={"team": "vision"})
    assert (made.changed, made.values, made.settings["batch_queue"]) == (True, OUTPUTS, "cirro-cpu")
    [(verb, request)] = aws.requests
    assert verb == "create"
    assert request["Capabilities"] == ["CAPABILITY_IAM"]
    assert request["TemplateBody"] == TEMPLATE
    assert request["Parameters"] == [{"ParameterKey": "CpuSpotMaxVcpus", "ParameterValue": "8"}]
    assert request["Tags"] == [{"Key": "team", "Value": "vision"}]


def test_a_stack_is_updated_and_keeps_its_other_parameters() -> None:
    """And its tags, where none are given."""
    aws = FakeCloudFormation()
    aws.add("CREATE_COMPLETE", Parameters=[{"ParameterKey": "S3Prefix", "ParameterValue": "mine"}])
    aws.plan = [("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", []), ("UPDATE_COMPLETE", [])]
    assert deploy(aws, {"CpuSpotMaxVcpus": 8}).changed is True
    [(verb, request)] = aws.requests
    assert verb == "update"
    assert {"ParameterKey": "S3Prefix", "UsePreviousValue": True} in request["Parameters"]
    assert "Tags" not in request


def test_an_update_without_change_is_no_error() -> None:
    """Deploying twice is deploying once."""
    aws = FakeCloudFormation()
    aws.add("UPDATE_COMPLETE", Outputs=[{"OutputKey": "Region", "OutputValue": "eu-west-1"}])
    aws.unchanged = True
    assert deploy(aws)[2:] == ({"Region": "eu-west-1"}, False)


def test_a_failed_creation_names_the_first_cause_in_awss_words() -> None:
    """Not the resources that were cancelled because of it, nor the last thing that was said."""
    aws = FakeCloudFormation()
    aws.plan = [
        ("CREATE_IN_PROGRESS", [("Vpc", "AWS::EC2::VPC", "CREATE_COMPLETE", "")]),
        (
            "ROLLBACK_IN_PROGRESS",
            [
                (
                    "GpuEnvironment",
                    "AWS::Batch::ComputeEnvironment",
                    "CREATE_FAILED",
                    "instance type g6 does not exist.",
                ),
                ("Bucket", "AWS::S3::Bucket", "CREATE_FAILED", "Resource creation cancelled"),
                ("cirro", "AWS::CloudFormation::Stack", "ROLLBACK_IN_PROGRESS", "[GpuEnvironment, Bucket] failed."),
            ],
        ),
        ("ROLLBACK_COMPLETE", [("Vpc", "AWS::EC2::VPC", "DELETE_FAILED", "has dependencies")]),
    ]
    with pytest.raises(StackError) as raised:
        deploy(aws)
    assert str(raised.value) == (
        "stack 'cirro' could not be created: GpuEnvironment (AWS::Batch::ComputeEnvironment) is CREATE_FAILED: "
        "instance type g6 does not exist. All that was made is removed again: mend the cause and deploy again."
    )


def test_a_failed_update_ignores_failures_of_earlier_days() -> None:
    """The history of a stack begins with its creation."""
    aws = FakeCloudFormation()
    stack = aws.add("UPDATE_ROLLBACK_COMPLETE")
    aws.happen(stack, *[("Old", "AWS::S3::Bucket", "UPDATE_FAILED", f"old {n}") for n in range(7)])
    aws.plan = [
        ("UPDATE_ROLLBACK_IN_PROGRESS", [("New", "AWS::Batch::JobQueue", "UPDATE_FAILED", "too many queues")]),
        ("UPDATE_ROLLBACK_COMPLETE", []),
    ]
    with pytest.raises(StackError, match=r"updated: New \(AWS::Batch::JobQueue\) is UPDATE_FAILED: too many queues\. "):
        deploy(aws)


def test_a_failure_without_events_tells_the_stacks_own_reason() -> None:
    """A template macro or a hook fails before any resource."""
    aws = FakeCloudFormation()
    aws.add("CREATE_COMPLETE", StackStatusReason="A hook said no.")
    aws.plan = [("UPDATE_ROLLBACK_FAILED", [])]
    with pytest.raises(StackError, match=r"could not be updated: A hook said no\. Continue its rollback"):
        deploy(aws)


def test_a_creation_that_was_rolled_back_is_made_anew() -> None:
    """AWS cannot update such a stack, of which nothing is left but its name."""
    aws = FakeCloudFormation()
    old = aws.add("ROLLBACK_COMPLETE")
    aws.plan = [("DELETE_COMPLETE", []), ("CREATE_COMPLETE", [])]
    assert deploy(aws).stack_id != old["StackId"]
    assert [verb for verb, _ in aws.requests] == ["delete", "create"]


def test_somebody_elses_change_is_waited_for() -> None:
    """AWS refuses a second update at once."""
    aws = FakeCloudFormation()
    aws.add("UPDATE_IN_PROGRESS")
    aws.plan = [("UPDATE_COMPLETE", []), ("UPDATE_COMPLETE", [])]
    assert deploy(aws).changed is True
    assert [verb for verb, _ in aws.requests] == ["update"]


def test_a_stack_being_deleted_is_waited_for_and_made_anew() -> None:
    """``down`` and ``up`` at once."""
    aws = FakeCloudFormation()
    aws.add("DELETE_IN_PROGRESS")
    aws.plan = [("DELETE_COMPLETE", []), ("CREATE_COMPLETE", [])]
    assert deploy(aws).changed is True
    assert [verb for verb, _ in aws.requests] == ["create"]


@pytest.mark.parametrize("status", ["DELETE_FAILED", "ROLLBACK_FAILED", "UPDATE_ROLLBACK_FAILED", "CREATE_FAILED"])
def test_a_stack_that_cannot_be_updated_is_told_with_its_reason(status: str) -> None:
    """And left as it is: what is left in it may be data."""
    aws = FakeCloudFormation()
    aws.add(status, StackStatusReason="The following resource(s) failed to delete: [Bucket].")
    with pytest.raises(StackError, match=rf"is {status} and cannot be updated: .*\[Bucket\]\. Delete it"):
        deploy(aws)
    assert aws.requests == []


def test_a_stack_of_others_is_left_alone() -> None:
    """An update would delete every resource in it that is not in our template."""
    aws = FakeCloudFormation()
    aws.add("CREATE_COMPLETE", Description="The payroll")
    for operation in (deploy, delete, lambda aws: stacks.outputs(aws, NAME)):
        with pytest.raises(StackError, match="not one of covalent-cirro"):
            operation(aws)
    assert aws.requests == []


def test_waiting_ends_and_says_that_the_stack_goes_on() -> None:
    """No deployment hangs for ever; looks get rarer, and the last one is at the end of the time."""
    aws = FakeCloudFormation()
    time = Time()
    with pytest.raises(StackError, match="still CREATE_IN_PROGRESS after 60 s"):
        stacks.deploy(aws, NAME, template=TEMPLATE, timeout_s=60, sleep=time.sleep, clock=time.clock)
    assert time.now == pytest.approx(60)
    assert time.sleeps[0] == stacks.FIRST_POLL_S
    assert max(time.sleeps) == stacks.LONGEST_POLL_S


def test_events_are_told_once_and_in_order() -> None:
    """For a command line that shows how it goes; CloudFormation tells the newest first, and page by page."""
    aws = FakeCloudFormation()
    steps = [(f"R{n}", "AWS::EC2::Subnet", "CREATE_COMPLETE", "") for n in range(9)]
    aws.plan = [("CREATE_IN_PROGRESS", steps[:2]), ("CREATE_IN_PROGRESS", []), ("CREATE_COMPLETE", steps[2:])]
    told: list[StackEvent] = []
    deploy(aws, on_event=told.append)
    assert [event.logical_id for event in told] == [f"R{n}" for n in range(9)]


def test_a_refusal_by_aws_is_an_error_of_ours() -> None:
    """With the stack's name and AWS's own words."""
    aws = FakeCloudFormation()

    def refuse(**_: Any) -> dict[str, Any]:
        raise refusal("CreateStack", "User is not authorized to perform cloudformation:CreateStack", "AccessDenied")

    aws.create_stack = refuse  # type: ignore[method-assign]
    with pytest.raises(AccessDenied, match=r"stack 'cirro'.*User is not authorized"):
        deploy(aws)


# --- outputs and delete ------------------------------------------------------------------------------------------


def test_outputs_of_a_stack() -> None:
    """By their keys."""
    aws = FakeCloudFormation()
    aws.add("CREATE_COMPLETE", Outputs=[{"OutputKey": "Region", "OutputValue": "eu-west-1"}])
    assert stacks.outputs(aws, NAME) == {"Region": "eu-west-1"}


def test_outputs_of_no_stack() -> None:
    """The region is said: looking in the wrong one is the usual cause."""
    with pytest.raises(NotFound, match="no stack 'cirro' in eu-west-1"):
        stacks.outputs(FakeCloudFormation(), NAME)


def test_delete_waits_until_the_stack_is_gone() -> None:
    """By its id, for its name is nobody's then."""
    aws = FakeCloudFormation()
    stack = aws.add("CREATE_COMPLETE")
    aws.plan = [("DELETE_IN_PROGRESS", []), ("DELETE_COMPLETE", [])]
    assert delete(aws) is True
    assert aws.requests == [("delete", {"StackName": stack["StackId"]})]


def test_delete_of_no_stack_is_no_error() -> None:
    """Deleting twice is deleting once."""
    assert delete(FakeCloudFormation()) is False


def test_delete_empties_the_bucket_where_it_may() -> None:
    """All versions and delete markers of all pages."""
    aws, s3 = FakeCloudFormation(), FakeS3(["a", "b", "c", "d", "e"])
    aws.add("CREATE_COMPLETE")
    aws.plan = [("DELETE_COMPLETE", [])]
    assert delete(aws, empty_bucket_with=s3) is True
    assert s3.left == []


def test_a_bucket_that_cannot_be_emptied_stops_the_deletion() -> None:
    """Before anything is deleted."""
    aws, s3 = FakeCloudFormation(), FakeS3(["a", "b"], refuse="b")
    aws.add("CREATE_COMPLETE")
    with pytest.raises(StackError, match="'cirro-bucket-1' could not be emptied: b: AccessDenied: not yours"):
        delete(aws, empty_bucket_with=s3)
    assert aws.requests == []


def test_a_failed_deletion_names_what_is_left() -> None:
    """A bucket that is not empty, most often."""
    aws = FakeCloudFormation()
    aws.add("CREATE_COMPLETE")
    aws.plan = [("DELETE_FAILED", [("Bucket", "AWS::S3::Bucket", "DELETE_FAILED", "The bucket is not empty")])]
    with pytest.raises(
        StackError, match=r"deleted: Bucket \(AWS::S3::Bucket\) is DELETE_FAILED: .* not empty\. The rest"
    ):
        delete(aws)
