"""Covalent's own nodes on the server's host: ``.tobj`` files in, ``.tobj`` files out, through a real subprocess."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import covalent as ct
import pytest
from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro.contract import nested, tobj
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode
from covalent_cirro.electron import host_process

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Done(NamedTuple):
    """A finished process."""

    code: int
    stderr: str
    results: list[dict[str, Any]]

    @property
    def failure(self) -> dict[str, Any]:
        """Of the first task."""
        found: dict[str, Any] = self.results[0]["failure"]
        return found


class Host:
    """Makes requests in a folder, and has them carried out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tobj(self, name: str, value: Any) -> str:
        """A file as Covalent writes it."""
        path = self.folder / name
        path.write_bytes(TransportableObject(value).serialize())
        return str(path)

    def task(self, node_id: int, function: Any, *args: Any, hands_on: bool = False, **kwargs: Any) -> dict[str, Any]:
        """A task of the request; arguments that are no references yet are written to files."""

        def ref(i: Any, value: Any) -> dict[str, Any]:
            if isinstance(value, dict) and "node" in value:
                return value
            return {"tobj": self.tobj(f"{node_id}-{i}.tobj", value)}

        return {
            "node_id": node_id,
            "name": ":test:",
            "function": self.tobj(f"{node_id}-function.tobj", function),
            "hands_on": hands_on,
            "args": [ref(i, value) for i, value in enumerate(args)],
            "kwargs": {key: ref(key, value) for key, value in kwargs.items()},
        }

    def run(self, *tasks: dict[str, Any], **changes: Any) -> Done:
        """Carry out a request."""
        outcome = self.folder / "outcome.json"
        request = {"format": 2, "dispatch_id": "d", "covalent": "0.240.0", "folder": str(self.folder), "tasks": tasks}
        path = self.folder / "request.json"
        path.write_text(json.dumps({**request, **changes}))
        command = [sys.executable, "-m", "covalent_cirro.runner.host", str(path)]
        (self.folder / "home").mkdir(exist_ok=True)
        environment = host_process.environment(str(self.folder), os.environ)
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=self.folder)
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
    """Byte for byte."""
    value = {"list": [1, 2, 3], "text": "grün"}

    done = host.run(host.task(4, lambda x, *, y: {**x, **y}, {"list": [1, 2, 3]}, y={"text": "grün"}))

    written = (host.folder / "4.output").read_bytes()
    assert (done.code, done.stderr) == (0, "")
    assert written == TransportableObject(value).serialize()
    assert done.results == [{"node_id": 4, "failure": None, "elsewhere": False}]
    assert [host.text(4, name) for name in ("stdout", "stderr")] == ["", ""]
    assert not [path for path in host.folder.iterdir() if path.name.startswith("tmp") or path.suffix == ".tmp"]


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


def test_failure_is_in_the_outcome(host: Host) -> None:
    """Exit code 0 all the same; the later node is not run; the traceback begins where the node's own code does."""

    def fail(_: Any) -> None:
        raise ValueError("no such index")

    done = host.run(host.task(0, fail, 1), host.task(1, len, {"node": 0}))

    assert done.code == 0
    kinds = [(result["failure"]["kind"], result["elsewhere"]) for result in done.results]
    assert kinds == [(Kind.RAISED, False), (Kind.NOT_RUN, False)]
    assert "in fail" in done.failure["traceback"]
    assert "covalent_cirro" not in done.failure["traceback"]
    assert done.results[1]["failure"]["message"] == "an earlier node of the same task group failed"
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

    assert done.failure["kind"] == Kind.UNREADABLE
    assert done.results[0]["elsewhere"] is False


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

    assert (done.code, done.results[0]["failure"]) == (0, None)
    assert len(host.output(0).object_string) > 1000
    assert host.output(0).object_string == host.output(0).get_deserialized()


def test_request_that_is_not_understood(host: Host) -> None:
    """Exit code 64, the reason on stderr, no outcome."""
    done = host.run(format=1)

    assert (done.code, done.results) == (ExitCode.BAD_CALL, [])
    assert "format 1" in done.stderr


# --- what only jobs have ----------------------------------------------------------------------------------------------


@pytest.fixture
def jobs_only() -> Iterator[Any]:
    """A module that this process has, and the one on the server's host has not."""
    module: Any = types.ModuleType("jobs_only")
    source = """
class Reading:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return self.value == other.value

def answer(x=0):
    return Reading(x)
"""
    exec(source, vars(module))
    sys.modules["jobs_only"] = module
    yield module
    del sys.modules["jobs_only"]


def attribute(of: Any, name: str) -> Any:
    """As Covalent's node for ``x.name``."""
    return getattr(of, name)


def test_a_result_whose_module_is_not_here_is_for_a_job(host: Host, jobs_only: Any) -> None:
    """It is named, and the failure is not the user's."""
    done = host.run(host.task(0, attribute, jobs_only.Reading(3), "value"))

    assert (done.failure["kind"], done.failure["module"]) == (Kind.MISSING_MODULE, "jobs_only")
    assert done.results[0]["elsewhere"] is True


def explode() -> None:
    """As unpickling a tensor of a GPU does on a machine without one."""
    raise RuntimeError("no such device here")


