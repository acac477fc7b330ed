"""``infra/roles.yaml``: who may do what. Actions and what they can be limited to are AWS's own reference."""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from covalent_cirro import settings
from covalent_cirro.contract import log_parts, places
from covalent_cirro.electron import send
from covalent_cirro.jobs.tags import DISPATCH_TAG
from covalent_cirro.models import model_version
from tests.unit.template_facts import IAM_ACTIONS, TEMPLATES, as_list

TEMPLATE = TEMPLATES["roles"]
COMPUTE = TEMPLATES["compute"]
ROLES = ["JobRole", "ExecutionRole", "InstanceRole"]
BUCKET = "arn:${AWS::Partition}:s3:::${S3BucketName}"
CLUSTERS = ("AWSBatch-?puSpotEnv*", "AWSBatch-?puOnDemandEnv*", "AWSBatch-MultiNodeEnv*")
QUEUES = {
    "arn:${AWS::Partition}:batch:${AWS::Region}:${AWS::AccountId}:job-queue/${DeploymentName}-" + suffix
    for suffix in (
        *("?pu", "?pu-fair", "?pu-on-demand", "?pu-on-demand-fair"),
        *("fargate", "fargate-fair", "multi-node", "multi-node-fair"),
    )
}


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement that allows something, with the role or policy that has it."""
    for name in ROLES:
        for policy in TEMPLATE.properties(name)["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
    for name in ("SubmitterPolicy", "ItemStopperPolicy", "SecretsPolicy"):
        for statement in TEMPLATE.properties(name)["PolicyDocument"]["Statement"]:
            yield name, statement["Fn::If"][1] if "Fn::If" in statement else statement


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
        fnmatch.fnmatchcase(f"{BUCKET}/{key}", pattern(resource).replace("${S3Prefix}", TEMPLATE.defaults["S3Prefix"]))
        for name, statement in statements()
        if name == holder and action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    )


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


def test_resources_are_of_this_deployment_or_bear_our_name() -> None:
    """What earlier stacks gave, the queues, the two roles; the rest by a name of ours or of AWS Batch's."""
    here = "arn:${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}:"
    ours = {
        BUCKET,
        "${ImageRepositoryArn}",
        "${JobRole.Arn}",
        "${ExecutionRole.Arn}",
        here % "logs" + "log-group:${BatchJobLogGroupName}:*",
        here % "batch" + "job/*",
        here % "batch" + "job/*:*",  # jobs of arrays, in a policy of its own
        here % "batch" + "job-definition/cirro-*",
        here % "batch" + "consumable-resource/*",  # licences are the account's
        *(here % "ecs" + f"{kind}/{name}" for kind in ("cluster", "container-instance", "task") for name in CLUSTERS),
        here % "ecs" + "container-instance/*",  # to look at: AWS Batch names its clusters
        "${SecretArns}",
        "arn:${AWS::Partition}:kms:*:${AWS::AccountId}:key/*",  # by way of two services only
        *QUEUES,
    }
    for holder, statement in statements():
        for resource in as_list(statement["Resource"]):
            found = pattern(resource)
            assert found in ours | {"*"} or found.startswith(BUCKET + "/${S3Prefix}/"), (holder, found)


def test_job_role_does_what_the_runner_does_and_no_more() -> None:
    """It reads its call and blobs, writes outcome, log, blobs and checkpoints, and deletes none but these; it cannot
    change a call, nor touch AWS Batch."""
    where = places.location("b", TEMPLATE.defaults["S3Prefix"] + "/", "dispatch", 3, "018f5e2b7c00c0ffee01")
    blob = where.blob_key("0" * 64)
    for key in (where.call_key, where.outcome_key, blob):
        assert allows_key("JobRole", "s3:GetObject", key)
    checkpoint = [where.checkpoint_key(3, part) for part in ("index.json", "files/" + "0" * 32)]
    for key in (where.outcome_key, where.log_key(log_parts.Part(1, "stdout", 0).name), blob, *checkpoint):
        assert allows_key("JobRole", "s3:PutObject", key)
    child = where.child(7)
    for key in (child.outcome_key, child.attempt_key("f" * 32, 2), child.chunk_key("01-000000-000005-000000.json")):
        assert allows_key("JobRole", "s3:PutObject", key)
        assert not allows_key("JobRole", "s3:DeleteObject", key)
    assert all(allows_key("JobRole", "s3:DeleteObject", key) for key in checkpoint)
    assert not any(allows_key("JobRole", "s3:DeleteObject", key) for key in (where.outcome_key, where.call_key, blob))
    assert not allows_key("JobRole", "s3:PutObject", where.call_key)
    assert not allows_key("JobRole", "s3:GetObject", "elsewhere/secret")
    assert actions_of("JobRole") == {
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:ListBucket",
    }


