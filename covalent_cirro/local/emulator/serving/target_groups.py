"""Targets of target groups: which there are, how their health checks went, which gets the next request, draining.

All of it happens in the event loop of the region's balancers; other threads read only. It must not know balancers'
ports, nor what a target is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiohttp

from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.moto_internals import moto_elb
from covalent_cirro.local.emulator.moto_internals.moto_elb import HealthCheck

LEAST_TIMEOUT_S = 2.0
"""Timeouts of requests are not scaled below this: a program needs real time to answer."""
LEAST_INTERVAL_S = 0.05
"""Shortest time between two health checks of one target."""
FIRST_INTERVAL_S = 1.0
"""Longest time between two checks of a target that has not been healthy yet."""

INITIAL = ("Elb.InitialHealthChecking", "Initial health checks in progress")
DRAINING = ("Target.DeregistrationInProgress", "Target deregistration is in progress")
NOT_IN_USE = ("Target.NotInUse", "Target group is not configured to receive traffic from the load balancer")
NOT_REGISTERED = ("Target.NotRegistered", "Target is not registered to the target group")
NOT_CHECKED = ("Target.HealthCheckDisabled", "Health checks are disabled for this target group")
"""Reason and description of a target's state (ELB API Reference, TargetHealth)."""

log = logging.getLogger("covalent_cirro.local.emulator")


@dataclass(eq=False)
class Target:
    """A target of one target group.

    Attributes:
        host, port: Where it answers.
        state: ``initial``, ``healthy``, ``unhealthy``, ``draining``, ``unused`` or ``unavailable``.
        reason, description: Of the state, in AWS's words; empty for ``healthy``.
        in_flight: Requests that it has not answered yet.
    """

    host: str
    port: int
    state: str = "initial"
    reason: str = INITIAL[0]
    description: str = INITIAL[1]
    in_flight: int = 0
    registered_at: float = field(default_factory=time.monotonic)
    passed: int = 0
    failed: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    checks: asyncio.Task[None] | None = None

    def become(self, state: str, why: tuple[str, str] = ("", "")) -> bool:
        """Set the state; returns whether it is another one."""
        changed = state != self.state
        self.state, (self.reason, self.description) = state, why
        return changed


@dataclass(eq=False)
class TargetGroup:
    """The targets of one group: those that are registered, by host and port, and those that drain."""

    registered: dict[tuple[str, int], Target] = field(default_factory=dict)
    draining: list[Target] = field(default_factory=list)
    turn: int = 0


