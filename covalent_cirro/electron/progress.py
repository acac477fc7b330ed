"""Shows one job while it is under way: its status and panel in the UI, why it waits, what it prints.

Combines what the watcher, `waits.py`, `live_logs.py` and `live_curves.py` find. Decides nothing about the job and never
fails it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.reports import Point
from covalent_cirro.covalent_server import view
from covalent_cirro.covalent_server.assets import StatusChange
from covalent_cirro.covalent_server.status_board import board, status_of
from covalent_cirro.electron.call_writer import read_call
from covalent_cirro.electron.maps.live_map_log import LiveMapLog
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs import learning_curves, map_progress, panel
from covalent_cirro.jobs.machines import Need
from covalent_cirro.jobs.states import JobDetail, JobState
from covalent_cirro.jobs.waiting import Waiting
from covalent_cirro.jobs.waiting_reasons import Reason

if TYPE_CHECKING:
    from covalent_cirro.electron.engine.engine import Engine

log = logging.getLogger(__name__)

COUNT_S = 10.0
"""Shortest time between two listings of what the jobs of a map have stored."""

_SHARE_OF_TIME = 20
"""A listing takes at most a twentieth of the time."""

_KEYS_A_SECOND = 200
"""A listing of a thousand keys is a call: there is at most one in `COUNT_S`."""

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
        self._items = ""
        self._reported: dict[int, str] = {}
        self._counting: asyncio.Task[None] | None = None

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
        if detail.array_size and self._counting is None and self._place is not None and not detail.is_terminal:
            self._counting = asyncio.create_task(self._count_items(self._place), name="cirro-map-progress")
        if detail.state == JobState.RUNNING.value and self._place is not None:
            self._engine.live_logs.follow(self._place, self._dispatch_id, self._node_ids[0])
        if self._place is not None and not detail.is_terminal and status_of(detail) == "RUNNING":
            for node_id in self._node_ids:
                tell = functools.partial(self._reports, node_id)
                self._engine.live_curves.follow(self._place, self._dispatch_id, node_id, tell)
        self._show()

    async def __aenter__(self) -> Progress:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        if self._detail is not None:
            self._engine.waits.leave(self._detail.job_id)
        self._engine.live_curves.stop(self._dispatch_id, self._node_ids)
        if self._place is not None:
            await self._engine.live_logs.stop(self._place)
        board().drop(self._dispatch_id, self._node_ids)

    async def _count_items(self, place: Location) -> None:
        """Show how far a map is and what its jobs print, from a listing of what they have stored."""
        store = self._engine.store
        prints = LiveMapLog(store, view.log_files, view.write_sizes, place, self._node_ids[0])
        try:
            mapped: Mapped | None = None
            pause_s = COUNT_S
            while True:
                await asyncio.sleep(pause_s)
                if self._detail is None or not self._detail.has_begun:
                    continue
                if mapped is None:  # not before: of a short map nothing is shown
                    written = await read_call(store, place)
                    mapped = written.call.tasks[0].mapped if written is not None else None
                    if mapped is None:
                        return
                began = time.monotonic()
                keys = [key for key, _ in await store.list_keys(place.bucket, place.array_base)]
                jobs = await asyncio.to_thread(map_progress.of_jobs, keys, place, mapped)
                counts = map_progress.total([jobs], mapped.length, time.time())
                self._items = map_progress.items_line(counts, self._detail.started_at or self._detail.created_at)
                self._show()
                await prints.look(keys, jobs)
                pause_s = max(COUNT_S, _SHARE_OF_TIME * (time.monotonic() - began), len(keys) / _KEYS_A_SECOND)
        except CirroError as error:  # it is only shown
            log.warning("The items of %s are not counted: %s", place.call_uri, error)

    def _reports(self, node_id: int, points: Sequence[Point]) -> None:
        self._reported[node_id] = learning_curves.line(points)
        self._show()

    def _because(self, reason: Reason) -> None:
        self._reason = reason
        self._show()

    def _show(self) -> None:
        if self._detail is None:
            return
        for node_id in self._node_ids:
            lines = panel.lines(
                self._detail,
                self._since,
                partition=self._engine.partition,
                region=self._engine.console_region,
                waits_for=str(self._reason) if self._reason is not None else "",
                tried=self._tried,
                items=self._items,
                reported=self._reported.get(node_id, ""),
            )
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
    if detail.state in _WAITS and not detail.has_begun:
        need = Need(detail.vcpus, detail.memory_mib, detail.gpus)
        waiting = Waiting(detail.job_id, need, detail.status_reason, since, max(1, detail.num_nodes))
        engine.waits.see(waiting, detail.queue, tell)
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
