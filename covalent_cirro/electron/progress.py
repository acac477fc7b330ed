"""Shows one job while it is under way: its status and panel in the UI, why it waits, what it prints.

Combines what the watcher, `waits.py` and `live_logs.py` find. Decides nothing about the job and never fails it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.covalent_server.assets import StatusChange
from covalent_cirro.covalent_server.status_board import board, status_of
from covalent_cirro.jobs import panel
from covalent_cirro.jobs.machines import Need
from covalent_cirro.jobs.states import JobDetail, JobState
from covalent_cirro.jobs.waiting import Reason, Waiting

if TYPE_CHECKING:
    from covalent_cirro.electron.engine.engine import Engine

log = logging.getLogger(__name__)

_WAITS = (JobState.SUBMITTED.value, JobState.PENDING.value, JobState.RUNNABLE.value)


class Progress:
    """Shows the job of a task group while the block lasts. After the block nothing is written to its electrons."""

    def __init__(
        self, engine: Engine, dispatch_id: str, node_ids: Sequence[int], call_uri: str, tried: str = ""
    ) -> None:
        self._engine = engine
        self._dispatch_id, self._node_ids = dispatch_id, list(node_ids)
        self._place = _place(call_uri)
        self._tried = tried
        self._detail: JobDetail | None = None
        self._since = 0.0
        self._reason: Reason | None = None

    def saw(self, detail: JobDetail) -> None:
        """Show the job as DescribeJobs showed it, while it is under way or after its end. See `Watcher.wait`."""
        before, self._detail = self._detail, detail
        if before is None or before.state != detail.state or len(before.attempts) != len(detail.attempts):
            self._since = since(detail, time.time())
            self._reason = None
        if not detail.is_terminal and (before is None or status_of(before) != status_of(detail)):
            for node_id in self._node_ids:
                board().show(StatusChange(self._dispatch_id, node_id, status_of(detail), detail.started_at))
        explain_wait(self._engine, detail, self._since, self._because)
        if detail.state == JobState.RUNNING.value and self._place is not None:
            self._engine.live_logs.follow(self._place, self._dispatch_id, self._node_ids[0])
        self._show()

    async def __aenter__(self) -> Progress:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._detail is not None:
            self._engine.waits.leave(self._detail.job_id)
        if self._place is not None:
            await self._engine.live_logs.stop(self._place)
        board().drop(self._dispatch_id, self._node_ids)

    def _because(self, reason: Reason) -> None:
        self._reason = reason
        self._show()

    def _show(self) -> None:
        if self._detail is None:
            return
        lines = panel.lines(
            self._detail,
            self._since,
            partition=self._engine.partition,
            region=self._engine.console_region,
            waits_for=str(self._reason) if self._reason is not None else "",
            tried=self._tried,
        )
        for node_id in self._node_ids:
            board().show_panel(self._dispatch_id, node_id, lines)


def explain_wait(
    engine: Engine, detail: JobDetail, since: float, tell: Callable[[Reason], None] = lambda reason: None
) -> None:
    """Have the reason worked out why a job waits, if it waits for long. A job that runs is removed from `Waits`.

    Args:
        engine: The account's.
        detail: The job as DescribeJobs showed it.
        since: Epoch seconds since when the job is in its state.
        tell: Called with each new reason.
    """
    if detail.state in _WAITS:
        need = Need(int(detail.vcpus), detail.memory_mib, detail.gpus)
        engine.waits.see(Waiting(detail.job_id, need, detail.status_reason, since), detail.queue, tell)
    else:
        engine.waits.leave(detail.job_id)


def _place(call_uri: str) -> Location | None:
    try:
        return parse_call_uri(call_uri)
    except ProtocolError as error:  # `receive` refuses it
        log.warning("The log of a job cannot be shown: %s", error)
        return None


def since(detail: JobDetail, now: float) -> float:
    """Epoch seconds since when a job is in its state; ``now`` where AWS does not say it."""
    if detail.state in _WAITS and not detail.attempts:
        return detail.created_at or now
    if detail.state == JobState.RUNNING.value:
        return detail.started_at or now
    if detail.is_terminal:
        return detail.stopped_at or now
    return now