def test_job_role_takes_the_users_policies() -> None:
    """For what electrons themselves do with AWS; none by default."""
    policy = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    assert "ManagedPolicyArns" not in TEMPLATE.with_values().resources["JobRole"]
    assert TEMPLATE.with_values(JobRolePolicyArns=policy).resources["JobRole"]["ManagedPolicyArns"] == policy


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


SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbC123"


def test_execution_role_reads_the_secrets_that_are_given_and_no_others() -> None:
    """None by default; the job role reads none; the submitter may look whether they are there."""
    default, stack = TEMPLATE.with_values(), TEMPLATE.with_values(SecretArns=SECRET)
    assert "SecretsPolicy" not in default.resources
    assert "ManagedPolicyArns" not in default.resources["ExecutionRole"]
    assert "secretsmanager" not in json.dumps([default.resources, stack.resources["JobRole"]])
    assert stack.resources["ExecutionRole"]["ManagedPolicyArns"] == [{"Ref": "SecretsPolicy"}]
    read, decrypt = stack.resources["SecretsPolicy"]["PolicyDocument"]["Statement"]
    assert read["Action"] == ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
    assert read["Resource"] == SECRET
    assert decrypt["Action"] == "kms:Decrypt"
    assert list(decrypt["Condition"]) == ["StringLike"]
    assert [pattern(each) for each in decrypt["Condition"]["StringLike"]["kms:ViaService"]] == [
        "secretsmanager.*.${AWS::URLSuffix}",
        "ssm.*.${AWS::URLSuffix}",
    ]
    [find] = [each for each in stack.resources["SubmitterPolicy"]["PolicyDocument"]["Statement"] if SECRET in str(each)]
    assert find["Action"] == ["secretsmanager:DescribeSecret", "ssm:ListTagsForResource"]
    values = {"secretsmanager:GetSecretValue", "secretsmanager:BatchGetSecretValue", "ssm:GetParameter"}
    assert not (values | {"ssm:GetParameters", "ssm:GetParameterHistory", "ssm:GetParametersByPath"}) & (
        actions_of("SubmitterPolicy") | actions_of("JobRole") | actions_of("InstanceRole")
    )


def test_instance_role_holds_no_data() -> None:
    """Containers on the host's network can take its credentials from the metadata service."""
    assert {action.split(":")[0] for action in actions_of("InstanceRole")} == {"ec2", "ecs"}
    assert "ManagedPolicyArns" not in TEMPLATE.properties("InstanceRole")


def test_instance_role_reaches_this_templates_clusters_only() -> None:
    """A job can be what its instance is: clusters of other teams' compute environments are out of its reach.

    A cluster's name has the environment's, which has its logical id, whole or cut (seen: 22 characters).
    """
    for logical_id, each in COMPUTE.of_type("AWS::Batch::ComputeEnvironment").items():
        if each["Properties"]["ComputeResources"]["Type"].startswith("FARGATE"):
            continue  # it has no instances
        for name in (logical_id, logical_id[:17]):
            assert any(fnmatch.fnmatchcase(f"AWSBatch-{name}-S2GHcgfanPkxYl8i-fa1784f0", each) for each in CLUSTERS)
    for other in ("AWSBatch-ComputeEnvironment-S2GHcgfanPkxYl8i-fa17", "AWSBatch-training-fa17", "web"):
        assert not any(fnmatch.fnmatchcase(other, each) for each in CLUSTERS)
    for name, statement in statements():
        if name != "InstanceRole" or statement["Sid"] == "FindEcs":
            continue
        for resource in as_list(statement["Resource"]):
            assert pattern(resource).endswith(CLUSTERS)


