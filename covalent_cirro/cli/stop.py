"""``cirro stop``: terminates jobs without a Covalent server. Shows what `history.stopping` did."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import Declined
from covalent_cirro.history.names import SHORT, Wanted

if TYPE_CHECKING:
    from covalent_cirro.history.account import Account
    from covalent_cirro.history.item_stops import ItemStop
    from covalent_cirro.history.records import Record
    from covalent_cirro.history.stopping import Stopped

SHOWN = 50
"""Jobs that are listed, at most; further jobs are counted."""


@click.command(epilog="Exit codes: 0 all jobs have ended or will end within 30 s; 1 AWS refused to stop some.")
@click.argument("electrons", type=DispatchName(node=None, item=True), metavar="DISPATCH[:NODE[ITEM]]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All electrons of all dispatches in the deployment's queues.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@target_options
def stop(target: Target, electrons: tuple[Wanted, ...], everything: bool, yes: bool, as_json: bool) -> None:
    """Terminate the jobs of dispatches or electrons, in any state.

    A container has 30 s from SIGTERM to SIGKILL. A Covalent server that waits for such a job shows its electron as
    cancelled, and may go on with other electrons of the dispatch: `ct.cancel` stops these too. Needs no Covalent
    server.

    Of a map, DISPATCH:NODE[ITEM] terminates the one job that computes that item. Results of items that the job has
    stored stay; its other items fail, and the map goes on as its executor's on_error says.
    """
    from covalent_cirro.history import item_stops, stopping
    from covalent_cirro.history.account import open_account

    if bool(electrons) == everything:
        raise click.UsageError("say what to stop: DISPATCH, DISPATCH:NODE, or --all for everything.")
    items = [each for each in electrons if each.item is not None]
    whole = [each for each in electrons if each.item is None]
    done, ended = stopping.NOTHING, []
    with open_account(target.access, target.stack_name) as account:
        if everything:
            find = stopping.everything(account)
            if not yes:
                _ask(account, find()[0], as_json)
        else:
            find = stopping.targets(account, whole)
        with render.steps(quiet=as_json) as say:
            say("stopping")
            if everything or whole:
                done = stopping.stop(account, find, _who())
            ended = [item_stops.stop(account, each, _who()) for each in items]
    if as_json:
        render.document({**_document(done), "items": [each._asdict() for each in ended]})
    else:
        if everything or whole:
            _show(done)
        for each in ended:
            _show_item(each)
    if done.refused or any(each.end == item_stops.REFUSED for each in ended):
        sys.exit(1)


def _who() -> str:
    """The user and the machine, which the job's reason names."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"uid {os.getuid()}"
    return f"{user} on {socket.gethostname()}"


def _ask(account: Account, running: list[Record], as_json: bool) -> None:
    if not running:
        return
    if as_json or not render.interactive():
        raise click.UsageError("without a terminal nobody can be asked: give --yes. Nothing was stopped.")
    dispatches = len({record.dispatch_id for record in running})
    render.alert(
        f"{len(running)} jobs of {dispatches} dispatch{'es' if dispatches > 1 else ''} in "
        f"{', '.join(account.queues.ours)} will be stopped, whoever submitted them"
    )
    if not render.confirm("Stop all of them?"):
        raise Declined("nothing was stopped: you said no.")


def _show(done: Stopped) -> None:
    for record in done.stopped[:SHOWN]:
        render.done(f"stopped {_named(record)}")
    for record in done.stopping[:SHOWN]:
        render.done(f"stopping {_named(record)}: it has 30 s for that")
    if len(done.stopped) + len(done.stopping) > SHOWN:
        render.line(f"stopped or stopping, in all: {len(done.stopped) + len(done.stopping)}")
    for record in done.ended[:SHOWN]:
        render.line(f"had already ended: {_named(record)}, {record.state}")
    if len(done.ended) > SHOWN:
        render.line(f"had already ended, in all: {len(done.ended)}")
    for job_id, words in done.refused.items():
        render.warning(f"job {job_id} was not stopped: {words}")
    if done.calls_without_job:
        render.warning(
            f"{done.calls_without_job} electrons have no job in AWS Batch now. If a Covalent server is still sending "
            "them, cancel the dispatch there."
        )
    if not (done.stopped or done.stopping or done.ended or done.refused or done.calls_without_job):
        render.line("nothing to stop")


THEN = {
    "raise": "The other jobs go on; when they have ended, the electron fails, with a table of all that failed.",
    "stop": "A Covalent server that waits for it ends the other jobs, and the electron fails (on_error='stop').",
    "return": "The other jobs go on; in the places of these items the list has an ElectronFailed that says so.",
}
"""What becomes of a map, by its ``on_error``."""


def _show_item(of: ItemStop) -> None:
    """Say which job was stopped, what stays, and what becomes of the rest."""
    from covalent_cirro.history import item_stops
    from covalent_cirro.jobs.item_failures import indexes

    electron = f"{of.electron} {of.dispatch_id[:SHORT]}:{of.node_id}"
    job = "the only job" if of.jobs == 1 else f"job {of.job_id.rpartition(':')[2]} of {of.jobs:,}"
    left = range(of.first + of.done, of.stop)
    if of.end == item_stops.STOPPED:
        render.done(
            f"stopping {job} of {electron}, which computes item {of.item} (job {of.job_id}): it has 30 s for that"
        )
        verb = "fails" if len(left) == 1 else "fail"
        stored = f"{of.done:,} of its {of.stop - of.first:,} items are stored, and stay; " if of.done else ""
        render.line(f"  {stored}{_items(left)} {indexes(left)} {verb}, but for those that it still stores")
        render.line(f"  {THEN.get(of.on_error, '')}")
    elif of.end == item_stops.REFUSED:
        render.warning(
            f"{job} of {electron} was not stopped: {of.words}\nThe deployment's output ItemStopperPolicy names the "
            f"policy that allows it. Without it, `cirro stop {of.dispatch_id[:SHORT]}:{of.node_id}` stops the electron."
        )
    elif of.end == item_stops.DONE:
        goes_on = (
            "" if of.words or not left else f" Its job goes on with {_items(left)} {indexes(left)}: name one of these."
        )
        render.line(f"item {of.item} of {electron} is done already, and nothing was stopped.{goes_on}")
    elif of.end == item_stops.ENDED:
        render.line(f"item {of.item} of {electron}: its job had already ended: {of.words}")
    else:
        render.line(f"{electron} has reused the results of an earlier dispatch: there is nothing to stop")


def _items(found: range) -> str:
    return "item" if len(found) == 1 else "items"


def _named(record: Record) -> str:
    return f"{record.electron} {record.dispatch_id[:SHORT]}:{record.node_id} (job {record.job_id})"


def _document(done: Stopped) -> dict[str, Any]:
    def listed(records: tuple[Record, ...]) -> list[dict[str, Any]]:
        return [
            {
                "dispatch_id": record.dispatch_id,
                "node_id": record.node_id,
                "electron": record.electron,
                "job_id": record.job_id,
                "state": record.state,
            }
            for record in records
        ]

    return {
        "stopped": listed(done.stopped),
        "stopping": listed(done.stopping),
        "ended": listed(done.ended),
        "refused": done.refused,
        "calls_without_job": done.calls_without_job,
    }
