"""Each thing that ``cirro doctor`` looks at is really broken once, and is told."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import venv
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from covalent_cirro.contract.protocol import LABEL_CLOUDPICKLE, LABEL_FORMAT, LABEL_PYTHON, LABEL_RUNNER
from covalent_cirro.deployment.doctor.checks import CHECKS
from covalent_cirro.deployment.plans import TAG
from covalent_cirro.jobs.findings import FAILURE, OK, SKIPPED, WARNING
from tests.cli.doctor.conftest import REGION, SERVER_CHECKS, World


@contextlib.contextmanager
def no_credentials(world: World) -> Iterator[dict[str, Any]]:
    with world.environ(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None):
        yield {}


@contextlib.contextmanager
def unknown_key(world: World) -> Iterator[dict[str, Any]]:
    with world.environ(AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE"):
        yield {}


@contextlib.contextmanager
def unknown_profile(world: World) -> Iterator[dict[str, Any]]:
    with world.configured(profile="nobodys"):
        yield {}


@contextlib.contextmanager
def expired(world: World) -> Iterator[dict[str, Any]]:
    with world.fault("expired"):
        yield {}


@contextlib.contextmanager
def about_to_expire(world: World) -> Iterator[dict[str, Any]]:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=40)
    with world.environ(AWS_SESSION_TOKEN="token", AWS_CREDENTIAL_EXPIRATION=soon.isoformat()):
        yield {}


def clock_off(seconds: float) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        with world.fault("clock", seconds=seconds):
            yield {}

    return broken


@contextlib.contextmanager
def nothing_deployed(world: World) -> Iterator[dict[str, Any]]:
    yield {"name": "another"}


@contextlib.contextmanager
def stack_failed(world: World) -> Iterator[dict[str, Any]]:
    from moto.cloudformation.models import cloudformation_backends

    stacks = cloudformation_backends[world.emulator.account][REGION].stacks.values()
    (roles,) = [stack for stack in stacks if stack.name == "cirro-roles"]
    before, roles.status = roles.status, "UPDATE_ROLLBACK_FAILED"
    try:
        yield {}
    finally:
        roles.status = before


@contextlib.contextmanager
def small_disks(world: World) -> Iterator[dict[str, Any]]:
    """As an earlier version's template took them."""
    from moto.cloudformation.models import cloudformation_backends

    stacks = cloudformation_backends[world.emulator.account][REGION].stacks.values()
    (compute,) = [stack for stack in stacks if stack.name == "cirro-compute"]
    before = dict(compute.parameters)
    compute.parameters["DiskSizeGib"] = "30"
    try:
        yield {}
    finally:
        compute.parameters.clear()
        compute.parameters.update(before)


def config(**changes: Any) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        with world.configured(**changes):
            yield {}

    return broken


@contextlib.contextmanager
def region_elsewhere(world: World) -> Iterator[dict[str, Any]]:
    with world.configured(region="eu-west-1"):
        yield {"region": REGION}


def asked(**asked: Any) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        yield asked

    return broken


def account_settings(**changes: Any) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        with world.account_settings(**changes):
            yield {}

    return broken


@contextlib.contextmanager
def queue_disabled(world: World) -> Iterator[dict[str, Any]]:
    batch = world.client("batch")
    batch.update_job_queue(jobQueue="cirro-gpu", state="DISABLED")
    try:
        yield {}
    finally:
        batch.update_job_queue(jobQueue="cirro-gpu", state="ENABLED")


@contextlib.contextmanager
def environment_disabled(world: World) -> Iterator[dict[str, Any]]:
    batch, name = world.client("batch"), world.environment["computeEnvironmentName"]
    batch.update_compute_environment(computeEnvironment=name, state="DISABLED")
    try:
        yield {}
    finally:
        batch.update_compute_environment(computeEnvironment=name, state="ENABLED")


@contextlib.contextmanager
def environment_invalid(world: World) -> Iterator[dict[str, Any]]:
    with world.fault("invalid", environment=world.environment["computeEnvironmentName"]):
        yield {}


