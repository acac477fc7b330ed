"""Deployments: what is planned for the four stacks, and how it is carried out on a CloudFormation of our own."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro import deployment
from covalent_cirro.deployment import Deployed, plans, templates
from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.plans import PARTS, PartPlan, Plan, stack_name
from covalent_cirro.deployment.stack_events import StackEvent
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import Declined, NotFound, SettingsError, StackError
from tests.unit.fake_formation import STACK, FakeFormation, Time

OUTPUTS = {
    "network": {
        "VpcId": "vpc-1",
        "SubnetIds": "subnet-1,subnet-2",
        "SecurityGroupIds": "sg-1",
        "FileSystemArn": "none",
        "AccessPointArn": "none",
    },
    "storage": {
        "S3BucketName": "bucket-1",
        "S3Prefix": "cirro",
        "BatchJobLogGroupName": "logs-1",
        "Region": "eu-west-1",
        "ImageRepository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images",
        "ImageRepositoryArn": "arn:aws:ecr:eu-west-1:123456789012:repository/images",
    },
    "roles": {
        "BatchJobRoleName": "job-1",
        "BatchExecutionRoleName": "execution-1",
        "InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/machine",
        "SubmitterPolicy": "arn:aws:iam::123456789012:policy/submitter",
    },
    "compute": {"BatchQueue": "cirro-cpu", "BatchOnDemandQueue": "cirro-cpu-on-demand"},
}


def formation() -> FakeFormation:
    """An account in which stacks have the outputs of ours."""
    aws = FakeFormation()
    aws.outputs = {stack_name("cirro", part): dict(outputs) for part, outputs in OUTPUTS.items()}
    return aws


def deployed(aws: FakeFormation, **parameters: object) -> FakeFormation:
    """The account with a deployment, which nobody has looked at yet."""
    deploy(aws, parameters)
    aws.done.clear()
    return aws


def deploy(aws: FakeFormation, parameters: dict[str, Any] | None = None, **more: Any) -> Deployed:
    """Deploy without waiting in earnest."""
    time = Time()
    return deployment.deploy(aws, "cirro", parameters, sleep=time.sleep, clock=time.clock, **more)


def parameters_of(aws: FakeFormation, part: str) -> dict[str, str]:
    """What a stack was given."""
    [stack] = [each for each in aws.stacks.values() if each["StackName"] == stack_name("cirro", part)]
    return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}


def modified(name: str, kind: str = "AWS::Batch::ComputeEnvironment", replacement: str = "False") -> dict[str, Any]:
    """A change of the API's."""
    change = {"Action": "Modify", "LogicalResourceId": name, "ResourceType": kind, "Replacement": replacement}
    return change | {"PhysicalResourceId": f"{name}-1"}


# --- what there is to give ----------------------------------------------------------------------------------------


def test_links_are_outputs_of_stacks_before() -> None:
    """Nothing else links the stacks, and every parameter without a default is linked."""
    assert plans.linked("network") == {}
    assert plans.linked("storage") == {}
    assert set(plans.linked("roles").values()) == {"network", "storage"}
    assert plans.linked("compute") == {
        "VpcId": "network",
        "SubnetIds": "network",
        "SecurityGroupIds": "network",
        "InstanceProfileArn": "roles",
    }
    for part in PARTS:
        declared = templates.parameters(templates.load(part))
        without = {name for name, declaration in declared.items() if "Default" not in declaration}
        assert without <= set(plans.linked(part))


def test_the_user_gives_what_is_neither_linked_nor_the_name() -> None:
    """A parameter that is both an output of one stack and a parameter of it is given once: the prefix."""
    known = plans.parameters()
    assert not {"DeploymentName", "SubnetIds", "InstanceProfileArn", "S3BucketName"} & set(known)
    assert known["S3Prefix"].parts == ("storage",)
    assert (known["CpuSpotMaxVcpus"].default, known["CpuSpotMaxVcpus"].possible) == ("256", "0 to 100000")


