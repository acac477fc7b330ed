"""Job queues and compute environments, as AWS Batch describes them, and findings about them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.tags import DEPLOYMENT_TAG
from covalent_cirro.settings.constants import SECTION


class Queue(NamedTuple):
    """A job queue, as DescribeJobQueues has it; ``environments`` are ARNs in their order.

    ``deployment`` is the name of the deployment that it bears as a tag; empty without one. ``has_policy``: it has a
    scheduling policy, and takes only jobs with a share identifier.
    """

    name: str
    arn: str
    state: str
    status: str
    reason: str
    environments: tuple[str, ...]
    deployment: str = ""
    has_policy: bool = False


class Environment(NamedTuple):
    """A compute environment, as DescribeComputeEnvironments has it.

    Attributes:
        kind: ``"EC2"``, ``"SPOT"``, ``"FARGATE"``...; empty for an unmanaged one.
        vcpus: vCPUs that AWS Batch wants to run now (``desiredvCpus``).
        max_vcpus: vCPUs that it may start at most.
        instance_types: Sizes, families and bundles.
        instance_profile: ARN or name of the instance profile.
        cluster: ARN of its ECS cluster.
        placement_group: Name of the placement group of its instances; empty without one.
    """

    name: str
    arn: str
    state: str
    status: str
    reason: str
    kind: str
    vcpus: int
    max_vcpus: int
    instance_types: tuple[str, ...]
    subnets: tuple[str, ...]
    instance_profile: str
    cluster: str
    placement_group: str = ""

    @property
    def spot(self) -> bool:
        """Whether its capacity is Spot capacity, which AWS takes back."""
        return self.kind in ("SPOT", "FARGATE_SPOT")

    @property
    def on_fargate(self) -> bool:
        """Whether its jobs run on Fargate, each on a machine of its own."""
        return self.kind in ("FARGATE", "FARGATE_SPOT")

    @property
    def runs_several_nodes(self) -> bool:
        """Whether AWS Batch runs multi-node jobs there: neither on Spot nor on Fargate.

        Source: User Guide, Compute environment considerations for MNP. Of an unmanaged one nothing is known.
        """
        return self.kind in ("EC2", "")

    @property
    def has_instances(self) -> bool:
        """Whether it starts EC2 instances, whose types can be looked up."""
        return self.kind in ("EC2", "SPOT")


def parse_queue(described: Mapping[str, Any]) -> Queue:
    """Parse one entry of DescribeJobQueues' ``jobQueues``."""
    order = sorted(described["computeEnvironmentOrder"], key=lambda each: int(each["order"]))
    return Queue(
        name=described["jobQueueName"],
        arn=described["jobQueueArn"],
        state=described["state"],
        status=described.get("status", ""),
        reason=described.get("statusReason", ""),
        environments=tuple(each["computeEnvironment"] for each in order),
        deployment=str((described.get("tags") or {}).get(DEPLOYMENT_TAG) or ""),
        has_policy=bool(described.get("schedulingPolicyArn")),
    )


def parse_environment(described: Mapping[str, Any]) -> Environment:
    """Parse one entry of DescribeComputeEnvironments' ``computeEnvironments``."""
    resources = described.get("computeResources") or {}
    return Environment(
        name=described["computeEnvironmentName"],
        arn=described["computeEnvironmentArn"],
        state=described.get("state", "ENABLED"),
        status=described.get("status", ""),
        reason=described.get("statusReason", ""),
        kind=resources.get("type", ""),
        vcpus=int(resources.get("desiredvCpus") or 0),
        max_vcpus=int(resources.get("maxvCpus") or 0),
        instance_types=tuple(resources.get("instanceTypes") or ()),
        subnets=tuple(resources.get("subnets") or ()),
        instance_profile=resources.get("instanceRole") or "",
        cluster=described.get("ecsClusterArn") or "",
        placement_group=resources.get("placementGroup") or "",
    )


def queue(
    setting: str, name: str, found: Queue | None, others: Sequence[str], where: Where, *, share: str = ""
) -> Finding:
    """Whether jobs can be submitted to a queue, and are scheduled there.

    Args:
        setting: Setting that names the queue: ``"batch_queue"``.
        name: Name or ARN of the queue.
        found: The queue; `None` where it does not exist.
        others: Names of the queues that exist.
        where: The deployment.
        share: Setting `share_identifier`; empty where it is not set.
    """
    if found is None:
        there = f"there are: {', '.join(others)}" if others else "there is none"
        return Finding(
            "queue",
            name,
            FAILURE,
            f"{setting}: it does not exist in {where.region}; {there}",
            f"`{where.cirro('deploy')}` makes it; or set {setting} in [{SECTION}] to one that exists.",
        )
    seen = _batch_object("queue", "job-queue", found.name, setting, found.state, found.status, found.reason, where)
    return _share(setting, found, share) or seen if seen.level == OK else seen


def _share(setting: str, found: Queue, share: str) -> Finding | None:
    """What AWS Batch refuses each job for: a share identifier that is missing, or one too many."""
    if found.has_policy and not share:
        words = f"{setting}: it has a scheduling policy, and takes only jobs with share_identifier, which is not set"
        return Finding("queue", found.name, WARNING, words, f"Set it in [{SECTION}], or on each executor.")
    if share and not found.has_policy:
        words = f"{setting}: it has no scheduling policy, and takes no job with share_identifier, which is {share!r}"
        remedy = f"Take share_identifier out of [{SECTION}], or name a queue with such a policy."
        return Finding("queue", found.name, FAILURE, words, remedy)
    return None


def environment(found: Environment, where: Where) -> Finding:
    """Whether a compute environment can start instances."""
    about = f"{found.kind or 'unmanaged'}, up to {found.max_vcpus} vCPUs"
    return _batch_object(
        "environment", "compute-environment", found.name, about, found.state, found.status, found.reason, where
    )


def _batch_object(
    id: str, noun: str, name: str, about: str, state: str, status: str, reason: str, where: Where
) -> Finding:
    words = f": {reason}" if reason else ""
    if status in ("CREATING", "UPDATING"):
        return Finding(id, name, WARNING, f"{about}: {status}{words}", "Wait until it is VALID, then look again.")
    if status != "VALID":
        return Finding(
            id,
            name,
            FAILURE,
            f"{about}: {status}{words}",
            f"Correct what the reason names, then `{where.cirro('deploy')}`; if that has no effect, destroy first.",
        )
    if state != "ENABLED":
        enable = where.aws(f"batch update-{noun} --{noun} {name} --state ENABLED")
        return Finding(id, name, FAILURE, f"{about}: {state}{words}", f"`{enable}`")
    return Finding(id, name, OK, f"{about}: VALID and ENABLED")
