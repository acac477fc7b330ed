"""``cirro logs``: shows what an electron printed, from `history.output` and `history.following`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.options import Target, target_options
from covalent_cirro.history.names import Wanted

if TYPE_CHECKING:
    from covalent_cirro.history.account import Account
    from covalent_cirro.history.find import Electron
    from covalent_cirro.history.output import Piece


@click.command()
@click.argument("electron", type=DispatchName(node=True, item=True), metavar="DISPATCH:NODE")
@click.option(
    "--node",
    type=click.IntRange(min=0),
    help="Of a job with several nodes (num_nodes): that node. Unset: the main one.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, or until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: a JSON object in each line: attempt, stream, text and note."
)
@target_options
def logs(target: Target, electron: Wanted, node: int | None, follow: bool, as_json: bool) -> None:
    """Show what an electron printed: its stdout on stdout, its stderr on stderr.

    The log of a job that runs, or that was killed, has both streams in one: it is written to stdout. Notes about the
    log are written to stderr. Needs no Covalent server; an electron that failed is no failure of this command. Of a
    map, DISPATCH:NODE[ITEM] shows the log of the job that computes that item.
    """
    from covalent_cirro.history import electron_nodes, map_items
    from covalent_cirro.history.account import open_account

    def look() -> Electron:
        if node is None:
            return map_items.electron_or_job(account, electron)
        return electron_nodes.electron_on(account, electron._replace(item=None), node)

    with open_account(target.access, target.stack_name) as account:
        found = look()
        printed = False
        with contextlib.suppress(KeyboardInterrupt):
            for piece in _pieces(account, found, follow=follow, as_json=as_json):
                printed = printed or bool(piece.text)
                _show(piece, as_json=as_json)
        render.end_raw()
        if not as_json:
            _say_end(account, look() if follow else found, printed=printed)


def _pieces(account: Account, found: Electron, *, follow: bool, as_json: bool) -> Iterator[Piece]:
    from covalent_cirro.history import following, output

    if not follow:
        return output.read(account, found)
    return following.follow(account, found, say=(lambda _: None) if as_json else render.note)


def _show(piece: Piece, *, as_json: bool) -> None:
    from covalent_cirro.contract import log_parts

    if as_json:
        render.document_line(piece._asdict())
    elif piece.about:
        render.note(f"--- {piece.about} ---")
    else:
        render.raw(piece.text, to_stderr=piece.stream == log_parts.STDERR)


def _say_end(account: Account, found: Electron, *, printed: bool) -> None:
    from covalent_cirro.history.electron_list import NOBODY_KNOWS
    from covalent_cirro.history.story import Site, tell
    from covalent_cirro.jobs.reuse_texts import REUSED
    from covalent_cirro.jobs.states import CANCELLED, JobState

    record = found.record
    if record is None and found.newest.outcome is None:
        render.note(NOBODY_KNOWS)
    elif record is not None and not record.has_ended:
        render.note(f"{record.state}: " + ("more may come, -f waits for it" if printed else "nothing is printed yet"))
    elif not printed:
        render.note("nothing was printed")
    story = tell(found, account.settings, Site(account.region, account.partition))
    if story.state == REUSED:
        render.note(f"{REUSED}: {story.why}; this is what that job printed")
    without_result = story.state in (JobState.FAILED.value, CANCELLED)
    if found.newest.problem and not without_result:
        render.note(found.newest.problem)
    if without_result and story.why:
        render.note(f"{story.state}: {story.why}")
        if story.advice:
            render.note(f"to do: {story.advice}")
