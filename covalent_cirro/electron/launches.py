"""The task groups that are under way in this process, so that a cancel finds them in every state.

Covalent cancels with another executor object than the one that sends, and maybe before there is a job: while the server
uploads, or between SubmitJob and its answer. There is one registry in a process, since a server has one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from covalent._shared_files import TaskCancelledError

T = TypeVar("T")

_launches: dict[tuple[str, int], Launch] = {}

_expected: set[tuple[str, int]] = set()


class Launch:
    """One task group under way, from the begin of `send` to the end of `poll`.

    Attributes:
        dispatch_id: The dispatch.
        node_ids: The electrons of the task group.
        redispatch_of: The dispatch that this one repeats and whose results it may reuse; `None`: there is none.
        job_id: Batch job id; `None` until the job is submitted.
        on_cancel: Called when the task group is cancelled; kills the process of Covalent's own nodes.
        again: An earlier server may have sent the task group: its job, results or call are looked for.
    """

    def __init__(self, dispatch_id: str, node_ids: Sequence[int], *, redispatch_of: str | None = None) -> None:
        self.dispatch_id = dispatch_id
        self.node_ids = list(node_ids)
        self.redispatch_of = redispatch_of
        self.job_id: str | None = None
        self.on_cancel: Callable[[], None] | None = None
        self.again = any((dispatch_id, node_id) in _expected for node_id in node_ids)
        self._asked = asyncio.Event()
        for node_id in self.node_ids:
            _launches[dispatch_id, node_id] = self
            _expected.discard((dispatch_id, node_id))

    @property
    def cancelled(self) -> bool:
        """Whether the task group was cancelled."""
        return self._asked.is_set()

    def cancel(self) -> None:
        """Cancel the task group."""
        self._asked.set()
        if self.on_cancel is not None:
            self.on_cancel()

    def close(self) -> None:
        """Remove the task group from the registry: there is nothing left to cancel."""
        for node_id in self.node_ids:
            if _launches.get((self.dispatch_id, node_id)) is self:
                del _launches[self.dispatch_id, node_id]

    async def unless_cancelled(self, work: Awaitable[T]) -> T:
        """Wait for work that can be cancelled at any time.

        Raises:
            TaskCancelledError: The task group was cancelled before the work was done; the work is cancelled too.
        """
        working = asyncio.ensure_future(work)
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
            if self.cancelled:
                raise TaskCancelledError(f"Cancelled before its job was submitted (dispatch {self.dispatch_id})")
            return await working
        finally:
            asked.cancel()
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)


def find(dispatch_id: str, node_id: int) -> Launch | None:
    """The task group of a node, if it is under way."""
    return _launches.get((dispatch_id, node_id))


def expect(dispatch_id: str, node_ids: Sequence[int]) -> None:
    """Set `Launch.again` for the next task group of these nodes."""
    _expected.update((dispatch_id, node_id) for node_id in node_ids)


def is_expected(dispatch_id: str, node_id: int) -> bool:
    """Whether `expect` was called for a node, and its task group is not under way yet."""
    return (dispatch_id, node_id) in _expected
