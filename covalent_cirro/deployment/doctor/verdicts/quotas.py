"""Findings about the account's vCPU quotas and what compute environments may need of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.machines import InstanceType

QUOTAS: dict[tuple[str, bool], str] = {
    ("Standard (A, C, D, H, I, M, R, T, Z)", False): "L-1216C47A",
    ("Standard (A, C, D, H, I, M, R, T, Z)", True): "L-34B43A08",
    ("G and VT", False): "L-DB2E81BA",
    ("G and VT", True): "L-3819A6DF",
    ("P", False): "L-417A185B",
    ("P4, P3 and P2", True): "L-7212CCBC",
    ("P5", True): "L-C4BD4855",
    ("F", False): "L-74FC7D96",
    ("F", True): "L-88CF9481",
    ("Inf", False): "L-1945791B",
    ("Inf", True): "L-B5D1601B",
    ("Trn", False): "L-2C3B7624",
    ("Trn", True): "L-6B0D517C",
    ("DL", False): "L-6E869C2A",
    ("DL", True): "L-85EED4F7",
    ("X", False): "L-7295265B",
    ("X", True): "L-E3A00192",
    ("HPC", False): "L-F7808C92",
    ("High Memory", False): "L-43DA4232",
}
"""Codes of vCPU quotas, by group of families and Spot (AWS General Reference, EC2 instance type quotas)."""

FARGATE = {False: "L-3032A538", True: "L-36FBB829"}
"""Codes of the quotas of vCPUs on Fargate, on demand and on Spot (AWS General Reference, AWS Fargate quotas)."""

FARGATE_GROUP = "Fargate"

_GROUPS = {
    "g": "G and VT",
    "gr": "G and VT",
    "vt": "G and VT",
    "f": "F",
    "inf": "Inf",
    "trn": "Trn",
    "dl": "DL",
    "x": "X",
    "hpc": "HPC",
    "u": "High Memory",
}
_STANDARD = frozenset("acdhimrtz")


class Quota(NamedTuple):
    """A quota of vCPUs.

    Attributes:
        code: Code of the quota, ``"L-DB2E81BA"``.
        group: Families that it is for, in AWS's words.
        spot: Whether it is for Spot instances.
    """

    code: str
    group: str
    spot: bool

    @property
    def name(self) -> str:
        """Name of the quota in the Service Quotas console."""
        if self.group == FARGATE_GROUP:
            return f"Fargate {'Spot' if self.spot else 'On-Demand'} vCPU resource count"
        return f"All {self.group} Spot Instance Requests" if self.spot else f"Running On-Demand {self.group} instances"

    @property
    def service(self) -> str:
        """The service that has the quota, in the words of Service Quotas."""
        return "fargate" if self.group == FARGATE_GROUP else "ec2"


def quota_of(instance_type: str, *, spot: bool) -> Quota | None:
    """The quota that an instance type counts against; `None` if unknown."""
    letters, generation = re.match(r"([a-z]*)(\d*)", instance_type).groups()  # type: ignore[union-attr]
    group = _GROUPS.get(letters)
    if group is None and letters == "p":
        group = (
            "P"
            if not spot
            else {"2": "P4, P3 and P2", "3": "P4, P3 and P2", "4": "P4, P3 and P2", "5": "P5"}.get(generation)
        )
    elif group is None and letters[:1] in _STANDARD:
        group = "Standard (A, C, D, H, I, M, R, T, Z)"
    code = QUOTAS.get((group, spot)) if group is not None else None
    return None if group is None or code is None else Quota(code, group, spot)


class Demand(NamedTuple):
    """What compute environments may need of a quota.

    Attributes:
        quota: The quota.
        max_vcpus: Sum of ``maxvCpus`` of the compute environments.
        least_vcpus: vCPUs of the smallest instance type; a smaller quota allows no instance.
        environments: Names of the compute environments whose instance types count against the quota.
        alone: Names of those whose instance types all count against this quota.
    """

    quota: Quota
    max_vcpus: int
    least_vcpus: int
    environments: tuple[str, ...]
    alone: tuple[str, ...]


def demands(environments: Iterable[tuple[str, bool, int, Sequence[InstanceType]]]) -> list[Demand]:
    """What compute environments may need of the account's quotas.

    Args:
        environments: For each one: name, whether it is Spot, ``maxvCpus``, and its instance types.
    """
    found: dict[str, Demand] = {}
    for name, spot, max_vcpus, kinds in environments:
        least: dict[Quota, int] = {}
        for kind in kinds:
            quota = quota_of(kind.name, spot=spot)
            if quota is not None:
                least[quota] = min(least.get(quota, kind.vcpus), kind.vcpus)
        for quota, vcpus in least.items():
            before = found.get(quota.code, Demand(quota, 0, vcpus, (), ()))
            found[quota.code] = Demand(
                quota,
                before.max_vcpus + max_vcpus,
                min(before.least_vcpus, vcpus),
                (*before.environments, name),
                (*before.alone, name) if len(least) == 1 else before.alone,
            )
    return list(found.values())


def fargate_demands(environments: Iterable[tuple[str, bool, int]]) -> list[Demand]:
    """What compute environments of Fargate may need of the account's quotas.

    Args:
        environments: For each one: name, whether it is Spot, and ``maxvCpus``.
    """
    found: dict[bool, Demand] = {}
    for name, spot, max_vcpus in environments:
        before = found.get(spot, Demand(Quota(FARGATE[spot], FARGATE_GROUP, spot), 0, 1, (), ()))
        names = (*before.environments, name)
        found[spot] = before._replace(max_vcpus=before.max_vcpus + max_vcpus, environments=names, alone=names)
    return list(found.values())


def quota(demand: Demand, allowed: float, where: Where) -> Finding:
    """Whether a quota is large enough for the compute environments.

    Args:
        demand: What the compute environments may need.
        allowed: The quota's value: vCPUs that may run at the same time.
        where: The deployment.
    """
    code, service = demand.quota.code, demand.quota.service
    link = f"https://{where.region}.console.aws.amazon.com/servicequotas/home/services/{service}/quotas/{code}"
    seen = f"{demand.quota.name}: {allowed:g} vCPUs"
    if allowed < demand.least_vcpus:
        # A compute environment with families of another quota can still start those.
        level = FAILURE if demand.alone else WARNING
        gpu = demand.quota.group.startswith(("G and", "P"))
        without = " Or deploy without: --parameter Gpu{Spot,OnDemand}MaxVcpus=0." if gpu else ""
        return Finding(
            "quota",
            code,
            level,
            f"{seen}, and the smallest machine of {', '.join(demand.environments)} has {demand.least_vcpus}: "
            "nothing of it can start",
            f"Ask AWS for {demand.max_vcpus} (hours to days): {link}.{without}",
        )
    if allowed < demand.max_vcpus:
        return Finding(
            "quota",
            code,
            WARNING,
            f"{seen}, and {', '.join(demand.environments)} may want {demand.max_vcpus}: jobs beyond it wait",
            f"Ask AWS for more where you need it: {link}",
        )
    return Finding("quota", code, OK, f"{seen}; {demand.max_vcpus} are wanted at most")
