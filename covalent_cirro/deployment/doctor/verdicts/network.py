"""Whether instances in a subnet can reach the AWS services that run jobs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, Finding

ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "logs", "s3")
"""VPC endpoints that instances without a route to the internet need (ECS and ECR guides, VPC endpoints)."""

FARGATE_ENDPOINTS = ("ecr.api", "ecr.dkr", "logs", "s3")
"""The same for jobs on Fargate, which need none of ECS (AWS Batch User Guide, Interface VPC endpoints)."""


class Subnet(NamedTuple):
    """A subnet of a compute environment.

    Attributes:
        id: Id of the subnet, ``"subnet-..."``.
        zone: Its availability zone.
        public_ip: Whether instances get a public address when they start.
        way_out: Target of its default route: ``"igw-..."``, ``"nat-..."``; `None` without a default route;
            ``"blackhole"`` where the target was deleted.
        endpoints: Services that it reaches by VPC endpoints, named as in `ENDPOINTS`.
    """

    id: str
    zone: str
    public_ip: bool
    way_out: str | None
    endpoints: frozenset[str]


def why_cut_off(subnet: Subnet, also: Collection[str] = (), needed: Sequence[str] = ENDPOINTS) -> str | None:
    """Why machines in a subnet cannot reach ECS, ECR, S3, CloudWatch Logs and other services; `None` if they can.

    A job on Fargate gets a public address where an instance in its subnets would (`electron.engine.fargate_queues`).

    Args:
        subnet: The subnet.
        also: Services with secrets of electrons, named as in `ENDPOINTS`.
        needed: VPC endpoints that are enough without a route out.
    """
    absent = [name for name in (*needed, *sorted(also)) if name not in subnet.endpoints]
    if not absent:
        return None
    if subnet.way_out is None:
        return f"it has no route out, and no VPC endpoint for {', '.join(absent)}"
    if subnet.way_out == "blackhole":
        return "its route out leads to a gateway that is gone (blackhole)"
    if subnet.way_out.startswith("igw-") and not subnet.public_ip:
        return "its route out is an internet gateway, but its instances get no public address"
    return None


def network(
    environment: str,
    subnets: Sequence[Subnet],
    absent: Sequence[str],
    also: Collection[str] = (),
    needed: Sequence[str] = ENDPOINTS,
) -> Finding:
    """Whether machines of a compute environment can join its cluster, pull images, read secrets and write logs.

    Args:
        environment: Name of the compute environment.
        subnets: Its subnets that exist.
        absent: Ids of its subnets that do not exist.
        also: Services with secrets of electrons, named as in `ENDPOINTS`.
        needed: VPC endpoints that are enough without a route out.
    """
    if absent:
        return Finding(
            "network",
            environment,
            FAILURE,
            f"subnet {', '.join(absent)} does not exist any more",
            "`cirro deploy` repairs the network; a compute environment of your own needs other subnets.",
        )
    cut_off = [(subnet.id, why) for subnet in subnets if (why := why_cut_off(subnet, also, needed)) is not None]
    if cut_off:
        return Finding(
            "network",
            environment,
            FAILURE,
            "machines cannot reach AWS: " + "; ".join(f"{id}: {why}" for id, why in cut_off),
            "Give the subnet a route to a NAT or internet gateway (with public addresses), or these VPC endpoints.",
        )
    outs = sorted({subnet.way_out.split("-")[0] if subnet.way_out else "VPC endpoints" for subnet in subnets})
    ways = {"igw": "an internet gateway", "nat": "a NAT gateway"}
    zones = sorted({subnet.zone for subnet in subnets})
    return Finding(
        "network",
        environment,
        OK,
        f"{len(subnets)} subnets in {', '.join(zones)}, out by {', '.join(ways.get(out, out) for out in outs)}",
    )
