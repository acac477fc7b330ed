"""``python -m tests.faults``: try every fault, print the table, and write ``docs/faults.md``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import tests.conftest  # noqa: F401  (keeps Covalent away from the user's own, before it is imported)
from tests.faults import maps, table
from tests.faults.map_runs import MapRow
from tests.faults.measures import Row
from tests.faults.scenarios import trial
from tests.faults.soak import soak
from tests.faults.world import World

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def main() -> int:
    """Returns 1 where something was lost, run twice or left running; the page is not written then."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--electrons", type=int, default=300, help="of the soak (default: 300)")
    parser.add_argument("--only", default="", help="faults whose name has this; the page keeps its other rows")
    parser.add_argument("--words", action="store_true", help="only write the page's words anew, with the rows it has")
    asked = parser.parse_args()
    if asked.words:
        text = PAGE.read_text()
        PAGE.write_text(table.page(table.rows_of(text), table.map_rows_of(text), table.note_of(text)))
        return 0
    found: list[Row | MapRow] = []
    wrong: list[str] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cirro-faults-") as folder:
        world = World(Path(folder))
        try:
            trials: list[tuple[str, Callable[[], Row | MapRow]]] = [
                (each.name, lambda each=each: trial(world, each))  # type: ignore[misc]
                for group in table.GROUPS.values()
                for each in group
            ]
            trials += [(each.name, lambda each=each: maps.trial(world, each)) for each in maps.SCENARIOS]  # type: ignore[misc]
            trials.append(("soak", lambda: soak(world, asked.electrons)))
            for name, try_it in trials:
                if asked.only not in name:
                    continue
                try:
                    found.append(try_it())
                    print(*table.cells(found[-1]), sep=" | ", flush=True)
                except AssertionError as error:
                    wrong.append(name)
                    print(f"{name}: {error}", flush=True)
        finally:
            world.close()
    rows = [row for row in found if isinstance(row, Row)]
    map_rows = [row for row in found if isinstance(row, MapRow)]
    print(f"\n{table.tables(rows, map_rows)}")
    if wrong:
        print(f"What must hold did not hold with: {', '.join(wrong)}", file=sys.stderr)
        return 1
    python, cores, minutes = platform.python_version(), os.cpu_count(), (time.monotonic() - begin) / 60
    today = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    note = f"{table.NOTE}{today} in {minutes:.0f} minutes: Python {python}, {cores} cores."
    if asked.only:
        text = PAGE.read_text()
        rows, note = table.merged(table.rows_of(text), rows), table.note_of(text)
        map_rows = table.merged_maps(table.map_rows_of(text), map_rows)
    PAGE.write_text(table.page(rows, map_rows, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
