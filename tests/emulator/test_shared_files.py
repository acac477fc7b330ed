"""Shared files of a deployment: an EFS file system, by CloudFormation and its API, and in jobs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from covalent_cirro.electron.engine import shared_files
from covalent_cirro.local.emulator import Emulator
from tests.emulator.deployments import Account, Deployment

_names = (f"team-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulated AWS for all tests here."""
    with Emulator(state_dir=tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def here(emulator: Emulator) -> Iterator[Deployment]:
    """A deployment, which is deleted when the test is over."""
    deployment = Deployment(Account(emulator), next(_names))
    yield deployment
    deployment.delete()


def file_system(here: Deployment) -> dict[str, Any]:
    """The deployment's, as EFS describes it."""
    named = here.outputs["SharedFiles"].partition("/")[0]
    [found] = here.client("efs").describe_file_systems(FileSystemId=named)["FileSystems"]
    return dict(found)


def test_a_deployment_has_no_file_system_by_default(here: Deployment) -> None:
    """Nor anything else of it."""
    here.deploy()
    assert here.client("efs").describe_file_systems()["FileSystems"] == []
    assert "SharedFiles" not in here.outputs
    assert (here.outputs["FileSystemArn"], here.outputs["AccessPointArn"]) == ("none", "none")


@pytest.mark.parametrize("zones", [2, 3])
def test_a_file_system_is_encrypted_and_reached_by_the_jobs_alone(here: Deployment, zones: int) -> None:
    """One mount target in each subnet, for NFS from the instances' group; TLS is demanded; idle files move."""
    assert set(here.deploy(SharedFileSystem="true", Zones=zones).values()) == {"CREATE_COMPLETE"}
    efs, found = here.client("efs"), file_system(here)
    assert found["Encrypted"] is True
    named = found["FileSystemId"]
    targets = efs.describe_mount_targets(FileSystemId=named)["MountTargets"]
    assert {each["SubnetId"] for each in targets} == set(here.outputs["SubnetIds"].split(","))
    [group] = {
        group
        for each in targets
        for group in efs.describe_mount_target_security_groups(MountTargetId=each["MountTargetId"])["SecurityGroups"]
    }
    [rule] = here.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (2049, 2049)
    assert [each["GroupId"] for each in rule["UserIdGroupPairs"]] == [here.outputs["SecurityGroupIds"]]
    policies = efs.describe_lifecycle_configuration(FileSystemId=named)["LifecyclePolicies"]
    assert policies[0] == {"TransitionToIA": "AFTER_30_DAYS"}
    policy = json.loads(efs.describe_file_system_policy(FileSystemId=named)["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    [point] = efs.describe_access_points(FileSystemId=named)["AccessPoints"]
    assert here.outputs["SharedFiles"] == f"{named}/{point['AccessPointId']}"
    assert point["AccessPointArn"] == here.outputs["AccessPointArn"]


def test_the_job_role_mounts_it_by_the_access_point(here: Deployment) -> None:
    """And has no right without it."""
    here.deploy(SharedFileSystem="true")
    [name] = [
        each
        for each in here.client("iam").list_role_policies(RoleName=here.outputs["BatchJobRoleName"])["PolicyNames"]
        if each == "shared-files"
    ]
    found = here.client("iam").get_role_policy(RoleName=here.outputs["BatchJobRoleName"], PolicyName=name)
    [statement] = found["PolicyDocument"]["Statement"]
    assert statement["Resource"] == here.outputs["FileSystemArn"]
    assert statement["Condition"] == {
        "StringEquals": {"elasticfilesystem:AccessPointArn": here.outputs["AccessPointArn"]}
    }


@pytest.mark.parametrize("how", ["parameter", "stack"])
def test_files_outlive_the_stack(here: Deployment, how: str) -> None:
    """Neither SharedFileSystem=false nor a deleted stack deletes them; what stands in the network goes."""
    here.deploy(SharedFileSystem="true")
    named, efs = file_system(here)["FileSystemId"], here.client("efs")
    if how == "stack":
        here.delete()
    else:
        here.deploy(SharedFileSystem="false")
    assert efs.describe_mount_targets(FileSystemId=named)["MountTargets"] == []
    assert efs.describe_access_points(FileSystemId=named)["AccessPoints"] == []
    [kept] = efs.describe_file_systems(FileSystemId=named)["FileSystems"]
    assert {"Key": "covalent-cirro", "Value": here.name} in kept["Tags"]
    efs.delete_file_system(FileSystemId=named)


@pytest.mark.parametrize("count", [1, 4])
def test_an_existing_network_gets_a_mount_target_in_each_subnet(here: Deployment, count: int) -> None:
    """Whatever their number, up to six."""
    ec2 = here.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    zones = [each["ZoneName"] for each in ec2.describe_availability_zones()["AvailabilityZones"]]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=zones[number])["Subnet"][
            "SubnetId"
        ]
        for number in range(count)
    ]
    given = {"ExistingVpcId": vpc, "ExistingSubnetIds": ",".join(subnets), "SharedFileSystem": "true"}
    assert here.deploy_part("network", **given) == "CREATE_COMPLETE"
    targets = here.client("efs").describe_mount_targets(FileSystemId=file_system(here)["FileSystemId"])["MountTargets"]
    assert {each["SubnetId"] for each in targets} == set(subnets)


# --- in jobs ------------------------------------------------------------------------------------------------------


def volume(file_system: str, access_point: str) -> dict[str, Any]:
    """The volume that the executor makes of the option shared_files."""
    container: dict[str, Any] = {"environment": []}
    shared_files.mount(container, f"{file_system}/{access_point}")
    return container


def test_jobs_see_what_others_wrote(aws: Any) -> None:
    """By the variable of the folder: a process has no mounts."""
    efs = aws.emulator.client("efs")
    made = efs.create_file_system(CreationToken=aws.name("files"))["FileSystemId"]
    point = efs.create_access_point(ClientToken="t", FileSystemId=made, RootDirectory={"Path": "/cirro"})[
        "AccessPointId"
    ]
    for command in ("echo hello > $CIRRO_SHARED_FILES/a", "cat $CIRRO_SHARED_FILES/a"):
        job = aws.done(aws.submit(definition=aws.definition("sh", "-c", command, **volume(made, point))))
        assert job["status"] == "SUCCEEDED", job
    assert aws.log(job) == ["hello"]


def test_a_file_system_that_is_not_there_fails_the_start(aws: Any) -> None:
    """The reason names it."""
    job = aws.done(aws.submit(definition=aws.definition("true", **volume("fs-0123abcd", "fsap-0123abcd"))))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    assert job["attempts"][0]["container"]["reason"].startswith("CannotCreateVolumeError: ")
    assert "fs-0123abcd" in job["attempts"][0]["container"]["reason"]


def test_limits_of_a_job_are_set(aws: Any) -> None:
    """For its process and all that it starts; above the emulator's own hard limit, that one holds."""
    limits = [{"name": "nofile", "softLimit": 111, "hardLimit": 222}, {"name": "core", "softLimit": 0, "hardLimit": 0}]
    definition = aws.definition("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c", ulimits=limits)
    assert aws.log(aws.done(aws.submit(definition=definition))) == ["111", "222", "0"]
