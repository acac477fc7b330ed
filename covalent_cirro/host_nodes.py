"""Runs Covalent's own nodes (lists, dicts, indexing, postprocessing, sublattices) in a process on the server's host.

As jobs each would wait minutes for a machine, and ``:postprocess:`` would carry every parameter of the lattice along.
The server itself unpickles nothing: the process does, with the code that runs electrons in a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from covalent._shared_files import TaskCancelledError

from covalent_cirro import covalent_assets, local_files
from covalent_cirro.calls import Spec
from covalent_cirro.covalent_assets import Group
from covalent_cirro.ends import End
from covalent_cirro.errors import CirroError
from covalent_cirro.launches import Launch
from covalent_cirro.results import File, Received, measure, write_text

PROCESSES_AT_ONCE = max(2, os.cpu_count() or 1)
"""Host nodes that run at a time: each may import Covalent, two seconds of a core."""

STARTS = 2
"""``covalent stop`` kills the server's children while it tells the server: a second process outlives that, and ends
with the server. Its successor goes on."""

KILLED = f"Exit code {-signal.SIGKILL}."

REQUEST_FORMAT = 1
"""That of ``covalent_cirro.runner.host``."""

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def run(launch: Launch, specs: Sequence[Spec], folder: str) -> dict[str, Any]:
    """Run a task group of host nodes to its end, in files of Covalent's own.

    Args:
        folder: Where the request and its outcome lie meanwhile.

    Returns:
        ``{"host": [...]}`` with one entry for each node, for `received`.

    Raises:
        TaskCancelledError: Its end was asked for.
        CirroError: The process ended without an outcome; the message has the end of what it said.
    """
    inputs = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(covalent_assets.load_group, launch.dispatch_id, launch.node_ids, inputs)
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(PROCESSES_AT_ONCE))
    async with slots:
        with local_files.told(folder):
            os.makedirs(folder, exist_ok=True)
        local_files.require_room(folder)
        with tempfile.TemporaryDirectory(prefix="cirro-host-", dir=folder) as place:
            outcome = os.path.join(place, "outcome.json")
            request = os.path.join(place, "request.json")
            await asyncio.to_thread(
                write_text, request, json.dumps(build_request(launch.dispatch_id, group, specs, outcome))
            )
            said = ""
            for _ in range(STARTS):
                said = await _process(launch, request)
                if launch.cancelled:
                    raise TaskCancelledError(
                        f"Cancelled while it ran on the server's host (dispatch {launch.dispatch_id})"
                    )
                if not said.startswith(KILLED):
                    break
            return {"host": await asyncio.to_thread(_read, outcome, group, said)}


def build_request(dispatch_id: str, group: Group, specs: Sequence[Spec], outcome: str) -> dict[str, Any]:
    """The request of ``covalent_cirro.runner.host``, which says what each member means."""
    inside = {spec.node_id for spec in specs}

    def argument(node_id: int) -> dict[str, Any]:
        return {"node": node_id} if node_id in inside else {"tobj": group.inputs[node_id]}

    tasks = []
    for spec in specs:
        node = group.nodes[spec.node_id]
        tasks.append(
            {
                "node_id": spec.node_id,
                "name": node.name,
                "args": [argument(node_id) for node_id in spec.args],
                "kwargs": {key: argument(node_id) for key, node_id in spec.kwargs.items()},
                "hooks": node.paths.get("hooks"),
                **{key: node.paths[key] for key in ("function", "output", "stdout", "stderr", "error")},
            }
        )
    return {
        "format": REQUEST_FORMAT,
        "dispatch_id": dispatch_id,
        "covalent": covalent_assets.check_version(),
        "outcome": outcome,
        "tasks": tasks,
    }


async def _process(launch: Launch, request: str) -> str:
    """Run the request; returns what is left to say of a process that did not do its work."""
    # A server that is killed closes its end: its successor must not find a process at work on the same files.
    ours_ended, parent = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "covalent_cirro.runner.host", request, str(ours_ended)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=(ours_ended,),
        )
    except BaseException:
        os.close(parent)
        raise
    finally:
        os.close(ours_ended)

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    launch.on_cancel = kill
    try:
        if launch.cancelled:
            kill()
        _, stderr = await process.communicate()
    finally:
        launch.on_cancel = None
        kill()  # what it left behind, or all of it, if the wait was cancelled
        os.close(parent)
    tail = stderr.decode(errors="replace")[-2000:].strip()
    return f"Exit code {process.returncode}. {tail}"


def _read(outcome: str, group: Group, said: str) -> list[dict[str, Any]]:
    try:
        with open(outcome, encoding="utf-8") as file:
            results = json.load(file)["results"]
    except FileNotFoundError:
        for path in (outcome, *(node.paths["output"] for node in group.nodes.values())):
            local_files.require_room(path)  # a full disk is waited for, and says so
        names = ", ".join(node.name for node in group.nodes.values())
        raise CirroError(f"The process for {names} on the server's host ended without a result. {said}") from None
    return [_ended(result, group.nodes[result["node_id"]].paths) for result in results]


def _ended(result: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    files = {key: list(measure(paths[key])) for key in ("stdout", "stderr", "error") if os.path.exists(paths[key])}
    if result["output"] is not None:
        files["output"] = [result["output"]["size"], result["output"]["sha1"]]
    return {"node_id": result["node_id"], "completed": result["failure"] is None, "files": files}


def received(entries: Sequence[Mapping[str, Any]]) -> list[Received]:
    """What `run` gave, as the results of electrons."""
    return [
        Received(
            entry["node_id"],
            entry["completed"],
            {key: File(int(size), str(sha1)) for key, (size, sha1) in entry["files"].items()},
            End.SUCCEEDED if entry["completed"] else End.RAISED,
        )
        for entry in entries
    ]
