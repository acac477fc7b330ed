"""Clocks that are wrong, and outcomes that are not what a job wrote, under whole lattices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import clocks, outcomes
from tests.faults.scenarios import Scenario


@pytest.mark.parametrize("scenario", clocks.SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_clock_that_is_wrong(scenario: Scenario, tried: Callable[[Scenario], None]) -> None:
    """Told as what it is; who waits for a job goes on waiting."""
    tried(scenario)


@pytest.mark.parametrize("scenario", outcomes.SCENARIOS, ids=lambda scenario: scenario.name)
def test_an_outcome_that_is_malformed(scenario: Scenario, tried: Callable[[Scenario], None]) -> None:
    """Exactly its electron fails, and says why."""
    tried(scenario)
