"""Faults of where things are kept: the server's disk is full, its database locked, a blob in S3 not what it was."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from tests.faults.scenarios import Scenario
from tests.faults.servers import begun
from tests.faults.world import ENDED, Run, World, until

LOCKED_S = 12.0
"""A backup takes longer than the 5 s that Covalent waits by itself."""


def _fill_disk(world: World, run: Run) -> None:
    """The disk is full when results come, and until its user could read it in every panel."""
    begun(run)
    world.disk_is_full.touch()
    try:
        run.strike()
        run.release()
        until(lambda: run.all_ended(run.count), "jobs to end")
        told = "No space left on device"
        until(lambda: all(told in node.panel for node in run.nodes()[: run.count]), "the full disk to be told")
    finally:
        world.disk_is_full.unlink()


def _lock_database(world: World, run: Run) -> None:
    """Another program has the database from before the jobs end until long after."""
    begun(run)
    with contextlib.closing(sqlite3.connect(run.database, isolation_level=None, timeout=60)) as connection:
        run.strike()
        connection.execute("BEGIN EXCLUSIVE")
        run.release()
        until(lambda: run.all_ended(run.count), "jobs to end")
        time.sleep(LOCKED_S)
        connection.execute("ROLLBACK")


def _fail_first(world: World) -> Path:
    """A dispatch whose inputs are changed as they are stored; the next one has the same, and marks of its own."""
    first = world.dispatch(4)
    until(lambda: first.status in ENDED, "the first dispatch to end")
    assert first.status == "FAILED", "nothing was changed"
    first.folder.rename(first.folder.with_suffix(".first"))
    return first.folder


SCENARIOS = (
    Scenario(
        "disk full and mended",
        "The disk that the server keeps results on is full when jobs have ended; then somebody makes room.",
        "The panel and the server's log say which file needs how much; the results come once there is room.",
        act=_fill_disk,
    ),
    Scenario(
        "database locked",
        f"Another program has locked the server's database while jobs end, and for {LOCKED_S:.0f} s more.",
        "The server's log says that it waits, and for what; the results come then.",
        act=_lock_database,
    ),
    Scenario(
        "blob changed",
        "Inputs in S3 were changed to other bytes of the same length: a first dispatch failed. A second has the same.",
        "The first dispatch's electrons say that the blob was changed; the second sends it again, and completes.",
        (
            {
                "kind": "damage",
                "caller": "client",
                "operation": "PutObject",
                "key": "/blobs/",
                "pattern": "^.",
                "replacement": "?",
                "count": 4,
            },
        ),
        before=_fail_first,
    ),
)