@contextlib.contextmanager
def no_route(world: World) -> Iterator[dict[str, Any]]:
    ec2 = world.client("ec2")
    in_vpc = [{"Name": "vpc-id", "Values": [world.outputs["VpcId"]]}]
    for table in ec2.describe_route_tables(Filters=in_vpc)["RouteTables"]:
        for route in table["Routes"]:
            if route.get("DestinationCidrBlock") == "0.0.0.0/0":
                found = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": "0.0.0.0/0"}
                ec2.delete_route(**found)
                try:
                    yield {}
                finally:
                    ec2.create_route(**found, GatewayId=route["GatewayId"])


@contextlib.contextmanager
def no_public_address(world: World) -> Iterator[dict[str, Any]]:
    ec2, subnet = world.client("ec2"), world.outputs["SubnetIds"].split(",")[0]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": False})
    try:
        yield {}
    finally:
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})


def trust(output: str, **statement: Any) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        with world.trust(world.outputs[output], **statement):
            yield {}

    return broken


@contextlib.contextmanager
def instances_not_trusted(world: World) -> Iterator[dict[str, Any]]:
    name = world.outputs["InstanceProfileArn"].rpartition("/")[2]
    profile = world.client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    with world.trust(profile["Roles"][0]["RoleName"], Principal={"Service": "lambda.amazonaws.com"}):
        yield {}


def user_without(*actions: str) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        with world.user(everything, {"Effect": "Deny", "Action": list(actions), "Resource": "*"}):
            yield {}

    return broken


@contextlib.contextmanager
def not_simulated(world: World) -> Iterator[dict[str, Any]]:
    with world.fault("conflict", service="iam", operation="SimulatePrincipalPolicy", code="InvalidInput"):
        yield {}


SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gone-AbCdEf"
SHARED = "arn:aws:ssm:us-east-1:999999999999:parameter/team/db"


@contextlib.contextmanager
def with_secret(world: World, region: str = REGION, *, given: bool = True) -> Iterator[str]:
    """A secret that the config names, and that the execution role may read if it is ``given``."""
    manager, iam = world.client("secretsmanager", region), world.client("iam")
    arn = manager.create_secret(Name="for-doctor", SecretString="abcd")["ARN"]
    statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = world.outputs["BatchExecutionRoleName"]
    try:
        if given:
            iam.put_role_policy(RoleName=role, PolicyName="secrets", PolicyDocument=document)
        with world.configured(secrets={"KEY": f"{arn}:password"}):
            yield arn
    finally:
        if given:
            iam.delete_role_policy(RoleName=role, PolicyName="secrets")
        manager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


@contextlib.contextmanager
def secret_not_given(world: World) -> Iterator[dict[str, Any]]:
    with with_secret(world, given=False):
        yield {}


@contextlib.contextmanager
def secret_elsewhere(world: World) -> Iterator[dict[str, Any]]:
    with with_secret(world, "eu-west-1"):
        yield {}


@contextlib.contextmanager
def secret_deleted(world: World) -> Iterator[dict[str, Any]]:
    with with_secret(world) as arn:
        world.client("secretsmanager").delete_secret(SecretId=arn, RecoveryWindowInDays=7)
        yield {}
        world.client("secretsmanager").restore_secret(SecretId=arn)


@contextlib.contextmanager
def secret_shared(world: World) -> Iterator[dict[str, Any]]:
    iam, role = world.client("iam"), world.outputs["BatchExecutionRoleName"]
    statement = {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": SHARED}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=role, PolicyName="shared", PolicyDocument=document)
    with world.configured(secrets={"KEY": SHARED}):
        yield {}
    iam.delete_role_policy(RoleName=role, PolicyName="shared")


@contextlib.contextmanager
def secret_unseen(world: World) -> Iterator[dict[str, Any]]:
    with with_secret(world), user_without("secretsmanager:DescribeSecret")(world):
        yield {}


def test_a_secret_is_well(world: World) -> None:
    """It is there, and the execution role may read it; its value was not asked for."""
    with with_secret(world) as arn:
        world.emulator.calls.reset()
        (found,) = [each for each in world.look("secrets") if each.id == "secrets"]
        calls = world.emulator.calls.counts()
    assert (found.level, found.subject) == (OK, f"KEY from {arn}")
    assert "secretsmanager:DescribeSecret" in calls
    assert "secretsmanager:GetSecretValue" not in calls


@contextlib.contextmanager
def bucket_deleted(world: World) -> Iterator[dict[str, Any]]:
    s3, name = world.client("s3"), world.settings["s3_bucket_name"]
    policy = s3.get_bucket_policy(Bucket=name)["Policy"]
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]
    s3.delete_bucket(Bucket=name)
    try:
        yield {}
    finally:
        s3.create_bucket(Bucket=name)
        s3.put_bucket_policy(Bucket=name, Policy=policy)
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=encryption)


