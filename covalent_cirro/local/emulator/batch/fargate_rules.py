"""What AWS Batch refuses of jobs on Fargate, in AWS's words where they are known. Pure.

Words: Netflix/metaflow#749 (sizes), insitro/redun#95 ("... is not applicable for Fargate"), API model (the members).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from covalent_cirro.local.emulator.batch.model import Json

FARGATE_MIB: dict[str, Iterable[int]] = {
    "0.25": (512, 1024, 2048),
    "0.5": range(1024, 4097, 1024),
    "1": range(2048, 8193, 1024),
    "2": range(4096, 16385, 1024),
    "4": range(8192, 30721, 1024),
    "8": range(16384, 61441, 4096),
    "16": range(32768, 122881, 8192),
    "32": (61440, 122880, 249856),
}
"""API model, ResourceRequirement: the pairs that Fargate knows."""

_NOT_ON_FARGATE = ("privileged", "ulimits", "instanceType", "vcpus", "memory")
_NOT_ON_FARGATE_LINUX = ("devices", "maxSwap", "sharedMemorySize", "swappiness", "tmpfs")
"""API model, ContainerProperties and LinuxParameters."""

_NOT_ON_EC2 = ("ephemeralStorage", "fargatePlatformConfiguration", "networkConfiguration", "runtimePlatform")
"""API model, ContainerProperties: "Jobs that are running on Amazon EC2 resources must not specify this parameter"."""


def mistake(container: Json, *, fargate: bool) -> str | None:
    """Why the platform cannot run a container with these properties; `None` where it can."""
    if not fargate:
        unfit = [name for name in _NOT_ON_EC2 if container.get(name)]
        return f"{unfit[0]} is not applicable for EC2." if unfit else None
    linux = container.get("linuxParameters") or {}
    unfit = [name for name in _NOT_ON_FARGATE if container.get(name)]
    unfit += [name for name in _NOT_ON_FARGATE_LINUX if linux.get(name)]
    unfit += ["sourcePath" for each in container.get("volumes") or [] if (each.get("host") or {}).get("sourcePath")]
    if unfit:
        return f"{unfit[0]} is not applicable for Fargate."
    if not container.get("executionRoleArn"):
        return "EXECUTION_ROLE_ARN is required for Fargate jobs: executionRoleArn is not set."
    driver = (container.get("logConfiguration") or {}).get("logDriver", "awslogs")
    return f"logDriver {driver} is not applicable for Fargate." if driver not in ("awslogs", "splunk") else None


def size_mistake(values: dict[str, str]) -> str | None:
    """Why Fargate has no such size; `None` where it has.

    Args:
        values: ``resourceRequirements`` by type, with VCPU and MEMORY.
    """
    if "GPU" in values:
        return "GPU is not applicable for Fargate."
    vcpu, memory = values["VCPU"], values["MEMORY"]
    if re.fullmatch(r"\d+(\.\d+)?", vcpu) is None or not memory.isdigit():
        return f"Fargate resource requirements ({vcpu} vCPU, {memory} MiB) not valid."
    if int(memory) in FARGATE_MIB.get(f"{float(vcpu):g}", ()):
        return None
    return f"Fargate resource requirements ({float(vcpu):.2f} vCPU, {memory} MiB) not valid."


def queue_mistake(platform: str, *, on_fargate: bool) -> str | None:
    """Why jobs for a platform cannot be in a queue; `None` where they can.

    Args:
        platform: ``EC2`` or ``FARGATE``, of the job definition.
        on_fargate: Whether the compute environments of the queue are those of Fargate.
    """
    if (platform == "FARGATE") == on_fargate:
        return None
    return f"Job Queue is attached to Compute Environment that can not run Jobs with capability {platform}."
