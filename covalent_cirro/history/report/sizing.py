"""What electrons asked for, what they used, and what to ask for next time. Pure.

Electrons of one name are one function with different inputs: they get one size, which is enough for the largest run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.history.report.runs import Run
from covalent_cirro.jobs.formatting import MIB
from covalent_cirro.jobs.machines import Need
from covalent_cirro.settings import MIB_PER_GB, MIN_MEMORY_MIB

HEADROOM = 1.25
"""Factor by which more memory than was used is proposed: the next input may be larger."""

MEMORY_STEP_MIB = 256
"""Step in MiB to which memory is rounded up."""

AFTER_OUT_OF_MEMORY = 2.0
"""Factor by which more memory than was asked for is proposed after a run that ran out of memory."""

MEASURED_S = 5.0
"""Seconds below which a run does not show how many vCPUs it needs: most of it is imports."""

BUSY = 0.85
"""Share of its vCPUs from which on fewer are not proposed: the electron might use more of them."""

IDLE_GPU_PERCENT = 1.0
IDLE_GPU_SHARE = 0.02
"""Utilization in percent and share of memory up to which a GPU counts as not used."""


class SizeProposal(NamedTuple):
    """What electrons of one name asked for and used.

    Attributes:
        name: Name of the electrons.
        runs: Number of runs.
        asked: What each run asked for.
        used_vcpus: Largest mean number of busy vCPUs of a run; `None` where no run was long enough.
        used_memory_mib: Largest peak of memory; `None` where it was not measured.
        used_gpus: Most GPUs that a run used; `None` where that was not measured.
        gpu_utilization: Largest mean utilization of a GPU in percent; `None` where it was not measured.
        gpu_memory_mib: Largest peak of a GPU's memory; `None` where it was not measured.
        next: What to ask for next time.
        why: Reasons for ``next``, for people.
    """

    name: str
    runs: int
    asked: Need
    used_vcpus: float | None
    used_memory_mib: float | None
    used_gpus: int | None
    gpu_utilization: float | None
    gpu_memory_mib: float | None
    next: Need
    why: tuple[str, ...]

    @property
    def options(self) -> str:
        """``next`` as options of the executor: ``"vcpu=2, memory=1.5, num_gpus=1"``."""
        gpus = f", num_gpus={self.next.gpus}" if self.next.gpus or self.asked.gpus else ""
        return f"vcpu={self.next.vcpus}, memory={self.next.memory_mib / MIB_PER_GB:g}{gpus}"


def sizes(runs: Iterable[Run]) -> list[SizeProposal]:
    """A size for each name and need, in the order of the runs. Runs without measurements are left out."""
    grouped: dict[tuple[str, Need], list[Run]] = {}
    for run in runs:
        if run.need is not None and (run.usage is not None or run.out_of_memory):
            grouped.setdefault((run.name, run.need), []).append(run)
    return [_size(name, asked, found) for (name, asked), found in grouped.items()]


def _size(name: str, asked: Need, runs: Sequence[Run]) -> SizeProposal:
    usages = [run.usage for run in runs if run.usage is not None]
    why: list[str] = []
    peaks = [each.peak_memory_bytes / MIB for each in usages if each.peak_memory_bytes is not None]
    memory = max(peaks, default=None)
    vcpus = max(
        (each.cpu_s / each.wall_s for each in usages if each.wall_s >= MEASURED_S),
        default=None,
    )
    gpus = [[gpu for gpu in each.gpus] for each in usages if each.gpus]
    busy = [sum(_is_busy(gpu) for gpu in each) for each in gpus]
    return SizeProposal(
        name=name,
        runs=len(runs),
        asked=asked,
        used_vcpus=vcpus,
        used_memory_mib=memory,
        used_gpus=max(busy, default=None),
        gpu_utilization=max((_number(gpu, "utilization") for each in gpus for gpu in each), default=None),
        gpu_memory_mib=max((_number(gpu, "peak_memory_bytes") / MIB for each in gpus for gpu in each), default=None),
        next=Need(
            _next_vcpus(asked, vcpus, why),
            _next_memory(asked, memory, any(run.out_of_memory for run in runs), why),
            _next_gpus(asked, max(busy, default=None), why),
        ),
        why=tuple(why),
    )


def _next_vcpus(asked: Need, used: float | None, why: list[str]) -> int:
    if used is None:
        why.append(f"vCPU: no run of {MEASURED_S:g} s to tell by")
        return asked.vcpus
    if used >= BUSY * asked.vcpus:
        why.append("vCPU: all of them were busy; more may make it faster")
        return asked.vcpus
    wanted = min(asked.vcpus, max(1, math.ceil(used)))
    if wanted < asked.vcpus:
        why.append(f"vCPU: {used:.1f} were busy on the average")
    return wanted


def _next_memory(asked: Need, used_mib: float | None, ran_out: bool, why: list[str]) -> int:
    if ran_out:
        why.append(f"memory: {asked.memory_mib} MiB were not enough")
        return _rounded(asked.memory_mib * AFTER_OUT_OF_MEMORY)
    if used_mib is None:
        return asked.memory_mib
    wanted = _rounded(used_mib * HEADROOM)
    if wanted > asked.memory_mib:
        why.append(f"memory: {used_mib:.0f} MiB used is close to what there was")
    elif wanted < asked.memory_mib:
        steps = f"in steps of {MEMORY_STEP_MIB} MiB"
        why.append(f"memory: {used_mib:.0f} MiB at the most; {HEADROOM - 1:.0%} more to be safe, {steps}")
    return wanted


def _next_gpus(asked: Need, used: int | None, why: list[str]) -> int:
    if not asked.gpus or used is None or used >= asked.gpus:
        return asked.gpus
    why.append("GPU: none was used" if not used else f"GPU: {used} of {asked.gpus} used")
    return used


def _rounded(mib: float) -> int:
    return max(MIN_MEMORY_MIB, math.ceil(mib / MEMORY_STEP_MIB) * MEMORY_STEP_MIB)


def _is_busy(gpu: dict[str, object]) -> bool:
    """Whether a GPU was used; a GPU without measurements (MIG) counts as used."""
    utilization, used, there = (gpu.get(key) for key in ("utilization", "peak_memory_bytes", "memory_bytes"))
    if utilization is None and used is None:
        return True
    if isinstance(utilization, (int, float)) and utilization > IDLE_GPU_PERCENT:
        return True
    has_share = isinstance(used, (int, float)) and isinstance(there, (int, float)) and there > 0
    return has_share and float(used) / float(there) > IDLE_GPU_SHARE  # type: ignore[arg-type]


def _number(gpu: dict[str, object], key: str) -> float:
    value = gpu.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0
