"""EC2 instance types: which ones a compute environment may start, and whether an electron fits on one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.queues import Environment

USABLE_MEMORY, KERNEL_MEMORY_MIB = 0.97, 300
"""Share of an instance's memory that jobs can use: 3 % less, which is enough for large types (meta-pytorch/torchx#645),
and less the memory of firmware and kernel, so that 0.93 is left on small types (Karpenter's vmMemoryOverheadPercent is
0.075). AWS promises no figure: an r5d.xlarge has 31,672 of 32,768 MiB (ASFHyP3/hyp3#582)."""

RESERVED_MEMORY_MIB = 32
"""``ECS_RESERVED_MEMORY`` on AWS Batch's default AMI (User Guide, Memory management)."""

BUNDLES: dict[str, tuple[str, ...]] = {
    "default_x86_64": ("m6i", "c6i", "r6i", "c7i"),
    "optimal": ("m6i", "c6i", "r6i", "c7i"),
    "default_arm64": ("m6g", "c6g", "r6g", "c7g"),
}
"""Families that AWS Batch's own names stand for (Batch API Reference, ComputeResource, instanceTypes)."""

_GRAVITON = re.compile(r"a1|[a-z]+\d+g[a-z]*")
"""Families with AWS's own processors: ``g`` follows the generation (EC2 User Guide, Naming conventions)."""


def architecture_of(name: str) -> str:
    """Architecture of a size, a family or a bundle, by its name: ``"x86_64"`` or ``"arm64"``."""
    if name in BUNDLES:
        return "arm64" if name == "default_arm64" else "x86_64"
    return "arm64" if _GRAVITON.fullmatch(name.partition(".")[0]) else "x86_64"


LEAST_DISK_GIB = 50
"""Disk for the system of a GPU instance and an image with CUDA. An instance whose disk is smaller than the snapshot of
its AMI does not start (EC2 API Reference, EbsBlockDevice, VolumeSize), and AWS's GPU AMIs grow."""

ZONES_WANTED = 2
"""Zones that a queue should have: with a single zone, jobs wait when that zone has no capacity."""

FILTER_VALUES = 200
"""Values in one filter, at most (EC2 User Guide, List and filter your resources)."""


def usable_memory_mib(memory_mib: int) -> int:
    """Memory that jobs can use on an instance with so much memory."""
    return max(0, int(memory_mib * USABLE_MEMORY) - KERNEL_MEMORY_MIB - RESERVED_MEMORY_MIB)


class InstanceType(NamedTuple):
    """An EC2 instance type, as EC2 describes it.

    Attributes:
        name: ``"g5.xlarge"``.
        vcpus: vCPUs.
        memory_mib: Memory in all.
        gpus: NVIDIA GPUs; AWS Batch cannot use others.
        architecture: ``"x86_64"`` or ``"arm64"``.
    """

    name: str
    vcpus: int
    memory_mib: int
    gpus: int
    architecture: str

    @property
    def usable_memory_mib(self) -> int:
        """Memory that one job can ask for, at most."""
        return usable_memory_mib(self.memory_mib)


class Need(NamedTuple):
    """vCPUs, memory and GPUs that one electron asks for. Parts of a vCPU only on Fargate."""

    vcpus: float
    memory_mib: int
    gpus: int

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.vcpus:g} vCPU, {self.memory_mib} MiB{gpus}"

    def fits(self, kind: InstanceType) -> bool:
        """Whether the electron fits on an instance of this type."""
        return self.vcpus <= kind.vcpus and self.memory_mib <= kind.usable_memory_mib and self.gpus <= kind.gpus


def disk(size_gib: int, where: Where) -> Finding:
    """Whether the disks of instances have room for the system of a GPU instance."""
    if size_gib < LEAST_DISK_GIB:
        return Finding(
            "disk",
            "",
            FAILURE,
            f"the instances' disks have {size_gib} GiB: one for GPUs may not start, and an image with CUDA not fit",
            f"`{where.cirro('deploy')} --parameter DiskSizeGib=100`",
        )
    return Finding("disk", "", OK, f"the instances' disks have {size_gib} GiB")


def patterns(names: Iterable[str]) -> list[str]:
    """Values for the filter ``instance-type``, from the ``instanceTypes`` of a compute environment.

    A size stays as it is; a family becomes ``family.*``, a bundle the patterns of its families.
    """
    found: dict[str, None] = {}
    for name in names:
        for each in BUNDLES.get(name, (name,)):
            found[each if "." in each else f"{each}.*"] = None
    return list(found)


