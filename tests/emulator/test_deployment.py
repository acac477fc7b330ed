"""The templates of ``infra/``, deployed, changed and deleted on the emulated AWS."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from covalent_cirro import deployment, settings
from covalent_cirro.deployment import holdings, plans, stacks, teardown
from covalent_cirro.deployment.holdings import Proof
from covalent_cirro.deployment.plans import Plan
from covalent_cirro.deployment.stack_events import StackEvent
from covalent_cirro.errors import Declined, NotFound, SettingsError, StackError
from covalent_cirro.local.emulator import Emulator

_names = (f"cirro-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulated AWS for all tests here; each makes a deployment of its own name in it."""
    with Emulator(state_dir=tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def client(emulator: Emulator) -> Callable[[str], Any]:
    """A boto3 client of a service of the emulated AWS."""

    @functools.cache
    def make(service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=emulator.endpoint_url,
            region_name=emulator.region,
            aws_access_key_id=emulator.key.id,
            aws_secret_access_key=emulator.key.secret,
        )

    return make


@pytest.fixture
def name(client: Callable[[str], Any]) -> Iterator[str]:
    """A name for a deployment, which is deleted when the test is over."""
    name = next(_names)
    yield name
    destroy(client, name)


def destroy(client: Callable[[str], Any], name: str, *, keep_data: bool = False) -> Proof:
    """Delete a deployment."""
    return teardown.destroy(client, holdings.survey(client, name, keep_data=keep_data), sleep=lambda seconds: None)


def compute_environments(batch: Any, queue: str) -> list[dict[str, Any]]:
    """The compute environments of a job queue, in its order."""
    [found] = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    order = sorted(found["computeEnvironmentOrder"], key=lambda item: int(item["order"]))
    arns = [item["computeEnvironment"] for item in order]
    described = batch.describe_compute_environments(computeEnvironments=arns)["computeEnvironments"]
    return sorted(described, key=lambda item: arns.index(item["computeEnvironmentArn"]))


def what_is_there(client: Callable[[str], Any]) -> dict[str, set[str]]:
    """Names of all that a deployment can make in this account."""
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
    made = deployment.deploy(client("cloudformation"), name)
    fed = {stacks.output_key(setting) for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS)}
    by_parameter = {stacks.output_key(setting) for setting in stacks.BY_PARAMETER}
    assert set(made.outputs) == (fed | stacks.NOT_SETTINGS) - by_parameter
    assert all(made.outputs.values())
    settings.check(made.settings)
    assert deployment.outputs(client("cloudformation"), name) == made.outputs


@pytest.mark.parametrize("setting", ["batch_queue", "batch_gpu_queue"])
def test_queues_are_ready_spot_first(client: Callable[[str], Any], name: str, setting: str) -> None:
    """Queue and compute environments are VALID and ENABLED: a job can be submitted at once."""
    queue = deployment.deploy(client("cloudformation"), name).settings[setting]
    batch = client("batch")
    [found] = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    assert (found["state"], found["status"]) == ("ENABLED", "VALID")
    environments = compute_environments(batch, queue)
    assert [item["computeResources"]["type"] for item in environments] == ["SPOT", "EC2"]
    assert {(item["state"], item["status"]) for item in environments} == {("ENABLED", "VALID")}
    assert {item["computeResources"]["minvCpus"] for item in environments} == {0}


def test_on_demand_queue_is_on_demand(client: Callable[[str], Any], name: str) -> None:
    """For electrons that must not be interrupted."""
    made = deployment.deploy(client("cloudformation"), name)
    for output in ("BatchOnDemandQueue", "BatchGpuOnDemandQueue"):
        [environment] = compute_environments(client("batch"), made.outputs[output])
        assert environment["computeResources"]["type"] == "EC2"


