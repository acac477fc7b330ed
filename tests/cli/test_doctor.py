"""``cirro doctor`` on an emulated account: green when all is well, and red for each thing that is really broken."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from click.testing import Result

from covalent_cirro import __version__, covalent_config, covalent_server, deployment, processes
from covalent_cirro.aws import Access
from covalent_cirro.deployment.plans import TAG
from covalent_cirro.doctor import Asked, examine, server_facts
from covalent_cirro.doctor.checks import CHECKS, Check
from covalent_cirro.emulator import Emulator
from covalent_cirro.errors import HostError
from covalent_cirro.health.findings import FAILURE, OK, SKIPPED, WARNING, Finding
from covalent_cirro.processes import free_port
from covalent_cirro.protocol import FORMAT, LABEL_CLOUDPICKLE, LABEL_FORMAT, LABEL_PYTHON, LABEL_RUNNER

REGION = "us-east-1"
ADMINISTRATOR = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""A key that is not of AWS's form may do all in the emulated account."""

SERVER_START_S = 180.0
"""Several times what a slow, busy machine takes."""

SERVER_CHECKS = {"server", "server_plugin", "server_versions", "server_config", "server_environment"}


class World:
    """An emulated account with a deployment and an image, and a Covalent config that goes with them."""

    def __init__(self, emulator: Emulator, config_dir: Path, patch: pytest.MonkeyPatch) -> None:
        self.emulator = emulator
        self.config_dir = config_dir
        self.patch = patch
        self.deployed = deployment.deploy(
            self.client("cloudformation"), "cirro", {"MonthlyBudgetUsd": 100, "BudgetEmail": "a@example.org"}
        )
        self.outputs, self.settings = self.deployed.outputs, self.deployed.settings
        emulator.standing.cost_tags[TAG] = "Active"
        covalent_config.record(self.settings, stack_name="cirro", region=REGION, profile="")
        covalent_config.set_image(self.image())
        self.queue = self.client("batch").describe_job_queues(jobQueues=["cirro-cpu"])["jobQueues"][0]
        arn = self.queue["computeEnvironmentOrder"][0]["computeEnvironment"]
        found = self.client("batch").describe_compute_environments(computeEnvironments=[arn])
        self.environment = found["computeEnvironments"][0]

    def client(self, service: str, region: str = REGION) -> Any:
        """A client of the administrator."""
        return self.emulator.client(service, region_name=region)

    def image(self, architecture: str = "amd64", **labels: str) -> str:
        """The URI of an image with these labels, or those of this side, in the deployment's repository."""
        here = server_facts.here()
        told = {
            LABEL_PYTHON: here.python,
            LABEL_CLOUDPICKLE: str(here.cloudpickle),
            LABEL_RUNNER: __version__,
            LABEL_FORMAT: str(FORMAT),
            **labels,
        }
        name = self.outputs["ImageRepository"].partition("/")[2]
        config = json.dumps({"architecture": architecture, "os": "linux", "config": {"Labels": told}}).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        images = self.emulator.images
        upload = images.begin(REGION, name)
        upload.append(io.BytesIO(config).read)
        images.finish(REGION, name, upload.id, digest)
        media = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest,
                "size": len(config),
            },
            "layers": [],
        }
        pushed, _ = images.put(REGION, name, json.dumps(manifest).encode(), media, tag=digest[-8:], digest=None)
        return f"{self.outputs['ImageRepository']}@{pushed.digest}"

    def look(self, *ids: str, region: str | None = None, name: str = "cirro", **asked: Any) -> list[Finding]:
        """What these checks find, and those that they need; without ids, all."""
        access = Access(profile=None, credentials=None, region=region, endpoint_url=None)
        return examine(access, name, Asked(**asked), checks=needed(ids) if ids else CHECKS)

    @contextlib.contextmanager
    def configured(self, **changes: Any) -> Iterator[None]:
        """Another ``[executors.cirro]``; `None` takes a key out."""
        path = covalent_config.config_path()
        before = path.read_text()
        document = tomlkit.parse(before)
        section: Any = document["executors"]["cirro"]  # type: ignore[index]
        for key, value in changes.items():
            if value is None:
                del section[key]
            else:
                section[key] = value
        path.write_text(tomlkit.dumps(document))
        try:
            yield
        finally:
            path.write_text(before)

    @contextlib.contextmanager
    def environ(self, **variables: str | None) -> Iterator[None]:
        """Other environment variables; `None` takes one away."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            yield

    @contextlib.contextmanager
    def fault(self, kind: str, **fields: Any) -> Iterator[None]:
        """A fault of the emulator."""
        number = self.emulator.faults.add(kind, **fields)
        try:
            yield
        finally:
            self.emulator.faults.clear(number)

    @contextlib.contextmanager
    def user(self, *statements: dict[str, Any]) -> Iterator[None]:
        """Be a user who may do this, and nothing else."""
        iam = self.client("iam")
        iam.create_user(UserName="somebody")
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_user_policy(UserName="somebody", PolicyName="all", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="somebody")["AccessKey"]
        try:
            with self.environ(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"]):
                yield
        finally:
            self.empty_bucket()  # who may not delete leaves the probe behind
            iam.delete_access_key(UserName="somebody", AccessKeyId=key["AccessKeyId"])
            iam.delete_user_policy(UserName="somebody", PolicyName="all")
            iam.delete_user(UserName="somebody")

    def empty_bucket(self) -> None:
        """Delete everything in the deployment's bucket."""
        s3, name = self.client("s3"), self.settings["s3_bucket_name"]
        for each in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=each["Key"])

    @contextlib.contextmanager
    def trust(self, role: str, **statement: Any) -> Iterator[None]:
        """Another trust policy of a role."""
        iam = self.client("iam")
        before = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        changed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", **statement}]}
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(changed))
        try:
            yield
        finally:
            iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(before))

    @contextlib.contextmanager
    def standing(self, **changes: Any) -> Iterator[None]:
        """Other quotas, cost tags or instance types of the account."""
        standing = self.emulator.standing
        before = {key: dict(getattr(standing, key)) for key in changes}
        standing.settings(changes)
        try:
            yield
        finally:
            standing.settings(before)


