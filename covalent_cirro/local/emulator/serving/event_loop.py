"""An asyncio event loop in a thread of its own, for the balancers of one region. It must not know what runs in it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

END_S = 5.0
"""How long `EventLoop.close` waits for the tasks that it cancelled."""


class EventLoop:
    """An event loop; its thread starts with the first call of `run`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and return its result. Must not be called from the loop itself.

        Raises:
            RuntimeError: The loop is closed.
        """
        with self._lock:
            if self._closed:
                work.close()
                raise RuntimeError(f"the event loop {self._name} is closed: its emulator has ended")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def close(self) -> None:
        """Cancel all tasks, and end the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(timeout=END_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=END_S)
        if not thread.is_alive():
            loop.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
