"""Many electrons under a random fault a second: the faults of calls and machines, which pass, and may fall together."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from tests.faults.measures import Row, Watch, measure
from tests.faults.scenarios import Scenario, check
from tests.faults.world import ENDED, World, until

LASTS_S = 3.0
"""A fault ends after this, at the latest."""

SECONDS_EACH = 6.0
"""Patience for an electron, on a machine with two cores that does other things too."""

FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "throttle", "service": "batch", "duration_s": 1.0},
    {"kind": "throttle", "service": "s3", "count": 10},
    {"kind": "error", "service": "batch", "count": 3},
    {"kind": "error", "service": "s3", "count": 10},
    {"kind": "error", "service": "s3", "status": 503, "count": 10},
    {"kind": "conflict", "service": "s3", "operation": "PutObject", "count": 3},
    {"kind": "slow", "service": "s3", "seconds": 0.5, "count": 10},
    {"kind": "slow", "service": "batch", "seconds": 1.0, "count": 3},
    {"kind": "cut", "service": "s3", "when": "before", "count": 3},
    {"kind": "cut", "service": "s3", "when": "after", "count": 3},
    {"kind": "cut", "service": "s3", "operation": "GetObject", "when": "during", "count": 3},
    {"kind": "cut", "service": "batch", "operation": "SubmitJob", "when": "after", "count": 1},
    {"kind": "cut", "service": "batch", "operation": "DescribeJobs", "when": "during", "count": 1},
    {"kind": "describe_omits", "seconds": 3.0, "count": 3},
    {"kind": "repeat", "service": "batch", "duration_s": 2.0},
    {"kind": "stale", "service": "batch", "duration_s": 2.0, "probability": 0.5},
    {"kind": "lose_host", "state": "STARTING", "count": 1},
    {"kind": "lose_host", "seconds": 0.5, "count": 1},
    {"kind": "lose_host", "operation": "PutObject", "key": "/outcome.json", "count": 1},
    {"kind": "stuck", "duration_s": 2.0, "count": 1},
    {"kind": "no_capacity", "duration_s": 2.0},
)
"""Each passes by itself."""


def soak(world: World, electrons: int, seed: int = 0) -> Row:
    """Dispatch many electrons, with a random fault a second until they have ended.

    Raises:
        AssertionError: A result was lost, a job ran twice or was left running.
    """
    world.start()
    world.forget()
    scenario = Scenario(f"soak of {electrons} electrons", "", "", count=electrons, jobs_each=2)
    run = world.dispatch(electrons)
    with Watch(run) as watch, Storm(world, seed):
        until(lambda: run.status in ENDED, "the end of the soak", electrons * SECONDS_EACH + 240)
    world.clear()
    row = measure(scenario.name, run, watch, fails=0, jobs_each=scenario.jobs_each)
    check(row, run, scenario)
    world.forget()
    return row


class Storm:
    """Asks for a random fault each second."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._blow, daemon=True)

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _blow(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            # What is not hit by then is forgotten: faults must not pile up while nobody calls.
            self._world.fault(**{"duration_s": LASTS_S, **self._random.choice(FAULTS)})
            due += 1.0
            self._stop.wait(max(0.0, due - time.monotonic()))
