"""A search as a person sees it: its trials, the best so far, what it costs. Read from the study alone.

So the process that searches shows it, and any other terminal too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from covalent_cirro.jobs.formatting import usd
from covalent_cirro.search.study import COST, DISPATCH, PRUNING, RUNS, SEARCHED, WHY

ROWS = 20
"""Trials that are shown, at most: those in flight, the best, and the latest of the others."""

_SHOW_S = 1.0

_COLOURS = {"running": "yellow", "ending": "yellow", "complete": "green", "failed": "red", "pruned": "blue"}


class TrialRow(NamedTuple):
    """A trial.

    Attributes:
        number: Its number.
        state: ``waiting`` for a machine, ``running``, ``ending`` (the pruner ends it), ``complete``, ``pruned``,
            ``failed``.
        parameters: Its parameters.
        step: The last step that it has reported; `None` without one.
        value: Its value, or the last one that it has reported.
        best: Whether it is the best so far.
        why: Why it failed.
        dispatch_id: Its dispatch; empty before there is one.
    """

    number: int
    state: str
    parameters: dict[str, Any]
    step: int | None
    value: float | None
    best: bool
    why: str
    dispatch_id: str


def rows(study: optuna.Study) -> list[TrialRow]:
    """The trials of a study, in the order of their numbers; those that wait in Optuna's queue are left out."""
    trials = [each for each in study.get_trials(deepcopy=False) if each.state != TrialState.WAITING]
    best = best_trial(study, trials)
    return [_row(each, best is not None and each.number == best.number) for each in trials]


def best_trial(study: optuna.Study, trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The best of the trials that completed."""
    done = [each for each in trials if each.state == TrialState.COMPLETE and each.value is not None]
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    return min(done, key=lambda each: sign * (each.value or 0.0), default=None)


def cost(study: optuna.Study) -> float:
    """What all trials have cost so far, in US dollars, as far as that is known."""
    return sum(float(each.user_attrs.get(COST, 0)) for each in study.get_trials(deepcopy=False))


def _row(trial: FrozenTrial, best: bool) -> TrialRow:
    step = trial.last_step
    value = trial.value if trial.state == TrialState.COMPLETE else None
    if value is None and step is not None:
        value = trial.intermediate_values[step]
    attrs = trial.user_attrs
    return TrialRow(
        trial.number, _state(trial), dict(trial.params), step, value, best, attrs.get(WHY, ""), attrs.get(DISPATCH, "")
    )


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.RUNNING:
        if trial.user_attrs.get(PRUNING):
            return "ending"
        if SEARCHED in trial.user_attrs and not trial.user_attrs.get(RUNS):
            return "waiting"
        return "running"
    return {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")


def document(study: optuna.Study) -> dict[str, Any]:
    """The search in JSON."""
    found = rows(study)
    best = next((each for each in found if each.best), None)
    return {
        "study": study.study_name,
        "direction": study.direction.name.lower(),
        "trials": [each._asdict() for each in found],
        "best": None if best is None else best._asdict(),
        "cost_usd": cost(study),
    }


def cells(found: list[TrialRow]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table: those in flight, the best, and the latest of the others, `ROWS` at most."""
    names = list(dict.fromkeys(name for each in found for name in each.parameters))
    lines = [
        [
            str(each.number),
            *(_text(each.parameters.get(name)) for name in names),
            each.state,
            "" if each.step is None else str(each.step),
            _text(each.value) + (" best" if each.best else ""),
        ]
        for each in _shown(found)
    ]
    return ["trial", *names, "state", "step", "value"], lines


def _view(study: optuna.Study) -> RenderableType:
    found = rows(study)
    headings, lines = cells(found)
    table = Table(title=f"search in {study.study_name}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("state", "value") else "right")
    for line in lines:
        table.add_row(*(Text(each, style=_COLOURS.get(each, "")) for each in line))
    return Group(table, Text(summary(study, found), style="dim"))


def summary(study: optuna.Study, found: list[TrialRow]) -> str:
    """``12 complete, 5 pruned, 8 running (on 6 machines); best 0.981 (trial 7); ≈ $1.20 so far``."""
    counts = {state: sum(each.state == state for each in found) for state in ("complete", "pruned", "failed")}
    waiting = sum(each.state == "waiting" for each in found)
    machines = sum(each.state in ("running", "ending") for each in found)
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    parts += [f"{machines} running"] if machines else []
    parts += [f"{waiting} waiting for a machine"] if waiting else []
    best = next((each for each in found if each.best), None)
    parts = [", ".join(parts) or "no trial yet"]
    parts += [f"best {_text(best.value)} (trial {best.number})"] if best is not None else []
    spent = cost(study)
    return "; ".join([*parts, *([f"≈ {usd(spent)} so far"] if spent else [])])


def _shown(found: list[TrialRow]) -> list[TrialRow]:
    first = [each for each in found if each.best or each.state in ("waiting", "running", "ending")]
    others = [each for each in found if each not in first]
    return sorted([*first[:ROWS], *others[max(0, len(others) - max(0, ROWS - len(first))) :]])


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# --- while it runs ----------------------------------------------------------------------------------------------------


class Show:
    """Shows a search: on a terminal a table that is brought up to date, else a line for each trial that has ended."""

    def __init__(self, study: optuna.Study, console: Console) -> None:
        self._study, self._console = study, console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._shown_at = -float("inf")
        self._told: set[int] = {each.number for each in rows(study) if each.state in ("complete", "pruned", "failed")}

    def __call__(self) -> None:
        """Show the study as it is, at most once a second."""
        if time.monotonic() < self._shown_at + _SHOW_S:
            return
        self._shown_at = time.monotonic()
        for each in rows(self._study):
            if each.state in ("complete", "pruned", "failed") and each.number not in self._told:
                self._told.add(each.number)
                if self._live is None or each.state == "failed":
                    self._console.print(_line(each), soft_wrap=True, markup=False, highlight=False)
        if self._live is not None:
            self._live.update(_view(self._study), refresh=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question inside the block."""
        if self._live is not None:
            self._live.stop()
        yield
        if self._live is not None:
            self._live.start()


def _line(row: TrialRow) -> str:
    parameters = ", ".join(f"{name} {_text(value)}" for name, value in row.parameters.items())
    value = "" if row.value is None else f" {_text(row.value)}"
    why = f": {row.why}" if row.why else ""
    return f"trial {row.number} {row.state}{value} ({parameters}){why}"


@contextlib.contextmanager
def shown(study: optuna.Study, console: Console) -> Iterator[Show]:
    """Show a search inside the block."""
    show = Show(study, console)
    with contextlib.ExitStack() as stack:
        if show._live is not None:
            stack.enter_context(show._live)
        yield show
        show._shown_at = -float("inf")
        show()


def show_end(study: optuna.Study, console: Console, stopped: str) -> None:
    """Show how a search has ended: the best trial, and where its result is."""
    found = rows(study)
    if console.is_terminal:
        console.print(_view(study))
    else:
        console.print(summary(study, found), soft_wrap=True, highlight=False)
    if stopped:
        console.print(f"no further trial was started: {stopped}", soft_wrap=True, markup=False, highlight=False)
    best = next((each for each in found if each.best), None)
    if best is not None:
        parameters = ", ".join(f"{name}={value!r}" for name, value in best.parameters.items())
        console.print(
            f"best  {_text(best.value)} with {parameters}\n"
            f'result  ct.get_result("{best.dispatch_id}").result   `cirro show {best.dispatch_id}:0` has its log',
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
