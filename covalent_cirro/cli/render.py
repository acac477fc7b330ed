"""Writes all output of ``cirro``: steps and results on stdout, failures on stderr.

No other file of the command line prints. Texts are not interpreted as rich's markup or emoji codes, and control
sequences in them do not reach a terminal (`terminal.py`). rich is imported when something is printed by it: a help text
and ``--json`` do without.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import terminal

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

MIN_TABLE_WIDTH = 160
"""Characters of a table's line in a pipe, at least: a pipe has no width, and cut digests are useless."""

LEAST_LAST_COLUMN = 40
"""Characters of a line of a table's last column, at least; where a terminal has less room, its texts are below rows."""

_GAP = "  "
"""Between two columns of a table."""


@functools.cache
def _out() -> Console:
    """The console of stdout."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


@functools.cache
def _err() -> Console:
    """The console of stderr."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, stderr=True)


def _text(text: str, style: str = "", *, console: Console | None = None) -> Text:
    """A text without markup; on a terminal without control sequences."""
    from rich.text import Text

    if text.isprintable() or not (console or _out()).is_terminal:
        return Text(text, style)
    made = Text.from_ansi(terminal.harmless(text).replace("\r", "\n"), style=style)
    return made.append("\n") if text.endswith("\n") else made


def _joined(*parts: str | Text | tuple[str, str]) -> Text:
    """A text of several parts; a pair is a text and its style. What comes from outside must be harmless already."""
    from rich.text import Text

    return Text.assemble(*parts)


def line(text: str) -> None:
    """One line of plain text."""
    _out().print(_text(text))


def heading(text: str) -> None:
    """A heading."""
    _out().print(_text(text, "bold"))


def note(text: str) -> None:
    """A note about the output, on stderr, so that a pipe does not get it."""
    end_raw()
    _err().print(_text(text, "dim", console=_err()))


_raw = {False: terminal.HarmlessStream(), True: terminal.HarmlessStream()}
"""The filters of stdout (`False`) and stderr (`True`)."""


def raw(text: str, *, to_stderr: bool = False) -> None:
    """Text of an electron: unchanged in a pipe or file; on a terminal without harmful control sequences."""
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(_raw[to_stderr].feed(text) if stream.isatty() else text)
    stream.flush()


def end_raw() -> None:
    """End raw text: reset the terminal's colour, and begin a new line."""
    for to_stderr, stream in ((False, sys.stdout), (True, sys.stderr)):
        if stream.isatty():
            stream.write(_raw[to_stderr].end())
            stream.flush()


def done(text: str) -> None:
    """A result that was achieved."""
    _out().print(_joined(("✓ ", "green"), _text(text)) if _out().is_terminal else _text(text))


def warning(text: str) -> None:
    """A warning about something that may not be what the user wants."""
    _err().print(_joined(("warning:", "yellow"), " ", _text(text, console=_err())))


def failure(text: str) -> None:
    """A failure: what failed, why, and what to do next."""
    _err().print(_joined(("error:", "bold red"), " ", _text(text, console=_err())))


@contextlib.contextmanager
def steps(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Shows steps while they are under way: as a spinner on a terminal, elsewhere as lines.

    Args:
        quiet: Show nothing, for a command that ends with a `document`.

    Yields:
        A function to call with each step, in a few words.
    """
    if quiet:
        yield lambda step: None
        return
    if not _out().is_terminal:
        yield line
        return
    with _out().status("", spinner="dots" if terminal.takes("⠋") else "line") as spinner:
        yield lambda step: spinner.update(_text(f"{step} ..."))


@contextlib.contextmanager
def transfer(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Shows the progress of transfers: as bars on a terminal, elsewhere nothing.

    Args:
        quiet: Show nothing.

    Yields:
        A function to call with a transfer's name, its transferred bytes, and its bytes in all; 0 if unknown.
    """
    if quiet or not _out().is_terminal:
        yield lambda name, done_bytes, total_bytes: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_out(), transient=True) as bars:
        shown: dict[str, Any] = {}

        def show(name: str, done_bytes: int, total_bytes: int) -> None:
            if name not in shown:
                shown[name] = bars.add_task(terminal.plain(name), total=None)
            bars.update(shown[name], completed=done_bytes, total=total_bytes or None)

        yield show


