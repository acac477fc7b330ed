"""A full disk, a locked database and changed blobs, under whole lattices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import storage
from tests.faults.scenarios import Scenario


@pytest.mark.parametrize("scenario", storage.SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_kept_somewhere(scenario: Scenario, tried: Callable[[Scenario], None]) -> None:
    """No result is lost to where it, or the news of it, is kept."""
    tried(scenario)
