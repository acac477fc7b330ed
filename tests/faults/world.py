"""A local stack of its own that may be broken: Covalent server, emulated AWS, faults, and what is known of a dispatch.

Looks past Covalent's API and past the faults: at the server's database and files, and at the emulated AWS with a key
that no fault hits.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import covalent as ct
import pytest
from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro.electron.engine.waits import DEADLINE_VARIABLE
from covalent_cirro.local import processes
from covalent_cirro.local.emulator.attempts.full_disk import fill_when
from covalent_cirro.local.emulator.batch.model import TERMINAL
from covalent_cirro.local.emulator.keys import OWN_ID
from covalent_cirro.local.local_stack import REGION, LocalStack
from covalent_cirro.runner.times import TIMES_VARIABLE
from tests import access
from tests.faults import lattices
from tests.faults.lattices import GATE, Execution

PATIENCE_S = 240.0
"""Longer than anything here takes on a machine that does other things too."""

WAITING_DEADLINE_S = 3
"""How long a job waits here before the reason is worked out: tests cannot wait for ten minutes."""

CHUNK_S = 0.2
"""From one chunk of the results of a map's items to the next, at first; half a minute elsewhere."""

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""Statuses that Covalent never leaves."""

_SELECT_NODES = """
SELECT e.transport_graph_node_id, e.name, e.status, e.executor_data,
       o.storage_path || '/' || o.object_key, r.storage_path || '/' || r.object_key,
       s.storage_path || '/' || s.object_key
FROM lattices l JOIN electrons e ON e.parent_lattice_id = l.id
JOIN electron_assets oa ON oa.meta_id = e.id AND oa.key = 'output' JOIN assets o ON o.id = oa.asset_id
JOIN electron_assets ra ON ra.meta_id = e.id AND ra.key = 'error' JOIN assets r ON r.id = ra.asset_id
JOIN electron_assets sa ON sa.meta_id = e.id AND sa.key = 'stdout' JOIN assets s ON s.id = sa.asset_id
WHERE l.dispatch_id = ? AND e.name NOT LIKE ':%' ORDER BY e.transport_graph_node_id
"""


def until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait for something to become true, and give it."""
    deadline = time.monotonic() + patience_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.1)
    return found


class Node(NamedTuple):
    """An electron of a dispatch, as Covalent's database and files have it."""

    node_id: int
    name: str
    status: str
    panel: str
    output: Path
    error: Path
    stdout: Path

    @property
    def value(self) -> Any:
        """Its result."""
        return TransportableObject.deserialize(self.output.read_bytes()).get_deserialized()

    @property
    def told(self) -> str:
        """Why it has none."""
        return self.error.read_text() if self.error.exists() else ""


class World:
    """A stack whose server can be killed and whose AWS has faults.

    Args:
        folder: For all its files.
        vcpus: Jobs of one vCPU at a time.
    """

    def __init__(self, folder: Path, vcpus: int = 16) -> None:
        self.folder = folder
        self._vcpus = vcpus
        self._spent: list[dict[str, Any]] = []
        self.playground = LocalStack(folder / "state")
        self.disk_is_full = folder / "disk is full"
        """While there is this file, the server's disk has no room for another file that Python writes."""
        is_full = f"os.path.exists({str(self.disk_is_full)!r}) and not os.path.exists(path)"
        self._environment = fill_when(self.playground.covalent_dir, is_full, folder / "hook", os.environ)
        self.start()
        self.endpoint_url = str(self.playground.status().endpoint_url)
        self.settings = self.playground.read().settings
        self.batch, self.s3 = self._client("batch"), self._client("s3")

    def start(self) -> None:
        """Start what does not run."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(DEADLINE_VARIABLE, str(WAITING_DEADLINE_S))
            patch.setenv("PYTHONPATH", self._environment["PYTHONPATH"])
            patch.setenv(TIMES_VARIABLE, f"chunk_interval={CHUNK_S}")
            self.url = str(self.playground.up(server=True, vcpus=self._vcpus).server_url)

    def close(self) -> None:
        """End all of it."""
        self.playground.down()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the Covalent server; where it ends it, wait for that."""
        server = self.playground.read().server
        assert server is not None
        os.kill(server.pid, number)
        if number == signal.SIGKILL:
            until(lambda: not processes.is_alive(server.identity), "the server to end")

    def log(self) -> list[str]:
        """What the server printed since its start, but for its list of requests and Covalent's own remarks."""
        server = self.playground.read().server
        assert server is not None
        path = Path(server.log)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return [line for line in lines if line.strip() and not line.lstrip().startswith(("INFO:", "["))]

    def dispatch(
        self,
        count: int,
        *,
        held: bool = False,
        eats_mib: int = 0,
        memory_max: float | None = None,
        prints: int = 0,
        folder: Path | None = None,
        platform: str = "EC2",
        machines: int = 1,
    ) -> Run:
        """Dispatch `lattices.sweep`.

        Args:
            count: Electrons.
            held: Those that have begun end when `Run.release` is called.
            eats_mib, memory_max: Of the first.
            prints: Bytes that each prints.
            folder: For its marks; it is part of all inputs, which no other dispatch has unless it has the same one.
            platform, machines: What they run on, and on how many each.
        """
        folder = folder or self.folder / f"run-{time.monotonic_ns()}"
        folder.mkdir()
        if held:
            (folder / GATE).touch()
        dispatch = ct.dispatch(lattices.sweep, dispatcher_addr=self.url)
        begun_ms = int(time.time() * 1000)
        dispatch_id = dispatch(count, str(folder), eats_mib, memory_max, prints, platform, machines)
        return Run(self, dispatch_id, folder, count, begun_ms)

    # --- faults ---

    def fault(self, **fault: Any) -> int:
        """Ask for a fault; gives its id."""
        made: int = self.ask("faults", {"faults": [fault]})["ids"][0]
        return made

    def faults(self) -> list[dict[str, Any]]:
        """All faults since the last `forget`, with what they hit."""
        now: list[dict[str, Any]] = self.ask("faults")["faults"]
        return self._spent + now

    def clear(self) -> None:
        """End all faults; what they hit is kept."""
        self._spent = self.faults()
        self.ask("faults", method="DELETE")

    def forget(self) -> None:
        """End all faults, and forget them."""
        self.clear()
        self._spent = []

    def hits(self) -> int:
        """How often faults hit since the last `forget`."""
        return sum(fault["hits"] for fault in self.faults())

    def ask(self, what: str, body: Any = None, method: str = "") -> Any:
        """A request to the emulator's own routes."""
        return access.ask(self.endpoint_url, self.playground.key, what, body, method or None)

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=OWN_ID,
            aws_secret_access_key=self.playground.key.secret,
        )


