"""What the Covalent UI and API show of an electron's job: lines of its panel, and how long its logs are by now.

Plain SQL in tiny transactions, as `covalent_server/assets.py`, for the same version of Covalent. What is only shown is
best effort and never fails an electron.
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

_SELECT_EXECUTORS = """
SELECT e.id, e.transport_graph_node_id, e.executor_data
FROM lattices l
JOIN electrons e ON e.parent_lattice_id = l.id
WHERE l.dispatch_id = :dispatch_id AND e.transport_graph_node_id IN :nodes
"""


class PanelChange(NamedTuple):
    """What an electron's panel is to show of its job: the lines of `progress/panel.py`, all of them."""

    dispatch_id: str
    node_id: int
    lines: Mapping[str, str]


def write_panels(changes: Sequence[PanelChange], keys: Sequence[str]) -> None:
    """Put lines in front of the executor's attributes, which the UI shows of an electron. Best effort.

    Nothing but the UI's panel reads them: an executor is made from the same JSON, and ignores them (`from_dict`).

    Args:
        changes: The lines of each electron; they take the place of those before.
        keys: Names of all lines that there are, for removing those of before.
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
    # Of an executor that was given by its name alone Covalent keeps no attributes.
    executor = json.loads(data or "{}")
    attributes = {name: value for name, value in executor.get("attributes", {}).items() if name not in keys}
    return json.dumps({**executor, "attributes": {**lines, **attributes}})


_ROUTES = "covalent_ui.api.v1.routes.end_points.electron_routes"

_SELECT_EXECUTOR = "SELECT executor_data FROM electrons WHERE id = :id"


def describe_jobs(keys: Sequence[str]) -> None:
    """Have the UI's API give the lines as an electron's description. Once for a process; best effort.

    The panel shows 200 characters of the executor's attributes and no more (its ``SyntaxHighlighter.js``), but all of
    the description, which Covalent 0.240 always leaves empty (``get_electron_details``).

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
    # The page runs lines together, so that something visible must stand between them.
    return " \u2022 ".join(
        f"{key.replace('_', ' ')}: {_breakable(attributes[key])}" for key in keys if attributes.get(key)
    )


def _breakable(text: str) -> str:
    """A text whose long words in capitals (AWS's reasons) may be broken where the panel is too narrow for them."""
    return re.sub("(?<=[A-Z][:_])(?=[A-Z])", "\u200b", text)


class LogFile(NamedTuple):
    """Covalent's file of an electron's stdout or stderr, and its row in ``assets``."""

    asset_id: int
    path: str


def log_files(dispatch_id: str, node_id: int) -> dict[str, LogFile]:
    """An electron's ``stdout`` and ``stderr``; empty where Covalent does not know it."""
    with engine().connect() as connection:
        rows = connection.execute(statement(_SELECT_LOGS), {"dispatch_id": dispatch_id, "node_id": node_id}).fetchall()
    return {key: LogFile(asset_id, os.path.join(base, object_key)) for key, asset_id, base, object_key in rows}


def write_sizes(sizes: Mapping[int, int]) -> None:
    """Tell Covalent how long files are by now, by their rows: clients fetch none that is empty. Best effort."""
    try:
        with engine().begin() as connection:
            connection.execute(
                statement("UPDATE assets SET size = :size, digest = NULL WHERE id = :id"),
                [{"id": asset_id, "size": size} for asset_id, size in sizes.items()],
            )
    except Exception as error:  # cosmetic
        log.warning("Clients will not see how far %d logs have grown: %s", len(sizes), error)
