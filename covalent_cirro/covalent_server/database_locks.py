"""Waits where another program has locked a Covalent server's SQLite database (a backup, a browser of databases).

Covalent 0.240 opens it with the 5 s of Python's `sqlite3`, fails an electron whose status cannot be written by then,
and never looks at its job again. Knows SQLite and SQLAlchemy; nothing of Covalent's tables.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a lock is waited for in all."""

PAUSE_S = 0.1
"""Before the next try: SQLite answers at once where waiting could be a deadlock."""

TOLD_EVERY_S = 10.0
"""A lock that lasts is told again after this, however many statements wait for it."""

_told_at = float("-inf")
_telling = threading.Lock()


def wait_everywhere() -> None:
    """Have all connections that SQLAlchemy makes to SQLite files in this process wait. Does nothing a second time."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "do_connect", _with_patience):
        event.listen(Engine, "do_connect", _with_patience)


def _with_patience(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite" and dialect.driver == "pysqlite":
        options.setdefault("factory", PatientConnection)


class PatientConnection(sqlite3.Connection):
    """A connection whose statements are tried again while another program has the database locked."""

    def cursor(self, factory: Any = None) -> Any:
        """A cursor that waits too."""
        return super().cursor(factory or _PatientCursor)

    def execute(self, *arguments: Any) -> Any:
        """A statement with a cursor of its own, which `sqlite3` would not take from `cursor`."""
        return self.cursor().execute(*arguments)

    def commit(self) -> None:
        """End the transaction. One that could not be ended for a lock is still there: it is ended a moment later."""
        _patiently(self, super().commit)


class _PatientCursor(sqlite3.Cursor):
    def execute(self, *arguments: Any) -> Any:
        return _patiently(self.connection, lambda: super(_PatientCursor, self).execute(*arguments))

    def executemany(self, *arguments: Any) -> Any:
        return _patiently(self.connection, lambda: super(_PatientCursor, self).executemany(*arguments))


def _patiently(connection: sqlite3.Connection, work: Callable[[], T]) -> T:
    """Do something again while the database is locked. SQLite itself has waited for some seconds each time."""
    begin = time.monotonic()
    changes, is_told = connection.total_changes, False
    while True:
        try:
            done = work()
        except sqlite3.OperationalError as error:
            waited_s = time.monotonic() - begin
            # What has changed rows already must not change them twice.
            if not _is_locked(error) or waited_s > PATIENCE_S or connection.total_changes != changes:
                raise
            is_told = _tell(connection, waited_s) or is_told
            time.sleep(PAUSE_S)
            continue
        if is_told:
            log.warning("The database was locked for %.0f s; nothing was lost", time.monotonic() - begin)
        return done


def _is_locked(error: sqlite3.OperationalError) -> bool:
    # Python 3.10 has no error codes. The words are those of SQLite's result codes SQLITE_BUSY and SQLITE_LOCKED.
    return str(error).startswith(("database is locked", "database table is locked"))


def _tell(connection: sqlite3.Connection, waited_s: float) -> bool:
    global _told_at
    with _telling:
        if time.monotonic() - _told_at < TOLD_EVERY_S:
            return False
        _told_at = time.monotonic()
    log.warning(
        "Another program has locked %s (a backup?): waiting for it, %.0f s by now and at most %.0f s",
        _path(connection),
        waited_s,
        PATIENCE_S,
    )
    return True


def _path(connection: sqlite3.Connection) -> str:
    try:
        return str(sqlite3.Connection.cursor(connection, sqlite3.Cursor).execute("PRAGMA database_list").fetchone()[2])
    except sqlite3.Error:
        return "Covalent's database"
