"""What an electron has reported so far, in a few words. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from covalent_cirro.contract.reports import Point


def line(points: Sequence[Point]) -> str:
    """The last value and the extremes, ``0.913 at step 12; least 0.51 at 0, most 0.921 at 9``; empty without a value.

    Args:
        points: In the order of items and steps (`reports.Curve`). Of the items of a mapped electron only the one with
            the highest index and the number of items are told.
    """
    if not points:
        return ""
    last = points[-1]
    items = {point.item for point in points}
    own = [point for point in points if point.item == last.item]
    text = f"{last.value:.4g} at step {last.step}"
    numbers = [point for point in own if not math.isnan(point.value)]
    if len(numbers) > 1:
        low = min(numbers, key=lambda point: point.value)
        high = max(numbers, key=lambda point: point.value)
        text += f"; least {low.value:.4g} at {low.step}, most {high.value:.4g} at {high.step}"
    if last.item is not None:
        text = f"item {last.item}: {text}"
    return f"{text}; {len(items):,} items report" if len(items) > 1 else text
