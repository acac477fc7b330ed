"""``infra/compute.yaml``: facts about AWS Batch and EC2 that no linter knows."""

from __future__ import annotations

import itertools

import pytest

from covalent_cirro.deployment import running_jobs, templates
from covalent_cirro.jobs import machines
from tests.unit.template_facts import TEMPLATES

COMPUTE = TEMPLATES["compute"]
ENVIRONMENTS = ["CpuSpotEnvironment", "CpuOnDemandEnvironment", "GpuSpotEnvironment", "GpuOnDemandEnvironment"]
FARGATE = ["FargateSpotEnvironment", "FargateEnvironment"]
MULTI_NODE = "MultiNodeEnvironment"
QUEUES = ["CpuQueue", "CpuOnDemandQueue", "GpuQueue", "GpuOnDemandQueue", "FargateQueue", "MultiNodeQueue"]
ALL = {"FargateMaxVcpus": 8, "MultiNodeMaxVcpus": 8}
"""Values with which every queue is made."""


# --- compute environments ----------------------------------------------------------------------------------------


def test_the_compute_environments() -> None:
    """CPU, GPU and Fargate, each on Spot and on demand; and one for jobs on several machines."""
    assert sorted(COMPUTE.of_type("AWS::Batch::ComputeEnvironment")) == sorted([*ENVIRONMENTS, *FARGATE, MULTI_NODE])


@pytest.mark.parametrize(
    ("name", "kind", "most"),
    [
        ("FargateSpotEnvironment", "FARGATE_SPOT", "FargateSpotMaxVcpus"),
        ("FargateEnvironment", "FARGATE", "FargateMaxVcpus"),
    ],
)
def test_compute_environment_of_fargate_has_what_fargate_takes(name: str, kind: str, most: str) -> None:
    """No instances, no allocation strategy, no least vCPUs, no tags: AWS Batch refuses each of them."""
    assert COMPUTE.properties(name) == {
        "Type": "MANAGED",
        "State": "ENABLED",
        "ComputeResources": {
            "Type": kind,
            "MaxvCpus": {"Ref": most},
            "SecurityGroupIds": {"Ref": "SecurityGroupIds"},
            "Subnets": {"Ref": "SubnetIds"},
        },
    }


@pytest.mark.parametrize(("spot", "on_demand"), [(0, 0), (8, 0), (0, 8), (8, 8)])
def test_a_queue_for_fargate_is_made_where_it_may_have_vcpus(spot: int, on_demand: int) -> None:
    """None by default; Spot first where there is both."""
    stack = COMPUTE.with_values(FargateSpotMaxVcpus=spot, FargateMaxVcpus=on_demand)
    queues = stack.of_type("AWS::Batch::JobQueue")
    assert ("BatchFargateQueue" in stack.outputs) is ("FargateQueue" in queues) is bool(spot or on_demand)
    if "FargateQueue" in queues:
        behind = [each["ComputeEnvironment"]["Ref"] for each in queues["FargateQueue"]["ComputeEnvironmentOrder"]]
        assert behind == [name for name, most in zip(FARGATE, (spot, on_demand), strict=True) if most]
    assert stack.references() <= set(stack.resources)


@pytest.mark.parametrize(
    ("architecture", "given", "types"),
    [
        ("x86_64", "default", ["default_x86_64"]),
        ("arm64", "default", ["default_arm64"]),
        ("arm64", "c7g,m7g.large", "c7g,m7g.large"),
    ],
)
def test_instances_are_of_the_architecture(architecture: str, given: str, types: object) -> None:
    """By default AWS's choice of current families of it."""
    stack = COMPUTE.with_values(CpuArchitecture=architecture, CpuInstanceTypes=given)
    assert stack.resources["CpuSpotEnvironment"]["ComputeResources"]["InstanceTypes"] == types
    assert stack.broken_rules() == []


@pytest.mark.parametrize(("architecture", "given"), [("arm64", "default_x86_64"), ("x86_64", "c7i,default_arm64")])
def test_a_bundle_of_another_architecture_is_refused(architecture: str, given: str) -> None:
    """By CloudFormation itself, for those who deploy by hand."""
    [words] = COMPUTE.with_values(CpuArchitecture=architecture, CpuInstanceTypes=given).broken_rules()
    assert f"CpuArchitecture {architecture}" in words