class Run:
    """A dispatch of `lattices.sweep`, seen from all sides."""

    def __init__(self, world: World, dispatch_id: str, folder: Path, count: int, begun_ms: int) -> None:
        self.world = world
        self.dispatch_id = dispatch_id
        self.folder = folder
        self.count = count
        # One request for jobs in all states, and none of earlier dispatches: this is asked many times a second.
        self._since = {"name": "AFTER_CREATED_AT", "values": [str(begun_ms)]}
        self.struck = 0
        self.hit: set[int] = set()
        self.database = world.playground.covalent_dir / "dispatcher_db.sqlite"

    def release(self) -> None:
        """Let electrons end."""
        (self.folder / GATE).unlink(missing_ok=True)

    def kill_server(self) -> None:
        """Kill the server of this dispatch."""
        self.world.signal(signal.SIGKILL)
        self.strike()

    def strike(self) -> None:
        """Say that the server was struck; electrons that have not ended are hit."""
        self.struck += 1
        self.hit |= {node.node_id for node in self.nodes()[:-1] if node.status not in ENDED}

    # --- in Covalent ---

    @property
    def status(self) -> str:
        """The dispatch's status."""
        return str(self._rows("SELECT status FROM lattices WHERE dispatch_id = ?")[0][0])

    def nodes(self) -> list[Node]:
        """Its electrons; Covalent's own nodes are left out. The last is the one that needs all others."""
        return [
            Node(node_id, name, status, _panel(data), Path(output), Path(error), Path(stdout))
            for node_id, name, status, data, output, error, stdout in self._rows(_SELECT_NODES)
        ]

    def _rows(self, sql: str) -> list[Any]:
        # Only read, but what a killed server left half written is rolled back by the first who opens it.
        connection = sqlite3.connect(f"file:{self.database}?mode=rw", uri=True, timeout=30)
        try:
            return connection.execute(sql, (self.dispatch_id,)).fetchall()
        finally:
            connection.close()

    # --- in AWS ---

    def jobs(self) -> list[dict[str, Any]]:
        """Its jobs, as AWS Batch describes them; each has its electron's node as ``node``."""
        pages = self.world.batch.get_paginator("list_jobs")
        queues = {value for key, value in self.world.settings.items() if key.startswith("batch_") and "queue" in key}
        ids = {
            job["jobId"]
            for queue in queues
            for page in pages.paginate(jobQueue=queue, filters=[self._since])
            for job in page["jobSummaryList"]
            if f"-{self.dispatch_id[:8]}-" in job["jobName"]
        }
        found = []
        for start in range(0, len(ids), 100):
            found += self.world.batch.describe_jobs(jobs=sorted(ids)[start : start + 100])["jobs"]
        return [{**job, "node": int(job["tags"]["covalent:node"])} for job in found]

    def states(self) -> list[str]:
        """The states of its jobs."""
        return [job["status"] for job in self.jobs()]

    def all_ended(self, count: int) -> bool:
        """Whether so many jobs have ended."""
        return sum(state in TERMINAL for state in self.states()) >= count

    def outcomes(self) -> list[dict[str, Any]]:
        """Its outcomes, those that are JSON."""
        found = []
        for key in self.keys():
            if key.endswith("/outcome.json"):
                with contextlib.suppress(ValueError):
                    found.append(json.loads(self.read(key)))
        return found

    def keys(self) -> list[str]:
        """Keys of all its objects in S3 but blobs."""
        prefix = f"{self.world.settings.get('s3_prefix', 'cirro')}/jobs/{self.dispatch_id}/"
        bucket = self.world.settings["s3_bucket_name"]
        pages = self.world.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        """The content of an object."""
        found: bytes = self.world.s3.get_object(Bucket=self.world.settings["s3_bucket_name"], Key=key)["Body"].read()
        return found

    def executions(self) -> list[list[Execution]]:
        """How often each electron was executed, in the order of `nodes`."""
        return [lattices.executions(self.folder, number) for number in range(self.count + 1)]


def _panel(executor_data: str) -> str:
    from covalent_cirro.jobs.panel import KEYS

    attributes = json.loads(executor_data or "{}").get("attributes") or {}
    return " | ".join(f"{key}: {attributes[key]}" for key in KEYS if attributes.get(key))
