"""Runs Covalent's own nodes (lists, dicts, indexing, operators, postprocessing, sublattices) on the server's host.

As jobs each would wait minutes for a machine, and ``:postprocess:`` would carry every parameter of the lattice along.
What needs nobody's code is done right here (`assembly.py`). The rest is done by a process in a sandbox
(`host_process.py`), with the code that runs electrons in a container; the server itself unpickles nothing. What that
process cannot do for want of a module or of memory is left to a job (`host_jobs.py`).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covalent._shared_files import TaskCancelledError

from covalent_cirro import local_files
from covalent_cirro.contract.protocol import Failure, Kind
from covalent_cirro.contract.tobj import TobjError
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.covalent_server.dispatches import POSTPROCESS_PREFIX
from covalent_cirro.electron import assembly, host_process, log_files
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.host_process import BrokenProcess, NodeRun
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.result_writer import Received, WrittenFile, measure, take_file, write_text
from covalent_cirro.errors import LocalFileError
from covalent_cirro.jobs import host_node_ends
from covalent_cirro.jobs.ends import End

SUBLATTICE_PREFIX = ":sublattice:"

_LOGS = ("stdout", "stderr")


class Elsewhere(NamedTuple):
    """Nodes that cannot be done on this host, and why."""

    why: str


async def run(launch: Launch, specs: Sequence[ElectronSpec], folder: str) -> dict[str, Any] | Elsewhere:
    """Run a task group of host nodes to its end, in files of Covalent's own.

    Args:
        launch: The group.
        specs: Its nodes.
        folder: Where a process may have a folder meanwhile.

    Returns:
        ``{"host": [...]}`` with one entry for each node, for `received`; or that it takes a job.

    Raises:
        TaskCancelledError: Its end was asked for.
        LocalFileError: There is no room, or something else that passes is wrong with a file.
    """
    inputs = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(assets.load_group, launch.dispatch_id, launch.node_ids, inputs)
    entries: list[dict[str, Any]] = []
    files = dict(group.inputs)
    for spec in specs:
        try:
            entry = await asyncio.to_thread(_assembled, group, spec, files)
        except (TobjError, EOFError, LocalFileError) as error:
            if isinstance(error, LocalFileError) and error.passes:
                raise
            damaged = Failure(Kind.UNREADABLE, f"a file that it needs is damaged: {error}")
            return {"host": entries + await asyncio.to_thread(_failed, group, specs[len(entries) :], damaged)}
        if launch.cancelled:
            raise TaskCancelledError(f"Cancelled while it ran on the server's host (dispatch {launch.dispatch_id})")
        if entry is None:
            break
        entries.append(entry)
        files[spec.node_id] = group.nodes[spec.node_id].paths["output"]
    left = specs[len(entries) :]
    if not left:
        return {"host": entries}
    tasks = [_task(group, spec, files) for spec in left]
    # Nodes that hand on what they cannot open need Covalent itself, which the image of a job may not have.
    for_jobs = not any(task["hands_on"] for task in tasks)
    async with host_process.run(launch, tasks, assets.check_version(), folder) as ended:
        if isinstance(ended, BrokenProcess):
            for path in (folder, *(node.paths["output"] for node in group.nodes.values())):
                local_files.require_room(path)  # a full disk is waited for, and says so
            killed = ended.code == -signal.SIGKILL
            if killed and for_jobs:
                return Elsewhere("its process was killed each time, as one that needs too much memory is")
            said = f"its process ended with exit code {ended.code} and without an outcome. {ended.said}"
            broken = Failure(Kind.KILLED if killed else Kind.RUNNER, said)
            return {"host": entries + await asyncio.to_thread(_failed, group, left, broken)}
        lacking = next((each.failure for each in ended if each.failure and each.elsewhere), None)
        if lacking is not None and for_jobs:
            return Elsewhere(_lacks(lacking))
        return {"host": entries + await asyncio.to_thread(_taken, group, ended)}


def _lacks(failure: Failure) -> str:
    return f"it has no module {failure.module!r}" if failure.kind == Kind.MISSING_MODULE else failure.message


def _assembled(group: Group, spec: ElectronSpec, files: Mapping[int, str]) -> dict[str, Any] | None:
    """The entry of a node that needs nobody's code; `None`: it does."""
    node = group.nodes[spec.node_id]
    with local_files.told(node.paths["output"]):
        output = assembly.assemble(node, spec, files)
    return None if output is None else _entry(group, spec.node_id, None, {"output": output})


def _task(group: Group, spec: ElectronSpec, files: Mapping[int, str]) -> dict[str, Any]:
    """The task of ``covalent_cirro.runner.host``, which says what each member means."""
    node = group.nodes[spec.node_id]

    def argument(node_id: int) -> dict[str, Any]:
        return {"tobj": files[node_id]} if node_id in files else {"node": node_id}

    return {
        "node_id": spec.node_id,
        "name": node.name,
        "function": node.paths["function"],
        "hands_on": node.name.startswith((SUBLATTICE_PREFIX, POSTPROCESS_PREFIX)),
        "args": [argument(node_id) for node_id in spec.args],
        "kwargs": {key: argument(node_id) for key, node_id in spec.kwargs.items()},
    }


def _taken(group: Group, ended: Sequence[NodeRun]) -> list[dict[str, Any]]:
    """The entries of nodes that a process ran."""
    entries = []
    for each in ended:
        paths, files = group.nodes[each.node_id].paths, {}
        ran = each.failure is None or each.failure.kind != Kind.NOT_RUN
        try:
            files = {key: _take_log(each.file(key), paths[key]) for key in _LOGS if ran}
            if each.failure is None:
                files["output"] = take_file(each.file("output"), paths["output"])
            entries.append(_entry(group, each.node_id, each.failure, files))
        except ValueError as error:
            entries.append(_entry(group, each.node_id, Failure(Kind.RUNNER, str(error)), {}))
    return entries


def _take_log(source: str, path: str) -> WrittenFile:
    take_file(source, path)
    log_files.make_valid(path)  # Covalent's client takes nothing but UTF-8
    return measure(path)


def _failed(group: Group, specs: Sequence[ElectronSpec], failure: Failure) -> list[dict[str, Any]]:
    """The entries of nodes of which the first has failed."""
    first, *others = specs
    not_run = Failure(Kind.NOT_RUN, "an earlier node of the same task group failed")
    return [
        _entry(group, first.node_id, failure, {}),
        *(_entry(group, spec.node_id, not_run, {}) for spec in others),
    ]


def _entry(group: Group, node_id: int, failure: Failure | None, files: Mapping[str, WrittenFile]) -> dict[str, Any]:
    """What is kept of a node until `received`; writes what Covalent shows beside the output."""
    node = group.nodes[node_id]
    told = None if failure is None else host_node_ends.explain(failure, node.name, node_id)
    texts = {key: write_text(node.paths[key], "") for key in _LOGS if key not in files}
    error = write_text(node.paths["error"], "" if told is None else told.text)
    return {
        "node_id": node_id,
        "name": node.name,
        "completed": failure is None,
        "files": {key: list(file) for key, file in {**texts, **files, "error": error}.items()},
        "why": "" if told is None else told.line,
        "traceback": "" if failure is None else failure.traceback,
    }


def received(entries: Sequence[Mapping[str, Any]]) -> list[Received]:
    """What `run` gave, as the results of electrons."""
    return [
        Received(
            entry["node_id"],
            entry["completed"],
            {key: WrittenFile(int(size), str(sha1)) for key, (size, sha1) in entry["files"].items()},
            End.SUCCEEDED if entry["completed"] else End.RAISED,
        )
        for entry in entries
    ]