@contextlib.contextmanager
def bucket_elsewhere(world: World) -> Iterator[dict[str, Any]]:
    there = world.client("s3", "eu-west-1")
    there.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    with world.configured(s3_bucket_name="far-away"):
        yield {}
    there.delete_bucket(Bucket="far-away")


@contextlib.contextmanager
def bucket_open(world: World) -> Iterator[dict[str, Any]]:
    s3, name = world.client("s3"), world.settings["s3_bucket_name"]
    policy = s3.get_bucket_policy(Bucket=name)["Policy"]
    s3.delete_bucket_policy(Bucket=name)
    try:
        yield {}
    finally:
        s3.put_bucket_policy(Bucket=name, Policy=policy)


@contextlib.contextmanager
def log_group_deleted(world: World) -> Iterator[dict[str, Any]]:
    logs, name = world.client("logs"), world.settings["batch_job_log_group_name"]
    logs.delete_log_group(logGroupName=name)
    try:
        yield {}
    finally:
        logs.create_log_group(logGroupName=name)
        logs.put_retention_policy(logGroupName=name, retentionInDays=30)


@contextlib.contextmanager
def logs_kept_for_ever(world: World) -> Iterator[dict[str, Any]]:
    logs, name = world.client("logs"), world.settings["batch_job_log_group_name"]
    logs.delete_retention_policy(logGroupName=name)
    try:
        yield {}
    finally:
        logs.put_retention_policy(logGroupName=name, retentionInDays=30)


def image(architecture: str = "amd64", **labels: str) -> Callable[[World], Any]:
    named = {"python": LABEL_PYTHON, "cloudpickle": LABEL_CLOUDPICKLE, "runner": LABEL_RUNNER, "format": LABEL_FORMAT}

    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        told = {named[key]: value for key, value in labels.items()}
        with world.configured(container_image_uri=world.image(architecture, **told)):
            yield {}

    return broken


@contextlib.contextmanager
def image_missing(world: World) -> Iterator[dict[str, Any]]:
    with world.configured(container_image_uri=f"{world.outputs['ImageRepository']}:never-pushed"):
        yield {}


@contextlib.contextmanager
def python_without_covalent(world: World) -> Iterator[dict[str, Any]]:
    folder = world.config_dir / "bare"
    venv.create(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(folder / "bin" / "python"))
        yield {}


OTHER_SERVICE = {"Principal": {"Service": "lambda.amazonaws.com"}}
OTHER_ACCOUNT = {
    "Principal": {"Service": "ecs-tasks.amazonaws.com"},
    "Condition": {"StringEquals": {"aws:SourceAccount": "999999999999"}},
}
ANY_ACCOUNT = {"Principal": {"Service": "ecs-tasks.amazonaws.com"}}

