"""Resumes unfinished dispatches when a Covalent server starts, and keeps or cancels jobs when it stops.

Covalent 0.240 has no hook for plugins at either time. `install` is called when the plugin is imported in the process of
a server; a thread waits until Covalent's event loop runs, and all else runs on that loop. Knows nothing of AWS.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from covalent._shared_files.config import get_config

from covalent_cirro.covalent_server import config_writes, database_locks, redispatches
from covalent_cirro.covalent_server import dispatches as covalent_runs
from covalent_cirro.covalent_server.assets import OURS
from covalent_cirro.covalent_server.dispatches import UNFINISHED, RunNode
from covalent_cirro.electron import cache_folder
from covalent_cirro.electron.resume import unfinished as dispatches
from covalent_cirro.settings import SECTION

log = logging.getLogger(__name__)

START_S = 600.0
"""Longest time from the import of this plugin to Covalent's event loop. A server without a dispatcher has none."""

LOOK_S = 0.05
END_LOOK_S = 0.2

STOP_S = 60.0
"""Longest time that a stopping server waits for the end of jobs that it cancels."""

LOCK_SUFFIX = ".cirro-server"
"""Suffix of the file beside the database that a server with this plugin locks while it runs."""

ANSWERS = "cirro-resume"
"""Folder in Covalent's cache folder into which a server writes its answers to `cirro resume`."""

REQUEST = "cirro_resume"
"""What `cirro resume` sends by Covalent's route for job updates, which reaches `CirroBatchExecutor.receive`:
``{"cirro_resume": <16 hexadecimal digits>}``. The digits are the name of the answer."""

TOKEN = re.compile(r"[0-9a-f]{16}")

_life: _Life | None = None


def install() -> None:
    """Resume unfinished dispatches in this process, which is a server's. Never raises, and can be called again.

    The server also waits for locks of its database from then on (`database_locks.py`), a full disk does not empty its
    config (`config_writes.py`), and maps of a redispatch learn what they may reuse (`redispatches.py`).

    Call it before the server answers requests: dispatches that are unfinished then are those of an earlier server.
    """
    global _life
    if _life is not None:
        return
    try:
        database_locks.wait_everywhere()
        config_writes.write_whole()
        _life = _Life()
        threading.Thread(target=_life.wait_for_loop, name="cirro-server-life", daemon=True).start()
    except Exception:
        log.exception("Unfinished dispatches of this server are not looked for")
    try:
        redispatches.install()
    except Exception:
        log.exception("Maps of redispatches will not reuse items")


def install_in_server() -> None:
    """`install`, if this process is a Covalent server: if its program is ``covalent_ui/app.py``. Never raises."""
    try:
        program = getattr(sys.modules.get("__main__"), "__file__", None)
        if program is None or os.path.basename(program) != "app.py":
            return
        ui = importlib.util.find_spec("covalent_ui")
        if ui is not None and ui.origin and os.path.samefile(os.path.dirname(ui.origin), os.path.dirname(program)):
            install()
    except Exception:
        log.exception("Unfinished dispatches of this server are not looked for")


async def answer(dispatch_id: str, request: Mapping[str, Any]) -> None:
    """Resume a dispatch for `cirro resume`, and write the answer to `answer_path`."""
    token = request.get(REQUEST)
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        log.warning("A request to resume dispatch %s was refused: its form is wrong", dispatch_id)
        return
    if _life is None:
        said = {"dispatch_id": dispatch_id, "state": "refused", "why": "this server did not look for it at its start"}
    else:
        said = await _life.resume_one(dispatch_id)
    await asyncio.to_thread(_write_answer, token, said)


def answer_path(token: str) -> Path:
    """Path of the file into which the server with this config writes an answer."""
    return Path(get_config("dispatcher.cache_dir")) / ANSWERS / f"{token}.json"


def _write_answer(token: str, said: Mapping[str, Any]) -> None:
    path = answer_path(token)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(said))
    new.replace(path)