def needed(ids: tuple[str, ...]) -> list[Check]:
    """The checks with these ids and all that they need, in their order."""
    by_id = {check.id: check for check in CHECKS}
    wanted = set(ids)
    for check in reversed(CHECKS):
        if check.id in wanted:
            wanted |= set(by_id[check.id].needs)
    return [check for check in CHECKS if check.id in wanted]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that is well; each test repairs what it breaks."""
    config_dir = tmp_path_factory.mktemp("covalent")
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(state_dir=tmp_path_factory.mktemp("emulator"), iam=True) as emulator,
    ):
        patch.setenv("COVALENT_CONFIG_DIR", str(config_dir))
        for name, value in ADMINISTRATOR.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
        (config_dir / "covalent.conf").write_text(f'[dispatcher]\naddress = "localhost"\nport = {free_port()}\n')
        yield World(emulator, config_dir, patch)


# --- all is well ------------------------------------------------------------------------------------------------------


def test_a_fresh_deployment_is_well(world: World) -> None:
    """Every check is ok, but for the Covalent server, which does not run: what hangs on it is skipped."""
    findings = world.look()
    levels = {finding.id: finding.level for finding in findings if finding.level != OK}
    assert levels == {"server": WARNING, **dict.fromkeys(SERVER_CHECKS - {"server"}, SKIPPED)}, findings
    assert {finding.id for finding in findings} == {check.id for check in CHECKS}


def test_doctor_shows_a_line_for_each_check(world: World, cirro: Callable[..., Result]) -> None:
    """Level, id and what was seen; several things that are alike share a line. Exit code 0: a warning is no failure."""
    result = cirro("doctor")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert any(line.startswith("ok ") and " clock: " in line for line in lines)
    assert "queue: 4 are well: cirro-cpu, cirro-gpu, cirro-cpu-on-demand, cirro-gpu-on-demand" in result.output
    assert "warning  server" in result.output
    assert "0 failure" not in lines[-1]
    assert "1 warning" in lines[-1]


def test_json_is_for_programs(world: World, cirro: Callable[..., Result]) -> None:
    """One document with stable ids, and exit code 1 where one of them failed."""
    with world.configured(batch_queue="other-queue"):
        result = cirro("doctor", "--json")
    assert result.exit_code == 1
    document = json.loads(result.output)
    (failed,) = [each for each in document["findings"] if each["level"] == FAILURE]
    assert (failed["id"], failed["subject"]) == ("queue", "other-queue")
    assert "cirro-cpu" in failed["seen"]
    assert "batch_queue" in failed["remedy"]
    assert document["counts"]["failure"] == 1
    assert {each["id"] for each in document["findings"]} == {check.id for check in CHECKS}


def test_nothing_is_left_behind(world: World) -> None:
    """Reads only, but for one object that is written and deleted."""
    world.emulator.calls.reset()
    world.look()
    calls = set(world.emulator.calls.counts())
    writes = {
        call for call in calls if not call.partition(":")[2].startswith(("Get", "List", "Describe", "Batch", "Head"))
    }
    assert writes == {"s3:PutObject", "s3:DeleteObject", "iam:SimulatePrincipalPolicy"}
    objects = world.client("s3").list_objects_v2(Bucket=world.settings["s3_bucket_name"])
    assert objects["KeyCount"] == 0


def test_who_may_only_submit_sees_no_failure(world: World) -> None:
    """What such a user may not read is a warning that names the permission; what it may is looked at."""
    iam = world.client("iam")
    version = iam.get_policy(PolicyArn=world.outputs["SubmitterPolicy"])["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=world.outputs["SubmitterPolicy"], VersionId=version)["PolicyVersion"]
    with world.user(*document["Document"]["Statement"]):
        findings = {finding.id: finding for finding in world.look()}
    assert not [finding for finding in findings.values() if finding.level == FAILURE]
    assert "cloudformation:DescribeStacks" in findings["stacks"].seen
    assert "iam:GetRole" in findings["job_role"].seen
    assert "servicequotas:GetServiceQuota" in findings["quota"].seen
    assert {findings[id].level for id in ("queue", "environment", "bucket", "bucket_write")} == {OK}


# --- each thing broken once -------------------------------------------------------------------------------------------


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


def standing(**changes: Any) -> Callable[[World], Any]:
    @contextlib.contextmanager
    def broken(world: World) -> Iterator[dict[str, Any]]:
        with world.standing(**changes):
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
    ("settings", FAILURE, asked(memory=0.01), "memory=0.01 is not possible"),
    ("region", FAILURE, region_elsewhere, "the executor uses eu-west-1"),
    ("config", FAILURE, config(s3_bucket_name=None), "s3_bucket_name"),
    ("config", WARNING, config(s3_prefix="mine"), "s3_prefix is 'mine'"),
    ("queue", FAILURE, queue_disabled, "DISABLED"),
    ("queue", FAILURE, config(batch_queue="gone"), "does not exist"),
    ("environment", FAILURE, environment_disabled, "DISABLED"),
    ("environment", FAILURE, environment_invalid, "none of the instances joined the underlying ECS Cluster"),
    ("instance_types", FAILURE, standing(absent_types={"g4dn.*": [], "g5.*": []}), "has no g4dn, g5"),
    ("instance_types", WARNING, standing(absent_types={"g5.*": []}), "has no g5"),
    ("instance_types", FAILURE, standing(absent_types={"g*": [f"{REGION}{z}" for z in "abc"]}), "not offered"),
    ("instance_types", WARNING, standing(absent_types={"g*": [f"{REGION}{z}" for z in "ab"]}), "only us-east-1c"),
    ("fit", FAILURE, asked(memory=4000), "MiB of memory of at most"),
    ("fit", FAILURE, asked(num_gpus=9), "9 GPU of at most 8"),
    ("fit", FAILURE, image("arm64"), "exec format error"),
    ("quota", FAILURE, standing(quotas={"L-3819A6DF": 0.0}), "All G and VT Spot Instance Requests: 0 vCPUs"),
    ("quota", FAILURE, standing(quotas={"L-DB2E81BA": None}), "Running On-Demand G and VT instances: 0 vCPUs"),
    ("quota", WARNING, standing(quotas={"L-34B43A08": 64.0}), "may want 256"),
    ("network", FAILURE, no_route, "no route out"),
    ("network", FAILURE, no_public_address, "no public address"),
    ("job_role", FAILURE, trust("BatchJobRoleName", **OTHER_SERVICE), "does not trust ecs-tasks"),
    ("job_role", FAILURE, trust("BatchJobRoleName", **OTHER_ACCOUNT), "999999999999"),
    ("job_role", WARNING, trust("BatchJobRoleName", **ANY_ACCOUNT), "of any account"),
    ("job_role", FAILURE, config(batch_job_role_name="gone"), "gone"),
    ("execution_role", FAILURE, trust("BatchExecutionRoleName", **OTHER_SERVICE), "does not trust ecs-tasks"),
    ("execution_role", FAILURE, config(batch_execution_role_name="gone"), "gone"),
    ("instance_role", FAILURE, instances_not_trusted, "does not trust ec2"),
    ("permissions", FAILURE, user_without("iam:PassRole"), "iam:PassRole"),
    ("permissions", FAILURE, user_without("batch:SubmitJob"), "batch:SubmitJob"),
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
    ("cost_tag", WARNING, standing(cost_tags={}), "does not know it yet"),
    ("cost_tag", WARNING, standing(cost_tags={TAG: "Inactive"}), "Inactive"),
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
    """No check is there that nothing turns red; those of the server are below."""
    broken = {id for id, level, _, _ in BREAKAGES if level in (FAILURE, WARNING)}
    assert broken | SERVER_CHECKS == {check.id for check in CHECKS}


def test_what_hangs_on_a_failure_is_skipped(world: World) -> None:
    """Without credentials nothing of AWS can be looked at: that is one failure, not thirty."""
    with no_credentials(world):
        findings = world.look()
    of_aws = {check.id for check in CHECKS if "credentials" in check.needs}
    assert {finding.level for finding in findings if finding.id in of_aws} == {SKIPPED}
    assert [finding.id for finding in findings if finding.level == FAILURE] == ["credentials"]


def test_a_session_has_its_roles_permissions(world: World) -> None:
    """Whoever took on a role, by SSO for one, is asked for by the role's own ARN, path and all."""
    iam = world.client("iam")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    trusting = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
    made = iam.create_role(Path="/team/", RoleName="person", AssumeRolePolicyDocument=json.dumps(trusting))
    iam.put_role_policy(RoleName="person", PolicyName="all", PolicyDocument=json.dumps(everything))
    session = world.client("sts").assume_role(RoleArn=made["Role"]["Arn"], RoleSessionName="ann")["Credentials"]
    with world.environ(
        AWS_ACCESS_KEY_ID=session["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=session["SecretAccessKey"],
        AWS_SESSION_TOKEN=session["SessionToken"],
    ):
        (found,) = [finding for finding in world.look("permissions") if finding.id == "permissions"]
        assert (found.level, "assumed-role/person/ann" in found.subject) == (OK, True)
        iam.delete_role_policy(RoleName="person", PolicyName="all")
        iam.put_role_policy(
            RoleName="person",
            PolicyName="some",
            PolicyDocument=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "NotAction": "iam:PassRole", "Resource": "*"}],
                }
            ),
        )
        (found,) = [finding for finding in world.look("permissions") if finding.id == "permissions"]
    assert found.level == FAILURE
    assert "attach-role-policy --role-name person" in found.remedy


