"""The emulated AWS and the Covalent server that both plugins are measured on, and what can be read off them.

Everything is seen from outside: the emulator's counters, AWS Batch's own description of jobs, the server's database
(read only), and what the kernel says of the server's process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import stock_image

from covalent_cirro.local import processes
from covalent_cirro.local.local_stack import LocalStack
from covalent_cirro.local.state_folder import REGION

HERE = Path(__file__).parent
VCPUS = 8
"""Jobs of one vCPU at a time. They wait more than they compute."""

REST_S = 2.0
"""How long the server must have been idle before and after what is measured."""
IDLE_SHARE = 0.03
"""Idle: less of a core than this."""
DISPATCH_S = 420.0
"""A dispatch that takes longer has failed."""
LOOK_S = 0.1
"""Pause between two looks at the server's database."""

EXEC, LIGHT, NAPPING = "stock:exec", "stock:light", "stock:napping"
"""Images of the stock plugin: with its own ``exec.py``, with `stock_job` in its place, and with one that sleeps."""
NAP_LIMIT_S = 10.0


class BenchmarkFailed(Exception):
    """Something did not run: there is no figure."""


@dataclass(frozen=True)
class Load:
    """What the server's process took for a dispatch.

    Attributes:
        cpu_s: Processor time, user and system, of all its threads and of its children that ended.
        peak_bytes: Its peak of resident memory beyond what it had before.
    """

    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Ended:
    """A job that ended and when; epoch seconds."""

    node_id: int
    started: float
    stopped: float