class Delicate:
    """What can be unpickled elsewhere only."""

    def __reduce__(self) -> Any:
        return explode, ()


class Older:
    """What the module here has not, in its version."""

    def __reduce__(self) -> Any:
        return pickle.loads, (b"cjson\nTomorrow\n.",)


@pytest.mark.parametrize("value", [Delicate(), Older()], ids=["device", "version"])
def test_whatever_cannot_be_unpickled_here_is_for_a_job(host: Host, value: Any) -> None:
    """Another version of a module, a device that is not there: the machine of the jobs may have it."""
    done = host.run(host.task(0, attribute, value, "x"))

    assert (done.failure["kind"], done.results[0]["elsewhere"]) == (Kind.UNREADABLE, True)


def test_a_result_that_is_too_large_for_the_host_is_for_a_job(host: Host) -> None:
    """The process may have most of the machine's memory, not more."""

    def larger(of: int) -> int:
        return len(bytearray(of))

    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    done = host.run(host.task(0, larger, total))

    assert done.failure["message"] == "MemoryError"
    assert done.results[0]["elsewhere"] is True


def test_what_cannot_be_opened_is_handed_on_as_it_is(host: Host, jobs_only: Any) -> None:
    """As ``:postprocess:`` does: whoever has the module gets the object, in whatever it was put."""

    def together(first: Any, second: int, **others: Any) -> Any:
        return {"first": [first, second], "others": others}

    done = host.run(host.task(0, together, jobs_only.Reading(1), 2, third=jobs_only.Reading(3), hands_on=True))

    assert done.results[0]["failure"] is None
    assert host.output(0).get_deserialized() == {
        "first": [jobs_only.Reading(1), 2],
        "others": {"third": jobs_only.Reading(3)},
    }


def test_parts_of_a_list_are_handed_on_one_by_one(host: Host, jobs_only: Any) -> None:
    """What was put together without being opened has a length and items, and what can be opened is."""

    def swapped(items: list[Any]) -> Any:
        return [*reversed(items), len(items)]

    task = host.task(0, swapped, None, hands_on=True)
    pickles = {name: pickle.dumps(value) for name, value in (("a", jobs_only.Reading(1)), ("b", "text"))}
    with open(task["args"][0]["tobj"], "wb") as file:
        writer = tobj.Writer(file, tobj.header_fields("", "", "3.11.7", "3.1.2"), b"")
        parts: list[Any] = [nested.PickledPart(name, 0, len(data)) for name, data in pickles.items()]
        nested.write(parts, writer.write, lambda part: writer.write(pickles[part.source]))  # type: ignore[arg-type, func-returns-value]
        writer.close()
    done = host.run(task)

    assert done.results[0]["failure"] is None
    assert host.output(0).get_deserialized() == ["text", jobs_only.Reading(1), 2]


def test_who_computes_with_what_cannot_be_opened_is_told_why(host: Host, jobs_only: Any) -> None:
    """The module's name, and what to do instead."""
    done = host.run(host.task(0, attribute, jobs_only.Reading(1), "value", hands_on=True))

    assert done.failure["kind"] == Kind.RAISED
    for words in ("No module named 'jobs_only'", "do that in an electron"):
        assert words in done.failure["message"]


def test_a_sublattice_of_functions_that_only_jobs_have(host: Host, jobs_only: Any) -> None:
    """It is built without them: its electrons name the function, and are given results that were never opened."""
    from covalent._workflow.electron import _build_sublattice_graph

    answer = ct.electron(jobs_only.answer, executor="cirro")

    @ct.lattice
    def sub(x: Any) -> Any:
        return [answer(x), answer(5)]

    metadata = {key: {"executor": "local", "workflow_executor": "local"}.get(key, {}) for key in sub.metadata}
    task = host.task(0, _build_sublattice_graph, sub, json.dumps(metadata), jobs_only.Reading(7), hands_on=True)

    done = host.run(task)

    assert done.results[0]["failure"] is None
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(host.output(0).object_string))) as tar:
        tobjs = {
            member.name: TransportableObject.deserialize(tar.extractfile(member).read())  # type: ignore[union-attr]
            for member in tar.getmembers()
            if member.name.endswith(("function.tobj", "value.tobj"))
        }
    values = [each.get_deserialized() for each in tobjs.values()]
    assert sum(value is jobs_only.answer for value in values) == 2
    assert any(isinstance(value, jobs_only.Reading) and value.value == 7 for value in values)


def test_a_sublattice_that_calls_what_only_jobs_have_is_told_so(host: Host, jobs_only: Any) -> None:
    """A module that is a global of its function can be named, not used."""
    from covalent._workflow.electron import _build_sublattice_graph

    def of_lattice() -> Any:
        return jobs_only.answer(1)

    metadata = {
        key: {"executor": "local", "workflow_executor": "local"}.get(key, {}) for key in ct.lattice(len).metadata
    }
    done = host.run(host.task(0, _build_sublattice_graph, ct.lattice(of_lattice), json.dumps(metadata), hands_on=True))

    assert "jobs_only cannot be opened where the Covalent server runs" in done.failure["message"]