def test_gpus_asked_for_are_looked_for_on_the_gpu_queue(world: World, cirro: Callable[..., Result]) -> None:
    """``--gpus`` moves the question to the queue that such an electron would use."""
    result = cirro("doctor", "--json", "--gpus", "4", "--vcpu", "8", "--memory", "100")
    fits = [each for each in json.loads(result.output)["findings"] if each["id"] == "fit"]
    assert {each["subject"] for each in fits} == {"cirro-gpu", "cirro-gpu-on-demand"}
    assert {each["level"] for each in fits} == {OK}
    assert "4 GPUs" in fits[0]["seen"]


# --- the Covalent server ----------------------------------------------------------------------------------------------

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"items": [], "total_count": 0}' if sys.argv[2] == "covalent" else b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer)
print("ready", flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def server(world: World, python: str = sys.executable, kind: str = "covalent", **environment: str) -> Iterator[None]:
    """What answers as a Covalent server does, in a process of a Python and an environment of its own."""
    config = covalent_config.read()
    process = subprocess.Popen(
        [python, "-c", SERVER, str(config["dispatcher"]["port"]), kind],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def bare_python(world: World, name: str) -> Path:
    """A Python without any package."""
    folder = world.config_dir / name
    venv.create(folder)
    return folder


def server_findings(world: World) -> dict[str, Finding]:
    """What is found of the server."""
    return {finding.id: finding for finding in world.look(*SERVER_CHECKS)}


def test_a_server_of_the_same_python_and_environment_is_well(world: World) -> None:
    """It has the plugin, the same versions, the same config and the same account."""
    with server(world):
        findings = server_findings(world)
    assert {finding.level for finding in findings.values()} == {OK}, findings


def test_another_program_on_the_port_is_no_server(world: World) -> None:
    """Something answers, but not as Covalent does."""
    with server(world, kind="other"):
        found = server_findings(world)["server"]
    assert (found.level, "something else answers" in found.seen) == (WARNING, True)


def test_a_server_without_the_plugin_fails(world: World) -> None:
    """Its Python has neither the plugin nor the packages that pickles need."""
    python = bare_python(world, "without-plugin") / "bin" / "python"
    with server(world, str(python)):
        findings = server_findings(world)
    assert findings["server_plugin"].level == FAILURE
    assert str(python) in findings["server_plugin"].remedy
    assert findings["server_versions"].level == WARNING
    assert "None there" in findings["server_versions"].seen


def test_a_server_that_is_older_than_the_plugin_fails(world: World) -> None:
    """Covalent loads plugins when it starts: one that was installed since then is not there."""
    folder = bare_python(world, "too-old")
    (packages,) = (folder / "lib").glob("python*/site-packages")
    with server(world, str(folder / "bin" / "python")):
        info = packages / "covalent_cirro-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: covalent-cirro\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(
            textwrap.dedent("""\
                [covalent.executor.executor_plugins]
                cirro = covalent_cirro.cirro
                """)
        )
        found = server_findings(world)["server_plugin"]
    assert (found.level, "started before" in found.seen) == (FAILURE, True)
    assert "restart" in found.remedy


def test_a_server_with_another_config_fails(world: World, tmp_path: Path) -> None:
    """What ``cirro deploy`` wrote is not what it reads."""
    with server(world, COVALENT_CONFIG_DIR=str(tmp_path)):
        found = server_findings(world)["server_config"]
    assert (found.level, str(tmp_path) in found.seen) == (FAILURE, True)


def test_a_server_with_another_profile_is_a_warning(world: World) -> None:
    """Its jobs may go to another account than the one that was looked at. Keys are not printed."""
    with server(world, AWS_PROFILE="other", AWS_ACCESS_KEY_ID="another-key"):
        found = server_findings(world)["server_environment"]
    assert found.level == WARNING
    assert "AWS_PROFILE (unset here, other there)" in found.seen
    assert "another-key" not in found.seen


def test_settings_in_the_config_need_no_environment(world: World) -> None:
    """Region and profile that the config names are the same on both sides, whatever the environment says."""
    with server(world, AWS_DEFAULT_REGION="eu-west-1"):
        found = server_findings(world)["server_environment"]
    assert found.level == OK


@pytest.mark.covalent
def test_a_real_covalent_server_is_well(world: World, tmp_path: Path) -> None:
    """Covalent itself, with a config of its own that has the deployment's settings: everything is ok."""
    port, log = free_port(), tmp_path / "covalent.log"
    section = {**world.settings, "container_image_uri": covalent_config.executor_section()["container_image_uri"]}
    covalent_server.write_config(tmp_path, port=port, executors={"cirro": section})
    identity = processes.start(
        [sys.executable, "-m", "covalent_cirro.covalent_server", str(port)],
        log=log,
        environment={**os.environ, **covalent_server.server_environment(tmp_path)},
        folder=tmp_path,
    )
    try:
        with world.environ(COVALENT_CONFIG_DIR=str(tmp_path)):
            processes.wait_for(
                lambda: True if server_facts.server().answers else None, identity, log, SERVER_START_S, HostError
            )
            findings = world.look()
    finally:
        processes.end(identity, patience_s=10.0)
    assert {finding.level for finding in findings} == {OK}, [each for each in findings if each.level != OK]