class Lab:
    """One emulated AWS with our stack, and one Covalent server.

    Args:
        folder: A folder for all of it, which may be missing.
        server: Start a Covalent server.
    """

    def __init__(self, folder: Path, *, server: bool = True) -> None:
        self.folder = folder
        self.has_server = server
        self._playground = LocalStack(folder / "state")
        self.settings: Mapping[str, Any] = {}
        self.endpoint_url = ""

    def __enter__(self) -> Lab:
        try:
            self._start()
        except BaseException:
            self._playground.down()
            raise
        return self

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        status = self._playground.up(vcpus=VCPUS)
        assert status.endpoint_url is not None
        self.settings, self.endpoint_url = status.settings, status.endpoint_url
        if not self.has_server:
            return
        plugins = self._playground.covalent_dir / "executor_plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        (plugins / "blank.py").write_text((HERE / "blank.py").read_text())
        self._playground.up(server=True)
        light = [sys.executable, str(HERE / "stock_job.py"), str(self.folder / "none.pkl")]
        images = {EXEC: stock_image.command(self.folder), LIGHT: light, NAPPING: [*light, str(NAP_LIMIT_S)]}
        self.put_images({image: {"command": command} for image, command in images.items()})

    def __exit__(self, *_: object) -> None:
        self._playground.down()

    def restart_server(self) -> None:
        """A fresh server process, on the same database."""
        server = self._playground.read().server
        assert server is not None
        processes.end(server.identity, patience_s=10)
        self._playground.up(server=True)

    # --- dispatches -------------------------------------------------------------------------------------------------

    def prepare(self, megabytes: float) -> Path:
        """Write the input that is shared; gives its file."""
        self._client({"prepare": str(self.folder), "megabytes": megabytes})
        return self.folder / "input.tobj"

    def dispatch(self, lattice: str, plugin: str, options: Mapping[str, Any] | None = None, **parameters: Any) -> str:
        """Dispatch a lattice of `lattices` and give the dispatch's id.

        Args:
            lattice: Its name.
            plugin: ``ours``, ``stock`` or ``blank``.
            options: Options of the executor, beyond what the plugin needs for this stack.
            parameters: Of the lattice.
        """
        asked = {
            "lattice": lattice,
            "plugin": plugin,
            "options": {**self.options(plugin), **(options or {})},
            "parameters": parameters,
        }
        return str(json.loads(self._client(asked).splitlines()[-1])["dispatch_id"])

    def wait(self, dispatch_id: str, look: Callable[[], None] = lambda: None) -> None:
        """Wait until a dispatch is completed.

        Args:
            dispatch_id: The dispatch.
            look: Called at each look at the database.

        Raises:
            BenchmarkFailed: It was not, with what its electrons say.
        """
        deadline = time.monotonic() + DISPATCH_S
        while True:
            look()
            status = self._status(dispatch_id)
            if status == "COMPLETED":
                return
            if status in ("FAILED", "CANCELLED", "POSTPROCESSING_FAILED") or time.monotonic() > deadline:
                raise BenchmarkFailed(f"dispatch {dispatch_id} is {status}: {self._errors(dispatch_id)}")
            time.sleep(LOOK_S)

    def run(self, lattice: str, plugin: str, options: Mapping[str, Any] | None = None, **parameters: Any) -> str:
        """`dispatch` and `wait`."""
        dispatch_id = self.dispatch(lattice, plugin, options, **parameters)
        self.wait(dispatch_id)
        return dispatch_id

    def completed(self, dispatch_id: str) -> set[int]:
        """Nodes that the server's database now shows as completed."""
        rows = self._query(
            "SELECT transport_graph_node_id FROM electrons WHERE status = 'COMPLETED' AND parent_lattice_id = "
            "(SELECT id FROM lattices WHERE dispatch_id = ?)",
            dispatch_id,
        )
        return {int(node_id) for (node_id,) in rows}

    def _status(self, dispatch_id: str) -> str:
        rows = self._query("SELECT status FROM lattices WHERE dispatch_id = ?", dispatch_id)
        return str(rows[0][0]) if rows else "unknown"

    def _errors(self, dispatch_id: str) -> str:
        said = [
            f"{path.parent.name}: {path.read_text(errors='replace').strip()[-600:]}"
            for path in sorted((self._playground.covalent_dir / "data" / dispatch_id).glob("node_*/*.log"))
            if path.name in ("error.log", "stderr.log") and path.stat().st_size
        ]
        return "\n".join(said[:3]) or "its electrons say nothing"

    def _query(self, query: str, *values: object) -> list[Any]:
        file = self._playground.covalent_dir / "dispatcher_db.sqlite"
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def _client(self, asked: Mapping[str, Any]) -> str:
        done = subprocess.run(
            [sys.executable, str(HERE / "lattices.py"), json.dumps(asked)],
            env=self._playground.environment(os.environ),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DISPATCH_S,
            check=False,
        )
        if done.returncode:
            raise BenchmarkFailed(f"the client failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def options(self, plugin: str) -> dict[str, Any]:
        """Options of an executor that this stack needs."""
        if plugin == "blank":
            return {}
        size = {"vcpu": 1, "memory": 2.0}
        if plugin == "ours":
            return size  # The rest stands in the server's config, as the stack gave it.
        same = (
            "region",
            "s3_bucket_name",
            "batch_queue",
            "batch_job_role_name",
            "batch_execution_role_name",
            "batch_job_log_group_name",
        )
        return {
            **size,
            **{name: self.settings[name] for name in same},
            "cache_dir": str(self.folder / "stock-cache"),
            "container_image_uri": EXEC,
        }

    # --- AWS --------------------------------------------------------------------------------------------------------

    def calls(self, caller: str | None = None) -> dict[str, dict[str, int]]:
        """AWS calls since `reset_calls`, by operation, of a caller (``client``, ``job``), or of all together."""
        found: dict[str, dict[str, int]] = self._get("calls" if caller is None else f"calls?caller={caller}")
        return found

    def put_images(self, images: Mapping[str, Mapping[str, Any]]) -> None:
        """Say what jobs get of their images, which are not pulled: ``entrypoint``, ``command``, ``environment``."""
        self._put("images", images)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """An environment in which AWS is the emulated one, and Covalent's server that of this lab."""
        return self._playground.environment(base)

    def reset_calls(self) -> None:
        """Count from zero."""
        self._send("DELETE", "calls", None)

    def forget_objects(self) -> None:
        """Empty the bucket."""
        import boto3

        session = boto3.Session(*self._playground.key, region_name=REGION)
        session.resource("s3", endpoint_url=self.endpoint_url).Bucket(self.settings["s3_bucket_name"]).objects.delete()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No job that is RUNNABLE starts."""
        self._put("faults", {"kind": "stuck", "reason": "held by the benchmark"})
        try:
            yield
        finally:
            self._send("DELETE", "faults", None)

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        found: dict[str, int] = self._get("status")[REGION]["jobs"]
        return found

    def ended(self, dispatch_id: str) -> list[Ended]:
        """The jobs of a dispatch that have ended, by their start."""
        found = [
            Ended(node_id, job["startedAt"] / 1000, job["stoppedAt"] / 1000)
            for job in self._ended_jobs()
            if (node_id := node_of(dispatch_id, job["jobName"], job.get("tags", {}))) is not None
        ]
        return sorted(found, key=lambda job: job.started)

    def again(self, dispatch_id: str) -> float:
        """Run the first job of a dispatch once more, by itself, with the server at rest; gives its start."""
        self._rest(self._server())
        batch = self.boto("batch")
        first = next(
            job for job in self._ended_jobs() if node_of(dispatch_id, job["jobName"], job.get("tags", {})) is not None
        )
        job_id = batch.submit_job(
            jobName="again",
            jobQueue=first["jobQueue"],
            jobDefinition=first["jobDefinition"],
            parameters=first.get("parameters", {}),
        )["jobId"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(1)
            [job] = batch.describe_jobs(jobs=[job_id])["jobs"]
            if job["status"] == "SUCCEEDED":
                return float(job["startedAt"]) / 1000
            if job["status"] == "FAILED":
                break
        raise BenchmarkFailed(f"job {first['jobName']}, run once more, is {job['status']}: {job.get('statusReason')}")

    def _ended_jobs(self) -> list[dict[str, Any]]:
        batch = self.boto("batch")
        ids = [
            summary["jobId"]
            for status in ("SUCCEEDED", "FAILED")
            for page in batch.get_paginator("list_jobs").paginate(
                jobQueue=self.settings["batch_queue"], jobStatus=status
            )
            for summary in page["jobSummaryList"]
        ]
        return [
            job
            for start in range(0, len(ids), 100)
            for job in batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
        ]

    def boto(self, service: str) -> Any:
        """A boto3 client of the emulated AWS."""
        return self._playground.client(service)

    def _get(self, route: str) -> Any:
        return self._send("GET", route, None)

    def _put(self, route: str, body: Mapping[str, Any]) -> None:
        self._send("PUT", route, body)

    def _send(self, method: str, route: str, body: Mapping[str, Any] | None) -> Any:
        request = urllib.request.Request(
            f"{self.endpoint_url}/_cirro/{route}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": self._playground.key.basic},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    # --- the server's process ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def measured(self, into: list[Load]) -> Iterator[None]:
        """Measure what the server takes for what runs inside, from idle to idle."""
        server = self._server()
        self._rest(server)
        cpu, resident = _cpu_s(server), int(server.memory_info().rss)
        _forget_peak(server.pid)
        yield
        self._rest(server)
        into.append(Load(_cpu_s(server) - cpu, max(0, _peak_bytes(server.pid) - resident)))

    def _server(self) -> psutil.Process:
        server = self._playground.read().server
        assert server is not None
        return psutil.Process(server.pid)

    def _rest(self, server: psutil.Process) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            before = _cpu_s(server)
            time.sleep(REST_S)
            if _cpu_s(server) - before < REST_S * IDLE_SHARE:
                return
        raise BenchmarkFailed("the Covalent server does not come to rest")


def node_of(dispatch_id: str, job_name: str, tags: Mapping[str, str]) -> int | None:
    """The electron of a job: our tags say it, of the stock plugin the job's name. `None` for another dispatch's."""
    if tags.get("covalent:dispatch") == dispatch_id:
        return int(tags["covalent:node"])
    stock = f"covalent-batch-{dispatch_id}-"
    return int(job_name.removeprefix(stock)) if job_name.startswith(stock) else None


def peak_of(status: str) -> int:
    """The peak of resident memory in the text of ``/proc/<pid>/status``, in bytes."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkFailed("/proc/<pid>/status has no VmHWM: the peak of memory needs Linux")


def _peak_bytes(pid: int) -> int:
    return peak_of(Path(f"/proc/{pid}/status").read_text())


def _forget_peak(pid: int) -> None:
    """Begin the kernel's peak anew (proc(5), clear_refs). Where that is not allowed, growth is the higher for it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
