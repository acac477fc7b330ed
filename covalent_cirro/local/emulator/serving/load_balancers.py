"""The load balancers of one region, for the threads that answer the API: ports, targets, health, request counts."""

from __future__ import annotations

import threading
from collections.abc import Callable

from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.serving.balancer import Balancer
from covalent_cirro.local.emulator.serving.event_loop import EventLoop
from covalent_cirro.local.emulator.serving.request_metrics import RequestMetrics
from covalent_cirro.local.emulator.serving.target_groups import Target, TargetGroups


class LoadBalancers:
    """The load balancers of one region. Safe for threads.

    Args:
        account: Number of the account.
        region: The region.
        timing: Durations.
        changed: Called, from another thread, when a target's state has changed or it is drained. It must not block.
    """

    def __init__(self, account: str, region: str, timing: Timing, changed: Callable[[], None]) -> None:
        self._where = (account, region)
        self._timing = timing
        self._groups = TargetGroups(account, region, timing, changed)
        self.metrics = RequestMetrics(account, region, timing, self._groups.counts)
        self._loop = EventLoop(f"balancers-{region}")
        self._lock = threading.Lock()
        self._balancers: dict[str, Balancer] = {}
        self._writes_metrics = False

    def open(self, arn: str) -> int:
        """Give a new balancer a port of the loopback, and return it."""
        balancer = Balancer(arn, self._where, self._timing, self._groups, self.metrics)
        self._loop.run(balancer.open())
        with self._lock:
            self._balancers[arn] = balancer
            begin, self._writes_metrics = not self._writes_metrics, True
        if begin:
            self._loop.run(self.metrics.begin())
        return balancer.port

    def remove(self, arn: str) -> None:
        """Close the port of a balancer that is deleted."""
        with self._lock:
            balancer = self._balancers.pop(arn, None)
        if balancer is not None:
            self._loop.run(balancer.close())

    def register(self, group: str, targets: list[tuple[str, int]]) -> None:
        """Add targets, each a host and a port, to a target group."""
        self._loop.run(self._groups.register(group, targets))

    def deregister(self, group: str, targets: list[tuple[str, int]]) -> bool:
        """Drain targets of a group; returns whether all of them were registered."""
        return self._loop.run(self._groups.deregister(group, targets))

    def forget_group(self, group: str) -> None:
        """Remove a target group that was deleted."""
        self._loop.run(self._groups.forget(group))

    def health(self, group: str, targets: list[tuple[str, int]] | None = None) -> list[Target]:
        """The targets of a group with their states, those that drain last; or those that are asked for."""
        return self._groups.health(group, targets)

    def close(self) -> None:
        """Close all ports."""
        with self._lock:
            balancers, self._balancers = list(self._balancers.values()), {}
        for balancer in balancers:
            self._loop.run(balancer.close())
        self._loop.close()
