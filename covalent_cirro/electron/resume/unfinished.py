"""Resumes dispatches after their server has ended: works out what is left of a dispatch, and starts it.

Uses what Covalent's database has of the nodes. Covalent runs each task group again that has not ended and whose inputs
are there; `send.send` and `adoption.py` adopt a job that exists already, so that none is submitted twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.covalent_server import dispatches as covalent_runs
from covalent_cirro.covalent_server.assets import OURS
from covalent_cirro.covalent_server.dispatches import POSTPROCESS_PREFIX, Dispatch, Graph, RunNode
from covalent_cirro.electron import launches

log = logging.getLogger(__name__)


class WorkLeft(NamedTuple):
    """What is left of a dispatch.

    Attributes:
        pending: Number of inputs that each task group still waits for.
        groups: Task groups to run: their inputs are there, and they have not ended.
        unresolved: Number of nodes under way: those of ``groups`` that have not ended, and ``sublattices``.
        sublattices: Nodes of sublattices, whose own dispatch is under way, has ended, or has not begun.
        reopened: Nodes of the postprocessing, where all nodes have ended but the dispatch has not.
    """

    pending: dict[int, int]
    groups: list[int]
    unresolved: int
    sublattices: list[RunNode]
    reopened: list[int]


def plan(graph: Graph) -> WorkLeft:
    """Work out what is left of a dispatch from the statuses of its nodes."""
    members: dict[int, list[RunNode]] = {}
    for node in graph.nodes.values():
        members.setdefault(node.group_id, []).append(node)
    pending = dict.fromkeys(members, 0)
    for parent_id, child_id in graph.edges:
        parent, child = graph.nodes[parent_id], graph.nodes[child_id]
        if parent.group_id != child.group_id and parent.status != "COMPLETED":
            pending[child.group_id] += 1
    groups, sublattices, unresolved = [], [], 0
    for group_id, nodes in members.items():
        left = [node for node in nodes if not node.has_ended]
        if pending[group_id] or not left:
            continue
        unresolved += len(left)
        dispatched = [node for node in left if node.status == "DISPATCHING"]
        sublattices += dispatched
        if not dispatched:
            groups.append(group_id)
    reopened: list[int] = []
    if not unresolved and all(node.status == "COMPLETED" for node in graph.nodes.values()):
        reopened = [node.node_id for node in graph.nodes.values() if node.name.startswith(POSTPROCESS_PREFIX)]
        groups = sorted({graph.nodes[node_id].group_id for node_id in reopened})
        unresolved = len(reopened)
    return WorkLeft(pending, groups, unresolved, sublattices, reopened)


def foreign(graph: Graph) -> list[RunNode]:
    """Electrons of other executors that would run again from their begin: this plugin cannot find their earlier run."""
    members = {group_id: False for group_id in plan(graph).groups}
    return [
        node
        for node in graph.nodes.values()
        if node.group_id in members and not node.has_ended and not node.is_host_node and node.executor != OURS
    ]


class Resumed(NamedTuple):
    """A dispatch that was resumed.

    Attributes:
        dispatch_id: Dispatch id.
        electrons: Number of its electrons that were under way or ready.
    """

    dispatch_id: str
    electrons: int


async def resume(dispatches: Sequence[Dispatch]) -> list[Resumed]:
    """Resume dispatches on which no server works: a dispatch together with those of its sublattices.

    The counters of all are set before anything runs, since the end of one dispatch may be an input of another.
    """
    plans: list[tuple[Dispatch, Graph, WorkLeft, Mapping[int, Sequence[int]]]] = []
    for dispatch in dispatches:
        graph = await asyncio.to_thread(covalent_runs.read, dispatch.dispatch_id)
        left = plan(graph)
        order = await covalent_runs.order(dispatch.dispatch_id)
        await covalent_runs.reset_counters(dispatch.dispatch_id, left.pending, order, left.unresolved)
        if left.reopened:
            await asyncio.to_thread(covalent_runs.reopen, dispatch.dispatch_id, left.reopened)
        if dispatch.status != "RUNNING":
            await covalent_runs.mark_running(dispatch.dispatch_id)
        plans.append((dispatch, graph, left, order))
    return [await _go_on(dispatch.dispatch_id, graph, left, order) for dispatch, graph, left, order in plans]


async def _go_on(dispatch_id: str, graph: Graph, left: WorkLeft, order: Mapping[int, Sequence[int]]) -> Resumed:
    under_way = [node for node in graph.nodes.values() if node.group_id in left.groups and not node.has_ended]
    doomed = [node.node_id for node in under_way if node.cancel_requested]
    if doomed:
        # The cancel may not have reached their jobs. Covalent refuses to run them again.
        launches.expect(dispatch_id, doomed)
        await covalent_runs.cancel(dispatch_id, doomed)
    for group_id in left.groups:
        launches.expect(dispatch_id, order[group_id])
        await covalent_runs.submit_group(dispatch_id, order[group_id], group_id)
    for node in left.sublattices:
        if node.sublattice_id is None or node.sublattice_status == "NEW_OBJECT":
            await covalent_runs.start_sublattice(dispatch_id, node)
        elif node.sublattice_status in covalent_runs.ENDED:
            await covalent_runs.report_sublattice(node.sublattice_id)
    if not left.unresolved:
        await covalent_runs.finish(dispatch_id)
    electrons = sum(not node.is_host_node for node in under_way)
    log.info("Dispatch %s goes on: %d electrons were under way or ready", dispatch_id, electrons)
    return Resumed(dispatch_id, electrons)


def families(dispatches: Iterable[Dispatch]) -> dict[str, list[Dispatch]]:
    """Dispatches by their root, since a lattice and its sublattices are resumed together."""
    found: dict[str, list[Dispatch]] = {}
    for dispatch in dispatches:
        found.setdefault(dispatch.root_id, []).append(dispatch)
    return found
