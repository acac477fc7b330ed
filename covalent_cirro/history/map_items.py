"""Items of a map: how many are done, from what its jobs have stored, and the job that computes one of them."""

from __future__ import annotations

from covalent_cirro.contract.maps import Mapped
from covalent_cirro.errors import NoSuchElectron
from covalent_cirro.history import archive, batch_jobs, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs import map_progress
from covalent_cirro.jobs.map_progress import ItemCounts


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
    of, _, number = job_of_item(electron, wanted)
    return electron._replace(calls=(_job(account, of, number),))


def job_of_item(electron: Electron, wanted: Wanted) -> tuple[CallHistory, Mapped, int]:
    """The newest try of an item, what its call says of the map, and the number of the job that computes the item.

    Raises:
        NoSuchElectron: The electron is no map, has no such item, or its call has expired.
    """
    assert wanted.item is not None
    calls = [each.call for each in electron.calls]
    mapped = next((call.tasks[0].mapped for call in reversed(calls) if call is not None and call.tasks), None)
    for of in reversed(electron.calls):
        own = of.call.tasks[0].mapped if of.call is not None and of.call.tasks else None
        if own is None:
            continue
        for number, (first, stop) in enumerate(own.children):
            if first <= wanted.item < stop:
                return of, own, number
    name = f"{electron.name} {wanted._replace(item=None)}"
    if mapped is not None:
        raise NoSuchElectron(f"{name} has no item {wanted.item}: its items are 0 to {mapped.length - 1}.")
    if any(call is not None for call in calls):
        raise NoSuchElectron(f"{name} is no map, and has no items: write {wanted._replace(item=None)}.")
    raise NoSuchElectron(f"{name}: its call, which says which job computes item {wanted.item}, is not there any more.")


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
