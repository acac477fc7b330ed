"""The gateway to what a queue's jobs wait for: one look at a queue, its compute environments and what is before them.

Asks AWS Batch and EC2 and gives the facts of `jobs/waiting.py`; what they mean is decided there. Changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from covalent_cirro.aws import sessions
from covalent_cirro.errors import AccessDenied
from covalent_cirro.jobs.machines import InstanceType, filters, parse_instance_type
from covalent_cirro.jobs.queues import Environment, parse_environment, parse_queue
from covalent_cirro.jobs.waiting import FRONT_JOBS, QueuePosition, QueueSnapshot

TYPES_KEPT_S = 3600.0
"""A region's instance types hardly ever change."""


class Capacity:
    """What there is behind the queues of one account and region. Made by `engine.py`, which closes its clients."""

    def __init__(
        self,
        batch: Any,
        ec2: Callable[[], Awaitable[Any]],
        access: sessions.Access,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap a client of AWS Batch; ``ec2`` gives one of EC2 when it is first needed."""
        self._batch = batch
        self._ec2 = ec2
        self._access = access
        self._clock = clock
        self._types: dict[tuple[str, ...], tuple[float, dict[str, InstanceType]]] = {}

    async def look(self, queue: str) -> QueueSnapshot:
        """Ask about a queue: six calls at most, and one more an hour. What may not be asked is left out.

        Raises:
            AwsError: Throttled, or out of reach; for later.
        """
        denied: list[str] = []
        try:
            described = await self._queue(queue)
            found = parse_queue(described) if described else None
            environments = await self._environments(found.environments) if found else ()
        except AccessDenied as error:
            return QueueSnapshot(None, (), None, None, None, "", (error.operation,))
        if found is None:
            return QueueSnapshot(None, (), None, None, None, "")
        names = sorted({name for each in environments if each.has_instances for name in each.instance_types})
        types = await self._allowed(self._instance_types(tuple(names)), denied)
        running = await self._allowed(self._running(queue), denied)
        front = await self._allowed(self._front(queue), denied)
        head = await self._allowed(self._reason(front[0].job_id), denied) if front else ""
        return QueueSnapshot(found, environments, types, running, front, head or "", tuple(denied))

    async def _allowed(self, asked: Awaitable[Any], denied: list[str]) -> Any:
        try:
            return await asked
        except AccessDenied as error:
            denied.append(error.operation)
            return None

    async def _queue(self, queue: str) -> dict[str, Any] | None:
        with self._errors("batch:DescribeJobQueues", queue):
            response = await self._batch.describe_job_queues(jobQueues=[queue])
        return next(iter(response["jobQueues"]), None)

    async def _environments(self, arns: tuple[str, ...]) -> tuple[Environment, ...]:
        if not arns:
            return ()
        with self._errors("batch:DescribeComputeEnvironments", ", ".join(arns)):
            response = await self._batch.describe_compute_environments(computeEnvironments=list(arns))
        found = {each.arn: each for each in map(parse_environment, response["computeEnvironments"])}
        return tuple(found[arn] for arn in arns if arn in found)

    async def _instance_types(self, names: tuple[str, ...]) -> dict[str, InstanceType]:
        asked, found = self._types.get(names, (float("-inf"), {}))
        if self._clock() - asked < TYPES_KEPT_S:
            return found
        ec2 = await self._ec2()
        found = {}
        for some in filters(names):
            with self._errors("ec2:DescribeInstanceTypes", ", ".join(some)):
                pages = ec2.get_paginator("describe_instance_types").paginate(
                    Filters=[{"Name": "instance-type", "Values": some}]
                )
                found.update(
                    {each["InstanceType"]: parse_instance_type(each) async for page in pages for each in _types(page)}
                )
        self._types[names] = (self._clock(), found)
        return found

    async def _running(self, queue: str) -> int:
        """Jobs that have a machine, at most `FRONT_JOBS`."""
        for status in ("RUNNING", "STARTING"):
            with self._errors("batch:ListJobs", queue):
                response = await self._batch.list_jobs(jobQueue=queue, jobStatus=status, maxResults=FRONT_JOBS)
            if response["jobSummaryList"]:
                return len(response["jobSummaryList"])
        return 0

    async def _front(self, queue: str) -> tuple[QueuePosition, ...]:
        with self._errors("batch:GetJobQueueSnapshot", queue):
            response = await self._batch.get_job_queue_snapshot(jobQueue=queue)
        jobs = (response.get("frontOfQueue") or {}).get("jobs") or ()
        return tuple(
            QueuePosition(str(each["jobArn"]).rpartition("/")[2], (each.get("earliestTimeAtPosition") or 0) / 1000)
            for each in jobs
        )

    async def _reason(self, job_id: str) -> str:
        with self._errors("batch:DescribeJobs", job_id):
            response = await self._batch.describe_jobs(jobs=[job_id])
        return next((str(each.get("statusReason") or "") for each in response["jobs"]), "")

    def _errors(self, operation: str, of: str) -> Any:
        return sessions.translate(operation, access=self._access, of=of)


def _types(page: dict[str, Any]) -> Iterable[dict[str, Any]]:
    found: list[dict[str, Any]] = page["InstanceTypes"]
    return found
