"""Many electrons under a random fault a second; ``make faults`` has more of them."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.measures import Row
from tests.faults.soak import soak
from tests.faults.world import World

ELECTRONS = 16


def test_a_soak(world: World, noted: Callable[[Row], None]) -> None:
    """Nothing is lost, nothing runs twice, nothing is left running."""
    noted(soak(world, ELECTRONS))
