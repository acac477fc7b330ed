"""Capacity: compute environments grow and shrink emulated instances, and jobs are placed on them.

Decides on the data of `model` and the table of EC2's instance types. It must not know processes.
"""

from __future__ import annotations

import functools
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from covalent_cirro.jobs.machines import usable_memory_mib
from covalent_cirro.local.emulator.batch.consumables import ConsumableResource
from covalent_cirro.local.emulator.batch.model import ComputeEnvironment, Host, Job, JobQueue, Needs, SchedulingPolicy
from covalent_cirro.local.emulator.moto_internals import moto_ec2

DEFAULT_FAMILIES = {
    "default_x86_64": ("m6i", "c6i", "r6i", "c7i"),
    "optimal": ("m6i", "c6i", "r6i", "c7i"),
    "default_arm64": ("m6g", "c6g", "r6g", "c7g"),
}
"""Instance families behind the bundles' names (API model, ComputeResource.instanceTypes)."""

NO_TYPE_FITS = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than that "
    "can be met by the CE(s) attached to the job queue."
)
MAX_VCPUS_TOO_SMALL = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - The maxvCpus of the CE(s) attached to the job queue is less "
    "than the vCPUs that the job requires."
)
ALL_INVALID = "ACTION_REQUIRED - CE(s) associated with the job queue are invalid."
NO_CAPACITY = (
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for instance type [{}]"
)


FARGATE_START = 0.25
"""Time until a task on Fargate starts, as a part of the time until a new instance takes jobs: "Fargate ... typically
takes 30 seconds", an instance minutes (User Guide, Best practices)."""


class InstanceType(NamedTuple):
    """An EC2 instance type. ``memory_mib`` is what jobs can have of it."""

    name: str
    vcpus: int
    memory_mib: int
    gpus: int
    architecture: str
    metal: bool


@functools.lru_cache(maxsize=1)
def instance_types() -> dict[str, InstanceType]:
    """EC2's instance types by name, read once."""
    types = {}
    for name, facts in moto_ec2.instance_type_table().items():
        gpus = sum(
            gpu["Count"] for gpu in facts.get("GpuInfo", {}).get("Gpus", []) if gpu.get("Manufacturer") == "NVIDIA"
        )
        types[name] = InstanceType(
            name=name,
            vcpus=facts["VCpuInfo"]["DefaultVCpus"],
            memory_mib=usable_memory_mib(facts["MemoryInfo"]["SizeInMiB"]),
            gpus=gpus,
            architecture=facts["ProcessorInfo"]["SupportedArchitectures"][0],
            metal=bool(facts.get("BareMetal")),
        )
    return types


@functools.lru_cache(maxsize=256)
def expand(names: tuple[str, ...]) -> tuple[InstanceType, ...]:
    """The instance types behind sizes, families and bundles; smallest first.

    Raises:
        KeyError: A name that is none of these.
    """
    table = instance_types()
    found: dict[str, InstanceType] = {}
    for name in names:
        if name in table:
            found[name] = table[name]
            continue
        families = DEFAULT_FAMILIES.get(name, (name,))
        members = [each for each in table.values() if each.name.split(".")[0] in families and not each.metal]
        if not members:
            raise KeyError(name)
        found.update((each.name, each) for each in members)
    return tuple(sorted(found.values(), key=lambda each: (each.gpus, each.vcpus, each.memory_mib, each.name)))


