"""Chooses availability zones for a new network: zones with the instance types and, if needed, with VPC endpoints.

The order in which AWS lists zones does not help: old zones lack current instance types, and some zones lack endpoints,
so that CloudFormation would fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from covalent_cirro.deployment.holdings import Client, translated
from covalent_cirro.jobs.machines import BUNDLES, filters

MOST = 3
"""Zones of a network, at most; two of them have endpoints (``infra/network.yaml``)."""

LEAST = 2

ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "logs")
"""Services whose VPC endpoints private subnets need (``infra/network.yaml``)."""


def choose(client: Client, types: Iterable[str], *, private: bool) -> tuple[str, ...]:
    """The zones for a new network, best first; none where the region has fewer than two.

    Args:
        client: Makes boto3 clients.
        types: ``instanceTypes`` of the compute environments: sizes, families and bundles.
        private: Whether the subnets are private: then two zones must have all endpoints.

    Raises:
        AccessDenied, AwsError: EC2 refused or could not be reached.
    """
    ec2 = client("ec2")
    with translated(ec2, "ec2:DescribeAvailabilityZones"):
        described = ec2.describe_availability_zones(
            Filters=[
                {"Name": "state", "Values": ["available"]},
                {"Name": "zone-type", "Values": ["availability-zone"]},
            ]
        )["AvailabilityZones"]
    zones = sorted(each["ZoneName"] for each in described)
    wanted = list(types)
    with_endpoints = _with_endpoints(client, zones) if private else set(zones)
    return best(zones, _kinds_in(wanted, offered_zones(client, wanted)), with_endpoints)


def best(zones: Iterable[str], kinds: Mapping[str, int], with_endpoints: set[str]) -> tuple[str, ...]:
    """The best of the zones. Pure.

    Zones with endpoints come first, then zones with more of the instance types; zones without any are left out.

    Args:
        zones: Names of all zones.
        kinds: By zone, how many of the wanted sizes and families it has.
        with_endpoints: Zones that have all needed endpoints.
    """
    of_use = [zone for zone in zones if kinds.get(zone)]
    order = sorted(of_use, key=lambda zone: (zone not in with_endpoints, -kinds[zone], zone))
    return tuple(order[:MOST]) if len(order) >= LEAST else ()


def offered_zones(client: Client, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """By instance type, the availability zones of the region that have it.

    Args:
        client: Makes boto3 clients.
        names: Sizes, families and bundles.

    Raises:
        AccessDenied, AwsError: EC2 refused or could not be reached.
    """
    ec2 = client("ec2")
    found: dict[str, set[str]] = {}
    for some in filters(names):
        with translated(ec2, "ec2:DescribeInstanceTypeOfferings", ", ".join(some)):
            for page in ec2.get_paginator("describe_instance_type_offerings").paginate(
                LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": some}]
            ):
                for offer in page["InstanceTypeOfferings"]:
                    found.setdefault(offer["InstanceType"], set()).add(offer["Location"])
    return {name: frozenset(zones) for name, zones in found.items()}


def _kinds_in(wanted: Iterable[str], offered: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """By zone, how many of the wanted sizes and families it has; any size of a family counts."""
    kinds = {each for name in wanted for each in BUNDLES.get(name, (name,))}
    count: dict[str, int] = {}
    for kind in kinds:
        sizes = [name for name in offered if kind in (name, name.partition(".")[0])]
        for zone in {zone for name in sizes for zone in offered[name]}:
            count[zone] = count.get(zone, 0) + 1
    return count


def _with_endpoints(client: Client, zones: Iterable[str]) -> set[str]:
    ec2 = client("ec2")
    names = [f"com.amazonaws.{ec2.meta.region_name}.{service}" for service in ENDPOINTS]
    with translated(ec2, "ec2:DescribeVpcEndpointServices", ", ".join(names)):
        details: list[dict[str, Any]] = ec2.describe_vpc_endpoint_services(
            Filters=[{"Name": "service-name", "Values": names}]
        )["ServiceDetails"]
    left = set(zones)
    for each in details:
        left &= set(each["AvailabilityZones"])
    return left
