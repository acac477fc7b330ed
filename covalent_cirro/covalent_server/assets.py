"""Nodes of a dispatch in the Covalent server's database: their files, their status, their job handles.

Written for Covalent 0.240 (`check_version`). A task group is read with one join, and changes are written in small
transactions, with plain SQL: the server has one thread for its database, and a write lock that is held for long fails
other electrons. What is only shown (the status, the UI's paths) never fails an electron.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, NamedTuple

from covalent_cirro import local_files
from covalent_cirro.contract import tobj
from covalent_cirro.errors import HostError

log = logging.getLogger(__name__)

WRITTEN_FOR = "0.240."
"""Covalent's database and modules change without notice between versions; setup.cfg pins this one."""

OURS = "cirro"
"""Short name of `CirroBatchExecutor`."""

HOST_NODE_PREFIX = ":"
"""First character of most names of Covalent's own nodes: ``:postprocess:``, ``:electron_list:``, ``:sublattice:``."""

PARAMETER_PREFIX = ":parameter:"
"""Beginning of the name of a node that is a value, which the lattice was called with or has in its code."""

_SUBLATTICE_PREFIX = ":sublattice:"

_OPERATION = re.compile(r"_(?:\+|-|\*\*?|/)_")
"""Part of the name of a node that Covalent makes for ``a + b``: the operator, between the names or values of both
operands (``_workflow/electron.py``, ``get_op_function``). A function that is defined with ``def`` has no such name."""

_OPERATION_DOC = "Intermediate function for the binary operation."
"""First words of the docstring of Covalent's function for ``a + b``, which an electron with such a name lacks."""

_OUTPUTS = ("output", "stdout", "stderr", "error")
_KEYS = ("function", "hooks", *_OUTPUTS)

_FILE_NAMES = {"output": "results.tobj", "stdout": "stdout.log", "stderr": "stderr.log", "error": "error.log"}
"""Covalent's names of the files (``_shared_files/schemas/electron.py``)."""

_SELECT = """
SELECT e.id, e.transport_graph_node_id, e.name, ea.key, a.id, a.storage_path, a.object_key,
       e.storage_path, l.name, l.python_version, l.covalent_version
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
JOIN electron_assets ea ON ea.meta_id = e.id
JOIN assets a ON a.id = ea.asset_id
WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id IN :nodes AND ea.key IN :keys
"""

_SELECT_PARAMETERS = """
SELECT e.transport_graph_node_id, d.edge_name, p.transport_graph_node_id, p.name, d.arg_index
FROM electron_dependency d
JOIN electrons e ON e.id = d.electron_id
JOIN electrons p ON p.id = d.parent_electron_id
WHERE d.electron_id IN :electrons AND d.parameter_type IN ('arg', 'kwarg')
ORDER BY d.parameter_type, d.arg_index, d.id
"""

_SELECT_STOCK_NODES = """
SELECT e.id, e.name
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
WHERE l.dispatch_id = :dispatch_id AND e.executor IN ('dask', 'local') AND e.status = 'NEW_OBJECT'
  AND e.name NOT LIKE ':parameter:%'
"""

_SELECT_PARENT = """
SELECT p.dispatch_id
FROM lattices l
JOIN electrons e ON e.id = l.electron_id
JOIN lattices p ON p.id = e.parent_lattice_id
WHERE l.dispatch_id = :dispatch_id
"""

_SELECT_INPUTS = """
SELECT DISTINCT ea.key, a.storage_path, a.object_key
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
JOIN electron_assets ea ON ea.meta_id = e.id
JOIN assets a ON a.id = ea.asset_id
WHERE l.dispatch_id = :dispatch_id
  AND (ea.key IN ('function', 'hooks') OR (ea.key = 'output' AND e.name LIKE ':parameter:%'))
"""

_SELECT_FOLDERS = """
SELECT e.id, a.storage_path, a.object_key
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
JOIN electron_assets ea ON ea.meta_id = e.id
JOIN assets a ON a.id = ea.asset_id
WHERE l.dispatch_id = :dispatch_id AND ea.key = 'output'
"""


class Node(NamedTuple):
    """One node of a dispatch.

    Attributes:
        electron_id: Id of the node's row in the table ``electrons``.
        node_id: Number of the node in its dispatch.
        name: Name of the node; see `is_covalents_own`.
        paths: Path of the file of each asset: ``function``, ``hooks``, ``output``, ``stdout``, ``stderr``, ``error``.
    """

    electron_id: int
    node_id: int
    name: str
    paths: dict[str, str]

    @property
    def is_host_node(self) -> bool:
        """Whether it is one of Covalent's own nodes, which run on the server's host where that is possible."""
        named = is_covalents_own(self.name)
        return named and (self.name.startswith(HOST_NODE_PREFIX) or _is_operation(self.paths["function"]))


