"""What the definition of a job on AWS Fargate has that the definition of a job on an instance has not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLATFORM_VERSION = "1.4.0"
"""Fargate's current version. ``LATEST`` is the same, and AWS Batch refuses an EFS volume with it
(aws-cloudformation/cloudformation-coverage-roadmap#1268)."""

_ARCHITECTURES = {"x86_64": "X86_64", "arm64": "ARM64"}
"""AWS's names (Batch API Reference, RuntimePlatform, cpuArchitecture)."""


def properties(container: Mapping[str, Any], architecture: str, *, public_ip: bool) -> dict[str, Any]:
    """The container's properties for Fargate, from those for an instance.

    Args:
        container: ``containerProperties`` of a job on an instance, with vCPUs and memory of a size that Fargate has.
        architecture: ``"x86_64"`` or ``"arm64"``.
        public_ip: Whether the job has a public address, without which it reaches nothing from a public subnet.
    """
    linux = {key: value for key, value in container["linuxParameters"].items() if key != "sharedMemorySize"}
    return {
        **container,
        "linuxParameters": linux,
        "networkConfiguration": {"assignPublicIp": "ENABLED" if public_ip else "DISABLED"},
        "fargatePlatformConfiguration": {"platformVersion": PLATFORM_VERSION},
        "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": _ARCHITECTURES[architecture]},
    }
