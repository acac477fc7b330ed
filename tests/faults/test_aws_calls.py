"""Calls to AWS that fail under whole lattices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import aws_calls
from tests.faults.scenarios import Scenario


@pytest.mark.parametrize("scenario", aws_calls.SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_call_that_fails(scenario: Scenario, tried: Callable[[Scenario], None]) -> None:
    """It costs time, and nothing else."""
    tried(scenario)
