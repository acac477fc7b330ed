"""A progress bar for an upload or download: on a terminal only, and only where it takes more than a moment."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

QUIET_S = 1.0
"""A transfer that ends sooner shows nothing."""


@contextlib.contextmanager
def progress(what: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show a transfer of so many bytes; the yielded function is called with numbers of bytes, in any thread."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    bar = _Bar(what, size)
    try:
        yield bar.add
    finally:
        bar.close()


class _Bar:
    def __init__(self, what: str, size: int) -> None:
        self._what = what
        self._size = size
        self._done = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._shown: Any = None
        self._task: Any = None

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._shown is None and time.monotonic() - self._began > QUIET_S:
                self._shown = self._made()
                self._shown.start()
                self._task = self._shown.add_task(self._what, total=self._size)
            if self._shown is not None:
                self._shown.update(self._task, completed=self._done)

    @staticmethod
    def _made() -> Any:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        text = TextColumn("{task.description}", markup=False)
        return Progress(text, *columns, console=Console(stderr=True), transient=True)

    def close(self) -> None:
        if self._shown is not None:
            self._shown.stop()