BREAKAGES: list[tuple[str, str, Callable[[World], Any], str]] = [
    ("credentials", FAILURE, no_credentials, "no credentials"),
    ("credentials", FAILURE, unknown_key, "security token"),
    ("credentials", FAILURE, unknown_profile, "nobodys"),
    ("credentials", FAILURE, expired, "expired"),
    ("credentials", WARNING, about_to_expire, "for another"),
    ("clock", WARNING, clock_off(-120), "s ahead of AWS's"),
    ("clock", WARNING, clock_off(100), "s behind AWS's"),
    ("clock", FAILURE, clock_off(3600), "s behind AWS's"),
    ("stacks", FAILURE, nothing_deployed, "nothing is deployed as 'another'"),
    ("stacks", FAILURE, stack_failed, "cirro-roles is UPDATE_ROLLBACK_FAILED"),
    ("settings", FAILURE, config(vcpu="many"), "vcpu='many' is not possible"),
    ("time_limit", WARNING, config(time_limit=300), "an attempt is ended after 5 min"),
    ("settings", FAILURE, asked(memory=0.01), "memory=0.01 is not possible"),
    ("settings", FAILURE, config(job_properties={"ulimit": []}), 'Unknown parameter in input: "ulimit"'),
    ("settings", FAILURE, config(job_properties={"readonlyRootFilesystem": True}), "the runner writes into /tmp"),
    (
        "settings",
        FAILURE,
        config(job_properties={"image": "other"}),
        "and not 'other' (set the option container_image_uri)",
    ),
    ("region", FAILURE, region_elsewhere, "the executor uses eu-west-1"),
    ("config", FAILURE, config(s3_bucket_name=None), "s3_bucket_name"),
    ("config", WARNING, config(s3_prefix="mine"), "s3_prefix is 'mine'"),
    ("queue", FAILURE, queue_disabled, "DISABLED"),
    ("queue", FAILURE, config(batch_queue="gone"), "does not exist"),
    ("environment", FAILURE, environment_disabled, "DISABLED"),
    ("environment", FAILURE, environment_invalid, "none of the instances joined the underlying ECS Cluster"),
    ("instance_types", FAILURE, account_settings(absent_types={"g4dn.*": [], "g5.*": []}), "has no g4dn, g5"),
    ("instance_types", WARNING, account_settings(absent_types={"g5.*": []}), "has no g5"),
    ("instance_types", FAILURE, account_settings(absent_types={"g*": [f"{REGION}{z}" for z in "abc"]}), "not offered"),
    (
        "instance_types",
        WARNING,
        account_settings(absent_types={"g*": [f"{REGION}{z}" for z in "ab"]}),
        "only us-east-1c",
    ),
    ("fit", FAILURE, asked(memory=4000), "MiB of memory of at most"),
    ("fit", FAILURE, asked(num_gpus=9), "9 GPU of at most 8"),
    ("fit", FAILURE, image("arm64"), "exec format error"),
    ("disk", FAILURE, small_disks, "have 30 GiB"),
    ("quota", FAILURE, account_settings(quotas={"L-3819A6DF": 0.0}), "All G and VT Spot Instance Requests: 0 vCPUs"),
    ("quota", FAILURE, account_settings(quotas={"L-DB2E81BA": None}), "Running On-Demand G and VT instances: 0 vCPUs"),
    ("quota", WARNING, account_settings(quotas={"L-34B43A08": 64.0}), "may want 256"),
    ("network", FAILURE, no_route, "no route out"),
    ("network", FAILURE, no_public_address, "no public address"),
    ("network", FAILURE, config(batch_multi_node_queue="cirro-cpu"), "on demand only"),
    ("network", WARNING, config(batch_multi_node_queue="cirro-cpu-on-demand"), "no placement group"),
    ("shared_files", FAILURE, config(shared_files="fs-0123abcd/fsap-0123abcd"), "there is no file system fs-0123abcd"),
    ("job_role", FAILURE, trust("BatchJobRoleName", **OTHER_SERVICE), "does not trust ecs-tasks"),
    ("job_role", FAILURE, trust("BatchJobRoleName", **OTHER_ACCOUNT), "999999999999"),
    ("job_role", WARNING, trust("BatchJobRoleName", **ANY_ACCOUNT), "of any account"),
    ("job_role", FAILURE, config(batch_job_role_name="gone"), "gone"),
    ("execution_role", FAILURE, trust("BatchExecutionRoleName", **OTHER_SERVICE), "does not trust ecs-tasks"),
    ("execution_role", FAILURE, config(batch_execution_role_name="gone"), "gone"),
    ("instance_role", FAILURE, instances_not_trusted, "does not trust ec2"),
    ("secrets", FAILURE, config(secrets={"KEY": "ssm:/team/gone"}), "no such secret in us-east-1"),
    ("secrets", FAILURE, config(secrets={"KEY": SECRET}), "secretsmanager:DescribeSecret"),
    ("secrets", FAILURE, secret_not_given, "may not read it: secretsmanager:GetSecretValue: implicitDeny"),
    ("secrets", FAILURE, secret_deleted, "no such secret in us-east-1: it is to be deleted since"),
    ("secrets", WARNING, secret_elsewhere, "it is in eu-west-1"),
    ("secrets", WARNING, secret_shared, "it is in the account 999999999999, and cannot be looked up"),
    ("secrets", WARNING, secret_unseen, "secretsmanager:DescribeSecret"),
    ("permissions", FAILURE, user_without("iam:PassRole"), "iam:PassRole"),
    ("permissions", FAILURE, user_without("batch:SubmitJob"), "batch:SubmitJob"),
    ("permissions", WARNING, user_without("batch:ListJobs"), "cannot be found and may run twice"),
    ("permissions", WARNING, user_without("batch:TagResource"), "jobs and job definitions have no tags"),
    ("permissions", WARNING, not_simulated, "cannot tell what this caller may do"),
    ("permissions", WARNING, user_without("iam:SimulatePrincipalPolicy"), "iam:SimulatePrincipalPolicy"),
    ("bucket", FAILURE, bucket_deleted, "404"),
    ("bucket", FAILURE, bucket_elsewhere, "eu-west-1"),
    ("bucket_write", FAILURE, user_without("s3:PutObject"), "s3:PutObject"),
    ("bucket_write", FAILURE, user_without("s3:DeleteObject"), "s3:DeleteObject"),
    ("bucket_security", WARNING, bucket_open, "without TLS"),
    ("bucket_security", WARNING, user_without("s3:GetBucketPolicy"), "s3:GetBucketPolicy"),
    ("log_group", FAILURE, log_group_deleted, "no log group"),
    ("log_group", WARNING, logs_kept_for_ever, "for ever"),
    ("image", FAILURE, config(container_image_uri=None), "stock plugin's image"),
    ("image", FAILURE, image_missing, "never-pushed"),
    ("image", FAILURE, image("arm64"), "arm64"),
    ("image", FAILURE, image(python="3.9.1"), "Python 3.9.1"),
    ("image", FAILURE, image(cloudpickle="1.0"), "cloudpickle 1.0"),
    ("image", FAILURE, image(format="99"), "format 99"),
    ("image", WARNING, image(runner="0.0.1"), "covalent-cirro 0.0.1"),
    ("image", WARNING, config(container_image_uri="docker.io/mine/runner:1"), "not in a private ECR registry"),
    ("cost_tag", WARNING, account_settings(cost_tags={}), "does not know it yet"),
    ("cost_tag", WARNING, account_settings(cost_tags={TAG: "Inactive"}), "Inactive"),
    ("covalent", FAILURE, python_without_covalent, "not installed"),
]


