"""Names of the machines that jobs have on AWS Fargate: ``Fargate 2 vCPU 4 GB``, ``Fargate ARM 0.25 vCPU 0.5 GB``. Pure.

Fargate has no instance types. The name says all that its price depends on, beside the region and Spot.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from covalent_cirro.settings.fargate_sizes import MIB_PER_GIB, Size

LEAST_BILLED_S = 60.0
"""Seconds that a task on Fargate is billed for at least, then each second (AWS Fargate pricing)."""

_NAME = re.compile(r"Fargate(?P<arm> ARM)? (?P<vcpus>\d+(?:\.\d+)?) vCPU (?P<gb>\d+(?:\.\d+)?) GB")


class FargateMachine(NamedTuple):
    """What a job has on Fargate.

    Attributes:
        size: vCPUs and memory.
        architecture: ``"x86_64"`` or ``"arm64"``.
    """

    size: Size
    architecture: str

    @property
    def name(self) -> str:
        """Its name; `parse` reads it."""
        arm = " ARM" if self.architecture == "arm64" else ""
        return f"Fargate{arm} {self.size.vcpus:g} vCPU {self.size.memory_mib / MIB_PER_GIB:g} GB"


def parse(name: str) -> FargateMachine | None:
    """The machine of a name; `None` for any other text, such as an instance type."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    size = Size(float(found["vcpus"]), round(float(found["gb"]) * MIB_PER_GIB))
    return FargateMachine(size, "arm64" if found["arm"] else "x86_64")
