"""Machines that fail under whole lattices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import fargate, machines
from tests.faults.scenarios import Scenario


@pytest.mark.parametrize("scenario", [*machines.SCENARIOS, *fargate.SCENARIOS], ids=lambda scenario: scenario.name)
def test_a_machine_that_fails(scenario: Scenario, tried: Callable[[Scenario], None]) -> None:
    """What can succeed does, what cannot says why, and nothing is left."""
    tried(scenario)
