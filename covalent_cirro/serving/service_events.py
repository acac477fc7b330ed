"""Reads what ECS says of a service while CloudFormation changes its stack, and which tasks fail meanwhile.

CloudFormation deletes the log group of a service whose creation failed: the last lines of a failed task are read as
soon as it has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment import stacks
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import AwsError
from covalent_cirro.serving import task_ends, task_logs
from covalent_cirro.serving.task_ends import FailedTask

INTERVAL_S = 1.0
"""Seconds between two reads of ECS."""

MAX_DESCRIBED = 100
"""Tasks in one DescribeTasks call (ECS API Reference)."""

MOST_FAILED = 20
"""Failed tasks whose last lines are read: ECS tries again and again, and they mostly fail alike."""


class ServiceEvents:
    """What ECS says of a service from now on.

    Args:
        clients: Clients of the account.
        stack: The service's stack; what happened in it before is not told.
        service: Name of the service.
        on_message: Called with each new event of the service, and each failed task, in words.
        clock: Seconds, monotonic.

    Attributes:
        failed: Tasks that failed, in the order in which they were found.
        messages: ECS's messages about the service, oldest first.
    """

    def __init__(
        self,
        clients: Clients,
        stack: Stack,
        service: str,
        on_message: Callable[[str], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failed: list[FailedTask] = []
        self.messages: list[str] = []
        self._clients = clients
        self._stack = stack
        self._service = service
        self._on_message: Callable[[str], None] = on_message or (lambda message: None)
        self._clock = clock
        self._ids: dict[str, str] = {}
        self._seen: set[str] = set()
        self._denied = False
        self._next = float("-inf")
        if not stack.is_empty_shell:
            self._look(silently=True)

    def look(self, *, now: bool = False) -> None:
        """Read what is new, unless it was read less than `INTERVAL_S` ago.

        An answer that AWS refuses is left out: the change of the stack goes on without it.
        """
        if now or self._clock() >= self._next:
            self._look(silently=False)
            self._next = self._clock() + INTERVAL_S

    def _look(self, *, silently: bool) -> None:
        if self._denied:
            return
        try:
            self._find()
            if "AWS::ECS::Cluster" in self._ids:
                self._read_messages(silently)
                self._read_tasks(silently)
        except AwsError as error:
            if not error.retryable and not self._is_on_its_way(error):
                self._denied = True
                self._on_message(f"what ECS says of the service cannot be shown: {error}")

    @staticmethod
    def _is_on_its_way(error: AwsError) -> bool:
        """Whether something is not there yet, or not any more."""
        return "NotFound" in error.code or error.code == "ClusterNotFoundException"

    def _find(self) -> None:
        wanted = ("AWS::ECS::Cluster", "AWS::ECS::Service", "AWS::Logs::LogGroup")
        if all(kind in self._ids for kind in wanted):
            return
        for each in stacks.resources(self._clients("cloudformation"), self._stack):
            if each.resource_type in wanted:
                self._ids[each.resource_type] = each.physical_id

    def _read_messages(self, silently: bool) -> None:
        service = self._ids.get("AWS::ECS::Service")
        if not service:
            return
        cluster = self._ids["AWS::ECS::Cluster"]
        with self._clients.asking("ecs:DescribeServices", of=service) as ecs:
            found = ecs.describe_services(cluster=cluster, services=[service])["services"]
        for event in reversed(found[0].get("events", []) if found else []):
            if event["id"] not in self._seen:
                self._seen.add(event["id"])
                if not silently:
                    self.messages.append(str(event["message"]))
                    self._on_message(str(event["message"]))

    def _read_tasks(self, silently: bool) -> None:
        cluster = self._ids["AWS::ECS::Cluster"]
        with self._clients.asking("ecs:ListTasks", of=cluster) as ecs:
            pages = ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus="STOPPED")
            arns = [arn for page in pages for arn in page["taskArns"] if arn not in self._seen]
        for start in range(0, len(arns), MAX_DESCRIBED):
            with self._clients.asking("ecs:DescribeTasks", of=cluster) as ecs:
                tasks = ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + MAX_DESCRIBED])["tasks"]
            for task in tasks:
                if task.get("lastStatus") == "STOPPED":  # until then its reason and its last lines may be missing
                    self._seen.add(str(task["taskArn"]))
                    self._ended(task, silently)

    def _ended(self, described: dict[str, Any], silently: bool) -> None:
        task = task_ends.failed(described)
        if silently or task is None or len(self.failed) >= MOST_FAILED:
            return
        group = self._ids.get("AWS::Logs::LogGroup")
        if group:
            stream = task_ends.log_stream(self._service, task.task_id)
            task = task._replace(log=task_logs.tail(self._clients, group, stream))
        self.failed.append(task)
        self._on_message(f"task {task.task_id} ended: {task.reason}")
