"""The template of ``infra/``, deployed, changed and deleted on the emulated AWS through the gateway."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from covalent_cirro import settings, stacks
from covalent_cirro.emulator import Emulator
from covalent_cirro.errors import AwsError, StackError

_names = (f"cirro-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulated AWS for all tests here; each makes a stack of its own name in it."""
    with Emulator(state_dir=tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Callable[[str], Any]:
    """A boto3 client of a service of the emulated AWS."""

    def make(service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=emulator.endpoint_url,
            region_name=emulator.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    return make


@pytest.fixture
def name(client: Callable[[str], Any]) -> Iterator[str]:
    """A name for a stack, which is gone when the test is over."""
    name = next(_names)
    yield name
    stacks.delete(client("cloudformation"), name, empty_bucket_with=client("s3"))


def compute_environments(batch: Any, queue: str) -> list[dict[str, Any]]:
    """The compute environments of a job queue, in its order."""
    [found] = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    order = sorted(found["computeEnvironmentOrder"], key=lambda item: int(item["order"]))
    arns = [item["computeEnvironment"] for item in order]
    described = batch.describe_compute_environments(computeEnvironments=arns)["computeEnvironments"]
    return sorted(described, key=lambda item: arns.index(item["computeEnvironmentArn"]))


def what_is_there(client: Callable[[str], Any]) -> dict[str, set[str]]:
    """Names of all that a stack can make in this account."""
    batch, ec2, iam = client("batch"), client("ec2"), client("iam")
    return {
        "queues": {item["jobQueueArn"] for item in batch.describe_job_queues()["jobQueues"]},
        "environments": {
            item["computeEnvironmentArn"]
            for item in batch.describe_compute_environments()["computeEnvironments"]
            if item["status"] != "DELETED"
        },
        "vpcs": {item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]},
        "subnets": {item["SubnetId"] for item in ec2.describe_subnets()["Subnets"]},
        "endpoints": {
            item["VpcEndpointId"] for item in ec2.describe_vpc_endpoints()["VpcEndpoints"] if item["State"] != "deleted"
        },
        "security groups": {item["GroupId"] for item in ec2.describe_security_groups()["SecurityGroups"]},
        "launch templates": {item["LaunchTemplateId"] for item in ec2.describe_launch_templates()["LaunchTemplates"]},
        "buckets": {item["Name"] for item in client("s3").list_buckets()["Buckets"]},
        "repositories": {item["repositoryName"] for item in client("ecr").describe_repositories()["repositories"]},
        "log groups": {item["logGroupName"] for item in client("logs").describe_log_groups()["logGroups"]},
        "roles": {item["RoleName"] for item in iam.list_roles()["Roles"]},
        "profiles": {item["InstanceProfileName"] for item in iam.list_instance_profiles()["InstanceProfiles"]},
        "policies": {item["Arn"] for item in iam.list_policies(Scope="Local")["Policies"]},
    }


def test_outputs_are_settings_that_the_executor_takes(client: Callable[[str], Any], name: str) -> None:
    """Every one of them, and every listed output that is none."""
    made = stacks.deploy(client("cloudformation"), name)
    fed = {stacks.output_key(setting) for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS)}
    assert set(made.values) == fed | stacks.NOT_SETTINGS
    assert all(made.values.values())
    settings.check(made.settings)
    assert stacks.outputs(client("cloudformation"), name) == made.values


@pytest.mark.parametrize("setting", ["batch_queue", "batch_gpu_queue"])
def test_queues_are_ready_spot_first(client: Callable[[str], Any], name: str, setting: str) -> None:
    """Queue and compute environments are VALID and ENABLED: a job can be submitted at once."""
    queue = stacks.deploy(client("cloudformation"), name).settings[setting]
    batch = client("batch")
    [found] = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    assert (found["state"], found["status"]) == ("ENABLED", "VALID")
    environments = compute_environments(batch, queue)
    assert [item["computeResources"]["type"] for item in environments] == ["SPOT", "EC2"]
    assert {(item["state"], item["status"]) for item in environments} == {("ENABLED", "VALID")}
    assert {item["computeResources"]["minvCpus"] for item in environments} == {0}


