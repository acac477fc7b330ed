"""Runs Covalent's own nodes as jobs, where the server's host lacks a module or memory for them.

An index, an attribute or ``a + b`` opens results of electrons. Their job has the executor and the packages of these
electrons, which could open them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro import settings
from covalent_cirro.covalent_server import assets, config, dispatches
from covalent_cirro.covalent_server.assets import OURS
from covalent_cirro.covalent_server.dispatches import POSTPROCESS_PREFIX, RunNode
from covalent_cirro.electron import cache_folder
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.handover import AdoptedJob, NoItems, OwnJob, ReusedResults
from covalent_cirro.electron.host_nodes import NeedsJob
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.result_writer import write_text
from covalent_cirro.electron.send import KeepHandle, send_job
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

_PACKAGES = "local_packages"
_DISTRIBUTED = ("num_nodes", "processes_per_node")


class InputElectron(NamedTuple):
    """An electron whose result a node opens.

    Attributes:
        name: Name of the electron.
        options: Options that are set on its executor.
        deps: Its ``deps_bash`` and ``deps_pip``, as in Covalent's ``hooks.json``.
    """

    name: str
    options: Mapping[str, Any]
    deps: Mapping[str, Any]


async def send(
    launch: Launch, given: Settings, specs: Sequence[ElectronSpec], done: NeedsJob, keep_handle: KeepHandle
) -> tuple[Settings, OwnJob | AdoptedJob | ReusedResults | NoItems]:
    """Submit the job of a task group of Covalent's own nodes.

    Args:
        launch: The task group.
        given: Settings of its own executor.
        specs: Its nodes.
        done: Why the nodes need a job.
        keep_handle: Stores the handle of the job.

    Returns:
        The settings of the job's executor, and the job.
    """
    origins, own = await asyncio.to_thread(_origins, launch.dispatch_id, launch.node_ids)
    options = chosen(own, [origin.options for origin in origins])
    resolved = settings.resolve(options, await asyncio.to_thread(config.executor_section))
    # Covalent makes the executor of the nodes with these options from now on: in receive and cancel, after a restart.
    await asyncio.to_thread(assets.write_options, launch.dispatch_id, launch.node_ids, options)
    inputs = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(assets.load_group, launch.dispatch_id, launch.node_ids, inputs)
    log.warning(
        "%s of dispatch %s cannot be done on the server's host: %s. It runs as a job, with the executor%s of %s",
        ", ".join(f"{node.name!r} (node {node_id})" for node_id, node in group.nodes.items()),
        launch.dispatch_id,
        done.why,
        " and packages" if resolved.local_packages or any(origin.deps for origin in origins) else "",
        ", ".join(repr(name) for name in dict.fromkeys(origin.name for origin in origins)) or "its lattice",
    )
    scratch = await asyncio.to_thread(cache_folder.scratch, given.cache_dir)
    with tempfile.TemporaryDirectory(prefix="cirro-hooks-", dir=scratch) as folder:
        path = os.path.join(folder, "hooks.json")
        hooks = {"deps": merged([origin.deps for origin in origins])}
        await asyncio.to_thread(write_text, path, json.dumps(hooks))
        for node in group.nodes.values():
            # In place of the hooks of the node, which are those of an electron, with its calls and files.
            node.paths["hooks"] = path
        return resolved, await send_job(launch, resolved, group, specs, keep_handle)


def chosen(own: Mapping[str, Any], origins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Options of the job's executor.

    Args:
        own: Options of the nodes' own executor.
        origins: Options of the executor of each electron whose result is opened.

    Returns:
        ``own``, or if it is empty the first of ``origins``; with the ``local_packages`` of all. The job has one machine
        and one process, also where an electron before it has more.
    """
    every = [own, *origins]
    first = next((options for options in every if options), {})
    packages = dict.fromkeys(package for options in every for package in options.get(_PACKAGES) or ())
    first = {name: value for name, value in first.items() if name not in _DISTRIBUTED}
    return {**first, **({_PACKAGES: list(packages)} if packages else {})}


def merged(every: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join several ``deps`` into one, which installs each package once."""
    commands: dict[str, None] = {}
    packages: dict[str, None] = {}
    requirements: dict[str, None] = {}
    for deps in every:
        commands |= dict.fromkeys(_texts(deps, "bash", "commands"))
        packages |= dict.fromkeys(_texts(deps, "pip", "packages"))
        requirements |= dict.fromkeys(_texts(deps, "pip", "requirements_content"))
    found: dict[str, Any] = {}
    if commands:
        found["bash"] = {"attributes": {"commands": list(commands)}}
    if requirements:  # then the runner reads nothing else: packages are lines of it too
        found["pip"] = {"attributes": {"requirements_content": "\n".join([*requirements, *packages])}}
    elif packages:
        found["pip"] = {"attributes": {"packages": list(packages)}}
    return found


def _texts(deps: Mapping[str, Any], kind: str, name: str) -> list[str]:
    value = ((deps.get(kind) or {}).get("attributes") or {}).get(name) or []
    return [value] if isinstance(value, str) else list(value)


def _origins(dispatch_id: str, node_ids: Sequence[int]) -> tuple[list[InputElectron], Mapping[str, Any]]:
    """The electrons whose results the nodes open, and the options of the nodes' own executor."""
    nodes = dispatches.read(dispatch_id).nodes
    found: dict[tuple[str, int], RunNode] = {}
    seen: set[tuple[str, int]] = set()
    for node_id in node_ids:
        _look_above(dispatch_id, node_id, found, seen)
    origins = []
    for (of, node_id), node in found.items():
        path = assets.load_group(of, [node_id], ()).nodes[node_id].paths.get("hooks")
        origins.append(InputElectron(node.name, _set_options(node), _deps(path)))
    return origins, _set_options(nodes[node_ids[0]])


def _look_above(
    dispatch_id: str, node_id: int, found: dict[tuple[str, int], RunNode], seen: set[tuple[str, int]]
) -> None:
    """Find the electrons above a node, through Covalent's own nodes and through the dispatches of sublattices."""
    graph = dispatches.read(dispatch_id)
    left = [node_id]
    while left:
        node_id = left.pop(0)
        for parent_id in sorted({parent for parent, child in graph.edges if child == node_id}):
            parent, key = graph.nodes[parent_id], (dispatch_id, parent_id)
            if key in seen:
                continue
            seen.add(key)
            if not parent.is_host_node:
                found |= {key: parent} if parent.executor == OURS else {}
                continue
            left.append(parent_id)
            for last in _ends_of(parent.sublattice_id):
                _look_above(str(parent.sublattice_id), last, found, seen)


def _ends_of(dispatch_id: str | None) -> Iterator[int]:
    """Numbers of the nodes whose output is the result of a dispatch."""
    nodes = dispatches.read(dispatch_id).nodes.values() if dispatch_id is not None else ()
    yield from (node.node_id for node in nodes if node.name.startswith(POSTPROCESS_PREFIX))


def _set_options(node: RunNode) -> dict[str, Any]:
    return {name: value for name, value in node.options.items() if name in settings.BY_NAME and value is not None}


def _deps(path: str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    with open(path, "rb") as file:
        hooks = json.loads(file.read() or b"{}") or {}
    deps = hooks.get("deps")
    return deps if isinstance(deps, dict) else {}