def test_names_in_outputs_are_of_things_that_exist(client: Callable[[str], Any], name: str) -> None:
    """Bucket, roles, log group, repository and policy are found by what the outputs say."""
    made = deployment.deploy(client("cloudformation"), name)
    client("s3").head_bucket(Bucket=made.settings["s3_bucket_name"])
    for setting in ("batch_job_role_name", "batch_execution_role_name"):
        client("iam").get_role(RoleName=made.settings[setting])
    client("iam").get_policy(PolicyArn=made.outputs["SubmitterPolicy"])
    group = made.settings["batch_job_log_group_name"]
    [found] = client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert found["retentionInDays"] == 30
    repository = made.outputs["ImageRepository"].split("/", 1)[1]
    assert client("ecr").describe_repositories(repositoryNames=[repository])["repositories"]


def test_deploying_again_changes_nothing(client: Callable[[str], Any], name: str) -> None:
    """And keeps the parameters of the first time."""
    cloudformation = client("cloudformation")
    first = deployment.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 12, "S3Prefix": "mine"})
    again = deployment.deploy(cloudformation, name)
    assert again == first._replace(changed=False)
    assert again.settings["s3_prefix"] == "mine"


def test_a_compute_environment_is_changed_in_place(client: Callable[[str], Any], name: str) -> None:
    """Its ARN stays, and so do the queue, the bucket and all other outputs."""
    cloudformation, batch = client("cloudformation"), client("batch")
    first = deployment.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 12})
    before = compute_environments(batch, first.settings["batch_queue"])
    second = deployment.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 24})
    after = compute_environments(batch, first.settings["batch_queue"])
    assert (second.changed, second.outputs) == (True, first.outputs)
    assert [item["computeEnvironmentArn"] for item in after] == [item["computeEnvironmentArn"] for item in before]
    assert [item["computeResources"]["maxvCpus"] for item in (before[0], after[0])] == [12, 24]
    assert before[1] == after[1]


def test_a_stack_without_gpus(client: Callable[[str], Any], name: str) -> None:
    """No queue, no compute environment, no setting; and they come when they are asked for."""
    cloudformation = client("cloudformation")
    none = deployment.deploy(cloudformation, name, {"GpuSpotMaxVcpus": 0, "GpuOnDemandMaxVcpus": 0})
    assert "batch_gpu_queue" not in none.settings
    assert "BatchGpuOnDemandQueue" not in none.outputs
    some = deployment.deploy(cloudformation, name, {"GpuOnDemandMaxVcpus": 8})
    [environment] = compute_environments(client("batch"), some.settings["batch_gpu_queue"])
    assert environment["computeResources"]["type"] == "EC2"


def test_a_stack_without_spot(client: Callable[[str], Any], name: str) -> None:
    """The queues are there all the same."""
    made = deployment.deploy(client("cloudformation"), name, {"CpuSpotMaxVcpus": 0, "GpuSpotMaxVcpus": 0, "Zones": 2})
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
    """With the name of the parameter, or the words of the rule, and before anything is made, even an empty stack."""
    before = what_is_there(client)
    with pytest.raises(SettingsError, match=words):
        deployment.deploy(client("cloudformation"), name, parameters)
    assert what_is_there(client) == before
    assert stack_status(client, name) == {}


def stack_status(client: Callable[[str], Any], name: str) -> dict[str, str]:
    """The stacks of a deployment that are there, by part."""
    names = {plans.stack_name(name, part): part for part in plans.PARTS}
    found = client("cloudformation").describe_stacks()["Stacks"]
    return {names[each["StackName"]]: each["StackStatus"] for each in found if each["StackName"] in names}


def test_a_failed_creation_keeps_the_stacks_before_and_goes_on_from_there(
    client: Callable[[str], Any], name: str
) -> None:
    """The error has the resource, AWS's reason and what stays; only the failed stack is made anew."""
    cloudformation = client("cloudformation")
    with pytest.raises(
        StackError, match=r"could not be created: CpuSpotEnvironment .* is CREATE_FAILED: .*zz9"
    ) as failed:
        deployment.deploy(cloudformation, name, {"CpuInstanceTypes": "zz9"})
    assert "--parameter CpuInstanceTypes" in str(failed.value)
    assert f"The other stacks stay ({name}-network, {name}-storage, {name}-roles)" in str(failed.value)
    assert stack_status(client, name)["compute"] == "ROLLBACK_COMPLETE"
    events: list[StackEvent] = []
    repaired = deployment.deploy(cloudformation, name, {"CpuInstanceTypes": "m7i"}, on_event=events.append)
    assert repaired.settings["batch_queue"] == f"{name}-cpu"
    assert {event.stack_name for event in events} == {f"{name}-compute"}


