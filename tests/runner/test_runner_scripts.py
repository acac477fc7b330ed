"""Electrons of a user's script: what they find by name in a job as they do at home, and electrons that are async."""

from __future__ import annotations

import sys
import tempfile
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode
from covalent_cirro.contract.references import Inline

SCRIPT = """
import asyncio
import concurrent.futures
import contextvars
import enum
import multiprocessing
import pickle
from dataclasses import dataclass

FACTOR = 10

@dataclass
class Config:
    rate: float

class Color(enum.Enum):
    RED = 1

def scaled(config):
    assert type(config) is Config
    return Config(config.rate * factor())

def factor():
    return FACTOR

def nested(config):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(scaled, [config])

def pooled(method, configs):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(scaled, configs)

def executed(method, configs):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(scaled, configs))

def pooled_in_a_pool(configs):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(nested, configs))

def pickled(config):
    return pickle.loads(pickle.dumps((config, Color.RED, scaled)))[0]

def given(function, configs):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(function, configs)

def locally():
    def inner(x):
        return x
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.map(inner, [1])

async def slowly(x):
    await asyncio.sleep(0.01)
    return x + 1

async def waits(x):
    context = contextvars.ContextVar("context")
    context.set("set")
    task = asyncio.create_task(slowly(x))
    return await task + sum(await asyncio.gather(slowly(0), slowly(1))), context.get()

async def fails():
    await asyncio.sleep(0)
    raise ValueError("in the middle")

async def leaves_a_task():
    asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    return "done"

async def each():
    yield 1

class Waits:
    async def __call__(self, x):
        return await slowly(x)
"""


def script(name: str = "__main__") -> types.SimpleNamespace:
    """The script's names, as they are where it is run: ``__main__``, or the module that `cirro run` makes of a file."""
    space: dict[str, Any] = {"__name__": name}
    if name != "__main__":
        module = sys.modules[name] = types.ModuleType(name)
        space = vars(module)
        cloudpickle.register_pickle_by_value(module)
    exec(compile(SCRIPT, "/home/ada/script.py", "exec"), space)
    return types.SimpleNamespace(**space)


@pytest.fixture
def ada(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The script in the way that the test says."""
    yield script(request.param)
    if request.param != "__main__":
        cloudpickle.unregister_pickle_by_value(sys.modules.pop(request.param))


def sent(value: Any) -> Inline:
    """Pickled as a client does."""
    return Inline(cloudpickle.dumps(value))


def rates(value: Any) -> list[float]:
    """Of configs that were unpickled where nobody has the script."""
    return [config.rate for config in value]


@pytest.mark.parametrize(
    ("ada", "function", "method"),
    [
        ("__main__", "pooled", "fork"),
        ("__main__", "pooled", "spawn"),
        ("__main__", "pooled", "forkserver"),
        ("__main__", "executed", "spawn"),
        ("my_flows", "pooled", "fork"),
        ("my_flows", "pooled", "spawn"),
    ],
    indirect=["ada"],
)
def test_a_pool_finds_the_scripts_functions_and_classes(runs: Any, ada: Any, function: str, method: str) -> None:
    """However its processes are started; they come back as the script's own."""
    task = runs.task(sent(getattr(ada, function)), method, sent([ada.Config(1.0), ada.Config(2.5)]))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has 108 bytes at most (unix(7))
        ran = runs(task, env={"TMPDIR": short})
    assert ran.code == ExitCode.OK, ran.failure
    assert rates(runs.value(ran)) == [10.0, 25.0]


def test_processes_of_a_pool_have_pools_of_their_own(runs: Any) -> None:
    """What was spawned knows what it was spawned with."""
    ada = script()
    ran = runs(runs.task(sent(ada.pooled_in_a_pool), sent([ada.Config(1.0)])))
    assert rates(runs.value(ran)[0]) == [10.0]


def test_a_function_that_is_an_argument_is_found_too(runs: Any) -> None:
    """It came in a pickle of its own."""
    ada = script()
    ran = runs(runs.task(sent(ada.given), sent(ada.scaled), sent([ada.Config(3.0)])))
    assert rates(runs.value(ran)) == [30.0]


@pytest.mark.parametrize("ada", ["__main__", "my_flows"], indirect=True)
def test_what_pickle_itself_writes_is_read_again(runs: Any, ada: Any) -> None:
    """As `torch.save` does; and the electron's result does not need the script where it is read."""
    ran = runs(runs.task(sent(ada.pickled), sent(ada.Config(4.0))))
    assert ran.code == ExitCode.OK, ran.failure
    assert runs.value(ran).rate == 4.0


def test_packed_electrons_have_each_their_own_script(runs: Any) -> None:
    """Two functions of one name are two functions."""
    first, second = script(), script()
    second.scaled.__globals__["FACTOR"] = 100
    tasks = [
        runs.task(sent(each.pooled), "fork", sent([each.Config(1.0)]), node_id=number)
        for number, each in enumerate((first, second))
    ]
    ran = runs(*tasks)
    assert ran.code == ExitCode.OK, ran.outcome
    assert [rates(runs.value(ran, number)) for number in (0, 1)] == [[10.0], [100.0]]


def test_a_function_inside_a_function_is_not_found_as_at_home(runs: Any) -> None:
    """Pickle says so."""
    ran = runs(runs.task(sent(script().locally)))
    assert "Can't" in ran.failure.message or "cannot" in ran.failure.message
    assert "inner" in ran.failure.message


def test_an_electron_that_is_async_is_run_to_its_end(runs: Any) -> None:
    """Its tasks, too; a context variable that it sets is its own."""
    ran = runs(runs.task(sent(script().waits), 1))
    assert runs.value(ran) == (2 + 3, "set")


def test_a_callable_that_is_async_is_run_to_its_end(runs: Any) -> None:
    """What counts is what the call gives."""
    ran = runs(runs.task(sent(script().Waits()), 1))
    assert runs.value(ran) == 2


def test_a_task_that_it_leaves_behind_ends_with_it(runs: Any) -> None:
    """As with `asyncio.run`."""
    ran = runs(runs.task(sent(script().leaves_a_task)))
    assert runs.value(ran) == "done"


def test_what_it_raises_is_told_without_the_event_loops_frames(runs: Any) -> None:
    """The user's own lines are the traceback."""
    ran = runs(runs.task(sent(script().fails)))
    assert (ran.failure.kind, ran.failure.message) == (Kind.RAISED, "ValueError: in the middle")
    assert "script.py" in ran.failure.traceback
    assert "asyncio" not in ran.failure.traceback


def test_an_async_generator_is_no_result(runs: Any) -> None:
    """Nobody can send one: it is told to return something else."""
    ran = runs(runs.task(sent(script().each)))
    assert ran.failure.kind == Kind.UNPICKLABLE
    assert "async_generator" in ran.failure.message


def test_a_hook_that_is_async_is_run_to_its_end(runs: Any) -> None:
    """Its value is what it returns."""
    import base64

    def transportable(value: Any) -> dict[str, Any]:
        return {"attributes": {"_object": base64.b64encode(cloudpickle.dumps(value)).decode()}}

    attributes = {
        "apply_fn": transportable(script().slowly),
        "apply_args": transportable([41]),
        "apply_kwargs": transportable({}),
        "retval_keyword": "answer",
    }
    hooks = {"call_before": [{"type": "DepsCall", "short_name": "depscall", "attributes": attributes}]}
    ran = runs(runs.task(lambda answer: answer, hooks=hooks))
    assert runs.value(ran) == 42
