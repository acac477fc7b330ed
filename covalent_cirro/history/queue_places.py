"""Why jobs wait, and their position in their queue, for commands: a queue is looked at once for all of its jobs.

`jobs/waiting.py` finds the reason. Unlike on the server, a job need not have waited for a while before AWS is asked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from covalent_cirro.aws.clients import run_blocking
from covalent_cirro.errors import CirroError
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.machines import Need
from covalent_cirro.jobs.queue_snapshots import QueueSnapshot
from covalent_cirro.jobs.states import JobState
from covalent_cirro.jobs.waiting import Waiting, explain
from covalent_cirro.jobs.waiting_reasons import Reason, Why

EVERY_S = 10.0
"""Seconds between two looks at a queue: each takes five or six calls, however many jobs wait in the queue."""


class JobWait(NamedTuple):
    """What a job waits for.

    Attributes:
        reason: Why the job waits, and what to change.
        place: Position in its queue, from 1; `None` where it is not known.
    """

    reason: Reason
    place: int | None

    def __str__(self) -> str:
        return str(self.reason._replace(position=""))


class JobWaits:
    """What the jobs in the queues of an account wait for.

    Args:
        account: The account.
        clock: Epoch seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._account = account
        self._clock = clock
        self._seen: dict[str, tuple[float, QueueSnapshot | None]] = {}

    def of(self, records: Iterable[Record]) -> dict[str, JobWait]:
        """Why RUNNABLE jobs wait, by job id. Jobs whose reason the credentials do not allow to learn are left out."""
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

    def _turn(self, record: Record, seen: QueueSnapshot, gone: set[str]) -> JobWait:
        """What a job waits for. Jobs in ``gone`` have left the queue since it was looked at, and do not count."""
        detail, now = record.detail, self._clock()
        need = Need(detail.vcpus, detail.memory_mib, detail.gpus)
        job = Waiting(detail.job_id, need, detail.status_reason, record.since or now, max(1, detail.num_nodes))
        reason = explain(job, seen, detail.queue, self._account.region, self._account.access.profile, now)
        front = [each.job_id for each in seen.front or () if each.job_id not in gone]
        return JobWait(reason, front.index(detail.job_id) + 1 if detail.job_id in front else None)

    def _look(self, queue: str) -> QueueSnapshot | None:
        looked_at, seen = self._seen.get(queue, (float("-inf"), None))
        if self._clock() - looked_at >= EVERY_S:
            with contextlib.suppress(CirroError):  # throttled: the earlier answer is used until the next look
                seen = run_blocking(self._account.capacity.look(queue))
            self._seen[queue] = (self._clock(), seen)
        return seen
