"""``cirro report``: what a dispatch used and cost, as an HTML page. Writes, serves and shows `history.report`'s."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import AwsError
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.formatting import duration, usd

if TYPE_CHECKING:
    from covalent_cirro.history.account import Account
    from covalent_cirro.history.report import Report
    from covalent_cirro.history.report.item_spread import MapReport
    from covalent_cirro.history.report.steps import Step


@click.command()
@click.argument("dispatch", type=DispatchName(node=False), metavar="DISPATCH")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write the page to. Unset: cirro-report-DISPATCH.html here.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Write no file: serve the page on this machine, for you only, and keep it up to date until Ctrl-C.",
)
@json_option
@target_options
def report(dispatch: Wanted, output: Path | None, watch: bool, target: Target, as_json: bool) -> None:
    """Write what a dispatch used and cost, as one HTML page.

    DISPATCH is the dispatch's id, or the beginning of the id. The page has all electrons with their states, why they
    wait or failed and what they printed last, a timeline, what each asked for and used, what to ask for next time,
    attempts that lost their instance, and the cost. Needs no Covalent server.

    With --json the report is written as one JSON document, and a page only with --output.
    """
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.report import document, make
    from covalent_cirro.history.report.page import page
    from covalent_cirro.private import opener

    if watch and (as_json or output is not None):
        raise click.UsageError("--watch serves the page; for a file or JSON, call the command without it.")
    if watch:
        with open_account(target.access, target.stack_name) as account, contextlib.suppress(KeyboardInterrupt):
            _watch(account, dispatch.dispatch)
        return
    with render.steps(quiet=as_json) as step, open_account(target.access, target.stack_name) as account:
        step("reading jobs, outcomes and prices")
        found = make(account, dispatch.dispatch)
    if output is None and not as_json:
        output = Path(f"cirro-report-{found.dispatch_id[:8]}.html")
    if output is not None:
        try:
            with open(output, "w", encoding="utf-8", errors="replace", opener=opener) as file:
                file.write(page(found))
        except OSError as error:
            raise click.FileError(str(output), f"the page could not be written: {error.strerror}") from error
    if as_json:
        render.document(document(found))
        return
    _show(found)
    render.done(f"{output}")


LONGEST_PAUSE_S = 60.0
"""Seconds between two looks at a dispatch whose jobs have all ended, at most: each look without a job under way doubles
the pause. From AWS alone it is not known whether the dispatch has ended, or will send more electrons."""


def pause_s(least_s: float, quiet_looks: int) -> float:
    """Seconds until the next look at a dispatch, after so many looks in a row that found no job under way."""
    return max(least_s, min(LONGEST_PAUSE_S, least_s * 2.0 ** min(max(0, quiet_looks - 1), 10)))


def _watch(account: Account, dispatch: str) -> None:
    """Serve the page until Ctrl-C. AWS is asked as often as one page needs, however many browsers show the page."""
    from covalent_cirro.history.report import compute
    from covalent_cirro.history.report.page import page, served_policy
    from covalent_cirro.history.report.sources import DispatchSources
    from covalent_cirro.loopback.page_server import PageServer

    with render.steps() as step:
        step("reading jobs, outcomes and prices")
        sources = DispatchSources(account, dispatch, reusing=True)
        found = compute(sources.look())
    quiet_looks, trouble = 0, ""
    with PageServer() as server:
        server.show(page(found, watched=True), served_policy())
        render.line(f"{found.dispatch_id} {found.lattice}".strip())
        render.line(f"{server.url}")
        render.line("is its report, for you only: open it in a browser on this machine. Ctrl-C ends it.")
        while True:
            if not trouble:
                quiet_looks = 0 if found.is_under_way else quiet_looks + 1
            if quiet_looks == 1 and not trouble:
                about = "" if found.total.exact else "≈ "
                render.line(f"all its jobs have ended, {found.failed} failed; cost {about}{usd(found.total.usd)}")
            time.sleep(pause_s(sources.pause_s, quiet_looks))
            try:
                found, trouble = compute(sources.look()), ""
            except AwsError as error:
                if not error.retryable:
                    raise
                trouble = str(error)
            server.show(page(found, watched=True, trouble=trouble), served_policy())


STEP_HEADERS = ("step", "electrons", "attempts", "took", "ran", "cost", "instances")


def _step_cells(step: Step) -> tuple[str, ...]:
    took = "?" if step.elapsed_s is None else duration(step.elapsed_s)
    return step.name, str(step.nodes), str(step.attempts), took, duration(step.ran_s), step.cost, step.where


def _map_line(of: MapReport) -> str:
    """How long items took, what one cost, and how many jobs to share them over next time."""
    failed = f", {of.failed:,} without a result" if of.failed else ""
    parts = [f"{of.done:,} of {of.items:,} items in {of.jobs:,} jobs{failed}"]
    if of.min_s is not None and of.median_s is not None and of.p95_s is not None and of.max_s is not None:
        times = f"{duration(of.min_s)} to {duration(of.max_s)}, median {duration(of.median_s)}"
        parts.append(f"{times}, 95 of 100 up to {duration(of.p95_s)}")
    if of.usd_per_item is not None:
        parts.append(f"{'' if of.exact else '≈ '}{usd(of.usd_per_item)} an item")
    if of.next_jobs not in (None, of.jobs):
        parts.append(f"next time array_size={of.next_jobs}: {of.why}")
    return "; ".join(parts)


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
    rows += [(f"map {each.name}", _map_line(each)) for each in found.maps]
    render.facts(rows)
    if len(found.steps) > 1:
        render.line("")
        render.table(STEP_HEADERS, [_step_cells(step) for step in found.steps])
    for note in found.notes:
        render.line(note)