@pytest.mark.parametrize(
    ("id", "level", "broken", "words"),
    BREAKAGES,
    ids=[f"{id}-{words.replace(' ', '-')}" for id, _, _, words in BREAKAGES],
)
def test_what_is_broken_is_found(world: World, id: str, level: str, broken: Callable[[World], Any], words: str) -> None:
    """The check tells it, in AWS's words where they are AWS's, with what to do next."""
    with broken(world) as given:
        findings = world.look(id, **given)
    told = [finding for finding in findings if finding.id == id and finding.level != OK]
    assert {finding.level for finding in told} == {level}, findings
    assert any(words in finding.seen for finding in told), told
    assert all(finding.remedy for finding in told)


def test_every_check_is_broken_here() -> None:
    """No check is there that nothing turns red; those of the server are in `test_server.py`."""
    broken = {id for id, level, _, _ in BREAKAGES if level in (FAILURE, WARNING)}
    assert broken | SERVER_CHECKS == {check.id for check in CHECKS}


def test_what_hangs_on_a_failure_is_skipped(world: World) -> None:
    """Without credentials nothing of AWS can be looked at: that is one failure, not thirty."""
    with no_credentials(world):
        findings = world.look()
    of_aws = {check.id for check in CHECKS if "credentials" in check.needs}
    assert {finding.level for finding in findings if finding.id in of_aws} == {SKIPPED}
    assert [finding.id for finding in findings if finding.level == FAILURE] == ["credentials"]
