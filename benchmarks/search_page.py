"""What the runs of searches say: the figure, the tables, and whether the paper's order holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon
from search_methods import METHODS
from search_problems import NOISE, PROBLEMS, Problem
from search_simulation import Evaluation, regret_at

Runs = Mapping[tuple[str, str], Mapping[int, list[Evaluation]]]
"""By problem and method, the evaluations of each seed."""

ORDER = (("thompson", "batches"), ("thompson", "random"), ("batches", "random"))
"""What the paper finds: the first of a pair before the second."""
OTHERS = (("thompson", "tpe"), ("thompson", "gp"), ("thompson", "ucb"))
LEVEL = 0.05
"""A difference counts if it would come by chance at most this often (Wilcoxon's signed-rank test, two-sided)."""
LOWEST = 1e-4
"""Regrets below this are drawn at this: an axis of logarithms has no 0."""
MOMENTS = {"half of the time": 0.5, "the end": 1.0}


def verdict(first: Sequence[float], second: Sequence[float]) -> str:
    """Whether the first method has less regret than the second, in words, from regrets of the same seeds."""
    differences = np.asarray(second) - np.asarray(first)
    if not len(differences):
        return "not run"
    wins = f"{int((differences > 0).sum())} of {len(differences)}"
    if not differences.any():
        return "no difference"
    chance = wilcoxon(differences, zero_method="zsplit").pvalue
    if chance >= LEVEL:
        return f"not decided ({wins})"
    return f"yes ({wins})" if differences.sum() > 0 else f"**no**, the other way ({wins})"


def regrets(runs: Runs, problem: str, method: str, moment: float) -> dict[int, float]:
    """By seed, the simple regret of a method at a part of a problem's time."""
    at = np.array([moment * PROBLEMS[problem].end])
    return {
        seed: float(regret_at(PROBLEMS[problem], evaluations, at)[0])
        for seed, evaluations in runs[problem, method].items()
    }


def compared(runs: Runs, problem: str, pair: tuple[str, str], moment: float) -> str:
    """The verdict over the seeds that both methods have been run with."""
    first, second = (regrets(runs, problem, method, moment) for method in pair)
    seeds = sorted(first.keys() & second.keys())
    return verdict([first[seed] for seed in seeds], [second[seed] for seed in seeds])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def summary(runs: Runs, order: Sequence[tuple[str, str]] = ORDER) -> str:
    """Whether the order holds, in a sentence for each of its pairs."""
    sentences = []
    for first, second in order:
        words = {problem: compared(runs, problem, (first, second), 1.0) for problem in PROBLEMS}
        groups = {
            "holds on": [name for name, word in words.items() if word.startswith("yes")],
            "is reversed on": [name for name, word in words.items() if word.startswith("**no**")],
            "is not decided on": [name for name, word in words.items() if word.startswith(("not decided", "no diff"))],
        }
        said = [
            f"{verb} {', '.join(PROBLEMS[each].title for each in names)}" for verb, names in groups.items() if names
        ]
        claim = f"{_capital(METHODS[first].title)} before {METHODS[second].title}"
        sentences.append(f"- {claim}: {'; '.join(said) or 'not run'} (at the end).")
    return "\n".join(sentences)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.3g} ± {error:.1g}"


def _experiments(runs: Runs) -> str:
    rows = []
    for name, problem in PROBLEMS.items():
        counts = [len(runs[name, method]) for method in METHODS]
        ended = [len(each) for each in runs[name, "thompson"].values()] or [0]
        rows.append(
            [
                problem.title,
                str(problem.columns),
                str(problem.workers),
                problem.times,
                f"{problem.end:g}",
                str(problem.random_points),
                f"{np.mean(ended):.0f}",
                str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}",
            ]
        )
    return table(
        ["function", "dimensions", "workers", "times", "end", "random at the start", "evaluations", "seeds"], rows
    )


