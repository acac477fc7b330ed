"""Load on a server of this machine, by wrk, and the memory of a process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

SCRIPT = Path(__file__).parent / "serving_load.lua"
TIMEOUT_S = 60
"""Seconds after which wrk counts an answer as failed: the tutorial's app takes several for one."""


class LoadFailed(Exception):
    """A measurement did not run, or answers failed in it."""


class Load(NamedTuple):
    """What wrk has measured.

    Attributes:
        answers: Answers in the time of the measurement.
        seconds: That time.
        mean_ms: Mean latency.
        p50_ms: Median of the latencies.
        p99_ms: Latency that 99 % of the answers do not exceed.
        max_ms: Longest latency.
        failed: Answers with an error, or none.
    """

    answers: int
    seconds: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def version() -> str:
    """wrk's own name and version.

    Raises:
        LoadFailed: It is not installed.
    """
    if shutil.which("wrk") is None:
        raise LoadFailed("wrk, which makes the load, is not installed: apt-get install wrk, or brew install wrk")
    shown = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    return " ".join(shown.stdout.split()[:2])


def load(port: int, path: str, users: int, seconds: float, connections: int, rate: float = 0) -> Load:
    """Send requests for random users for some seconds, over connections that each wait for their answer.

    Args:
        port: Of the server, on the loopback.
        path: Of the requests; ``USER`` in it becomes an id from 1 to ``users``.
        users: How many users there are.
        seconds: Length of the measurement.
        connections: Connections at the same time.
        rate: Requests a second, evenly spread over each; 0 for as many as are answered. Enough connections must be
            free for it.

    Raises:
        LoadFailed: An answer failed, or there was none.
    """
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}/", "--"]
    command += [path, str(users), f"{rate:.0f}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 2 * TIMEOUT_S)
    figures = [line.removeprefix("figures ") for line in ran.stdout.splitlines() if line.startswith("figures ")]
    if ran.returncode != 0 or len(figures) != 1:
        raise LoadFailed(f"wrk ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
    found = Load(**json.loads(figures[0]))
    if found.failed or not found.answers:
        raise LoadFailed(f"of the requests for {path}, {found.failed} failed and {found.answers} were answered")
    return found


@contextlib.contextmanager
def real_time(pid: int) -> Iterator[None]:
    """Let a server, and what this process starts, go before all other programs of the machine.

    A program that takes a processor for some milliseconds, a hundred times a minute, is otherwise seen in each p99.
    Where the system does not allow it, all stay as they are.
    """
    before = {each: os.sched_getscheduler(each) for each in (pid, 0)}
    for each in before:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(each, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        for each, policy in before.items():
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(each, policy, os.sched_param(0 if policy == os.SCHED_OTHER else 1))


def has_real_time() -> bool:
    """Whether this system lets `real_time` do what it is for."""
    with real_time(0):
        return os.sched_getscheduler(0) == os.SCHED_RR


def memory_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20
