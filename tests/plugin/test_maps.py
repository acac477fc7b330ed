"""Mapped electrons as array jobs: the client's function, the plugin, the runner and the emulated account together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, ElectronFailed, item, mapped
from tests.plugin.conftest import Account

Make = Callable[..., CirroBatchExecutor]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@mapped("x")
def placed(x: int, factor: int = 1) -> tuple[int, int, int]:
    """An electron that knows the place of its item, and prints."""
    print("item", item().index)
    return (x * factor, *item())


@mapped("x")
def inverse(x: int) -> float:
    """An electron that fails for 0."""
    return 1 / x


async def test_items_are_shared_over_the_jobs_of_an_array(
    executor: Make, metadata: dict[str, Any], account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """One SubmitJob; the results are in the order of the items, and the logs too."""
    account.emulator.calls.reset()
    made = executor(array_size=3)
    result = await made.run(placed, [], {"x": list(range(7)), "factor": 10}, metadata)
    assert result == [(10 * i, i, 7) for i in range(7)]
    counts = account.emulator.calls.counts("client")
    assert counts["batch:SubmitJob"]["count"] == 1
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("item")] == [f"item {i}" for i in range(7)]
    assert "--- items 0-1 (job 0) ---" in printed


async def test_a_map_of_one_job_is_no_array(executor: Make, metadata: dict[str, Any]) -> None:
    """But an ordinary job that has all items."""
    assert await executor(array_size=1).run(placed, [], {"x": [1, 2]}, metadata) == [(1, 0, 2), (2, 1, 2)]


async def test_all_items_are_computed_before_the_electron_fails(executor: Make, metadata: dict[str, Any]) -> None:
    """The error has a table and the first traceback."""
    with pytest.raises(TaskRuntimeError) as caught:
        await executor(array_size=2).run(inverse, [], {"x": [1, 0, 2, 0]}, metadata)
    text = str(caught.value)
    assert "2 of 4 items failed; item 1 with ZeroDivisionError: division by zero" in text
    assert "1, 3" in text
    assert "in inverse" in text
    assert "an array of 2 jobs" in text


async def test_errors_are_values_if_the_executor_says_so(executor: Make, metadata: dict[str, Any]) -> None:
    """In the places of the items."""
    made = executor(array_size=2, on_error="return")
    first, second, third = await made.run(inverse, [], {"x": [1, 0, 2]}, metadata)
    assert (first, third) == (1, 0.5)
    assert isinstance(second, ElectronFailed)
    assert "ZeroDivisionError" in str(second)
