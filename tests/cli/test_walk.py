"""The walk of docs/deploy.md on the emulator: what `tests/aws/` does in a real account is known to be right code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from covalent_cirro import __version__
from covalent_cirro.contract import problems, protocol
from covalent_cirro.local.emulator import Emulator
from tests.access import variables
from tests.aws.walk import Account, clean_up, walk
from tests.pushed_images import Pushes

pytestmark = pytest.mark.timeout(600)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An account of its own: whatever is there in the end was left by the walk."""
    with Emulator() as emulator:
        yield emulator


def account(emulator: Emulator, folder: Path) -> Account:
    """The emulated account, as the environment of a terminal says where it is."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COVALENT_"))}
    environment = {
        **clean,
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        **variables(emulator.key),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws-credentials"),
    }
    return Account("walk", environment, folder, emulator.client)


def put_image(emulator: Emulator, there: Account) -> None:
    """An image with the runner's labels, without an engine: the emulator's jobs are processes, and pull nothing."""
    repository = there.cirro("deploy", "--yes")["outputs"]["ImageRepository"]
    labels = {
        protocol.LABEL_PYTHON: PYTHON,
        protocol.LABEL_CLOUDPICKLE: version("cloudpickle"),
        protocol.LABEL_RUNNER: __version__,
        protocol.LABEL_FORMAT: problems.CALL_FORMAT,
    }
    digest = Pushes(emulator).image(repository.partition("/")[2], "runner", labels=labels)
    uri = f"{repository}@{digest}"
    code = f"from covalent_cirro.covalent_server import config; config.set_image({uri!r})"
    assert there.run(sys.executable, "-c", code).returncode == 0


@pytest.mark.covalent
def test_from_nothing_to_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """Deploy, a green doctor, jobs, an update in place, jobs, destroy: and the account is as it was."""
    before = footprint(emulator)
    parameters = {"CpuSpotMaxVcpus": 4, "CpuOnDemandMaxVcpus": 4}
    walk(account(emulator, tmp_path), parameters, put_image=lambda there: put_image(emulator, there), jobs=4)
    assert footprint(emulator) == before


def test_a_walk_that_breaks_off(emulator: Emulator, tmp_path: Path) -> None:
    """What the live test does in the end, however far it came: of half a deployment nothing is left either."""
    before = footprint(emulator)
    there = account(emulator, tmp_path)
    there.cirro("deploy", "--yes")
    emulator.client("cloudformation").delete_stack(StackName="walk-compute")
    clean_up(there)
    clean_up(there)
    assert footprint(emulator) == before


def footprint(emulator: Emulator) -> dict[str, int]:
    """How many things of each kind the account has that a deployment makes and takes away.

    AWS's service-linked roles stay: they are the account's, and other teams' environments use them as well.
    """
    client = emulator.client
    batch, ec2, iam = client("batch"), client("ec2"), client("iam")
    definitions = batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    return {
        "buckets": len(client("s3").list_buckets()["Buckets"]),
        "repositories": len(client("ecr").describe_repositories()["repositories"]),
        "log groups": len(client("logs").describe_log_groups()["logGroups"]),
        "queues": len(batch.describe_job_queues()["jobQueues"]),
        "compute environments": len(batch.describe_compute_environments()["computeEnvironments"]),
        "job definitions": len(definitions),
        "roles": len([role for role in iam.list_roles()["Roles"] if not role["Path"].startswith("/aws-service-role/")]),
        "policies": len(iam.list_policies(Scope="Local")["Policies"]),
        "instance profiles": len(iam.list_instance_profiles()["InstanceProfiles"]),
        "VPCs": len(ec2.describe_vpcs()["Vpcs"]),
        "subnets": len(ec2.describe_subnets()["Subnets"]),
        "security groups": len(ec2.describe_security_groups()["SecurityGroups"]),
        "endpoints": len(ec2.describe_vpc_endpoints()["VpcEndpoints"]),
        "gateways": len(ec2.describe_internet_gateways()["InternetGateways"]),
        "launch templates": len(ec2.describe_launch_templates()["LaunchTemplates"]),
    }
