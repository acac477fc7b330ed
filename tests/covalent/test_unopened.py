"""Results of a module that only client and jobs have, through all that Covalent does with results on the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import covalent as ct
import pytest

from covalent_cirro import CirroBatchExecutor

CIRRO = (sys.executable, "-c", "from covalent_cirro.cli import main; main()")

MYLAB = """
class Reading:
    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        return Reading(self.value + getattr(other, "value", other))

    def __eq__(self, other):
        return isinstance(other, Reading) and self.value == other.value


def answer(x=42):
    return Reading(x)


def make(x):
    return Reading(x)


def pair(x):
    return Reading(x), Reading(x + 1)


def table(x):
    return {"a": Reading(x)}


def value(one):
    return one.value


def total(items):
    return sum(each.value for each in items)


def total_of_values(items):
    return sum(each.value for each in items.values())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The electrons of a module that travels with them, and that the server has never seen."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "mylab.py").write_text(MYLAB)
    sys.path.insert(0, str(folder))
    import mylab

    executor = CirroBatchExecutor(vcpu=1, memory=0.5, local_packages=["mylab"])

    class Lab:
        Reading = mylab.Reading

    for name in ("answer", "make", "pair", "table", "value", "total", "total_of_values"):
        setattr(Lab, name, staticmethod(ct.electron(getattr(mylab, name), executor=executor)))
    yield Lab
    sys.path.remove(str(folder))
    del sys.modules["mylab"]


def ended(dispatch_id: str) -> Any:
    """The result of a dispatch, once it has ended."""
    return ct.get_result(dispatch_id, wait=True)


def jobs_of(stack: Any, dispatch_id: str) -> list[str]:
    """Names of the electrons and nodes of a dispatch that were jobs."""
    batch = stack.client("batch")
    found = []
    for status in ("SUCCEEDED", "FAILED"):
        for job in batch.list_jobs(jobQueue=stack.settings["batch_queue"], jobStatus=status)["jobSummaryList"]:
            described = batch.describe_jobs(jobs=[job["jobId"]])["jobs"][0]
            if described["tags"]["covalent:dispatch"] == dispatch_id:
                found.append(described["tags"]["covalent:electron"])
    return sorted(found)


def cirro(stack: Any, *arguments: str | Path) -> str:
    """What a command says, on both streams."""
    command = [*CIRRO, *map(str, arguments)]
    ran = subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=200, check=False)
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def everything(stack: Any, lab: Any) -> Any:
    """A lattice without any executor, with all that Covalent does with results."""

    def flow() -> Any:
        first, second = lab.pair(1)
        return {
            "list": lab.total([lab.make(1), lab.make(2)]),
            "dict": lab.total_of_values({"a": lab.make(1), "b": lab.make(2)}),
            "index": lab.value(lab.pair(1)[1]),
            "key": lab.value(lab.table(1)["a"]),
            "unpacked": lab.total([first, second]),
            "attribute": lab.make(3).value,
            "sum": lab.value(lab.make(1) + lab.make(2)),
            "sum with a number": lab.make(1) + 5,
            "returned": [lab.make(1), (lab.make(2), lab.answer(5))],
        }

    return ended(ct.dispatch(ct.lattice(flow))())


def test_all_that_covalent_does_with_results_works_without_their_module(everything: Any, lab: Any) -> None:
    """Lists, dicts, items, unpacking, attributes, sums, and what the lattice returns."""
    assert str(everything.status) == "COMPLETED", everything.error
    assert everything.result == {
        "list": 3,
        "dict": 3,
        "index": 2,
        "key": 1,
        "unpacked": 3,
        "attribute": 3,
        "sum": 3,
        "sum with a number": lab.Reading(6),
        "returned": [lab.Reading(1), [lab.Reading(2), lab.Reading(5)]],
    }


def test_only_what_computes_with_results_is_a_job(stack: Any, everything: Any) -> None:
    """With the executor and packages of the electron that made them, as the log says once."""
    electrons = {"answer", "make", "pair", "table", "value", "total", "total_of_values"}
    nodes = [name for name in jobs_of(stack, everything.dispatch_id) if name not in electrons]
    indexes = [":pair()[0]", ":pair()[1]", ":pair.__getitem__", ":table.__getitem__"]
    # AWS does not take all characters in a tag's value.
    assert len(nodes) == len([*indexes, ":make.__getattr__", "make_+_make", "make_+_5"]), nodes
    log = stack.server_log.read_text()
    for name in ("':make.__getattr__'", "'make_+_5'"):
        lines = [line for line in log.splitlines() if name in line and everything.dispatch_id in line]
        assert len(lines) == 1
        assert "has no module 'mylab'. It runs as a job, with the executor and packages of 'make'" in lines[0]


def test_sublattices_hand_on_what_they_do_not_open(stack: Any, lab: Any) -> None:
    """They are built without the module, given results that cannot be opened; items of what they return are taken."""

    @ct.electron
    @ct.lattice(executor="cirro")
    def inner(one: Any, number: int) -> Any:
        return {"all": [lab.total([lab.make(number), one]), one], "answer": lab.answer(number)}

    def flow() -> Any:
        found = inner(lab.make(4), 3)
        return [found["all"][0], found["answer"], found["all"]]

    result = ended(ct.dispatch(ct.lattice(flow, executor="cirro"))())
    assert str(result.status) == "COMPLETED", result.error
    assert result.result == [7, lab.Reading(3), [7, lab.Reading(4)]]
    nodes = [name for name in jobs_of(stack, result.dispatch_id) if name.startswith(":")]
    assert nodes == []


