"""``cirro run``: dispatches a lattice from a file, and shows its electrons until the dispatch has ended."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.jobs import look, show_rows
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import CirroError, HostError, SettingsError
from covalent_cirro.history.names import SHORT, Wanted
from covalent_cirro.jobs.formatting import counted, sentences, usd

if TYPE_CHECKING:
    from covalent_cirro.history.account import Account
    from covalent_cirro.history.board import Board
    from covalent_cirro.history.electron_list import Row

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell has it."""

LOOK_S = 1.0
"""Seconds between two reads of the dispatch's status from the Covalent server."""


SILENT_SERVER_S = 120.0
"""Seconds for which the Covalent server may not answer: long enough to start it again. The jobs go on meanwhile."""


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=f"Exit codes: 0 the dispatch completed; 1 it did not; {INTERRUPTED} after Ctrl-C.",
)
@click.option(
    "--reuse",
    type=DispatchName(node=False),
    metavar="DISPATCH",
    help="Reuse results of this earlier dispatch where the work is the same; the beginning of the id is enough.",
)
@click.option("--detach", is_flag=True, help="Print the dispatch's id, and do not wait.")
@target_options
@json_option
@click.argument("lattice", metavar="FILE:LATTICE")
@click.argument("arguments", metavar="[--ARG VALUE]...", nargs=-1, type=click.UNPROCESSED)
def run(
    target: Target, lattice: str, arguments: tuple[str, ...], reuse: Wanted | None, detach: bool, as_json: bool
) -> None:
    """Dispatch a lattice, and show its electrons until the dispatch has ended.

    Options are written before the lattice, the lattice's arguments after it; FILE:LATTICE --help lists them. A value is
    parsed as Python or JSON; if it is neither, it is a text. Ctrl-C cancels the dispatch and waits until its jobs have
    ended; a second Ctrl-C ends the command at once.

    \b
    cirro run sweep.py:sweep --epochs 20 --rates "[0.1, 0.01]"
    """
    from covalent_cirro.covalent_server import client
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.board import Board
    from covalent_cirro.history.electron_list import counts, row_document, why_not_reused
    from covalent_cirro.jobs.reuse_texts import REUSED

    if client.asks_for_help(arguments):
        _show_help(lattice)
        return
    try:
        loaded, dispatch_id, earlier = _register(target, lattice, arguments, reuse)
    except KeyboardInterrupt:
        render.note("nothing was started")
        sys.exit(INTERRUPTED)
    interrupted = False
    try:
        with _ctrl_c_later():
            client.start(loaded, dispatch_id)
        if detach:
            _show_detached(dispatch_id, earlier, as_json)
            return
        if not as_json:
            render.line(f"dispatch {dispatch_id}: {client.page(dispatch_id)}")
        status, rows = _follow(target, dispatch_id, earlier is not None, as_json)
    except KeyboardInterrupt:
        interrupted = True
        status, rows = _cancel(target, dispatch_id, earlier is not None, as_json)
    with open_account(target.access, target.stack_name) as account:
        if status != client.COMPLETED:
            rows = Board(account, dispatch_id).look()  # with Covalent's own nodes, which are no jobs
        # Without a row there was no job: a map without items, or nodes that the server ran itself.
        cost = "" if as_json or interrupted or not rows else _cost(account, dispatch_id)
    if as_json:
        electrons = [row_document(row) for row in rows]
        found = {"dispatch_id": dispatch_id, "status": status, "electrons": electrons, "counts": counts(rows)}
        if earlier is not None:
            found["not_reused"] = [
                {"node_id": row.node_id, "electron": row.electron, "why": row.not_reused}
                for row in rows
                if row.not_reused
            ]
        render.document(found)
    else:
        if earlier is not None:
            render.line(f"{sum(row.state == REUSED for row in rows)} of {len(rows)} electrons reused from {earlier}")
            for line in why_not_reused(rows):
                render.line(line)
        _show_end(dispatch_id, status, rows, cost, lattice)
    sys.exit(INTERRUPTED if interrupted else int(status != client.COMPLETED))


