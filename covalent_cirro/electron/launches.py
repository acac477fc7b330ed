"""Electrons between Covalent's `send` and the end of their job, so that a cancel finds them in every state.

Covalent cancels through another executor object, maybe before there is a job to cancel: while the server still uploads,
or between SubmitJob and the record of its answer. One registry a process; the server has one event loop.
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
    """One task group under way, from `send` to the end of `poll`.

    Attributes:
        dispatch_id: Its dispatch.
        node_ids: Its electrons.
        job_id: Of its job, once it is submitted.
        on_cancel: Called when its end is asked for: kills a process, say.
        again: A server that died may have begun it: what it left is to be looked for.
    """

    def __init__(self, dispatch_id: str, node_ids: Sequence[int]) -> None:
        self.dispatch_id = dispatch_id
        self.node_ids = list(node_ids)
        self.job_id: str | None = None
        self.on_cancel: Callable[[], None] | None = None
        self.again = any((dispatch_id, node_id) in _expected for node_id in node_ids)
        self._asked = asyncio.Event()
        for node_id in self.node_ids:
            _launches[dispatch_id, node_id] = self
            _expected.discard((dispatch_id, node_id))

    @property
    def cancelled(self) -> bool:
        """Whether its end was asked for."""
        return self._asked.is_set()

    def cancel(self) -> None:
        """Ask for its end."""
        self._asked.set()
        if self.on_cancel is not None:
            self.on_cancel()

    def close(self) -> None:
        """It has ended: nothing is left to cancel."""
        for node_id in self.node_ids:
            if _launches.get((self.dispatch_id, node_id)) is self:
                del _launches[self.dispatch_id, node_id]

    async def unless_cancelled(self, work: Awaitable[T]) -> T:
        """Wait for work that costs nothing to abandon.

        Raises:
            TaskCancelledError: Its end was asked for before the work was done. The work is cancelled.
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
    """The launch that is under way for a node, if any."""
    return _launches.get((dispatch_id, node_id))


def expect(dispatch_id: str, node_ids: Sequence[int]) -> None:
    """Say that the next launch of these nodes goes on with what a server that died may have begun."""
    _expected.update((dispatch_id, node_id) for node_id in node_ids)


def is_expected(dispatch_id: str, node_id: int) -> bool:
    """Whether `expect` was told of a node that was not launched since."""
    return (dispatch_id, node_id) in _expected