def test_an_unknown_parameter_is_refused_with_all_there_are() -> None:
    """And with their defaults and what they take."""
    with pytest.raises(SettingsError) as refused:
        plans.check("cirro", {"CpuMaxVcpus": 8, "Zones": 2})
    text = str(refused.value)
    assert "there is no parameter 'CpuMaxVcpus'" in text
    assert all(f"  {name}=" in text for name in plans.parameters())
    assert "  Zones=3  (2 or 3, or the names of two or three zones, separated by commas without blanks)" in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"CpuInstanceTypes": "c7g"}, "CpuInstanceTypes has c7g, and CpuArchitecture is x86_64"),
        (
            {"CpuArchitecture": "arm64", "CpuInstanceTypes": "m7i,c7g"},
            "CpuInstanceTypes has m7i, and CpuArchitecture is",
        ),
        (
            {"MultiNodeInstanceTypes": "c7g"},
            "MultiNodeInstanceTypes has c7g, and jobs on several machines run on x86_64",
        ),
        (
            {"CpuArchitecture": "arm64", "MultiNodeInstanceTypes": "g5g.xlarge,g5"},
            "MultiNodeInstanceTypes has g5g.xlarge,",
        ),
        ({"CpuArchitecture": "arm64", "MultiNodeInstanceTypes": "c7i,g5", "CpuInstanceTypes": "c7g"}, ""),
        ({}, ""),
    ],
)
def test_instance_types_are_of_the_architecture_that_images_are_for(values: dict[str, str], words: str) -> None:
    """An instance of the other one would be paid for, and could not start the container."""
    chosen = {"CpuArchitecture": "x86_64", "CpuSpotMaxVcpus": "8", **values}
    if not words:
        plans.check_values("compute", chosen)
        return
    with pytest.raises(SettingsError, match=words):
        plans.check_values("compute", chosen)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Zones": 4}, "Zones=4 is impossible: 2 or 3, or the names"),
        ({"DiskSizeGib": 8}, "DiskSizeGib=8 is impossible: 50 to 16384"),
        ({"GpuInstanceTypes": ["g5", "p3"]}, "GpuInstanceTypes=g5,p3 is impossible: GPU families"),
        ({"SubnetIds": "subnet-1"}, "SubnetIds cannot be given: it is an output of the network stack"),
        ({"DeploymentName": "x"}, "DeploymentName is not given as a parameter, but with --stack-name"),
    ],
)
def test_impossible_values_are_refused_with_what_is_possible(given: dict[str, object], words: str) -> None:
    """Before AWS is asked anything."""
    with pytest.raises(SettingsError, match=words):
        plans.check("cirro", given)


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Not one mistake at a time."""
    with pytest.raises(SettingsError, match=r"cannot be called '1st'.* Zones=4 .* DiskSizeGib=8 "):
        plans.check("1st", {"Zones": 4, "DiskSizeGib": 8})


def test_values_become_text() -> None:
    """0 and "" are values, `None` is not; a list is CloudFormation's text with commas."""
    given = {"CpuSpotMaxVcpus": 0, "BudgetEmail": "", "GpuInstanceTypes": ("g5", "g6"), "Zones": None}
    assert plans.check("cirro", given) == {"CpuSpotMaxVcpus": "0", "BudgetEmail": "", "GpuInstanceTypes": "g5,g6"}


def test_values_are_given_linked_kept_or_the_default() -> None:
    """In this order."""
    stack = Stack("cirro-roles", "arn", "CREATE_COMPLETE", "", "", {"S3Prefix": "old", "S3BucketName": "old"}, {}, {})
    known = plans.values_of("roles", "cirro", {"S3Prefix": "given"}, stack, {"S3BucketName": "new", "S3Prefix": "new"})
    assert known == {
        "DeploymentName": "cirro",
        "S3BucketName": "new",
        "S3Prefix": "new",
        "JobRolePolicyArns": "",
        "SecretArns": "",
        "SharedFileSystem": "false",
    }


