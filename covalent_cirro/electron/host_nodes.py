"""Runs Covalent's own nodes (lists, dicts, indexing, operators, postprocessing, sublattices) on the server's host.

As a job, each node would wait minutes for a machine, and ``:postprocess:`` would upload every parameter of the lattice.
A node that needs no code of a user is put together in this process (`assembly.py`). The others run in a process in a
sandbox (`host_process.py`), with the code that runs electrons in a container: the server itself unpickles nothing. A
node for which that process lacks a module or memory runs as a job (`host_jobs.py`).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covalent._shared_files import TaskCancelledError

from covalent_cirro import local_files
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.tobj import TobjError
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.covalent_server.dispatches import POSTPROCESS_PREFIX
from covalent_cirro.electron import assembly, host_process, log_files
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.handover import EndedHostNodes, HostNodeEnd
from covalent_cirro.electron.host_process import BrokenProcess, NodeRun
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.result_writer import Received, WrittenFile, measure, take_file, write_text
from covalent_cirro.errors import LocalFileError
from covalent_cirro.jobs import host_node_ends
from covalent_cirro.jobs.ends import End

SUBLATTICE_PREFIX = ":sublattice:"

_LOGS = ("stdout", "stderr")


class NeedsJob(NamedTuple):
    """Nodes that cannot run on this host.

    Attributes:
        why: Why not, in one line.
    """

    why: str


async def run(launch: Launch, specs: Sequence[ElectronSpec], folder: str) -> EndedHostNodes | NeedsJob:
    """Run a task group of Covalent's own nodes, with their files where Covalent keeps them.

    Args:
        launch: The task group.
        specs: Its nodes.
        folder: Folder in which a process gets a folder of its own.

    Returns:
        How each node ended; or that they need a job.

    Raises:
        TaskCancelledError: The task group was cancelled.
        LocalFileError: The disk is full, or something else that a user can fix is wrong with a file.
    """
    inputs = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(assets.load_group, launch.dispatch_id, launch.node_ids, inputs)
    ends: list[HostNodeEnd] = []
    files = dict(group.inputs)
    for spec in specs:
        try:
            end = await asyncio.to_thread(_assembled, group, spec, files)
        except (TobjError, EOFError, LocalFileError) as error:
            if isinstance(error, LocalFileError) and error.passes:
                raise
            damaged = Failure(Kind.UNREADABLE, f"a file that it needs is damaged: {error}")
            return EndedHostNodes((*ends, *await asyncio.to_thread(_failed, group, specs[len(ends) :], damaged)))
        if launch.cancelled:
            raise TaskCancelledError(f"Cancelled while it ran on the server's host (dispatch {launch.dispatch_id})")
        if end is None:
            break
        ends.append(end)
        files[spec.node_id] = group.nodes[spec.node_id].paths["output"]
    left = specs[len(ends) :]
    if not left:
        return EndedHostNodes(tuple(ends))
    tasks = [_task(group, spec, files) for spec in left]
    # Postprocessing and sublattices need Covalent itself, which the image of a job may lack.
    for_jobs = not any(task["hands_on"] for task in tasks)
    async with host_process.run(launch, tasks, assets.check_version(), folder) as ended:
        if isinstance(ended, BrokenProcess):
            for path in (folder, *(node.paths["output"] for node in group.nodes.values())):
                local_files.require_room(path)  # raises the error of a full disk, which is waited for
            killed = ended.code == -signal.SIGKILL
            if killed and for_jobs:
                return NeedsJob("its process was killed each time, as one that needs too much memory is")
            said = f"its process ended with exit code {ended.code} and without an outcome. {ended.said}"
            broken = Failure(Kind.KILLED if killed else Kind.RUNNER, said)
            return EndedHostNodes((*ends, *await asyncio.to_thread(_failed, group, left, broken)))
        lacking = next((each.failure for each in ended if each.failure and each.elsewhere), None)
        if lacking is not None and for_jobs:
            return NeedsJob(_lacks(lacking))
        return EndedHostNodes((*ends, *await asyncio.to_thread(_taken, group, ended)))


async def without_items(launch: Launch, node_id: int) -> EndedHostNodes:
    """The end of a mapped electron whose list is empty: its output is an empty list, which is written here.

    Raises:
        TaskCancelledError: It was cancelled.
    """
    if launch.cancelled:
        raise TaskCancelledError(f"Cancelled before it had a job (dispatch {launch.dispatch_id})")

    def end() -> HostNodeEnd:
        group = assets.load_group(launch.dispatch_id, [node_id], ())
        output = assembly.write_empty_list(group.nodes[node_id].paths["output"])
        return _end(group, node_id, None, {"output": output})

    return EndedHostNodes((await asyncio.to_thread(end),))


def _lacks(failure: Failure) -> str:
    return f"it has no module {failure.module!r}" if failure.kind == Kind.MISSING_MODULE else failure.message


def _assembled(group: Group, spec: ElectronSpec, files: Mapping[int, str]) -> HostNodeEnd | None:
    """Put a node's output together without running code of anybody; `None`: that is not possible."""
    node = group.nodes[spec.node_id]
    with local_files.errors_about(node.paths["output"]):
        output = assembly.assemble(node, spec, files)
    return None if output is None else _end(group, spec.node_id, None, {"output": output})