def _register(
    target: Target, lattice: str, arguments: tuple[str, ...], reuse: Wanted | None
) -> tuple[Any, str, str | None]:
    """Hand a lattice to the server. Gives the lattice, the id of its dispatch, and that of the earlier dispatch."""
    from covalent_cirro.covalent_server import client
    from covalent_cirro.history import find
    from covalent_cirro.history.account import open_account

    try:
        loaded = client.load(lattice)
        given = client.arguments(loaded, arguments)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    earlier = None
    if reuse is not None:
        with open_account(target.access, target.stack_name) as account:
            earlier = find.dispatch_named(account, reuse.dispatch)
    return loaded, client.register(loaded, given, reuse_from=earlier), earlier


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Have Ctrl-C take effect at the end of the block; a second one takes effect at once.

    A request that is broken off may have been heard: what the server has begun could not be cancelled.
    """
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a command in the background of a script ignores Ctrl-C
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _cancel(target: Target, dispatch_id: str, reusing: bool, quiet: bool) -> tuple[str, list[Row]]:
    """Cancel a dispatch and show its electrons until it has ended. Ctrl-C ends the command."""
    from covalent_cirro.covalent_server import client

    try:
        render.note("cancelling the dispatch; Ctrl-C again leaves it to the server")
        client.cancel(dispatch_id)
        return _follow(target, dispatch_id, reusing, quiet)
    except KeyboardInterrupt:
        short = dispatch_id[:SHORT]
        render.note(
            f"dispatch {dispatch_id} may go on: `cirro jobs --dispatch {short}` shows its jobs, `cirro stop {short}` "
            "ends them"
        )
        sys.exit(INTERRUPTED)


def _show_detached(dispatch_id: str, earlier: str | None, as_json: bool) -> None:
    render.document({"dispatch_id": dispatch_id}) if as_json else render.line(dispatch_id)
    if earlier is not None:
        render.note(
            f"`cirro jobs --dispatch {dispatch_id[:SHORT]}` shows what is reused from {earlier}, and why the rest is "
            "not; `cirro show DISPATCH:NODE` and the electron's panel in the Covalent UI say it as well"
        )


def _show_end(dispatch_id: str, status: str, rows: list[Row], cost: str, lattice: str) -> None:
    """Show how a dispatch ended: its result, or why there is none; its cost; and what to type next."""
    from covalent_cirro.covalent_server import client
    from covalent_cirro.history.electron_list import items_without_result
    from covalent_cirro.jobs.states import CANCELLED, JobState

    def told(row: Row, why: str) -> str:
        return f"{row.electron}: {why} (`cirro show {row.dispatch_id[:SHORT]}:{row.node_id}`)"

    # AWS Batch says FAILED of an array if one of its jobs failed, whatever has become of the electron.
    has_list = {row.job_id for row in rows if status == client.COMPLETED and items_without_result(row)}
    without = [told(row, items_without_result(row)) for row in rows if row.job_id in has_list]
    failed = [told(row, row.why) for row in rows if row.state == JobState.FAILED.value and row.job_id not in has_list]
    if status == client.COMPLETED:
        # Covalent would raise FileNotFoundError without naming its setting.
        quoted = client.quoted_folder()
        where = ', results_dir="..."' if quoted else ""
        render.done(f'the dispatch is {status}; ct.get_result("{dispatch_id}"{where}).result has its result')
        if quoted:
            render.note(f"Covalent cannot use the path {quoted}: name another folder; `cirro doctor` says which")
        if without:
            render.warning("\n".join(["items that failed, whose errors are in their places (on_error):", *without]))
        if failed:
            render.warning("\n".join(["electrons that failed, whose errors are their values (on_error):", *failed]))
    elif status == client.CANCELLED and not failed:
        cancelled = sum(row.state == CANCELLED for row in rows)
        render.note(f"the dispatch is {status}, and with it {cancelled} of {len(rows)} electrons with a job")
    else:
        render.failure("\n".join([f"the dispatch is {status}", *(failed or [client.error(dispatch_id)])]).rstrip())
    short = dispatch_id[:SHORT]
    render.facts(
        [
            *([("result", _result(dispatch_id))] if status == client.COMPLETED else []),
            *([("cost", cost)] if cost else []),
            *(
                [
                    ("next", f"cirro report {short}   its use and cost, and the sizes to ask for next time"),
                    ("", f"cirro run --reuse {short} {shlex.quote(lattice)}   computes only what you change"),
                ]
                if rows
                else []
            ),
        ]
    )


def _result(dispatch_id: str) -> str:
    """The beginning of the result, or why it cannot be shown: the dispatch itself has ended well."""
    from covalent_cirro.covalent_server import client

    try:
        return client.result_text(dispatch_id)
    except HostError as error:
        return f"not shown: {error}"


def _cost(account: Account, dispatch_id: str) -> str:
    """The cost of a dispatch; empty where it cannot be read: the dispatch itself has ended well."""
    from covalent_cirro.history.report import make

    try:
        total = make(account, dispatch_id).total
    except CirroError as error:
        render.note(f"the cost cannot be read: {error}")
        return ""
    unknown = f", {total.unknown} attempts without a price" if total.unknown else ""
    return f"{'' if total.exact else '≈ '}{usd(total.usd)}{unknown}"


def _show_help(lattice: str) -> None:
    """The help of the command, and the arguments of the lattice, or why they are not known."""
    from covalent_cirro.covalent_server import client

    context = click.get_current_context()
    render.line(context.get_help())
    try:
        rows = client.described(client.load(lattice))
    except SettingsError as error:
        render.line(f"\nNo arguments of a lattice are known: {error}")
    except Exception as error:  # whatever the user's file raises
        render.line(f"\nNo arguments of {lattice} are known: it raises {type(error).__name__}: {error}")
    else:
        render.line(f"\nArguments of {lattice}:" if rows else f"\n{lattice} takes no arguments.")
        render.facts((f"  {name}", about) for name, about in rows)


def _follow(target: Target, dispatch_id: str, reusing: bool, quiet: bool) -> tuple[str, list[Row]]:
    """Show the electrons until the dispatch has ended; returns its status, and the rows of its electrons."""
    from covalent_cirro.covalent_server import client
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.board import Board

    with contextlib.ExitStack() as opened:
        # An import that Ctrl-C breaks off can leave a module that fails when it is used: the first look imports much.
        with _ctrl_c_later():
            account = opened.enter_context(open_account(target.access, target.stack_name))
            board = Board(account, dispatch_id, reusing=reusing)
            show = None if quiet else opened.enter_context(render.live())
            first = ([], "") if quiet else look(board, [])
        asked = _Status(dispatch_id)
        if show is not None:
            return _watch(board, asked, show, *first)
        while (status := asked.now()) not in client.ENDED:
            time.sleep(LOOK_S)
        return status, board.look()


def _watch(board: Board, asked: _Status, show: render.Show, rows: list[Row], problem: str) -> tuple[str, list[Row]]:
    """As `_follow`, after a first look."""
    from covalent_cirro.covalent_server import client
    from covalent_cirro.history.electron_list import counts

    shown: tuple[object, ...] = ()
    next_look = time.monotonic() + board.pause_s
    while True:
        status = asked.now()
        has_ended = status in client.ENDED
        if has_ended or time.monotonic() >= next_look:
            rows, problem = look(board, rows)
            next_look = time.monotonic() + board.pause_s
        note = (f"; {asked.problem}" if asked.problem else "") + problem
        now = (status, note, *((row.job_id, row.state, row.attempt, row.reason) for row in rows))
        if render.interactive() or now != shown:
            nothing = "no job" if has_ended else "no job yet"
            footer = f"{status}: {counted(counts(rows)) or nothing}{note}"
            show_rows(show, rows, footer, one_dispatch=True)
        if has_ended:
            return status, rows
        shown = now
        time.sleep(LOOK_S)


class _Status:
    """The status of a dispatch, also while its Covalent server does not answer.

    Attributes:
        problem: Why the status is not that of now; empty if it is.
    """

    def __init__(self, dispatch_id: str) -> None:
        self._dispatch_id = dispatch_id
        self._last = "status unknown"
        self._answered_at = time.monotonic()
        self.problem = ""

    def now(self) -> str:
        """Ask the server; give the last status where it does not answer.

        Raises:
            HostError: It has not answered for `SILENT_SERVER_S`.
        """
        from covalent_cirro.covalent_server import client

        try:
            self._last, self.problem = client.status(self._dispatch_id), ""
            self._answered_at = time.monotonic()
        except HostError as error:
            silent_s = time.monotonic() - self._answered_at
            if silent_s > SILENT_SERVER_S:
                raise HostError(
                    sentences(
                        str(error),
                        f"Jobs that run go on: `cirro jobs --dispatch {self._dispatch_id}` shows them, and a server "
                        "that starts again goes on with the dispatch.",
                    )
                ) from error
            if not self.problem:
                render.note(sentences(str(error), f"Waiting {SILENT_SERVER_S:.0f} s for it; the jobs go on."))
            self.problem = "the Covalent server does not answer"
        return self._last
