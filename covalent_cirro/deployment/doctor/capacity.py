"""The gateway to what jobs run on: queues, compute environments, their clusters, instance types and subnets.

Asks AWS Batch, ECS and EC2 and gives facts in our words; what they mean is `health`'s. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from covalent_cirro.deployment.doctor.account_facts import Clients
from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.jobs.machines import InstanceType, filters, parse_instance_type
from covalent_cirro.jobs.queues import Environment, Queue, parse_environment, parse_queue

CLUSTERS_PER_CALL = 100
"""Clusters of one DescribeClusters call (ECS API Reference, DescribeClusters)."""

ACTIVE_STATES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
TERMINAL_STATES = ("SUCCEEDED", "FAILED")

COUNTED_PAGES = 10
"""Pages of up to 1,000 jobs (ListJobs, maxResults) that are counted in a state; a queue may hold millions."""


class Count(NamedTuple):
    """A number of jobs; ``more`` where there are more than were counted."""

    number: int
    more: bool

    def __str__(self) -> str:
        return f"{self.number}{'+' if self.more else ''}"


# --- AWS Batch --------------------------------------------------------------------------------------------------------


def queues(clients: Clients) -> list[Queue]:
    """All job queues of the account and region: at most 50 (Batch User Guide, Service quotas)."""
    with clients.asking("batch:DescribeJobQueues") as batch:
        found = [each for page in batch.get_paginator("describe_job_queues").paginate() for each in page["jobQueues"]]
    return [parse_queue(each) for each in found]


def environments(clients: Clients, arns: Sequence[str]) -> list[Environment]:
    """Compute environments by ARN or name, in this order."""
    if not arns:
        return []
    with clients.asking("batch:DescribeComputeEnvironments") as batch:
        pages = batch.get_paginator("describe_compute_environments").paginate(computeEnvironments=list(arns))
        found = [parse_environment(each) for page in pages for each in page["computeEnvironments"]]
    return sorted(found, key=lambda each: next((i for i, arn in enumerate(arns) if arn in (each.arn, each.name)), 0))


def count_jobs(clients: Clients, queue: str, state: str) -> Count:
    """How many jobs of a queue are in a state. Ended ones are not worth more than one page: AWS keeps them for days."""
    pages_left = COUNTED_PAGES if state in ACTIVE_STATES else 1
    number, token = 0, None
    with clients.asking("batch:ListJobs", of=f"queue {queue!r}") as batch:
        while pages_left:
            page = batch.list_jobs(jobQueue=queue, jobStatus=state, **({"nextToken": token} if token else {}))
            number += len(page["jobSummaryList"])
            token = page.get("nextToken")
            if not token:
                break
            pages_left -= 1
    return Count(number, more=bool(token))


def instances(clients: Clients, clusters: Sequence[str]) -> dict[str, int]:
    """By the ARN of its cluster, how many instances a compute environment has now."""
    found: dict[str, int] = {}
    for begin in range(0, len(clusters), CLUSTERS_PER_CALL):
        some = list(clusters[begin : begin + CLUSTERS_PER_CALL])
        with clients.asking("ecs:DescribeClusters") as ecs:
            for each in ecs.describe_clusters(clusters=some)["clusters"]:
                found[each["clusterArn"]] = int(each.get("registeredContainerInstancesCount", 0))
    return found


# --- EC2 --------------------------------------------------------------------------------------------------------------


def instance_types(clients: Clients, names: Iterable[str]) -> dict[str, InstanceType]:
    """The region's instance types behind sizes, families and bundles; what it lacks is not in the answer."""
    found: dict[str, InstanceType] = {}
    for some in filters(names):
        with clients.asking("ec2:DescribeInstanceTypes", of=", ".join(some)) as ec2:
            for page in ec2.get_paginator("describe_instance_types").paginate(
                Filters=[{"Name": "instance-type", "Values": some}]
            ):
                found.update((each["InstanceType"], parse_instance_type(each)) for each in page["InstanceTypes"])
    return found


def subnets(clients: Clients, ids: Iterable[str]) -> dict[str, Subnet]:
    """Subnets by id, each with its way out; those that do not exist are not in the answer."""
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
    # By its private name an interface endpoint serves the whole VPC, whichever of its subnets it stands in.
    return bool(endpoint.get("PrivateDnsEnabled", True))


def _service(endpoint: dict[str, Any]) -> str:
    return ".".join(str(endpoint["ServiceName"]).split(".")[3:])
