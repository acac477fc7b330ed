"""The gateway to what stands behind job queues: compute environments, instance types, instances, and the jobs in front.

Asks AWS Batch, ECS and EC2 and gives the facts of `jobs/queues.py`, `jobs/machines.py` and `jobs/waiting.py`; what they
mean is decided there. Changes nothing. The server hands in aiobotocore's clients, commands `clients.Clients.awaited`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.aws import sessions
from covalent_cirro.errors import AccessDenied, AwsError
from covalent_cirro.jobs.machines import InstanceType, filters, parse_instance_type
from covalent_cirro.jobs.queue_snapshots import FRONT_JOBS, Consumable, QueuePosition, QueueSnapshot
from covalent_cirro.jobs.queues import Environment, Queue, parse_environment, parse_queue
from covalent_cirro.jobs.states import ACTIVE_STATES, JobDetail, parse_job

TYPES_KEPT_S = 3600.0
"""A region's instance types hardly ever change."""

CLUSTERS_PER_CALL = 100
"""Clusters of one DescribeClusters call (ECS API Reference, DescribeClusters)."""

COUNTED_PAGES = 10
"""Pages of up to 1,000 jobs (ListJobs, maxResults) that are counted in a state; a queue may hold millions."""


class JobCount(NamedTuple):
    """A number of jobs; ``more`` where there are more than were counted."""

    number: int
    more: bool

    def __str__(self) -> str:
        return f"{self.number}{'+' if self.more else ''}"


