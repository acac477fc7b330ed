"""``python benchmarks/serving.py``: the tutorial's Flask app and the service, side by side; writes ``SERVING.md``.

The exit status is 0 if every figure reaches what is required of it, 1 if one does not, 2 if something did not run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import machine
import psutil
import serving_load
import serving_model
from serving_load import Load, LoadFailed, has_real_time, load, memory_mib, real_time
from serving_page import Measured, page, rows, side_by_side, table

HERE = Path(__file__).parent
PAGE = HERE / "SERVING.md"
SERVICE = HERE.parent / "examples" / "recommender" / "service"
START_S = 300.0
"""Much longer than any of the servers takes to start; the tutorial's app makes a list of 21 million pairs."""

TUTORIAL_S = 20
"""Seconds of a measurement of the tutorial's app, in which it answers a few requests."""

CONNECTIONS = 16
TUTORIAL = "/?uid=USER"
ROOT, BY_USER, CONSTANT = "/?uid=USER&n=10", "/users/USER/recommendations?n=10", "/health"


class Server(NamedTuple):
    """A server that runs."""

    pid: int
    port: int


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; gives the exit status."""
    parser = argparse.ArgumentParser(description="Measures the tutorial's app and the service side by side.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, whose medians count (default: 5)")
    parser.add_argument("--seconds", type=int, default=6, help="seconds of each measurement (default: 6)")
    parser.add_argument("--keep", action="store_true", help="leave SERVING.md as it is")
    asked = parser.parse_args(argv)
    others = f"load average of {os.getloadavg()[0]:.1f} before the run"
    if not has_real_time():
        others += "; real-time priority was not allowed, so they are seen in the p99 at half load"
    try:
        program = serving_load.version()
        with tempfile.TemporaryDirectory(prefix="cirro-serving-") as folder:
            measured = measure(Path(folder), asked.rounds, asked.seconds)
    except (LoadFailed, OSError) as error:
        print(f"\nnot measured: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(rows(measured))}\n\n{side_by_side(measured)}\n")
    if not asked.keep:
        facts = {**machine.facts(), "libraries": machine.versions(LIBRARIES), "load": program, "other programs": others}
        PAGE.write_text(page(measured, facts))
        print(f"written to {HERE.name}/{PAGE.name}")
    missed = [row.figure for row in rows(measured) if row.reached is False]
    for figure in missed:
        print(f"not reached: {figure}", file=sys.stderr)
    return 1 if missed else 0


LIBRARIES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "numpy", "torch", "flask")


def measure(folder: Path, rounds: int, seconds: int) -> Measured:
    """Start the servers, and measure one after the other in each round."""
    users = serving_model.USERS
    model = serving_model.write(serving_model.made(), folder / "20260101T000000Z-00000000")
    weights_mib = sum(path.stat().st_size for path in model.glob("*.safetensors")) / 2**20
    with (
        server("tutorial", [str(HERE / "serving_tutorial.py"), str(model)], {}, "/?uid=nobody") as tutorial,
        server("service", ["-m", "recommender_service"], service_environment(model), "/ready") as service,
        server("bare server", [str(HERE / "serving_bare.py")], {}, CONSTANT) as bare,
    ):
        # Once to warm up. The half of the rate that is seen here is the load at which latencies are taken.
        highest = load(service.port, ROOT, users, seconds, CONNECTIONS)
        # As many connections as the service gets: each takes memory.
        load(bare.port, CONSTANT, users, seconds, CONNECTIONS)
        seen: dict[str, list[Load]] = {name: [] for name in LOADS}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            # One connection: the app computes in one thread at a time, and more would only wait for each other.
            seen["tutorial"].append(load(tutorial.port, TUTORIAL, users, TUTORIAL_S, 1))
            wait_until_idle(tutorial.pid)
            seen["root"].append(load(service.port, ROOT, users, seconds, CONNECTIONS))
            seen["constant"].append(load(service.port, CONSTANT, users, seconds, CONNECTIONS))
            seen["by_user"].append(load(service.port, BY_USER, users, seconds, CONNECTIONS))
            half = highest.rate / 2
            with real_time(service.pid):
                seen["half"].append(load(service.port, ROOT, users, seconds, CONNECTIONS, half))
                seen["half constant"].append(load(service.port, CONSTANT, users, seconds, CONNECTIONS, half))
        memory = {each: memory_mib(which.pid) for each, which in zip(SERVERS, (tutorial, service, bare), strict=True)}
    return Measured({name: middle(loads) for name, loads in seen.items()}, memory, weights_mib)


LOADS = ("tutorial", "root", "by_user", "constant", "half", "half constant")
SERVERS = ("tutorial", "service", "bare")


def middle(loads: list[Load]) -> Load:
    """The median of each figure over the rounds."""
    figures = {name: statistics.median(getattr(each, name) for each in loads) for name in Load._fields}
    return Load(**{**figures, "answers": round(figures["answers"]), "failed": 0})


def service_environment(model: Path) -> dict[str, str]:
    """What the service is told by its environment."""
    return {"CIRRO_MODEL": str(model), "PYTHONPATH": str(SERVICE)}


@contextlib.contextmanager
def server(name: str, command: list[str], environment: dict[str, str], path: str) -> Iterator[Server]:
    """A server on a free port, which answers ``path``; its end is that of the block."""
    port = free_port()
    arguments = command if environment else [*command, str(port)]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONOPTIMIZE": "2", **environment, "PORT": str(port)},  # as in the service's image
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(f"starting: {name}", flush=True)
    try:
        deadline = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None:
                raise LoadFailed(f"the {name} ended with {process.returncode} instead of serving")
            if time.monotonic() > deadline:
                raise LoadFailed(f"the {name} did not answer within {START_S:g} s")
            time.sleep(0.2)
        yield Server(process.pid, port)
    finally:
        process.terminate()
        process.wait()


def wait_until_idle(pid: int) -> None:
    """Wait for a process to have nothing to do: the last request that wrk sent may take seconds more."""
    process = psutil.Process(pid)
    before, now = -1.0, sum(process.cpu_times()[:2])
    while now > before:
        time.sleep(0.5)
        before, now = now, sum(process.cpu_times()[:2])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


if __name__ == "__main__":
    sys.exit(main())
