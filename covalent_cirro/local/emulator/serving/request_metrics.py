"""Counts the requests of balancers, and writes them into CloudWatch as ``AWS/ApplicationELB``.

Requests are counted in the event loop of the balancers; CloudWatch is written to from another thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.moto_internals import moto_cloudwatch, moto_elb

NAMESPACE = "AWS/ApplicationELB"
FLUSH_S = 0.5
"""Time between two writes."""
HEALTH_S = 60.0
"""Time between two writes of the numbers of healthy and unhealthy targets."""
KEPT_S = 3600.0
"""How long the number of a group's requests is known to `requests_since`."""


class Metric(NamedTuple):
    """A metric of a balancer, or of a target group of it, in its ``dimensions``."""

    name: str
    unit: str
    dimensions: tuple[tuple[str, str], ...]


class RequestMetrics:
    """The requests of all balancers of one region.

    Args:
        account: Number of the account.
        region: The region.
        timing: Durations.
        counts: Gives healthy and unhealthy targets of each target group.
    """

    def __init__(
        self, account: str, region: str, timing: Timing, counts: Callable[[], Mapping[str, tuple[int, int]]]
    ) -> None:
        self._where = (account, region)
        self._timing = timing
        self._target_counts = counts
        self._values: dict[Metric, Counter[float]] = {}
        self._requests: dict[str, deque[tuple[float, int]]] = {}
        self._pending: Counter[str] = Counter()

    def answered(self, balancer: str, group: str, status: int, seconds: float) -> None:
        """A target answered a request.

        Args:
            balancer: ARN of the balancer.
            group: ARN of the target group.
            status: HTTP status of the answer.
            seconds: From the request to the head of the answer.
        """
        self._chosen(balancer, group)
        for dimensions in (_dimensions(balancer), _dimensions(balancer, group)):
            self._add(f"HTTPCode_Target_{status // 100}XX_Count", "Count", dimensions, 1.0)
            self._add("TargetResponseTime", "Seconds", dimensions, float(f"{seconds:.3g}"))

    def failed(self, balancer: str, group: str | None, status: int) -> None:
        """The balancer itself answered with an error; ``group`` is `None` where no target was chosen."""
        if group is not None:
            self._chosen(balancer, group)
        self._add(f"HTTPCode_ELB_{status // 100}XX_Count", "Count", _dimensions(balancer), 1.0)
        self._add(f"HTTPCode_ELB_{status}_Count", "Count", _dimensions(balancer), 1.0)

    def counted(self, balancer: str, name: str) -> None:
        """Count an event of a balancer, such as ``HTTP_Redirect_Count``."""
        self._add(name, "Count", _dimensions(balancer), 1.0)

    def requests_since(self, group: str, since: float) -> int:
        """Requests that the targets of a group got since a time of `time.monotonic`."""
        return sum(count for at, count in list(self._requests.get(group, ())) if at >= since)

    async def begin(self) -> None:
        """Begin to write what is counted into CloudWatch, until the event loop ends."""
        self._writer = asyncio.create_task(self._write_always())

    async def _write_always(self) -> None:
        health_due = 0.0
        while True:
            await asyncio.sleep(FLUSH_S)
            now = time.monotonic()
            if now >= health_due:
                health_due = now + max(FLUSH_S, self._timing.scaled(HEALTH_S))
                self._count_targets()
            pending, self._pending = self._pending, Counter()
            for group, count in pending.items():
                recent = self._requests.setdefault(group, deque())
                recent.append((now, count))
                while recent[0][0] < now - KEPT_S:
                    recent.popleft()
                healthy, unhealthy = self._target_counts().get(group, (0, 0))
                share = count / max(1, healthy or unhealthy)
                self._add("RequestCountPerTarget", "Count", (("TargetGroup", full_name(group)),), share)
            values, self._values = self._values, {}
            if values:
                await asyncio.to_thread(self._write, values)

    def _count_targets(self) -> None:
        for group, (healthy, unhealthy) in self._target_counts().items():
            for balancer in moto_elb.balancers_of(*self._where, group):
                self._add("HealthyHostCount", "Count", _dimensions(balancer, group), float(healthy))
                self._add("UnHealthyHostCount", "Count", _dimensions(balancer, group), float(unhealthy))

    def _chosen(self, balancer: str, group: str) -> None:
        self._pending[group] += 1
        for dimensions in (_dimensions(balancer), _dimensions(balancer, group)):
            self._add("RequestCount", "Count", dimensions, 1.0)

    def _add(self, name: str, unit: str, dimensions: tuple[tuple[str, str], ...], value: float) -> None:
        self._values.setdefault(Metric(name, unit, dimensions), Counter())[value] += 1

    def _write(self, values: dict[Metric, Counter[float]]) -> None:
        for metric, counted in values.items():
            moto_cloudwatch.put(*self._where, NAMESPACE, metric.name, dict(metric.dimensions), metric.unit, counted)


def full_name(arn: str) -> str:
    """The value of the dimensions ``LoadBalancer`` and ``TargetGroup``: ``app/name/id``, ``targetgroup/name/id``."""
    return arn.rpartition(":")[2].removeprefix("loadbalancer/")


def _dimensions(balancer: str, group: str | None = None) -> tuple[tuple[str, str], ...]:
    of_group = () if group is None else (("TargetGroup", full_name(group)),)
    return (*of_group, ("LoadBalancer", full_name(balancer)))
