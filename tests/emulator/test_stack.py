"""The templates of ``infra/`` on the emulated AWS, each in each of its modes: made, changed in place, and deleted.

They are deployed here one by one, as by hand: an output of one is the parameter of the same name of a later one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro import settings
from covalent_cirro.deployment import stacks
from covalent_cirro.local.emulator import Emulator
from tests.emulator.deployments import ACCOUNT, BUDGET, PARTS, Account, Deployment

_names = (f"team-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One emulated AWS for all tests here; each makes a deployment of its own name in it."""
    with Emulator(state_dir=tmp_path_factory.mktemp("emulator")) as running:
        yield Account(running)


@pytest.fixture
def here(account: Account) -> Iterator[Deployment]:
    """A deployment, of which nothing is left when the test is over."""
    before = account.inventory()
    deployment = Deployment(account, next(_names))
    yield deployment
    deployment.delete()
    assert account.inventory() == before


@pytest.fixture(scope="module")
def ready(account: Account) -> Iterator[Deployment]:
    """A deployment with all defaults, to look at."""
    deployment = Deployment(account, next(_names))
    assert set(deployment.deploy().values()) == {"CREATE_COMPLETE"}
    yield deployment
    deployment.delete()


# --- all of it ---------------------------------------------------------------------------------------------------


def test_outputs_are_settings_that_the_executor_takes(ready: Deployment) -> None:
    """Every one of them, and every listed output that is none."""
    fed = {stacks.output_key(setting) for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS)}
    by_parameter = {stacks.output_key(setting) for setting in stacks.BY_PARAMETER}
    assert set(ready.outputs) == (fed | stacks.NOT_SETTINGS) - by_parameter
    assert all(ready.outputs.values())
    settings.check(stacks.settings_from_outputs(ready.outputs))


def test_names_in_outputs_are_of_things_that_exist(ready: Deployment) -> None:
    """Bucket, roles, log group, repository and policy are found by what the outputs say."""
    outputs = ready.outputs
    ready.client("s3").head_bucket(Bucket=outputs["S3BucketName"])
    for role in ("BatchJobRoleName", "BatchExecutionRoleName"):
        ready.client("iam").get_role(RoleName=outputs[role])
    ready.client("iam").get_policy(PolicyArn=outputs["SubmitterPolicy"])
    [group] = ready.client("logs").describe_log_groups(logGroupNamePrefix=outputs["BatchJobLogGroupName"])["logGroups"]
    assert group["retentionInDays"] == 30
    repository = outputs["ImageRepository"].split("/", 1)[1]
    [found] = ready.client("ecr").describe_repositories(repositoryNames=[repository])["repositories"]
    assert found["repositoryArn"] == outputs["ImageRepositoryArn"]


def test_deploying_again_changes_nothing(ready: Deployment) -> None:
    """The same parameters and outputs, the same stacks."""
    assert set(ready.deploy().values()) == {"unchanged"}


def test_two_deployments_in_one_account(here: Deployment, account: Account) -> None:
    """They share nothing but the place, the default prefix, the architecture, and that neither has shared files."""
    other = Deployment(account, f"{here.name}-other")
    try:
        here.deploy()
        other.deploy()
        same = {key for key in here.outputs if here.outputs[key] == other.outputs[key]}
        assert same == {"S3Prefix", "Region", "CpuArchitecture", "FileSystemArn", "AccessPointArn"}
    finally:
        other.delete()


def test_what_costs_bears_the_deployments_tag(here: Deployment) -> None:
    """As the bill sees it: bucket, repository, logs, endpoints, and the launch template's instances and disks."""
    here.deploy(Subnets="private")
    tag = {"Key": "covalent-cirro", "Value": here.name}
    ec2, ecr, logs = (here.client(each) for each in ("ec2", "ecr", "logs"))
    assert tag in here.client("s3").get_bucket_tagging(Bucket=here.outputs["S3BucketName"])["TagSet"]
    assert tag in ecr.list_tags_for_resource(resourceArn=here.outputs["ImageRepositoryArn"])["tags"]
    group = here.outputs["BatchJobLogGroupName"]
    arn = f"arn:aws:logs:{here.outputs['Region']}:{ACCOUNT}:log-group:{group}"
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"]["covalent-cirro"] == here.name
    vpc = [{"Name": "vpc-id", "Values": [here.outputs["VpcId"]]}]
    for endpoint in ec2.describe_vpc_endpoints(Filters=vpc)["VpcEndpoints"]:
        assert tag in endpoint["Tags"] or endpoint["VpcEndpointType"] == "Gateway", endpoint["ServiceName"]
    [version] = ec2.describe_launch_template_versions(Versions=["$Latest"], LaunchTemplateId=launch_template(here))[
        "LaunchTemplateVersions"
    ]
    for specification in version["LaunchTemplateData"]["TagSpecifications"]:
        assert tag in specification["Tags"]


