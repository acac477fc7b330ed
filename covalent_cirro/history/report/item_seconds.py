"""How long the items of maps took: from the outcome of the whole map, else from those of some of its jobs."""

from __future__ import annotations

from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Outcome
from covalent_cirro.errors import AccessDenied, NotFound
from covalent_cirro.history import find
from covalent_cirro.history.account import Account
from covalent_cirro.history.board import SeenJobs
from covalent_cirro.history.map_items import MapState
from covalent_cirro.history.records import Record
from covalent_cirro.history.report.item_spread import MapFacts

SAMPLED_JOBS = 200
"""Jobs of a map whose outcomes are read, at most: of a map without an outcome of its own, some from all parts of it."""


class ItemSeconds:
    """The maps of a dispatch with the seconds of their items, and their updates: an outcome of a job is read once.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._of_job: dict[Location, tuple[float, ...]] = {}

    def of(self, seen: SeenJobs) -> tuple[MapFacts, ...]:
        """The maps, in the order of their nodes; of several tries of a map, the newest."""
        tries: dict[int, list[Record]] = {}
        for record in sorted(seen.records, key=lambda each: each.detail.created_at or 0.0):
            if record.job_id in seen.maps:
                tries.setdefault(record.node_id, []).append(record)
        found = []
        for node_id, records in sorted(tries.items()):
            states = [seen.maps[record.job_id] for record in records]
            newest = records[-1]
            seconds = _of_outcome(seen.outcomes.get(newest.job_id))
            for record, state in zip(records, states, strict=True) if not seconds else ():
                seconds += self._sampled(record, state)
            jobs = max(len(state.mapped.children) for state in states)
            found.append(MapFacts(node_id, newest.electron, newest.job_id, states[-1], jobs, seconds))
        return tuple(found)

    def _sampled(self, parent: Record, state: MapState) -> tuple[float, ...]:
        """The seconds of items of jobs that have ended, of some from all parts of the list."""
        if parent.call is None or len(state.mapped.children) == 1:
            return ()
        step = max(1, len(state.jobs) / SAMPLED_JOBS)
        chosen = {int(i * step) for i in range(min(SAMPLED_JOBS, len(state.jobs)))}
        places = [parent.call.child(job.number) for job in state.jobs if job.number in chosen and job.has_outcome]
        asked = [place for place in places if place not in self._of_job]
        read = self._account.each(lambda place: self._read(parent, place), asked)
        self._of_job |= dict(zip(asked, read, strict=True))
        return tuple(second for place in places for second in self._of_job[place])

    def _read(self, parent: Record, place: Location) -> tuple[float, ...]:
        """Of the outcome that a job of this array wrote; nothing of another one."""
        mac_key = parent.detail.mac_key_of(place)
        try:
            outcome, _ = find.outcome_or_problem(self._account, place)
        except (AccessDenied, NotFound):
            return ()
        return _of_outcome(outcome) if outcome is not None and mac_key and outcome.is_authentic(mac_key) else ()


def _of_outcome(outcome: Outcome | None) -> tuple[float, ...]:
    items = [each.items for each in outcome.results if each.items is not None] if outcome is not None else []
    return items[0].seconds if items else ()