def interactive() -> bool:
    """Whether a user can answer."""
    return sys.stdin.isatty() and _out().is_terminal


def confirm(question: str) -> bool:
    """Ask for yes or no; Enter means no."""
    return click.confirm(question, default=False)


def choose(question: str, answers: Iterable[str]) -> str:
    """Ask for one of several answers; Enter means the first."""
    choices = list(answers)
    return str(click.prompt(question, type=click.Choice(choices), default=choices[0]))


def confirm_by_typing(question: str, word: str) -> bool:
    """Ask the user to type a word, which does not happen by mistake."""
    return bool(click.prompt(question, default="", show_default=False) == word)


def alert(text: str) -> None:
    """A warning before something is done."""
    _out().print(_joined(("! ", "bold red"), _text(text, "bold")) if _out().is_terminal else _text(f"! {text}"))


_SIGNS = {"+": "green", "~": "yellow", "-": "red", "-/+": "bold red"}


def changes(heading: str, rows: Iterable[tuple[str, str, str, str]]) -> None:
    """Changes of resources, each with a sign: ``+``, ``~``, ``-`` or ``-/+``.

    Args:
        heading: The stack of the resources.
        rows: Sign, name, type and details of each change.
    """
    _out().print(_text(heading, "bold"))
    shown = [tuple(map(terminal.plain, row)) for row in rows]
    names = max((len(name) for _, name, _, _ in shown), default=0)
    kinds = max((len(kind) for _, _, kind, _ in shown), default=0)
    for sign, name, kind, details in shown:  # not a table, which would be cut in a pipe
        style = _SIGNS.get(sign, "")
        _out().print(_joined((f"  {sign:<3} ", style), f"{name:<{names}}  ", (f"{kind:<{kinds}}  ", "dim"), details))


def event(where: str, status: str, what: str, reason: str) -> None:
    """An event of a stack.

    Args:
        where: Name of the stack.
        status: Status of the resource, ``"CREATE_COMPLETE"``.
        what: The resource.
        reason: AWS's reason; mostly empty.
    """
    style = "red" if status.endswith("_FAILED") else "green" if status.endswith("_COMPLETE") else "dim"
    said = f": {reason}" if reason else ""
    where, status = terminal.plain(where), terminal.plain(status)
    _out().print(_joined(f"{where:<8} ", (f"{status:<35}", style), _text(f" {what}{said}")))


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """A table of names and values."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(_text(terminal.plain(name)), _text(value))
    _widen()
    _out().print(table)


def table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table with headers."""
    _widen()
    _out().print(_table(headers, rows), crop=False)


def _widen() -> None:
    if not _out().is_terminal:  # rich assumes 80 columns for a pipe, and would cut lines
        _out().width = max(_out().width, MIN_TABLE_WIDTH)


_STATES = {"RUNNING": "cyan", "SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow"}
"""Colours of cells that begin with a state of AWS Batch."""


def _table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> Table | Group:
    """A table of which nothing is cut: cut names, ids and commands are useless.

    The last column, which has whole sentences, takes more lines on a terminal; a pipe gets one line for each row.
    """
    from rich.cells import cell_len
    from rich.table import Table

    names, values = list(headers), [list(map(terminal.plain, row)) for row in rows]
    widths = [max([cell_len(name), *(cell_len(row[i]) for row in values)]) for i, name in enumerate(names[:-1])]
    left = _out().width - sum(widths) - len(_GAP) * len(widths)
    longest = max((cell_len(row[-1]) for row in values), default=0)
    if not _out().is_terminal or left < min(longest, LEAST_LAST_COLUMN):
        return _lines(names, values, widths, below=_out().is_terminal)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name, width in zip(names[:-1], widths, strict=True):
        shown.add_column(name, no_wrap=True, min_width=width)
    shown.add_column(names[-1], overflow="fold")
    for row in values:
        shown.add_row(*map(_cell, row))
    return shown


