"""What the Covalent UI and API show of an electron's job: the lines of its panel, and the sizes of its logs.

Written for Covalent 0.240, as `covalent_server/assets.py`, with plain SQL in small transactions. What is only shown
never fails an electron.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.covalent_server.assets import engine, statement

log = logging.getLogger(__name__)

_SELECT_LOGS = """
SELECT ea.key, a.id, a.storage_path, a.object_key
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
JOIN electron_assets ea ON ea.meta_id = e.id
JOIN assets a ON a.id = ea.asset_id
WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id = :node_id AND ea.key IN ('stdout', 'stderr')
"""

_SELECT_LATTICE = "SELECT name FROM lattices WHERE dispatch_id = :dispatch_id"

_SELECT_EXECUTORS = """
SELECT e.id, e.transport_graph_node_id, e.executor_data
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id IN :nodes
"""


class PanelChange(NamedTuple):
    """New lines of an electron's panel.

    Attributes:
        dispatch_id: The dispatch.
        node_id: The node.
        lines: All lines of `jobs/panel.py`, by name.
    """

    dispatch_id: str
    node_id: int
    lines: Mapping[str, str]


def write_panels(changes: Sequence[PanelChange], keys: Sequence[str]) -> None:
    """Write lines before the attributes of the executor, which the UI shows of an electron. Never raises.

    Executors are made from the same JSON, and ignore the lines (`CirroBatchExecutor.from_dict`).

    Args:
        changes: The lines of each electron.
        keys: Names of all lines that there can be; lines of these names that are there already are removed.
    """
    by_dispatch: dict[str, dict[int, Mapping[str, str]]] = {}
    for change in changes:
        by_dispatch.setdefault(change.dispatch_id, {})[change.node_id] = change.lines
    try:
        with engine().begin() as connection:
            for dispatch_id, lines in by_dispatch.items():
                rows = connection.execute(
                    statement(_SELECT_EXECUTORS, "nodes"), {"dispatch_id": dispatch_id, "nodes": sorted(lines)}
                ).fetchall()
                values = [
                    {"id": electron_id, "data": _with_lines(data, lines[node_id], keys)}
                    for electron_id, node_id, data in rows
                ]
                if values:
                    connection.execute(statement("UPDATE electrons SET executor_data = :data WHERE id = :id"), values)
    except Exception as error:  # cosmetic
        log.warning("Could not show the jobs of %d electrons: %s", len(changes), error)


def _with_lines(data: str, lines: Mapping[str, str], keys: Sequence[str]) -> str:
    # Covalent stores no attributes of an executor that was given by its name alone.
    executor = json.loads(data or "{}")
    attributes = {name: value for name, value in executor.get("attributes", {}).items() if name not in keys}
    return json.dumps({**executor, "attributes": {**lines, **attributes}})


_ROUTES = "covalent_ui.api.v1.routes.end_points.electron_routes"

_SELECT_EXECUTOR = "SELECT executor_data FROM electrons WHERE id = :id"


def describe_jobs(keys: Sequence[str]) -> None:
    """Make the API of the UI return the lines as the description of an electron. Can be called again; never raises.

    The panel shows 200 characters of the executor's attributes (``SyntaxHighlighter.js``), but the whole description,
    which Covalent 0.240 always leaves empty (``get_electron_details``).

    Args:
        keys: Names of the lines, in their order.
    """
    routes: Any = sys.modules.get(_ROUTES)  # only a server has it
    if routes is None or getattr(routes.ElectronResponse, "describes_jobs", False):
        return
    made = routes.ElectronResponse

    def with_job(**fields: Any) -> Any:
        try:
            fields["description"] = fields.get("description") or _description(fields["id"], keys)
        except Exception as error:  # cosmetic
            log.warning("The panel of electron %s does not show its job: %s", fields.get("id"), error)
        return made(**fields)

    with_job.describes_jobs = True  # type: ignore[attr-defined]
    routes.ElectronResponse = with_job


def _description(electron_id: int, keys: Sequence[str]) -> str:
    with engine().connect() as connection:
        row = connection.execute(statement(_SELECT_EXECUTOR), {"id": electron_id}).fetchone()
    attributes = json.loads(row[0]).get("attributes") or {} if row is not None else {}
    # The page shows line breaks as spaces: a visible character has to separate the lines.
    return " \u2022 ".join(
        f"{key.replace('_', ' ')}: {_breakable(attributes[key])}" for key in keys if attributes.get(key)
    )


def _breakable(text: str) -> str:
    """A text in which long words in capitals (AWS's reasons) can be broken, since the panel is narrow."""
    return re.sub("(?<=[A-Z][:_])(?=[A-Z])", "\u200b", text)


class LogFile(NamedTuple):
    """Covalent's file of the stdout or stderr of an electron.

    Attributes:
        asset_id: Id of the file's row in the table ``assets``.
        path: Path of the file.
    """

    asset_id: int
    path: str


def lattice_of(dispatch_id: str) -> str:
    """Name of the lattice of a dispatch; empty where Covalent does not know the dispatch."""
    with engine().connect() as connection:
        row = connection.execute(statement(_SELECT_LATTICE), {"dispatch_id": dispatch_id}).fetchone()
    return "" if row is None else row[0] or ""


def log_files(dispatch_id: str, node_id: int) -> dict[str, LogFile]:
    """The files ``stdout`` and ``stderr`` of an electron; empty where Covalent does not know the electron."""
    with engine().connect() as connection:
        rows = connection.execute(statement(_SELECT_LOGS), {"dispatch_id": dispatch_id, "node_id": node_id}).fetchall()
    return {key: LogFile(asset_id, os.path.join(base, object_key)) for key, asset_id, base, object_key in rows}


def write_sizes(sizes: Mapping[int, int]) -> None:
    """Store sizes of files, by `LogFile.asset_id`, since clients fetch no file of size 0. Never raises."""
    try:
        with engine().begin() as connection:
            connection.execute(
                statement("UPDATE assets SET size = :size, digest = NULL WHERE id = :id"),
                [{"id": asset_id, "size": size} for asset_id, size in sizes.items()],
            )
    except Exception as error:  # cosmetic
        log.warning("Clients will not see how far %d logs have grown: %s", len(sizes), error)