def test_what_was_asked_for_is_kept_through_a_failed_creation(client: Callable[[str], Any], name: str) -> None:
    """Only what is wrong has to be given again."""
    cloudformation = client("cloudformation")
    with pytest.raises(StackError, match="zz9"):
        deployment.deploy(cloudformation, name, {"CpuInstanceTypes": "zz9", "CpuSpotMaxVcpus": 12})
    made = deployment.deploy(cloudformation, name, {"CpuInstanceTypes": "m7i"})
    spot, _ = compute_environments(client("batch"), made.settings["batch_queue"])
    assert spot["computeResources"]["maxvCpus"] == 12


def test_a_failed_update_leaves_all_as_it_was(client: Callable[[str], Any], name: str) -> None:
    """And the next deployment, without the mistake, has nothing to do."""
    cloudformation = client("cloudformation")
    first = deployment.deploy(cloudformation, name)
    with pytest.raises(StackError, match=r"could not be updated: .*zz9.* The stack is as it was before"):
        deployment.deploy(cloudformation, name, {"CpuInstanceTypes": "zz9"})
    assert deployment.deploy(cloudformation, name) == first._replace(changed=False)


# --- what is shown, and asked -------------------------------------------------------------------------------------


def test_a_first_deployment_is_shown_whole(client: Callable[[str], Any], name: str) -> None:
    """Also the stacks whose change sets cannot be made yet; what they make then is what was shown."""
    shown: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        return True

    deployment.deploy(client("cloudformation"), name, {"GpuSpotMaxVcpus": 0, "GpuOnDemandMaxVcpus": 0}, confirm=confirm)
    [plan] = shown
    assert [(part.part, part.action, part.foreseen) for part in plan.parts] == [
        ("network", "create", False),
        ("storage", "create", False),
        ("roles", "create", True),
        ("compute", "create", True),
    ]
    assert (plan.account, plan.region) == ("123456789012", "us-east-1")
    resources = client("cloudformation").list_stack_resources
    for part in plan.parts:
        made = {each["LogicalResourceId"] for each in resources(StackName=part.stack_name)["StackResourceSummaries"]}
        assert {change.logical_id for change in part.changes} == made
        assert {change.action for change in part.changes} == {"Add"}


def test_no_change_asks_nothing_and_leaves_no_change_set(client: Callable[[str], Any], name: str) -> None:
    """Deploying twice is deploying once."""
    cloudformation = client("cloudformation")
    deployment.deploy(cloudformation, name)
    assert deployment.deploy(cloudformation, name, confirm=refuse).changed is False
    assert change_sets_of(client, name) == []


def refuse(plan: Plan) -> bool:
    """A question that should not have been asked."""
    raise AssertionError(f"asked about {plan}")


def change_sets_of(client: Callable[[str], Any], name: str) -> list[str]:
    """The change sets that are left of a deployment."""
    found = client("cloudformation").list_change_sets(StackName=f"{name}-network")["Summaries"]
    return [each["ChangeSetName"] for each in found if each["StackName"].startswith(f"{name}-")]


def test_a_no_leaves_nothing_of_a_first_deployment(client: Callable[[str], Any], name: str) -> None:
    """Neither change sets nor the empty stacks that they made."""
    with pytest.raises(Declined, match="nothing was changed"):
        deployment.deploy(client("cloudformation"), name, confirm=lambda plan: False)
    assert stack_status(client, name) == {}
    with pytest.raises(NotFound, match="no deployment"):
        deployment.outputs(client("cloudformation"), name)


