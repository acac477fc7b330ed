"""Measures one case of one tool on an emulated AWS of its own: calls, bytes, seconds, memory, right results."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
from figures import MB, count
from lab import BenchmarkFailed, Lab, Load

from peers.driver import MARK
from peers.environments import python_of
from peers.measurement import PUTS, Measurement
from peers.peer import Case, Place, load

DRIVER = Path(__file__).with_name("driver.py")
IMAGE = "peers-image"
LOOK_S = 0.1
"""Pause between two looks at the driver's child processes."""
CASE_S = 3600.0
"""A case that takes longer has failed."""
SETTLE_S = 300.0
"""For jobs to end when the driver has its results, or for it to upload something."""
MANAGED_POLICIES = "MOTO_IAM_LOAD_MANAGED_POLICIES"
"""moto, which is the emulator's IAM, has AWS's own policies only where this says so. Roles of tools have some."""
UNFINISHED = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")

Say = Callable[[str], None]


def measure(tool: str, case_name: str, folder: Path, inputs: Path, say: Say) -> Measurement:
    """Measure a case, on a fresh account.

    Args:
        tool: Name of the tool (`peer.MODULES`).
        case_name: Name of one of its cases.
        folder: A folder that may be missing.
        inputs: Folder with the value that tasks share.
        say: Told what takes long.

    Raises:
        BenchmarkFailed: The tool did not do it, with the end of what it said.
        NotInstalled: It could not be installed.
    """
    peer = load(tool)
    case = peer.CASES[case_name]
    python = python_of(tool, peer.PACKAGES, say)
    os.environ[MANAGED_POLICIES] = "true"
    with Lab(folder / "lab", server=peer.SERVER) as lab:
        place = _place(lab, folder / "work", inputs, getattr(peer, "IMAGE", IMAGE))
        _make_image(lab, peer, case, place, python)
        environment = _environment(lab, python, place.folder)
        loads: list[Load] = []
        before = definitions(lab)
        with _driver(tool, case_name, place, python, environment) as driver:
            ready = driver.hear()
            with ExitStack() as inside:
                if peer.SERVER:
                    inside.enter_context(lab.measured(loads))
                lab.reset_calls()
                children = inside.enter_context(Children(driver.process.pid))
                with lab.held() if case.starts_after_upload else nullcontext():
                    driver.go()
                    if case.starts_after_upload:
                        _until(lambda: count(lab.calls("client"), *PUTS), "an upload")
                told = driver.hear()
                # What jobs call after the driver has its results counts, too.
                _until(lambda: not any(lab.counts().get(state, 0) for state in UNFINISHED), "all jobs to end")
            calls = {caller: lab.calls(caller) for caller in ("client", "job")}
        found = Measurement(
            tool=tool,
            title=peer.TITLE,
            work=case.work,
            way=case.way,
            jobs=case.jobs,
            calls=calls,
            definitions=definitions(lab) - before,
            seconds=told["seconds"],
            client_peak_mb=told["peak"] / MB,
            client_growth_mb=max(0, told["peak"] - ready["ready"]) / MB,
            server_growth_mb=loads[0].peak_bytes / MB if loads else None,
            children=children.count,
            children_peak_mb=children.peak_bytes / MB,
            at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        )
    if told["mistakes"]:
        raise BenchmarkFailed(f"{peer.TITLE}, {case_name}: wrong results: {'; '.join(told['mistakes'])}")
    return found


def _place(lab: Lab, folder: Path, inputs: Path, image: str) -> Place:
    folder.mkdir(parents=True)
    stock = {"stock_options": lab.options("stock")} if lab.has_server else {}
    return Place(folder, inputs, {**lab.settings, **_resources(lab), **stock}, image)


def _resources(lab: Lab) -> dict[str, Any]:
    """What tools need of the deployment that is no setting of this project's executor."""
    iam, batch = lab.boto("iam"), lab.boto("batch")
    roles = {
        f"{kind}_role_arn": iam.get_role(RoleName=lab.settings[f"batch_{kind}_role_name"])["Role"]["Arn"]
        for kind in ("job", "execution")
    }
    [queue] = batch.describe_job_queues(jobQueues=[lab.settings["batch_queue"]])["jobQueues"]
    first = queue["computeEnvironmentOrder"][0]["computeEnvironment"]
    [found] = batch.describe_compute_environments(computeEnvironments=[first])["computeEnvironments"]
    resources = found["computeResources"]
    return {
        **roles,
        "instance_role": resources["instanceRole"],
        "subnets": resources["subnets"],
        "security_groups": resources["securityGroupIds"],
    }


def _make_image(lab: Lab, peer: Any, case: Case, place: Place, python: Path) -> None:
    """Give jobs with the image the tool's programs, as an image of the tool would have them."""
    config = {
        "entrypoint": peer.entrypoint(case, place, python),
        "environment": {
            "PATH": os.pathsep.join((str(python.parent), os.defpath)),
            **getattr(peer, "IMAGE_VARIABLES", {}),
        },
    }
    lab.put_images({place.image: config})


def _environment(lab: Lab, python: Path, folder: Path) -> dict[str, str]:
    """The driver's: AWS is the emulator, programs are the tool's, HOME is a folder of its own."""
    base = {**os.environ, "HOME": str(folder)}
    environment = lab.environment(base)
    environment["PATH"] = os.pathsep.join((str(python.parent), environment["PATH"]))
    return environment


def definitions(lab: Lab) -> int:
    """Job definitions of the account, all revisions."""
    pages = lab.boto("batch").get_paginator("describe_job_definitions").paginate()
    return sum(len(page["jobDefinitions"]) for page in pages)


def _until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not true():
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"waited {SETTLE_S:.0f} s in vain for {what}")
        time.sleep(LOOK_S)


# --- the driver's process ---------------------------------------------------------------------------------------------


class Driver:
    """The process of `driver.py`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def hear(self) -> dict[str, Any]:
        """The next thing that the driver says.

        Raises:
            BenchmarkFailed: It ended without a word.
        """
        assert self.process.stdout is not None
        with self._log.open("a") as log:
            for line in self.process.stdout:
                if line.startswith(MARK):
                    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                    return found
                log.write(line)
        self.process.wait()
        raise BenchmarkFailed(f"the driver ended with {self.process.returncode}:\n{self._log.read_text()[-3000:]}")

    def go(self) -> None:
        """Let it call."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def _driver(tool: str, case_name: str, place: Place, python: Path, environment: dict[str, str]) -> Iterator[Driver]:
    told = {**asdict(place), "folder": str(place.folder), "inputs": str(place.inputs)}
    process = subprocess.Popen(
        [str(python), str(DRIVER), tool, case_name, json.dumps(told)],
        cwd=place.folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timer = threading.Timer(CASE_S, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield Driver(process, place.folder / "driver.log")
    finally:
        timer.cancel()
        process.kill()
        process.wait()


class Children:
    """Watches the processes that a driver starts: how many, and their peak of resident memory together."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0

    @property
    def count(self) -> int:
        """Processes that were seen."""
        return len(self._seen)

    def __enter__(self) -> Children:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                found = psutil.Process(self._pid).children(recursive=True)
            except psutil.NoSuchProcess:
                return
            resident = 0
            for child in found:
                self._seen.add(child.pid)
                try:
                    resident += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, resident)
