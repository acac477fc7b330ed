"""The gateway to one stack: names, reading, and waiting for it, against a CloudFormation of our own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.deployment import stack_events, stacks
from covalent_cirro.deployment.stack_events import StackEvent, Watch, advice, first_failure
from covalent_cirro.errors import AccessDenied, StackError
from tests.unit.fake_formation import STACK, FakeFormation, Time, refusal

NAME = "cirro-network"

OUTPUTS = {
    "S3BucketName": "cirro-bucket-1",
    "S3Prefix": "cirro",
    "BatchQueue": "cirro-cpu",
    "BatchGpuQueue": "cirro-gpu",
    "BatchJobRoleName": "cirro-JobRole-1",
    "BatchExecutionRoleName": "cirro-ExecutionRole-1",
    "BatchJobLogGroupName": "cirro-JobLogGroup-1",
    "Region": "eu-west-1",
    "BatchOnDemandQueue": "cirro-cpu-on-demand",
    "ImageRepository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/cirro",
    "SubmitterPolicy": "arn:aws:iam::123456789012:policy/cirro",
}


def watch(aws: FakeFormation, time: Time, told: list[StackEvent] | None = None, timeout_s: float = 600) -> Watch:
    """Waits without waiting in earnest."""
    on_event = None if told is None else told.append
    return Watch(aws, on_event, timeout_s=timeout_s, sleep=time.sleep, clock=time.clock)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "output"),
    [
        ("s3_bucket_name", "S3BucketName"),
        ("s3_prefix", "S3Prefix"),
        ("batch_queue", "BatchQueue"),
        ("batch_gpu_queue", "BatchGpuQueue"),
        ("batch_gpu_on_demand_queue", "BatchGpuOnDemandQueue"),
        ("batch_job_role_name", "BatchJobRoleName"),
        ("batch_execution_role_name", "BatchExecutionRoleName"),
        ("batch_job_log_group_name", "BatchJobLogGroupName"),
        ("container_image_uri", "ContainerImageUri"),
        ("region", "Region"),
    ],
)
def test_an_output_is_named_after_its_setting(setting: str, output: str) -> None:
    """In the way of CloudFormation."""
    assert stacks.output_key(setting) == output


_settings = st.lists(st.from_regex(r"[a-z][a-z0-9]*", fullmatch=True), min_size=1).map("_".join)


@given(_settings, _settings)
def test_settings_have_outputs_of_their_own(one: str, other: str) -> None:
    """Whatever the next setting is called."""
    assert (stacks.output_key(one) == stacks.output_key(other)) == (one == other)
    assert stacks.output_key(one).isalnum()


def test_settings_from_outputs() -> None:
    """Settings under the executor's names, without what is none."""
    assert stacks.settings_from_outputs(OUTPUTS) == {
        "s3_bucket_name": "cirro-bucket-1",
        "s3_prefix": "cirro",
        "batch_queue": "cirro-cpu",
        "batch_gpu_queue": "cirro-gpu",
        "batch_on_demand_queue": "cirro-cpu-on-demand",
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


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_stack_is_found_by_name_and_a_deleted_one_by_its_arn() -> None:
    """For its name is nobody's then."""
    aws = FakeFormation()
    gone = aws.add(NAME, "DELETE_COMPLETE")
    assert stacks.find(aws, NAME) is None
    there = aws.add(
        NAME,
        "UPDATE_COMPLETE",
        Parameters=[{"ParameterKey": "Zones", "ParameterValue": "2"}],
        Outputs=[{"OutputKey": "VpcId", "OutputValue": "vpc-1"}],
        Tags=[{"Key": "team", "Value": "vision"}],
    )
    found = stacks.find(aws, NAME)
    assert found is not None
    assert found == stacks.Stack(
        name=NAME,
        stack_id=there["StackId"],
        status="UPDATE_COMPLETE",
        reason="",
        description="covalent-cirro, a stack",
        parameters={"Zones": "2"},
        outputs={"VpcId": "vpc-1"},
        tags={"team": "vision"},
    )
    assert stacks.get(aws, gone["StackId"]).is_gone


@pytest.mark.parametrize(
    ("status", "is_ready", "is_changing"),
    [
        ("CREATE_COMPLETE", True, False),
        ("UPDATE_ROLLBACK_COMPLETE", True, False),
        ("ROLLBACK_COMPLETE", False, False),
        ("DELETE_FAILED", False, False),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", False, True),
        ("REVIEW_IN_PROGRESS", False, False),
    ],
)
def test_what_a_status_means(status: str, is_ready: bool, is_changing: bool) -> None:
    """A stack that waits for its first change set is not being changed, whatever its status is called."""
    aws = FakeFormation()
    stack = stacks.get(aws, aws.add(NAME, status)["StackId"])
    assert (stack.is_ready, stack.is_changing) == (is_ready, is_changing)


def test_stacks_of_others_are_told_by_their_description() -> None:
    """An empty one has none yet, and nothing that could be lost."""
    aws = FakeFormation()
    with pytest.raises(StackError, match="not one of covalent-cirro"):
        stacks.require_ours(stacks.get(aws, aws.add(NAME, "CREATE_COMPLETE", description="The payroll")["StackId"]))
    stacks.require_ours(stacks.get(aws, aws.add(NAME, "REVIEW_IN_PROGRESS", description="")["StackId"]))


def test_resources_are_read_page_by_page() -> None:
    """Without those that were deleted, or never made."""
    aws = FakeFormation()
    stack = aws.add(NAME, "CREATE_COMPLETE")
    aws.listed[NAME] = [
        {
            "LogicalResourceId": f"R{n}",
            "ResourceType": "AWS::EC2::Subnet",
            "PhysicalResourceId": f"subnet-{n}" if n != 2 else "",
            "ResourceStatus": "DELETE_COMPLETE" if n == 1 else "CREATE_COMPLETE",
        }
        for n in range(7)
    ]
    found = stacks.resources(aws, stacks.get(aws, stack["StackId"]))
    assert [each.physical_id for each in found] == [f"subnet-{n}" for n in (0, 3, 4, 5, 6)]


def test_a_refusal_by_aws_is_an_error_of_ours() -> None:
    """With the stack's name and AWS's own words."""
    aws = FakeFormation()

    def refuse(**_: Any) -> dict[str, Any]:
        raise refusal("DescribeStacks", "User is not authorized to perform this", "AccessDenied")

    aws.describe_stacks = refuse  # type: ignore[method-assign]
    with pytest.raises(AccessDenied, match=r"stack 'cirro-network'.*User is not authorized"):
        stacks.find(aws, NAME)


# --- events and waiting -------------------------------------------------------------------------------------------


def test_the_first_failure_is_the_cause() -> None:
    """Not the resources that were cancelled because of it, nor what failed while it was rolled back."""
    events = [
        StackEvent("1", "Bucket", "AWS::S3::Bucket", "CREATE_FAILED", "Resource creation cancelled", NAME),
        StackEvent("2", "Gpu", "AWS::Batch::ComputeEnvironment", "CREATE_FAILED", "no such instance type", NAME),
        StackEvent("3", "Vpc", "AWS::EC2::VPC", "DELETE_FAILED", "has dependencies", NAME),
    ]
    assert first_failure(events) == events[1]
    assert first_failure(events[:1]) == events[0]
    assert first_failure([]) is None


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("User: x is not authorized to perform: iam:CreateRole", "credentials"),
        ("The maximum number of VPCs has been reached. (Service: Ec2, Status Code: 400)", "quota"),
        ("Instance type g9 is not valid", "CpuInstanceTypes"),
        ("cirro-cpu already exists in stack x", "--stack-name"),
        ("The bucket you tried to delete is not empty", "cirro destroy"),
        ("Something else", ""),
    ],
)
def test_known_reasons_come_with_a_remedy(reason: str, remedy: str) -> None:
    """AWS says what is wrong, and seldom what to do."""
    assert remedy in advice(reason)
    assert bool(advice(reason)) == bool(remedy)