class InputParameter(NamedTuple):
    """A parameter of an electron, and the node whose output is its argument.

    Attributes:
        name: Name of the parameter.
        node_id: Number of the node.
        node_name: Name of the node, as in `Node`; see `electron_name`.
    """

    name: str
    node_id: int
    node_name: str

    @property
    def electron_name(self) -> str:
        """Name of the electron or sublattice whose output it is; empty for a value, and for another node."""
        if self.node_name.startswith(_SUBLATTICE_PREFIX):
            return self.node_name.removeprefix(_SUBLATTICE_PREFIX)
        return "" if is_covalents_own(self.node_name) else self.node_name


def _is_operation(path: str) -> bool:
    """Whether the function in a file is Covalent's function for ``a + b``, by the docstring in the file's header."""
    with local_files.errors_about(path), open(path, "rb") as file:
        attributes = tobj.read_header(file).fields.get("attrs")
    doc = attributes.get("doc") if isinstance(attributes, dict) else None
    return isinstance(doc, str) and doc.strip().startswith(_OPERATION_DOC)


class Group(NamedTuple):
    """A task group with the files of its nodes and of their inputs.

    Attributes:
        nodes: The nodes to run, by number.
        inputs: Path of the output of each node that is an input, by number.
        lattice: Name of the lattice.
        python: Version of Python on the client.
        covalent: Version of Covalent on the client.
        parameters: Parameters of each node, by number; nothing for nodes whose parameters are not known.
    """

    nodes: dict[int, Node]
    inputs: dict[int, str]
    lattice: str
    python: str
    covalent: str
    parameters: Mapping[int, Sequence[InputParameter]] = MappingProxyType({})


def is_covalents_own(name: str) -> bool:
    """Whether Covalent itself makes nodes with such a name: lists, dicts, indexes, operators, sublattices and so on."""
    return name.startswith(HOST_NODE_PREFIX) or _OPERATION.search(name) is not None


def check_version() -> str:
    """The version of Covalent in this process.

    Raises:
        HostError: It is not the version that this module was written for.
    """
    import covalent

    version = str(covalent.__version__)
    if not version.startswith(WRITTEN_FOR):
        raise HostError(
            f"This covalent-cirro was written for Covalent {WRITTEN_FOR}x; the server runs {version}, whose database "
            "it does not know. Install covalent==0.240.0 on the server, or a covalent-cirro for that version."
        )
    return version


def engine() -> Any:
    """The server's connections to its database (SQLAlchemy 1.4)."""
    # Imported here, since only the server has this database: clients and containers never call this function.
    from covalent_dispatcher._db.datastore import workflow_db

    return workflow_db.engine


def statement(sql: str, *lists: str) -> Any:
    """An SQL statement; each parameter that ``lists`` names is a list of values."""
    from sqlalchemy import bindparam, text

    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))


def load_group(dispatch_id: str, node_ids: Sequence[int], input_ids: Iterable[int]) -> Group:
    """Find the files of a task group and of its inputs, with one query, and the parameters with another.

    Outputs that point into the folder of another dispatch (redispatch) are pointed into the group's own folder first.
    Once for each dispatch, Covalent's own nodes get our executor, and the paths that the UI reads are corrected.

    Args:
        dispatch_id: The dispatch.
        node_ids: The nodes of the task group.
        input_ids: Nodes whose outputs are arguments of these; nodes of the group among them are left out.

    Raises:
        HostError: A node is not in the database, or the version of Covalent is another one.
        LocalFileError: The server's disk is so full that Covalent could not write the status of the nodes.
    """
    check_version()
    database = engine().url.database
    if database and engine().dialect.name == "sqlite":
        local_files.require_room(database)
    given = set(input_ids)
    inputs = given - set(node_ids)
    rows = _select(dispatch_id, {*node_ids, *inputs})
    foreign = [row for row in rows if row[1] in node_ids and row[3] in _OUTPUTS and not _is_own(dispatch_id, row)]
    if foreign:
        _own_outputs(dispatch_id, foreign)
        rows = _select(dispatch_id, {*node_ids, *inputs})
    nodes: dict[int, Node] = {}
    lattice = python = covalent = ""
    if any(row[5] == row[7] for row in rows):
        _correct_paths(dispatch_id)
    try:
        _take_over(dispatch_id)
    except Exception as error:  # then the nodes run as they do with any other plugin
        log.warning("Covalent's own nodes of dispatch %s stay with its own executors: %s", dispatch_id, error)
    for electron_id, node_id, name, key, _, storage_path, object_key, _, *of_lattice in rows:
        node = nodes.setdefault(node_id, Node(electron_id, node_id, name, {}))
        node.paths[key] = os.path.join(storage_path, object_key)
        lattice, python, covalent = (text or "" for text in of_lattice)
    missing = sorted({*node_ids, *inputs} - nodes.keys())
    if missing:
        raise HostError(f"Covalent's database has no node {', '.join(map(str, missing))} of dispatch {dispatch_id}.")
    return Group(
        nodes={node_id: nodes[node_id] for node_id in node_ids},
        inputs={node_id: nodes[node_id].paths["output"] for node_id in inputs},
        lattice=lattice,
        python=python,
        covalent=covalent,
        parameters=_parameters(
            nodes[node_id] for node_id in node_ids if given and not is_covalents_own(nodes[node_id].name)
        ),
    )


