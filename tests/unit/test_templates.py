"""The template in ``infra/``: facts about AWS Batch, S3 and IAM that no linter knows."""

from __future__ import annotations

import fnmatch
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cfnlint  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

from covalent_cirro import protocol, settings, stacks, store, submission

INFRA = Path(__file__).parents[2] / "infra"
PATH = INFRA / "cirro.yaml"
TEMPLATE: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(PATH))))
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
PARAMETERS: dict[str, Any] = TEMPLATE["Parameters"]
DEFAULTS = {name: parameter["Default"] for name, parameter in PARAMETERS.items()}
NO_VALUE = {"Ref": "AWS::NoValue"}

ENVIRONMENTS = ["CpuSpotEnvironment", "CpuOnDemandEnvironment", "GpuSpotEnvironment", "GpuOnDemandEnvironment"]
ROLES = ["JobRole", "ExecutionRole", "InstanceRole"]

IAM_ACTIONS: dict[str, Any] = json.loads(
    (Path(cfnlint.__file__).parent / "data/AdditionalSpecs/Policies.json").read_text()
)
"""AWS's service authorization reference, as cfn-lint carries it: actions, and the resources each can be limited to."""


def of_type(kind: str) -> dict[str, Any]:
    """The resources of a type, by logical id."""
    return {name: resource for name, resource in RESOURCES.items() if resource["Type"] == kind}


def properties(name: str) -> dict[str, Any]:
    """The properties of a resource."""
    found: dict[str, Any] = RESOURCES[name]["Properties"]
    return found


def walk(value: Any) -> Iterator[Any]:
    """The value and all that is in it."""
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(item)


def as_list(value: Any) -> list[Any]:
    """IAM allows one thing in place of a list of one."""
    return value if isinstance(value, list) else [value]


