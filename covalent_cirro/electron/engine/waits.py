"""Explains jobs that wait too long for a machine, with at most one look at a queue in a minute for all of its jobs.

Decides when to look and who gets the reason. `aws/capacity.py` looks at a queue, and `jobs/waiting.py` finds the
reason. Ends no job.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from covalent_cirro.errors import AwsError
from covalent_cirro.jobs.queue_snapshots import QueueSnapshot
from covalent_cirro.jobs.waiting import DEADLINE_S, Waiting, explain
from covalent_cirro.jobs.waiting_reasons import Reason, Why

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
"""Time between two looks at a queue."""

DEADLINE_VARIABLE = "CIRRO_WAITING_DEADLINE_S"
"""Environment variable with another deadline than `waiting.DEADLINE_S`, for tests and demonstrations."""

Tell = Callable[[Reason], None]


def deadline_s() -> float:
    """Seconds that a job waits before its reason is worked out, in this process."""
    return float(os.environ.get(DEADLINE_VARIABLE) or DEADLINE_S)


@dataclass
class _Waiter:
    job: Waiting
    queue: str
    tell: Tell
    last_reason: Reason | None = None


class Waits:
    """Jobs of one engine that wait for a machine. The task that explains them runs only while there are any."""

    def __init__(
        self,
        look: Callable[[str], Awaitable[QueueSnapshot]],
        *,
        region: str,
        profile: str | None,
        deadline_s: float,
        every_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make it over ``look``, which asks AWS about one queue.

        Args:
            look: Raises `AwsError` where AWS is throttled or out of reach: asked again at the next look.
            region, profile: For the commands of remedies.
            deadline_s: No job that has waited shorter is explained.
            every_s: Between two looks at a queue; unset: `LOOK_EVERY_S`, or the deadline if that is shorter.
            clock: Epoch seconds.
        """
        self._look = look
        self._region, self._profile = region, profile
        self._deadline_s = deadline_s
        self._every_s = min(LOOK_EVERY_S, deadline_s) if every_s is None else every_s
        self._clock = clock
        self._waiters: dict[str, _Waiter] = {}
        self._looked: dict[str, float] = {}
        self._logged: dict[str, set[Why]] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def see(self, job: Waiting, queue: str, tell: Tell) -> None:
        """Note that a job waits, or what AWS now says of one that does.

        Args:
            job: The job.
            queue: Name of its queue.
            tell: Called, on the loop, with the reason once the deadline is over, and with each other one after it.
        """
        before = self._waiters.get(job.job_id)
        self._waiters[job.job_id] = _Waiter(job, queue, tell, before.last_reason if before is not None else None)
        if before is not None and before.job.status_reason != job.status_reason:
            self._looked.pop(queue, None)  # AWS said something new: not to be kept for a minute
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="cirro-waits")

    def leave(self, job_id: str) -> None:
        """Remove a job that does not wait any more. Does nothing for a job that is not there."""
        waiter = self._waiters.pop(job_id, None)
        if waiter is not None and all(each.queue != waiter.queue for each in self._waiters.values()):
            self._looked.pop(waiter.queue, None)
            self._logged.pop(waiter.queue, None)

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiters:
            now = self._clock()
            due = {queue: at for queue, at in self._due().items() if at <= now}
            for queue in due:
                self._looked[queue] = now
                try:
                    self._explain(queue, await self._look(queue))
                except AwsError as error:
                    log.info("Why jobs wait in %s is asked again in %.0f s: %s", queue, self._every_s, error)
                except Exception:  # one wrong answer must not end the explanations of all jobs
                    log.exception("Why jobs wait in %s could not be worked out", queue)
            self._news.clear()
            pause = min(self._due().values(), default=0.0) - self._clock()
            try:
                await asyncio.wait_for(self._news.wait(), min(max(pause, 0.01), self._every_s))
            except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
                continue

    def _due(self) -> dict[str, float]:
        """Time of the next look at each queue."""
        first: dict[str, float] = {}
        for each in self._waiters.values():
            first[each.queue] = min(first.get(each.queue, float("inf")), each.job.since + self._deadline_s)
        return {queue: max(at, self._looked.get(queue, 0.0) + self._every_s) for queue, at in first.items()}

    def _explain(self, queue: str, seen: QueueSnapshot) -> None:
        now = self._clock()
        fresh: dict[Why, list[tuple[str, Reason]]] = {}
        for each in list(self._waiters.values()):
            if each.queue != queue or now - each.job.since < self._deadline_s:
                continue
            reason = explain(each.job, seen, queue, self._region, self._profile, now, self._deadline_s)
            if reason != each.last_reason:
                each.last_reason = reason
                each.tell(reason)
            fresh.setdefault(reason.why, []).append((each.job.job_id, reason))
        logged = self._logged.setdefault(queue, set())
        for why, jobs in fresh.items():
            if why not in logged:
                logged.add(why)
                job_id, reason = jobs[0]
                others = f" and {len(jobs) - 1} others" if len(jobs) > 1 else ""
                level = logging.WARNING if why.is_stuck else logging.INFO
                log.log(level, "Job %s%s of queue %s has no machine (%s): %s", job_id, others, queue, why.value, reason)