# --- what is done -------------------------------------------------------------------------------------------------


def test_a_first_deployment_makes_four_stacks_and_links_them() -> None:
    """In their order; each gets the outputs that it needs, and the deployment's name."""
    aws = formation()
    made = deploy(aws, {"CpuSpotMaxVcpus": 8})
    assert aws.done == [("create", stack_name("cirro", part)) for part in PARTS]
    assert parameters_of(aws, "compute") == {
        "DeploymentName": "cirro",
        "VpcId": "vpc-1",
        "SubnetIds": "subnet-1,subnet-2",
        "SecurityGroupIds": "sg-1",
        "InstanceProfileArn": OUTPUTS["roles"]["InstanceProfileArn"],
        "CpuSpotMaxVcpus": "8",
    }
    assert made.changed is True
    assert made.outputs == {key: value for outputs in OUTPUTS.values() for key, value in outputs.items()}
    assert made.settings == {
        "s3_bucket_name": "bucket-1",
        "s3_prefix": "cirro",
        "batch_queue": "cirro-cpu",
        "batch_on_demand_queue": "cirro-cpu-on-demand",
        "batch_job_role_name": "job-1",
        "batch_execution_role_name": "execution-1",
        "batch_job_log_group_name": "logs-1",
        "region": "eu-west-1",
    }


def test_deploying_again_keeps_what_was_given() -> None:
    """Only what changes is changed, and other parameters keep their value."""
    aws = deployed(formation(), CpuSpotMaxVcpus=8)
    aws.changes["cirro-compute"] = [modified("CpuSpotEnvironment")]
    deploy(aws, {"DiskSizeGib": 200})
    assert aws.done == [("update", "cirro-compute")]
    assert parameters_of(aws, "compute")["CpuSpotMaxVcpus"] == "8"
    assert parameters_of(aws, "compute")["DiskSizeGib"] == "200"


def test_without_changes_nobody_is_asked() -> None:
    """And nothing is left: a change set without changes is deleted."""
    aws = deployed(formation())
    done = deploy(aws, confirm=lambda plan: pytest.fail("asked"))
    assert (done.changed, done.settings["batch_queue"]) == (False, "cirro-cpu")
    assert (aws.done, aws.change_sets) == ([], {})


def test_a_no_deletes_every_change_set() -> None:
    """And the empty stacks that they made."""
    aws = formation()
    with pytest.raises(Declined):
        deploy(aws, confirm=lambda plan: False)
    assert (aws.done, aws.change_sets, aws.alive()) == ([], {}, {})


def test_an_interruption_while_asked_deletes_every_change_set() -> None:
    """As a no."""
    aws = formation()

    def interrupt(plan: Plan) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(aws, confirm=interrupt)
    assert (aws.change_sets, aws.alive()) == ({}, {})


def test_a_change_set_is_made_anew_when_outputs_changed() -> None:
    """What it would do then was not shown, so it is asked about; without a question it just happens."""
    aws = deployed(formation())
    aws.changes["cirro-network"] = [modified("SubnetA", "AWS::EC2::Subnet", "True")]
    aws.outputs["cirro-network"]["SubnetIds"] = "subnet-3,subnet-2"
    shown: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        aws.changes["cirro-compute"] = [modified("CpuSpotEnvironment"), modified("GpuSpotEnvironment")]
        return True

    deploy(aws, confirm=confirm)
    first, second = shown
    assert [part.action for part in first.parts] == ["update", "none", "none", "none"]
    assert [(part.part, len(part.changes)) for part in second.parts] == [("compute", 2)]
    assert aws.done == [("update", "cirro-network"), ("update", "cirro-compute")]
    assert parameters_of(aws, "compute")["SubnetIds"] == "subnet-3,subnet-2"


