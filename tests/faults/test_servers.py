"""The Covalent server killed at each stage of whole lattices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import servers
from tests.faults.scenarios import Scenario


@pytest.mark.parametrize("scenario", servers.SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_server_that_dies(scenario: Scenario, tried: Callable[[Scenario], None]) -> None:
    """Started again, it goes on: each electron runs once, and its result is there."""
    tried(scenario)
