"""Whether a queue can run jobs on several machines at once, and what these machines reach. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.queues import Environment


def nodes(queue: str, environments: Sequence[Environment], subnets: Sequence[Subnet], where: Where) -> Finding:
    """Whether AWS Batch runs multi-node parallel jobs of a queue, and whether their nodes reach S3.

    Each node has a network interface of its own, without a public address: behind an internet gateway it reaches only
    what has a gateway endpoint (User Guide, Compute environment considerations for MNP).

    Args:
        queue: Name of the queue.
        environments: Its compute environments.
        subnets: Subnets of these that exist.
        where: The deployment.
    """
    made = f"`{where.cirro('deploy')} --parameter MultiNodeMaxVcpus=...` makes a queue for them"
    wrong = [each for each in environments if each.kind != "EC2"]
    if wrong:
        told = ", ".join(f"{each.name} ({each.kind or 'unmanaged'})" for each in wrong)
        return Finding(
            "network",
            queue,
            FAILURE,
            f"AWS Batch runs jobs on several machines on demand only, not on {told}: they may wait for ever",
            f"{made}; or set batch_multi_node_queue to one with on-demand instances alone.",
        )
    behind_gateway = [each for each in subnets if (each.way_out or "").startswith("igw-")]
    without_s3 = [each.id for each in behind_gateway if "s3" not in each.endpoints]
    if without_s3:
        return Finding(
            "network",
            queue,
            FAILURE,
            f"nodes have no public address, and in {', '.join(without_s3)} no gateway to S3, where their call is",
            "Give the subnet a gateway endpoint to S3 (parameter ExistingRouteTableIds), or a route to a NAT gateway.",
        )
    reach = " Its nodes reach S3 and one another, not the internet." if behind_gateway else ""
    loose = [each.name for each in environments if not each.placement_group]
    if loose:
        return Finding(
            "network",
            queue,
            WARNING,
            f"{', '.join(loose)} has no placement group: nodes may be far from one another.{reach}",
            f"Give it a cluster placement group; {made}.",
        )
    return Finding("network", queue, OK, f"on-demand instances in a placement group.{reach}")
