"""Finds what belongs to a deployment, and what its deletion left: stacks, jobs, data, and what AWS made for it.

It changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import translate
from covalent_cirro.deployment import emptying, stacks
from covalent_cirro.deployment.emptying import Contents
from covalent_cirro.deployment.plans import FILE_SYSTEM, NAME_PARAMETER, STACKS, TAG, services_prefix, stack_name
from covalent_cirro.deployment.stack_events import FIRST_POLL_S, LONGEST_POLL_S
from covalent_cirro.deployment.stacks import Resource, Stack, access_of_client
from covalent_cirro.errors import AwsError
from covalent_cirro.jobs.states import ACTIVE_STATES
from covalent_cirro.jobs.tags import MADE_BY

STORAGE = "storage"
"""The part whose stack holds data."""

MAX_DESCRIBED = 100
"""Queues, compute environments, clusters and definitions in one Describe call (Batch and ECS API References)."""

PROOF_PATIENCE_S = 60.0
"""Seconds for which deleted resources may still be listed: the tagging API is later than the services."""

DEFINITION_PREFIX = "cirro-"
"""How names of the job definitions of executors begin (`electron/engine/definitions.py`)."""

_OF_SERVICES = re.compile(r"arn:[a-z-]+:ecs:[^:]*:[^:]*:(cluster|service|task|task-definition)/")
"""What ECS lists after its deletion, as INACTIVE and at no cost (ECS API Reference, DeregisterTaskDefinition and
DeleteCluster). It belongs to stacks of services, which are checked by name; clusters of AWS Batch are checked too."""

Client = Callable[[str], Any]
"""Returns the boto3 client of a service, such as `aws.clients.Clients`."""


class ActiveJob(NamedTuple):
    """A job that has not ended.

    Attributes:
        job_id: Id of the job; for an array, of its parent.
        state: State of the job, ``"RUNNING"``.
    """

    job_id: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What belongs to a deployment, and which of it is deleted.

    Attributes:
        name: Name of the deployment.
        region: Region of the deployment.
        keep_data: Whether the storage stack is kept.
        stacks: Stacks that are deleted, in that order, services first; with ``keep_data`` without the storage stack.
        resources: Resources of these stacks.
        jobs: Jobs that have not ended.
        buckets: Buckets that are deleted.
        repositories: Image repositories that are deleted.
        clusters: ECS clusters that AWS Batch made for its compute environments.
        definitions: ARNs of job definitions that executors registered for its roles. They cost nothing.
        file_systems: Ids of file systems of the deployment, which stay with what is in them: that of its stack, and
            those that earlier changes and deletions left.
        kept: ARNs and names of what is kept.
    """

    name: str
    region: str
    keep_data: bool
    stacks: tuple[Stack, ...]
    resources: tuple[Resource, ...]
    jobs: tuple[ActiveJob, ...]
    buckets: tuple[Contents, ...]
    repositories: tuple[Contents, ...]
    clusters: tuple[str, ...]
    definitions: tuple[str, ...]
    file_systems: tuple[str, ...] = ()
    kept: tuple[str, ...]

    @property
    def loses_data(self) -> bool:
        """Whether data is deleted."""
        return any(each.entries for each in (*self.buckets, *self.repositories))

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to delete."""
        return not self.stacks and not self.definitions

    def of_type(self, resource_type: str) -> list[str]:
        """Physical ids of the resources of a type."""
        return [each.physical_id for each in self.resources if each.resource_type == resource_type]


class Proof(NamedTuple):
    """What a deletion left.

    Attributes:
        left: Resources that still exist, with their ids.
        not_asked: What could not be checked, with the reason.
    """

    left: tuple[str, ...]
    not_asked: tuple[str, ...]


# --- before a deletion --------------------------------------------------------------------------------------------


def survey(client: Client, name: str, *, keep_data: bool = False) -> Holdings:
    """Find everything that belongs to a deployment.

    Args:
        client: Makes boto3 clients.
        name: Name of the deployment.
        keep_data: Whether the storage stack is kept.

    Raises:
        StackError: A stack of that name is not one of covalent-cirro.
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    formation = client("cloudformation")
    found: list[Stack] = []
    resources: list[Resource] = []
    kept: list[str] = []
    for service in service_stacks(client, name):
        found.append(service)
        resources += stacks.resources(formation, service)
    for part in reversed(STACKS):
        stack = stacks.find(formation, stack_name(name, part))
        if stack is None:
            continue
        stacks.require_ours(stack)
        made = [] if stack.is_empty_shell else stacks.resources(formation, stack)
        if part == STORAGE and keep_data:
            kept += [stack.stack_id, *(each.physical_id for each in made)]
        else:
            found.append(stack)
            resources += made
    of_type = _by_type(resources)
    file_systems = tuple(dict.fromkeys([*of_type.get(FILE_SYSTEM, []), *_left_file_systems(client, name)]))
    roles = of_type.get("AWS::IAM::Role", [])
    queues = existing_queues(client, of_type.get("AWS::Batch::JobQueue", []))
    return Holdings(
        name=name,
        region=str(formation.meta.region_name),
        keep_data=keep_data,
        stacks=tuple(found),
        resources=tuple(resources),
        jobs=tuple(
            {job.job_id: job for job in jobs(client, queues)}.values()
        ),  # one may have changed its state meanwhile
        buckets=tuple(emptying.bucket_contents(client("s3"), each) for each in of_type.get("AWS::S3::Bucket", [])),
        repositories=tuple(
            emptying.repository_contents(client("ecr"), each) for each in of_type.get("AWS::ECR::Repository", [])
        ),
        clusters=tuple(_clusters(client, of_type.get("AWS::Batch::ComputeEnvironment", []))),
        definitions=tuple(_definitions(client, name, roles)),
        file_systems=file_systems,
        kept=(*kept, *file_systems),
    )