@pytest.mark.parametrize("name", [*ENVIRONMENTS, MULTI_NODE])
def test_compute_environment_is_changed_in_place(name: str) -> None:
    """AWS Batch updates it in place only without ServiceRole and BEST_FIT (the default); a name forbids replacement.

    CloudFormation replaces it instead unless ReplaceComputeEnvironment is false from the first deployment on.
    """
    found = COMPUTE.properties(name)
    assert found["ReplaceComputeEnvironment"] is False
    assert not {"ServiceRole", "ComputeEnvironmentName", "Tags"} & set(found)
    assert found["ComputeResources"]["AllocationStrategy"] != "BEST_FIT"
    assert found["UpdatePolicy"] == {
        "TerminateJobsOnUpdate": False,
        "JobExecutionTimeoutMinutes": {"Ref": "JobExecutionTimeoutMinutes"},
    }


def test_jobs_may_not_outlast_what_cloudformation_waits() -> None:
    """Two hours for a resource: after that the update fails, and its rollback too."""
    assert COMPUTE.parameters["JobExecutionTimeoutMinutes"]["MaxValue"] < 60 * running_jobs.CLOUDFORMATION_HOURS


@pytest.mark.parametrize(
    ("name", "kind", "strategy"),
    [
        ("CpuSpotEnvironment", "SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED"),
        ("CpuOnDemandEnvironment", "EC2", "BEST_FIT_PROGRESSIVE"),
        ("GpuSpotEnvironment", "SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED"),
        ("GpuOnDemandEnvironment", "EC2", "BEST_FIT_PROGRESSIVE"),
        ("MultiNodeEnvironment", "EC2", "BEST_FIT_PROGRESSIVE"),
    ],
)
def test_compute_environment_buys_as_its_name_says(name: str, kind: str, strategy: str) -> None:
    """The strategy is explicit and of its kind; Spot needs no fleet role and no bid then."""
    resources = COMPUTE.properties(name)["ComputeResources"]
    assert (resources["Type"], resources["AllocationStrategy"]) == (kind, strategy)
    assert not {"SpotIamFleetRole", "BidPercentage"} & set(resources)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_scales_to_zero(name: str) -> None:
    """No instance stays without jobs, up to the parameter; DesiredvCpus is AWS Batch's own."""
    resources = COMPUTE.properties(name)["ComputeResources"]
    assert resources["MinvCpus"] == 0
    assert resources["MaxvCpus"] == {"Ref": name.replace("Environment", "MaxVcpus")}
    assert "DesiredvCpus" not in resources


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_has_the_image_of_its_kind(name: str) -> None:
    """AL2023 (AWS Batch makes no new environment with AL2), with NVIDIA's driver for GPU instances and only them."""
    resources = COMPUTE.properties(name)["ComputeResources"]
    gpu = name.startswith("Gpu")
    assert resources["Ec2Configuration"] == [{"ImageType": "ECS_AL2023_NVIDIA" if gpu else "ECS_AL2023"}]
    types = resources["InstanceTypes"]
    assert types == {"Ref": "GpuInstanceTypes"} if gpu else types["Fn::If"][2] == {"Ref": "CpuInstanceTypes"}
    assert resources["UpdateToLatestImageVersion"] is True


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_follows_its_launch_template(name: str) -> None:
    """``$Latest`` would be looked at only when something else changes too."""
    assert COMPUTE.properties(name)["ComputeResources"]["LaunchTemplate"] == {
        "LaunchTemplateId": {"Ref": "LaunchTemplate"},
        "Version": {"Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]},
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_stands_on_the_other_stacks(name: str) -> None:
    """Its profile, subnets and groups come from there and outlive it: without the profile it would hang in DELETING."""
    resources = COMPUTE.properties(name)["ComputeResources"]
    assert resources["InstanceRole"] == {"Ref": "InstanceProfileArn"}
    assert resources["Subnets"] == {"Ref": "SubnetIds"}
    assert resources["SecurityGroupIds"] == {"Ref": "SecurityGroupIds"}


# --- several machines for one job --------------------------------------------------------------------------------


def test_nothing_is_made_for_several_machines_by_default() -> None:
    """And with it all that it needs."""
    added = COMPUTE.with_values(MultiNodeMaxVcpus=8).resources.keys() - COMPUTE.with_values().resources.keys()
    assert added == {
        MULTI_NODE,
        *(f"MultiNode{each}" for each in ("SecurityGroup", "Ingress", "PlacementGroup", "Queue")),
    }


def test_nodes_are_near_one_another() -> None:
    """A cluster placement group, which is in one zone; so there is one subnet."""
    resources = COMPUTE.properties(MULTI_NODE)["ComputeResources"]
    assert resources["PlacementGroup"] == {"Ref": "MultiNodePlacementGroup"}
    assert COMPUTE.properties("MultiNodePlacementGroup")["Strategy"] == "cluster"
    assert resources["Subnets"] == [{"Fn::Select": [0, {"Ref": "SubnetIds"}]}]


def test_nodes_reach_one_another_and_nobody_else_reaches_them() -> None:
    """By a group of their own beside the deployment's; instances of other jobs do not have it."""
    ingress = COMPUTE.properties("MultiNodeIngress")
    assert ingress["GroupId"] == ingress["SourceSecurityGroupId"] == {"Ref": "MultiNodeSecurityGroup"}
    assert "SecurityGroupIngress" not in COMPUTE.properties("MultiNodeSecurityGroup")
    values = templates.load("compute")["Resources"][MULTI_NODE]["Properties"]["ComputeResources"]["SecurityGroupIds"]
    assert values == {
        "Fn::Split": [
            ",",
            {"Fn::Join": [",", [{"Fn::Join": [",", {"Ref": "SecurityGroupIds"}]}, {"Ref": "MultiNodeSecurityGroup"}]]},
        ]
    }
    others = [COMPUTE.properties(name)["ComputeResources"]["SecurityGroupIds"] for name in ENVIRONMENTS]
    assert others == [{"Ref": "SecurityGroupIds"}] * 4


def test_nodes_may_have_gpus_or_none() -> None:
    """AWS Batch takes the image of an instance's kind; burstable ones cannot be in the placement group."""
    resources = COMPUTE.properties(MULTI_NODE)["ComputeResources"]
    assert resources["Ec2Configuration"] == [{"ImageType": "ECS_AL2023"}, {"ImageType": "ECS_AL2023_NVIDIA"}]
    assert resources["InstanceTypes"] == {"Ref": "MultiNodeInstanceTypes"}
    declared = COMPUTE.parameters["MultiNodeInstanceTypes"]
    for value, possible in (("c7i,g5.xlarge", True), ("default_x86_64", True), ("t3.large", False), ("m7i,t3", False)):
        assert templates.is_possible(declared, value) is possible


# --- queues ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Cpu", "Gpu"])
def test_queue_tries_spot_first(kind: str) -> None:
    """On-demand instances are for what Spot has no room for."""
    assert COMPUTE.with_values().resources[f"{kind}Queue"]["ComputeEnvironmentOrder"] == [
        {"Order": 1, "ComputeEnvironment": {"Ref": f"{kind}SpotEnvironment"}},
        {"Order": 2, "ComputeEnvironment": {"Ref": f"{kind}OnDemandEnvironment"}},
    ]


@pytest.mark.parametrize("kind", ["Cpu", "Gpu"])
def test_on_demand_queue_has_no_spot(kind: str) -> None:
    """For electrons that must not be interrupted."""
    assert COMPUTE.with_values().resources[f"{kind}OnDemandQueue"]["ComputeEnvironmentOrder"] == [
        {"Order": 1, "ComputeEnvironment": {"Ref": f"{kind}OnDemandEnvironment"}}
    ]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("CpuQueue", "cpu"),
        ("CpuOnDemandQueue", "cpu-on-demand"),
        ("GpuQueue", "gpu"),
        ("GpuOnDemandQueue", "gpu-on-demand"),
        ("FargateQueue", "fargate"),
        ("MultiNodeQueue", "multi-node"),
    ],
)
def test_queue_is_named_after_the_deployment(name: str, suffix: str) -> None:
    """The submitter's policy reaches it by this name, which AWS Batch has to take."""
    assert COMPUTE.with_values(**ALL).resources[name]["JobQueueName"] == f"cirro-{suffix}"
    assert COMPUTE.parameters["DeploymentName"]["MaxLength"] + len(f"-{suffix}-fair") <= 128


