"""How long the runner waits: before it stores new text or a checkpoint, and for an electron that is to stop.

One variable of the environment changes them, ``CIRRO_RUNNER_SECONDS="grace=1 stop=2"``. Tests set it, and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TIMES_VARIABLE = "CIRRO_RUNNER_SECONDS"


class Times(NamedTuple):
    """Durations, in seconds.

    Attributes:
        log_interval: From new text to its part, at first (`log_parts.interval_s`).
        checkpoint_interval: From one checkpoint to the next that the runner stores by itself, or four times as long as
            the last one took, whichever is longer.
        chunk_interval: From one chunk of the results of items to the next, at first (`item_chunks`): a lost host costs
            half a minute of work, and a chunk is one or two requests.
        report_interval: Between two objects with what the electron has reported, at first (`log_parts.interval_s`).
        grace: From the runner's SIGTERM to the electron's, for an electron that uses checkpoints.
        stop: From the runner's SIGTERM to the electron's SIGKILL.
        nodes: Until all nodes of a multi-node job must have met: each pulls the image, which takes minutes.
        exit: From the last result to the end of the electron's process: for its atexit functions and threads.
    """

    log_interval: float = 10.0
    checkpoint_interval: float = 10.0
    chunk_interval: float = 30.0
    report_interval: float = 2.0
    grace: float = 15.0
    stop: float = 20.0
    nodes: float = 900.0
    exit: float = 30.0


def times_of(environ: Mapping[str, str]) -> Times:
    """The times that an environment asks for.

    Raises:
        ValueError: `TIMES_VARIABLE` is malformed.
    """
    pairs = (pair.partition("=") for pair in environ.get(TIMES_VARIABLE, "").split())
    given = {name: float(value) for name, _, value in pairs}
    unknown = given.keys() - set(Times._fields)
    if unknown:
        raise ValueError(f"{TIMES_VARIABLE} has {sorted(unknown)}; valid are {list(Times._fields)}")
    return Times(**given)
