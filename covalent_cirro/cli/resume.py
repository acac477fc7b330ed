"""``cirro resume``: go on with dispatches whose Covalent server died. Shows what `resume.request` was answered."""

from __future__ import annotations

import sys

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import json_option


@click.command(epilog="Exit codes: 0 nothing is left to do by hand; 1 a dispatch could not be resumed.")
@click.argument("dispatches", metavar="[DISPATCH]...", nargs=-1)
@json_option
def resume(dispatches: tuple[str, ...], as_json: bool) -> None:
    """Go on with dispatches that a Covalent server left unfinished. Unset: with all of them.

    A server that starts does it by itself where that is safe. This is for dispatches with electrons of other executors
    under way: they run again from their start.
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
