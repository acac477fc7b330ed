"""``cirro resume``: goes on with dispatches whose Covalent server died. Shows the answers of `electron.resume`."""

from __future__ import annotations

import sys

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.account import aws_option
from covalent_cirro.cli.options import json_option


@click.command(epilog="Exit codes: 0 done; 1 a dispatch could not be resumed.")
@click.argument("dispatches", metavar="[DISPATCH]...", nargs=-1)
@json_option
@aws_option
def resume(dispatches: tuple[str, ...], as_json: bool) -> None:
    """Go on with dispatches that a Covalent server left unfinished; without DISPATCH, with all of them.

    A server that starts resumes dispatches by itself where that is safe. This command is for dispatches in which
    electrons of other executors were running: these run again from their start.
    """
    from covalent_cirro.electron.resume import request  # imports Covalent, two seconds

    answers = request.resume(dispatches)
    if as_json:
        render.document({"dispatches": [answer._asdict() for answer in answers]})
    elif not answers:
        render.line("no dispatch is unfinished")
    else:
        render.table(
            ("dispatch", "", "electrons", ""),
            ((each.dispatch_id, each.state, str(each.electrons or ""), each.why) for each in answers),
        )
    if not all(answer.is_good for answer in answers):
        sys.exit(1)
