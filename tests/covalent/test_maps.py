"""Maps in lattices, with a real Covalent server: what its graph, files and UI have of them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import covalent as ct
import pytest

from covalent_cirro import CirroBatchExecutor, ElectronFailed, item, mapped
from tests.covalent.conftest import Stack

CIRRO = (sys.executable, "-c", "from covalent_cirro.cli import main; main()")


def cirro(stack: Stack, *arguments: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [*CIRRO, *arguments], env=stack.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dispatched(lattice: Any, *args: Any) -> Any:
    """The result of a dispatch of a lattice."""
    return ct.get_result(ct.dispatch(lattice)(*args), wait=True)


def test_a_map_feeds_a_map_and_an_electron(stack: Stack) -> None:
    """With executors given as objects, by name, and by the lattice; on Covalent's own executor it is a loop."""
    executor = CirroBatchExecutor(vcpu=1, memory=0.5, array_size=3)

    @mapped("x")
    @ct.electron(executor=executor)
    def place(x: int, offset: int) -> tuple[int, int]:
        print("item", item().index)
        return x + offset, item().index

    @mapped("pair", "weight")
    @ct.electron
    def weighed(pair: tuple[int, int], weight: int) -> int:
        return pair[0] * weight

    @mapped("x")
    @ct.electron(executor="local")
    def local(x: int) -> int:
        return -x

    @ct.electron(executor="cirro")
    def total(values: list[int]) -> int:
        return sum(values)

    @ct.lattice(executor=executor)
    def flow(xs: list[int]) -> Any:
        placed = place(xs, offset=total([1, 2]))
        return placed, local(weighed(placed, range(5))), total(weighed(placed, weight=[1] * 5))

    result = dispatched(flow, [10, 20, 30, 40, 50])
    assert result.status == "COMPLETED", result.error
    placed, negative, whole = result.result
    assert placed == [(13, 0), (23, 1), (33, 2), (43, 3), (53, 4)]
    assert negative == [0, -23, -66, -129, -212]
    assert whole == 13 + 23 + 33 + 43 + 53
    nodes = {node["node_name"]: node for node in result.get_all_node_results()}
    assert nodes["place"]["stdout"].count("item") == 3 + 5  # a line for each job, and what they printed
    assert ":parameter:5 items" in nodes

    electron = f"{result.dispatch_id}:{nodes['place']['node_id']}"
    shown = cirro(stack, "show", electron)
    assert re.search(r"jobs\s+3: 3 SUCCEEDED", shown)
    assert re.search(r"items\s+5 of 5 done", shown)
    assert cirro(stack, "logs", f"{electron}[2]").splitlines() == ["item 1", "item 2"]
    assert "RUNNING" not in cirro(stack, "jobs", "--all", "--dispatch", result.dispatch_id)


def test_only_the_items_that_were_edited_are_computed(stack: Stack) -> None:
    """By a dispatch that reuses an earlier one; each call of the function prints. Results can be read by item."""

    def square(x: int) -> int:
        print("computes", x)
        return x * x

    def flow_of(**options: Any) -> Any:
        electron = ct.electron(square, executor=CirroBatchExecutor(vcpu=1, memory=0.5, array_size=3, **options))
        return ct.lattice(lambda xs: mapped("x")(electron)(x=xs))

    def run(options: dict[str, Any], xs: list[int]) -> tuple[Any, int, list[str]]:
        result = dispatched(flow_of(**options), xs)
        (node,) = [each for each in result.get_all_node_results() if each["node_name"] == "square"]
        computed = [line for line in node["stdout"].splitlines() if line.startswith("computes")]
        return result, node["node_id"], computed

    before, node_id, computed = run({}, list(range(12)))
    assert before.result == [x * x for x in range(12)]
    assert len(computed) == 12
    edited = [11, 100, *range(1, 8), 200, 0]
    after, again_id, computed = run({"reuse_from": before.dispatch_id}, edited)
    assert after.result == [x * x for x in edited]
    assert computed == ["computes 100", "computes 200"]
    shown = " ".join(cirro(stack, "show", f"{after.dispatch_id}:{again_id}").split())
    assert f"9 of 11 items reused from {before.dispatch_id}:{node_id}" in shown
    assert cirro(stack, "logs", f"{after.dispatch_id}:{again_id}[9]").splitlines() == computed, "of the job of item 9"
    script = "import sys, covalent_cirro; print(dict(covalent_cirro.partial(sys.argv[1], int(sys.argv[2]))))"
    command = [sys.executable, "-c", script, after.dispatch_id, str(again_id)]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == str(dict(enumerate(after.result)))