def test_queue_takes_any_job() -> None:
    """A scheduling policy would demand a share identifier of each."""
    for name, queue in COMPUTE.of_type("AWS::Batch::JobQueue").items():
        assert queue["Properties"]["State"] == "ENABLED"
        assert "SchedulingPolicyArn" not in COMPUTE.with_values(**ALL).resources[name]


@pytest.mark.parametrize("name", QUEUES)
def test_a_fair_queue_is_another_queue(name: str) -> None:
    """AWS Batch adds a scheduling policy to no queue: by another name CloudFormation makes a new one."""
    plain, fair = (COMPUTE.with_values(**ALL, FairShare=on).resources[name] for on in ("false", "true"))
    assert fair["SchedulingPolicyArn"] == {"Ref": "SchedulingPolicy"}
    assert fair["JobQueueName"] == plain["JobQueueName"] + "-fair"


@pytest.mark.parametrize("name", QUEUES)
def test_queue_cancels_no_job_by_default(name: str) -> None:
    """A job that waits is the user's. The list is there and empty: leaving it out would keep what was there before."""
    assert COMPUTE.with_values(**ALL).resources[name]["JobStateTimeLimitActions"] == []


@pytest.mark.parametrize("name", QUEUES)
@pytest.mark.parametrize("minutes", COMPUTE.parameters["RunnableTimeLimitMinutes"]["AllowedValues"][1:])
def test_time_limit_is_one_that_aws_batch_takes(name: str, minutes: str) -> None:
    """CANCEL is all a queue of instances can do, from 10 minutes to a day, for reasons in AWS's own words."""
    actions = COMPUTE.with_values(**ALL, RunnableTimeLimitMinutes=minutes).resources[name]["JobStateTimeLimitActions"]
    assert [action["Reason"] for action in actions] == [
        "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
        "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
    ]
    for action in actions:
        assert (action["State"], action["Action"]) == ("RUNNABLE", "CANCEL")
        assert action["MaxTimeSeconds"] == int(minutes) * 60
        assert 600 <= action["MaxTimeSeconds"] <= 86_400