def launch_template(here: Deployment) -> str:
    """The one of the instances."""
    resource = here.cloudformation.describe_stack_resource(
        StackName=f"{here.name}-compute", LogicalResourceId="LaunchTemplate"
    )
    return str(resource["StackResourceDetail"]["PhysicalResourceId"])


# --- network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zones", [2, 3])
@pytest.mark.parametrize("subnets", ["public", "private"])
def test_a_network_of_either_kind(here: Deployment, subnets: str, zones: int) -> None:
    """Compute environments get its subnets; interface endpoints are there for the private one alone."""
    assert here.deploy(Subnets=subnets, Zones=zones)["network"] == "CREATE_COMPLETE"
    ec2 = here.client("ec2")
    vpc = [{"Name": "vpc-id", "Values": [here.outputs["VpcId"]]}]
    made = ec2.describe_subnets(Filters=vpc)["Subnets"]
    assert {each["SubnetId"] for each in made} == set(here.outputs["SubnetIds"].split(","))
    assert len({each["AvailabilityZone"] for each in made}) == zones
    assert {each["MapPublicIpOnLaunch"] for each in made} == {subnets == "public"}
    kinds = [each["VpcEndpointType"] for each in ec2.describe_vpc_endpoints(Filters=vpc)["VpcEndpoints"]]
    assert sorted(kinds) == ["Gateway"] + ["Interface"] * (6 if subnets == "private" else 0)
    for environment in here.environments(here.outputs["BatchQueue"]):
        assert environment["computeResources"]["subnets"] == here.outputs["SubnetIds"].split(",")
        assert environment["computeResources"]["securityGroupIds"] == [here.outputs["SecurityGroupIds"]]


@pytest.mark.parametrize(("first", "second"), [("public", "private"), ("private", "public")])
def test_a_network_changes_its_kind_in_place(here: Deployment, first: str, second: str) -> None:
    """VPC, subnets and group stay, so compute environments do not notice."""
    here.deploy(Subnets=first)
    before = dict(here.outputs)
    assert here.deploy_part("network", Subnets=second) == "UPDATE_COMPLETE"
    assert here.outputs == before
    routes = here.client("ec2").describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [before["VpcId"]]}])
    ways_out = [
        route
        for table in routes["RouteTables"]
        for route in table["Routes"]
        if route.get("DestinationCidrBlock") == "0.0.0.0/0"
    ]
    assert len(ways_out) == (1 if second == "public" else 0)


@pytest.mark.parametrize("with_route_tables", [False, True])
def test_an_existing_network_is_left_as_it_was(here: Deployment, account: Account, with_route_tables: bool) -> None:
    """A security group and, if asked for, a gateway to S3 come and go; compute environments stand in its subnets."""
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24")["Subnet"]["SubnetId"] for number in range(2)
    ]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    try:
        before = account.inventory()
        more = {"ExistingRouteTableIds": table} if with_route_tables else {}
        here.deploy(ExistingVpcId=vpc, ExistingSubnetIds=",".join(subnets), **more)
        assert (here.outputs["VpcId"], here.outputs["SubnetIds"].split(",")) == (vpc, subnets)
        during = account.inventory()
        assert during["subnets"] == before["subnets"]
        assert len(during["groups"] - before["groups"]) == 1
        assert len(during["endpoints"] - before["endpoints"]) == int(with_route_tables)
        for environment in here.environments(here.outputs["BatchQueue"]):
            assert environment["computeResources"]["subnets"] == subnets
        here.delete()
        assert account.inventory() == before
    finally:
        here.delete()
        ec2.delete_route_table(RouteTableId=table)
        for subnet in subnets:
            ec2.delete_subnet(SubnetId=subnet)
        ec2.delete_vpc(VpcId=vpc)


# --- storage and roles -------------------------------------------------------------------------------------------


