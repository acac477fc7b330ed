"""What a service costs while it runs, whether or not anybody asks it anything. Pure.

Prices come from `aws/serving_prices.py`. What depends on use (capacity units of the load balancer, logs, data sent to
the internet) is no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

HOURS_A_DAY = 24
HOURS_A_MONTH = 730
"""A month as AWS's price pages count it."""

CPU_UNITS = 1024
"""CPU units of a vCPU."""

MIB_PER_GB = 1024
"""Fargate counts memory in GB of 1024 MiB (Fargate pricing page)."""


class ServiceSize(NamedTuple):
    """What a service pays for by the hour.

    Attributes:
        cpu_units: CPU units of a task.
        memory_mib: Memory of a task in MiB.
        arm: Whether tasks run on ARM64.
        public: Whether tasks and load balancer have public addresses.
        zones: Zones of the load balancer, which has an address in each.
    """

    cpu_units: int
    memory_mib: int
    arm: bool
    public: bool
    zones: int


class StandingCost(NamedTuple):
    """One kind of cost: what it is for, and US dollars an hour."""

    what: str
    usd_per_hour: float

    @property
    def usd_per_day(self) -> float:
        """US dollars a day."""
        return self.usd_per_hour * HOURS_A_DAY

    @property
    def usd_per_month(self) -> float:
        """US dollars a month of 730 hours."""
        return self.usd_per_hour * HOURS_A_MONTH


def lines(size: ServiceSize, tasks: int, usd: Mapping[str, float]) -> tuple[StandingCost, ...]:
    """What a service costs by the hour, with so many tasks.

    Args:
        size: What it consists of.
        tasks: Tasks that run.
        usd: Prices by item, from `serving_prices.ServingPrices`.
    """
    kind = "arm64" if size.arm else "x86_64"
    vcpus, memory_gb = size.cpu_units / CPU_UNITS, size.memory_mib / MIB_PER_GB
    each = vcpus * usd[f"fargate_{kind}_vcpu"] + memory_gb * usd[f"fargate_{kind}_gb"]
    found = [
        StandingCost(f"{tasks} task{'' if tasks == 1 else 's'} of {vcpus:g} vCPU and {memory_gb:g} GB", tasks * each),
        StandingCost("load balancer", usd["load_balancer"]),
    ]
    if size.public:
        addresses = tasks + size.zones
        found.append(StandingCost(f"{addresses} public IPv4 addresses", addresses * usd["public_ipv4"]))
    return tuple(found)


def total(parts: Iterable[StandingCost]) -> StandingCost:
    """The sum."""
    return StandingCost("in all", sum(part.usd_per_hour for part in parts))
