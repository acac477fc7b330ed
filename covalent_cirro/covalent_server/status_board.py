"""Shows the state of jobs in the Covalent UI, with few writes to the server's database.

Changes are gathered for a moment and written together in small transactions; of each node, the latest one is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from covalent_cirro.covalent_server import assets, view
from covalent_cirro.covalent_server.assets import StatusChange
from covalent_cirro.covalent_server.view import PanelChange
from covalent_cirro.jobs import panel
from covalent_cirro.jobs.states import JobDetail, JobState

GATHER_S = 0.3
"""Time for which changes are gathered before they are written."""

CHANGES_AT_ONCE = 200
"""Most changes in one transaction: a transaction that locks the database for 5 s fails other electrons."""


class StatusBoard:
    """Changes that are not written yet, of one event loop."""

    def __init__(self) -> None:
        self._statuses: dict[tuple[str, int], StatusChange] = {}
        self._panels: dict[tuple[str, int], PanelChange] = {}
        self._problems: dict[tuple[str, int], PanelChange] = {}
        self._writing: asyncio.Task[None] | None = None
        view.describe_jobs(panel.KEYS)

    def show(self, change: StatusChange) -> None:
        """Write the status of a node soon."""
        self._statuses[change.dispatch_id, change.node_id] = change
        self._soon()

    def show_panel(self, dispatch_id: str, node_id: int, lines: Mapping[str, str]) -> None:
        """Write the lines of a node's panel (`jobs/panel.py`) soon."""
        self._panels[dispatch_id, node_id] = PanelChange(dispatch_id, node_id, lines)
        self._soon()

    def show_problem(self, dispatch_id: str, node_id: int, words: str) -> None:
        """Write a problem into a node's panel soon, beside the lines that it has; "" removes the problem."""
        lines = {panel.PROBLEM: words} if words else {}
        self._problems[dispatch_id, node_id] = PanelChange(dispatch_id, node_id, lines)
        self._soon()

    def drop(self, dispatch_id: str, node_ids: list[int]) -> None:
        """Drop changes of the status of nodes that have ended."""
        for node_id in node_ids:
            self._statuses.pop((dispatch_id, node_id), None)

    def _soon(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="cirro-status-board")

    async def _write(self) -> None:
        while self._statuses or self._panels or self._problems:
            await asyncio.sleep(GATHER_S)
            statuses = [self._statuses.pop(key) for key in list(self._statuses)[:CHANGES_AT_ONCE]]
            panels = [self._panels.pop(key) for key in list(self._panels)[:CHANGES_AT_ONCE]]
            problems = [self._problems.pop(key) for key in list(self._problems)[:CHANGES_AT_ONCE]]
            if statuses:
                await asyncio.to_thread(assets.write_statuses, statuses)
            if panels:
                await asyncio.to_thread(view.write_panels, panels, panel.KEYS)
            if problems:
                await asyncio.to_thread(view.write_panels, problems, (panel.PROBLEM,))
            # Not for panels: when the UI of Covalent 0.240 draws a dispatch again, it closes the panel that somebody
            # reads. A click on the electron reads the panel again.
            await assets.redraw({change.dispatch_id for change in statuses})


_boards: WeakKeyDictionary[asyncio.AbstractEventLoop, StatusBoard] = WeakKeyDictionary()


def board() -> StatusBoard:
    """The board of the running loop."""
    return _boards.setdefault(asyncio.get_running_loop(), StatusBoard())


def status_of(detail: JobDetail) -> str:
    """Covalent's status for a job that has not ended: RUNNING while its container runs, else STARTING.

    An array job is RUNNING from the first container of its jobs on.
    """
    return "RUNNING" if detail.has_begun or detail.state == JobState.RUNNING.value else "STARTING"
