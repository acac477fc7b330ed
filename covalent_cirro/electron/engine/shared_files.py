"""The option ``shared_files``: an EFS file system that a job has at `SHARED_FOLDER`. Pure."""

from __future__ import annotations

from typing import Any

from covalent_cirro.jobs.job_extras import SHARED_FOLDER, SHARED_VOLUME

VARIABLE = "CIRRO_SHARED_FILES"
"""Variable with the folder's path: `SHARED_FOLDER`, except for jobs of an emulator that are processes."""


def mount(container: dict[str, Any], shared_files: str) -> None:
    """Mount it, by its access point, with TLS and the rights of the job role.

    Args:
        container: Properties of the container, which are changed.
        shared_files: The option, ``"fs-.../fsap-..."``.
    """
    file_system, _, access_point = shared_files.partition("/")
    container["volumes"] = [
        {
            "name": SHARED_VOLUME,
            "efsVolumeConfiguration": {
                "fileSystemId": file_system,
                "transitEncryption": "ENABLED",
                "authorizationConfig": {"accessPointId": access_point, "iam": "ENABLED"},
            },
        }
    ]
    container["mountPoints"] = [{"sourceVolume": SHARED_VOLUME, "containerPath": SHARED_FOLDER}]
    container["environment"] = [*container["environment"], {"name": VARIABLE, "value": SHARED_FOLDER}]