def test_storage_changes_in_place(here: Deployment) -> None:
    """Bucket, repository and log group keep their names, and what is in them."""
    here.deploy()
    before = dict(here.outputs)
    changed = here.deploy_part("storage", ExpireAfterDays=60, LogRetentionDays=7, KeepImages=3)
    assert (changed, here.outputs) == ("UPDATE_COMPLETE", before)
    rules = here.client("s3").get_bucket_lifecycle_configuration(Bucket=before["S3BucketName"])["Rules"]
    assert {rule["Expiration"]["Days"] for rule in rules if "Expiration" in rule} == {60}
    [group] = here.client("logs").describe_log_groups(logGroupNamePrefix=before["BatchJobLogGroupName"])["logGroups"]
    assert group["retentionInDays"] == 7


def test_roles_change_in_place(here: Deployment) -> None:
    """They keep their names, so jobs under way keep their role."""
    here.deploy()
    before = dict(here.outputs)
    statement = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    mine = here.client("iam").create_policy(PolicyName=here.name, PolicyDocument=document)["Policy"]["Arn"]
    try:
        assert here.deploy_part("roles", S3Prefix="other", JobRolePolicyArns=mine) == "UPDATE_COMPLETE"
        iam, role = here.client("iam"), before["BatchJobRoleName"]
        assert here.outputs == before
        assert [each["PolicyArn"] for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]] == [
            mine
        ]
        inline = iam.get_role_policy(RoleName=role, PolicyName="electron")["PolicyDocument"]
        assert f"arn:aws:s3:::{before['S3BucketName']}/other/*" in str(inline)
        assert here.deploy_part("roles") == "UPDATE_COMPLETE"
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    finally:
        here.client("iam").delete_policy(PolicyArn=mine)


def test_a_bucket_with_data_stays(here: Deployment) -> None:
    """Deleting a stack by mistake loses no data."""
    here.deploy()
    bucket, s3 = here.outputs["S3BucketName"], here.client("s3")
    s3.put_object(Bucket=bucket, Key="cirro/blobs/0", Body=b"data")
    with pytest.raises(AssertionError, match=r"Bucket: .*BucketNotEmpty"):
        here.delete()
    assert s3.get_object(Bucket=bucket, Key="cirro/blobs/0")["Body"].read() == b"data"
    s3.delete_object(Bucket=bucket, Key="cirro/blobs/0")


# --- compute -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["BatchQueue", "BatchGpuQueue"])
def test_queues_are_ready_spot_first(ready: Deployment, output: str) -> None:
    """Queue and compute environments are VALID and ENABLED: a job can be submitted at once."""
    [found] = ready.client("batch").describe_job_queues(jobQueues=[ready.outputs[output]])["jobQueues"]
    assert (found["state"], found["status"]) == ("ENABLED", "VALID")
    environments = ready.environments(ready.outputs[output])
    assert [item["computeResources"]["type"] for item in environments] == ["SPOT", "EC2"]
    assert {(item["state"], item["status"]) for item in environments} == {("ENABLED", "VALID")}
    assert {item["computeResources"]["minvCpus"] for item in environments} == {0}


def test_on_demand_queues_are_on_demand(ready: Deployment) -> None:
    """For electrons that must not be interrupted."""
    for output in ("BatchOnDemandQueue", "BatchGpuOnDemandQueue"):
        [environment] = ready.environments(ready.outputs[output])
        assert environment["computeResources"]["type"] == "EC2"


def test_compute_environments_change_in_place(here: Deployment) -> None:
    """Maxima, types and disk: their ARNs stay, and they follow the launch template's new version."""
    here.deploy(CpuSpotMaxVcpus=12)
    outputs = dict(here.outputs)
    before = here.environments(outputs["BatchQueue"])
    changed = here.deploy_part("compute", CpuSpotMaxVcpus=24, CpuInstanceTypes="c7i,m7i", DiskSizeGib=200)
    assert (changed, here.outputs) == ("UPDATE_COMPLETE", outputs)
    after = here.environments(outputs["BatchQueue"])
    assert [each["computeEnvironmentArn"] for each in after] == [each["computeEnvironmentArn"] for each in before]
    first = [each[0]["computeResources"] for each in (before, after)]
    assert [each["maxvCpus"] for each in first] == [12, 24]
    assert first[1]["instanceTypes"] == ["c7i", "m7i"]
    assert [each["launchTemplate"]["version"] for each in first] == ["1", "2"]