@dataclass
class Fleet:
    """All hosts of one account and region.

    Attributes:
        region: For ARNs.
        account: For ARNs.
        boot_s: Seconds here until a new host is ready.
        quota_vcpus: vCPUs of all hosts together, as EC2's quota; `None` for no limit. A job over it just waits.
        no_capacity: Whether a fault keeps a compute environment from an instance for a job now.
        drains: Whether the ECS agent of a compute environment's new instances drains them at a Spot interruption
            notice.
        environments: By ARN.
        policies: Scheduling policies by ARN.
        consumables: Consumable resources by ARN.
        hosts: By instance id.
    """

    region: str
    account: str
    boot_s: Callable[[], float]
    quota_vcpus: float | None = None
    no_capacity: Callable[[ComputeEnvironment, Job], bool] = lambda environment, job: False
    drains: Callable[[ComputeEnvironment], bool] = lambda environment: False
    environments: dict[str, ComputeEnvironment] = field(default_factory=dict)
    policies: dict[str, SchedulingPolicy] = field(default_factory=dict)
    consumables: dict[str, ConsumableResource] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)

    def place(self, job: Job, queue: JobQueue, now: float) -> tuple[list[Host], str | None]:
        """A host for the job, or one for each of its nodes, which may still boot; or none, and why.

        The reason is `None` if the job only has to wait.
        """
        environments = [self.environments[arn] for arn in queue.order if arn in self.environments]
        usable = [environment for environment in environments if environment.usable]
        if not usable:
            invalid = all(environment.status == "INVALID" for environment in environments)
            return [], ALL_INVALID if invalid else None
        if not job.nodes:
            for environment in usable:  # existing hosts first, then new ones
                host = self._existing(environment, job.needs, now)
                if host is not None:
                    return [host], None
        reasons = []
        for environment in usable:
            grow = self._place_nodes if job.nodes else self._grow
            hosts, reason = grow(environment, job, now)
            if hosts:
                return hosts, None
            reasons.append(reason)
        return [], None if None in reasons else reasons[0]

    def settle(self, now: float, idle_s: float) -> float:
        """Terminate idle hosts, keep ``minvCpus`` running; returns the time at which this has to be called again."""
        due = float("inf")
        for environment in self.environments.values():
            if environment.fargate:
                continue
            minimum = float(environment.resources.get("minvCpus", 0))
            hosts = self.of(environment)
            have = sum(host.vcpus for host in hosts)
            while have < minimum and environment.status in ("VALID", "UPDATING"):
                host = self._boot(environment, expand(tuple(environment.resources["instanceTypes"]))[0], now)
                have += host.vcpus
            for host in sorted(hosts, key=lambda host: host.idle_since or now):
                if host.idle_since is None or have - host.vcpus < minimum:
                    continue
                if host.idle_since + idle_s <= now:
                    self.release(host)
                    have -= host.vcpus
                    due = now  # a job may have waited for its vCPUs
                else:
                    due = min(due, host.idle_since + idle_s)
        return due

    def replace(self, environment: ComputeEnvironment, jobs_end_at: float) -> None:
        """Begin an update of the infrastructure: terminate instances without a job now, others after their jobs.

        Args:
            environment: The compute environment.
            jobs_end_at: Epoch seconds at which jobs that still run are ended.
        """
        for host in self.of(environment):
            if host.jobs:
                host.outdated = True
            else:
                self.release(host)
        if any(host.outdated for host in self.of(environment)):
            environment.status, environment.jobs_end_at = "UPDATING", jobs_end_at

    def end_updates(self) -> None:
        """Terminate old instances without a job; compute environments that have no old instance left become VALID."""
        for environment in self.environments.values():
            if environment.jobs_end_at is None:
                continue
            old = [host for host in self.of(environment) if host.outdated]
            for host in old:
                if not host.jobs:
                    self.release(host)
            if not any(host.jobs for host in old):
                environment.status, environment.jobs_end_at = "VALID", None

    def of(self, environment: ComputeEnvironment) -> list[Host]:
        """The hosts of a compute environment."""
        return [host for host in self.hosts.values() if host.environment is environment]

    def release(self, host: Host) -> None:
        """Terminate a host."""
        self.hosts.pop(host.instance_id, None)

    def _existing(self, environment: ComputeEnvironment, needs: Needs, now: float) -> Host | None:
        fitting = [host for host in self.of(environment) if host.takes_jobs and host.fits(needs)]
        # Ready before booting; then the fullest, so that others become idle; GPUs are kept for jobs that need them.
        return min(
            fitting,
            key=lambda host: (max(host.ready_at, now), len(host.gpu_ids) > needs.gpus, -host.used_vcpus),
            default=None,
        )

    def _place_nodes(self, environment: ComputeEnvironment, job: Job, now: float) -> tuple[list[Host], str | None]:
        """A host of its own for each node, all of one type and all at once; or none.

        AWS does not support such jobs on Spot and Fargate (User Guide, Compute environment considerations for MNP).
        What becomes of one in a queue that has nothing else is not said; here it stays RUNNABLE, as one that fits
        nowhere.
        """
        kinds = _kinds_for_nodes(environment, job)
        if not kinds:
            return [], NO_TYPE_FITS
        count, hosts = len(job.nodes), self.of(environment)
        empty = [
            [host for host in hosts if host.instance_type == kind.name and host.takes_jobs and not host.jobs]
            for kind in kinds
        ]
        enough = next((each for each in empty if len(each) >= count), None)
        if enough is not None:
            return sorted(enough, key=lambda host: host.ready_at)[:count], None
        kind, more = kinds[0], count - len(empty[0])
        # As for one job: AWS may exceed maxvCpus by one instance, and so does this.
        if (count - 1) * kind.vcpus >= environment.max_vcpus:
            return [], MAX_VCPUS_TOO_SMALL
        if sum(host.vcpus for host in hosts) + (more - 1) * kind.vcpus >= environment.max_vcpus:
            return [], None
        used = sum(host.vcpus for host in self.hosts.values())
        if self.quota_vcpus is not None and used + more * kind.vcpus > self.quota_vcpus:
            return [], None
        if self.no_capacity(environment, job):
            return [], NO_CAPACITY.format(kind.name)
        return [*empty[0], *(self._boot(environment, kind, now) for _ in range(more))], None

    def _grow(self, environment: ComputeEnvironment, job: Job, now: float) -> tuple[list[Host], str | None]:
        needs = job.needs
        have = sum(host.vcpus for host in self.of(environment))
        if environment.fargate:
            if needs.gpus:
                return [], NO_TYPE_FITS
            kind = InstanceType("fargate", 0, needs.memory_mib, 0, "x86_64", metal=False)
        else:
            types = [
                kind
                for kind in expand(tuple(environment.resources["instanceTypes"]))
                if kind.vcpus >= needs.vcpus and kind.memory_mib >= needs.memory_mib and kind.gpus >= needs.gpus
            ]
            if not types:
                return [], NO_TYPE_FITS
            kind = types[0]
        if needs.vcpus > environment.max_vcpus:
            return [], MAX_VCPUS_TOO_SMALL
        if have + needs.vcpus > environment.max_vcpus:
            return [], None  # AWS may exceed maxvCpus by one instance, and so does this
        size = needs.vcpus if environment.fargate else kind.vcpus
        if self.quota_vcpus is not None:
            used = sum(host.vcpus for host in self.hosts.values())
            if used and used + size > self.quota_vcpus:
                return [], None
        if self.no_capacity(environment, job):
            return [], NO_CAPACITY.format(kind.name)
        return [self._boot(environment, kind, now, needs if environment.fargate else None)], None

    def _boot(
        self, environment: ComputeEnvironment, kind: InstanceType, now: float, exactly: Needs | None = None
    ) -> Host:
        cluster = f"{environment.name}_Batch_{environment.uuid}"
        host = Host(
            instance_id=f"i-{secrets.token_hex(9)[:17]}",
            arn=f"arn:aws:ecs:{self.region}:{self.account}:container-instance/{cluster}/{secrets.token_hex(16)}",
            environment=environment,
            instance_type=kind.name,
            vcpus=kind.vcpus if exactly is None else exactly.vcpus,
            memory_mib=kind.memory_mib,
            gpu_ids=sorted(f"GPU-{uuid.uuid4()}" for _ in range(kind.gpus)),
            ready_at=now + self.boot_s() * (1.0 if exactly is None else FARGATE_START),
            single_use=exactly is not None,
            drains=exactly is None and self.drains(environment),
        )
        self.hosts[host.instance_id] = host
        return host


def _kinds_for_nodes(environment: ComputeEnvironment, job: Job) -> list[InstanceType]:
    """The types of a compute environment that each node of a job fits on; smallest first."""
    if environment.resources["type"] != "EC2" or job.node_properties is None:
        return []
    named = {name for each in job.node_properties["nodeRangeProperties"] for name in each.get("instanceTypes") or ()}
    needs = [node.needs for node in job.nodes]
    return [
        kind
        for kind in expand(tuple(environment.resources["instanceTypes"]))
        if kind.vcpus >= max(each.vcpus for each in needs)
        and kind.memory_mib >= max(each.memory_mib for each in needs)
        and kind.gpus >= max(each.gpus for each in needs)
        and named <= {kind.name}
    ]
