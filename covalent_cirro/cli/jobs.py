"""``cirro jobs``: lists electrons that run, wait or have ended. Shows the rows of `history.board`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import AwsError
from covalent_cirro.history.names import SHORT, Wanted
from covalent_cirro.jobs import arguments
from covalent_cirro.jobs.formatting import MIB, counted, elapsed, memory

if TYPE_CHECKING:
    from covalent_cirro.history.account import Account
    from covalent_cirro.history.board import Board
    from covalent_cirro.history.electron_list import Row

HEADERS = ("electron", "arguments", "lattice", "node", "state", "attempt", "where", "memory", "reported", "")

WHY_CHARACTERS = 600
"""Characters of a reason in the list, at most: advice is shorter, only errors are longer; `cirro show` has all."""


class JobTable(NamedTuple):
    """A table of rows, and what is written below it: why jobs wait, and warnings; each once, whatever it applies to."""

    headers: tuple[str, ...]
    cells: list[tuple[str, ...]]
    notes: list[str]


@click.command()
@click.option(
    "--dispatch",
    type=DispatchName(node=False),
    metavar="ID",
    help="Jobs of this dispatch only; the beginning of the id is enough.",
)
@click.option(
    "--all", "everything", is_flag=True, help="All jobs that AWS Batch knows: it keeps them for at least 7 days."
)
@click.option("--watch", is_flag=True, help="Update the list every few seconds, until Ctrl-C.")
@json_option
@target_options
def jobs(target: Target, dispatch: Wanted | None, everything: bool, watch: bool, as_json: bool) -> None:
    """List electrons' jobs: first those that run, then those that wait, then those that have ended.

    Without options, jobs that have not ended and jobs of the last day are listed. A node is shown as DISPATCH:NODE, as
    other commands take it. Needs no Covalent server.
    """
    if watch and as_json:
        raise click.UsageError("--watch shows a table; with --json, ask again yourself.")
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(target, dispatch, everything)
        return
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.electron_list import counts, row_document, why_not_reused

    with open_account(target.access, target.stack_name) as account:
        board, dispatch_id = _board(account, dispatch, everything)
        rows = board.look()
    if board.problem:
        render.note(board.problem)
    if as_json:
        render.document({"jobs": [row_document(row) for row in rows], "counts": counts(rows)})
    elif not rows:
        render.line("no electron of the last day; `cirro jobs --all` looks further back" if not everything else "none")
    else:
        shown = rows_as_table(rows, one_dispatch=dispatch_id is not None)
        render.table(shown.headers, shown.cells)
        render.line(f"\n{counted(counts(rows))}")
        for line in [*shown.notes, *(why_not_reused(rows) if dispatch_id is not None else ())]:
            render.line(line)


def _board(account: Account, dispatch: Wanted | None, everything: bool) -> tuple[Board, str | None]:
    """The list, and the id of its dispatch if it is that of one."""
    from covalent_cirro.history import find
    from covalent_cirro.history.board import Board

    dispatch_id = None if dispatch is None else find.dispatch_named(account, dispatch.dispatch)
    return Board(account, dispatch_id, everything=everything), dispatch_id


def _watch(target: Target, dispatch: Wanted | None, everything: bool) -> None:
    with render.live() as show:
        # The first look at many jobs takes a while, and so do the imports of AWS's clients.
        show((), (), "looking for jobs in AWS Batch ...")
        from covalent_cirro.history.account import open_account
        from covalent_cirro.history.electron_list import counts

        with open_account(target.access, target.stack_name) as account:
            board, dispatch_id = _board(account, dispatch, everything)
            rows: list[Row] = []
            while True:
                rows, problem = look(board, rows)
                footer = f"{counted(counts(rows)) or 'no electron'}{problem}"
                show_rows(show, rows, footer, one_dispatch=dispatch_id is not None)
                time.sleep(board.pause_s)


def look(board: Board, before: list[Row]) -> tuple[list[Row], str]:
    """The rows of now, or those of before while AWS does not answer; and what is missing in them, for the footer.

    Raises:
        AwsError: AWS refused, or cannot be reached at all.
    """
    rows, problems = before, []
    try:
        rows = board.look()
    except AwsError as error:
        if not error.retryable:
            raise
        problems.append(f"not up to date: {error}")
    problems += [board.problem] if board.problem else []
    return rows, "".join(f"; {each}" for each in problems)


def show_rows(show: render.Show, rows: Sequence[Row], footer: str, *, one_dispatch: bool) -> None:
    """Show rows in a live list (`render.live`), with what is written below the table after the footer."""
    table = rows_as_table(rows, one_dispatch=one_dispatch)
    show(table.headers, table.cells, "\n".join([footer, *table.notes]))


def rows_as_table(rows: Sequence[Row], *, one_dispatch: bool) -> JobTable:
    """Headers and cells of a table, without empty columns, and for one dispatch without its lattice."""
    from covalent_cirro.history.electron_list import reasons, warnings

    cells = _cells(rows, time.time())
    shown = [
        i
        for i, header in enumerate(HEADERS)
        if not header or (any(row[i] for row in cells) and not (one_dispatch and header == "lattice"))
    ]
    notes = [*reasons(rows), *warnings(rows)]
    return JobTable(tuple(HEADERS[i] for i in shown), [tuple(row[i] for i in shown) for row in cells], notes)


def _cells(rows: Sequence[Row], now: float) -> list[tuple[str, ...]]:
    from covalent_cirro.history.electron_list import differences

    return [
        (
            row.electron,
            arguments.line(own, arguments.CELL_CHARS),
            row.lattice,
            f"{row.dispatch_id[:SHORT]}:{row.node_id}",
            _state(row, now),
            _attempt(row),
            row.where or row.queue,
            _memory(row),
            row.reported,
            _why(row),
        )
        for row, own in zip(rows, differences(rows), strict=True)
    ]


def _state(row: Row, now: float) -> str:
    if row.since is None:
        return row.state
    return f"{row.state} {elapsed(now - row.since)}" + (" ago" if row.has_ended else "")


def _attempt(row: Row) -> str:
    return f"{row.attempt or '-'}" + (f" of {row.attempts_allowed}" if row.attempts_allowed else "")


def _why(row: Row) -> str:
    """Position in the queue of a job that waits, whose reason is shown below the table; else why the job failed."""
    if row.reason:
        return "" if row.position is None else f"number {row.position}"
    return row.why if len(row.why) <= WHY_CHARACTERS else f"{row.why[: WHY_CHARACTERS - 3]}..."


def _memory(row: Row) -> str:
    asked = "" if row.memory_mib is None else memory(row.memory_mib)
    return f"{memory(row.used_bytes / MIB)} of {asked or '?'}" if row.used_bytes else asked