def test_changes_that_were_shown_are_not_asked_about_again() -> None:
    """Also where the change set was made anew."""
    aws = deployed(formation())
    aws.changes["cirro-network"] = [modified("SubnetA", "AWS::EC2::Subnet", "True")]
    aws.changes["cirro-compute"] = [modified("CpuSpotEnvironment")]
    aws.outputs["cirro-network"]["SubnetIds"] = "subnet-3,subnet-2"
    shown: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        return True

    deploy(aws, confirm=confirm)
    assert len(shown) == 1
    assert aws.done == [("update", "cirro-network"), ("update", "cirro-compute")]


def test_a_no_in_between_says_what_stays() -> None:
    """The stacks before are done; the question's own change set is deleted."""
    aws = deployed(formation())
    aws.changes["cirro-network"] = [modified("SubnetA", "AWS::EC2::Subnet", "True")]
    aws.outputs["cirro-network"]["SubnetIds"] = "subnet-3,subnet-2"
    answers = iter([True, False])

    def confirm(plan: Plan) -> bool:
        aws.changes["cirro-compute"] = [modified("CpuSpotEnvironment")]
        return next(answers)

    with pytest.raises(Declined, match=r"'cirro-compute' was not changed.* stay \(cirro-network, .*goes on from there"):
        deploy(aws, confirm=confirm)
    assert aws.done == [("update", "cirro-network")]
    assert aws.change_sets == {}


def test_a_failure_tells_the_cause_and_what_stays() -> None:
    """The stacks after it are not begun, and their change sets are deleted."""
    aws = formation()
    event = (
        "InstanceProfile",
        "AWS::IAM::InstanceProfile",
        "CREATE_FAILED",
        "Cannot exceed quota for InstanceProfiles",
    )
    aws.runs["cirro-roles"] = [("ROLLBACK_IN_PROGRESS", [event]), ("ROLLBACK_COMPLETE", [])]
    with pytest.raises(StackError) as failed:
        deploy(aws)
    assert str(failed.value) == (
        "stack 'cirro-roles' could not be created: InstanceProfile (AWS::IAM::InstanceProfile) is CREATE_FAILED: "
        "Cannot exceed quota for InstanceProfiles. Raise this quota (`aws service-quotas`), or delete what is no "
        "longer needed. All that was made in it is removed again: correct the cause and deploy again. The other stacks "
        "stay (cirro-network, cirro-storage): deploying again goes on from there."
    )
    assert "cirro-compute" not in aws.alive()
    aws.done.clear()
    deploy(aws)
    assert aws.done == [("delete", "cirro-roles"), ("create", "cirro-roles"), ("create", "cirro-compute")]


def test_somebody_elses_change_is_waited_for() -> None:
    """Its events are told; AWS refuses a second change at once."""
    aws = deployed(formation())
    [compute] = [each for each in aws.stacks.values() if each["StackName"] == "cirro-compute"]
    compute["StackStatus"] = "UPDATE_IN_PROGRESS"
    event = ("CpuQueue", "AWS::Batch::JobQueue", "UPDATE_COMPLETE", "")
    aws.run(compute, ("UPDATE_IN_PROGRESS", []), ("UPDATE_COMPLETE", [event]))
    told: list[StackEvent] = []
    assert deploy(aws, on_event=told.append).changed is False
    assert [each.logical_id for each in told] == ["CpuQueue"]


def test_a_stack_being_deleted_is_waited_for_and_made_anew() -> None:
    """``destroy`` and ``deploy`` at once."""
    aws = formation()
    aws.run(aws.add("cirro-network", "DELETE_IN_PROGRESS"), ("DELETE_COMPLETE", []))
    deploy(aws)
    assert aws.done == [("create", stack_name("cirro", part)) for part in PARTS]