def service_stacks(client: Client, name: str) -> list[Stack]:
    """The stacks of a deployment's services (`serving`), which use its network."""
    found = stacks.all_beginning_with(client("cloudformation"), services_prefix(name))
    return [stack for stack in found if stack.parameters.get(NAME_PARAMETER) == name]


def is_of_deployment(definition: dict[str, Any], name: str, roles: Iterable[str]) -> bool:
    """Whether an executor registered a job definition for a deployment.

    Args:
        definition: Entry of DescribeJobDefinitions' answer.
        name: Name of the deployment.
        roles: Names of the deployment's roles that still exist.
    """
    tags = definition.get("tags") or {}
    if not definition["jobDefinitionName"].startswith(DEFINITION_PREFIX) or not MADE_BY.items() <= tags.items():
        return False
    ranges = (definition.get("nodeProperties") or {}).get("nodeRangeProperties") or []
    containers = [definition.get("containerProperties") or {}, *(each.get("container") or {} for each in ranges)]
    roles_of_jobs = ("jobRoleArn", "executionRoleArn")
    used = [str(container.get(key) or "").rsplit("/", 1)[-1] for container in containers for key in roles_of_jobs]
    # CloudFormation names a role after its stack: by the name it is known after the stack was deleted.
    named = re.compile(rf"{re.escape(stack_name(name, 'roles'))}-[A-Za-z]+-[A-Za-z0-9]+")
    return any(role in set(roles) or named.fullmatch(role) for role in used)


