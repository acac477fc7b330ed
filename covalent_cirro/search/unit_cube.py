"""Maps parameters of a search space to points of a unit cube, which Gaussian processes work on, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Points = NDArray[np.float64]
"""Points of a cube or some of their columns, shape (points, columns)."""


class _Parameter(Protocol):
    """What one parameter is in a cube."""

    width: int
    """How many columns it has."""

    def encode(self, value: Any) -> Sequence[float]:
        """The columns of a value."""

    def decode(self, columns: NDArray[np.float64]) -> Any:
        """The allowed value that is nearest to columns of shape (width,)."""

    def nearest(self, columns: Points) -> Points:
        """The columns of the allowed values that are nearest to columns."""

    def random(self, generator: np.random.Generator, count: int) -> Points:
        """Columns of random allowed values."""

    def moves(self, columns: NDArray[np.float64]) -> list[Sequence[float]]:
        """Columns of the allowed values next to one; none for what has no next value."""


class _Number:
    """A float or an integer: its place between low and high, or between their logarithms, is its one column."""

    width = 1

    def __init__(self, distribution: FloatDistribution | IntDistribution) -> None:
        self._whole = isinstance(distribution, IntDistribution)
        self._log = distribution.log
        self._low, self._high, self._step = distribution.low, distribution.high, distribution.step
        self._start = self._scaled(self._low)
        self._length = self._scaled(self._high) - self._start

    def _scaled(self, values: Any) -> Any:
        return np.log(values) if self._log else values

    def _values(self, places: Any) -> Any:
        values = self._start + places * self._length
        values = np.exp(values) if self._log else values
        if self._step is not None:
            values = self._low + self._step * np.round((values - self._low) / self._step)
        return np.clip(values, self._low, self._high)

    def encode(self, value: Any) -> Sequence[float]:
        return [float((self._scaled(value) - self._start) / self._length)]

    def decode(self, columns: NDArray[np.float64]) -> float | int:
        value = float(self._values(columns[0]))
        return round(value) if self._whole else value

    def nearest(self, columns: Points) -> Points:
        if self._step is None:
            return np.clip(columns, 0.0, 1.0)
        return np.asarray((self._scaled(self._values(columns)) - self._start) / self._length)

    def random(self, generator: np.random.Generator, count: int) -> Points:
        return self.nearest(generator.random((count, 1)))

    def moves(self, columns: NDArray[np.float64]) -> list[Sequence[float]]:
        if self._step is None:
            return []
        index = round((float(self._values(columns[0])) - self._low) / self._step)
        last = round((self._high - self._low) / self._step)
        return [self.encode(self._low + each * self._step) for each in (index - 1, index + 1) if 0 <= each <= last]


class _Category:
    """A categorical parameter: one column for each choice, 1 for the one that is taken and 0 for the others."""

    def __init__(self, distribution: CategoricalDistribution) -> None:
        self._distribution = distribution
        self.width = len(distribution.choices)
        self._rows = np.eye(self.width)

    def encode(self, value: Any) -> Sequence[float]:
        return [float(each) for each in self._rows[int(self._distribution.to_internal_repr(value))]]

    def decode(self, columns: NDArray[np.float64]) -> Any:
        return self._distribution.choices[int(np.argmax(columns))]

    def nearest(self, columns: Points) -> Points:
        return np.asarray(self._rows[np.argmax(columns, axis=1)])

    def random(self, generator: np.random.Generator, count: int) -> Points:
        return np.asarray(self._rows[generator.integers(self.width, size=count)])

    def moves(self, columns: NDArray[np.float64]) -> list[Sequence[float]]:
        return [row.tolist() for row in np.delete(self._rows, np.argmax(columns), axis=0)]


class UnitCube:
    """A search space as a unit cube.

    A number is one column, linear or logarithmic as its distribution says; a categorical parameter is a column for each
    choice. A point is *allowed* if it is that of a configuration: integers and steps on their grid, one choice taken.

    Args:
        space: Distributions by name of the parameter, none of them of a single value.

    Attributes:
        columns: Number of columns.
        free: Whether each column is a number, which can change by itself, shape (columns,).
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._parameters: dict[str, _Parameter] = {}
        for name, distribution in space.items():
            if isinstance(distribution, CategoricalDistribution):
                self._parameters[name] = _Category(distribution)
            elif isinstance(distribution, FloatDistribution | IntDistribution):
                self._parameters[name] = _Number(distribution)
            else:
                raise TypeError(f"{name!r} has a distribution that is neither float, int nor categorical.")
        self._slices, start = [], 0
        for parameter in self._parameters.values():
            self._slices.append(slice(start, start + parameter.width))
            start += parameter.width
        self.columns = start
        self.free = np.concatenate(
            [np.full(each.width, isinstance(each, _Number)) for each in self._parameters.values()]
        )

    def encode(self, configurations: Sequence[Mapping[str, Any]]) -> Points:
        """The points of configurations, shape (configurations, columns)."""
        rows = [
            [column for name, parameter in self._parameters.items() for column in parameter.encode(each[name])]
            for each in configurations
        ]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), self.columns)

    def decode(self, point: NDArray[np.float64]) -> dict[str, Any]:
        """The configuration that is nearest to a point of shape (columns,)."""
        return {
            name: parameter.decode(point[columns])
            for (name, parameter), columns in zip(self._parameters.items(), self._slices, strict=True)
        }

    def nearest(self, points: Points) -> Points:
        """The allowed points that are nearest to points."""
        return np.hstack([each.nearest(points[:, columns]) for each, columns in self._columns()])

    def random(self, generator: np.random.Generator, count: int) -> Points:
        """Random allowed points, shape (count, columns)."""
        return np.hstack([each.random(generator, count) for each, _ in self._columns()])

    def moves(self, point: NDArray[np.float64]) -> Points:
        """The allowed points that differ from an allowed point in one integer, step or choice: (moves, columns)."""
        found = []
        for parameter, columns in self._columns():
            for values in parameter.moves(point[columns]):
                moved = point.copy()
                moved[columns] = values
                found.append(moved)
        return np.asarray(found, dtype=np.float64).reshape(len(found), self.columns)

    def _columns(self) -> list[tuple[_Parameter, slice]]:
        return list(zip(self._parameters.values(), self._slices, strict=True))
