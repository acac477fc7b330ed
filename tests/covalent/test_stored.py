"""Stored values through a real Covalent server: on jobs, on Covalent's other executors, and through its own nodes."""

from __future__ import annotations

from typing import Any

import covalent as ct
import numpy as np
import pytest

from covalent_cirro import CirroBatchExecutor, mapped, stored

CIRRO = "cirro"


@pytest.fixture(autouse=True)
def _credentials(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `cirro local exec` sets: this process stores values itself."""
    for name, value in stack.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


def small(function: Any) -> Any:
    """An electron that is a small job."""
    return ct.electron(function, executor=CirroBatchExecutor(vcpu=1, memory=0.5))


def scaled_sum(data: Any, factor: float) -> float:
    """What electrons compute."""
    return float(data.sum() * factor)


on_aws, on_host = small(scaled_sum), ct.electron(scaled_sum, executor="local")


def twice(row: Any) -> Any:
    """The function of an item."""
    return 2 * row


map_on_aws = mapped("row")(ct.electron(twice, executor=CirroBatchExecutor(vcpu=1, memory=0.5, array_size=2)))
map_on_host = mapped("row")(ct.electron(twice, executor="local"))


@small
def one() -> int:
    """What is computed first."""
    return 1


@small
def total_of(items: list[Any], more: dict[str, Any]) -> float:
    """Handles in lists and dicts."""
    return float(sum(each.sum() for each in items) + more["data"].sum())


@small
def head_of(path: str) -> str:
    """A file arrives as a path."""
    with open(path) as file:
        return file.readline().strip()


def test_every_executor_gets_the_value(stack: Any, tmp_path: Any) -> None:
    """As an argument, as the list of a map, in lists and dicts, through a sublattice, in an operation, as a result."""
    (tmp_path / "notes.txt").write_text("first line\nsecond\n")
    data, notes = stored(np.ones(200_000)), stored(path=tmp_path / "notes.txt")
    rows = stored(np.arange(3))

    @ct.electron
    @ct.lattice(executor=CIRRO)
    def inner(data: Any) -> Any:
        return on_aws(data, 3.0)

    def lattice(data: Any, notes: Any, rows: Any) -> Any:
        plain = [on_aws(data, 1.0), on_host(data, 4.0), inner(data)]
        shifted = on_aws(one() + data, 1.0)  # Covalent's own node, which needs the value: a job
        maps = map_on_aws(rows), map_on_host(rows)
        return [*plain, shifted], total_of([data, data], {"data": data}), head_of(notes), data, maps

    result = ct.get_result(ct.dispatch(ct.lattice(lattice, executor=CIRRO))(data, notes, rows), wait=True)
    failures = [
        (each["error"], each["stderr"]) for each in result.get_all_node_results() if str(each["status"]) == "FAILED"
    ]
    assert str(result.status) == "COMPLETED", failures
    sums, in_containers, head, returned, maps = result.result
    assert sums == [200_000.0, 800_000.0, 600_000.0, 400_000.0]
    assert (in_containers, head) == (600_000.0, "first line")
    assert returned == data
    assert [list(each) for each in maps] == [[0, 2, 4], [0, 2, 4]]


@small
def plus(data: Any, number: int) -> float:
    """What needs the value later."""
    return float(data.sum() + number)


def test_a_value_that_is_gone_fails_its_electron_and_stored_again_a_redispatch_goes_on(stack: Any) -> None:
    """Before there is a job; and the server's log says it as soon as an electron of the dispatch waits."""
    value = np.full(50_000, 3.0)
    data = stored(value)
    bucket, key = data.uri.removeprefix("s3://").split("/", 1)
    stack.client("s3").delete_object(Bucket=bucket, Key=key)
    dispatch_id = ct.dispatch(ct.lattice(lambda data: plus(data, one()), executor=CIRRO))(data)
    result = ct.get_result(dispatch_id, wait=True)
    assert str(result.status) == "FAILED"
    error = next(each["error"] for each in result.get_all_node_results() if each["node_name"] == "plus")
    assert "array float64 (50000,), 400 kB" in error
    assert "No job was submitted. Call stored() again" in error
    assert f"An electron of dispatch {dispatch_id} will fail: The stored array float64 (50000,)" in (
        stack.server_log.read_text()
    )
    assert stored(value) == data
    again = ct.redispatch(dispatch_id, reuse_previous_results=True)()
    result = ct.get_result(again, wait=True)
    assert (str(result.status), result.result) == ("COMPLETED", 150_001.0)