def _by_type(resources: Iterable[Resource]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in resources:
        found.setdefault(each.resource_type, []).append(each.physical_id)
    return found


def existing_queues(client: Client, queues: list[str]) -> list[str]:
    """ARNs of those of the job queues that still exist."""
    return [
        each["jobQueueArn"]
        for each in _described(client, "describe_job_queues", "jobQueues", queues)
        if each.get("status") not in ("DELETED", "DELETING")
    ]


def _clusters(client: Client, environments: list[str]) -> Iterator[str]:
    for each in _described(client, "describe_compute_environments", "computeEnvironments", environments):
        if each.get("ecsClusterArn"):
            yield each["ecsClusterArn"]


def _described(client: Client, operation: str, key: str, names: list[str]) -> Iterator[dict[str, Any]]:
    """The existing queues or compute environments among ``names``; AWS Batch leaves out the others."""
    for some in chunks(names, MAX_DESCRIBED):
        with translated(client("batch"), f"batch:{operation}"):
            yield from getattr(client("batch"), operation)(**{key: some})[key]


def jobs(client: Client, queues: Iterable[str], states: Iterable[str] = ACTIVE_STATES) -> Iterator[ActiveJob]:
    """The jobs in the queues that have one of the states."""
    batch = client("batch")
    for queue in queues:
        for state in states:
            with translated(batch, "batch:ListJobs", queue):
                for page in batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=state):
                    for each in page["jobSummaryList"]:
                        yield ActiveJob(each["jobId"], state)


def _left_file_systems(client: Client, name: str) -> list[str]:
    """Ids of the file systems with the deployment's tag, which no stack deletes."""
    try:
        return [arn.rsplit("/", 1)[-1] for arn in _tagged(client, name) if ":file-system/" in arn]
    except AwsError:  # the proof asks again, and says that it could not look
        return []


def _tagged(client: Client, name: str) -> list[str]:
    """ARNs of all that has the deployment's tag."""
    tagging = client("resourcegroupstaggingapi")
    with translated(tagging, "tag:GetResources"):
        return [
            each["ResourceARN"]
            for page in tagging.get_paginator("get_resources").paginate(TagFilters=[{"Key": TAG, "Values": [name]}])
            for each in page["ResourceTagMappingList"]
        ]


def _definitions(client: Client, name: str, roles: list[str]) -> Iterator[str]:
    batch = client("batch")
    with translated(batch, "batch:DescribeJobDefinitions"):
        for page in batch.get_paginator("describe_job_definitions").paginate(status="ACTIVE"):
            for each in page["jobDefinitions"]:
                if is_of_deployment(each, name, roles):
                    yield each["jobDefinitionArn"]


# --- after a deletion ---------------------------------------------------------------------------------------------


def prove(
    client: Client,
    holdings: Holdings,
    *,
    patience_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Proof:
    """Search for what a deletion left: stacks, what AWS Batch made, job definitions, and all with the deployment's tag.

    Args:
        client: Makes boto3 clients.
        holdings: What belonged to the deployment.
        patience_s: Seconds after which a resource that is still listed counts as left; unset: `PROOF_PATIENCE_S`.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.
    """
    deadline, pause_s = clock() + (PROOF_PATIENCE_S if patience_s is None else patience_s), FIRST_POLL_S
    while True:
        left: list[str] = []
        not_asked: list[str] = []
        for look in (_left_stacks, _left_batch, _left_clusters, _left_definitions, _left_tagged):
            try:
                left += look(client, holdings)
            except AwsError as error:
                not_asked.append(str(error))
        left_s = deadline - clock()
        if not left or left_s <= 0:
            return Proof(tuple(dict.fromkeys(left)), tuple(not_asked))
        sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_POLL_S)


def _left_stacks(client: Client, holdings: Holdings) -> Iterator[str]:
    for part in STACKS:
        if part == STORAGE and holdings.keep_data:
            continue
        stack = stacks.find(client("cloudformation"), stack_name(holdings.name, part))
        if stack is not None:
            yield f"CloudFormation stack {stack.name} ({stack.status})"
    for service in service_stacks(client, holdings.name):
        yield f"CloudFormation stack {service.name} ({service.status})"


