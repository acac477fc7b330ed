"""The functions of the paper's simulations, the random times of their evaluations, and their noise. Pure.

Functions, optima and times are those of the authors' code (github.com/kirthevasank/gp-parallel-ts): all are maximised;
evaluation times have a mean of 1; a function of few dimensions becomes one of many by adding it over groups of columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

NOISE = 0.1
"""Standard deviation of the Gaussian noise of an observation, as in the authors' demo."""


def branin(x: Vector) -> float:
    """Branin's function, of the unit square, negative."""
    a, b = 15 * x[0] - 5, 15 * x[1]
    square = (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
    return float(-(square + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10))


HARTMANN_SCALES = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
HARTMANN_CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(x: Vector) -> float:
    """Hartmann's function of 6 dimensions."""
    return float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(HARTMANN_SCALES * (x - HARTMANN_CENTRES) ** 2).sum(axis=1)))


def park(x: Vector) -> float:
    """Park's first function, of 4 dimensions; written so that it has a value where the first is 0."""
    root = (np.sqrt(x[0] ** 2 + (x[1] + x[2] ** 2) * x[3]) - x[0]) / 2
    return float(root + (x[0] + 3 * x[3]) * np.exp(1 + np.sin(x[2])))


def currin(x: Vector) -> float:
    """Currin's exponential function, of 2 dimensions."""
    factor = 1.0 if x[1] <= 0 else 1 - np.exp(-1 / (2 * x[1]))
    above = 2300 * x[0] ** 3 + 1900 * x[0] ** 2 + 2092 * x[0] + 60
    return float(factor * above / (100 * x[0] ** 3 + 500 * x[0] ** 2 + 4 * x[0] + 20))


@dataclass(frozen=True)
class Problem:
    """One experiment: what is maximised, by how many workers, with which times.

    Attributes:
        title: As figures and tables call it.
        function: The function of one group of columns, on the unit cube.
        group: Columns of a group.
        columns: Columns of all. Those that are left over, after as many groups as fit, change nothing.
        optimum: The highest value of one group.
        workers: Evaluations at the same time.
        times: Distribution of the time of an evaluation, whose mean is 1.
        end: Simulated time at which the experiment ends.
    """

    title: str
    function: Callable[[Vector], float]
    group: int
    columns: int
    optimum: float
    workers: int
    times: str
    end: float

    @property
    def groups(self) -> int:
        """How many groups of columns there are."""
        return self.columns // self.group

    @property
    def random_points(self) -> int:
        """Random evaluations at the start, as many as in the authors' code."""
        return max(self.workers, min(6 * self.columns, 25))

    def value(self, x: Vector) -> float:
        """The value at a point of the unit cube, without noise."""
        return sum(self.function(x[at : at + self.group]) for at in range(0, self.groups * self.group, self.group))

    def regret(self, value: float) -> float:
        """How far below the highest value this one is; 0 where rounding would make it less."""
        return max(0.0, self.groups * self.optimum - value)

    def duration(self, seed: int, number: int) -> float:
        """Time of an evaluation: that of trial `number` is the same for every method."""
        generator = np.random.default_rng([seed, number, 1])
        if self.times == "uniform":
            return float(generator.uniform(0, 2))
        if self.times == "half-normal":
            return float(abs(generator.normal(scale=np.sqrt(np.pi / 2))))
        assert self.times == "exponential"
        return float(generator.exponential())

    def noise(self, seed: int, number: int) -> float:
        """Noise of an evaluation: that of trial `number` is the same for every method."""
        return float(np.random.default_rng([seed, number, 2]).normal(scale=NOISE))

    def start(self, seed: int) -> Vector:
        """The random points at the start, the same for every method, shape (random_points, columns)."""
        return np.random.default_rng([seed, 3]).random((self.random_points, self.columns))


PROBLEMS = {
    "branin": Problem("Branin", branin, 2, 2, -0.39788735773, 4, "exponential", 20.0),
    "hartmann": Problem("Hartmann-6", hartmann, 6, 6, 3.32236801141, 12, "half-normal", 12.0),
    "park": Problem("Park1-14", park, 4, 14, 25.5892541586, 35, "uniform", 6.0),
    "currin": Problem("CurrinExp-14", currin, 2, 14, 13.7987220445, 35, "uniform", 8.0),
}