def _task(group: Group, spec: ElectronSpec, files: Mapping[int, str]) -> dict[str, Any]:
    """A task for ``covalent_cirro.runner.host``, which documents the members."""
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


def _taken(group: Group, ended: Sequence[NodeRun]) -> list[HostNodeEnd]:
    """Take over the files of nodes that a process ran."""
    ends = []
    for each in ended:
        paths, files = group.nodes[each.node_id].paths, {}
        ran = each.failure is None or each.failure.kind != Kind.NOT_RUN
        try:
            files = {key: _take_log(each.file(key), paths[key]) for key in _LOGS if ran}
            if each.failure is None:
                files["output"] = take_file(each.file("output"), paths["output"])
            ends.append(_end(group, each.node_id, each.failure, files))
        except ValueError as error:
            ends.append(_end(group, each.node_id, Failure(Kind.RUNNER, str(error)), {}))
    return ends


def _take_log(source: str, path: str) -> WrittenFile:
    take_file(source, path)
    log_files.make_valid(path)  # Covalent's client reads UTF-8 only
    return measure(path)


def _failed(group: Group, specs: Sequence[ElectronSpec], failure: Failure) -> list[HostNodeEnd]:
    """The ends of nodes of which the first has failed, so that the others were not run."""
    first, *others = specs
    not_run = Failure(Kind.NOT_RUN, "an earlier node of the same task group failed")
    return [
        _end(group, first.node_id, failure, {}),
        *(_end(group, spec.node_id, not_run, {}) for spec in others),
    ]


def _end(group: Group, node_id: int, failure: Failure | None, files: Mapping[str, WrittenFile]) -> HostNodeEnd:
    """The end of a node. Writes what Covalent shows beside the output: the error, and logs not in ``files``."""
    node = group.nodes[node_id]
    told = None if failure is None else host_node_ends.explain(failure, node.name, node_id)
    texts = {key: write_text(node.paths[key], "") for key in _LOGS if key not in files}
    error = write_text(node.paths["error"], "" if told is None else told.text)
    return HostNodeEnd(
        node_id,
        node.name,
        {**texts, **files, "error": error},
        "" if told is None else told.line,
        "" if failure is None else failure.traceback,
    )


def received(ends: Sequence[HostNodeEnd]) -> list[Received]:
    """The ends of nodes in the form of those of electrons."""
    return [
        Received(end.node_id, end.completed, dict(end.files), End.SUCCEEDED if end.completed else End.RAISED)
        for end in ends
    ]
