"""A Covalent server's database that another program has locked: statements and transactions wait for it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine

from covalent_cirro.covalent_server import database_locks

OWN_WAIT_S = 0.05
"""What SQLite itself waits here: 5 s in a server."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one table, that every test may lock."""
    path = tmp_path / "dispatcher_db.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE electrons (status TEXT)")
        connection.execute("INSERT INTO electrons VALUES ('RUNNING')")
    return path


@pytest.fixture(autouse=True)
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a server's process; each test is told anew."""
    monkeypatch.setattr(database_locks, "_logged_at", float("-inf"))
    monkeypatch.setattr(database_locks, "PAUSE_S", 0.01)
    database_locks.wait_everywhere()
    yield
    event.remove(Engine, "do_connect", database_locks._with_patience)


class Locked:
    """Another program's lock on a database."""

    def __init__(self, path: Path, begin: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute(begin)
        if begin == "BEGIN":  # a reader, who keeps writers from ending their transaction
            self._connection.execute("SELECT * FROM electrons").fetchall()

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def engine_of(path: Path) -> Any:
    return create_engine(f"sqlite+pysqlite:///{path}", connect_args={"timeout": OWN_WAIT_S})


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE", "BEGIN"], ids=["all", "writers", "commits"])
def test_a_transaction_waits_for_a_lock_that_ends(database: Path, begin: str, caplog: pytest.LogCaptureFixture) -> None:
    """However the other program locked it: nothing is lost or done twice, and the log says who had it for how long."""
    caplog.set_level(logging.WARNING)
    lock = Locked(database, begin)
    releasing = threading.Thread(target=lambda: (_until_told(caplog), lock.release()))
    releasing.start()
    with engine_of(database).begin() as connection:
        connection.execute(text("UPDATE electrons SET status = 'COMPLETED'"))
        connection.execute(text("INSERT INTO electrons VALUES (:status)"), [{"status": "a"}, {"status": "b"}])
    releasing.join()
    with contextlib.closing(sqlite3.connect(database)) as reader:
        assert reader.execute("SELECT status FROM electrons").fetchall() == [("COMPLETED",), ("a",), ("b",)]
    assert f"Another program has locked {database}" in caplog.text
    assert "nothing was lost" in caplog.text


def _until_told(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 30
    while "has locked" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_lock_that_does_not_end_is_an_error_in_the_end(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In SQLite's words, as without us."""
    monkeypatch.setattr(database_locks, "PATIENCE_S", 0.2)
    lock = Locked(database, "BEGIN EXCLUSIVE")
    with pytest.raises(Exception, match="database is locked"), engine_of(database).begin() as connection:
        connection.execute(text("UPDATE electrons SET status = 'COMPLETED'"))
    lock.release()


def test_other_errors_come_at_once(database: Path) -> None:
    """A table that is not there does not come by waiting."""
    with pytest.raises(Exception, match="no such table"), engine_of(database).begin() as connection:
        connection.execute(text("UPDATE atoms SET status = 'COMPLETED'"))


def test_many_statements_that_wait_are_told_once(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each would bury the log."""
    lock = Locked(database, "BEGIN EXCLUSIVE")

    def read() -> None:
        with engine_of(database).connect() as connection:
            connection.execute(text("SELECT * FROM electrons")).fetchall()

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    _until_told(caplog)
    lock.release()
    for reader in readers:
        reader.join()
    assert caplog.text.count("has locked") == 1


def test_a_server_that_starts_while_its_database_is_locked_still_finds_its_dispatches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A locked database is not an empty one."""
    from covalent_cirro.electron.resume import server_life

    path = tmp_path / "db.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE lattices (dispatch_id TEXT, status TEXT)")
        connection.execute("INSERT INTO lattices VALUES ('one', 'RUNNING')")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0.05}))
    lock = Locked(path, "BEGIN EXCLUSIVE")
    releasing = threading.Thread(target=lambda: (_until_told(caplog), lock.release()))
    releasing.start()
    assert server_life._unfinished(path) == {"one"}
    releasing.join()
