"""Makes one call where many callers ask for the same at the same time, and gives all of them its result."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[Key, T]):
    """Calls of one event loop that run at most once at a time for each key."""

    def __init__(self, *, keep: bool = False) -> None:
        """Make it.

        Args:
            keep: Later callers of a key get the result of its first call, until `forget`. Otherwise a call that has
                ended is made again for the next caller. An error is never kept.
        """
        self._keep = keep
        self._calls: dict[Key, asyncio.Future[T]] = {}

    def start(self, key: Key, call: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """The call of a key; begun now, if there is none. Await it behind `asyncio.shield`: others wait for it too."""
        started = self._calls.get(key)
        if started is None:
            started = self._calls[key] = asyncio.ensure_future(call())
            started.add_done_callback(functools.partial(self._ended, key))
        return started

    async def run(self, key: Key, call: Callable[[], Awaitable[T]]) -> T:
        """The result of the call of a key, or its error.

        Raises:
            asyncio.CancelledError: Only this caller stops waiting; the call goes on for the others.
        """
        return await asyncio.shield(self.start(key, call))

    def forget(self, key: Key) -> None:
        """Make the call of a key again for the next caller."""
        self._calls.pop(key, None)

    async def aclose(self) -> None:
        """Cancel the calls that have not ended."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _ended(self, key: Key, call: asyncio.Future[T]) -> None:
        # Asking for the exception marks it as seen: every caller may have stopped waiting.
        failed = call.cancelled() or call.exception() is not None
        if (failed or not self._keep) and self._calls.get(key) is call:
            del self._calls[key]
