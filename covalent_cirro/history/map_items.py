"""Items of a map: how many are done, from what its jobs have stored, and the job that computes one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Call
from covalent_cirro.errors import AccessDenied, NoSuchElectron, NotFound
from covalent_cirro.history import archive, batch_jobs, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.names import Wanted
from covalent_cirro.history.records import Record
from covalent_cirro.jobs import map_progress
from covalent_cirro.jobs.map_progress import ItemCounts, JobItems
from covalent_cirro.jobs.states import JobState

COUNT_S = 5.0
"""Shortest time between two listings of what the jobs of a map have stored."""


class MapState(NamedTuple):
    """A map at a time.

    Attributes:
        mapped: What its newest call says of it.
        counts: Its items, over all tries.
        jobs: The jobs of the newest try.
    """

    mapped: Mapped
    counts: ItemCounts
    jobs: tuple[JobItems, ...]


class MapItems:
    """Counts the items of maps again and again: a listing for each map that runs, at most one in `COUNT_S`.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._calls: dict[Location, Call | None] = {}
        self._before: dict[Location, list[JobItems]] = {}
        self._states: dict[Location, MapState] = {}

    def of(self, records: Iterable[Record], now: float) -> dict[str, MapState]:
        """The maps among jobs, by job id: arrays that have begun, and jobs that are known to be those of maps.

        Args:
            records: The jobs. Of an ordinary job, the call is read to see whether it is that of a map.
            now: Epoch seconds.
        """
        wanted = [record for record in records if record.call is not None]
        found = self._account.each(lambda record: self._state(record, now), wanted)
        return {record.job_id: state for record, state in zip(wanted, found, strict=True) if state is not None}

    def _state(self, record: Record, now: float) -> MapState | None:
        place = record.call
        assert place is not None
        known = self._states.get(place)
        if known is not None and (known.counts.over or (now - known.counts.at < COUNT_S and not record.has_ended)):
            return known
        try:
            call = self._call(place)
            mapped = call.tasks[0].mapped if call is not None and call.tasks else None
            if call is None or mapped is None:
                return None
            earlier = [self._earlier(place.sibling(each.call_id)) for each in call.tried]
            jobs = self._jobs(place, mapped)
            if record.has_ended and record.detail.children_in(JobState.FAILED.value):
                failed = batch_jobs.of_array(self._account, record.job_id, JobState.FAILED.value)
                jobs = map_progress.without_failed(jobs, {child.number for child in failed})
        except (AccessDenied, NotFound):  # a call in a bucket that may not be read: the list is shown without its items
            return known
        at = (record.detail.stopped_at or now) if record.has_ended else now
        counts = map_progress.total([*earlier, jobs], mapped.length, at, over=record.has_ended)
        state = self._states[place] = MapState(mapped, counts, tuple(jobs))
        return state

    def _call(self, place: Location) -> Call | None:
        if place not in self._calls:
            self._calls[place] = find.call_or_problem(self._account, place)[0]
        return self._calls[place]

    def _earlier(self, place: Location) -> list[JobItems]:
        """The jobs of an earlier try, which have ended."""
        if place not in self._before:
            call = self._call(place)
            mapped = call.tasks[0].mapped if call is not None and call.tasks else None
            self._before[place] = [] if mapped is None else self._jobs(place, mapped)
        return self._before[place]

    def _jobs(self, place: Location, mapped: Mapped) -> list[JobItems]:
        base = place.array_base if len(mapped.children) > 1 else place.base
        return map_progress.of_jobs(archive.objects(self._account, place.bucket, base), place, mapped)


def state_of(account: Account, electron: Electron, now: float) -> MapState | None:
    """The items of a map; `None` for any other electron, and for one that has reused results.

    Args:
        account: The account.
        electron: The electron.
        now: Epoch seconds; of a map that has ended, its end counts.
    """
    of, record = electron.newest, electron.record
    if of.reused is not None:
        return None
    if record is not None:
        return MapItems(account).of([record], now).get(record.job_id)
    mapped = of.call.tasks[0].mapped if of.call is not None and of.call.tasks else None
    if mapped is None:
        return None
    jobs = map_progress.of_jobs(archive.objects(account, of.place.bucket, of.place.base), of.place, mapped)
    return MapState(mapped, map_progress.total([jobs], mapped.length, now, over=of.outcome is not None), tuple(jobs))


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
