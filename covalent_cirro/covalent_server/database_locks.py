"""Waits while another program (a backup, a browser of databases) has locked the SQLite database of a Covalent server.

Covalent 0.240 waits for the 5 s of Python's `sqlite3`; then it fails the electron whose status cannot be written, and
does not look at its job again. Knows SQLite and SQLAlchemy, not Covalent's tables.
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
"""Longest wait for a lock."""

PAUSE_S = 0.1
"""Pause before the next try: SQLite does not wait itself where that could be a deadlock."""

LOG_EVERY_S = 10.0
"""Pause between two lines in the log about locks, however many statements wait."""

_logged_at = float("-inf")
_logging = threading.Lock()


def wait_everywhere() -> None:
    """Make all SQLite connections that SQLAlchemy opens in this process wait for locks. Can be called again."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "do_connect", _with_patience):
        event.listen(Engine, "do_connect", _with_patience)


def _with_patience(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite" and dialect.driver == "pysqlite":
        options.setdefault("factory", PatientConnection)


class PatientConnection(sqlite3.Connection):
    """A connection that repeats statements while another program has locked the database."""

    def cursor(self, factory: Any = None) -> Any:
        """A cursor that repeats its statements too."""
        return super().cursor(factory or _PatientCursor)

    def execute(self, *arguments: Any) -> Any:
        """Execute a statement with a cursor of `cursor`, which the method of `sqlite3` would not call."""
        return self.cursor().execute(*arguments)

    def commit(self) -> None:
        """Commit the transaction; repeat that while another program has locked the database."""
        _patiently(self, super().commit)


class _PatientCursor(sqlite3.Cursor):
    def execute(self, *arguments: Any) -> Any:
        return _patiently(self.connection, lambda: super(_PatientCursor, self).execute(*arguments))

    def executemany(self, *arguments: Any) -> Any:
        return _patiently(self.connection, lambda: super(_PatientCursor, self).executemany(*arguments))


def _patiently(connection: sqlite3.Connection, work: Callable[[], T]) -> T:
    """Repeat work while the database is locked. SQLite itself waits for some seconds each time."""
    begin = time.monotonic()
    changes, is_logged = connection.total_changes, False
    while True:
        try:
            done = work()
        except sqlite3.OperationalError as error:
            waited_s = time.monotonic() - begin
            # A statement that has changed rows already must not change them twice.
            if not _is_locked(error) or waited_s > PATIENCE_S or connection.total_changes != changes:
                raise
            is_logged = _log_wait(connection, waited_s) or is_logged
            time.sleep(PAUSE_S)
            continue
        if is_logged:
            log.warning("The database was locked for %.0f s; nothing was lost", time.monotonic() - begin)
        return done


def _is_locked(error: sqlite3.OperationalError) -> bool:
    # Python 3.10 has no error codes. These are the texts of SQLite's result codes SQLITE_BUSY and SQLITE_LOCKED.
    return str(error).startswith(("database is locked", "database table is locked"))


def _log_wait(connection: sqlite3.Connection, waited_s: float) -> bool:
    global _logged_at
    with _logging:
        if time.monotonic() - _logged_at < LOG_EVERY_S:
            return False
        _logged_at = time.monotonic()
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
