"""The sizes of jobs on AWS Fargate: which pairs of vCPUs and memory there are, and the smallest one that fits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MIB_PER_GIB = 1024

FRACTIONS = (0.25, 0.5)
"""Parts of a vCPU that a job can ask for, on Fargate alone."""


def _steps(first_gib: int, last_gib: int, step_gib: int = 1) -> tuple[int, ...]:
    return tuple(gib * MIB_PER_GIB for gib in range(first_gib, last_gib + 1, step_gib))


MEMORY_MIB: dict[float, Sequence[int]] = {
    0.25: (512, *_steps(1, 2)),
    0.5: _steps(1, 4),
    1: _steps(2, 8),
    2: _steps(4, 16),
    4: _steps(8, 30),
    8: _steps(16, 60, 4),
    16: _steps(32, 120, 8),
    32: (*_steps(60, 120, 60), *_steps(244, 244)),
}
"""Memory in MiB by vCPUs, both ascending (Batch API Reference, ResourceRequirement, MEMORY)."""

MOST_VCPUS = max(MEMORY_MIB)
MOST_MEMORY_MIB = MEMORY_MIB[MOST_VCPUS][-1]


class Size(NamedTuple):
    """vCPUs and memory of a job."""

    vcpus: float
    memory_mib: int

    def __str__(self) -> str:
        return f"{self.vcpus:g} vCPU and {round(self.memory_mib / MIB_PER_GIB, 2):g} GB"


def fitting(asked: Size) -> Size | None:
    """The smallest size of Fargate with at least so many vCPUs and so much memory; `None` where all are too small.

    The number of vCPUs is raised before memory: 2 vCPU and 17 GB become 4 vCPU and 17 GB.
    """
    for vcpus, memory in MEMORY_MIB.items():
        enough = next((mib for mib in memory if mib >= asked.memory_mib), None)
        if vcpus >= asked.vcpus and enough is not None:
            return Size(vcpus, enough)
    return None
