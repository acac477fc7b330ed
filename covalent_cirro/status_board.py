"""Shows in the Covalent UI whether an electron waits for a machine or runs, without loading the server's database.

Changes are gathered for a moment and written together in one transaction; the latest of a node wins.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from covalent_cirro import covalent_assets
from covalent_cirro.covalent_assets import StatusChange
from covalent_cirro.jobs import JobDetail, JobState

GATHER_S = 0.3
"""How long changes are gathered."""


class StatusBoard:
    """The changes of one event loop that are not written yet."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, int], StatusChange] = {}
        self._writing: asyncio.Task[None] | None = None

    def show(self, change: StatusChange) -> None:
        """Write a change soon."""
        self._changes[change.dispatch_id, change.node_id] = change
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    def drop(self, dispatch_id: str, node_ids: list[int]) -> None:
        """Forget changes of nodes that have ended."""
        for node_id in node_ids:
            self._changes.pop((dispatch_id, node_id), None)

    async def _write(self) -> None:
        while self._changes:
            await asyncio.sleep(GATHER_S)
            changes = list(self._changes.values())
            self._changes.clear()
            if changes:
                await asyncio.to_thread(covalent_assets.write_statuses, changes)
                await covalent_assets.redraw({change.dispatch_id for change in changes})


_boards: WeakKeyDictionary[asyncio.AbstractEventLoop, StatusBoard] = WeakKeyDictionary()


def board() -> StatusBoard:
    """The board of the running loop."""
    return _boards.setdefault(asyncio.get_running_loop(), StatusBoard())


def status_of(detail: JobDetail) -> str:
    """Covalent's word for a job that has not ended: without a container, an electron is starting."""
    return "RUNNING" if detail.state == JobState.RUNNING.value else "STARTING"
