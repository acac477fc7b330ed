"""What electrons asked for, what they used, and what to ask for next time. Pure.

Electrons of one name are one function with different inputs: they get one size. It is enough for the largest run, but
for a few nodes that need much more memory than all others: these are named, with a size of their own.
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

OUTLIER = 1.5
"""Factor of the most memory that other nodes need, from which on a node is named with a size of its own."""

OUTLIERS_IN = 4
"""One node in so many may be such a node, at most: if there are more, the memory differs from input to input."""

MEASURED_S = 5.0
"""Seconds below which a run does not show how many vCPUs it needs: most of it is imports."""

BUSY = 0.85
"""Share of its vCPUs from which on fewer are not proposed: the electron might use more of them."""

IDLE_GPU_PERCENT = 1.0
IDLE_GPU_SHARE = 0.02
"""Utilization in percent and share of memory up to which a GPU counts as not used."""


class Outlier(NamedTuple):
    """A node that needs much more memory than the others of its name."""

    node_id: int
    memory_mib: int

    @property
    def options(self) -> str:
        """What to ask for, as an option of the executor."""
        return f"memory={self.memory_mib / MIB_PER_GB:g}"


class SizeProposal(NamedTuple):
    """What electrons of one name asked for and used.

    Attributes:
        name: Name of the electrons.
        runs: Number of runs.
        asked: The most that a first try of one of them asked for.
        used_vcpus: Largest mean number of busy vCPUs of a run; `None` where no run was long enough.
        used_memory_mib: Largest peak of memory; `None` where it was not measured.
        used_gpus: Most GPUs that a run used; `None` where that was not measured.
        gpu_utilization: Largest mean utilization of a GPU in percent; `None` where it was not measured.
        gpu_memory_mib: Largest peak of a GPU's memory; `None` where it was not measured.
        next: What to ask for next time; more memory than any of them had that ran out of memory.
        outliers: Nodes that need more than ``next``.
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
    outliers: tuple[Outlier, ...]
    why: tuple[str, ...]

    @property
    def options(self) -> str:
        """``next`` as options of the executor: ``"vcpu=2, memory=1.5, num_gpus=1"``."""
        gpus = f", num_gpus={self.next.gpus}" if self.next.gpus or self.asked.gpus else ""
        return f"vcpu={self.next.vcpus:g}, memory={self.next.memory_mib / MIB_PER_GB:g}{gpus}"


def sizes(runs: Iterable[Run]) -> list[SizeProposal]:
    """A size for each name, in the order of the runs. Runs without measurements are left out."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        if run.need is not None and (run.usage is not None or run.out_of_memory):
            grouped.setdefault(run.name, []).append(run)
    return [_size(name, _asked(found), found) for name, found in grouped.items()]


def _asked(runs: Sequence[Run]) -> Need:
    """What the user asked for. A further try has the memory that the executor chose."""
    first = [run.need for run in runs if run.number == 1 and run.need is not None]
    needs = first or [run.need for run in runs if run.need is not None]
    return Need(*(max(values) for values in zip(*needs, strict=True)))


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
    next_vcpus = _next_vcpus(asked, vcpus, why)
    next_memory, outliers = _next_memory(asked, runs, memory, why)
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
            next_vcpus,
            next_memory,
            _next_gpus(asked, max(busy, default=None), why),
        ),
        outliers=outliers,
        why=tuple(why),
    )


def _next_vcpus(asked: Need, used: float | None, why: list[str]) -> float:
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


def _next_memory(
    asked: Need, runs: Sequence[Run], used_mib: float | None, why: list[str]
) -> tuple[int, tuple[Outlier, ...]]:
    nodes: dict[int, list[Run]] = {}
    for run in runs:
        nodes.setdefault(run.node_id, []).append(run)
    wanted = {node_id: mib for node_id, some in nodes.items() if (mib := _enough_for(some)) is not None}
    if not wanted:
        return asked.memory_mib, ()
    ordered = sorted(wanted, key=lambda node_id: wanted[node_id])
    apart = 0
    for number in range(1, len(ordered) // OUTLIERS_IN + 1):
        if wanted[ordered[-number]] >= OUTLIER * wanted[ordered[-number - 1]]:
            apart = number
    failed = _failed_with(runs)
    mib = wanted[ordered[-apart - 1]]
    if failed is not None:
        why.append(f"memory: {failed} MiB were not enough")
        mib = max(mib, _more_than(failed))
    elif mib > asked.memory_mib:
        why.append(f"memory: {used_mib or 0:.0f} MiB used is close to what there was")
    elif mib < asked.memory_mib:
        most = "" if apart else f"{used_mib or 0:.0f} MiB at the most; "
        why.append(f"memory: {most}{HEADROOM - 1:.0%} more than was used, in steps of {MEMORY_STEP_MIB} MiB")
    outliers = tuple(Outlier(each, wanted[each]) for each in ordered[len(ordered) - apart :] if wanted[each] > mib)
    if outliers:
        named = ", ".join(f"node {each.node_id} {each.options}" for each in outliers)
        why.append(f"memory: much more than the others {'needs' if len(outliers) == 1 else 'need'} {named}")
    return mib, outliers


def _enough_for(runs: Sequence[Run]) -> int | None:
    """Memory in MiB that is enough for all tries of a node; `None` where nothing is known of it."""
    peaks = [run.usage.peak_memory_bytes / MIB for run in runs if run.usage and run.usage.peak_memory_bytes is not None]
    found = [_rounded(peak * HEADROOM) for peak in peaks]
    failed = _failed_with(runs)
    if failed is not None:
        # How much it needs is known only if a try with more did not run out of memory.
        is_known = any(_returned_with_more(run, failed) for run in runs)
        found.append(_more_than(failed) if is_known else _rounded(failed * AFTER_OUT_OF_MEMORY))
    return max(found, default=None)


def _returned_with_more(run: Run, failed_mib: int) -> bool:
    measured = run.usage is not None and run.usage.peak_memory_bytes is not None
    return measured and not run.out_of_memory and run.need is not None and run.need.memory_mib > failed_mib


def _failed_with(runs: Iterable[Run]) -> int | None:
    """The most memory in MiB of a run that ran out of memory; `None` if none did."""
    return max((run.need.memory_mib for run in runs if run.out_of_memory and run.need is not None), default=None)


def _more_than(mib: int) -> int:
    return _rounded(mib + 1)


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
