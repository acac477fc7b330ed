"""``python benchmarks/search.py``: parallel searches in simulated time, as in the paper; writes ``SEARCH.md``.

Each run (function, method, seed) is stored in ``build/search/`` when it ends, so that a further call continues.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported: proposals are small

import optuna
import torch
from search_methods import METHODS
from search_page import draw, page
from search_problems import PROBLEMS
from search_simulation import Evaluation, simulate

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "build" / "search"
PAGE = ROOT / "benchmarks" / "SEARCH.md"
FIGURE = ROOT / "docs" / "pictures" / "search-regret.svg"
SEEDS = 15


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then draw what is there."""
    parser = argparse.ArgumentParser(description="Compares parallel searches in simulated time.")
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=tuple(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"number of seeds (default: {SEEDS})")
    parser.add_argument("--draw", action="store_true", help="only draw and write what is there")
    asked = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    if not asked.draw:
        for problem, method, seed in order(asked.problems, asked.methods, asked.seeds):
            run(problem, method, seed)
    runs = {
        (problem, method): {int(path.stem): read(path) for path in sorted((RUNS / problem / method).glob("*.json"))}
        for problem in PROBLEMS
        for method in METHODS
    }
    draw(runs, FIGURE)
    PAGE.write_text(page(runs))
    print(f"written: {PAGE.relative_to(ROOT)} and {FIGURE.relative_to(ROOT)}")


def order(problems: Sequence[str], methods: Sequence[str], seeds: int) -> list[tuple[str, str, int]]:
    """Runs in their order: seed by seed, so that what is there compares methods at any time; the slowest one last."""
    runs = itertools.product(range(seeds), problems, methods)
    return sorted(((problem, method, seed) for seed, problem, method in runs), key=lambda run: run[1] == "gp")


def run(problem: str, method: str, seed: int) -> None:
    """One search, unless it has been run."""
    path = RUNS / problem / method / f"{seed:03}.json"
    if path.exists():
        return
    began = time.process_time()
    evaluations = simulate(PROBLEMS[problem], METHODS[method], seed)
    took = time.process_time() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"cpu_s": round(took, 1), "evaluations": evaluations}))
    part.replace(path)
    print(f"{problem} {method} {seed}: {len(evaluations)} evaluations, {took:.0f} s", flush=True)


def read(path: Path) -> list[Evaluation]:
    """The evaluations of a run."""
    return [Evaluation(*each) for each in json.loads(path.read_text())["evaluations"]]


if __name__ == "__main__":
    sys.exit(main())
