"""Dispatches in the Covalent server's database, and Covalent's functions that run, cancel and end them.

Written for Covalent 0.240, as `covalent_server/assets.py`. Runs in the process of the server, on its event loop.
Decides nothing, and knows nothing of AWS.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from covalent_cirro.covalent_server.assets import engine, is_covalents_own, statement

UNFINISHED = ("STARTING", "RUNNING")
"""Statuses of a dispatch that was started and has not ended. A NEW_OBJECT was registered and never started."""

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""Final statuses of nodes and dispatches (``TERMINAL_STATUSES``)."""

POSTPROCESS_PREFIX = ":postprocess:"

_SELECT_DISPATCHES = """
SELECT dispatch_id, root_dispatch_id, status FROM lattices WHERE status IN :statuses ORDER BY id
"""

_SELECT_NODES = """
SELECT e.transport_graph_node_id, e.task_group_id, e.name, e.status, e.executor, e.executor_data,
       j.cancel_requested, j.job_handle, s.dispatch_id, s.status
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
JOIN jobs j ON j.id = e.job_id
LEFT JOIN lattices s ON s.electron_id = e.id
WHERE l.dispatch_id = :dispatch_id
ORDER BY e.transport_graph_node_id, s.id
"""

_SELECT_EDGES = """
SELECT p.transport_graph_node_id, c.transport_graph_node_id
FROM lattices l
JOIN electrons c ON c.parent_lattice_id = l.id
JOIN electron_dependency d ON d.electron_id = c.id
JOIN electrons p ON p.id = d.parent_electron_id
WHERE l.dispatch_id = :dispatch_id
"""


class Dispatch(NamedTuple):
    """A dispatch.

    Attributes:
        dispatch_id: Dispatch id.
        root_id: Id of the outermost dispatch whose sublattice it is; its own id where it is no sublattice.
        status: Covalent's status.
    """

    dispatch_id: str
    root_id: str
    status: str


class RunNode(NamedTuple):
    """A node as the database has it.

    Attributes:
        node_id: Number of the node in its dispatch.
        group_id: Number of the task group.
        name: Name of the node; see `assets.is_covalents_own`.
        status: Covalent's status.
        executor: Short name of the executor.
        options: Options of the executor.
        cancel_requested: A cancel of the node was requested.
        has_handle: A job handle is stored.
        sublattice_id: Id of the dispatch that runs for a sublattice; `None` for another node.
        sublattice_status: Status of that dispatch.
    """

    node_id: int
    group_id: int
    name: str
    status: str
    executor: str
    options: Mapping[str, Any]
    cancel_requested: bool
    has_handle: bool
    sublattice_id: str | None = None
    sublattice_status: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED

    @property
    def is_host_node(self) -> bool:
        """Whether it is one of Covalent's own nodes, which can run again: they have no effect but their result."""
        return is_covalents_own(self.name)


class Graph(NamedTuple):
    """The graph of a dispatch.

    Attributes:
        nodes: The nodes, by number.
        edges: ``(parent, child)`` for each argument.
    """

    nodes: dict[int, RunNode]
    edges: list[tuple[int, int]]


def unfinished() -> list[Dispatch]:
    """Dispatches that were started and have not ended, oldest first."""
    with engine().connect() as connection:
        rows = connection.execute(statement(_SELECT_DISPATCHES, "statuses"), {"statuses": list(UNFINISHED)}).fetchall()
    return [Dispatch(dispatch_id, root_id or dispatch_id, status) for dispatch_id, root_id, status in rows]


def read(dispatch_id: str) -> Graph:
    """Read the graph of a dispatch."""
    with engine().connect() as connection:
        rows = connection.execute(statement(_SELECT_NODES), {"dispatch_id": dispatch_id}).fetchall()
        edges = connection.execute(statement(_SELECT_EDGES), {"dispatch_id": dispatch_id}).fetchall()
    nodes = {
        node_id: RunNode(
            node_id,
            group_id,
            name,
            status,
            executor or "",
            _options(data),
            bool(cancelled),
            handle not in (None, "", "null"),
            sublattice_id,
            sublattice_status,
        )
        for node_id, group_id, name, status, executor, data, cancelled, handle, sublattice_id, sublattice_status in rows
    }
    return Graph(nodes, [(parent, child) for parent, child in edges])


def _options(executor_data: object) -> Mapping[str, Any]:
    try:
        data = json.loads(executor_data) if isinstance(executor_data, str) else executor_data
    except ValueError:
        return {}
    attributes = data.get("attributes") if isinstance(data, dict) else None
    return attributes if isinstance(attributes, dict) else {}


