"""What users read of items that failed: a table of equal errors, and the first traceback. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.contract import texts

ROWS = 20
"""Rows of the table; the others are counted."""

DIFFERENT = 1000
"""Different errors that are kept apart; further ones are counted together."""

_RANGES = 6
"""Ranges of indexes that a row names."""

_ERROR_CHARS = 200

_OTHERS = "(other errors)"


class ItemFailures:
    """Items of a map that failed.

    Attributes:
        count: Number of items.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_error: dict[str, list[int]] = {}
        self._first = (-1, "")
        self._detailed = (-1, "")

    def add(self, items: Iterable[int], error: str, details: str = "") -> None:
        """Add items that failed for the same reason.

        Args:
            items: Their indexes in the list.
            error: Why, in a text whose first line says most.
            details: The traceback, or all that is known of why.
        """
        found = list(items)
        line = _line(error)
        if line not in self._by_error and len(self._by_error) >= DIFFERENT:
            line = _OTHERS
        self._by_error.setdefault(line, []).extend(found)
        if not self.count:
            self._first = (found[0], _line(error))
        if details.strip() and self._detailed[0] < 0:
            self._detailed = (found[0], details.strip())
        self.count += len(found)

    def told(self, length: int) -> str:
        """What failed, in one line: ``3 of 100 items failed; item 7 with ValueError: no``.

        Args:
            length: Number of items of the whole list.
        """
        item, error = self._first
        count = f"{self.count:,} of {length:,} items failed" if length != 1 else "The only item failed"
        return f"{count}; item {item} with {error}"

    def table(self) -> str:
        """A line for each different error: how often, at which items, and the error; the most frequent first."""
        rows = sorted(self._by_error.items(), key=lambda row: (-len(row[1]), row[1][0]))
        lines = [
            f"{'items':>7}  {'which':24}  error",
            *(f"{len(found):>7,}  {indexes(found):24}  {error}" for error, found in rows[:ROWS]),
        ]
        if len(rows) > ROWS:
            lines.append(f"{sum(len(found) for _, found in rows[ROWS:]):>7,}  with {len(rows) - ROWS:,} other errors")
        return "\n".join(lines)

    def whole(self, length: int) -> str:
        """All that is told of items that failed: the count, the table, and the first traceback.

        Args:
            length: Number of items of the whole list.
        """
        parts = [self.told(length), self.table()]
        item, details = self._detailed
        if details:
            parts.append(f"Item {item}:\n{details}")
        return "\n\n".join(parts)


def indexes(found: Iterable[int]) -> str:
    """Indexes in a few words: ``3, 7-12, 40 and 5 more``."""
    ranges: list[list[int]] = []
    for item in sorted(found):
        if ranges and ranges[-1][1] == item - 1:
            ranges[-1][1] = item
        else:
            ranges.append([item, item])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_RANGES]]
    left = sum(last - first + 1 for first, last in ranges[_RANGES:])
    return ", ".join(shown) + (f" and {left:,} more" if left else "")


def _line(error: str) -> str:
    lines = error.strip().splitlines()
    return texts.cut(lines[0].strip(), _ERROR_CHARS) if lines else "no message"
