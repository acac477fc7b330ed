"""Counts files, lines, rooms and imports of a checkout, today's or another: ``python docs/make_sizes.py [FOLDER]``.

The tables of docs/decisions/0018-ten-rooms.md are from it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs import make_rooms

LONG = 400
"""Lines above which a file is looked at again (CONTRIBUTING.md)."""


def floors(of: Mapping[str, set[str]]) -> int:
    """Length of the longest way down: the fewest floors on which every import points downward."""
    heights: dict[str, int] = {}
    while len(heights) < len(of):
        ready = {name for name in of if name not in heights and of[name] <= heights.keys()}
        heights |= {name: 1 + max((heights[below] for below in of[name]), default=0) for name in ready}
    return max(heights.values())


def sizes(root: Path) -> dict[str, int]:
    """What is counted, by its name."""
    make_rooms.PACKAGE = root / "covalent_cirro"
    files = [path.read_text().splitlines() for path in make_rooms.PACKAGE.rglob("*.py")]
    tests = [path.read_text().splitlines() for path in (root / "tests").rglob("*.py")]
    imports = make_rooms.imports()
    rooms = make_rooms.arrows(imports)
    return {
        "files": len(files),
        "lines": sum(map(len, files)),
        f"files of more than {LONG} lines": sum(len(lines) > LONG for lines in files),
        "rooms": len(rooms),
        "floors": floors(rooms),
        "arrows between rooms": sum(map(len, rooms.values())),
        "circles of files": len(make_rooms.circles(imports)),
        "files in a circle": sum(map(len, make_rooms.circles(imports))),
        "files of tests": len(tests),
        "lines of tests": sum(map(len, tests)),
    }


if __name__ == "__main__":
    for name, count in sizes(Path(sys.argv[1] if len(sys.argv) > 1 else make_rooms.ROOT)).items():
        print(f"{count:8,} {name}")
