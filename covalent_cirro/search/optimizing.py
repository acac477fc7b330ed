"""`optimize`: searches for the best parameters of an electron, each trial a dispatch of its own."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from rich.console import Console
from rich.prompt import Prompt

from covalent_cirro.aws.sessions import access_of
from covalent_cirro.cirro import CirroBatchExecutor
from covalent_cirro.covalent_server import config
from covalent_cirro.deployment.plans import DEFAULT_NAME
from covalent_cirro.errors import SettingsError
from covalent_cirro.history.account import Account
from covalent_cirro.search import pictures as drawing
from covalent_cirro.search import table
from covalent_cirro.search.core import Budget, Search
from covalent_cirro.search.loop import Loop
from covalent_cirro.search.study import StudyTrials
from covalent_cirro.search.trial_dispatches import TrialDispatches
from covalent_cirro.stored_values.handles import Stored
from covalent_cirro.stored_values.storing import stored

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_SCALAR_BYTES = 4096
"""A text of more bytes is stored, as any other value is: Covalent copies values for each dispatch."""

STOP, LEAVE, GO_ON = "stop", "leave", "continue"


def optimize(
    study: optuna.Study,
    electron: Callable[..., Any],
    *,
    space: Mapping[str, BaseDistribution],
    trials: int,
    at_once: int,
    fixed: Mapping[str, Any] | None = None,
    value: Callable[[Any], float] = lambda result: result,
    max_failures: int | None = None,
    max_cost: float | None = None,
    pictures: str | Path | None = None,
) -> None:
    """Search for the best parameters of an electron: each trial is a dispatch, and its electron a job of AWS Batch.

    ``at_once`` trials are in flight; a further one is asked for the moment one ends. What the electron reports
    (`covalent_cirro.trial.report`) goes to the study while it runs, and the study's pruner may end the trial early: its
    job gets SIGTERM, with time to save its checkpoint.

    Everything that is needed to go on is in the study's storage. The same call in a new process, after Ctrl-C or
    whatever ended this one, takes the trials that still run or have ended meanwhile, and computes nothing twice.

    Args:
        study: An Optuna study with one objective. With a storage that outlives this process, the search does too.
        electron: The electron, ``@ct.electron(executor=CirroBatchExecutor(...))``.
        space: Optuna's distribution of each parameter that is searched, by its name.
        trials: Number of the study's trials in all, those of earlier calls, pruned and failed ones included.
        at_once: Number of trials in flight, at most.
        fixed: Values of the electron's other parameters, the same for all trials. All but numbers and short texts are
            stored once, as by `covalent_cirro.stored`.
        value: Takes the number that is optimized from what the electron returns. Default: it returns the number.
        max_failures: Number of failed trials, after which no further one is started. Default: no limit.
        max_cost: US dollars that the trials may cost, after which no further one is started. Costs are estimates
            (`cirro report`), brought up to date every minute. Default: no limit.
        pictures: Folder for pictures of the search. Default: none are drawn; `cirro search` draws them later.

    Raises:
        SettingsError: An argument is wrong; nothing was started.
        SearchError: Another process searches in the study.
        HostError: The Covalent server does not answer.
        KeyboardInterrupt: After Ctrl-C, which asks what becomes of the trials in flight.

    Example:
        >>> study = optuna.create_study(direction="maximize", storage="sqlite:///digits.db", study_name="digits",
        ...                             load_if_exists=True)
        >>> optimize(study, train, space={"rate": FloatDistribution(1e-4, 1e-1, log=True)}, trials=60, at_once=8)
    """
    fixed = dict(fixed or {})
    executor = _checked(study, electron, space, fixed, trials, at_once, max_failures, max_cost)
    last = config.last_deploy()
    account = Account(access_of(executor.settings), last.stack_name if last else DEFAULT_NAME, executor.settings)
    study_trials = StudyTrials(study, space)
    console = Console(stderr=True)
    with account, contextlib.closing(study_trials):
        study_trials.begin()
        search = Search(Budget(trials, at_once, max_failures, max_cost), *study_trials.begun())
        held = {name: _held(each, executor) for name, each in fixed.items()}
        dispatches = TrialDispatches(account, study.study_name, electron, held, value, note=console.print)
        with table.shown(study, console) as show:
            loop = Loop(search, study_trials, dispatches, show=show)
            _run(loop, console, show)
        table.show_end(study, console, search.stopped)
        if pictures is not None:
            for path in drawing.draw(study, Path(pictures)):
                console.print(f"picture  {path}", soft_wrap=True)


def _run(loop: Loop, console: Console, show: table.Show) -> None:
    interrupted = False
    while True:
        try:
            loop.run()
            break
        except KeyboardInterrupt:
            with show.paused():
                answer = _ask(console)
            if answer == LEAVE or interrupted:
                console.print("The trials go on; the same script goes on with them.")
                raise
            if answer == STOP:
                interrupted = True
                loop.stop_trials()
    if interrupted:
        raise KeyboardInterrupt


def _ask(console: Console) -> str:
    if not sys.stdin.isatty():
        return LEAVE
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        return Prompt.ask(
            "What becomes of the trials in flight?", choices=[STOP, LEAVE, GO_ON], default=LEAVE, console=console
        )
    return LEAVE


# --- what is refused before anything is paid for ----------------------------------------------------------------------


def _checked(
    study: optuna.Study,
    electron: Callable[..., Any],
    space: Mapping[str, BaseDistribution],
    fixed: Mapping[str, Any],
    trials: int,
    at_once: int,
    max_failures: int | None,
    max_cost: float | None,
) -> CirroBatchExecutor:
    """The electron's executor, if all arguments can work."""
    if len(study.directions) > 1:
        raise SettingsError(f"the study {study.study_name!r} has {len(study.directions)} objectives; a search has one.")
    for name, number, least in (("trials", trials, 1), ("at_once", at_once, 1), ("max_failures", max_failures, 0)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
            raise SettingsError(f"{name}={number!r} is not possible: give a whole number from {least}.")
    if max_cost is not None and not max_cost > 0:
        raise SettingsError(f"max_cost={max_cost!r} is not possible: give US dollars above 0.")
    object_ = getattr(electron, "electron_object", None)
    if object_ is None:
        raise SettingsError(f"{electron!r} is no electron: write @ct.electron(executor=CirroBatchExecutor(...)).")
    wrong = [name for name, each in space.items() if not isinstance(each, BaseDistribution)]
    if wrong or not space:
        raise SettingsError(
            f"space needs one of Optuna's distributions for each parameter; {wrong or 'it'} has none. Valid are "
            "FloatDistribution, IntDistribution and CategoricalDistribution of optuna.distributions."
        )
    both = sorted(space.keys() & fixed.keys())
    if both:
        raise SettingsError(f"{both} are in space and in fixed: a parameter is searched, or the same for all trials.")
    try:
        inspect.signature(object_.function).bind(**dict.fromkeys([*space, *fixed]))
    except TypeError as error:
        raise SettingsError(
            f"space and fixed do not fit the electron {object_.function.__name__}: {error}. They have "
            f"{sorted([*space, *fixed])}; it takes {list(inspect.signature(object_.function).parameters)}."
        ) from error
    return _executor(object_)


def _executor(electron: Any) -> CirroBatchExecutor:
    executor = electron.metadata.get("executor")
    if isinstance(executor, CirroBatchExecutor):
        return executor
    if executor == CirroBatchExecutor().short_name():
        return CirroBatchExecutor().from_dict(electron.metadata.get("executor_data") or {})
    raise SettingsError(
        f"the electron has the executor {executor!r}: trials run as jobs of AWS Batch, with "
        "executor=CirroBatchExecutor(...)."
    )


def _held(value: Any, executor: CirroBatchExecutor) -> Any:
    """The value, or a handle of it, which is stored now."""
    if isinstance(value, Stored) or (isinstance(value, _SCALARS) and sys.getsizeof(value) < _SCALAR_BYTES):
        return value
    return stored(value, executor=executor)