def _parameters(nodes: Iterable[Node]) -> dict[int, list[InputParameter]]:
    """The parameters of nodes, by number. Never raises: they are only shown."""
    electrons = [node.electron_id for node in nodes]
    if not electrons:
        return {}
    try:
        with engine().connect() as connection:
            rows = connection.execute(statement(_SELECT_PARAMETERS, "electrons"), {"electrons": electrons}).fetchall()
    except Exception as error:
        log.warning("It will not be shown what electrons were called with: %s", error)
        return {}
    found: dict[int, list[InputParameter]] = {}
    for node_id, *parameter in rows:
        found.setdefault(node_id, []).append(InputParameter(*parameter[:3]))
    return found


def _select(dispatch_id: str, node_ids: Iterable[int]) -> list[Any]:
    with engine().connect() as connection:
        rows: list[Any] = connection.execute(
            statement(_SELECT, "nodes", "keys"),
            {"dispatch_id": dispatch_id, "nodes": sorted(node_ids), "keys": list(_KEYS)},
        ).fetchall()
    return rows


def _is_own(dispatch_id: str, row: Any) -> bool:
    return str(row[6]).startswith(f"{dispatch_id}/")


def _own_outputs(dispatch_id: str, rows: Iterable[Any]) -> None:
    """Point outputs of nodes into the folder of their own dispatch.

    A redispatch copies the rows of the old dispatch's assets. A result that is written to those paths would overwrite
    the old result, and the old error would stay on a node that succeeded.
    """
    with engine().begin() as connection:
        for electron_id, node_id, _, key, asset_id, storage_path, _, *_ in rows:
            folder = f"{dispatch_id}/node_{node_id}"
            os.makedirs(os.path.join(storage_path, folder), exist_ok=True)
            connection.execute(
                statement(
                    "UPDATE assets SET object_key = :object_key, size = 0, digest = NULL, remote_uri = '' "
                    "WHERE id = :id"
                ),
                {"object_key": f"{folder}/{_FILE_NAMES[key]}", "id": asset_id},
            )
            connection.execute(
                statement("UPDATE electrons SET storage_path = :path WHERE id = :id"),
                {"path": os.path.join(storage_path, folder), "id": electron_id},
            )


@functools.lru_cache(maxsize=10_000)
def _take_over(dispatch_id: str) -> None:
    """Give our executor to Covalent's own nodes of a dispatch, and of the dispatches whose sublattice it is.

    With ``@ct.lattice`` alone these nodes have Covalent's executors ``dask`` or ``local``, which unpickle each result
    that they get, in processes that have the server's credentials and lack the modules of the jobs. Done once for each
    dispatch; doing it again does no harm.
    """
    with engine().begin() as connection:
        above: str | None = dispatch_id
        while above is not None:
            rows = connection.execute(statement(_SELECT_STOCK_NODES), {"dispatch_id": above}).fetchall()
            own = [{"id": pk, "ours": OURS} for pk, name in rows if is_covalents_own(name)]
            if own:
                connection.execute(
                    statement("UPDATE electrons SET executor = :ours, executor_data = '{}' WHERE id = :id"), own
                )
            row = connection.execute(statement(_SELECT_PARENT), {"dispatch_id": above}).fetchone()
            above = row[0] if row is not None else None


def write_options(dispatch_id: str, node_ids: Sequence[int], options: Mapping[str, Any]) -> None:
    """Give nodes our executor with these options: Covalent makes their executor with them from now on."""
    data = json.dumps({"type": OURS, "short_name": OURS, "attributes": dict(options)})
    with engine().begin() as connection:
        connection.execute(
            statement(
                "UPDATE electrons SET executor = :ours, executor_data = :data WHERE transport_graph_node_id IN :nodes "
                "AND parent_lattice_id = (SELECT id FROM lattices WHERE dispatch_id = :dispatch_id)",
                "nodes",
            ),
            {"ours": OURS, "data": data, "nodes": list(node_ids), "dispatch_id": dispatch_id},
        )


