"""The benchmark of searches: its functions, its simulated time, and what its page says for given regrets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
from search_methods import METHODS
from search_page import page, summary, verdict
from search_problems import PROBLEMS, Problem
from search_simulation import Evaluation, regret_at, simulate

BEST = {
    "branin": [0.5427728435726529, 0.1516666666666667],
    "hartmann": [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573],
    "park": [1.0, 1.0, 1.0, 1.0],
    "currin": [0.21666667, 0.0],
}
SMALL = replace(PROBLEMS["branin"], end=3.0)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Optuna does not log each trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_highest_value_of_a_function(name: str) -> None:
    """At its known point, which is repeated for each group of columns; nowhere is it higher."""
    problem = PROBLEMS[name]
    best = np.resize(BEST[name], problem.columns)
    assert problem.regret(problem.value(best)) == pytest.approx(0, abs=1e-4)
    somewhere = np.random.default_rng(0).random((300, problem.columns))
    assert all(problem.value(x) < problem.value(best) + 1e-4 for x in somewhere)


@pytest.mark.parametrize("name", PROBLEMS)
def test_times_have_a_mean_of_one(name: str) -> None:
    """So that the end of an experiment is a number of evaluations for each worker."""
    durations = [PROBLEMS[name].duration(0, number) for number in range(2000)]
    assert np.mean(durations) == pytest.approx(1, abs=0.08)
    assert min(durations) >= 0


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_simulation(synchronous: bool) -> None:
    """Evaluations end in order, before the end; as many begin as there are workers, and all of a batch at once."""
    method = replace(METHODS["random"], synchronous=synchronous)
    ended = simulate(SMALL, method, seed=0)
    times = [each.time for each in ended]
    assert times == sorted(times)
    if synchronous:
        assert len(ended) % SMALL.workers == 0
        first = [SMALL.duration(0, number) for number in range(SMALL.workers)]
        assert times[SMALL.workers - 1] == pytest.approx(max(first))
    else:
        assert times[-1] <= SMALL.end
        assert sum(SMALL.duration(0, number) for number in range(len(ended))) <= SMALL.workers * SMALL.end


def test_methods_start_with_the_same_points() -> None:
    """And wait the same times for them."""
    one, other = (simulate(SMALL, METHODS[name], seed=4) for name in ("random", "tpe"))
    assert one[: SMALL.workers] == other[: SMALL.workers]


def test_regret_is_that_of_the_best_so_far() -> None:
    """Unknown before the first evaluation has ended."""
    problem = Problem("none", lambda x: 0.0, 1, 1, 10.0, 1, "uniform", 5.0)
    evaluations = [Evaluation(1.0, 4.0), Evaluation(2.0, 3.0), Evaluation(3.0, 9.0)]
    found = regret_at(problem, evaluations, np.array([0.5, 1.0, 2.5, 3.0]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [6.0, 6.0, 1.0]


def test_verdicts() -> None:
    """Better, worse, not to be told apart, the same, and not run."""
    low, high = np.linspace(0.1, 0.2, 15), np.linspace(1, 2, 15)
    assert verdict(low, high) == "yes (15 of 15)"
    assert verdict(high, low) == "**no**, the other way (0 of 15)"
    assert verdict(low, low[::-1]).startswith("not decided (7 of 15)")
    assert verdict(low, low) == "no difference"
    assert verdict([], []) == "not run"


def test_the_page_says_what_does_not_hold() -> None:
    """For each pair, the functions on which the order holds, is reversed or not decided; and what was not run."""

    def runs(value: float) -> dict[int, list[Evaluation]]:
        return {seed: [Evaluation(0.1, value - seed / 1000)] for seed in range(15)}

    values = {"thompson": -1.0, "batches": -3.0, "random": -2.0}
    known = {
        (problem, method): runs(values[method]) if problem == "branin" and method in values else {}
        for problem in PROBLEMS
        for method in METHODS
    }
    assert "Asynchronous Thompson sampling before synchronous Thompson sampling: holds on Branin (" in summary(known)
    assert "Synchronous Thompson sampling before asynchronous random: is reversed on Branin (" in summary(known)
    assert "not run" in page(known)