def page(runs: Runs) -> str:
    """The page, in Markdown."""
    regret_rows = [
        [method.title, *(_mean(list(regrets(runs, problem, name, 1.0).values())) for problem in PROBLEMS)]
        for name, method in METHODS.items()
    ]
    order_rows = [
        [
            f"{METHODS[first].title} before {METHODS[second].title}",
            moment,
            *(compared(runs, problem, (first, second), part) for problem in PROBLEMS),
        ]
        for first, second in (*ORDER, *OTHERS)
        for moment, part in MOMENTS.items()
    ]
    titles = [problem.title for problem in PROBLEMS.values()]
    return f"""# Parallel searches in simulated time

Made by `python benchmarks/search.py`. It repeats the simulations of Kandasamy, Krishnamurthy, Schneider and
Póczos, "Parallelised Bayesian Optimisation via Thompson Sampling" (AISTATS 2018), with
[`search.ThompsonSampler`](../docs/search.md) as the Thompson sampling. It compares Optuna's samplers and a plain
upper confidence bound (UCB) with it. No job runs: the time of an evaluation is drawn, and choosing a point takes
no time.

![Simple regret against simulated time, a panel for each function](../docs/pictures/search-regret.svg)

Simple regret: how far the best point that has been evaluated is below the function's highest value, without
noise. Lines are means over the seeds, bands are one standard error. Regrets below {LOWEST:g} are drawn at
{LOWEST:g}.

## Whether the paper's order holds

{summary(runs)}

{table(["claim", "at", *titles], order_rows)}

"Yes" and "no": the difference between the two methods over the same seeds would come by chance less than once in
{1 / LEVEL:.0f} times (Wilcoxon's signed-rank test, two-sided). In brackets: in how many of the seeds the first
method was ahead.

## Regret at the end

{table(["method", *titles], regret_rows)}

## Experiments

{_experiments(runs)}

- Functions and distributions of times are those of the authors' code (github.com/kirthevasank/gp-parallel-ts).
  The functions of 14 dimensions are sums: of Park's function over three groups of four columns (two columns
  change nothing), and of Currin's over seven groups of two. Times have a mean of 1. Which function has which
  distribution, and where an experiment ends, is ours.
- Observations have Gaussian noise with a standard deviation of {NOISE}. Every method starts with the same random
  points; times and noise of the trial of a number are the same for all. A synchronous method waits until all
  evaluations have ended.
- Thompson sampling and UCB have the same Gaussian process, and do nothing about trials in flight. UCB is the mean
  and √2 standard deviations, as in the code of arXiv 2603.13501. Optuna's samplers have their defaults: TPE takes
  trials in flight for bad ones (constant liar), and the GP sampler integrates over the values that they may have.
- The authors' code maximises draws by random search. This one does so by gradients and within bounds, so that an
  optimum in a corner of the cube, as Park's, is found by the first draws that rise towards it.
"""


def draw(runs: Runs, path: Path) -> None:
    """Draw regret against time, a panel for each problem, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "search"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    for (name, problem), panel in zip(PROBLEMS.items(), panels.flat, strict=True):
        times = np.linspace(0, problem.end, 81)
        for key, method in METHODS.items():
            if runs[name, key]:
                middle, error = _curve(problem, list(runs[name, key].values()), times)
                style = "--" if method.synchronous or key == "random" else "-"
                panel.plot(times, middle, style, color=method.color, label=method.title, linewidth=1.4)
                panel.fill_between(
                    times,
                    np.maximum(middle - error, LOWEST),
                    middle + error,
                    color=method.color,
                    alpha=0.15,
                    linewidth=0,
                )
        panel.set_yscale("log")
        panel.set_title(f"{problem.title}: {problem.workers} workers, {problem.times} times", fontsize=10)
        panel.set_xlabel("time (mean evaluations)")
        panel.set_ylabel("simple regret")
        panel.grid(alpha=0.25)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _curve(
    problem: Problem, runs: Sequence[list[Evaluation]], times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard error at each time; NaN while a run has no evaluation."""
    all_runs = np.maximum([regret_at(problem, evaluations, times) for evaluations in runs], LOWEST)
    error = all_runs.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.zeros(len(times))
    return all_runs.mean(axis=0), error
