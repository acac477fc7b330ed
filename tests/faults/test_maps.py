"""Maps under faults: every item has its result, in its place, and what is stored is not computed again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import maps
from tests.faults.map_runs import MapRow
from tests.faults.maps import MapScenario
from tests.faults.world import World


@pytest.mark.parametrize(
    "scenario", [each for each in maps.SCENARIOS if each.in_make_test], ids=lambda scenario: scenario.name
)
def test_a_map_under_a_fault(scenario: MapScenario, world: World, noted: Callable[[MapRow], None]) -> None:
    """It costs time, and at most the items whose results were not stored."""
    noted(maps.trial(world, scenario))
