"""What it takes to start the command ``cirro``: processor time, next to that of Python with click."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from figures import Result, Row, at_most, median, prose
from lab import BenchmarkFailed, Lab

from covalent_cirro.cli import SUMMARIES

RUNS = 15
LIMIT = 2.0
"""Times the processor time of ``python -c "import click"``: what else is imported must not take longer than click."""


def commands(lab: Lab, say: Callable[[str], None]) -> Result:
    """Processor time of ``cirro --help`` and of each command's help, in turns with Python importing click."""
    cirro = str(Path(sys.executable).with_name("cirro"))
    click = (sys.executable, "-c", "import click")
    ratio = _ratio(click, (cirro, "--help"), RUNS)
    say(f"cirro --help: {ratio:.2f} times")
    each = {name: _ratio(click, (cirro, name, "--help"), RUNS // 3) for name in SUMMARIES}
    by_command = ", ".join(f"`{name}` {times:.1f}" for name, times in each.items())
    say(by_command)
    return Result(
        rows=[_row("`cirro --help`", ratio), _row("the slowest `cirro COMMAND --help`", max(each.values()))],
        how=prose(
            f"""
            - **Start of the command**: user and system time of the processes, {RUNS} of each in turns, medians; from
            {RUNS // 3} of each, the `--help` of a command takes {by_command} times as long as importing click.
            """
        ),
    )


def _row(what: str, ratio: float) -> Row:
    figure = f'processor time of {what}, in times of `python -c "import click"`, median'
    return at_most(figure, stock=None, ours=ratio, limit=LIMIT, digits=2)


def _ratio(base: Sequence[str], command: Sequence[str], runs: int) -> float:
    taken: dict[Sequence[str], list[float]] = {base: [], command: []}
    for each in (base, command) * runs:
        taken[each].append(_cpu_s(each))
    return median(taken[command]) / median(taken[base])


def _cpu_s(command: Sequence[str]) -> float:
    """Processor time of a process, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise BenchmarkFailed(f"{' '.join(command)} ended with {ran.returncode}: {ran.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
