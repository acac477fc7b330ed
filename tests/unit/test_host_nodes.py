"""Nodes of Covalent's own: which names they have, what is told when they fail, and what their jobs are made with."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import covalent as ct
import pytest

from covalent_cirro.contract import documents
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import Log
from covalent_cirro.covalent_server.assets import is_covalents_own
from covalent_cirro.electron import host_failures, host_jobs, result_writer
from covalent_cirro.electron.handover import HostNodeEnd
from covalent_cirro.jobs import host_node_ends
from covalent_cirro.runner import hooks


@ct.electron
def make(x: int) -> Any:
    """An electron."""
    return x


@ct.electron
def use(*of: Any) -> Any:
    """Another."""
    return of


def names(lattice: Any) -> set[str]:
    """Names that Covalent gives the nodes of a lattice, without parameters."""
    built = ct.lattice(lattice)
    built.build_graph()
    graph = built.transport_graph
    found = {graph.get_node_value(node, "name") for node in graph._graph.nodes}
    return {name for name in found if not name.startswith(":parameter:")}


@pytest.mark.parametrize(
    "lattice",
    [
        lambda: [make(1), {"a": make(2)}],
        lambda: make(1)[0],
        lambda: make(1).real,
        lambda: make(1) + make(2),
        lambda: make(1) - 5,
        lambda: 3 * make(1),
        lambda: make(1) / 2,
        lambda: make(1) ** 2,
        lambda: make(1)[0] + make(2).real,
        lambda: use([make(1)[0]]),
    ],
)
def test_what_covalent_adds_to_a_lattice_is_told_from_electrons(lattice: Any) -> None:
    """By the names that Covalent itself gives: lists, items, attributes, operators, postprocessing."""
    electrons = {name for name in names(lattice) if not is_covalents_own(name)}
    assert electrons in ({"make"}, {"make", "use"})


def test_a_sublattice_is_covalents_own() -> None:
    """It is built; what it consists of are nodes of another dispatch."""
    inner = ct.electron(ct.lattice(lambda: make(1)))
    assert is_covalents_own(next(name for name in names(lambda: inner()) if "sublattice" in name))


@pytest.mark.parametrize("name", ["add", "_", "__add__", "a_b", "<lambda>", "x_2", "train_", "_-", "resnet50_v1"])
def test_names_of_functions_are_electrons(name: str) -> None:
    """Whatever a function may be called."""
    assert not is_covalents_own(name)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Failure(Kind.RAISED, "IndexError: list index out of range", "Traceback..."), ["raised IndexError: list"]),
        (Failure(Kind.MISSING_MODULE, "", module="mylab"), ["needs the module 'mylab'", "Do in an electron"]),
        (Failure(Kind.RAISED, "PermissionError: [Errno 13] Permission denied"), ["without network"]),
        (Failure(Kind.RAISED, "urllib.error.URLError: <urlopen error [Errno 13] Permission denied>"), ["shut in"]),
        (Failure(Kind.RAISED, "botocore.EndpointConnectionError: no", "... [Errno 13] Permission denied"), ["shut in"]),
        (
            Failure(Kind.RAISED, "covalent_cirro.runner.placeholders.NotOpened: x is shut"),
            ["failed: x is shut"],
        ),
        (Failure(Kind.UNPICKLABLE, "the result is a lock"), ["cannot be handed on: the result is a lock"]),
        (Failure(Kind.UNREADABLE, "a file that it needs is damaged: /f"), ["was not started", "damaged: /f"]),
        (Failure(Kind.KILLED, "its process ended with exit code -9"), ["exit code -9", "3/4 of its memory"]),
        (Failure(Kind.RUNNER, "its process ended with exit code 1"), ["has no result", "exit code 1"]),
        (Failure(Kind.NOT_RUN, "an earlier node failed"), ["was not run", "failed first"]),
    ],
)
def test_a_failure_says_what_happened_and_what_to_do(failure: Failure, words: list[str]) -> None:
    """The node first; in one line for a table, and whole with its traceback for the error box."""
    told = host_node_ends.explain(failure, ":make.__getitem__", 3)
    assert told.line.startswith("':make.__getitem__' (node 3) ")
    assert "\n" not in told.line
    for word in words:
        assert word in told.line
        assert word in told.text
    assert told.text.endswith(f"{failure.traceback}\n")


def test_what_a_failed_node_leaves_is_read_as_any_outcome() -> None:
    """By the functions that read those of jobs."""
    end = HostNodeEnd(3, ":make.__getitem__", {}, "why", "Traceback")
    call, outcome = host_failures.documents("d", end, Log(tail="out"), Log(tail="err"))
    assert documents.parse_call(documents.dump_call(call)) == call
    read = documents.parse_outcome(documents.dump_outcome(outcome))
    assert read == outcome
    assert (read.succeeded, read.job_id, read.call_id) == (False, "", call.call_id)
    assert read.cloudpickle == importlib.metadata.version("cloudpickle")


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "origins", "options"),
    [
        ({"vcpu": 2}, [{"vcpu": 2}], {"vcpu": 2}),
        ({}, [{"vcpu": 4, "memory": 8}, {"vcpu": 1}], {"vcpu": 4, "memory": 8}),
        ({"vcpu": 2}, [{"vcpu": 4, "local_packages": ["/a"]}], {"vcpu": 2, "local_packages": ["/a"]}),
        (
            {"local_packages": ["/b"]},
            [{"local_packages": ["/a", "/b"]}, {"local_packages": ["/c"]}],
            {"local_packages": ["/b", "/a", "/c"]},
        ),
        ({}, [], {}),
    ],
)
def test_a_job_has_the_executor_and_all_packages_of_what_made_its_inputs(
    own: dict[str, Any], origins: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    """The node's own executor where Covalent gave it one, else that of the first electron."""
    assert host_jobs.chosen(own, origins) == options


