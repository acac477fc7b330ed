"""The only room that knows where the Covalent server keeps a node's files, and that touches its database.

Written for Covalent 0.240 (`check_version`). Everything is read with one join and written in tiny transactions, with
plain SQL: the server's one database thread is its bottleneck, and a write lock held for long fails other electrons.
What is cosmetic (status, the UI's paths) is best effort and never fails an electron.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
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
"""Names of Covalent's own nodes begin so: ``:postprocess:``, ``:electron_list:``, ``:sublattice:``, ``:parameter:``."""

_OPERATION = re.compile(r"_(?:\+|-|\*\*?|/)_")
"""In the name of what Covalent makes of ``a + b``: both operands' names, or values, and the operator between them
(``_workflow/electron.py``, ``get_op_function``). No function that is written with ``def`` has such a name."""

_OPERATION_DOC = "Intermediate function for the binary operation."
"""How its docstring begins, by which it is told from an electron whose name was made up."""

_OUTPUTS = ("output", "stdout", "stderr", "error")
_KEYS = ("function", "hooks", *_OUTPUTS)

_FILE_NAMES = {"output": "results.tobj", "stdout": "stdout.log", "stderr": "stderr.log", "error": "error.log"}
"""Covalent's own names (``_shared_files/schemas/electron.py``)."""

_SELECT = """
SELECT e.id, e.transport_graph_node_id, e.name, ea.key, a.id, a.storage_path, a.object_key,
       e.storage_path, l.name, l.python_version, l.covalent_version
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
JOIN electron_assets ea ON ea.meta_id = e.id
JOIN assets a ON a.id = ea.asset_id
WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id IN :nodes AND ea.key IN :keys
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
        electron_id: Its row in ``electrons``.
        node_id: Its number in the dispatch.
        name: Its name; Covalent's own begin with `HOST_NODE_PREFIX`.
        paths: The file of each asset: ``function``, ``hooks``, ``output``, ``stdout``, ``stderr``, ``error``.
    """

    electron_id: int
    node_id: int
    name: str
    paths: dict[str, str]

    @property
    def is_host_node(self) -> bool:
        """Whether Covalent made it for itself: it is done on the server's host, if that is possible."""
        named = is_covalents_own(self.name)
        return named and (self.name.startswith(HOST_NODE_PREFIX) or _is_operation(self.paths["function"]))


def _is_operation(path: str) -> bool:
    """Whether the function in a file is Covalent's, of an operation on electrons: its header tells."""
    with local_files.told(path), open(path, "rb") as file:
        attributes = tobj.read_header(file).fields.get("attrs")
    doc = attributes.get("doc") if isinstance(attributes, dict) else None
    return isinstance(doc, str) and doc.strip().startswith(_OPERATION_DOC)


class Group(NamedTuple):
    """What `load_group` found.

    Attributes:
        nodes: The nodes to run, by number.
        inputs: The output file of each node that is an input, by number.
        lattice: The lattice's name.
        python: The client's Python.
        covalent: The client's Covalent.
    """

    nodes: dict[int, Node]
    inputs: dict[int, str]
    lattice: str
    python: str
    covalent: str


def is_covalents_own(name: str) -> bool:
    """Whether a node of this name is none that a user wrote: a list, an index, an operator, a sublattice..."""
    return name.startswith(HOST_NODE_PREFIX) or _OPERATION.search(name) is not None


def check_version() -> str:
    """The server's version of Covalent.

    Raises:
        HostError: Not the one that this module was written for.
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
    # Only the server has this package's database; clients and containers never come here.
    from covalent_dispatcher._db.datastore import workflow_db

    return workflow_db.engine


def statement(sql: str, *lists: str) -> Any:
    """A statement; parameters named in ``lists`` stand for several values."""
    from sqlalchemy import bindparam, text

    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))


def load_group(dispatch_id: str, node_ids: Sequence[int], input_ids: Iterable[int]) -> Group:
    """Find the files of a task group and of its inputs, with one query.

    Outputs of the group that lie in another dispatch's folder (redispatch) are moved into the group's own first. Once
    for each dispatch, its nodes that are Covalent's own are taken over, and the paths that the UI reads are mended.

    Raises:
        HostError: A node or a file that must be there is not in the database.
        LocalFileError: The server's disk is so full that Covalent could not write how the group gets on.
    """
    check_version()
    database = engine().url.database
    if database and engine().dialect.name == "sqlite":
        local_files.require_room(database)
    inputs = set(input_ids) - set(node_ids)
    rows = _select(dispatch_id, {*node_ids, *inputs})
    foreign = [row for row in rows if row[1] in node_ids and row[3] in _OUTPUTS and not _is_own(dispatch_id, row)]
    if foreign:
        _own_outputs(dispatch_id, foreign)
        rows = _select(dispatch_id, {*node_ids, *inputs})
    nodes: dict[int, Node] = {}
    lattice = python = covalent = ""
    if any(row[5] == row[7] for row in rows):
        _mend_paths(dispatch_id)
    try:
        _take_over(dispatch_id)
    except Exception as error:  # they fail or succeed as with any other plugin
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
    )


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
    """Point the nodes' outputs into their own dispatch's folder.

    A redispatch copies the rows of the old dispatch's assets: written there, a result would overwrite the old one's,
    and an old error text would stay on a node that succeeded.
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
    """Have us run the nodes of a dispatch that are Covalent's own, and those of the dispatches that it is a part of.

    With ``@ct.lattice`` alone they are for Covalent's executors ``dask`` and ``local``, whose processes have all that
    the server has, its credentials too, but not the modules of the jobs: they unpickle each result that they meet. Once
    for each dispatch; again does no harm.
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
    """Give nodes an executor of ours with these options, which Covalent makes it with from now on."""
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


def _mend_paths(dispatch_id: str) -> None:
    """Tell the UI where the files of a dispatch's electrons are.

    Covalent 0.240 stores the data folder itself in ``electrons.storage_path`` and joins it with bare file names
    (``_dal/importers/electron.py``): source, result and error of every electron stay blank in the UI. Only the UI reads
    that column. Best effort.
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
    """What the UI and clients are to be told of a node while its job is under way."""

    dispatch_id: str
    node_id: int
    status: str
    started_at: float | None = None


def write_statuses(changes: Sequence[StatusChange]) -> None:
    """Show ``STARTING`` or ``RUNNING`` for nodes that have not ended, in one transaction. Best effort.

    Covalent shows RUNNING from the moment that `send` returns, while the job may wait for a machine for hours. Of the
    other words only STARTING is safe: a status outside Covalent's ``StatusEnum`` makes its API answer 500.
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
                    # Covalent keeps naive UTC.
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
    """Have open UI pages of these dispatches read the new statuses. Best effort; runs on the server's loop."""
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
    """Keep a job's handle where `set_job_handle` would, when Covalent's own way did not answer in its 5 s."""
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
    """The handle that was kept for a node's job, as `send` left it; `None` if none was."""
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
