"""Items of a map: how many are done, from what its jobs have stored, and the job that computes one of them."""

from __future__ import annotations

from covalent_cirro.errors import NoSuchElectron
from covalent_cirro.history import archive, batch_jobs, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs import map_progress
from covalent_cirro.jobs.map_progress import ItemCounts
from covalent_cirro.jobs.reuse_texts import reused_text


def count(account: Account, electron: Electron, at: float) -> ItemCounts | None:
    """The items of a map; `None` for any other electron, and for one that has reused results.

    Args:
        account: The account.
        electron: The electron.
        at: Epoch seconds of now; of a map that has ended, its end counts.
    """
    of, record = electron.newest, electron.record
    task = of.call.tasks[0] if of.call is not None and of.call.tasks else None
    if task is None or task.mapped is None or of.reused is not None:
        return None
    ended = record.detail.stopped_at if record is not None and record.has_ended else None
    below = archive.objects(account, of.place.bucket, of.place.base)
    return map_progress.counted(below, of.place, task.mapped, ended or at)


def electron_or_job(account: Account, wanted: Wanted) -> Electron:
    """An electron; for an item of a map, as if the job that computes it was all of the electron's.

    Raises:
        NoSuchElectron: There is none, or it has no such item.
    """
    electron = find.electron(account, wanted._replace(item=None))
    if wanted.item is None:
        return electron
    for of in reversed(electron.calls):  # the newest try of the item
        mapped = of.call.tasks[0].mapped if of.call is not None else None
        if mapped is None:
            continue
        item = mapped.number_at(wanted.item)
        if item is None and mapped.reused is not None and wanted.item < mapped.reused.length:
            raise NoSuchElectron(
                f"no job of {wanted._replace(item=None)} computes item {wanted.item}: its result is "
                f"that of an earlier map ({reused_text(mapped.reused)})."
            )
        for number, (first, stop) in enumerate(mapped.children):
            if item is not None and first <= item < stop:
                return electron._replace(calls=(_job(account, of, number),))
    raise NoSuchElectron(f"{wanted._replace(item=None)} has no item {wanted.item}, or is no map.")


def _job(account: Account, of: CallHistory, number: int) -> CallHistory:
    """A job of an array as the only one of its call."""
    if of.records and not of.records[-1].detail.array_size:
        return of
    place = of.place.child(number)
    outcome, problem = find.outcome_or_problem(account, place)
    ids = [f"{record.job_id}:{number}" for record in of.records]
    records = tuple(batch_jobs.describe(account, ids))
    return find.own(
        account,
        of._replace(
            place=place, outcome=outcome, problem=problem, parts=archive.parts(account, place), records=records
        ),
    )