def test_a_no_leaves_a_deployment_as_it_is(client: Callable[[str], Any], name: str) -> None:
    """What would have changed is shown: the parameter, and what becomes of its resources."""
    cloudformation = client("cloudformation")
    first = deployment.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 12})
    shown: list[Plan] = []

    def decline(plan: Plan) -> bool:
        shown.append(plan)
        return False

    with pytest.raises(Declined):
        deployment.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 24}, confirm=decline)
    [plan] = shown
    assert [part.action for part in plan.parts] == ["none", "none", "none", "update"]
    assert plan.parts[3].parameters == (("CpuSpotMaxVcpus", "12", "24"),)
    [change] = plan.parts[3].changes
    assert (change.action, change.logical_id, change.replacement) == ("Modify", "CpuSpotEnvironment", "False")
    assert change_sets_of(client, name) == []
    assert deployment.deploy(cloudformation, name) == first._replace(changed=False)


def test_an_output_that_changes_is_passed_on_and_asked_about(client: Callable[[str], Any], name: str) -> None:
    """The roles change only once the storage stack has its new prefix: they are shown then."""
    cloudformation = client("cloudformation")
    deployment.deploy(cloudformation, name)
    shown: list[list[str]] = []

    def confirm(plan: Plan) -> bool:
        shown.append([part.part for part in plan.parts if part.action != "none"])
        return True

    made = deployment.deploy(cloudformation, name, {"S3Prefix": "mine"}, confirm=confirm)
    assert shown == [["storage"], ["roles"]]
    role = client("iam").get_role_policy(RoleName=made.settings["batch_job_role_name"], PolicyName="electron")
    assert "/mine/jobs/" in str(role["PolicyDocument"])


def test_events_are_told_in_order(client: Callable[[str], Any], name: str) -> None:
    """From the first stack's beginning to the last one's end, each resource made after what it stands on."""
    events: list[StackEvent] = []
    deployment.deploy(client("cloudformation"), name, on_event=events.append)
    made = [event.logical_id for event in events if event.status == "CREATE_COMPLETE"]
    assert [each for each in made if each.startswith(name)] == [f"{name}-{part}" for part in plans.PARTS]
    assert made.index("Vpc") < made.index("SubnetA") < made.index("CpuSpotEnvironment") < made.index("CpuQueue")
    assert len({event.event_id for event in events}) == len(events)


def test_stacks_are_tagged_with_the_deployment(client: Callable[[str], Any], name: str) -> None:
    """For the bill; tags that other tools put on a stack stay."""
    cloudformation = client("cloudformation")
    deployment.deploy(cloudformation, name)
    stack = f"{name}-compute"
    body = cloudformation.get_template(StackName=stack)["TemplateBody"]
    parameters = [
        {"ParameterKey": key, "UsePreviousValue": True} for key in stacks.get(cloudformation, stack).parameters
    ]
    tags = [{"Key": "team", "Value": "vision"}, {"Key": "covalent-cirro", "Value": name}]
    made = cloudformation.create_change_set(
        **{"StackName": stack, "ChangeSetName": "by-hand", "ChangeSetType": "UPDATE", "TemplateBody": body},
        **{"Parameters": parameters, "Tags": tags, "Capabilities": ["CAPABILITY_IAM"]},
    )
    cloudformation.execute_change_set(ChangeSetName=made["Id"])
    assert deployment.deploy(cloudformation, name).changed is False
    deployment.deploy(cloudformation, name, {"CpuSpotMaxVcpus": 12})
    for part in plans.PARTS:
        found = stacks.get(cloudformation, f"{name}-{part}").tags
        assert found == {"covalent-cirro": name} | ({"team": "vision"} if part == "compute" else {})


# --- the way back -------------------------------------------------------------------------------------------------


def test_destroy_leaves_nothing(client: Callable[[str], Any], name: str) -> None:
    """Of anything that costs or that the next deployment could trip over; and doing it twice is doing it once."""
    before = what_is_there(client)
    made = deployment.deploy(client("cloudformation"), name)
    assert what_is_there(client) != before
    fill(client, made.settings["s3_bucket_name"])
    assert destroy(client, name) == Proof((), ())
    assert what_is_there(client) == before
    assert holdings.survey(client, name).is_nothing
    assert destroy(client, name) == Proof((), ())