def filters(names: Iterable[str]) -> list[list[str]]:
    """The `patterns`, in lists for one call of DescribeInstanceTypes each."""
    wanted = patterns(names)
    return [wanted[begin : begin + FILTER_VALUES] for begin in range(0, len(wanted), FILTER_VALUES)]


def parse_instance_type(described: Mapping[str, Any]) -> InstanceType:
    """Parse one entry of DescribeInstanceTypes' ``InstanceTypes``."""
    gpus = described.get("GpuInfo", {}).get("Gpus", [])
    architectures = described["ProcessorInfo"]["SupportedArchitectures"]
    return InstanceType(
        name=described["InstanceType"],
        vcpus=int(described["VCpuInfo"]["DefaultVCpus"]),
        memory_mib=int(described["MemoryInfo"]["SizeInMiB"]),
        gpus=sum(int(gpu["Count"]) for gpu in gpus if gpu.get("Manufacturer") == "NVIDIA"),
        architecture=next((each for each in architectures if each != "i386"), ""),
    )


def of_environment(names: Iterable[str], known: Mapping[str, InstanceType]) -> list[InstanceType]:
    """The types that a compute environment may start, smallest first; families come without their metal sizes."""
    found: dict[str, InstanceType] = {}
    for pattern in patterns(names):
        if pattern in known:
            found[pattern] = known[pattern]
        family = pattern.removesuffix("*")
        if family != pattern:
            found.update(
                (name, kind) for name, kind in known.items() if name.startswith(family) and not _is_metal(name)
            )
    return sorted(found.values(), key=lambda kind: (kind.gpus, kind.vcpus, kind.memory_mib, kind.name))


def missing(names: Iterable[str], known: Mapping[str, InstanceType]) -> list[str]:
    """The names among a compute environment's ``instanceTypes`` that stand for no type in the region."""
    return [name for name in names if not of_environment([name], known)]


def zones_with(kinds: Iterable[InstanceType], offered: Mapping[str, frozenset[str]], zones: Iterable[str]) -> list[str]:
    """The zones in which at least one of the types is offered.

    Args:
        kinds: Instance types.
        offered: By type, the zones of the region that have it.
        zones: Zones of the subnets.
    """
    anywhere: set[str] = set()
    for kind in kinds:
        anywhere |= offered.get(kind.name, frozenset())
    return sorted(anywhere & set(zones))


def shortfall(need: Need, kinds: Sequence[InstanceType]) -> str:
    """Why an electron fits on none of these types: what it asks for, and the most that a type has."""
    if not kinds:
        return "there is no instance type"
    most = Need(
        max(kind.vcpus for kind in kinds),
        max(kind.usable_memory_mib for kind in kinds),
        max(kind.gpus for kind in kinds),
    )
    over = [
        f"{asked:.12g} {unit} of at most {there:.12g}"
        for asked, there, unit in (
            (need.vcpus, most.vcpus, "vCPU"),
            (need.memory_mib, most.memory_mib, "MiB of memory"),
            (need.gpus, most.gpus, "GPU"),
        )
        if asked > there
    ]
    return "it asks for " + ", ".join(over) if over else "no single type has all of it together"


def _is_metal(name: str) -> bool:
    return ".metal" in name


# --- findings ---------------------------------------------------------------------------------------------------------