def test_a_lattice_of_nothing_but_a_sublattice(stack: Any, lab: Any) -> None:
    """Its own nodes are ours too, although no electron of ours is in it."""

    @ct.electron
    @ct.lattice
    def inner(of: Any) -> Any:
        return of()

    make = ct.electron(make_a_reading, executor=CirroBatchExecutor(vcpu=1, memory=0.5, local_packages=["mylab"]))
    result = ended(ct.dispatch(ct.lattice(lambda: inner(make).value))())
    assert result.result == 9, result.error


def make_a_reading() -> Any:
    """An electron's function that travels by itself."""
    import mylab

    return mylab.Reading(9)


def test_a_redispatch_takes_over_its_own_nodes(stack: Any, lab: Any, tmp_path: Path) -> None:
    """What was reused has no job; the lattice's end is ours all the same."""
    flag = tmp_path / "flag"
    needs = ct.electron(read, executor=CirroBatchExecutor(vcpu=1, memory=0.5))
    first = ended(ct.dispatch(ct.lattice(lambda path: [lab.make(1), needs(path)]))(str(flag)))
    assert str(first.status) == "FAILED"
    flag.write_text("now")
    again = ended(ct.redispatch(first.dispatch_id, reuse_previous_results=True)())
    assert again.result == [lab.Reading(1), "now"], again.error
    assert jobs_of(stack, again.dispatch_id) == ["read"]


def read(path: str) -> str:
    """Fails until a file is there."""
    return Path(path).read_text()


def test_a_node_that_fails_is_told_everywhere(stack: Any, lab: Any, tmp_path: Path) -> None:
    """In Covalent's error, and by `cirro run`, `show` and `logs`: why, with the module's name and what to do."""
    file = tmp_path / "flow.py"
    file.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(sys.modules['mylab'].__file__ or '').parent)!r})\n"
        "import covalent as ct, mylab\n"
        "from covalent_cirro import CirroBatchExecutor\n"
        "make = ct.electron(mylab.make, executor=CirroBatchExecutor(vcpu=1, memory=0.5, local_packages=['mylab']))\n"
        "@ct.electron\n"
        "@ct.lattice(executor='cirro')\n"
        "def inner(one):\n"
        "    return [make(i) for i in range(one.value)]\n"
        "@ct.lattice(executor='cirro')\n"
        "def flow():\n"
        "    return inner(make(3))\n"
    )
    why = ("':sublattice:inner' (node 2) failed", "No module named 'mylab'", "do that in an electron")
    said = cirro(stack, "run", file)
    dispatch_id = said.partition("dispatch ")[2].partition(":")[0]
    told = ct.get_result(dispatch_id).get_node_result(2)["error"]
    for text in (said, told, cirro(stack, "show", f"{dispatch_id}:2"), cirro(stack, "logs", f"{dispatch_id}:2")):
        flat = " ".join(text.split())
        for words in why:
            assert words in flat


def test_an_error_of_the_users_is_no_reason_for_a_job(stack: Any, lab: Any) -> None:
    """An index that is too large fails where it is computed."""

    @ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=0.5))
    def two() -> list[int]:
        return [1, 2]

    @ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=0.5))
    def same(x: Any) -> Any:
        return x

    result = ended(ct.dispatch(ct.lattice(lambda: same(two()[2])))())
    assert str(result.status) == "FAILED"
    failed = result.get_node_result(1)
    assert failed["error"].startswith("':two.__getitem__' (node 1) raised IndexError: list index out of range.")
    assert jobs_of(stack, result.dispatch_id) == ["two"]


def test_hooks_of_an_electron_are_not_run_on_the_servers_host(stack: Any, lab: Any, tmp_path: Path) -> None:
    """Covalent copies them to each node that it makes for the electron. Jobs have those that install something."""
    marks = tmp_path / "marks"
    hooks: dict[str, Any] = {
        "deps_bash": [f"echo deps >> {marks}"],
        "call_before": [ct.DepsCall(append, args=[str(marks), "before"])],
    }
    executor = CirroBatchExecutor(vcpu=1, memory=0.5, local_packages=["mylab"])

    @ct.electron(executor=executor, **hooks)
    def two() -> Any:
        return {"plain": 1}

    @ct.electron(executor=executor, **hooks)
    def opaque() -> Any:
        import mylab

        return {"a": mylab.Reading(7)}

    result = ended(ct.dispatch(ct.lattice(lambda: [two()["plain"]]))())
    assert result.result == [1], result.error
    assert marks.read_text().split() == ["deps", "before"]
    marks.unlink()
    result = ended(ct.dispatch(ct.lattice(lambda: [opaque()["a"]]))())
    assert result.result == [lab.Reading(7)], result.error
    assert marks.read_text().split() == ["deps", "before", "deps"]


def append(path: str, word: str) -> None:
    """A call_before."""
    with open(path, "a") as file:
        file.write(f"{word}\n")


def test_dispatches_of_others_are_left_alone(stack: Any) -> None:
    """Covalent's own nodes are ours only where an electron is."""

    @ct.electron
    def local() -> list[int]:
        return [1, 2]

    result = ended(ct.dispatch(ct.lattice(lambda: [local()[1]]))())
    assert result.result == [2]
    graph = result.lattice.transport_graph
    executors = {graph.get_node_value(node, "metadata")["executor"] for node in graph._graph.nodes}
    assert executors == {"local"}