@pytest.mark.parametrize("name", ["JobRole", "ExecutionRole"])
def test_containers_roles_are_for_ecs_of_this_account(name: str) -> None:
    """Against a confused deputy: ECS cannot be talked into using them for somebody else."""
    [statement] = TEMPLATE.properties(name)["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_instance_role_is_for_ec2() -> None:
    """And reaches instances through a profile."""
    [statement] = TEMPLATE.properties("InstanceRole")["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": {"Fn::Sub": "ec2.${AWS::URLSuffix}"}}
    assert TEMPLATE.properties("InstanceProfile")["Roles"] == [{"Ref": "InstanceRole"}]


def test_submitter_passes_the_two_roles_to_containers_only() -> None:
    """Who can register a job definition with any role can become that role."""
    [statement] = [item for _, item in statements() if "iam:PassRole" in as_list(item["Action"])]
    assert statement["Resource"] == [{"Fn::GetAtt": ["JobRole", "Arn"]}, {"Fn::GetAtt": ["ExecutionRole", "Arn"]}]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


def test_submitter_registers_only_definitions_of_our_name() -> None:
    """The executor's own default for their names begins so, and a privileged one is refused."""
    [statement] = [item for _, item in statements() if item["Sid"] == "DefineJobs"]
    assert pattern(statement["Resource"]).endswith(":job-definition/cirro-*")
    assert settings.BY_NAME["batch_job_definition_name"].default == "cirro"
    assert statement["Condition"] == {"BoolIfExists": {"batch:Privileged": "false"}}


def test_submitter_stops_only_jobs_of_an_executor() -> None:
    """By a tag that every job of an executor has."""
    stops = {name: item for name, item in statements() if "batch:TerminateJob" in as_list(item["Action"])}
    assert stops["SubmitterPolicy"]["Condition"] == {"Null": {f"aws:ResourceTag/{DISPATCH_TAG}": "false"}}
    assert "DISPATCH_TAG: " in inspect.getsource(send)


def test_jobs_of_arrays_are_stopped_by_a_policy_of_its_own() -> None:
    """They have no tags, so that nothing tells an executor's from others'; it is for people, and has nothing else."""
    assert actions_of("ItemStopperPolicy") == {"batch:TerminateJob"}
    [statement] = [item for name, item in statements() if name == "ItemStopperPolicy"]
    assert pattern(statement["Resource"]).endswith(":job/*:*")


@pytest.mark.parametrize("action", ["batch:SubmitJob", "batch:TagResource"])
def test_submitter_reaches_the_deployments_queues_by_name(action: str) -> None:
    """And no other: a deployment whose name begins alike is none of its business."""
    found = {
        pattern(resource)
        for _, item in statements()
        if action in as_list(item["Action"])
        for resource in as_list(item["Resource"])
        if ":job-queue/" in pattern(resource)
    }
    assert found == QUEUES
    allowed = {arn.rsplit("/", 1)[1] for arn in found}
    named = {
        name["Fn::Sub"]
        for each in COMPUTE.of_type("AWS::Batch::JobQueue").values()
        for name in each["Properties"]["JobQueueName"]["Fn::If"][1:]
    }
    assert all(any(fnmatch.fnmatchcase(name, each) for each in allowed) for name in named)
    assert not any("*" in each for each in allowed)


def test_submitter_reads_labels_of_the_deployments_images() -> None:
    """Versions that cannot work are refused before they are paid for; it pushes and deletes nothing."""
    actions = {action for action in actions_of("SubmitterPolicy") if action.startswith("ecr:")}
    assert actions == {"ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"}
    [statement] = [item for _, item in statements() if "ecr:DescribeImages" in as_list(item["Action"])]
    assert statement["Resource"] == {"Ref": "ImageRepositoryArn"}


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


def test_models_are_registered_by_submitters_and_deleted_by_neither() -> None:
    """A job reads them, so that an electron can go on from one; it registers none, and moves no pointer."""
    file = model_version.file_key("cirro/", "m", "20261130T081500Z-0a1b2c3d", "weights.safetensors")
    for key in (file, model_version.pointer_key("cirro/", "m")):
        assert allows_key("SubmitterPolicy", "s3:PutObject", key)
        assert allows_key("SubmitterPolicy", "s3:GetObject", key)
        assert allows_key("JobRole", "s3:GetObject", key)
        assert not allows_key("JobRole", "s3:PutObject", key)
        assert not allows_key("JobRole", "s3:DeleteObject", key)
        assert not allows_key("SubmitterPolicy", "s3:DeleteObject", key)


@pytest.mark.parametrize("holder", ["JobRole", "SubmitterPolicy"])
def test_a_missing_object_is_told_from_a_forbidden_one(holder: str) -> None:
    """S3 answers 404 instead of 403 only to those who may list; reading a key carries no s3:prefix, hence IfExists."""
    [statement] = [item for name, item in statements() if name == holder and "s3:ListBucket" in as_list(item["Action"])]
    assert pattern(statement["Resource"]) == BUCKET
    assert statement["Condition"] == {"StringLikeIfExists": {"s3:prefix": {"Fn::Sub": "${S3Prefix}/*"}}}


@pytest.mark.parametrize("name", [*ROLES, "SubmitterPolicy"])
def test_policies_fit(name: str) -> None:
    """6,144 characters without blanks for a managed policy, 10,240 for the inline ones of a role (IAM quotas).

    Even with the longest names and prefix that the parameters take.
    """
    longest = {
        "${DeploymentName}": "d" * TEMPLATE.parameters["DeploymentName"]["MaxLength"],
        "${S3Prefix}": "p" * TEMPLATE.parameters["S3Prefix"]["MaxLength"],
        "${S3BucketName}": "b" * 63,
        "${BatchJobLogGroupName}": "l" * 150,
        "${AWS::Partition}": "aws-us-gov",
        "${AWS::Region}": "ap-southeast-1",
        "${AWS::AccountId}": "1" * 12,
    }
    properties = TEMPLATE.properties(name)
    documents = [each["PolicyDocument"] for each in properties.get("Policies", [properties])]
    text = "".join(json.dumps(document, separators=(",", ":")) for document in documents)
    for reference, value in longest.items():
        text = text.replace(reference, value)
    text = re.sub(r'\{"Fn::Sub":("[^"]*")\}', r"\1", text)
    text = re.sub(r'\{"(?:Ref|Fn::GetAtt)":(?:"[^"]*"|\[[^]]*\])\}', '"' + "r" * 250 + '"', text)
    assert "${" not in text
    assert len(text) <= (6_144 if name == "SubmitterPolicy" else 10_240)


def test_iam_resources_have_no_names() -> None:
    """CAPABILITY_IAM is enough then, and two stacks fit into one account."""
    named = {"RoleName", "ManagedPolicyName", "InstanceProfileName"}
    assert not [
        name
        for name, resource in TEMPLATE.resources.items()
        if named & set(resource["Properties"]) and resource["Type"] != "AWS::IAM::RolePolicy"  # its RoleName is a Ref
    ]


def test_the_job_role_mounts_shared_files_by_their_access_point_only() -> None:
    """Where there are none, it has no right on any file system."""
    assert "SharedFilesPolicy" not in TEMPLATE.with_values().resources
    files = "arn:aws:elasticfilesystem:us-east-1:123456789012:file-system/fs-0123456789abcdef0"
    assert "SharedFilesPolicy" in TEMPLATE.with_values(SharedFileSystem="true", FileSystemArn=files).resources
    [statement] = TEMPLATE.properties("SharedFilesPolicy")["PolicyDocument"]["Statement"]
    assert TEMPLATE.properties("SharedFilesPolicy")["RoleName"] == {"Ref": "JobRole"}
    assert statement["Action"] == ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    assert statement["Resource"] == {"Ref": "FileSystemArn"}
    assert statement["Condition"] == {"StringEquals": {"elasticfilesystem:AccessPointArn": {"Ref": "AccessPointArn"}}}
