"""Electrons that leave no outcome: they take their runner with them, once their words are on their way.

Register this module with ``cloudpickle.register_pickle_by_value``: no job can import it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def take_the_runner_along(words: str) -> None:
    """Prints, and kills everything in the container, so that nobody writes an outcome."""
    print(words, flush=True)
    wait_until_it_was_heard()
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_until_it_was_heard(deadline_s: float = 60.0) -> None:
    """The runner passes on what was printed once it has its S3 client, whose library shows in its memory map."""
    end, maps = time.monotonic() + deadline_s, Path(f"/proc/{os.getppid()}/maps")
    while maps.exists() and "awscrt" not in maps.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1.0)