class TargetGroups:
    """The target groups of one region.

    Args:
        account: Number of the account.
        region: The region.
        timing: Durations.
        changed: Called when the state of a target has changed, or a target is drained.
    """

    def __init__(self, account: str, region: str, timing: Timing, changed: Callable[[], None]) -> None:
        self._where = (account, region)
        self._timing = timing
        self._changed = changed
        self._groups: dict[str, TargetGroup] = {}
        self._drains: set[asyncio.Task[None]] = set()

    # --- in the event loop ------------------------------------------------------------------------------------------

    async def register(self, arn: str, targets: Iterable[tuple[str, int]]) -> None:
        """Add targets, and begin to check them; one that is registered already stays as it is."""
        group = self._groups.setdefault(arn, TargetGroup())
        for host, port in targets:
            if (host, port) not in group.registered:
                target = group.registered[host, port] = Target(host, port)
                target.checks = asyncio.create_task(self._check(arn, target))
                target.checks.add_done_callback(_log_failure)

    async def deregister(self, arn: str, targets: Iterable[tuple[str, int]]) -> bool:
        """Give targets no more requests; they are gone once those in progress are answered, or after the delay.

        Returns:
            Whether all of them were registered.
        """
        group, all_known = self._groups.setdefault(arn, TargetGroup()), True
        for key in targets:
            target = group.registered.pop(key, None)
            if target is None:
                all_known = False
                continue
            if target.checks is not None:
                target.checks.cancel()
            target.become("draining", DRAINING)
            group.draining.append(target)
            drain = asyncio.create_task(self._drain(arn, group, target))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)
        return all_known

    async def forget(self, arn: str) -> None:
        """Remove a group that was deleted."""
        group = self._groups.pop(arn, TargetGroup())
        for target in group.registered.values():
            if target.checks is not None:
                target.checks.cancel()

    def acquire(self, arn: str) -> Target | None:
        """The target of the next request, in turn or the least busy; `None` where there is none. `release` it then.

        Where all registered targets are unhealthy, any of them gets the request (ELB User Guide, Target group health).
        """
        group = self._groups.get(arn)
        if group is None:
            return None
        targets = list(group.registered.values())
        able = [each for each in targets if each.state == "healthy"]
        able = able or [each for each in targets if each.state == "unhealthy"]
        if not able:
            return None
        group.turn += 1
        able = able[group.turn % len(able) :] + able[: group.turn % len(able)]
        least = moto_elb.takes_least_busy(*self._where, arn)
        target = min(able, key=lambda each: each.in_flight) if least else able[0]
        target.in_flight += 1
        target.idle.clear()
        return target

    @staticmethod
    def release(target: Target) -> None:
        """The request to the target was answered, or has failed."""
        target.in_flight -= 1
        if not target.in_flight:
            target.idle.set()

    # --- from any thread --------------------------------------------------------------------------------------------

    def health(self, arn: str, asked: list[tuple[str, int]] | None = None) -> list[Target]:
        """The targets of a group, those that drain last; or those that are asked for."""
        group = self._groups.get(arn, TargetGroup())
        known = [*list(group.registered.values()), *list(group.draining)]
        if asked is None:
            return known
        by_key = {(each.host, each.port): each for each in reversed(known)}
        return [by_key.get(key) or Target(*key, "unused", *NOT_REGISTERED) for key in asked]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Healthy and unhealthy targets of each group."""
        found = {}
        for arn, group in list(self._groups.items()):
            states = [each.state for each in list(group.registered.values())]
            found[arn] = states.count("healthy"), states.count("unhealthy")
        return found

    # --- health and draining ----------------------------------------------------------------------------------------

    async def _check(self, arn: str, target: Target) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                check = moto_elb.health_check(*self._where, arn)
                if check is None:
                    return
                before = target.state
                if not moto_elb.balancers_of(*self._where, arn):
                    target.become("unused", NOT_IN_USE)
                elif not check.enabled:
                    target.become("unavailable", NOT_CHECKED)
                else:
                    self._judge(target, check, await self._probe(session, target, check))
                if target.state != before:
                    self._changed()
                interval_s = max(LEAST_INTERVAL_S, self._timing.scaled(check.interval_s))
                known = target.state in ("healthy", "unhealthy")
                await asyncio.sleep(interval_s if known else min(interval_s, FIRST_INTERVAL_S))

    async def _probe(
        self, session: aiohttp.ClientSession, target: Target, check: HealthCheck
    ) -> tuple[str, str] | None:
        """Ask a target once; reason and description of the failure, `None` for success."""
        url = f"http://{target.host}:{check.port or target.port}{check.path}"
        timeout = aiohttp.ClientTimeout(total=timeout_s(self._timing, check.timeout_s))
        headers = {"User-Agent": "ELB-HealthChecker/2.0"}
        try:
            async with session.get(url, timeout=timeout, headers=headers, allow_redirects=False) as answer:
                if matches(check.codes, answer.status):
                    return None
                return "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{answer.status}]"
        except asyncio.TimeoutError:
            return "Target.Timeout", "Request timed out"
        except (aiohttp.ClientError, OSError):
            return "Target.FailedHealthChecks", "Health checks failed"

    def _judge(self, target: Target, check: HealthCheck, failure: tuple[str, str] | None) -> None:
        """Set the state that follows from one more check. A new target is healthy after its first success."""
        if target.state in ("unused", "unavailable"):
            target.become("initial", INITIAL)
        if failure is None:
            target.passed, target.failed = target.passed + 1, 0
            if target.state == "initial" or target.passed >= check.healthy:
                target.become("healthy")
            return
        if target.state == "initial" and time.monotonic() < target.registered_at + self._timing.task_start_s:
            return
        target.passed, target.failed = 0, target.failed + 1
        if target.state == "unhealthy" or target.failed >= check.unhealthy:
            target.become("unhealthy", failure)

    async def _drain(self, arn: str, group: TargetGroup, target: Target) -> None:
        delay_s = self._timing.scaled(moto_elb.deregistration_delay_s(*self._where, arn))
        if target.in_flight:
            # After the delay the target gets SIGTERM, and may still answer.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(target.idle.wait(), delay_s)
        group.draining.remove(target)
        self._changed()


def _log_failure(checks: asyncio.Task[None]) -> None:
    """A mistake in the emulator must not end the checks of a target without a word."""
    if not checks.cancelled() and checks.exception() is not None:
        log.error("the health checks of a target have ended", exc_info=checks.exception())


def timeout_s(timing: Timing, seconds: float) -> float:
    """A timeout of a request in seconds here: scaled, but not below `LEAST_TIMEOUT_S` or the timeout itself."""
    return min(seconds, max(LEAST_TIMEOUT_S, timing.scaled(seconds)))


def matches(codes: str, status: int) -> bool:
    """Whether a status is among codes such as ``200-299,301``."""
    for part in codes.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False