def test_on_demand_queue_is_on_demand(client: Callable[[str], Any], name: str) -> None:
    """For electrons that must not be interrupted."""
    made = stacks.deploy(client("cloudformation"), name)
    for output in ("OnDemandQueue", "OnDemandGpuQueue"):
        [environment] = compute_environments(client("batch"), made.values[output])
        assert environment["computeResources"]["type"] == "EC2"


def test_names_in_outputs_are_of_things_that_exist(client: Callable[[str], Any], name: str) -> None:
    """Bucket, roles, log group, repository and policy are found by what the outputs say."""
    made = stacks.deploy(client("cloudformation"), name)
    client("s3").head_bucket(Bucket=made.settings["s3_bucket_name"])
    for setting in ("batch_job_role_name", "batch_execution_role_name"):
        client("iam").get_role(RoleName=made.settings[setting])
    client("iam").get_policy(PolicyArn=made.values["SubmitterPolicy"])
    group = made.settings["batch_job_log_group_name"]
    [found] = client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert found["retentionInDays"] == 30
    repository = made.values["ImageRepository"].split("/", 1)[1]
    assert client("ecr").describe_repositories(repositoryNames=[repository])["repositories"]


def test_deploying_again_changes_nothing(client: Callable[[str], Any], name: str) -> None:
    """And keeps the parameters of the first time."""
    cloudformation = client("cloudformation")
    first = stacks.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 12, "S3Prefix": "mine"})
    again = stacks.deploy(cloudformation, name)
    assert again == first._replace(changed=False)
    assert again.settings["s3_prefix"] == "mine"


def test_a_compute_environment_is_changed_in_place(client: Callable[[str], Any], name: str) -> None:
    """Its ARN stays, and so do the queue, the bucket and all other outputs."""
    cloudformation, batch = client("cloudformation"), client("batch")
    first = stacks.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 12})
    before = compute_environments(batch, first.settings["batch_queue"])
    second = stacks.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 24})
    after = compute_environments(batch, first.settings["batch_queue"])
    assert (second.changed, second.values) == (True, first.values)
    assert [item["computeEnvironmentArn"] for item in after] == [item["computeEnvironmentArn"] for item in before]
    assert [item["computeResources"]["maxvCpus"] for item in (before[0], after[0])] == [12, 24]
    assert before[1] == after[1]


def test_a_stack_without_gpus(client: Callable[[str], Any], name: str) -> None:
    """No queue, no compute environment, no setting; and they come when they are asked for."""
    cloudformation = client("cloudformation")
    none = stacks.deploy(cloudformation, name, {"GpuSpotMaxVcpus": 0, "GpuOnDemandMaxVcpus": 0})
    assert "batch_gpu_queue" not in none.settings
    assert "OnDemandGpuQueue" not in none.values
    some = stacks.deploy(cloudformation, name, {"GpuOnDemandMaxVcpus": 8})
    [environment] = compute_environments(client("batch"), some.settings["batch_gpu_queue"])
    assert environment["computeResources"]["type"] == "EC2"


