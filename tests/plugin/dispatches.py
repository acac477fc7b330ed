"""Dispatches made by real client processes, whose electrons are driven through the executor as Covalent's server does.

Files take the place of the server's database: what a client staged, and beside it what the executor writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.contract import tobj
from covalent_cirro.covalent_server import assets, view
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import launches, poll
from covalent_cirro.electron import receive as reception
from covalent_cirro.electron import send as submission
from covalent_cirro.electron.handover import Polled, ReusedResults, Sent
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.result_writer import Received

CLIENT = """
import runpy, sys
from covalent._dispatcher_plugins.local import LocalDispatcher
file, lattice, folder = sys.argv[1:]
lattice = runpy.run_path(file, run_name="__main__")[lattice]
lattice.build_graph()
manifest = LocalDispatcher.prepare_manifest(lattice, folder)
with open(folder + "/manifest.json", "w") as out:
    out.write(manifest.model_dump_json())
"""
"""A client's half of `ct.dispatch`."""


def client(file: Path, lattice: str, folder: Path, seed: int) -> subprocess.Popen[str]:
    """Begin to build a lattice's graph and to stage its files, in a process with a hash seed of its own."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-c", CLIENT, str(file), lattice, str(folder)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait until a client has staged all."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


class Ended(NamedTuple):
    """How an electron ended."""

    sent: Sent
    received: Received
    output: str
    error: str

    @property
    def is_reused(self) -> bool:
        """Whether it had no job."""
        return isinstance(self.sent, ReusedResults)

    @property
    def value(self) -> Any:
        """Its result."""
        with open(self.output, "rb") as file:
            return cloudpickle.loads(b"".join(tobj.iter_pickle(file, tobj.read_header(file))))


class Dispatch:
    """One dispatch of a graph that a client staged; each has an id and results of its own."""

    def __init__(self, staged: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.id = str(uuid.uuid4())
        self.panels: dict[int, dict[str, str]] = {}
        self._patch = monkeypatch
        self._folder = folder / self.id
        graph = json.loads((staged / "manifest.json").read_text())["lattice"]["transport_graph"]
        self._nodes = {node["id"]: node for node in graph["nodes"]}
        self._inputs: dict[int, list[tuple[dict[str, Any], int]]] = {node_id: [] for node_id in self._nodes}
        for link in graph["links"]:
            self._inputs[link["target"]].append((link["metadata"], link["source"]))
        self.ended: dict[str, Ended] = {}

    async def run(self, made: CirroBatchExecutor, *names: str) -> dict[str, Ended]:
        """Run these electrons, and those that they need, one after the other."""
        for name in names:
            await self._run(made, self.node_id(name))
        return self.ended

    def node_id(self, name: str) -> int:
        """The node of an electron."""
        return next(node_id for node_id, node in self._nodes.items() if node["metadata"]["name"] == name)

    async def send(self, made: CirroBatchExecutor, name: str, *, again: bool = False) -> tuple[Launch, Sent]:
        """What `send` does for an electron whose inputs are there. ``again``: a server began it before."""
        node_id = self.node_id(name)
        inputs = self._inputs[node_id]
        args = [source for meta, source in sorted(inputs, key=_place) if meta["param_type"] == "arg"]
        kwargs = {meta["edge_name"]: source for meta, source in inputs if meta["param_type"] == "kwarg"}
        group = Group(
            nodes={node_id: self._node(node_id)},
            inputs={source: self._output(source) for _, source in inputs},
            lattice="flow",
            python=platform.python_version(),
            covalent="0.240.0",
        )
        self._patch.setattr(assets, "load_group", lambda *_: group)
        self._patch.setattr(assets, "read_handle", lambda *_: None)
        self._patch.setattr(assets, "write_statuses", lambda _: None)
        self._patch.setattr(view, "write_panels", self._show)
        if again:
            launches.expect(self.id, [node_id])
        launch = Launch(self.id, [node_id])
        spec = type("TaskSpec", (), {"electron_id": node_id, "args": args, "kwargs": kwargs})
        try:
            return launch, await submission.send(launch, made.settings, [spec], keep)
        except BaseException:
            launch.close()
            raise

    async def receive(self, made: CirroBatchExecutor, name: str, polled: Polled) -> Received:
        """What `receive` does with what was polled, or with what anybody sends."""
        (received,) = await reception.receive(made.settings, self.id, [self.node_id(name)], polled)
        return received

    async def _run(self, made: CirroBatchExecutor, node_id: int) -> None:
        name = self._nodes[node_id]["metadata"]["name"]
        if name.startswith(":") or name in self.ended:
            return
        for _, source in self._inputs[node_id]:
            await self._run(made, source)
        launch, sent = await self.send(made, name)
        try:
            polled = await poll.poll(launch, made.settings, sent, keep)
        finally:
            launch.close()
        received = await self.receive(made, name, polled)
        paths = self._node(node_id).paths
        self.ended[name] = Ended(sent, received, paths["output"], Path(paths["error"]).read_text())
        await asyncio.sleep(0)

    def _node(self, node_id: int) -> Node:
        node, folder = self._nodes[node_id], self._folder / str(node_id)
        paths = {key: str(folder / key) for key in ("output", "stdout", "stderr", "error")}
        for key in ("function", "hooks"):
            paths[key] = node["assets"][key]["uri"].removeprefix("file://")
        return Node(node_id, node_id, node["metadata"]["name"], paths)

    def _output(self, node_id: int) -> str:
        node = self._nodes[node_id]
        if node["metadata"]["name"].startswith(":parameter:"):
            return str(node["assets"]["value"]["uri"]).removeprefix("file://")
        return self.ended[node["metadata"]["name"]].output

    def _show(self, changes: Any, keys: Any) -> None:
        self.panels |= {change.node_id: dict(change.lines) for change in changes if change.dispatch_id == self.id}


def _place(edge: tuple[dict[str, Any], int]) -> int:
    return edge[0].get("arg_index") or 0


async def keep(*_: Any) -> None:
    """Covalent keeps the handle of a job."""