class Stack:
    """The template with values for its parameters: conditions decided, ``Fn::If`` and parameters replaced."""

    def __init__(self, **given: object) -> None:
        self.values = {name: str(value) for name, value in {**DEFAULTS, **given}.items()}
        self.resources = {
            name: self._settle(resource["Properties"])
            for name, resource in RESOURCES.items()
            if self.holds(resource.get("Condition"))
        }
        self.outputs = {
            name: self._settle(output["Value"])
            for name, output in TEMPLATE["Outputs"].items()
            if self.holds(output.get("Condition"))
        }

    def holds(self, condition: str | None) -> bool:
        """Whether a named condition is true; no condition is."""
        return condition is None or self.decide(TEMPLATE["Conditions"][condition])

    def decide(self, expression: dict[str, Any]) -> bool:
        """The value of a condition function."""
        [(function, argument)] = expression.items()
        if function == "Condition":
            return self.holds(argument)
        if function == "Fn::Not":
            return not self.decide(argument[0])
        if function == "Fn::Or":
            return any(self.decide(item) for item in argument)
        assert function == "Fn::Equals"
        left, right = (self._settle(item) for item in argument)
        return str(left) == str(right)

    def _settle(self, value: Any) -> Any:
        if isinstance(value, list):
            return [settled for item in value if (settled := self._settle(item)) != NO_VALUE]
        if not isinstance(value, dict):
            return value
        if value.get("Ref") in self.values:
            return self.values[value["Ref"]]
        if "Fn::If" in value:
            condition, then, otherwise = value["Fn::If"]
            return self._settle(then if self.holds(condition) else otherwise)
        if "Fn::Join" in value and value["Fn::Join"][0] == "" and isinstance(value["Fn::Join"][1], dict):
            return self._settle(value["Fn::Join"][1]).replace(",", "")
        return {key: settled for key, item in value.items() if (settled := self._settle(item)) != NO_VALUE}

    def references(self) -> set[str]:
        """Names of all resources that something refers to."""
        found = set()
        for item in walk([self.resources, self.outputs]):
            if isinstance(item, dict):
                found |= {item["Ref"]} if isinstance(item.get("Ref"), str) else set()
                if "Fn::GetAtt" in item:
                    found.add(as_list(item["Fn::GetAtt"])[0].split(".")[0])
                for text in as_list(item.get("Fn::Sub", [])):
                    names = re.findall(r"\$\{([^}]+)\}", text) if isinstance(text, str) else []
                    found |= {name.split(".")[0] for name in names}
        return {name for name in found if not name.startswith("AWS::")} - set(PARAMETERS)


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement that allows something, with the role or policy that has it."""
    for name in ROLES:
        for policy in properties(name)["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
    for statement in properties("SubmitterPolicy")["PolicyDocument"]["Statement"]:
        yield "SubmitterPolicy", statement


def actions_of(holder: str) -> set[str]:
    """All actions that a role or policy allows."""
    return {action for name, statement in statements() if name == holder for action in as_list(statement["Action"])}


def pattern(resource: Any) -> str:
    """The text of an ARN, with references written as ``${...}``."""
    if isinstance(resource, str):
        return resource
    if "Fn::Sub" in resource:
        return str(resource["Fn::Sub"])
    if "Fn::GetAtt" in resource:
        return "${" + ".".join(as_list(resource["Fn::GetAtt"])) + "}"
    return "${" + str(resource["Ref"]) + "}"


def allows_key(holder: str, action: str, key: str) -> bool:
    """Whether a role or policy allows an action on a key of the bucket, with the default prefix."""
    return any(
        fnmatch.fnmatchcase("${Bucket.Arn}/" + key, pattern(resource).replace("${S3Prefix}", DEFAULTS["S3Prefix"]))
        for name, statement in statements()
        if name == holder and action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    )


# --- form --------------------------------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing() -> None:
    """Not even what it only mentions (level I)."""
    lint = "import sys; from cfnlint.runner import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", lint, "--include-checks", "I", "--template", str(PATH)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_template_can_be_sent_without_a_bucket() -> None:
    """CloudFormation takes a larger one from S3 only, where there is no bucket of ours yet."""
    assert len(PATH.read_bytes()) <= stacks.MAX_TEMPLATE_BYTES


def test_no_yaml_aliases() -> None:
    """CloudFormation does not read anchors and aliases, which every other YAML reader does."""
    events = yaml.parse(PATH.read_text(), Loader=yaml.SafeLoader)
    assert not [event for event in events if getattr(event, "anchor", None)]


def test_sections_come_in_the_order_they_are_read_in() -> None:
    """What may be set comes before what is made of it."""
    order = ["Metadata", "Parameters", "Rules", "Conditions", "Resources", "Outputs"]
    assert [key for key in TEMPLATE if key in order] == order


def test_description_tells_that_the_stack_is_ours() -> None:
    """``stacks.py`` leaves every other stack alone."""
    assert TEMPLATE["Description"].startswith(stacks.OURS)


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_is_described_bounded_and_has_a_default(name: str) -> None:
    """Nobody has to give any, and a value that cannot work is refused before anything is made."""
    parameter = PARAMETERS[name]
    assert parameter["Description"]
    assert "Default" in parameter
    assert "AllowedValues" in parameter or "AllowedPattern" in parameter or {"MinValue", "MaxValue"} <= set(parameter)


@pytest.mark.parametrize("name", PARAMETERS)
def test_default_is_within_its_own_bounds(name: str) -> None:
    """The defaults deploy."""
    parameter = PARAMETERS[name]
    default = parameter["Default"]
    if "AllowedValues" in parameter:
        assert default in parameter["AllowedValues"]
    elif "AllowedPattern" in parameter:
        assert all(re.fullmatch(parameter["AllowedPattern"], item) for item in default.split(","))
    else:
        assert parameter["MinValue"] <= default <= parameter["MaxValue"]


def test_every_parameter_is_in_one_group() -> None:
    """The console shows them in groups."""
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(PARAMETERS)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("GpuInstanceTypes", "g5", True),
        ("GpuInstanceTypes", "g4dn.12xlarge", True),
        ("GpuInstanceTypes", "p5.48xlarge", True),
        ("GpuInstanceTypes", "p3.2xlarge", False),
        ("GpuInstanceTypes", "g3", False),
        ("GpuInstanceTypes", "g4ad", False),
        ("GpuInstanceTypes", "g5g.xlarge", False),
        ("GpuInstanceTypes", "m7i", False),
        ("GpuInstanceTypes", "default_x86_64", False),
        ("CpuInstanceTypes", "default_x86_64", True),
        ("CpuInstanceTypes", "m7i.large", True),
        ("CpuInstanceTypes", "c7i-flex.large", True),
        ("CpuInstanceTypes", "default_arm64", False),
        ("CpuInstanceTypes", "M7I", False),
        ("S3Prefix", "teams/vision", True),
        ("S3Prefix", "", False),
        ("S3Prefix", "/cirro", False),
        ("S3Prefix", "cirro/", False),
        ("S3Prefix", "a//b", False),
        ("S3Prefix", "../b", False),
        ("S3Prefix", "a*", False),
        ("JobRolePolicyArns", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess", True),
        ("JobRolePolicyArns", "arn:aws-cn:iam::123456789012:policy/team/data", True),
        ("JobRolePolicyArns", "AmazonS3ReadOnlyAccess", False),
    ],
)
def test_parameter_takes_what_works_and_refuses_what_does_not(name: str, value: str, fits: bool) -> None:
    """GPU families without the AL2023 NVIDIA image (p3, g3), other GPUs (g4ad), ARM (g5g), unsafe prefixes."""
    assert (re.fullmatch(PARAMETERS[name]["AllowedPattern"], value) is not None) is fits


@pytest.mark.parametrize(("spot", "on_demand", "fits"), [(0, 0, False), (0, 8, True), (8, 0, True), (8, 8, True)])
def test_rule_refuses_a_stack_without_cpu_machines(spot: int, on_demand: int, fits: bool) -> None:
    """Before anything is made: a job queue without a compute environment is refused by AWS only half way through."""
    [assertion] = TEMPLATE["Rules"]["CpuHasMachines"]["Assertions"]
    assert Stack(CpuSpotMaxVcpus=spot, CpuOnDemandMaxVcpus=on_demand).decide(assertion["Assert"]) is fits


@pytest.mark.parametrize(
    ("cpu_spot", "cpu_on_demand", "gpu_spot", "gpu_on_demand", "zones"),
    [case for case in itertools.product((0, 8), (0, 8), (0, 8), (0, 8), (2, 3)) if case[0] or case[1]],
)
def test_no_choice_of_parameters_leaves_a_dangling_reference(
    cpu_spot: int, cpu_on_demand: int, gpu_spot: int, gpu_on_demand: int, zones: int
) -> None:
    """Whatever is left out, nothing that stays refers to it, and every queue has a compute environment."""
    stack = Stack(
        CpuSpotMaxVcpus=cpu_spot,
        CpuOnDemandMaxVcpus=cpu_on_demand,
        GpuSpotMaxVcpus=gpu_spot,
        GpuOnDemandMaxVcpus=gpu_on_demand,
        Zones=zones,
    )
    assert stack.references() <= set(stack.resources)
    queues = [name for name in stack.resources if RESOURCES[name]["Type"] == "AWS::Batch::JobQueue"]
    assert all(stack.resources[name]["ComputeEnvironmentOrder"] for name in queues)
    assert ("BatchGpuQueue" in stack.outputs) is bool(gpu_spot or gpu_on_demand)
    assert "BatchQueue" in stack.outputs


# --- compute environments and queues -----------------------------------------------------------------------------


def test_the_four_compute_environments() -> None:
    """CPU and GPU, each on Spot and on demand."""
    assert sorted(of_type("AWS::Batch::ComputeEnvironment")) == sorted(ENVIRONMENTS)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_is_changed_in_place(name: str) -> None:
    """AWS Batch updates it in place only without ServiceRole and BEST_FIT (the default); a name forbids replacement.

    CloudFormation replaces it instead unless ReplaceComputeEnvironment is false from the first deployment on.
    """
    found = properties(name)
    assert found["ReplaceComputeEnvironment"] is False
    assert not {"ServiceRole", "ComputeEnvironmentName", "Tags"} & set(found)
    assert found["ComputeResources"]["AllocationStrategy"] != "BEST_FIT"
    assert found["UpdatePolicy"] == {"TerminateJobsOnUpdate": False, "JobExecutionTimeoutMinutes": 7200}


@pytest.mark.parametrize(
    ("name", "kind", "strategy"),
    [
        ("CpuSpotEnvironment", "SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED"),
        ("CpuOnDemandEnvironment", "EC2", "BEST_FIT_PROGRESSIVE"),
        ("GpuSpotEnvironment", "SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED"),
        ("GpuOnDemandEnvironment", "EC2", "BEST_FIT_PROGRESSIVE"),
    ],
)
def test_compute_environment_buys_as_its_name_says(name: str, kind: str, strategy: str) -> None:
    """The strategy is explicit and of its kind; Spot needs no fleet role and no bid then."""
    resources = properties(name)["ComputeResources"]
    assert (resources["Type"], resources["AllocationStrategy"]) == (kind, strategy)
    assert not {"SpotIamFleetRole", "BidPercentage"} & set(resources)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_scales_to_zero(name: str) -> None:
    """No instance stays without jobs, up to the parameter; DesiredvCpus is AWS Batch's own."""
    resources = properties(name)["ComputeResources"]
    assert resources["MinvCpus"] == 0
    assert resources["MaxvCpus"] == {"Ref": name.replace("Environment", "MaxVcpus")}
    assert "DesiredvCpus" not in resources


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_has_the_image_of_its_kind(name: str) -> None:
    """AL2023 (AWS Batch makes no new environment with AL2), with NVIDIA's driver for GPU instances and only them."""
    resources = properties(name)["ComputeResources"]
    gpu = name.startswith("Gpu")
    assert resources["Ec2Configuration"] == [{"ImageType": "ECS_AL2023_NVIDIA" if gpu else "ECS_AL2023"}]
    assert resources["InstanceTypes"] == {"Ref": "GpuInstanceTypes" if gpu else "CpuInstanceTypes"}
    assert resources["UpdateToLatestImageVersion"] is True


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_follows_its_launch_template(name: str) -> None:
    """``$Latest`` would be looked at only when something else changes too."""
    assert properties(name)["ComputeResources"]["LaunchTemplate"] == {
        "LaunchTemplateId": {"Ref": "LaunchTemplate"},
        "Version": {"Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]},
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_environment_goes_before_what_it_stands_on(name: str) -> None:
    """Its instances hold public addresses, which keep the gateway; without the profile it would hang in DELETING."""
    assert RESOURCES[name]["DependsOn"] == "InternetRoute"
    assert RESOURCES["InternetRoute"]["DependsOn"] == "InternetGatewayAttachment"
    assert properties(name)["ComputeResources"]["InstanceRole"] == {"Fn::GetAtt": ["InstanceProfile", "Arn"]}


@pytest.mark.parametrize("kind", ["Cpu", "Gpu"])
def test_queue_tries_spot_first(kind: str) -> None:
    """On-demand instances are for what Spot has no room for."""
    assert Stack().resources[f"{kind}Queue"]["ComputeEnvironmentOrder"] == [
        {"Order": 1, "ComputeEnvironment": {"Ref": f"{kind}SpotEnvironment"}},
        {"Order": 2, "ComputeEnvironment": {"Ref": f"{kind}OnDemandEnvironment"}},
    ]


@pytest.mark.parametrize("kind", ["Cpu", "Gpu"])
def test_on_demand_queue_has_no_spot(kind: str) -> None:
    """For electrons that must not be interrupted."""
    assert Stack().resources[f"{kind}OnDemandQueue"]["ComputeEnvironmentOrder"] == [
        {"Order": 1, "ComputeEnvironment": {"Ref": f"{kind}OnDemandEnvironment"}}
    ]


def test_queue_kills_no_job_and_takes_any() -> None:
    """A job that waits is the user's; a scheduling policy would demand a share identifier of each job."""
    for queue in of_type("AWS::Batch::JobQueue").values():
        assert queue["Properties"]["State"] == "ENABLED"
        assert not {"JobStateTimeLimitActions", "SchedulingPolicyArn"} & set(queue["Properties"])


def test_tags_on_batch_resources_are_maps() -> None:
    """Elsewhere CloudFormation wants lists; cfn-lint has let lists pass here before."""
    for resource in RESOURCES.values():
        if resource["Type"].startswith("AWS::Batch::"):
            assert isinstance(resource["Properties"].get("Tags", {}), dict)


# --- network and machines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("zones", [2, 3])
def test_instances_spread_over_the_zones(zones: int) -> None:
    """One subnet in each; capacity, of GPUs above all, differs from zone to zone."""
    stack = Stack(Zones=zones)
    subnets = [name for name in stack.resources if RESOURCES[name]["Type"] == "AWS::EC2::Subnet"]
    places = [stack.resources[name]["AvailabilityZone"]["Fn::Select"][0] for name in subnets]
    assert [int(place) for place in places] == list(range(zones))
    assert len({stack.resources[name]["CidrBlock"] for name in subnets}) == zones
    for name in ENVIRONMENTS:
        assert stack.resources[name]["ComputeResources"]["Subnets"] == [{"Ref": subnet} for subnet in subnets]


def test_every_subnet_reaches_ecs() -> None:
    """An instance without a public address or without the route never joins its cluster, and jobs wait for ever."""
    routed = [item["Properties"] for item in of_type("AWS::EC2::SubnetRouteTableAssociation").values()]
    for name, subnet in of_type("AWS::EC2::Subnet").items():
        assert subnet["Properties"]["MapPublicIpOnLaunch"] is True
        assert {"SubnetId": {"Ref": name}, "RouteTableId": {"Ref": "RouteTable"}} in routed
    assert properties("InternetRoute")["RouteTableId"] == {"Ref": "RouteTable"}
    assert properties("InternetRoute")["DestinationCidrBlock"] == "0.0.0.0/0"


def test_nothing_comes_in() -> None:
    """No inbound rule, in the group or beside it."""
    [group] = of_type("AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group["Properties"]
    assert not of_type("AWS::EC2::SecurityGroupIngress")
    for name in ENVIRONMENTS:
        assert properties(name)["ComputeResources"]["SecurityGroupIds"] == [{"Ref": "SecurityGroup"}]


def test_s3_is_reached_without_the_internet_route() -> None:
    """A gateway endpoint on the route table of the subnets: it costs nothing."""
    endpoint = properties("S3Endpoint")
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert endpoint["RouteTableIds"] == [{"Ref": "RouteTable"}]


def test_disk_is_encrypted_and_of_the_size_asked_for() -> None:
    """/dev/xvda is both root and Docker's disk on AL2023; the image's 30 GiB are the least that can be asked for."""
    [mapping] = properties("LaunchTemplate")["LaunchTemplateData"]["BlockDeviceMappings"]
    assert mapping["DeviceName"] == "/dev/xvda"
    assert mapping["Ebs"]["Encrypted"] is True
    assert mapping["Ebs"]["VolumeType"] == "gp3"
    assert mapping["Ebs"]["VolumeSize"] == {"Ref": "DiskSizeGib"}
    assert PARAMETERS["DiskSizeGib"]["MinValue"] >= 30


def test_metadata_service_wants_a_token() -> None:
    """IMDSv2: a server that is tricked into a plain request tells nothing."""
    options = properties("LaunchTemplate")["LaunchTemplateData"]["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpEndpoint"]) == ("required", "enabled")


def test_launch_template_sets_nothing_that_batch_ignores() -> None:
    """Instance type, role, subnets and market are the compute environment's (User Guide, launch templates)."""
    data = properties("LaunchTemplate")["LaunchTemplateData"]
    ignored = {"InstanceType", "IamInstanceProfile", "NetworkInterfaces", "InstanceMarketOptions"}
    assert not ignored & set(data)


# --- storage -----------------------------------------------------------------------------------------------------


def test_bucket_is_private_and_encrypted() -> None:
    """No public access by policy or ACL, no ACLs at all, AES256."""
    bucket = properties("Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_bucket_is_reached_by_tls_only() -> None:
    """For everybody, for every action, on the bucket and all that is in it."""
    [statement] = properties("BucketPolicy")["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert [pattern(resource) for resource in statement["Resource"]] == ["${Bucket.Arn}", "${Bucket.Arn}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_all_that_we_write_expires() -> None:
    """Keys of calls and of blobs, by the protocol's own names, each fall under a rule with the parameter's days."""
    rules = properties("Bucket")["LifecycleConfiguration"]["Rules"]
    expire = {
        rule["Prefix"]["Fn::Sub"].replace("${S3Prefix}", DEFAULTS["S3Prefix"]): rule["ExpirationInDays"]
        for rule in rules
        if "ExpirationInDays" in rule
    }
    assert list(expire.values()) == [{"Ref": "ExpireAfterDays"}] * 2
    prefix = DEFAULTS["S3Prefix"] + "/"
    for key in (protocol.blob_key(prefix, "0" * 64), protocol.location("b", prefix, "d", 0, "c").outcome_key):
        assert any(key.startswith(start) for start in expire)
    assert all(rule["Status"] == "Enabled" for rule in rules)


def test_unfinished_uploads_and_old_versions_go_too() -> None:
    """Both are invisible in a listing, and cost all the same."""
    rules = properties("Bucket")["LifecycleConfiguration"]["Rules"]
    [unfinished] = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert "Prefix" not in unfinished
    assert all("NoncurrentVersionExpiration" in rule for rule in rules if "ExpirationInDays" in rule)


def test_a_blob_lives_at_least_twice_as_long_as_it_takes_to_be_renewed() -> None:
    """It is renewed when it is needed again, and has to outlive the job that then waits for it."""
    assert PARAMETERS["ExpireAfterDays"]["MinValue"] * 24 * 3600 >= 2 * store.REFRESH_AFTER_S


def test_repository_scans_and_cleans_up() -> None:
    """Images are scanned on push, encrypted, and all but the newest go."""
    repository = properties("ImageRepository")
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["EncryptionConfiguration"] == {"EncryptionType": "AES256"}
    text = repository["LifecyclePolicy"]["LifecyclePolicyText"]["Fn::Sub"].replace("${KeepImages}", "10")
    [rule] = json.loads(text)["rules"]
    assert rule["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}
    assert rule["action"] == {"type": "expire"}


def test_logs_are_not_kept_for_ever() -> None:
    """The log driver's own group would be."""
    assert properties("JobLogGroup") == {"RetentionInDays": {"Ref": "LogRetentionDays"}}


@pytest.mark.parametrize("name", ["Bucket", "ImageRepository", "JobLogGroup"])
def test_what_holds_data_says_what_becomes_of_it(name: str) -> None:
    """Deleting the stack deletes it (S3 itself keeps a bucket that is not empty); replacing it does not."""
    assert RESOURCES[name]["DeletionPolicy"] == "Delete"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_repository_does_not_block_the_deletion() -> None:
    """ECR refuses to delete a repository that has images."""
    assert properties("ImageRepository")["EmptyOnDelete"] is True


# --- permissions -------------------------------------------------------------------------------------------------


def test_every_action_exists() -> None:
    """IAM takes a misspelt action without a word, and allows nothing by it."""
    for holder, statement in statements():
        for action in as_list(statement["Action"]):
            service, name = action.split(":")
            assert name.lower() in {known.lower() for known in IAM_ACTIONS[service]["Actions"]}, (holder, action)


def test_no_statement_allows_a_family_of_actions() -> None:
    """Actions are named one by one."""
    assert not [action for _, statement in statements() for action in as_list(statement["Action"]) if "*" in action]
    assert all(statement["Effect"] == "Allow" for _, statement in statements())


def test_any_resource_only_where_aws_knows_no_narrower() -> None:
    """``Resource: "*"`` stands with actions that cannot be limited to a resource, and with no other."""
    for holder, statement in statements():
        if "*" not in as_list(statement["Resource"]):
            continue
        for action in as_list(statement["Action"]):
            service, name = action.split(":")
            known = {key.lower(): value for key, value in IAM_ACTIONS[service]["Actions"].items()}
            assert not known[name.lower()].get("Resources"), (holder, action)


def test_resources_are_of_this_stack_or_bear_our_name() -> None:
    """Bucket, repository, log group, queues and roles by reference; the rest by a name of ours or AWS Batch's."""
    ours = re.compile(
        r"\$\{(Bucket|ImageRepository|JobLogGroup|JobRole|ExecutionRole|(Cpu|Gpu)(OnDemand)?Queue)(\.Arn)?\}"
        r"(/\$\{S3Prefix\}/.+)?"
        r"|arn:\$\{AWS::Partition\}:batch:\$\{AWS::Region\}:\$\{AWS::AccountId\}:(job/\*|job-definition/cirro-\*)"
        r"|arn:\$\{AWS::Partition\}:ecs:\$\{AWS::Region\}:\$\{AWS::AccountId\}:[a-z-]+/AWSBatch\*"
    )
    for holder, statement in statements():
        for resource in as_list(statement["Resource"]):
            for part in resource["Fn::If"][1:] if isinstance(resource, dict) and "Fn::If" in resource else [resource]:
                if part not in ("*", NO_VALUE):
                    assert ours.fullmatch(pattern(part)), (holder, part)


def test_job_role_does_what_the_runner_does_and_no_more() -> None:
    """It reads its call and blobs, writes outcome, log and blobs; it cannot change a call, nor touch AWS Batch."""
    where = protocol.location("b", DEFAULTS["S3Prefix"] + "/", "dispatch", 3, "call")
    blob = where.blob_key("0" * 64)
    for key in (where.call_key, where.outcome_key, blob):
        assert allows_key("JobRole", "s3:GetObject", key)
    for key in (where.outcome_key, where.log_key(protocol.log_part("stdout", 1, 0)), blob):
        assert allows_key("JobRole", "s3:PutObject", key)
    assert not allows_key("JobRole", "s3:PutObject", where.call_key)
    assert not allows_key("JobRole", "s3:GetObject", "elsewhere/secret")
    assert actions_of("JobRole") == {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListBucket"}


def test_job_role_takes_the_users_policies() -> None:
    """For what electrons themselves do with AWS; none by default."""
    policy = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    assert "ManagedPolicyArns" not in Stack().resources["JobRole"]
    assert Stack(JobRolePolicyArns=policy).resources["JobRole"]["ManagedPolicyArns"] == policy


def test_execution_role_starts_jobs_and_no_more() -> None:
    """Pull the image, write the log."""
    assert actions_of("ExecutionRole") == {
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }


def test_instance_role_holds_no_data() -> None:
    """Containers on the host's network can take its credentials from the metadata service."""
    assert {action.split(":")[0] for action in actions_of("InstanceRole")} == {"ec2", "ecs"}
    assert "ManagedPolicyArns" not in properties("InstanceRole")


@pytest.mark.parametrize("name", ["JobRole", "ExecutionRole"])
def test_containers_roles_are_for_ecs_of_this_account(name: str) -> None:
    """Against a confused deputy: ECS cannot be talked into using them for somebody else."""
    [statement] = properties(name)["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_instance_role_is_for_ec2() -> None:
    """And reaches instances through a profile."""
    [statement] = properties("InstanceRole")["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": {"Fn::Sub": "ec2.${AWS::URLSuffix}"}}
    assert properties("InstanceProfile")["Roles"] == [{"Ref": "InstanceRole"}]


def test_submitter_passes_the_two_roles_to_containers_only() -> None:
    """Who can register a job definition with any role can become that role."""
    [statement] = [item for _, item in statements() if "iam:PassRole" in as_list(item["Action"])]
    assert statement["Resource"] == [{"Fn::GetAtt": ["JobRole", "Arn"]}, {"Fn::GetAtt": ["ExecutionRole", "Arn"]}]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


def test_submitter_registers_only_definitions_of_our_name() -> None:
    """The executor's own default for their names begins so, and a privileged one is refused."""
    [statement] = [item for _, item in statements() if "batch:RegisterJobDefinition" in as_list(item["Action"])]
    assert pattern(statement["Resource"]).endswith(":job-definition/cirro-*")
    assert settings.BY_NAME["batch_job_definition_name"].default == "cirro"
    assert statement["Condition"] == {"BoolIfExists": {"batch:Privileged": "false"}}


def test_submitter_stops_only_jobs_of_an_executor() -> None:
    """By a tag that every job of an executor has."""
    [statement] = [item for _, item in statements() if "batch:TerminateJob" in as_list(item["Action"])]
    assert statement["Condition"] == {"Null": {"aws:ResourceTag/covalent:dispatch": "false"}}
    assert '"covalent:dispatch": ' in inspect.getsource(submission)


def test_submitter_submits_to_every_queue_of_the_stack() -> None:
    """SubmitJob needs both the queue and the definition."""
    for given in ({}, {"GpuSpotMaxVcpus": 0, "GpuOnDemandMaxVcpus": 0}, {"CpuOnDemandMaxVcpus": 0}):
        stack = Stack(**given)
        document = stack.resources["SubmitterPolicy"]["PolicyDocument"]
        [statement] = [item for item in document["Statement"] if "batch:SubmitJob" in as_list(item["Action"])]
        queues = {name for name in stack.resources if RESOURCES[name]["Type"] == "AWS::Batch::JobQueue"}
        assert {item["Ref"] for item in statement["Resource"] if "Ref" in item} == queues


def test_submitter_can_do_all_that_the_executor_does() -> None:
    """Submit, define, tag, watch and stop jobs; put, get and look for objects; read logs."""
    assert actions_of("SubmitterPolicy") >= {
        "batch:SubmitJob",
        "batch:RegisterJobDefinition",
        "batch:DescribeJobDefinitions",
        "batch:DescribeJobs",
        "batch:ListJobs",
        "batch:TerminateJob",
        "batch:TagResource",
        "iam:PassRole",
        "s3:GetObject",
        "s3:PutObject",
        "s3:ListBucket",
        "logs:GetLogEvents",
    }


@pytest.mark.parametrize("holder", ["JobRole", "SubmitterPolicy"])
def test_a_missing_object_is_told_from_a_forbidden_one(holder: str) -> None:
    """S3 answers 404 instead of 403 only to those who may list; reading a key carries no s3:prefix, hence IfExists."""
    [statement] = [item for name, item in statements() if name == holder and "s3:ListBucket" in as_list(item["Action"])]
    assert statement["Resource"] == {"Fn::GetAtt": ["Bucket", "Arn"]}
    assert statement["Condition"] == {"StringLikeIfExists": {"s3:prefix": {"Fn::Sub": "${S3Prefix}/*"}}}


def test_policies_fit() -> None:
    """6,144 characters without blanks for a managed policy, 10,240 for the inline ones of a role (IAM quotas)."""
    policies = {name: [policy["PolicyDocument"] for policy in properties(name)["Policies"]] for name in ROLES}
    policies["SubmitterPolicy"] = [properties("SubmitterPolicy")["PolicyDocument"]]
    for name, documents in policies.items():
        # Each reference counted as long as the longest ARN of a queue, bucket or role in practice.
        text = "".join(json.dumps(document, separators=(",", ":")) for document in documents)
        length = len(text) + 120 * len(re.findall(r'"(?:Ref|Fn::GetAtt)"', text)) + 12 * text.count("${")
        assert length <= (6_144 if name == "SubmitterPolicy" else 10_240), name


def test_iam_resources_have_no_names() -> None:
    """CAPABILITY_IAM is enough then, and two stacks fit into one account."""
    named = {"RoleName", "ManagedPolicyName", "InstanceProfileName"}
    assert not [name for name, resource in RESOURCES.items() if named & set(resource["Properties"])]


# --- outputs -----------------------------------------------------------------------------------------------------


def test_outputs_are_settings_or_listed() -> None:
    """In both directions: no output without a use, no setting without its output."""
    fed = {stacks.output_key(setting) for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS)}
    assert set(TEMPLATE["Outputs"]) == fed | stacks.NOT_SETTINGS
    assert not fed & stacks.NOT_SETTINGS


def test_settings_that_outputs_feed_are_the_executors() -> None:
    """Each under the very name that the executor's option has."""
    for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS):
        assert setting in settings.BY_NAME
        assert TEMPLATE["Outputs"][stacks.output_key(setting)]["Description"].startswith(f"Setting {setting}. ")


def test_only_optional_outputs_are_conditional() -> None:
    """A stack of any parameters gives all settings that an executor cannot do without."""
    for setting in stacks.SETTINGS:
        assert "Condition" not in TEMPLATE["Outputs"][stacks.output_key(setting)]


def test_outputs_are_values_that_the_settings_take() -> None:
    """The default prefix is one the executor takes too, and gives the keys that the roles reach."""
    assert settings.problem("s3_prefix", DEFAULTS["S3Prefix"]) is None
    assert TEMPLATE["Outputs"]["S3Prefix"]["Value"] == {"Ref": "S3Prefix"}


# --- README ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["Parameters", "Outputs"])
def test_readme_has_every_name_once(section: str) -> None:
    """Its tables are the template's."""
    text = (INFRA / "README.md").read_text().split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) == list(TEMPLATE[section])


def test_readme_has_the_defaults() -> None:
    """A changed default is changed there too."""
    text = (INFRA / "README.md").read_text().split("## Parameters\n", 1)[1].split("\n## ", 1)[0]
    for name, default in DEFAULTS.items():
        [row] = re.findall(rf"^\| `{name}` \| (.*?) \|", text, flags=re.MULTILINE)
        assert row == (f"`{default}`" if default != "" else "none")