def files_of_inputs(dispatch_id: str) -> list[tuple[str, str]]:
    """Files with functions, hooks and values of a dispatch and of the dispatches above it, as pairs of key and path."""
    found: list[tuple[str, str]] = []
    above: str | None = dispatch_id
    with engine().connect() as connection:
        while above is not None:
            rows = connection.execute(statement(_SELECT_INPUTS), {"dispatch_id": above}).fetchall()
            found += [(key, os.path.join(folder, name)) for key, folder, name in rows]
            row = connection.execute(statement(_SELECT_PARENT), {"dispatch_id": above}).fetchone()
            above = row[0] if row is not None else None
    return found


def _correct_paths(dispatch_id: str) -> None:
    """Write the folder of each electron of a dispatch into ``electrons.storage_path``, for the UI. Never raises.

    Covalent 0.240 stores the data folder in that column and joins it with bare file names
    (``_dal/importers/electron.py``): source, result and error of every electron stay blank in the UI, with any
    executor. Only the UI reads that column.
    """
    try:
        with engine().begin() as connection:
            rows = connection.execute(statement(_SELECT_FOLDERS), {"dispatch_id": dispatch_id}).fetchall()
            if rows:
                connection.execute(
                    statement("UPDATE electrons SET storage_path = :path WHERE id = :id"),
                    [{"path": os.path.dirname(os.path.join(base, key)), "id": pk} for pk, base, key in rows],
                )
    except Exception as error:  # cosmetic
        log.warning("The UI will not show files of dispatch %s: %s", dispatch_id, error)


class StatusChange(NamedTuple):
    """The status of a node that the UI and clients see while its job is under way.

    Attributes:
        dispatch_id: The dispatch.
        node_id: The node.
        status: ``"STARTING"`` or ``"RUNNING"``.
        started_at: When the job began to run, epoch seconds; `None` leaves what is stored.
    """

    dispatch_id: str
    node_id: int
    status: str
    started_at: float | None = None


def write_statuses(changes: Sequence[StatusChange]) -> None:
    """Store ``STARTING`` or ``RUNNING`` as the status of nodes that have not ended, in one transaction. Never raises.

    Covalent shows RUNNING as soon as `send` returns, while the job may wait for a machine for hours. STARTING is the
    only other status that can be stored: Covalent's API answers 500 to one that is not in its ``StatusEnum``.
    """
    if not changes:
        return
    try:
        with engine().begin() as connection:
            for change in changes:
                started = "" if change.started_at is None else ", started_at = :started_at"
                values: dict[str, Any] = {
                    "status": change.status,
                    "dispatch_id": change.dispatch_id,
                    "node_id": change.node_id,
                }
                if change.started_at is not None:
                    # Covalent stores UTC without a time zone.
                    when = datetime.fromtimestamp(change.started_at, timezone.utc).replace(tzinfo=None)
                    values["started_at"] = when
                connection.execute(
                    statement(
                        f"UPDATE electrons SET status = :status{started} "  # noqa: S608  (a constant of this function)
                        "WHERE transport_graph_node_id = :node_id AND status IN ('RUNNING', 'STARTING') "
                        "AND parent_lattice_id = (SELECT id FROM lattices WHERE dispatch_id = :dispatch_id)"
                    ),
                    values,
                )
    except Exception as error:  # cosmetic
        log.warning("Could not show the state of %d electrons: %s", len(changes), error)


async def redraw(dispatch_ids: Iterable[str]) -> None:
    """Have open UI pages of these dispatches read the statuses again. Never raises; runs on the server's loop."""
    try:
        from covalent_ui.api.main import sio

        for dispatch_id in dispatch_ids:
            await sio.emit(
                "result-update",
                {"event": "result-update", "result": {"dispatch_id": dispatch_id, "status": "RUNNING"}},
            )
    except Exception as error:  # cosmetic
        log.debug("Could not redraw %s: %s", dispatch_ids, error)


def write_handle(dispatch_id: str, node_id: int, handle: str) -> None:
    """Store a job handle where `set_job_handle` stores it, for a server that did not answer that within 5 s."""
    with engine().begin() as connection:
        connection.execute(
            statement(
                "UPDATE jobs SET job_handle = :handle WHERE id = (SELECT e.job_id FROM electrons e "
                "JOIN lattices l ON l.id = e.parent_lattice_id "
                "WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id = :node_id)"
            ),
            {"handle": handle, "dispatch_id": dispatch_id, "node_id": node_id},
        )


def read_handle(dispatch_id: str, node_id: int) -> Any:
    """The job handle that is stored for a node, as JSON; `None` where there is none."""
    with engine().connect() as connection:
        row = connection.execute(
            statement(
                "SELECT j.job_handle FROM jobs j JOIN electrons e ON e.job_id = j.id "
                "JOIN lattices l ON l.id = e.parent_lattice_id "
                "WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id = :node_id"
            ),
            {"dispatch_id": dispatch_id, "node_id": node_id},
        ).fetchone()
    try:
        return None if row is None else json.loads(row[0])
    except ValueError:
        return None