def _left_batch(client: Client, holdings: Holdings) -> Iterator[str]:
    for operation, key, kind, arn in (
        ("describe_job_queues", "jobQueues", "JobQueue", "jobQueueArn"),
        ("describe_compute_environments", "computeEnvironments", "ComputeEnvironment", "computeEnvironmentArn"),
    ):
        for each in _described(client, operation, key, holdings.of_type(f"AWS::Batch::{kind}")):
            if each.get("status") != "DELETED":
                yield f"{kind} {each[arn]} ({each.get('status')})"
    yield from _left_policies(client, holdings)


def _left_policies(client: Client, holdings: Holdings) -> Iterator[str]:
    """Scheduling policies of its queues, also one that an update gave up and could not delete."""
    batch, own = client("batch"), holdings.of_type("AWS::Batch::SchedulingPolicy")
    with translated(batch, "batch:ListSchedulingPolicies"):
        pages = batch.get_paginator("list_scheduling_policies").paginate()
        arns = [each["arn"] for page in pages for each in page["schedulingPolicies"]]
    for some in chunks(arns, MAX_DESCRIBED):
        with translated(batch, "batch:DescribeSchedulingPolicies"):
            found = batch.describe_scheduling_policies(arns=some)["schedulingPolicies"]
        for each in found:
            if each["arn"] in own or (each.get("tags") or {}).get(TAG) == holdings.name:
                yield f"scheduling policy {each['arn']}"


def _left_clusters(client: Client, holdings: Holdings) -> Iterator[str]:
    ecs = client("ecs")
    for some in chunks(list(holdings.clusters), MAX_DESCRIBED):
        with translated(ecs, "ecs:DescribeClusters"):
            found = ecs.describe_clusters(clusters=some)["clusters"]
        for each in found:
            if each.get("status") != "INACTIVE":
                yield f"ECS cluster {each['clusterArn']} ({each.get('status')}), which AWS Batch made"


def _left_definitions(client: Client, holdings: Holdings) -> Iterator[str]:
    for arn in _definitions(client, holdings.name, holdings.of_type("AWS::IAM::Role")):
        yield f"job definition {arn}"


def _left_tagged(client: Client, holdings: Holdings) -> Iterator[str]:
    arns = _tagged(client, holdings.name)
    ended = _ended_instances(client, [arn for arn in arns if ":instance/" in arn])
    for arn in arns:
        # Stacks and policies were looked for; a deleted stack is listed for a while.
        is_seen = any(each in arn for each in (":cloudformation:", ":scheduling-policy/"))
        if not (is_seen or _OF_SERVICES.match(arn) or arn in ended or _is_kept(arn, holdings.kept)):
            yield arn


def _is_kept(arn: str, kept: Iterable[str]) -> bool:
    """Whether an ARN is that of a kept resource, which is known by its ARN or by its name."""
    own = arn.split(":", 5)[-1]
    return any(each in (arn, own, own.rsplit("/", 1)[-1], own.removeprefix("log-group:")) for each in kept)


def _ended_instances(client: Client, arns: list[str]) -> set[str]:
    """ARNs of terminated instances, which EC2 lists for about an hour at no cost."""
    if not arns:
        return set()
    ids = {arn.rsplit("/", 1)[-1]: arn for arn in arns}
    ec2 = client("ec2")
    with translated(ec2, "ec2:DescribeInstances"):
        found = ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": list(ids)}])["Reservations"]
    alive = {
        instance["InstanceId"]
        for reservation in found
        for instance in reservation["Instances"]
        if instance["State"]["Name"] not in ("shutting-down", "terminated")
    }
    return {arn for instance, arn in ids.items() if instance not in alive}


def chunks(items: list[str], size: int) -> Iterator[list[str]]:
    """The items in lists of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def translated(client: Any, operation: str, of: str = "") -> Any:
    """Turn a client's errors inside the block into those of `errors`."""
    return translate(operation, access=access_of_client(client), of=of)
