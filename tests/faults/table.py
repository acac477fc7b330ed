"""All faults by what they strike, the table of what came of them, and the page that has it. No I/O.

`python -m tests.faults` (``make faults``) tries all of them and writes the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.faults import aws_calls, clocks, fargate, machines, maps, outcomes, servers, storage
from tests.faults.map_runs import MapRow
from tests.faults.maps import MapScenario
from tests.faults.measures import Row
from tests.faults.scenarios import Scenario
from tests.faults.world import CHUNK_S

NONE = Scenario("no fault", "Nothing, to compare with.", "States as they come.", strikes=False)

GROUPS: Mapping[str, tuple[Scenario, ...]] = {
    "Machines": (NONE, *machines.SCENARIOS),
    "Fargate": fargate.SCENARIOS,
    "Calls to AWS": aws_calls.SCENARIOS,
    "Clocks": clocks.SCENARIOS,
    "What a job leaves in S3": outcomes.SCENARIOS,
    "Disks, databases, blobs": storage.SCENARIOS,
    "The Covalent server": servers.SCENARIOS,
}

SOAK = Scenario(
    "soak",
    "Electrons by the hundred, and every second a random one of the faults that pass: throttled, failed, slow and cut "
    "calls, answers that omit, repeat and lag, hosts lost in three states, no machine for a while. They overlap.",
    "Nothing but the time it takes, and what stands above for each.",
)

COLUMNS = (
    "fault",
    "times injected",
    "electrons affected",
    "electrons failed",
    "results lost",
    "jobs run twice",
    "jobs left running",
    "longest silence",
)

MAP_COLUMNS = (
    "fault",
    "times injected",
    "items",
    "items failed",
    "items lost",
    "items computed twice",
    "stored items computed again",
    "jobs run twice",
    "jobs left running",
    "longest silence",
)

NOTE = "Run on "


def cells(row: Row | MapRow) -> tuple[str, ...]:
    """A row as text, in the order of `COLUMNS`, or of `MAP_COLUMNS`."""
    name, *numbers, silence_s = vars(row).values()
    return (name, *map(str, numbers), f"{silence_s:.0f} s")


def table(rows: Iterable[Row | MapRow], columns: Sequence[str] = COLUMNS) -> str:
    """The rows as a table of Markdown."""
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def tables(rows: Sequence[Row], map_rows: Sequence[MapRow]) -> str:
    """Both tables, without those that have no row."""
    both = (rows, COLUMNS), (map_rows, MAP_COLUMNS)
    return "\n".join(table(found, columns) for found, columns in both if found)


def rows_of(text: str) -> list[Row]:
    """The rows of the table of electrons that a page has."""
    return [Row(name, *numbers, silence_s) for name, numbers, silence_s in _lines_of(text, COLUMNS)]


def map_rows_of(text: str) -> list[MapRow]:
    """The rows of the table of maps that a page has."""
    return [MapRow(name, *numbers, silence_s) for name, numbers, silence_s in _lines_of(text, MAP_COLUMNS)]


def _lines_of(text: str, columns: Sequence[str]) -> list[tuple[str, list[int], float]]:
    begin = text.find(f"| {' | '.join(columns)} |")
    lines = text[begin:].split("\n\n")[0].splitlines()[2:] if begin >= 0 else []
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [(name, [*map(int, numbers)], float(silence.removesuffix(" s"))) for name, *numbers, silence in cells]


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows of an earlier run with those of a later one in their place, in the order of `GROUPS`, and others last."""
    rows = {row.fault: row for row in (*old, *new)}
    names = [each.name for group in GROUPS.values() for each in group]
    return [rows.pop(name) for name in names if name in rows] + list(rows.values())


def merged_maps(old: Iterable[MapRow], new: Iterable[MapRow]) -> list[MapRow]:
    """As `merged`, for maps: in the order of `maps.SCENARIOS`."""
    rows = {row.fault: row for row in (*old, *new)}
    return [rows[each.name] for each in maps.SCENARIOS if each.name in rows]


