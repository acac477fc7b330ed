"""``cirro report``: what a dispatch used and cost, as an HTML page. Writes and shows reports of `history.report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.formatting import duration, usd

if TYPE_CHECKING:
    from covalent_cirro.history.report import Report


@click.command()
@click.argument("dispatch", type=DispatchName(node=False), metavar="DISPATCH")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write the page to. Unset: cirro-report-DISPATCH.html here.",
)
@json_option
@target_options
def report(dispatch: Wanted, output: Path | None, target: Target, as_json: bool) -> None:
    """Write what a dispatch used and cost, as one HTML page.

    DISPATCH is the dispatch's id, or the beginning of the id. The page has a timeline of all electrons, what each asked
    for and used, what to ask for next time, attempts that lost their instance, and the cost. Needs no Covalent server.

    With --json the report is written as one JSON document, and a page only with --output.
    """
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.report import document, make
    from covalent_cirro.history.report.page import page

    with render.steps(quiet=as_json) as step, open_account(target.access, target.stack_name) as account:
        step("reading jobs, outcomes and prices")
        found = make(account, dispatch.dispatch)
    if output is None and not as_json:
        output = Path(f"cirro-report-{found.dispatch_id[:8]}.html")
    if output is not None:
        try:
            output.write_text(page(found), "utf-8", errors="replace")
        except OSError as error:
            raise click.FileError(str(output), f"the page could not be written: {error.strerror}") from error
    if as_json:
        render.document(document(found))
        return
    _show(found)
    render.done(f"{output}")


def _show(found: Report) -> None:
    total = found.total
    about = "" if total.exact else "≈ "
    began_at, ended_at = found.began_at, found.ended_at
    ended = f"{found.failed} failed" + (f", {found.cancelled} cancelled" if found.cancelled else "")
    rows = [
        ("dispatch", f"{found.dispatch_id} {found.lattice}".strip()),
        ("electrons", f"{len({run.node_id for run in found.runs})}, {ended}, {found.running} under way"),
        ("took", "?" if began_at is None or ended_at is None else duration(ended_at - began_at)),
        ("cost", f"{about}{usd(total.usd)}" + (f", {total.unknown} attempts without a price" if total.unknown else "")),
    ]
    if found.reused:
        rows.append(("reused", f"{found.reused} electrons have the results of earlier jobs, which cost nothing again"))
    if total.lost:
        attempts = "attempt" if total.lost == 1 else "attempts"
        rows.append(("lost", f"{total.lost} {attempts} with the instance, {usd(total.lost_usd)}"))
    for size in found.sizes:
        if size.next != size.asked or size.outliers:
            apart = [f"node {each.node_id} {each.options}" for each in size.outliers]
            rows.append((f"next {size.name}", "; ".join([size.options, *apart])))
    render.facts(rows)
    for note in found.notes:
        render.line(note)
