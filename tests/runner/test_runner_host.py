"""Covalent's own nodes on the server's host: ``.tobj`` files in, ``.tobj`` files out, through a real subprocess."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import covalent as ct
import pytest
from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro.protocol import ExitCode, Kind

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Done(NamedTuple):
    """A finished process."""

    code: int
    stderr: str
    results: list[dict[str, Any]]


class Host:
    """Makes requests in a folder, and has them carried out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tobj(self, name: str, value: Any) -> str:
        """A file as Covalent writes it."""
        path = self.folder / name
        path.write_bytes(TransportableObject(value).serialize())
        return str(path)

    def task(self, node_id: int, function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """A task of the request; arguments that are no references yet are written to files."""

        def ref(i: Any, value: Any) -> dict[str, Any]:
            if isinstance(value, dict) and "node" in value:
                return value
            return {"tobj": self.tobj(f"{node_id}-{i}.tobj", value)}

        paths = {key: str(self.folder / f"{node_id}.{key}") for key in ("output", "stdout", "stderr", "error")}
        return {
            "node_id": node_id,
            "name": ":test:",
            "function": self.tobj(f"{node_id}-function.tobj", function),
            "hooks": None,
            "args": [ref(i, value) for i, value in enumerate(args)],
            "kwargs": {key: ref(key, value) for key, value in kwargs.items()},
            **paths,
        }

    def run(self, *tasks: dict[str, Any], **changes: Any) -> Done:
        """Carry out a request."""
        outcome = self.folder / "outcome.json"
        request = {"format": 1, "dispatch_id": "d", "covalent": "0.240.0", "outcome": str(outcome), "tasks": tasks}
        path = self.folder / "request.json"
        path.write_text(json.dumps({**request, **changes}))
        command = [sys.executable, "-m", "covalent_cirro.runner.host", str(path)]
        env = {**os.environ, "COVALENT_DISPATCH_ID": "must be gone"}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        found = json.loads(outcome.read_text())["results"] if outcome.exists() else []
        return Done(ran.returncode, ran.stdout + ran.stderr, found)

    def output(self, node_id: int) -> TransportableObject:
        """What a task wrote, as Covalent reads it."""
        return TransportableObject.deserialize((self.folder / f"{node_id}.output").read_bytes())

    def text(self, node_id: int, name: str) -> str:
        return (self.folder / f"{node_id}.{name}").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A folder of one's own."""
    return Host(tmp_path)


def test_output_is_what_covalent_would_write(host: Host) -> None:
    """Byte for byte, with its size and SHA-1 in the outcome."""
    value = {"list": [1, 2, 3], "text": "grün"}

    done = host.run(host.task(4, lambda x, *, y: {**x, **y}, {"list": [1, 2, 3]}, y={"text": "grün"}))

    written = (host.folder / "4.output").read_bytes()
    assert (done.code, done.stderr) == (0, "")
    assert written == TransportableObject(value).serialize()
    digest = hashlib.sha1(written).hexdigest()
    assert done.results == [{"node_id": 4, "output": {"size": len(written), "sha1": digest}, "failure": None}]
    assert [host.text(4, name) for name in ("stdout", "stderr", "error")] == ["", "", ""]
    assert not [path for path in host.folder.iterdir() if path.name.startswith(".cirro") or path.suffix == ".tmp"]


def test_nodes_of_a_group_pass_outputs_on(host: Host) -> None:
    """Each reads the earlier file anew; stdout and stderr of subprocesses go to the node's own files."""

    def grow(items: list[int]) -> list[int]:
        import subprocess

        subprocess.run("echo out; echo err >&2", shell=True, check=True)
        return [*items, len(items)]

    done = host.run(host.task(0, grow, []), host.task(1, grow, {"node": 0}))

    assert done.code == 0
    assert host.output(1).get_deserialized() == [0, 1]
    assert [host.text(i, name) for i in (0, 1) for name in ("stdout", "stderr")] == ["out\n", "err\n"] * 2


def test_failure_is_in_outcome_and_error_file(host: Host) -> None:
    """Exit code 0 all the same; the later node is not run; the traceback is where Covalent shows it."""

    def fail(_: Any) -> None:
        raise ValueError("no such index")

    done = host.run(host.task(0, fail, 1), host.task(1, len, {"node": 0}))

    assert done.code == 0
    kinds = [(result["failure"]["kind"], result["output"]) for result in done.results]
    assert kinds == [(Kind.RAISED, None), (Kind.NOT_RUN, None)]
    assert "in fail" in host.text(0, "error")
    assert "covalent_cirro" not in host.text(0, "error")
    assert host.text(1, "error") == "an earlier node of the same task group failed"
    assert not (host.folder / "0.output").exists()


def test_covalents_context_is_set_where_covalent_is_used(host: Host) -> None:
    """Unpickling imports Covalent; ``ct.get_context`` knows dispatch and node, and COVALENT_DISPATCH_ID is unset."""

    def electron() -> Any:
        import os

        context = ct.get_context()
        return context.dispatch_id, context.task_id, os.environ.get("COVALENT_DISPATCH_ID")

    host.run(host.task(7, electron))

    assert host.output(7).get_deserialized() == ("d", 7, None)


def test_large_input_is_read_in_a_stream(host: Host) -> None:
    """The pickle is decoded chunk by chunk; the file's text is not in memory as well."""
    value = os.urandom(30_000_000)

    def electron(data: bytes) -> tuple[str, int]:
        import hashlib

        with open("/proc/self/status") as file:
            peak = next(line for line in file if line.startswith("VmHWM"))
        return hashlib.sha1(data).hexdigest(), int(peak.split()[1]) * 1024

    host.run(host.task(0, electron, value))

    digest, peak = host.output(0).get_deserialized()
    assert digest == hashlib.sha1(value).hexdigest()
    assert peak < 95_000_000


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None])
def test_broken_input_is_a_failure(host: Host, damage: bytes | None) -> None:
    """An empty file, one that is no TransportableObject, one that is not there."""
    task = host.task(0, len, [1])
    path = Path(task["args"][0]["tobj"])
    path.unlink() if damage is None else path.write_bytes(damage)

    done = host.run(task)

    assert done.results[0]["failure"]["kind"] == Kind.UNREADABLE


def test_sublattice_is_built_without_a_server(host: Host) -> None:
    """Covalent's own builder runs, and gives the archive that the server reads out of the output's text."""
    from covalent._workflow.electron import _build_sublattice_graph

    @ct.lattice
    def sub(x: int) -> int:
        return int(ct.electron(lambda y: y + 1)(x))

    parent = {"executor": "local", "workflow_executor": "local"}
    metadata = {key: parent.get(key, {}) for key in sub.metadata}
    task = host.task(0, _build_sublattice_graph, sub, json.dumps(metadata), 1)

    done = host.run(task)

    assert (done.code, host.text(0, "error")) == (0, "")
    assert len(host.output(0).object_string) > 1000
    assert host.output(0).object_string == host.output(0).get_deserialized()


def test_request_that_is_not_understood(host: Host) -> None:
    """Exit code 64, the reason on stderr, no outcome."""
    done = host.run(format=2)

    assert (done.code, done.results) == (ExitCode.BAD_CALL, [])
    assert "format 2" in done.stderr
