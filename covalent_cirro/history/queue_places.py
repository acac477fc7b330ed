"""Why jobs wait, and where in their queue they are, for commands: one look at a queue for all of its jobs.

What it means is `waiting.reasons`'; who asks here waits for an answer, so there is no deadline before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from covalent_cirro.errors import CirroError
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.machines import Need
from covalent_cirro.jobs.states import JobState
from covalent_cirro.jobs.waiting import QueueSnapshot, Reason, Waiting, Why, explain

EVERY_S = 10.0
"""Between two looks at a queue: each is five or six calls, however many jobs wait in it."""


class Turn(NamedTuple):
    """What a job waits for.

    Attributes:
        reason: Why, and what to change.
        place: Its place in its queue from 1; `None` where nobody knows.
    """

    reason: Reason
    place: int | None

    def __str__(self) -> str:
        return str(self.reason._replace(position=""))


class Turns:
    """The queues of one account, and what their jobs wait for.

    Args:
        account: Where.
        clock: Epoch seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._account = account
        self._clock = clock
        self._seen: dict[str, tuple[float, QueueSnapshot | None]] = {}

    def of(self, records: Iterable[Record]) -> dict[str, Turn]:
        """Why the jobs that are RUNNABLE wait, by their ids. Those that AWS does not let one learn are left out."""
        records = list(records)
        gone = {each.job_id for each in records if each.state != JobState.RUNNABLE.value}
        found = {}
        for record in records:
            seen = self._look(record.detail.queue) if record.state == JobState.RUNNABLE.value else None
            if seen is not None and not record.detail.terminated:
                turn = self._turn(record, seen, gone)
                if turn.reason.why is not Why.NOT_LEARNT:
                    found[record.job_id] = turn
        return found

    def _turn(self, record: Record, seen: QueueSnapshot, gone: set[str]) -> Turn:
        """The queue may have been looked at before the jobs: those of them that are ``gone`` do not count."""
        detail, now = record.detail, self._clock()
        need = Need(int(detail.vcpus), detail.memory_mib, detail.gpus)
        job = Waiting(detail.job_id, need, detail.status_reason, record.since or now)
        reason = explain(job, seen, detail.queue, self._account.region, self._account.access.profile, now)
        front = [each.job_id for each in seen.front or () if each.job_id not in gone]
        return Turn(reason, front.index(detail.job_id) + 1 if detail.job_id in front else None)

    def _look(self, queue: str) -> QueueSnapshot | None:
        looked_at, seen = self._seen.get(queue, (float("-inf"), None))
        if self._clock() - looked_at >= EVERY_S:
            with contextlib.suppress(CirroError):  # throttled: what was seen before will do until the next look
                seen = asyncio.run(self._account.capacity.look(queue))
            self._seen[queue] = (self._clock(), seen)
        return seen