def test_gpus_come_and_go(here: Deployment) -> None:
    """Without any there is no queue, no compute environment, no setting."""
    here.deploy(GpuSpotMaxVcpus=0, GpuOnDemandMaxVcpus=0)
    assert not {"BatchGpuQueue", "BatchGpuOnDemandQueue"} & set(here.outputs)
    assert here.deploy_part("compute", GpuSpotMaxVcpus=0, GpuOnDemandMaxVcpus=8) == "UPDATE_COMPLETE"
    [environment] = here.environments(here.outputs["BatchGpuQueue"])
    assert environment["computeResources"]["type"] == "EC2"
    assert here.deploy_part("compute", GpuSpotMaxVcpus=0, GpuOnDemandMaxVcpus=0) == "UPDATE_COMPLETE"
    names = {each["jobQueueName"] for each in here.client("batch").describe_job_queues()["jobQueues"]}
    assert f"{here.name}-gpu" not in names


def test_fair_shares_come_and_go(here: Deployment) -> None:
    """Queues are replaced either way; the scheduling policy, which the fair ones used until then, goes after them."""
    here.deploy()
    assert here.deploy_part("compute", FairShare="true") == "UPDATE_COMPLETE"
    assert here.client("batch").list_scheduling_policies()["schedulingPolicies"]
    assert here.deploy_part("compute", FairShare="false") == "UPDATE_COMPLETE"
    assert here.client("batch").list_scheduling_policies()["schedulingPolicies"] == []
    names = {each["jobQueueName"] for each in here.client("batch").describe_job_queues()["jobQueues"]}
    assert {f"{here.name}-cpu"} <= names
    assert not [name for name in names if name.startswith(f"{here.name}-") and name.endswith("-fair")]


def test_a_queue_for_several_machines_comes_and_goes(here: Deployment, account: Account) -> None:
    """With its placement group and its security group, whose members reach one another; without it nothing is left."""
    here.deploy()
    before = account.inventory()
    assert here.deploy_part("compute", MultiNodeMaxVcpus=16, MultiNodeInstanceTypes="c7i") == "UPDATE_COMPLETE"
    [environment] = here.environments(here.outputs["BatchMultiNodeQueue"])
    resources = environment["computeResources"]
    assert (resources["type"], resources["instanceTypes"], len(resources["subnets"])) == ("EC2", ["c7i"], 1)
    assert "MultiNodePlacementGroup" in resources["placementGroup"]
    groups = here.client("ec2").describe_placement_groups(GroupNames=[resources["placementGroup"]])["PlacementGroups"]
    assert [each["Strategy"] for each in groups] == ["cluster"]
    own = [each for each in resources["securityGroupIds"] if each not in here.outputs["SecurityGroupIds"]]
    [group] = here.client("ec2").describe_security_groups(GroupIds=own)["SecurityGroups"]
    [rule] = group["IpPermissions"]
    assert (rule["IpProtocol"], [each["GroupId"] for each in rule["UserIdGroupPairs"]]) == ("-1", own)
    assert here.deploy_part("compute", MultiNodeMaxVcpus=0) == "UPDATE_COMPLETE"
    assert here.client("ec2").describe_placement_groups()["PlacementGroups"] == []
    assert account.inventory()["groups"] == before["groups"]
    assert account.inventory()["queues"] == before["queues"]


def test_without_spot_the_queues_are_there_all_the_same(here: Deployment) -> None:
    """On on-demand instances."""
    here.deploy(CpuSpotMaxVcpus=0, GpuSpotMaxVcpus=0)
    for output in ("BatchQueue", "BatchGpuQueue"):
        [environment] = here.environments(here.outputs[output])
        assert environment["computeResources"]["type"] == "EC2"


def test_a_limit_for_stuck_jobs_comes_and_goes(here: Deployment) -> None:
    """On every queue; without it none is left behind."""
    here.deploy()
    names = ("BatchQueue", "BatchGpuQueue", "BatchOnDemandQueue", "BatchGpuOnDemandQueue")
    queues = [here.outputs[each] for each in names]

    def limits() -> list[set[int]]:
        found = here.client("batch").describe_job_queues(jobQueues=queues)["jobQueues"]
        return [{action["maxTimeSeconds"] for action in queue["jobStateTimeLimitActions"]} for queue in found]

    assert limits() == [set()] * 4
    assert here.deploy_part("compute", RunnableTimeLimitMinutes=30) == "UPDATE_COMPLETE"
    assert limits() == [{1800}] * 4
    assert here.deploy_part("compute") == "UPDATE_COMPLETE"
    assert limits() == [set()] * 4