def test_tags_on_batch_resources_are_maps() -> None:
    """Elsewhere CloudFormation wants lists; cfn-lint has let lists pass here before."""
    for resource in COMPUTE.resources.values():
        if resource["Type"].startswith("AWS::Batch::"):
            assert isinstance(resource["Properties"].get("Tags", {}), dict)


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spot", "on_demand", "fits"), [(0, 0, False), (0, 8, True), (8, 0, True), (8, 8, True)])
def test_a_deployment_without_cpu_machines_is_refused(spot: int, on_demand: int, fits: bool) -> None:
    """Before anything is made: a job queue without a compute environment is refused by AWS only half way through."""
    broken = COMPUTE.with_values(CpuSpotMaxVcpus=spot, CpuOnDemandMaxVcpus=on_demand).broken_rules()
    assert ("no machine to run on" in " ".join(broken)) is not fits


@pytest.mark.parametrize(
    ("cpu_spot", "cpu_on_demand", "gpu_spot", "gpu_on_demand"),
    [case for case in itertools.product((0, 8), (0, 8), (0, 8), (0, 8)) if case[0] or case[1]],
)
def test_no_choice_of_machines_leaves_a_dangling_reference(
    cpu_spot: int, cpu_on_demand: int, gpu_spot: int, gpu_on_demand: int
) -> None:
    """Whatever is left out, nothing that stays refers to it, and every queue has a compute environment."""
    stack = COMPUTE.with_values(
        CpuSpotMaxVcpus=cpu_spot,
        CpuOnDemandMaxVcpus=cpu_on_demand,
        GpuSpotMaxVcpus=gpu_spot,
        GpuOnDemandMaxVcpus=gpu_on_demand,
    )
    assert stack.references() <= set(stack.resources)
    assert all(queue["ComputeEnvironmentOrder"] for queue in stack.of_type("AWS::Batch::JobQueue").values())
    assert ("BatchGpuQueue" in stack.outputs) is bool(gpu_spot or gpu_on_demand)
    assert "BatchQueue" in stack.outputs


# --- machines ------------------------------------------------------------------------------------------------------


def test_disk_is_encrypted_and_of_the_size_asked_for() -> None:
    """/dev/xvda is both root and Docker's disk on AL2023; the image's 30 GiB are the least that can be asked for."""
    [mapping] = COMPUTE.properties("LaunchTemplate")["LaunchTemplateData"]["BlockDeviceMappings"]
    assert mapping["DeviceName"] == "/dev/xvda"
    assert mapping["Ebs"]["Encrypted"] is True
    assert mapping["Ebs"]["VolumeType"] == "gp3"
    assert mapping["Ebs"]["VolumeSize"] == {"Ref": "DiskSizeGib"}
    assert COMPUTE.parameters["DiskSizeGib"]["MinValue"] >= machines.LEAST_DISK_GIB


def test_metadata_service_wants_a_token() -> None:
    """IMDSv2: a server that is tricked into a plain request tells nothing."""
    options = COMPUTE.properties("LaunchTemplate")["LaunchTemplateData"]["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpEndpoint"]) == ("required", "enabled")


def test_launch_template_sets_nothing_that_batch_ignores() -> None:
    """Instance type, role, subnets and market are the compute environment's (User Guide, launch templates)."""
    data = COMPUTE.properties("LaunchTemplate")["LaunchTemplateData"]
    ignored = {"InstanceType", "IamInstanceProfile", "NetworkInterfaces", "InstanceMarketOptions"}
    assert not ignored & set(data)


def test_machines_bear_the_deployments_tag() -> None:
    """Instances and their disks are what costs; tags of a compute environment do not reach them, and replace it."""
    specifications = COMPUTE.properties("LaunchTemplate")["LaunchTemplateData"]["TagSpecifications"]
    assert [each["ResourceType"] for each in specifications] == ["instance", "volume"]
    assert all({"Key": "covalent-cirro", "Value": {"Ref": "DeploymentName"}} in each["Tags"] for each in specifications)
