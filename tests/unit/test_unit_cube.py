"""A search space as a unit cube: what its points are, and that each of them is a configuration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from covalent_cirro.search.unit_cube import UnitCube

pytestmark = pytest.mark.filterwarnings("ignore:The distribution is specified")
"""Optuna says that it makes a range smaller so that steps fit."""


@st.composite
def numbers(draw: st.DrawFn) -> BaseDistribution:
    """A float or an integer, linear or logarithmic, with a step or without."""
    log = draw(st.booleans())
    if draw(st.booleans()):
        low = draw(st.integers(1 if log else -50, 50))
        step = 1 if log else draw(st.integers(1, 7))
        return IntDistribution(low, low + step * draw(st.integers(1, 200)), log=log, step=step)
    exact = draw(st.floats(1e-6 if log else -1e3, 1e3))
    width = draw(st.floats(1e-3, 1e3))
    step = None if log else draw(st.none() | st.floats(width / 50, width / 2))
    return FloatDistribution(exact, exact + width * draw(st.integers(1, 5)), log=log, step=step)


categories = st.lists(
    st.sampled_from([None, True, 0.5, 3, "adam", "sgd", "x"]), min_size=2, max_size=5, unique=True
).map(CategoricalDistribution)
spaces = st.dictionaries(st.sampled_from("abcde"), numbers() | categories, min_size=1, max_size=4)


def allowed(distribution: BaseDistribution, value: object) -> bool:
    """Whether a study of Optuna accepts a value, and its type is that of the distribution."""
    types = {FloatDistribution: float, IntDistribution: int}
    right = isinstance(value, types.get(type(distribution), object)) and not isinstance(value, np.generic)
    return right and distribution._contains(distribution.to_internal_repr(value))


@settings(deadline=None, max_examples=60)
@given(spaces, st.integers(0, 2**32))
def test_every_point_is_a_configuration(space: dict[str, BaseDistribution], seed: int) -> None:
    """Wherever in the cube: it decodes to allowed values of the right types."""
    cube = UnitCube(space)
    generator = np.random.default_rng(seed)
    corners = np.array([np.zeros(cube.columns), np.ones(cube.columns)])
    points = np.vstack([cube.random(generator, 8), generator.random((8, cube.columns)), corners])
    for point in points:
        found = cube.decode(point)
        assert found.keys() == space.keys()
        assert all(allowed(space[name], value) for name, value in found.items()), found


@settings(deadline=None, max_examples=60)
@given(spaces, st.integers(0, 2**32))
def test_allowed_points_and_configurations_are_the_same(space: dict[str, BaseDistribution], seed: int) -> None:
    """There and back nothing changes, and the nearest allowed point of an allowed one is itself."""
    cube = UnitCube(space)
    points = cube.random(np.random.default_rng(seed), 5)
    assert cube.encode([cube.decode(point) for point in points]) == pytest.approx(points, abs=1e-7)
    assert cube.nearest(points) == pytest.approx(points, abs=1e-7)


@settings(deadline=None, max_examples=60)
@given(spaces, st.integers(0, 2**32))
def test_a_move_changes_one_parameter(space: dict[str, BaseDistribution], seed: int) -> None:
    """To the next integer or step, or to any other choice; a float without steps has no next value."""
    cube = UnitCube(space)
    point = cube.random(np.random.default_rng(seed), 1)[0]
    before = cube.decode(point)
    for moved in cube.moves(point):
        after = cube.decode(moved)
        (changed,) = [name for name in space if after[name] is not before[name] and after[name] != before[name]]
        assert allowed(space[changed], after[changed])
        assert getattr(space[changed], "step", 1) is not None


def test_logarithms() -> None:
    """The middle between 1e-4 and 1 is 1e-2."""
    assert UnitCube({"rate": FloatDistribution(1e-4, 1, log=True)}).decode(np.array([0.5]))["rate"] == pytest.approx(
        0.01
    )


def test_choices_are_columns() -> None:
    """One for each, so that no choice is between two others."""
    cube = UnitCube({"kind": CategoricalDistribution(["a", "b", "c"]), "width": IntDistribution(1, 5)})
    assert cube.encode([{"kind": "b", "width": 3}]).tolist() == [[0.0, 1.0, 0.0, 0.5]]
    assert cube.free.tolist() == [False, False, False, True]
