"""The gateway to EFS: a file system, its access points and mount targets. It changes nothing."""

from __future__ import annotations

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment.doctor.verdicts.shared_file_system import FileSystem
from covalent_cirro.errors import AwsError


def file_system(clients: Clients, named: str) -> FileSystem:
    """A file system by its id; without a state where it does not exist.

    Raises:
        AccessDenied, AwsError: EFS refused or could not be reached.
    """
    try:
        with clients.asking("elasticfilesystem:DescribeFileSystems", of=named) as efs:
            [found] = efs.describe_file_systems(FileSystemId=named)["FileSystems"]
    except AwsError as error:
        if error.code == "FileSystemNotFound":
            return FileSystem(named, "", 0, (), frozenset())
        raise
    with clients.asking("elasticfilesystem:DescribeAccessPoints", of=named) as efs:
        points = efs.describe_access_points(FileSystemId=named)["AccessPoints"]
    with clients.asking("elasticfilesystem:DescribeMountTargets", of=named) as efs:
        targets = efs.describe_mount_targets(FileSystemId=named)["MountTargets"]
    return FileSystem(
        id=named,
        state=str(found["LifeCycleState"]),
        size_bytes=int((found.get("SizeInBytes") or {}).get("Value", 0)),
        access_points=tuple(each["AccessPointId"] for each in points),
        zones=frozenset(each["AvailabilityZoneName"] for each in targets if each["LifeCycleState"] == "available"),
    )
