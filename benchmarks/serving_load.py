"""Load on a server of this machine, by wrk, and the memory of a process."""

from __future__ import annotations

import json
import shutil
import subprocess
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


def load(port: int, path: str, users: int, seconds: float, connections: int, pause_ms: int = 0) -> Load:
    """Send requests for random users for some seconds, over connections that each wait for their answer.

    Args:
        port: Of the server, on the loopback.
        path: Of the requests; ``USER`` in it becomes an id from 1 to ``users``.
        users: How many users there are.
        seconds: Length of the measurement.
        connections: Connections at the same time.
        pause_ms: Mean pause of a connection before each request; pauses are random, from a half to three halves of it.

    Raises:
        LoadFailed: An answer failed, or there was none.
    """
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}/", "--"]
    command += [path, str(users), str(pause_ms)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 2 * TIMEOUT_S)
    figures = [line.removeprefix("figures ") for line in ran.stdout.splitlines() if line.startswith("figures ")]
    if ran.returncode != 0 or len(figures) != 1:
        raise LoadFailed(f"wrk ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
    found = Load(**json.loads(figures[0]))
    if found.failed or not found.answers:
        raise LoadFailed(f"of the requests for {path}, {found.failed} failed and {found.answers} were answered")
    return found


def pause_ms(rate: float, connections: int, latency_ms: float) -> int:
    """The pause with which some connections together send about ``rate`` requests a second."""
    return max(1, round(connections / rate * 1000 - latency_ms))


def memory_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20
