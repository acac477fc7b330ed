"""What users read of items that failed: a table of equal errors, and the first traceback. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.contract import texts

ROWS = 20
"""Rows of the table; the others are counted."""

_INDEXES = 6
"""Indexes that a row names."""

_ERROR_CHARS = 200


class FailedItem(NamedTuple):
    """An item that failed.

    Attributes:
        index: Its index in the list.
        error: Why, in a text whose first line says most.
        traceback: Its traceback; empty where it has none.
    """

    index: int
    error: str
    traceback: str = ""


def told(failed: Sequence[FailedItem], length: int) -> str:
    """What failed, in one line: ``3 of 100 items failed; item 7 with ValueError: no``."""
    first = failed[0]
    count = f"{len(failed):,} of {length:,} items failed" if length != 1 else "The only item failed"
    return f"{count}; item {first.index} with {_line(first.error)}"


def table(failed: Sequence[FailedItem]) -> str:
    """A line for each different error: how often, at which items, and the error; the most frequent first."""
    by_error: dict[str, list[int]] = {}
    for each in failed:
        by_error.setdefault(_line(each.error), []).append(each.index)
    rows = sorted(by_error.items(), key=lambda row: (-len(row[1]), row[1][0]))
    lines = [
        f"{'items':>7}  {'which':24}  error",
        *(f"{len(found):>7,}  {indexes(found):24}  {error}" for error, found in rows[:ROWS]),
    ]
    if len(rows) > ROWS:
        lines.append(f"{sum(len(found) for _, found in rows[ROWS:]):>7,}  with {len(rows) - ROWS:,} other errors")
    return "\n".join(lines)


def whole(failed: Sequence[FailedItem], length: int) -> str:
    """All that is told of items that failed: the count, the table, and the first traceback."""
    parts = [told(failed, length), table(failed)]
    first = next((each for each in failed if each.traceback.strip()), None)
    if first is not None:
        parts.append(f"Item {first.index}:\n{first.traceback.strip()}")
    return "\n\n".join(parts)


def indexes(found: Iterable[int]) -> str:
    """Indexes in a few words: ``3, 7-12, 40 and 5 more``."""
    ranges: list[list[int]] = []
    for index in sorted(found):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_INDEXES]]
    left = sum(last - first + 1 for first, last in ranges[_INDEXES:])
    return ", ".join(shown) + (f" and {left:,} more" if left else "")


def _line(error: str) -> str:
    lines = error.strip().splitlines()
    return texts.cut(lines[0].strip(), _ERROR_CHARS) if lines else "no message"
