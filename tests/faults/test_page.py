"""docs/faults.md is what ``make faults`` wrote, of the faults that there are."""

from __future__ import annotations

from pathlib import Path

from tests.faults import maps, table

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_is_of_these_faults() -> None:
    """Every fault has its row, and the words are those of the scenarios: otherwise run ``make faults``."""
    text = PAGE.read_text()
    rows = table.rows_of(text)
    assert [row.fault for row in rows[:-1]] == [each.name for group in table.GROUPS.values() for each in group]
    assert rows[-1].fault == "soak of 300 electrons"
    map_rows = table.map_rows_of(text)
    assert [row.fault for row in map_rows] == [each.name for each in maps.SCENARIOS]
    assert table.page(rows, map_rows, table.note_of(text)) == text, "run python -m tests.faults --words"


def test_nothing_was_lost() -> None:
    """In the run that wrote the page."""
    text = PAGE.read_text()
    rows, map_rows = table.rows_of(text), table.map_rows_of(text)
    assert all((row.lost, row.twice, row.left) == (0, 0, 0) for row in rows)
    assert all((row.lost, row.again, row.extra, row.left) == (0, 0, 0, 0) for row in map_rows)
    idle = [row.fault for row in (*rows, *map_rows) if not row.injected]
    assert idle == [table.NONE.name, maps.SCENARIOS[0].name]
