"""One local stack that may be broken, for all tests of a process; and the table that they print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults import table
from tests.faults.map_runs import MapRow
from tests.faults.measures import Row
from tests.faults.scenarios import Scenario, trial
from tests.faults.world import World

ROW, MAP_ROW = "row of the faults' table", "row of the maps' table"
"""Names of the properties by which a test's row comes from the process that ran it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything that uses the world starts a real Covalent server."""
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.covalent)
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the faults did."""
    told = [
        each for report in terminalreporter.stats.get("passed", ()) for each in getattr(report, "user_properties", ())
    ]
    rows = [Row(*value) for name, value in told if name == ROW]
    map_rows = [MapRow(*value) for name, value in told if name == MAP_ROW]
    if rows or map_rows:
        terminalreporter.section("faults")
        terminalreporter.write(table.tables(rows, map_rows))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Emulated AWS and Covalent server; each test leaves both running and without faults."""
    made = World(tmp_path_factory.mktemp("faults"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def noted(record_property: Callable[[str, object], None]) -> Callable[[Row | MapRow], None]:
    """Keeps a row for the table that is printed in the end."""
    return lambda row: record_property(ROW if isinstance(row, Row) else MAP_ROW, list(vars(row).values()))


@pytest.fixture
def tried(world: World, noted: Callable[[Row], None]) -> Callable[[Scenario], None]:
    """Tries a fault on a dispatch, and checks what must hold."""
    return lambda scenario: noted(trial(world, scenario))
