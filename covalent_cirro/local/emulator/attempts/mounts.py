"""Folders of this machine behind the volumes of a job; for EFS, folders below the emulator's state folder.

The policies of a file system, its mount targets and its security groups are not applied: every job reaches it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from covalent_cirro.local.emulator.attempts.runtime import StartFailed
from covalent_cirro.local.emulator.batch.model import Json


def folders(container: Json, files: Path, efs: Any) -> dict[str, Path]:
    """The folder behind each volume that has one, by the volume's name. Those of EFS are made.

    Args:
        container: Properties of the container.
        files: Where file systems of EFS have their folders.
        efs: A client of EFS.

    Raises:
        StartFailed: There is no such file system or access point. That ECS says so in these words is unverified.
    """
    found: dict[str, Path] = {}
    for volume in container.get("volumes") or []:
        source = (volume.get("host") or {}).get("sourcePath")
        if source:
            found[volume["name"]] = Path(source)
        elif volume.get("efsVolumeConfiguration"):
            found[volume["name"]] = _of_efs(volume["efsVolumeConfiguration"], files, efs)
    return found


def _of_efs(volume: Json, files: Path, efs: Any) -> Path:
    file_system = volume["fileSystemId"]
    access_point = (volume.get("authorizationConfig") or {}).get("accessPointId")
    root = volume.get("rootDirectory") or "/"
    try:
        efs.describe_file_systems(FileSystemId=file_system)
        if access_point:
            [point] = efs.describe_access_points(AccessPointId=access_point)["AccessPoints"]
            if point["FileSystemId"] != file_system:
                raise _failed(f"access point {access_point} is not of {file_system}")
            root = (point.get("RootDirectory") or {}).get("Path") or "/"
    except (efs.exceptions.FileSystemNotFound, efs.exceptions.AccessPointNotFound) as error:
        raise _failed(str(error)) from None
    folder: Path = files / file_system / root.strip("/")
    if not folder.resolve().is_relative_to((files / file_system).resolve()):
        raise _failed(f"{root} is outside of the file system")
    folder.mkdir(parents=True, exist_ok=True)
    # As an access point has one user for all, every container may write, whatever its own user is.
    folder.chmod(0o777)
    return folder


def _failed(words: str) -> StartFailed:
    return StartFailed(f"CannotCreateVolumeError: VolumeDriver.Create: mounting volume failed: {words}")