def instance_types(
    environment: Environment,
    known: Mapping[str, InstanceType],
    offered: Mapping[str, frozenset[str]],
    zones: Iterable[str],
    where: Where,
) -> Finding:
    """Whether a region has what a compute environment asks for, in enough of its zones.

    Args:
        environment: The compute environment.
        known: The region's instance types by name; at least those that the environment may start.
        offered: By type, the zones of the region that have it.
        zones: Zones of the environment's subnets.
        where: The deployment.
    """
    id, name = "instance_types", environment.name
    kind = "Gpu" if any(kind.gpus for kind in known.values()) else "Cpu"
    parameter = f"{'MultiNode' if environment.placement_group else kind}InstanceTypes"
    remedy = f"Give others: `{where.cirro('deploy')} --parameter {parameter}=...`"
    absent = missing(environment.instance_types, known)
    kinds = of_environment(environment.instance_types, known)
    if not kinds:
        return Finding(id, name, FAILURE, f"{where.region} has no {', '.join(absent)}", remedy)
    own_zones = sorted(set(zones))
    there = zones_with(kinds, offered, own_zones)
    if not there:
        told = f"{', '.join(environment.instance_types)} are not offered in its zones {', '.join(own_zones)}"
        return Finding(id, name, FAILURE, told, remedy)
    if absent:
        return Finding(id, name, WARNING, f"{where.region} has no {', '.join(absent)}; it has the others", remedy)
    # A cluster placement group is in one zone.
    if len(there) < ZONES_WANTED and not environment.placement_group:
        told = f"only {there[0]} of its zones has {', '.join(environment.instance_types)}"
        return Finding(
            id,
            name,
            WARNING,
            f"{told}: when it has no capacity, jobs wait",
            f"{remedy}, or more zones: --parameter Zones=3.",
        )
    return Finding(id, name, OK, f"{len(kinds)} types of {', '.join(environment.instance_types)} in {', '.join(there)}")


def fit(
    queue: str,
    need: Need,
    environments: Sequence[tuple[Environment, Sequence[InstanceType]]],
    image_architecture: str,
    where: Where,
    *,
    nodes: int = 1,
) -> Finding:
    """Whether some instance behind a queue is large enough for what an electron asks for.

    Args:
        queue: Name of the queue.
        need: What the electron asks for; of one on several machines, each machine.
        environments: The queue's compute environments, each with the types it may start.
        image_architecture: Architecture of the electron's image; empty where it is not known.
        where: The deployment.
        nodes: Machines of the electron.
    """
    wants = f"an electron with {need}" if nodes == 1 else f"an electron with {need} on each of {nodes} machines"
    kinds = [kind for _, each in environments for kind in each]
    fitting = [kind for kind in kinds if need.fits(kind)]
    if not fitting:
        return Finding(
            "fit",
            queue,
            FAILURE,
            f"{wants} fits on no instance behind {queue}: {shortfall(need, kinds)} (the system keeps some "
            "of the memory: 7 % of 8 GiB, 4 % of 64 GiB)",
            "Ask for less, or deploy larger instance types: it would stay RUNNABLE for ever.",
        )
    most = max(environment.max_vcpus for environment, _ in environments)
    if need.vcpus * nodes > most:
        return Finding(
            "fit",
            queue,
            FAILURE,
            f"{wants} needs more vCPUs than the compute environments behind {queue} may have ({most})",
            f"Ask for less, or raise their maximum: `{where.cirro('deploy')} --parameter ...MaxVcpus=...`",
        )
    built = [kind for kind in fitting if image_architecture in ("", kind.architecture)]
    if not built:
        machines = ", ".join(sorted({kind.architecture for kind in fitting}))
        return Finding(
            "fit",
            queue,
            FAILURE,
            f"the image is for {image_architecture}, the instances behind {queue} are {machines}: "
            "its program would not start (exec format error)",
            "`cirro image build --platform ...`, then `cirro image push`.",
        )
    least = min(built, key=lambda kind: (kind.gpus, kind.vcpus, kind.memory_mib))
    return Finding("fit", queue, OK, f"{wants} fits on {len(built)} types behind {queue}, from {least.name}")


def fit_on_fargate(queue: str, need: Need, environments: Sequence[Environment], where: Where) -> Finding:
    """Whether an electron on Fargate fits into what a queue may have.

    Args:
        queue: Name of the queue.
        need: What the electron asks for, with a size that Fargate has.
        environments: The queue's compute environments.
        where: The deployment.
    """
    others = [each.name for each in environments if not each.on_fargate]
    if others or not environments:
        return Finding(
            "fit",
            queue,
            FAILURE,
            f"{', '.join(others) or 'nothing'} is behind {queue}, which is no queue for Fargate",
            f"`{where.cirro('deploy')} --parameter FargateMaxVcpus=64` makes one and sets batch_fargate_queue.",
        )
    most = max(each.max_vcpus for each in environments)
    if need.vcpus > most:
        return Finding(
            "fit",
            queue,
            FAILURE,
            f"an electron with {need} needs more vCPUs than the compute environments behind {queue} may have ({most})",
            f"Ask for less, or raise their maximum: `{where.cirro('deploy')} --parameter FargateMaxVcpus=...`",
        )
    return Finding("fit", queue, OK, f"an electron with {need} fits on Fargate")
