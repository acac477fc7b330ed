"""What is left of a dispatch whose server died, and whose dispatches a server may go on with."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from covalent._shared_files.config import get_config, set_config

from covalent_cirro.covalent_server.dispatches import Dispatch, Graph, RunNode
from covalent_cirro.electron.resume import server_life, unfinished


def node(node_id: int, status: str, *, group: int | None = None, name: str = "f", executor: str = "cirro") -> RunNode:
    """A node of a group of its own."""
    return RunNode(node_id, node_id if group is None else group, name, status, executor, {}, False, False)


def graph(*nodes: RunNode, edges: list[tuple[int, int]]) -> Graph:
    """A dispatch."""
    return Graph({each.node_id: each for each in nodes}, edges)


def test_a_group_runs_once_all_its_inputs_are_there() -> None:
    """Parents count once for each argument; a failed parent never comes."""
    left = unfinished.plan(
        graph(
            node(0, "COMPLETED"),
            node(1, "RUNNING"),
            node(2, "FAILED"),
            node(3, "NEW_OBJECT"),
            node(4, "NEW_OBJECT"),
            node(5, "NEW_OBJECT"),
            edges=[(0, 3), (0, 4), (1, 4), (1, 4), (2, 5)],
        )
    )
    assert left.pending == {0: 0, 1: 0, 2: 0, 3: 0, 4: 2, 5: 1}
    assert left.groups == [1, 3]
    assert left.unresolved == 2


def test_edges_inside_a_task_group_are_not_waited_for() -> None:
    """Packed nodes run together; those that ended already are not counted again."""
    left = unfinished.plan(
        graph(node(0, "COMPLETED", group=0), node(1, "RUNNING", group=0), node(2, "NEW_OBJECT"), edges=[(0, 1), (1, 2)])
    )
    assert (left.groups, left.unresolved, left.pending) == ([0], 1, {0: 0, 2: 1})


def test_a_sublattice_under_way_is_counted_and_not_built_again() -> None:
    """Its own dispatch goes on by itself."""
    left = unfinished.plan(graph(node(0, "DISPATCHING"), node(1, "NEW_OBJECT"), edges=[(0, 1)]))
    assert (left.groups, left.unresolved) == ([], 1)
    assert [each.node_id for each in left.sublattices] == [0]


def test_nothing_left_after_a_failure_is_the_end() -> None:
    """What waits for a failed node never runs."""
    left = unfinished.plan(graph(node(0, "FAILED"), node(1, "NEW_OBJECT"), edges=[(0, 1)]))
    assert (left.groups, left.unresolved, left.reopened) == ([], 0, [])


def test_a_dispatch_that_had_all_but_its_end_is_postprocessed_again() -> None:
    """The node's status is written before the dispatch's."""
    left = unfinished.plan(
        graph(node(0, "COMPLETED"), node(1, "COMPLETED", name=":postprocess:reconstruct"), edges=[(0, 1)])
    )
    assert (left.reopened, left.groups, left.unresolved) == ([1], [1], 1)


def test_only_other_executors_electrons_that_would_run_again_are_foreign() -> None:
    """Neither Covalent's own nodes, nor what has ended, nor what is not ready."""
    found = unfinished.foreign(
        graph(
            node(0, "RUNNING", executor="dask"),
            node(1, "RUNNING", executor="dask", name=":electron_list:"),
            node(2, "COMPLETED", executor="local"),
            node(3, "NEW_OBJECT", executor="local"),
            node(4, "RUNNING"),
            edges=[(4, 3)],
        )
    )
    assert [each.node_id for each in found] == [0]


def test_a_lattice_goes_on_together_with_its_sublattices() -> None:
    """One may be an input of the other."""
    found = unfinished.families(
        [Dispatch("a", "a", "RUNNING"), Dispatch("b", "b", "RUNNING"), Dispatch("c", "a", "RUNNING")]
    )
    assert {root: [each.dispatch_id for each in family] for root, family in found.items()} == {
        "a": ["a", "c"],
        "b": ["b"],
    }


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server's database with one unfinished dispatch, in the config of this process."""
    path = tmp_path / "dispatcher_db.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE lattices (dispatch_id TEXT, status TEXT)")
        connection.executemany("INSERT INTO lattices VALUES (?, ?)", [("left", "RUNNING"), ("done", "COMPLETED")])
    connection.close()
    before = get_config("dispatcher.db_path")
    set_config({"dispatcher.db_path": str(path)})
    monkeypatch.delenv("COVALENT_DATABASE_URL", raising=False)
    yield path
    set_config({"dispatcher.db_path": before})


def test_a_server_alone_takes_up_what_is_unfinished(database: Path) -> None:
    """And nothing else."""
    life = server_life._Life()
    assert (life.orphans, life.why) == ({"left"}, "")


def test_a_server_leaves_alone_what_another_one_works_on(database: Path) -> None:
    """Until that one has ended, however it ended; its children do not count."""
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import covalent, json, os, time; from covalent_cirro.electron.resume import server_life; "
            "life = server_life._Life(); child = os.fork(); "
            "child and print(json.dumps([sorted(life.orphans), child]), flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = 0
    try:
        assert other.stdout is not None
        orphans, child = json.loads(other.stdout.readline())
        assert orphans == ["left"]
        life = server_life._Life()
        assert life.orphans == set()
        assert "another Covalent server" in life.why
        other.kill()
        other.wait(timeout=20)
        assert server_life._Life().orphans == {"left"}
        os.kill(child, 0)  # it still lives
    finally:
        other.kill()
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_database_that_is_no_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell who works on it."""
    monkeypatch.setenv("COVALENT_DATABASE_URL", "postgresql://somewhere/covalent")
    life = server_life._Life()
    assert life.orphans == set()
    assert "SQLite" in life.why


def test_a_database_named_by_its_url_is_found(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Covalent's own variable names it."""
    monkeypatch.setenv("COVALENT_DATABASE_URL", f"sqlite+pysqlite:///{database}")
    assert server_life._Life().orphans == {"left"}


def test_a_client_never_takes_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not even one whose own program is called app.py."""
    program = tmp_path / "app.py"
    program.touch()
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(program)))
    server_life.install_in_server()
    assert server_life._life is None