def fill(client: Callable[[str], Any], bucket: str) -> None:
    """Objects in two versions, one deleted, and an unfinished upload."""
    s3 = client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for key in ("cirro/blobs/0", "cirro/blobs/0", "cirro/blobs/1", "elsewhere"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"data")
    s3.delete_object(Bucket=bucket, Key="elsewhere")
    s3.create_multipart_upload(Bucket=bucket, Key="cirro/blobs/2")


def test_what_there_is_is_counted(client: Callable[[str], Any], name: str) -> None:
    """All versions, delete markers and unfinished uploads are things that go."""
    made = deployment.deploy(client("cloudformation"), name)
    bucket = made.settings["s3_bucket_name"]
    assert holdings.survey(client, name).loses_data is False
    fill(client, bucket)
    found = holdings.survey(client, name)
    assert [(each.name, each.entries, each.size_bytes) for each in found.buckets] == [(bucket, 6, 16)]
    assert found.loses_data is True
    assert [stack.name for stack in found.stacks] == [f"{name}-{part}" for part in reversed(plans.PARTS)]


def test_data_can_be_kept_and_is_found_again(client: Callable[[str], Any], name: str) -> None:
    """The storage stack stays as it is, and the next deployment is made around it."""
    cloudformation, s3 = client("cloudformation"), client("s3")
    first = deployment.deploy(cloudformation, name)
    bucket = first.settings["s3_bucket_name"]
    s3.put_object(Bucket=bucket, Key="cirro/blobs/0", Body=b"data")
    assert holdings.survey(client, name, keep_data=True).loses_data is False
    assert destroy(client, name, keep_data=True) == Proof((), ())
    assert stack_status(client, name) == {"storage": "CREATE_COMPLETE"}
    shown: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        return True

    again = deployment.deploy(cloudformation, name, confirm=confirm)
    assert [part.action for part in shown[0].parts] == ["create", "none", "create", "create"]
    assert again.settings["s3_bucket_name"] == bucket
    assert s3.get_object(Bucket=bucket, Key="cirro/blobs/0")["Body"].read() == b"data"


def test_a_deployment_that_was_deleted_by_half_is_finished(client: Callable[[str], Any], name: str) -> None:
    """The stack that could not be deleted because of its data is deleted too, whatever was deleted before."""
    cloudformation, s3 = client("cloudformation"), client("s3")
    before = what_is_there(client)
    made = deployment.deploy(cloudformation, name)
    s3.put_object(Bucket=made.settings["s3_bucket_name"], Key="cirro/blobs/0", Body=b"data")
    for part in ("compute", "storage"):
        cloudformation.delete_stack(StackName=f"{name}-{part}")
    assert stack_status(client, name)["storage"] == "DELETE_FAILED"
    with pytest.raises(StackError, match=f"storage' is DELETE_FAILED .* `cirro destroy --stack-name {name}`"):
        deployment.deploy(cloudformation, name)
    assert destroy(client, name) == Proof((), ())
    assert what_is_there(client) == before


def test_jobs_are_stopped_and_definitions_of_executors_go(client: Callable[[str], Any], name: str) -> None:
    """Running and waiting jobs, in bulk; only those definitions that an executor registered for these roles."""
    made = deployment.deploy(client("cloudformation"), name)
    batch = client("batch")
    role = client("iam").get_role(RoleName=made.settings["batch_job_role_name"])["Role"]["Arn"]
    tags = {"cirro:made-by": "covalent-cirro"}

    def register(definition: str, role_arn: str, tags: dict[str, str]) -> str:
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]
        container = {
            "image": "image",
            "command": ["sleep", "600"],
            "jobRoleArn": role_arn,
            "resourceRequirements": needs,
        }
        registered = batch.register_job_definition(
            jobDefinitionName=definition, type="container", containerProperties=container, tags=tags
        )
        return str(registered["jobDefinitionArn"])

    ours = register(f"cirro-{name}", role, tags)
    others = [
        register(f"cirro-{name}-by-hand", role, {}),
        register(f"mine-{name}", role, tags),
        register(f"cirro-{name}-of-another", "arn:aws:iam::123456789012:role/cirro-other-roles-JobRole-1", tags),
    ]
    queue = made.settings["batch_queue"]
    submitted = [batch.submit_job(jobName=f"job-{n}", jobQueue=queue, jobDefinition=ours)["jobId"] for n in range(3)]
    found = holdings.survey(client, name)
    assert sorted(job.job_id for job in found.jobs) == sorted(submitted)
    assert found.definitions == (ours,)
    assert destroy(client, name) == Proof((), ())
    active = batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    left = {each["jobDefinitionArn"] for each in active if name in each["jobDefinitionArn"]}
    assert left == set(others)
    ended = batch.describe_jobs(jobs=submitted)["jobs"]
    assert all(each["status"] == "FAILED" for each in ended)