def test_a_status_is_not_believed_before_the_operation_has_begun() -> None:
    """CloudFormation may tell the old status for a moment after it was asked."""
    aws, time = FakeFormation(), Time()
    stack = stacks.get(aws, aws.add(NAME, "UPDATE_COMPLETE")["StackId"])
    waiting = watch(aws, time)
    aws.happen(aws.stacks[stack.stack_id], (NAME, STACK, "UPDATE_IN_PROGRESS", "of an earlier day"))
    waiting.begin(stack)
    aws.run(
        aws.stacks[stack.stack_id],
        ("UPDATE_COMPLETE", []),
        ("UPDATE_IN_PROGRESS", [(NAME, STACK, "UPDATE_IN_PROGRESS", "User Initiated")]),
        ("UPDATE_ROLLBACK_COMPLETE", []),
    )
    assert waiting.ended(stack.stack_id).status == "UPDATE_ROLLBACK_COMPLETE"


def test_events_are_told_once_and_in_order() -> None:
    """CloudFormation tells the newest first, and page by page; what happened before is not told."""
    aws, time = FakeFormation(), Time()
    told: list[StackEvent] = []
    made = aws.add(NAME, "CREATE_COMPLETE")
    aws.happen(made, *[("Old", "AWS::S3::Bucket", "UPDATE_FAILED", f"old {n}") for n in range(7)])
    stack = stacks.get(aws, made["StackId"])
    waiting = watch(aws, time, told)
    steps = [(f"R{n}", "AWS::EC2::Subnet", "UPDATE_COMPLETE", "") for n in range(9)]
    own = (NAME, STACK, "UPDATE_IN_PROGRESS", "")
    waiting.begin(stack)
    aws.run(made, ("UPDATE_IN_PROGRESS", [own, *steps[:2]]), ("UPDATE_IN_PROGRESS", []), ("UPDATE_COMPLETE", steps[2:]))
    waiting.ended(stack.stack_id)
    assert [event.logical_id for event in told] == [NAME, *(f"R{n}" for n in range(9))]