class Capacity:
    """What stands behind the job queues of one account and region.

    Args:
        client: Gives the client of ``"batch"``, ``"ec2"`` or ``"ecs"``, whose calls are awaited.
        access: Named in messages.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        client: Callable[[str], Awaitable[Any]],
        access: sessions.Access,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._access = access
        self._clock = clock
        self._types: dict[tuple[str, ...], tuple[float, dict[str, InstanceType]]] = {}

    async def look(self, queue: str) -> QueueSnapshot:
        """Ask about a queue and the jobs in it: six calls at most, and one more an hour.

        What the credentials do not allow is left out, and named in ``denied``.

        Raises:
            AwsError: AWS throttles, or cannot be reached; ask again later.
        """
        denied: list[str] = []
        try:
            found = next(iter(await self.queues([queue])), None)
            environments = await self.environments(found.environments) if found else []
        except AccessDenied as error:
            return QueueSnapshot(None, (), None, None, None, "", (error.operation,))
        if found is None:
            return QueueSnapshot(None, (), None, None, None, "")
        names = sorted({name for each in environments if each.has_instances for name in each.instance_types})
        types = await self._allowed(self.instance_types(names), denied)
        running = await self._allowed(self._running(queue), denied)
        front = await self._allowed(self._front(queue), denied)
        # One call for both questions; it takes 100 ids.
        asked = [*(running or ())[: FRONT_JOBS - 1], *([front[0].job_id] if front else [])]
        jobs = (await self._allowed(self._jobs(asked), denied) if asked else None) or {}
        head = jobs.get(front[0].job_id) if front else None
        lacks: tuple[Consumable, ...] = ()
        if head is not None and head.consumables:
            needed, refused = await self.consumables(dict(head.consumables))
            lacks = tuple(each for each in needed if each.needed > each.available)
            denied += refused
        return QueueSnapshot(
            found,
            tuple(environments),
            types,
            None if running is None else len(running),
            front,
            head.status_reason if head is not None else "",
            tuple(denied),
            _vcpus(running, jobs),
            lacks,
        )

    async def consumables(self, needed: Mapping[str, int]) -> tuple[list[Consumable], list[str]]:
        """How many of consumable resources are free, of which a job needs so many.

        Returns:
            The resources that were described, and calls that the credentials do not allow.

        Raises:
            AwsError: AWS throttles, or cannot be reached; ask again later.
        """
        batch, found, denied = await self._client("batch"), [], set()
        for name, count in needed.items():
            try:
                with self._errors("batch:DescribeConsumableResource", name):
                    seen = await batch.describe_consumable_resource(consumableResource=name)
            except AccessDenied as error:
                denied.add(error.operation)
            except AwsError as error:
                if "exist" not in str(error):
                    raise
                found.append(Consumable(name, count, 0, None))
            else:
                total = int(seen["totalQuantity"])
                free = int(seen.get("availableQuantity", total - seen.get("inUseQuantity", 0)))
                found.append(Consumable(name, count, free, total))
        return found, sorted(denied)

    async def _allowed(self, answer: Awaitable[Any], denied: list[str]) -> Any:
        try:
            return await answer
        except AccessDenied as error:
            denied.append(error.operation)
            return None

    # --- AWS Batch ----------------------------------------------------------------------------------------------------

    async def queues(self, names: Sequence[str] = ()) -> list[Queue]:
        """Job queues by name or ARN; without names all of the account and region, of which there are at most 50.

        Source of the limit: Batch User Guide, Service quotas.

        Raises:
            AccessDenied, AwsError: AWS Batch refused or could not be reached.
        """
        named: dict[str, Any] = {"jobQueues": list(names)} if names else {}
        found = await self._pages("batch", "DescribeJobQueues", "jobQueues", ", ".join(names), **named)
        return [parse_queue(each) for each in found]

    async def environments(self, arns: Sequence[str]) -> list[Environment]:
        """Compute environments by ARN or name, in this order; those that do not exist are left out.

        Raises:
            AccessDenied, AwsError: AWS Batch refused or could not be reached.
        """
        if not arns:
            return []
        found = await self._pages(
            *("batch", "DescribeComputeEnvironments", "computeEnvironments", ", ".join(arns)),
            computeEnvironments=list(arns),
        )
        order = {arn: index for index, arn in enumerate(arns)}
        parsed = [parse_environment(each) for each in found]
        return sorted(parsed, key=lambda each: order.get(each.arn, order.get(each.name, 0)))

    async def environments_of(self, queues: Iterable[str]) -> dict[str, list[Environment]]:
        """By the name of a queue, its compute environments in their order; queues that do not exist are left out.

        Raises:
            AccessDenied, AwsError: AWS Batch refused or could not be reached.
        """
        names = sorted(set(queues) - {""})
        found = await self.queues(names) if names else []
        described = await self.environments(sorted({arn for queue in found for arn in queue.environments}))
        by_arn = {each.arn: each for each in described}
        return {queue.name: [by_arn[arn] for arn in queue.environments if arn in by_arn] for queue in found}

    async def count_jobs(self, queue: str, state: str) -> JobCount:
        """How many jobs of a queue are in a state; of those that have ended one page, since AWS keeps them for days.

        Raises:
            AccessDenied, AwsError: AWS Batch refused or could not be reached.
        """
        pages_left = COUNTED_PAGES if state in ACTIVE_STATES else 1
        number, token = 0, None
        batch = await self._client("batch")
        while pages_left:
            following: dict[str, str] = {"nextToken": token} if token else {}
            with self._errors("batch:ListJobs", f"queue {queue!r}"):
                page = await batch.list_jobs(jobQueue=queue, jobStatus=state, **following)
            number += len(page["jobSummaryList"])
            token = page.get("nextToken")
            if not token:
                break
            pages_left -= 1
        return JobCount(number, more=bool(token))

    async def _running(self, queue: str) -> list[str]:
        """Ids of jobs that have an instance, at most `FRONT_JOBS`."""
        batch = await self._client("batch")
        found: list[str] = []
        for status in ("RUNNING", "STARTING"):
            with self._errors("batch:ListJobs", queue):
                response = await batch.list_jobs(jobQueue=queue, jobStatus=status, maxResults=FRONT_JOBS)
            found += [each["jobId"] for each in response["jobSummaryList"]]
        return list(dict.fromkeys(found))[:FRONT_JOBS]

    async def _front(self, queue: str) -> tuple[QueuePosition, ...]:
        batch = await self._client("batch")
        with self._errors("batch:GetJobQueueSnapshot", queue):
            response = await batch.get_job_queue_snapshot(jobQueue=queue)
        jobs = (response.get("frontOfQueue") or {}).get("jobs") or ()
        return tuple(
            QueuePosition(str(each["jobArn"]).rpartition("/")[2], (each.get("earliestTimeAtPosition") or 0) / 1000)
            for each in jobs
        )

    async def _jobs(self, job_ids: Sequence[str]) -> dict[str, JobDetail]:
        """By id, up to 100 jobs (DescribeJobs, jobs)."""
        batch = await self._client("batch")
        with self._errors("batch:DescribeJobs", job_ids[-1]):
            response = await batch.describe_jobs(jobs=list(job_ids))
        return {each["jobId"]: parse_job(each) for each in response["jobs"]}

    # --- instances ----------------------------------------------------------------------------------------------------

    async def instances(self, clusters: Sequence[str]) -> dict[str, int]:
        """By the ARN of its ECS cluster, how many instances a compute environment has now.

        Raises:
            AccessDenied, AwsError: ECS refused or could not be reached.
        """
        found: dict[str, int] = {}
        ecs = await self._client("ecs")
        for begin in range(0, len(clusters), CLUSTERS_PER_CALL):
            with self._errors("ecs:DescribeClusters", ""):
                response = await ecs.describe_clusters(clusters=list(clusters[begin : begin + CLUSTERS_PER_CALL]))
            for each in response["clusters"]:
                found[each["clusterArn"]] = int(each.get("registeredContainerInstancesCount", 0))
        return found

    async def instance_types(self, names: Iterable[str]) -> dict[str, InstanceType]:
        """The region's instance types behind sizes, families and bundles; asked once in `TYPES_KEPT_S`.

        Types that the region lacks are left out.

        Raises:
            AccessDenied, AwsError: EC2 refused or could not be reached.
        """
        wanted = tuple(names)
        asked_at, found = self._types.get(wanted, (float("-inf"), {}))
        if self._clock() - asked_at < TYPES_KEPT_S:
            return found
        found = {}
        for some in filters(wanted):
            by_type = [{"Name": "instance-type", "Values": some}]
            described = await self._pages(
                "ec2", "DescribeInstanceTypes", "InstanceTypes", ", ".join(some), Filters=by_type
            )
            found.update((each["InstanceType"], parse_instance_type(each)) for each in described)
        self._types[wanted] = (self._clock(), found)
        return found

    async def are_public(self, subnets: Iterable[str]) -> bool:
        """Whether instances in one of these subnets get a public address.

        Raises:
            AccessDenied, AwsError: EC2 refused or could not be reached.
        """
        # By filter: one id that is gone would be an error for all of them.
        by_id = [{"Name": "subnet-id", "Values": sorted(set(subnets))}]
        found = await self._pages("ec2", "DescribeSubnets", "Subnets", ", ".join(by_id[0]["Values"]), Filters=by_id)
        return any(each.get("MapPublicIpOnLaunch") for each in found)

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _pages(self, service: str, operation: str, key: str, of: str, **request: Any) -> list[dict[str, Any]]:
        """The entries under a key of all pages of an operation's answer."""
        from botocore import xform_name

        client = await self._client(service)
        with self._errors(f"{service}:{operation}", of):
            pages = client.get_paginator(xform_name(operation)).paginate(**request)
            return [each async for page in pages for each in page[key]]

    def _errors(self, operation: str, of: str) -> Any:
        return sessions.translate(operation, access=self._access, of=of)


def _vcpus(running: Sequence[str] | None, jobs: Mapping[str, JobDetail]) -> float | None:
    """vCPUs of jobs that have an instance; `None` where not all of them were described."""
    if running is None or any(job_id not in jobs for job_id in running):
        return None
    return sum(jobs[job_id].all_vcpus for job_id in running)
