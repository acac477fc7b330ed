"""The figures: what is required of each, how they are judged, and the page that shows them. Pure; measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        figure: What was measured.
        stock: With the stock plugin, as it is shown; empty where it was not measured.
        ours: With covalent-cirro, as it is shown.
        ratio: Ours to the stock's; `None` where that says nothing.
        required: What ours must reach, as it is shown.
        reached: Whether it does.
    """

    figure: str
    stock: str
    ours: str
    ratio: float | None
    required: str
    reached: bool


@dataclass(frozen=True)
class Result:
    """What one measurement gave.

    Attributes:
        rows: Lines of the table.
        how: How they were measured; Markdown.
    """

    rows: Sequence[Row]
    how: str


def prose(text: str) -> str:
    """A text in one line, however it stands in the code."""
    return " ".join(text.split())


def median(values: Sequence[float]) -> float:
    """The median.

    Raises:
        ValueError: No values: a figure without a measurement must not look like one.
    """
    if not values:
        raise ValueError("no values: nothing was measured")
    return statistics.median(values)


def at_most(
    figure: str, *, stock: float | None, ours: float, limit: float, unit: str = "", digits: int = 0, required: str = ""
) -> Row:
    """A line of the table for a figure that must not exceed a limit; all in the same unit."""
    return Row(
        figure=figure,
        stock="" if stock is None else quantity(stock, unit, digits),
        ours=quantity(ours, unit, digits),
        ratio=None if not stock else ours / stock,
        required=required or f"at most {quantity(limit, unit, digits)}",
        reached=ours <= limit,
    )


def share_of(figure: str, *, stock: float, ours: float, share: float, unit: str, digits: int, required: str) -> Row:
    """A line of the table for a figure that must be at most a share of the stock plugin's."""
    if stock <= 0:
        raise ValueError(f"{figure}: the stock plugin's {stock} {unit} cannot be compared with")
    return at_most(figure, stock=stock, ours=ours, limit=share * stock, unit=unit, digits=digits, required=required)


def quantity(value: float, unit: str, digits: int) -> str:
    """``2,102.0 MB``."""
    return f"{value:,.{digits}f} {unit}".rstrip()


def table(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = [
        "| figure | stock 0.42.0 | covalent-cirro | ratio | required | reached |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        cells = (
            row.figure,
            row.stock or "-",
            row.ours,
            "-" if row.ratio is None else f"{row.ratio:.3f}",
            row.required,
            "yes" if row.reached else "**no**",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(results: Sequence[Result], facts: Mapping[str, str], stock_version: str) -> str:
    """All of ``RESULTS.md``."""
    rows = [row for result in results for row in result.rows]
    missed = sum(not row.reached for row in rows)
    verdict = "All are reached." if not missed else f"**{missed} of {len(rows)} are not reached.**"
    return "\n".join(
        [
            "# The stock plugin and covalent-cirro, side by side",
            "",
            prose(
                f"""
                Written by `make bench`. `covalent-awsbatch-plugin` {stock_version} and this package, on the same
                Covalent server and the same emulated AWS, one after the other. The emulator answers in milliseconds
                where AWS needs tens of them: compare the columns with one another. {verdict}
                """
            ),
            "",
            table(rows).replace("stock 0.42.0", f"stock {stock_version}"),
            "",
            "Ratio is covalent-cirro to stock; lower is better in every line.",
            "",
            "## Where and when",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            "## How each is measured",
            "",
            *(result.how + "\n" for result in results),
        ]
    )


def excess(*, blank: Sequence[float], stock: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
    """What stock and ours need beyond nothing, from the medians; ours is at least 0."""
    base = median(blank)
    return median(stock) - base, max(0.0, median(ours) - base)


def count(calls: Mapping[str, Mapping[str, int]], *operations: str, field: str = "count") -> int:
    """Calls (or bytes) of some operations, or of all, as the emulator counted them."""
    return sum(entry[field] for name, entry in calls.items() if not operations or name in operations)