def test_a_failure_names_the_event_and_what_to_do() -> None:
    """In AWS's words; events of an earlier operation do not count."""
    aws, time = FakeFormation(), Time()
    made = aws.add(NAME, "UPDATE_COMPLETE")
    aws.happen(made, ("Old", "AWS::S3::Bucket", "UPDATE_FAILED", "of an earlier day"))
    waiting = watch(aws, time)
    waiting.begin(stacks.get(aws, made["StackId"]))
    aws.happen(made, ("Queue", "AWS::Batch::JobQueue", "UPDATE_FAILED", "too many queues."))
    made["StackStatus"] = "UPDATE_ROLLBACK_COMPLETE"
    assert str(waiting.failure(stacks.get(aws, made["StackId"]), "updated")) == (
        "stack 'cirro-network' could not be updated: Queue (AWS::Batch::JobQueue) is UPDATE_FAILED: too many queues. "
        "The stack is as it was before: correct the cause and deploy again."
    )


def test_a_failure_without_events_tells_the_stacks_own_reason() -> None:
    """A hook fails before any resource."""
    aws = FakeFormation()
    made = aws.add(NAME, "UPDATE_ROLLBACK_FAILED", StackStatusReason="A hook said no.")
    failed = watch(aws, Time()).failure(stacks.get(aws, made["StackId"]), "updated")
    assert "could not be updated: A hook said no. Continue its rollback" in str(failed)


def test_waiting_ends_and_says_that_the_stack_goes_on() -> None:
    """No deployment hangs for ever; looks get rarer, and the last one is at the end of the time."""
    aws, time = FakeFormation(), Time()
    stack = stacks.get(aws, aws.add(NAME, "CREATE_IN_PROGRESS")["StackId"])
    with pytest.raises(StackError, match="still CREATE_IN_PROGRESS after 60 s"):
        watch(aws, time, timeout_s=60).settled(stack)
    assert time.now == pytest.approx(60)
    assert time.sleeps[0] == stack_events.FIRST_POLL_S
    assert max(time.sleeps) == stack_events.LONGEST_POLL_S