def bash(*commands: str) -> dict[str, Any]:
    """As in Covalent's hooks.json."""
    return {"bash": {"attributes": {"commands": list(commands)}}}


def pip(*packages: str, requirements: str = "") -> dict[str, Any]:
    """As in Covalent's hooks.json."""
    return {"pip": {"attributes": {"packages": list(packages), "requirements_content": requirements}}}


@pytest.mark.parametrize(
    ("every", "merged"),
    [
        ([], {}),
        ([{}, {"bash": None}], {}),
        ([bash("one", "two"), bash("two", "three")], bash("one", "two", "three")),
        ([pip("numpy"), pip("torch", "numpy")], {"pip": {"attributes": {"packages": ["numpy", "torch"]}}}),
        (
            [pip("numpy"), pip(requirements="torch\nscipy")],
            {"pip": {"attributes": {"requirements_content": "torch\nscipy\nnumpy"}}},
        ),
        ([{"bash": {"attributes": {"commands": "one"}}}], bash("one")),
    ],
)
def test_a_job_installs_what_each_of_several_electrons_wants(
    every: list[dict[str, Any]], merged: dict[str, Any]
) -> None:
    """Once, in the form that the runner reads."""
    found = host_jobs.merged(every)
    assert found == merged
    assert len(list(hooks.before({"deps": found}))) == len(merged)


# --- files of strangers -----------------------------------------------------------------------------------------------


def test_a_file_of_a_stranger_is_copied(tmp_path: Path) -> None:
    """And measured, as Covalent's database wants it."""
    (tmp_path / "theirs").write_bytes(b"bytes" * 100_000)
    file = result_writer.take_file(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    assert (tmp_path / "ours").read_bytes() == b"bytes" * 100_000
    assert file == result_writer.measure(str(tmp_path / "ours"))


@pytest.mark.parametrize("what", ["link", "dangling", "pipe", "folder", "nothing"])
def test_what_is_no_file_is_not_taken(tmp_path: Path, what: str) -> None:
    """A link would lead to what the stranger may not read; on a pipe one would wait for ever."""
    theirs = tmp_path / "theirs"
    (tmp_path / "secret").write_text("secret")
    if what == "link":
        theirs.symlink_to(tmp_path / "secret")
    elif what == "dangling":
        theirs.symlink_to(tmp_path / "nowhere")
    elif what == "pipe":
        os.mkfifo(theirs)
    elif what == "folder":
        theirs.mkdir()
    with pytest.raises(ValueError, match="theirs"):
        result_writer.take_file(str(theirs), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()