class _Life:
    """One server process.

    Attributes:
        orphans: Ids of dispatches that were unfinished when the server started, and were not resumed yet.
        why: Why unfinished dispatches are not resumed, where another server works on them or may do so; else empty.
    """

    def __init__(self) -> None:
        self.orphans: set[str] = set()
        self.why = ""
        self._lock: IO[bytes] | None = None
        self._resuming = asyncio.Lock()
        database = _database()
        if database is None:
            self.why = "only a server whose database is an SQLite file can tell that no other one works on it"
            return
        self._lock = _locked(Path(f"{database}{LOCK_SUFFIX}"))
        if self._lock is None:
            self.why = f"another Covalent server works on {database}"
            return
        self.orphans = _unfinished(database)

    def wait_for_loop(self) -> None:
        """Remove temporary files of earlier servers, and call `begin` on Covalent's event loop as soon as it runs."""
        cache_folder.clear(_configured("cache_dir"))
        deadline = time.monotonic() + START_S
        watched = False
        while time.monotonic() < deadline:
            # Without a pause: a server whose port is taken starts and stops within milliseconds.
            watched = watched or _watch_stop(self)
            dispatcher = sys.modules.get("covalent_dispatcher._core.dispatcher")
            listener = getattr(dispatcher, "_global_event_listener", None)
            if watched and listener is not None:
                asyncio.run_coroutine_threadsafe(self.begin(), listener.get_loop())
                return
            time.sleep(LOOK_S)

    async def begin(self) -> None:
        """Resume unfinished dispatches, unless another server may work on them."""
        try:
            if self.why:
                log.warning("Unfinished dispatches are not resumed: %s", self.why)
            async with self._resuming:
                for root_id, family in dispatches.families(await self._orphans()).items():
                    await self._begin_family(root_id, family)
        except Exception as error:
            if isinstance(error, RuntimeError) and "shutdown" in str(error):
                log.info("The server ends, maybe for want of its port, before unfinished dispatches are resumed")
                return
            log.exception("Not all unfinished dispatches were resumed; `cirro resume` tries again")

    async def _begin_family(self, root_id: str, family: Sequence[covalent_runs.Dispatch]) -> None:
        for dispatch in family:
            graph = await asyncio.to_thread(covalent_runs.read, dispatch.dispatch_id)
            if not any(node.executor == OURS for node in graph.nodes.values()):
                return  # a dispatch without our executor
            foreign = dispatches.foreign(graph)
            if foreign:
                log.warning(
                    "Dispatch %s is not resumed by itself: %s would run again. Do it with `cirro resume %s`",
                    root_id,
                    _named(foreign),
                    root_id,
                )
                return
        await self._resume(family)

    async def _orphans(self) -> list[covalent_runs.Dispatch]:
        return [each for each in await asyncio.to_thread(covalent_runs.unfinished) if each.dispatch_id in self.orphans]

    async def _resume(self, family: Sequence[covalent_runs.Dispatch]) -> list[dispatches.Resumed]:
        # Removed first: a dispatch must not be resumed twice, also if this fails.
        self.orphans -= {dispatch.dispatch_id for dispatch in family}
        return await dispatches.resume(family)

    async def resume_one(self, dispatch_id: str) -> dict[str, Any]:
        """Resume one dispatch for a user; returns the answer."""
        said: dict[str, Any] = {"dispatch_id": dispatch_id, "state": "under way", "electrons": 0, "why": ""}
        if self.why:
            return {**said, "state": "refused", "why": self.why}
        try:
            async with self._resuming:
                family = next(
                    (
                        family
                        for family in dispatches.families(await self._orphans()).values()
                        if any(dispatch_id in (each.dispatch_id, each.root_id) for each in family)
                    ),
                    None,
                )
                if family is None:
                    unfinished = await asyncio.to_thread(covalent_runs.unfinished)
                    is_left = any(each.dispatch_id == dispatch_id for each in unfinished)
                    return {**said, "state": "under way" if is_left else "ended"}
                resumed = await self._resume(family)
        except Exception as error:
            log.exception("Dispatch %s was not resumed", dispatch_id)
            return {**said, "state": "failed", "why": f"{type(error).__name__}: {error}"}
        return {**said, "state": "resumed", "electrons": sum(each.electrons for each in resumed)}


def _named(nodes: Sequence[RunNode]) -> str:
    return ", ".join(f"electron {node.node_id} ({node.name}, executor {node.executor!r})" for node in nodes)


# --- whose database it is ---------------------------------------------------------------------------------------------


def _database() -> Path | None:
    """Path of the server's database; `None` where it is no file (``DataStore.factory``)."""
    url = os.environ.get("COVALENT_DATABASE_URL")
    if not url:
        return Path(get_config("dispatcher.db_path"))
    parts = urlsplit(url)
    # Three slashes, then the path: sqlite+pysqlite:////absolute/path.
    return Path(unquote(parts.path[1:])) if parts.scheme.startswith("sqlite") and len(parts.path) > 1 else None