def test_a_redispatch_computes_only_the_items_that_were_edited_or_failed(stack: Stack) -> None:
    """Where it may reuse results; Covalent itself reuses whole electrons only."""

    def inverse(x: int) -> float:
        print("computes", x)
        return 1 / x

    def flow(xs: list[int]) -> Any:
        executor = CirroBatchExecutor(vcpu=1, memory=0.5, array_size=3)
        return mapped("x")(ct.electron(inverse, executor=executor))(xs)

    def computed(dispatch_id: str) -> tuple[Any, list[str]]:
        result = ct.get_result(dispatch_id, wait=True)
        (node,) = [each for each in result.get_all_node_results() if each["node_name"] == "inverse"]
        lines = (node["stdout"] or "").splitlines()
        return result, [line.removeprefix("computes ") for line in lines if line.startswith("computes")]

    first, _ = computed(ct.dispatch(ct.lattice(flow))([1, 2, 4, 5]))
    assert first.result == [1.0, 0.5, 0.25, 0.2]
    edited, items = computed(ct.redispatch(first.dispatch_id, reuse_previous_results=True)([0, 1, 2, 8, 5]))
    assert str(edited.status) == "FAILED"
    assert sorted(items) == ["0", "8"]
    same, items = computed(ct.redispatch(edited.dispatch_id, reuse_previous_results=True)())
    assert str(same.status) == "FAILED"
    assert items == ["0"], "what failed, and not what succeeded in a map that failed"
    anew, items = computed(ct.redispatch(same.dispatch_id)([1, 2]))
    assert anew.result == [1.0, 0.5]
    assert items == ["1", "2"], "nothing is reused where that was not asked for"


def test_the_errors_of_items_are_in_the_error_of_the_electron(stack: Stack) -> None:
    """Or they are values, and the lattice goes on."""
    options = {"vcpu": 1, "memory": 0.5, "array_size": 2}

    def inverse(x: int) -> float:
        return 1 / x

    returned = mapped("x")(ct.electron(inverse, executor=CirroBatchExecutor(on_error="return", **options)))
    raised = mapped("x")(ct.electron(inverse, executor=CirroBatchExecutor(**options)))

    @ct.lattice
    def flow() -> Any:
        return returned([1, 0, 2]), returned([])

    @ct.lattice
    def failing() -> Any:
        return raised(each for each in (1, 0, 2))

    first, second = ct.dispatch(flow)(), ct.dispatch(failing)()
    values, nothing = ct.get_result(first, wait=True).result
    assert nothing == []
    assert isinstance(values.pop(1), ElectronFailed)
    assert values == [1, 0.5]
    failed = ct.get_result(second, wait=True)
    assert failed.status == "FAILED"
    (node,) = [each for each in failed.get_all_node_results() if each["node_name"] == "inverse"]
    assert "1 of 3 items failed; item 1 with ZeroDivisionError" in node["error"]
    assert "in inverse" in node["error"]


def test_what_cannot_be_mapped_is_refused_before_a_dispatch(stack: Stack) -> None:
    """Where the graph is built."""
    electron = mapped("x", "y")(ct.electron(lambda x, y: 0, executor="cirro"))
    with pytest.raises(ValueError, match="x has 1, y has 2"):
        ct.dispatch(ct.lattice(lambda: electron([1], [2, 3])))()