def test_a_job_that_aws_did_not_terminate_is_asked_for_again(
    emulator: Emulator, client: Callable[[str], Any], name: str
) -> None:
    """Its error stands in the midst of an answer that is well; else it would run on while its bucket is emptied."""
    queue = deployment.deploy(client("cloudformation"), name).settings["batch_queue"]
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]
    definition = client("batch").register_job_definition(
        jobDefinitionName=f"by-hand-{name}",
        type="container",
        containerProperties={"image": "image", "command": ["sleep", "600"], "resourceRequirements": needs},
    )["jobDefinitionArn"]
    # It waits for a host all the time: nothing but a call can end it.
    emulator.faults.add("stuck", job=f"ill-{name}")
    emulator.faults.add("bulk_error", job=f"ill-{name}", count=1)
    job = client("batch").submit_job(jobName=f"ill-{name}", jobQueue=queue, jobDefinition=definition)["jobId"]
    said: list[str] = []
    teardown.destroy(client, holdings.survey(client, name), say=said.append, sleep=lambda seconds: None)
    emulator.faults.clear()
    assert f"1 of 1 jobs could not be terminated yet: job {job}: ThrottlingException: Rate exceeded" in said
    [ended] = client("batch").describe_jobs(jobs=[job])["jobs"]
    assert (ended["statusReason"], said.count("terminating 1 jobs")) == (teardown.REASON, 2)


def test_what_is_left_is_named(client: Callable[[str], Any], name: str) -> None:
    """A thing with the deployment's tag that no stack knows: here a bucket that an update left behind."""
    s3 = client("s3")
    deployment.deploy(client("cloudformation"), name)
    s3.create_bucket(Bucket=f"{name}-left")
    s3.put_bucket_tagging(Bucket=f"{name}-left", Tagging={"TagSet": [{"Key": "covalent-cirro", "Value": name}]})
    found = holdings.survey(client, name)
    time = iter(range(0, 10_000, 10))
    proof = teardown.destroy(client, found, sleep=lambda seconds: None, clock=lambda: float(next(time)))
    assert proof == Proof((f"arn:aws:s3:::{name}-left",), ())
    s3.delete_bucket(Bucket=f"{name}-left")


def test_two_deployments_in_one_account(client: Callable[[str], Any], name: str) -> None:
    """They share nothing, and the end of one does not touch the other."""
    cloudformation = client("cloudformation")
    other = f"{name}-other"
    try:
        first, second = (deployment.deploy(cloudformation, each).settings for each in (name, other))
        shared = {key for key in first if first[key] == second[key]}
        assert shared == {"s3_prefix", "region", "cpu_architecture"}
    finally:
        assert destroy(client, other) == Proof((), ())
    assert deployment.deploy(cloudformation, name).changed is False


def test_a_stack_of_others_is_left_alone(client: Callable[[str], Any], name: str) -> None:
    """An update would delete what is in it; neither deploy nor destroy touches it, or anything beside it."""
    cloudformation = client("cloudformation")
    body = "Description: The payroll\nResources: {Topic: {Type: 'AWS::SQS::Queue'}}"
    cloudformation.create_stack(StackName=f"{name}-storage", TemplateBody=body)
    try:
        with pytest.raises(StackError, match="not one of covalent-cirro"):
            deployment.deploy(cloudformation, name)
        with pytest.raises(StackError, match="not one of covalent-cirro"):
            holdings.survey(client, name)
        assert stack_status(client, name) == {"storage": "CREATE_COMPLETE"}
    finally:
        cloudformation.delete_stack(StackName=f"{name}-storage")