def test_a_budget_comes_changes_and_goes(here: Deployment, account: Account) -> None:
    """It counts what bears this deployment's tag, and nothing else depends on it."""
    before = account.inventory()["budgets"]
    given = {"MonthlyBudgetUsd": 50, "BudgetEmail": "somebody@example.org"}
    assert here.deploy_part(BUDGET, **given) == "CREATE_COMPLETE"
    [name] = account.inventory()["budgets"] - before
    for usd in (50, 75):
        here.deploy_part(BUDGET, **{**given, "MonthlyBudgetUsd": usd})
        found = here.client("budgets").describe_budget(AccountId=ACCOUNT, BudgetName=name)["Budget"]
        assert float(found["BudgetLimit"]["Amount"]) == usd
        assert found["CostFilters"] == {"TagKeyValue": [f"user:covalent-cirro${here.name}"]}
    here.delete()
    assert account.inventory()["budgets"] == before


# --- what cannot work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "parameters", "words"),
    [
        ("network", {"Zones": 4}, "Zones"),
        ("network", {"ExistingVpcId": "vpc-01234567"}, "without ExistingSubnetIds"),
        ("network", {"ExistingSubnetIds": "subnet-01234567"}, "without the ExistingVpcId"),
        ("storage", {"S3Prefix": "/cirro"}, "S3Prefix"),
        ("compute", {"CpuSpotMaxVcpus": 0, "CpuOnDemandMaxVcpus": 0}, "no machine to run on"),
        ("compute", {"GpuInstanceTypes": "g5,p3"}, "GpuInstanceTypes"),
        ("compute", {"DiskSizeGib": 8}, "DiskSizeGib"),
        (BUDGET, {"MonthlyBudgetUsd": 50}, "are given only together"),
        ("compute", {"RunnableTimeLimitMinutes": 5}, "RunnableTimeLimitMinutes"),
    ],
)
def test_parameters_that_cannot_work_are_refused(
    here: Deployment, part: str, parameters: dict[str, Any], words: str
) -> None:
    """With the name of the parameter, or the words of the rule, and before anything is made."""
    here.outputs = {
        "VpcId": "vpc-01234567",
        "SubnetIds": "subnet-01234567",
        "SecurityGroupIds": "sg-01234567",
        "InstanceProfileArn": f"arn:aws:iam::{ACCOUNT}:instance-profile/x",
    }
    with pytest.raises(ClientError, match=words):
        here.deploy_part(part, **parameters)
    assert not here.exists(part)


@pytest.mark.parametrize(
    ("part", "parameters", "resource", "words"),
    [
        (
            "network",
            {"ExistingVpcId": "vpc-01234567", "ExistingSubnetIds": "subnet-01234567"},
            "SecurityGroup",
            "vpc-0",
        ),
        ("roles", {"JobRolePolicyArns": "arn:aws:iam::123456789012:policy/none"}, "JobRole", "policy/none"),
        ("compute", {"CpuInstanceTypes": "zz9"}, "CpuSpotEnvironment", "zz9"),
    ],
)
def test_a_failed_creation_leaves_nothing(
    here: Deployment, account: Account, part: str, parameters: dict[str, Any], resource: str, words: str
) -> None:
    """And says which resource failed, and why."""
    for earlier in PARTS[: PARTS.index(part)]:
        here.deploy_part(earlier)
    before = account.inventory()
    assert here.deploy_part(part, **parameters) == "ROLLBACK_COMPLETE"
    failure = here.failures(part)[0]
    assert failure.startswith(f"{resource}: ")
    assert words in failure
    assert account.inventory() == before


def test_a_failed_update_changes_nothing(here: Deployment, account: Account) -> None:
    """The limit and the launch template's new version of the same update go back too."""
    here.deploy()
    before, environments = account.inventory(), here.environments(here.outputs["BatchQueue"])
    status = here.deploy_part(
        "compute",
        DiskSizeGib=500,
        RunnableTimeLimitMinutes=10,
        GpuInstanceTypes="g5.nonsense",
    )
    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert account.inventory() == before
    after = here.environments(here.outputs["BatchQueue"])
    for each in (*environments, *after):
        each["computeResources"].pop("launchTemplate")  # EC2 keeps versions: going back is one more
    assert [each["computeResources"] for each in after] == [each["computeResources"] for each in environments]
    [queue] = here.client("batch").describe_job_queues(jobQueues=[here.outputs["BatchQueue"]])["jobQueues"]
    assert queue["jobStateTimeLimitActions"] == []