def _cell(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=_STATES.get(text.partition(" ")[0], ""))


def _lines(names: list[str], values: list[list[str]], widths: list[int], *, below: bool) -> Group:
    """A table as lines, whose last column is at the end of its rows, or below them."""
    from rich.cells import cell_len
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    lines: list[Text | Padding] = []
    for index, row in enumerate([names, *values]):
        padded = [
            part
            for cell, width in zip(row[:-1], widths, strict=True)
            for part in (_cell(cell), " " * (width - cell_len(cell)), _GAP)
        ]
        one = Text.assemble(*padded, *([] if below else [_cell(row[-1])]), style="" if index else "bold")
        one.rstrip()
        lines.append(_wrapped(one) if below else one)
        if below and row[-1]:
            lines.append(Padding(_wrapped(_cell(row[-1])), (0, 0, 0, 4)))
    return Group(*lines)


def _wrapped(text: Text) -> Text:
    """The text, for a place where rich would cut its lines at the width of the terminal."""
    text.no_wrap, text.overflow = False, "fold"
    return text


Show = Callable[[Iterable[str], Iterable[Iterable[str]], str], None]
"""Shows a table: headers, rows and lines about them. Without headers there is no table."""


@contextlib.contextmanager
def live() -> Iterator[Show]:
    """A table that is updated in place on a terminal; elsewhere each update is a new table.

    Yields:
        A function to call for each update.
    """
    if not _out().is_terminal:

        def below(headers: Iterable[str], rows: Iterable[Iterable[str]], footer: str) -> None:
            if names := list(headers):
                table(names, rows)
            line(f"{footer}\n")

        yield below
        return
    from rich.console import Group
    from rich.live import Live

    with Live(console=_out(), auto_refresh=False, vertical_overflow="ellipsis") as shown:

        def in_place(headers: Iterable[str], rows: Iterable[Iterable[str]], footer: str) -> None:
            # The lines about the table come first: the end of a table that is higher than the terminal is cut.
            first, *others = footer.splitlines()
            lines = [_wrapped(_text(first, "bold")), *(_wrapped(_text(other)) for other in others)]
            names = list(headers)
            shown.update(Group(*lines, *([_table(names, rows)] if names else [])), refresh=True)

        yield in_place


def document(value: Any) -> None:
    """A JSON document, for programs."""
    click.echo(json.dumps(value, indent=2))


def document_line(value: Any) -> None:
    """A JSON document in one line, for programs that read one line after the other."""
    click.echo(json.dumps(value))


LONGEST_LIST = 90
"""Characters of a list of names above which only their number is shown."""

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failure": ("✗", "bold red"), "skipped": ("-", "dim")}


def findings(found: Iterable[Any]) -> None:
    """Findings (`jobs.findings.Finding`), each in a line, with its remedy below.

    Several findings of one check without a problem share a line.
    """
    for (_, level), alike in itertools.groupby(found, key=lambda each: (each.id, each.level)):
        each, *others = alike
        mark, style = _MARKS[level]
        if not _out().is_terminal:  # a pipe has no colours for the levels
            mark = f"{level:<8}"
        shown = [(f"{each.id} {each.subject}".strip(), each.seen, each.remedy)]
        if others and level == "ok":
            named = ", ".join(one.subject for one in (each, *others))
            shown = [(each.id, f"{len(others) + 1} are well" + (f": {named}" if len(named) < LONGEST_LIST else ""), "")]
        elif others:
            shown += [(f"{one.id} {one.subject}", one.seen, one.remedy) for one in others]
        for about, seen, remedy in shown:
            _out().print(_joined((f"{mark} ", style), _text(about, "bold"), _text(f": {seen}")))
            if remedy:
                _out().print(_text(f"{' ' * (len(mark) + 1)}-> {remedy}"))