def note_of(text: str) -> str:
    """The line of a page that says when its run was."""
    return next(line for line in text.splitlines() if line.startswith(NOTE))


_PAGE = """\
# Proven under faults

Whole lattices run through a real Covalent server on the [emulated AWS](emulator.md), with one fault at a time and, at
the end, with many faults together. `make faults` runs them and writes this page. Rows that were run again (`--only`)
are later than the date below the table. The same runs are part of `make test`, with a smaller soak.

{table}
{note}

- **Times injected**: how often the fault occurred; for the server, how often it was killed, or could not use its disk
  or database.
- **Electrons affected**: electrons whose job or objects the fault hit. A shared call is about many electrons, and some
  calls are about none.
- **Electrons failed**: electrons that cannot succeed under this fault. All of them say why. No other electron failed.
- **Results lost**: electrons that should have a result, and have none, or another result than the same function returns
  without AWS.
- **Jobs run twice**: jobs of an electron beyond the one that it should have, and executions beyond AWS Batch's own
  retries: more executions than attempts, or one after an attempt that had stored its result. A lost host starts an
  attempt again; after the loss of all attempts, and after memory ran out with `memory_max`, an electron has a second
  job on purpose. Each execution is recorded outside of everything that is tested.
- **Jobs left running**: jobs that had not ended when their dispatch had.
- **Longest silence**: the longest time without any visible change for an electron that could run and had not ended: in
  its status and panel in Covalent, or in what the server prints about it or about AWS. A server that is down prints
  nothing. In the soak, these are electrons that were not submitted yet, which Covalent shows as `NEW_OBJECT`.

A lattice has a few electrons and one that needs all of them. Times are those of the emulator: a fraction of a second
for a machine, and 3 s instead of 10 minutes until the reason of a wait is determined.

## Maps

The same with one [map](maps.md): {items} items in {jobs} jobs, and an electron that needs the list. Results of items
are stored every {chunk_s} s here, and every half a minute elsewhere.

{map_table}
- **Items failed**: items that cannot succeed under this fault: the list has an error in their place.
- **Items lost**: items that should have a result, and have none, or another result than the same function returns
  without AWS, or that of another item in their place.
- **Items computed twice**: items whose function came to its end in more than one attempt or try. That is so where the
  host goes after an item was computed and before its result was stored. Each execution of an item is recorded outside
  of everything that is tested.
- **Stored items computed again**: items whose function began in a later attempt or try although an earlier one had
  stored their result.
- **Jobs run twice**: array jobs beyond those that the map should have, and executions of their jobs beyond AWS Batch's
  attempts. After the loss of all attempts, and after memory ran out with `memory_max`, a map has a second array on
  purpose.
- The other columns are those of the first table. A dispatch that was cancelled has no list.

{map_words}{groups}"""


def page(rows: Sequence[Row], map_rows: Sequence[MapRow], note: str) -> str:
    """``docs/faults.md``.

    Args:
        rows: Of a run of all faults.
        map_rows: Of the same run, those of maps.
        note: When it was, and on what.
    """
    groups = "".join(_group(title, scenarios) for title, scenarios in {**GROUPS, "All together": (SOAK,)}.items())
    return _PAGE.format(
        table=table(rows),
        note=note,
        groups=groups,
        items=maps.COUNT,
        jobs=maps.JOBS,
        chunk_s=CHUNK_S,
        map_table=table(map_rows, MAP_COLUMNS),
        map_words=_words(maps.SCENARIOS),
    )


def _group(title: str, scenarios: Iterable[Scenario]) -> str:
    return f"\n## {title}\n\n{_words(scenarios)}"


def _words(scenarios: Iterable[Scenario | MapScenario]) -> str:
    lines = [f"| {each.name} | {each.what} | {each.seen} |" for each in scenarios]
    return "\n".join(["| fault | what happens | what the user sees |", "| --- | --- | --- |", *lines, ""])
