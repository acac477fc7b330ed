"""Pictures of a search: its history, its regret, what the parameters matter, and the learning curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from covalent_cirro.errors import SearchError

_SIZE = (7.0, 4.2)
_DONE, _PRUNED, _BEST = "#4477aa", "#bbbbbb", "#ee6677"


def draw(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw the pictures; returns the paths of those for which there is something to draw.

    Args:
        study: The study.
        folder: Folder for the pictures, which is made.

    Raises:
        SearchError: No trial has ended yet.
    """
    trials = study.get_trials(deepcopy=False)
    done = [each for each in trials if each.state == TrialState.COMPLETE and each.value is not None]
    if not done:
        raise SearchError(f"no trial of the study {study.study_name!r} has completed: there is nothing to draw.")
    import matplotlib

    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    best = _running_best(study, done)
    drawn = [
        _figure(
            folder / "history.png", "value of each trial, and the best so far", "trial", "value", _history, done, best
        ),
        _figure(
            folder / "regret.png", "distance to the best value of the search", "trial", "regret", _regret, done, best
        ),
    ]
    if any(each.intermediate_values for each in trials):
        title = "learning curves; those that the pruner ended are grey"
        drawn.append(_figure(folder / "learning_curves.png", title, "step", "value", _curves, study, trials))
    importances = _importances(study, done)
    if importances:
        title = "how much of the differences a parameter explains (PED-ANOVA)"
        drawn.append(_figure(folder / "importances.png", title, "share", "", _bars, importances))
    return drawn


def _running_best(study: optuna.Study, done: list[FrozenTrial]) -> list[float]:
    better = max if study.direction == StudyDirection.MAXIMIZE else min
    found: list[float] = []
    for each in done:
        found.append(better([*found[-1:], float(each.value or 0.0)]))
    return found


def _importances(study: optuna.Study, done: list[FrozenTrial]) -> dict[str, float]:
    varied = [name for name in done[0].params if len({repr(each.params.get(name)) for each in done}) > 1]
    if len(done) < 4 or len(varied) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied))


def _figure(path: Path, title: str, x: str, y: str, fill: Any, *given: Any) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=_SIZE, layout="constrained")
    fill(axes, *given)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _history(axes: Any, done: list[FrozenTrial], best: list[float]) -> None:
    numbers = [each.number for each in done]
    axes.scatter(numbers, [each.value for each in done], color=_DONE, s=18)
    axes.step(numbers, best, where="post", color=_BEST, linewidth=2)


def _regret(axes: Any, done: list[FrozenTrial], best: list[float]) -> None:
    distances = [abs(each - best[-1]) for each in best]
    axes.step([each.number for each in done], distances, where="post", color=_BEST, linewidth=2)
    if any(distances):
        axes.set_yscale("log" if min(each for each in distances if each) < max(distances) / 20 else "linear")


def _curves(axes: Any, study: optuna.Study, trials: list[FrozenTrial]) -> None:
    best = study.best_trial.number
    for each in trials:
        points = [(step, value) for step, value in sorted(each.intermediate_values.items()) if math.isfinite(value)]
        if points:
            pruned = each.state != TrialState.COMPLETE
            colour = _BEST if each.number == best else _PRUNED if pruned else _DONE
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                linewidth=2.5 if each.number == best else 1,
                zorder=1 + (not pruned),
            )
            if pruned:
                axes.plot(*points[-1], marker="x", color=colour)


def _bars(axes: Any, importances: dict[str, float]) -> None:
    names = list(importances)[::-1]
    axes.barh(names, [importances[name] for name in names], color=_DONE)
