"""All faults by what they strike, the table of what came of them, and the page that has it. No I/O.

`python -m tests.faults` (``make faults``) tries all of them and writes the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.faults import aws_calls, clocks, machines, outcomes, servers, storage
from tests.faults.measures import Row
from tests.faults.scenarios import Scenario

NONE = Scenario("no fault", "Nothing, to compare with.", "States as they come.", strikes=False)

GROUPS: Mapping[str, tuple[Scenario, ...]] = {
    "Machines": (NONE, *machines.SCENARIOS),
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


NOTE = "Run on "


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of `COLUMNS`."""
    return (
        row.fault,
        *(str(number) for number in (row.injected, row.affected, row.failed, row.lost, row.twice, row.left)),
        f"{row.silence_s:.0f} s",
    )


def table(rows: Iterable[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rows_of(text: str) -> list[Row]:
    """The rows of the table that a page has."""
    begin = text.index(f"| {COLUMNS[0]} | {COLUMNS[1]} |")
    lines = text[begin:].split("\n\n")[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [Row(name, *map(int, numbers), float(silence.removesuffix(" s"))) for name, *numbers, silence in cells]


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows of an earlier run with those of a later one in their place, in the order of `GROUPS`, and others last."""
    rows = {row.fault: row for row in (*old, *new)}
    names = [each.name for group in GROUPS.values() for each in group]
    return [rows.pop(name) for name in names if name in rows] + list(rows.values())


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
{groups}"""


def page(rows: Sequence[Row], note: str) -> str:
    """``docs/faults.md``.

    Args:
        rows: Of a run of all faults.
        note: When it was, and on what.
    """
    groups = "".join(_group(title, scenarios) for title, scenarios in {**GROUPS, "All together": (SOAK,)}.items())
    return _PAGE.format(table=table(rows), note=note, groups=groups)


def _group(title: str, scenarios: Iterable[Scenario]) -> str:
    lines = [f"| {each.name} | {each.what} | {each.seen} |" for each in scenarios]
    head = ["", f"## {title}", "", "| fault | what happens | what the user sees |", "| --- | --- | --- |"]
    return "\n".join([*head, *lines, ""])
