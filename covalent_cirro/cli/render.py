"""All that ``cirro`` writes to the terminal: steps and results on stdout, failures on stderr.

Knows rich and nothing of what is shown. No other file of the command line prints.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_out = Console(highlight=False, soft_wrap=True)
_err = Console(highlight=False, soft_wrap=True, stderr=True)


def line(text: str) -> None:
    """One line of plain text."""
    _out.print(Text(text))


def done(text: str) -> None:
    """What was achieved."""
    _out.print(f"[green]✓[/green] {escape(text)}" if _out.is_terminal else Text(text))


def failure(text: str) -> None:
    """What failed, why, and what to do next."""
    _err.print(f"[bold red]error:[/bold red] {escape(text)}")


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Shows steps while they are under way: a spinner on a terminal, a line each elsewhere.

    Yields:
        A function to call with each step, in a few words.
    """
    if not _out.is_terminal:
        yield line
        return
    with _out.status("") as spinner:
        yield lambda step: spinner.update(Text(f"{step} ..."))


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """A table of names and values."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    _out.print(table)


def document(value: Any) -> None:
    """A JSON document, for programs."""
    _out.print(json.dumps(value, indent=2), markup=False, emoji=False)
