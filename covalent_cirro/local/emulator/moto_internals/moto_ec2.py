"""Reads EC2 of moto: instance types, zones, launch templates; replaces how it describes instance types."""

from __future__ import annotations

import fnmatch
import functools
import gzip
import json
from typing import Any

from covalent_cirro.local.emulator import open_emulators
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING, data_file, once, replace

# --- tables that moto carries -----------------------------------------------------------------------------------------


def instance_type_table() -> dict[str, Json]:
    """EC2's instance types by name, as DescribeInstanceTypes describes them. Takes 40 ms, without importing moto."""
    with gzip.open(data_file("ec2", "resources", "instance_types.json.gz")) as file:
        table: dict[str, Json] = json.load(file)
    return table


@functools.lru_cache(maxsize=8)
def offers(region: str) -> dict[str, tuple[str, ...]]:
    """By instance type, the zones of a region that have it. Without importing moto."""
    path = data_file("ec2", "resources", "instance_type_offerings", "availability-zone", f"{region}.json.gz")
    if not path.exists():
        return {}
    found: dict[str, list[str]] = {}
    with gzip.open(path) as file:
        for offer in json.load(file):
            found.setdefault(offer["InstanceType"], []).append(offer["Location"])
    return {name: tuple(zones) for name, zones in found.items()}


# --- what an account has ----------------------------------------------------------------------------------------------


def zones(region: str) -> list[str]:
    """Names of a region's availability zones."""
    with IMPORTING:
        from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

    return [zone.name for zone in RegionsAndZonesBackend.zones.get(region, [])]


def user_data(account: str, region: str, launch_template: Json) -> str:
    """The user data in a version of a launch template; empty where the template, the version or the data is not there.

    Args:
        launch_template: As ``computeResources.launchTemplate`` names it.
    """
    with IMPORTING:
        from moto.ec2.exceptions import EC2ClientError
        from moto.ec2.models import ec2_backends

    ec2 = ec2_backends[account][region]
    try:
        template = (
            ec2.get_launch_template(launch_template["launchTemplateId"])
            if launch_template.get("launchTemplateId")
            else ec2.get_launch_template_by_name(launch_template.get("launchTemplateName", ""))
        )
        found = template.get_version(launch_template.get("version") or "$Default").data.get("UserData")
    except EC2ClientError:
        return ""
    return "" if found is None else str(found.decode())


def add_launch_template_version(template: Any, data: Json) -> None:
    """Add a version to a launch template of moto's.

    Args:
        template: moto's object.
        data: ``LaunchTemplateData`` of the version.
    """
    from moto.ec2.utils import parse_user_data

    template.create_version({**data, "UserData": parse_user_data(data.get("UserData"))}, "")


def remove_vpc_endpoint(account: str, region: str, endpoint_id: str) -> None:
    """Remove a VPC endpoint with its network interfaces and routes. Does nothing where there is none.

    moto's own deletion leaves interfaces and routes, and the endpoint in the state ``deleted``; in EC2 it is removed.
    """
    from moto.ec2.models import ec2_backends

    ec2 = ec2_backends[account][region]
    found = ec2.vpc_end_points.pop(endpoint_id, None)
    if found is None:
        return
    for interface in found.network_interface_ids:
        ec2.enis.pop(interface, None)
    for table in ec2.route_tables.values():
        for name in [name for name, route in table._routes.items() if route.gateway is found]:
            del table._routes[name]


# --- replacements -----------------------------------------------------------------------------------------------------

_FILTERED = {"instance-type": "InstanceType", "location": "Location"}


@once
def install() -> None:
    """Make EC2 describe the instance types that a region has, not all that exist, and take wildcards in filters."""
    from moto.ec2.models.instance_types import InstanceTypeBackend, InstanceTypeOfferingBackend

    describe: Any = InstanceTypeBackend.describe_instance_types

    def describe_instance_types(self: Any, instance_types: Any = None, filters: Any = None) -> Any:
        found = describe(self, instance_types, filters)
        account = open_emulators.account_of(self.account_id)
        return [each for each in found if account is None or account.zones_of(self.region_name, each["InstanceType"])]

    def describe_offerings(self: Any, location_type: str | None = None, filters: Any = None) -> Any:
        account, region = open_emulators.account_of(self.account_id), self.region_name
        found = []
        for name, all_zones in offers(region).items():
            zones = sorted(all_zones if account is None else account.zones_of(region, name))
            locations = zones if location_type == "availability-zone" else [region][: len(zones)]
            found += [{"InstanceType": name, "Location": location} for location in locations]
        return [
            {**offer, "LocationType": location_type or "region"}
            for offer in found
            if all(
                any(fnmatch.fnmatchcase(offer[_FILTERED[key]], value) for value in values)
                for key, values in (filters or {}).items()
            )
        ]

    replace(InstanceTypeBackend, "describe_instance_types", describe_instance_types)
    replace(InstanceTypeOfferingBackend, "describe_instance_type_offerings", describe_offerings)
