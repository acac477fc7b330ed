"""The gateway to subnets in EC2: their zones, default routes and VPC endpoints.

It changes nothing; `verdicts/network.py` decides what the facts mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment.doctor.verdicts.network import Subnet


def subnets(clients: Clients, ids: Iterable[str]) -> dict[str, Subnet]:
    """Subnets by id; those that do not exist are left out.

    Raises:
        AccessDenied, AwsError: EC2 refused or could not be reached.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    with clients.asking("ec2:DescribeSubnets", of=", ".join(wanted)) as ec2:
        # By filter: one id that is gone would be an error for all of them.
        pages = ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "subnet-id", "Values": wanted}])
        found = [each for page in pages for each in page["Subnets"]]
    vpcs = sorted({each["VpcId"] for each in found})
    if not vpcs:
        return {}
    of_vpcs = [{"Name": "vpc-id", "Values": vpcs}]
    with clients.asking("ec2:DescribeRouteTables", of=", ".join(vpcs)) as ec2:
        pages = ec2.get_paginator("describe_route_tables").paginate(Filters=of_vpcs)
        tables = [each for page in pages for each in page["RouteTables"]]
    with clients.asking("ec2:DescribeVpcEndpoints", of=", ".join(vpcs)) as ec2:
        pages = ec2.get_paginator("describe_vpc_endpoints").paginate(Filters=of_vpcs)
        endpoints = [each for page in pages for each in page["VpcEndpoints"]]
    made = {}
    for each in found:
        table = _table_of(each, tables)
        made[each["SubnetId"]] = Subnet(
            id=each["SubnetId"],
            zone=each["AvailabilityZone"],
            public_ip=bool(each.get("MapPublicIpOnLaunch")),
            way_out=_way_out(table),
            endpoints=frozenset(_service(endpoint) for endpoint in endpoints if _serves(endpoint, each, table)),
        )
    return made


def _table_of(subnet: dict[str, Any], tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [table for table in tables if table["VpcId"] == subnet["VpcId"]]
    for table in own:
        if any(each.get("SubnetId") == subnet["SubnetId"] for each in table.get("Associations", [])):
            return table
    return next((table for table in own if any(each.get("Main") for each in table.get("Associations", []))), {})


def _way_out(table: dict[str, Any]) -> str | None:
    for route in table.get("Routes", []):
        if route.get("DestinationCidrBlock") != "0.0.0.0/0":
            continue
        if route.get("State") == "blackhole":
            return "blackhole"
        keys = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "InstanceId", "CoreNetworkArn")
        return next((str(route[key]) for key in keys if route.get(key)), None)
    return None


def _serves(endpoint: dict[str, Any], subnet: dict[str, Any], table: dict[str, Any]) -> bool:
    if endpoint["VpcId"] != subnet["VpcId"] or str(endpoint.get("State", "available")).lower() != "available":
        return False
    if endpoint.get("VpcEndpointType", "Gateway") == "Gateway":
        return table.get("RouteTableId") in endpoint.get("RouteTableIds", [])
    # By its private DNS name an interface endpoint serves the whole VPC, whichever subnet it is in.
    return bool(endpoint.get("PrivateDnsEnabled", True))


def _service(endpoint: dict[str, Any]) -> str:
    return ".".join(str(endpoint["ServiceName"]).split(".")[3:])