def test_an_empty_stack_of_an_earlier_try_is_used() -> None:
    """CloudFormation would refuse to make another of its name."""
    aws = formation()
    stack = aws.add("cirro-storage", "REVIEW_IN_PROGRESS", description="")
    aws.happen(stack, ("cirro-storage", STACK, "REVIEW_IN_PROGRESS", "User Initiated"))
    deploy(aws)
    assert aws.alive()["cirro-storage"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("DELETE_FAILED", "cirro destroy --stack-name cirro"),
        ("ROLLBACK_FAILED", "cirro destroy --stack-name cirro"),
        ("UPDATE_ROLLBACK_FAILED", "Continue its rollback"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_told_with_its_reason(status: str, remedy: str) -> None:
    """And left as it is: what is left in it may be data."""
    aws = formation()
    aws.add("cirro-storage", status, StackStatusReason="The following resource(s) failed to delete: [Bucket].")
    with pytest.raises(StackError, match=rf"is {status} and cannot be updated: .*\[Bucket\]\. .*{remedy}"):
        deploy(aws)
    assert (aws.done, aws.change_sets) == ([], {})


def test_a_stack_whose_predecessor_is_gone_is_changed_later() -> None:
    """Its change set cannot be made before: what changes is shown in its turn."""
    aws = deployed(formation())
    [storage] = [each for each in aws.stacks.values() if each["StackName"] == "cirro-storage"]
    storage["StackStatus"] = "DELETE_COMPLETE"
    aws.outputs["cirro-storage"]["S3BucketName"] = "bucket-2"
    shown: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        aws.changes["cirro-roles"] = [modified("JobRole", "AWS::IAM::Role")]
        return True

    deploy(aws, confirm=confirm)
    assert [part.action for part in shown[0].parts] == ["none", "create", "later", "none"]
    assert [part.part for part in shown[1].parts] == ["roles"]
    assert parameters_of(aws, "roles")["S3BucketName"] == "bucket-2"


def test_a_rule_is_broken_by_what_is_given_and_kept_together() -> None:
    """Before any change set is made."""
    aws = deployed(formation(), CpuSpotMaxVcpus=0)
    with pytest.raises(SettingsError, match="no machine to run on"):
        deploy(aws, {"CpuOnDemandMaxVcpus": 0})
    assert (aws.done, aws.change_sets) == ([], {})


def test_outputs_of_what_is_there() -> None:
    """Of all stacks; none at all is an error that says the region, for that is the usual cause."""
    aws = deployed(formation())
    assert deployment.outputs(aws, "cirro")["BatchQueue"] == "cirro-cpu"
    with pytest.raises(NotFound, match="no deployment 'other' in eu-west-1"):
        deployment.outputs(aws, "other")


# --- what is said loudly ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            Change("Modify", "Bucket", "AWS::S3::Bucket", "bucket-1", "True"),
            "the bucket bucket-1 is replaced by a new one",
        ),
        (Change("Remove", "JobLogGroup", "AWS::Logs::LogGroup", "logs-1"), "the log group logs-1 is removed"),
        (
            Change("Modify", "ImageRepository", "AWS::ECR::Repository", "images", "Conditional"),
            "the image repository images may be replaced",
        ),
        (Change("Modify", "CpuQueue", "AWS::Batch::JobQueue", "cpu", "True"), "its jobs are terminated"),
        (Change("Modify", "Bucket", "AWS::S3::Bucket", "bucket-1", "False"), None),
        (Change("Add", "Bucket", "AWS::S3::Bucket"), None),
        (Change("Modify", "LaunchTemplate", "AWS::EC2::LaunchTemplate", "lt-1", "True"), None),
    ],
)
def test_what_is_lost_or_interrupted_is_said(change: Change, words: str | None) -> None:
    """Data and queues; nothing else is worth an alarm."""
    plan = Plan("cirro", "123456789012", "eu-west-1", (PartPlan("storage", "cirro-storage", "update", (change,)),))
    assert len(plan.warnings) == (words is not None)
    assert words is None or words in plan.warnings[0]
