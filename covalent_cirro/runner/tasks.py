"""Runs one task by Covalent's rules (hooks, unpickle, call, hooks, pickle), in the container and on the server.

Knows local files only. It imports Covalent only if unpickling has already imported it.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from covalent_cirro.contract import nested
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.runner import failures, hooks, main_module, results
from covalent_cirro.runner.coroutines import finished
from covalent_cirro.runner.failures import Stage

Open = Callable[[], BinaryIO]
"""Opens bytes as a seekable file. Each use opens them anew: like separate jobs, no two tasks share an object."""


Value = TypeVar("Value")
Result = TypeVar("Result")

Compute = Callable[[Any, list[Any], dict[str, Any]], None]
"""Called with the function, the positional and the keyword arguments. Raises `failures.NoResult`."""


class Job(NamedTuple):
    """One task whose bytes are local.

    Attributes:
        dispatch_id: Id of its dispatch.
        node_id: Id of its node.
        name: Name of the electron, for messages.
        covalent: Version of Covalent on the server, for messages.
        function: Opens the pickle of the function.
        hooks: Opens Covalent's ``hooks.json``; `None` without one.
        args: Open the pickles of the positional arguments.
        kwargs: Open the pickles of the keyword arguments.
    """

    dispatch_id: str
    node_id: int
    name: str
    covalent: str
    function: Open
    hooks: Open | None
    args: list[Open]
    kwargs: dict[str, Open]


def unpickle(source: Open) -> Any:
    """Unpickle from a stream: neither the whole pickle nor that of a part of a list is held in memory."""
    with source() as file:
        value = nested.read(file)
        if value is not None:
            return nested.load(value, lambda part: load_part(file, part))
        file.seek(0)
        return main_module.load(file)


def load_part(file: BinaryIO, part: nested.PickledPart) -> Any:
    """Unpickle a part of an open pickle."""
    return main_module.load(cast(BinaryIO, io.BufferedReader(nested.PartFile(file, part))))


def run(
    job: Job, folder: str, started: Callable[[], None], unpickle: Callable[[Open], Any] = unpickle
) -> results.Packed | Failure:
    """Run a task and write its result to files. Never raises: every exception becomes a `Failure`.

    Args:
        job: The task.
        folder: Folder for the result's files, which are named after the node.
        started: Called just before the electron's function.
        unpickle: Unpickles the function and the arguments.
    """

    def call(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return finished(function(*args, **kwargs))

    return _run(job, folder, started, unpickle, call, lambda value: results.pack(value, folder, f"{job.node_id}"))


def run_mapped(job: Job, folder: str, started: Callable[[], None], compute: Compute) -> Failure | None:
    """Run a task that is called for each item of a list. Never raises, as `run`.

    Args:
        job: The task, with the arguments that all items share.
        folder: Folder for files.
        started: Called just before the first item.
        compute: Computes all items and writes their results.

    Returns:
        Why the task ended before all items were computed; `None` if they were.
    """
    return _run(job, folder, started, unpickle, compute, lambda _: None)


One = Callable[[str, bool], "results.Packed | Failure | None"]
"""Runs a task's function in a process, with a folder for the process's own files; and whether its result is kept."""

Spread = Callable[[One], "results.Packed | Failure | None"]
"""Runs a function in several processes (`ranks.Ranks.run`)."""


def run_in_processes(
    job: Job, folder: str, started: Callable[[], None], spread: Spread
) -> results.Packed | Failure | None:
    """Run a task whose function is called in several processes. Never raises, as `run`.

    Hooks are run once, in this process: those before the function before the processes begin.

    Args:
        job: The task.
        folder: Folder for files.
        started: Called in the process of rank 0 just before the electron's function.
        spread: Runs it. Only one process keeps its result; what the others return is not even pickled.

    Returns:
        The result of rank 0, or the first failure; `None` if all processes of this compute node have returned, and
        none has rank 0.
    """

    def call(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return finished(function(*args, **kwargs))

    def in_processes(attempt: Callable[[], Any], explain: Callable[[BaseException], Failure]) -> Any:
        def one(own: str, keeps: bool) -> results.Packed | Failure | None:
            try:
                main_module.begin(own)
                value = attempt()
                return results.pack(value, folder, f"{job.node_id}") if keeps else None
            except failures.NoResult as error:
                return error.failure
            except BaseException as error:
                return explain(error)

        return spread(one)

    return _run(job, folder, started, unpickle, call, lambda found: found, in_processes)


def _run(
    job: Job,
    folder: str,
    started: Callable[[], None],
    unpickle: Callable[[Open], Any],
    compute: Callable[[Any, list[Any], dict[str, Any]], Value],
    pack: Callable[[Value], Result],
    in_processes: Callable[[Callable[[], Value], Callable[[BaseException], Failure]], Value] | None = None,
) -> Result | Failure:
    context = _CovalentContext(job.dispatch_id, job.node_id)
    main_module.begin(folder)
    stage = Stage(Kind.UNREADABLE, "reading the hooks")

    def explain(error: BaseException) -> Failure:
        return failures.explain(error, stage, job.covalent)

    try:
        todo: dict[str, Any] = {}
        if job.hooks is not None:
            with job.hooks() as file:
                todo = json.loads(file.read() or b"{}") or {}
        returned: list[tuple[str, Any]] = []
        for hook in hooks.before(todo):
            stage = hook.stage
            returned.append((hook.retval_keyword, hook.run()))
            context.enter()
        given = hooks.keyword_arguments(returned)
        del returned

        def call() -> Value:
            # After the hooks: deps_pip may have installed what the function needs.
            nonlocal stage
            stage = Stage(Kind.UNREADABLE, f"unpickling the function of {job.name!r}")
            function = unpickle(job.function)
            args = []
            for i, argument in enumerate(job.args):
                stage = Stage(Kind.UNREADABLE, f"unpickling positional argument {i} of {job.name!r}")
                args.append(unpickle(argument))
            kwargs = {}
            for key, argument in job.kwargs.items():
                stage = Stage(Kind.UNREADABLE, f"unpickling the argument {key!r} of {job.name!r}")
                kwargs[key] = unpickle(argument)
            kwargs.update(given)
            given.clear()
            context.enter()

            stage = Stage(Kind.RAISED, f"the electron {job.name!r}")
            started()
            return compute(function, args, kwargs)

        value = call() if in_processes is None else in_processes(call, explain)
        if in_processes is not None and isinstance(value, Failure):
            return value

        for hook in hooks.after(todo):
            stage = hook.stage
            hook.run()
        return pack(value)
    except failures.NoResult as error:
        return error.failure
    except BaseException as error:
        return explain(error)
    finally:
        context.leave()


class _CovalentContext:
    """Sets ``ct.get_context()`` for the electron, if unpickling has imported Covalent."""

    def __init__(self, dispatch_id: str, node_id: int) -> None:
        self._dispatch_id = dispatch_id
        self._node_id = node_id
        self._entered: AbstractContextManager[Any] | None = None

    def enter(self) -> None:
        if self._entered is None and "covalent" in sys.modules:
            try:
                from covalent.executor.utils import context
            except ImportError:
                return
            # Any: its annotations have the two types the wrong way round.
            set_context: Any = context.set_context
            self._entered = set_context(self._dispatch_id, self._node_id)
            self._entered.__enter__()

    def leave(self) -> None:
        if self._entered is not None:
            self._entered.__exit__(None, None, None)
