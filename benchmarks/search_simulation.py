"""Runs one search in simulated time."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import optuna
from search_methods import Method
from search_problems import Problem


class Evaluation(NamedTuple):
    """An evaluation that has ended: when, in simulated time, and the value at its point without noise."""

    time: float
    value: float


def simulate(problem: Problem, method: Method, seed: int) -> list[Evaluation]:
    """Evaluations that end until the problem's end, in the order in which they end.

    All methods get the same random points at the start, and the same times and noise for the trial of a number.
    """
    study = optuna.create_study(direction="maximize", sampler=method.sampler(seed))
    space = {f"x{column}": optuna.distributions.FloatDistribution(0, 1) for column in range(problem.columns)}
    for point in problem.start(seed):
        study.enqueue_trial(dict(zip(space, point.tolist(), strict=True)))
    running: list[tuple[float, int, optuna.Trial, float]] = []
    ended: list[Evaluation] = []

    def begin(now: float) -> None:
        trial = study.ask(space)
        value = problem.value(np.array([trial.params[name] for name in space]))
        heapq.heappush(running, (now + problem.duration(seed, trial.number), trial.number, trial, value))

    def end() -> float:
        now, number, trial, value = heapq.heappop(running)
        study.tell(trial, value + problem.noise(seed, number))
        ended.append(Evaluation(now, value))
        return now

    now = 0.0
    while True:
        for _ in range(problem.workers - len(running)):
            begin(now)
        if running[0][0] > problem.end:
            return ended
        now = end()
        while method.synchronous and running:
            now = end()


def regret_at(problem: Problem, evaluations: list[Evaluation], times: np.ndarray) -> np.ndarray:
    """Simple regret at each of some times: that of the best point evaluated by then; NaN before the first."""
    ends = np.array([each.time for each in evaluations])
    best = np.maximum.accumulate([each.value for each in evaluations]) if evaluations else np.array([])
    counts = np.searchsorted(ends, times, side="right")
    return np.array([problem.regret(best[count - 1]) if count else np.nan for count in counts])