def _locked(path: Path) -> IO[bytes] | None:
    """The open file, locked by this process; `None` where another process has locked it.

    It is a POSIX lock: it ends with this process, and processes that are forked from this one do not have it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _unfinished(database: Path) -> set[str]:
    """Ids of unfinished dispatches, read without Covalent's code, which is still being imported."""
    if not database.exists():
        return set()
    connecting = sqlite3.connect(database, timeout=5.0, factory=database_locks.PatientConnection)
    with contextlib.closing(connecting) as connection:
        marks = ", ".join("?" * len(UNFINISHED))
        try:
            rows = connection.execute(
                f"SELECT dispatch_id FROM lattices WHERE status IN ({marks})",  # noqa: S608  (question marks only)
                UNFINISHED,
            ).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return set()  # the database is new
    return {str(dispatch_id) for (dispatch_id,) in rows}


# --- its stop ---------------------------------------------------------------------------------------------------------


def _watch_stop(life: _Life) -> bool:
    """Replace the function with which Covalent's ``lifespan`` cancels unfinished dispatches when the server stops.

    That function requests the cancel of all dispatches in the database, also of those of another server, and the loop
    ends 10 ms later: some jobs are cancelled, others are not.

    Returns:
        False while Covalent's module is not imported yet.
    """
    app = sys.modules.get("covalent_dispatcher._service.app")
    if app is None or not hasattr(app, "cancel_all_with_status"):
        return False

    async def stop(status: object) -> None:
        # A NEW_OBJECT was not started: nothing of it runs, and a user can still start it.
        if str(status) == "RUNNING" and not life.why:
            await _stop(life)

    app.cancel_all_with_status = stop  # type: ignore[attr-defined]
    return True


async def _stop(life: _Life) -> None:
    """Cancel or keep the dispatches of this server, each whole, as ``on_server_stop`` of their electrons says."""
    ending = set()
    for dispatch in await asyncio.to_thread(covalent_runs.unfinished):
        if dispatch.dispatch_id not in life.orphans:
            try:
                if await _stop_dispatch(dispatch.dispatch_id):
                    ending.add(dispatch.dispatch_id)
            except Exception:
                log.exception("Dispatch %s is left as it is", dispatch.dispatch_id)
    deadline = time.monotonic() + STOP_S
    while ending and time.monotonic() < deadline:
        # The end of a dispatch is stored while the loop runs, so that the next server does not resume it.
        await asyncio.sleep(END_LOOK_S)
        ending &= {each.dispatch_id for each in await asyncio.to_thread(covalent_runs.unfinished)}


async def _stop_dispatch(dispatch_id: str) -> bool:
    """Cancel a dispatch, or those of its electrons that cannot go on without the server.

    Returns:
        Whether the whole dispatch is cancelled.
    """
    graph = await asyncio.to_thread(covalent_runs.read, dispatch_id)
    left = [node for node in graph.nodes.values() if not node.has_ended]
    ours = [node for node in left if node.executor == OURS and not node.is_host_node]
    if not any(node.executor == OURS for node in graph.nodes.values()):
        await covalent_runs.cancel_soon(dispatch_id, ())  # without our executor: as the stock server does
        return False
    if any(map(_to_be_cancelled, ours)):
        await covalent_runs.cancel(dispatch_id, ())
        return True
    others = [node.node_id for node in left if node.status == "RUNNING" and node.executor != OURS]
    others = [node_id for node_id in others if not graph.nodes[node_id].is_host_node]
    if others:  # as the stock server does
        await covalent_runs.cancel_soon(dispatch_id, others)
    return False


def _to_be_cancelled(node: RunNode) -> bool:
    return _on_server_stop(node.options) == "cancel"


def _on_server_stop(options: Mapping[str, Any]) -> str:
    from covalent_cirro.settings import BY_NAME

    configured = _configured("on_server_stop")
    return str(options.get("on_server_stop") or configured or BY_NAME["on_server_stop"].default)


def _configured(option: str) -> Any:
    """The value of an option in the config of this server; `None` where it is not set."""
    try:
        section = get_config(SECTION)
    except KeyError:
        return None
    return section.get(option) if isinstance(section, Mapping) else None