def test_a_stack_without_spot(client: Callable[[str], Any], name: str) -> None:
    """The queues are there all the same."""
    made = stacks.deploy(client("cloudformation"), name, {"CpuSpotMaxVcpus": 0, "GpuSpotMaxVcpus": 0, "Zones": 2})
    for setting in ("batch_queue", "batch_gpu_queue"):
        [environment] = compute_environments(client("batch"), made.settings[setting])
        assert environment["computeResources"]["type"] == "EC2"
        assert len(environment["computeResources"]["subnets"]) == 2


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"CpuSpotMaxVcpus": 0, "CpuOnDemandMaxVcpus": 0}, "no machine to run on"),
        ({"GpuInstanceTypes": "g5,p3"}, "GpuInstanceTypes"),
        ({"DiskSizeGib": 8}, "DiskSizeGib"),
        ({"Zones": 4}, "Zones"),
        ({"CpuMaxVcpus": 8}, "CpuMaxVcpus"),
    ],
)
def test_parameters_that_cannot_work_are_refused(
    client: Callable[[str], Any], name: str, parameters: dict[str, Any], words: str
) -> None:
    """With the name of the parameter, or the words of the rule, and before anything is made."""
    before = what_is_there(client)
    with pytest.raises(AwsError, match=words):
        stacks.deploy(client("cloudformation"), name, parameters)
    assert what_is_there(client) == before


def test_a_failed_creation_leaves_nothing_and_can_be_repeated(client: Callable[[str], Any], name: str) -> None:
    """The error has the resource and AWS's reason; the same name works once the cause is mended."""
    before = what_is_there(client)
    cloudformation = client("cloudformation")
    with pytest.raises(StackError, match=r"could not be created: CpuSpotEnvironment .* is CREATE_FAILED: .*zz9"):
        stacks.deploy(cloudformation, name, {"CpuInstanceTypes": "zz9"})
    assert what_is_there(client) == before
    assert stacks.deploy(cloudformation, name).changed is True


def test_delete_leaves_nothing(client: Callable[[str], Any], name: str) -> None:
    """Of anything that costs or that the next stack could trip over."""
    before = what_is_there(client)
    cloudformation = client("cloudformation")
    stacks.deploy(cloudformation, name)
    assert what_is_there(client) != before
    assert stacks.delete(cloudformation, name) is True
    assert what_is_there(client) == before
    assert stacks.delete(cloudformation, name) is False


def test_a_bucket_with_data_is_kept_until_it_may_be_emptied(client: Callable[[str], Any], name: str) -> None:
    """Deleting a stack by mistake loses no data, and stops all that costs by the hour."""
    cloudformation, s3 = client("cloudformation"), client("s3")
    made = stacks.deploy(cloudformation, name)
    bucket = made.settings["s3_bucket_name"]
    s3.put_object(Bucket=bucket, Key="cirro/blobs/0", Body=b"data")
    with pytest.raises(StackError, match=r"could not be deleted: Bucket \(AWS::S3::Bucket\) is DELETE_FAILED: .*empty"):
        stacks.delete(cloudformation, name)
    assert s3.get_object(Bucket=bucket, Key="cirro/blobs/0")["Body"].read() == b"data"
    queues = {item["jobQueueName"] for item in client("batch").describe_job_queues()["jobQueues"]}
    assert made.settings["batch_queue"] not in queues
    assert stacks.delete(cloudformation, name, empty_bucket_with=s3) is True
    assert bucket not in {item["Name"] for item in s3.list_buckets()["Buckets"]}


def test_two_stacks_in_one_account(client: Callable[[str], Any], name: str) -> None:
    """They share nothing."""
    cloudformation = client("cloudformation")
    other = f"{name}-other"
    try:
        first, second = (stacks.deploy(cloudformation, each).settings for each in (name, other))
        shared = {key for key in first if first[key] == second[key]}
        assert shared == {"s3_prefix", "region"}
    finally:
        stacks.delete(cloudformation, other)


def test_events_are_told_in_order(client: Callable[[str], Any], name: str) -> None:
    """From the stack's beginning to its end, each resource made after what it stands on."""
    told: list[stacks.StackEvent] = []
    stacks.deploy(client("cloudformation"), name, on_event=told.append)
    made = [event.logical_id for event in told if event.status == "CREATE_COMPLETE"]
    assert made[-1] == name
    assert made.index("Vpc") < made.index("SubnetA") < made.index("CpuSpotEnvironment") < made.index("CpuQueue")