async def reset_counters(
    dispatch_id: str, pending: Mapping[int, int], order: Mapping[int, Sequence[int]], unresolved: int
) -> None:
    """Set the numbers that Covalent counts down while a dispatch runs.

    Covalent keeps them in a database of their own, which mostly ends with the server, and writes them after the
    statuses of the nodes: after a crash they may be missing or too high.

    Args:
        dispatch_id: The dispatch.
        pending: Number of inputs that each task group still waits for.
        order: The nodes of each task group, in the order in which they run.
        unresolved: Number of nodes that are under way.
    """
    from covalent_dispatcher._core.dispatcher_modules.caches import _task_group_cache, _workflow_run_cache

    await _workflow_run_cache.remove(dispatch_id)
    for group_id, nodes in order.items():
        await _task_group_cache.remove(dispatch_id, group_id)
        await _task_group_cache.set(dispatch_id, group_id, pending[group_id], list(nodes))
    await _workflow_run_cache.set_unresolved(dispatch_id, unresolved)


async def order(dispatch_id: str) -> dict[int, list[int]]:
    """The nodes of each task group, in the order in which they run."""
    from covalent_dispatcher._core import dispatcher

    _, _, groups = await dispatcher._get_initial_tasks_and_deps(dispatch_id)
    return {int(group_id): list(nodes) for group_id, nodes in groups.items()}


async def mark_running(dispatch_id: str) -> None:
    """Store the status RUNNING of a dispatch."""
    from covalent._shared_files.util_classes import RESULT_STATUS
    from covalent_dispatcher._core import data_manager

    began = data_manager.generate_dispatch_result(
        dispatch_id, start_time=datetime.now(timezone.utc), status=RESULT_STATUS.RUNNING
    )
    await data_manager.dispatch.update(dispatch_id, began)


async def submit_group(dispatch_id: str, nodes: Sequence[int], group_id: int) -> None:
    """Have Covalent run a task group whose inputs are there, as it does when the last input arrives."""
    from covalent_dispatcher._core import dispatcher

    await dispatcher._submit_task_group(dispatch_id, list(nodes), group_id)


async def start_sublattice(dispatch_id: str, node: RunNode) -> None:
    """Have Covalent start the dispatch of a sublattice whose graph is built."""
    from covalent_dispatcher._core import data_manager, dispatcher

    sublattice_id = node.sublattice_id
    if sublattice_id is None:
        sublattice_id = await data_manager._make_sublattice_dispatch(dispatch_id, {"node_id": node.node_id})
    dispatcher.run_dispatch(sublattice_id)


async def report_sublattice(sublattice_id: str) -> None:
    """Have Covalent store the end of a sublattice's dispatch in the node of the sublattice."""
    from covalent_dispatcher._core import data_manager

    await data_manager.persist_result(sublattice_id)


async def finish(dispatch_id: str) -> None:
    """Have Covalent end a dispatch in which nothing is left to run, because nodes failed or were cancelled."""
    from covalent_dispatcher._core import data_manager, dispatcher

    await dispatcher._finalize_dispatch(dispatch_id)
    await data_manager.persist_result(dispatch_id)


def reopen(dispatch_id: str, node_ids: Sequence[int]) -> None:
    """Store RUNNING again as the status of nodes: of a postprocessing after which the server ended at once."""
    with engine().begin() as connection:
        for node_id in node_ids:
            connection.execute(
                statement(
                    "UPDATE electrons SET status = 'RUNNING' WHERE transport_graph_node_id = :node_id "
                    "AND parent_lattice_id = (SELECT id FROM lattices WHERE dispatch_id = :dispatch_id)"
                ),
                {"node_id": node_id, "dispatch_id": dispatch_id},
            )
        connection.execute(
            statement(
                "UPDATE lattices SET completed_electron_num = completed_electron_num - :count "
                "WHERE dispatch_id = :dispatch_id"
            ),
            {"count": len(node_ids), "dispatch_id": dispatch_id},
        )


async def cancel(dispatch_id: str, node_ids: Sequence[int]) -> None:
    """Have Covalent cancel nodes, or without nodes the whole dispatch. Waits until every executor has answered."""
    from covalent_dispatcher._core.runner_modules import cancel as runner_cancel

    await cancel_soon(dispatch_id, node_ids)
    pending = list(runner_cancel._background_tasks)
    if pending:
        await asyncio.gather(*pending, return_exceptions=True)


async def cancel_soon(dispatch_id: str, node_ids: Sequence[int]) -> None:
    """Have Covalent cancel nodes, or without nodes the whole dispatch. Does not wait for the executors."""
    from covalent_dispatcher._core import dispatcher

    await dispatcher.cancel_dispatch(dispatch_id, list(node_ids))
