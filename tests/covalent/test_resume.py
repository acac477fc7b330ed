"""Nothing is lost when the Covalent server dies: real servers, killed at each stage and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from covalent_cirro.electron.cache_folder import PREFIX
from covalent_cirro.local import processes
from covalent_cirro.local.local_stack import LocalStack
from tests.access import ask, client

pytestmark = [pytest.mark.covalent, pytest.mark.timeout(400)]

ELECTRONS = 24

DISPATCH = '''
"""Dispatches a lattice of this file and prints its id. Each run of an electron leaves a line in a file of its own.

Electrons from number `waiting` on last until somebody says so.
"""
import sys
import covalent as ct
from covalent_cirro import CirroBatchExecutor

which, folder, number, waiting, on_server_stop = sys.argv[1:]
small = CirroBatchExecutor(vcpu=1, memory=0.25, on_server_stop=on_server_stop)

def ran(name):
    import os
    with open(os.path.join(folder, name), "a") as file:
        file.write(f"{os.getpid()}\\n")

def last():
    import os, time
    end = time.monotonic() + 300
    while not os.path.exists(folder + ".go") and time.monotonic() < end:
        time.sleep(0.1)

def square(i, noise):
    ran(f"square-{i}")
    if i >= int(waiting):
        last()
    return i * i

def total(numbers):
    ran("total")
    return sum(numbers)

def slowly():
    ran("slowly")
    last()
    return 1

square = ct.electron(square, executor=small)
total = ct.electron(total, executor=small)
slowly = ct.electron(slowly, executor="local")

@ct.lattice(executor="cirro")
def sweep(n):
    return total([square(i, f"{i}" * 20_000) for i in range(n)])

@ct.lattice(executor="cirro")
def mixed(n):
    return total([slowly(), *[square(i, "") for i in range(n)]])

@ct.electron(executor="cirro")
@ct.lattice(executor="cirro")
def inner(n):
    return [square(i, "") for i in range(n)]

@ct.lattice(executor="cirro")
def nested(n):
    return total(inner(n))

print(ct.dispatch({"sweep": sweep, "mixed": mixed, "nested": nested}[which])(int(number)))
'''

RESULT = """
import sys
import covalent as ct
result = ct.get_result(sys.argv[1], wait=True)
print(result.status, result.result, result.error or "")
"""


class World:
    """A local stack whose Covalent server can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.playground = LocalStack(folder / "state")
        self.start()
        self.endpoint_url = str(self.playground.status().endpoint_url)
        self.settings = self.playground.read().settings

    def start(self) -> None:
        """Start what does not run."""
        self.url = self.playground.up(server=True, vcpus=12).server_url

    @property
    def server(self) -> processes.ProcessIdentity:
        """The server's process."""
        state = self.playground.read()
        assert state.server is not None
        return state.server.identity

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server; where it ends it, wait for that."""
        identity = self.server
        forks = psutil.Process(identity.pid).children(recursive=True)
        os.kill(identity.pid, number)
        if number != signal.SIGSTOP:
            until(lambda: not processes.is_alive(identity), f"the server to end by {number.name}")
            # Of Covalent's local executor: one that was left would hold the server's port.
            until(lambda: not any(map(is_running, forks)), "the server's forks to end")

    @property
    def log(self) -> str:
        """What the server printed since its last start."""
        state = self.playground.read()
        assert state.server is not None
        return Path(state.server.log).read_text()

    def client(self, service: str) -> Any:
        """A boto3 client of the emulated AWS."""
        return client(self.playground, service)

    def fault(self, **fault: Any) -> None:
        """Set a fault; none: clear all."""
        ask(self.endpoint_url, self.playground.key, "faults", fault or None, "PUT" if fault else "DELETE")

    def run(self, *arguments: object) -> str:
        """What a program that uses the stack prints."""
        done = subprocess.run(
            list(map(str, arguments)),
            env=self.playground.environment(os.environ),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log[-4000:]
        return done.stdout

    def dispatch(self, which: str, number: int, *, waiting: int = 0, on_server_stop: str = "keep") -> Sweep:
        """Dispatch a lattice of `DISPATCH`; electrons from number ``waiting`` on last until `Sweep.go`."""
        folder = self.folder / f"ran-{time.monotonic_ns()}"
        folder.mkdir()
        script = self.folder / "dispatch.py"
        script.write_text(DISPATCH)
        said = self.run(sys.executable, script, which, folder, number, waiting, on_server_stop)
        return Sweep(self, said.split()[-1], folder)


class Sweep:
    """A dispatch, and what the emulated AWS knows of it."""

    def __init__(self, world: World, dispatch_id: str, folder: Path) -> None:
        self.world = world
        self.dispatch_id = dispatch_id
        self.folder = folder

    def go(self) -> None:
        """Let its electrons end."""
        Path(f"{self.folder}.go").touch()

    @property
    def status(self) -> str:
        """The dispatch's status, as the server tells it."""
        with urllib.request.urlopen(f"{self.world.url}/api/v2/dispatches/{self.dispatch_id}", timeout=30) as answer:
            return str(json.load(answer)["metadata"]["status"])

    def result(self) -> str:
        """Status, result and error, once it has ended."""
        script = self.world.folder / "result.py"
        script.write_text(RESULT)
        return self.world.run(sys.executable, script, self.dispatch_id).strip()

    def jobs(self) -> list[dict[str, Any]]:
        """Its jobs."""
        pages = (
            self.world.client("batch")
            .get_paginator("list_jobs")
            .paginate(
                jobQueue=self.world.settings["batch_queue"], filters=[{"name": "AFTER_CREATED_AT", "values": ["0"]}]
            )
        )  # in all states
        return [
            job for page in pages for job in page["jobSummaryList"] if f"-{self.dispatch_id[:8]}-" in job["jobName"]
        ]

    def states(self) -> Counter[str]:
        """Its jobs by state."""
        return Counter(job["status"] for job in self.jobs())

    def keys(self, name: str) -> list[str]:
        """Its documents of a name, ``call.json`` or ``outcome.json``."""
        prefix = f"{self.world.settings.get('s3_prefix', 'cirro')}/jobs/{self.dispatch_id}/"
        pages = self.world.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.world.settings["s3_bucket_name"], Prefix=prefix)
        return [item["Key"] for page in found for item in page.get("Contents", ()) if item["Key"].endswith(f"/{name}")]

    def runs(self) -> dict[str, int]:
        """How often each electron ran."""
        return {path.name: len(path.read_text().splitlines()) for path in self.folder.iterdir()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One local stack for the tests of this module; each leaves a running server."""
    folder = tmp_path_factory.mktemp("resume")
    made = World(folder)
    try:
        yield made
    finally:
        made.playground.down()


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that nobody has waited for yet has."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(true: Callable[[], object], what: str, patience_s: float = 180.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.1)


def test_a_sweep_survives_the_server_at_every_stage(world: World) -> None:
    """Killed while it uploads, while it submits, while jobs run and before it received them: each ran exactly once."""
    world.fault(kind="slow", service="s3", operation="PutObject", caller="client", seconds=1.0)
    sweep = world.dispatch("sweep", ELECTRONS, waiting=ELECTRONS // 3)
    until(lambda: len(sweep.keys("call.json")) > 0, "calls")
    world.signal(signal.SIGKILL)
    assert len(sweep.keys("call.json")) < ELECTRONS, "it was killed too late: nothing was left to upload"

    world.fault()
    world.fault(kind="slow", service="batch", operation="SubmitJob", seconds=2.0)
    world.start()
    until(lambda: sweep.jobs(), "jobs")
    world.signal(signal.SIGKILL)
    assert len(sweep.jobs()) < ELECTRONS, "it was killed too late: all jobs were submitted"

    world.fault()
    world.start()
    until(lambda: sweep.states()["RUNNING"] >= 4, "running jobs")
    world.signal(signal.SIGKILL)

    world.start()
    until(lambda: len(sweep.jobs()) >= ELECTRONS, "all jobs to be submitted")
    world.signal(signal.SIGSTOP)
    sweep.go()
    until(lambda: len(sweep.keys("outcome.json")) >= ELECTRONS, "all jobs to end behind the server's back")
    world.signal(signal.SIGKILL)

    # What Covalent counts dies with a stock server: it is worked out again.
    (world.playground.covalent_dir / "run_state.sqlite").unlink()
    world.start()
    assert sweep.result() == f"COMPLETED {sum(i * i for i in range(ELECTRONS))}"
    assert sweep.runs() == {"total": 1, **{f"square-{i}": 1 for i in range(ELECTRONS)}}
    assert sweep.states() == {"SUCCEEDED": ELECTRONS + 1}
    assert len(sweep.keys("outcome.json")) == ELECTRONS + 1
    left = list((world.playground.covalent_dir / "cache" / "cirro").glob(f"{PREFIX}*"))
    assert len(left) == 1, "what a killed server had in its cache was not cleared"


def test_a_stopped_server_keeps_or_cancels_jobs_as_their_electrons_say(world: World) -> None:
    """Kept jobs run on and are adopted, in sublattices too; cancelled ones have ended when the server is gone."""
    kept = world.dispatch("nested", 3, on_server_stop="keep")
    cancelled = world.dispatch("sweep", 3, on_server_stop="cancel")
    until(lambda: len(kept.runs()) == 3 and cancelled.states()["RUNNING"] == 3, "six running jobs")
    world.signal(signal.SIGTERM)
    until(lambda: cancelled.states() == {"FAILED": 3}, "the cancelled jobs to end")
    batch = world.client("batch")
    reasons = batch.describe_jobs(jobs=[job["jobId"] for job in cancelled.jobs()])["jobs"]
    assert all(job["statusReason"].startswith("Cancelled in Covalent") for job in reasons)

    world.start()
    kept.go()
    assert kept.result() == f"COMPLETED {0 + 1 + 4}"
    assert kept.runs() == {"total": 1, **{f"square-{i}": 1 for i in range(3)}}
    assert kept.states() == {"SUCCEEDED": 1}, "the others are its sublattice's"
    assert cancelled.status == "CANCELLED"
    assert cancelled.states() == {"FAILED": 3}


def test_a_cancel_that_the_server_did_not_live_to_see_through_is_seen_through(world: World) -> None:
    """Jobs that arrive in AWS after the cancel and after the server's death are found and ended."""
    world.fault(kind="slow", service="batch", operation="SubmitJob", seconds=15.0)
    sweep = world.dispatch("sweep", 3)
    until(lambda: len(sweep.keys("call.json")) == 3, "calls")
    world.run(sys.executable, "-c", "import sys, covalent as ct; ct.cancel(sys.argv[1])", sweep.dispatch_id)
    world.signal(signal.SIGKILL)
    world.fault()
    until(lambda: len(sweep.jobs()) == 3, "the jobs to arrive")
    world.start()
    until(lambda: sweep.states() == {"FAILED": 3}, "the jobs to end")
    assert sweep.result().startswith("CANCELLED")
    jobs = world.client("batch").describe_jobs(jobs=[job["jobId"] for job in sweep.jobs()])["jobs"]
    assert all(job["statusReason"].startswith("Cancelled in Covalent") for job in jobs)


def test_another_executors_electron_runs_again_only_when_asked_for(world: World) -> None:
    """Nobody can tell what became of it: the dispatch waits for `cirro resume`, which then leaves it alone."""
    mixed = world.dispatch("mixed", 2)
    until(lambda: "slowly" in mixed.runs() and mixed.states()["RUNNING"] == 2, "electrons to run")
    world.signal(signal.SIGKILL)
    world.start()
    mixed.go()
    until(lambda: mixed.states() == {"SUCCEEDED": 2}, "the jobs to end")
    assert f"cirro resume {mixed.dispatch_id}" in world.log
    assert mixed.status == "RUNNING"

    resumed = json.loads(world.run("cirro", "resume", mixed.dispatch_id, "--json"))["dispatches"]
    assert [(each["dispatch_id"], each["state"], each["electrons"]) for each in resumed] == [
        (mixed.dispatch_id, "resumed", 3)
    ]
    again = json.loads(world.run("cirro", "resume", mixed.dispatch_id, "--json"))["dispatches"]
    assert again[0]["state"] in ("under way", "ended")
    assert mixed.result() == "COMPLETED 2"
    assert mixed.runs() == {"slowly": 2, "square-0": 1, "square-1": 1, "total": 1}
    assert world.run("cirro", "resume").strip() == "no dispatch is unfinished"
