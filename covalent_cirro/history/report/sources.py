"""Collects the facts of a report: jobs and outcomes of a dispatch, the instances of its queues, and prices.

Knows which gateway has a fact, not what a fact means. Where AWS refuses a fact that a report can do without, the report
has a note about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from covalent_cirro.aws.prices import Price, shipped
from covalent_cirro.contract.places import call_made_at
from covalent_cirro.covalent_server import config
from covalent_cirro.errors import AccessDenied
from covalent_cirro.history import find
from covalent_cirro.history.account import Account
from covalent_cirro.history.board import CALLS_PER_S, EVERY_S, Board, SeenJobs
from covalent_cirro.history.electron_list import SUBMITTED_WITHIN_S, Row
from covalent_cirro.history.find import Electron
from covalent_cirro.history.instances import ContainerInstance, Instance, Instances, places
from covalent_cirro.history.log_ends import LogEnds, end_of_outcome
from covalent_cirro.history.records import Record
from covalent_cirro.history.report.array_children import ArrayChildren
from covalent_cirro.history.report.item_seconds import ItemSeconds
from covalent_cirro.history.report.item_spread import MapFacts
from covalent_cirro.history.report.queue_machines import machines_of
from covalent_cirro.history.report.runs import (
    NO_CAPACITY,
    Machine,
    QueueMachines,
    Run,
    run_of_call,
    run_of_job,
    run_of_reused,
)
from covalent_cirro.history.report.tariff import Tariff
from covalent_cirro.jobs import further_tries
from covalent_cirro.jobs.machines import InstanceType


class ListedElectron(NamedTuple):
    """An electron in the list.

    Attributes:
        row: Its job's state, and why the job waits or failed.
        log_end: The last lines that it printed; empty where it printed nothing, or where that is not known.
    """

    row: Row
    log_end: str


class ReportFacts(NamedTuple):
    """The facts of a report.

    Attributes:
        dispatch_id: Id of the dispatch.
        lattice: Name of the lattice; empty where AWS Batch does not know its jobs any more.
        region: Region of the jobs.
        runs: Jobs of its electrons, in the order of their calls.
        kinds: Instance types by name.
        price_of: Price of an hour of a machine.
        notes: What could not be found out, for people.
        at: Epoch seconds when the facts were collected.
        server_url: URL of the Covalent server that the config names; empty where it names none.
        electrons: The electrons' jobs: first those that run, then those that wait, then those that have ended.
        maps: Its maps, in the order of their nodes.
    """

    dispatch_id: str
    lattice: str
    region: str
    runs: tuple[Run, ...]
    kinds: Mapping[str, InstanceType]
    price_of: Callable[[Machine, float, float], Price | None]
    notes: tuple[str, ...]
    at: float
    server_url: str = ""
    electrons: tuple[ListedElectron, ...] = ()
    maps: tuple[MapFacts, ...] = ()


class DispatchSources:
    """The facts about a dispatch, and their updates with few calls: what cannot change any more is read once.

    Args:
        account: The account.
        wanted: Id of the dispatch, or the beginning of the id.
        reusing: The dispatch may still reuse results of an earlier one (`Board`).
        clock: Epoch seconds.

    Raises:
        NoSuchElectron: There is no such dispatch, or there are several.
        AwsError: The bucket cannot be read.
    """

    def __init__(
        self, account: Account, wanted: str, *, reusing: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._clock = clock
        self._dispatch_id = find.dispatch_named(account, wanted)
        self._board = Board(account, self._dispatch_id, reusing=reusing, clock=clock)
        self._logs = LogEnds(account)
        self._children = ArrayChildren(account)
        self._seconds = ItemSeconds(account)
        self._hidden = ""
        self._capacities: dict[str, QueueMachines] = {}
        self._of_queues: frozenset[str] | None = None
        self._unseen: list[str] = []
        self._prices = Tariff(account)
        self._looks = 0
        self._calls = 0

    def look(self) -> ReportFacts:
        """Update the facts.

        Raises:
            AccessDenied, AwsError: AWS refused what a report cannot do without, or could not be reached.
        """
        before, now = self._account.clients.calls, self._clock()
        rows = self._rows()
        seen = self._board.seen
        growing = [each for each in seen.records if each.has_machine or seen.outcomes.get(each.job_id) is None]
        log_ends = self._logs.read(growing)
        self._see_queues(frozenset(each.detail.queue for each in seen.records))
        runs = _runs(seen, self._children.of(seen.records), self._capacities, self._board.hosts)
        price_of, unpriced = self._prices.of(runs, now)
        maps = self._seconds.of(seen)
        self._looks, self._calls = self._looks + 1, self._account.clients.calls - before
        return ReportFacts(
            dispatch_id=self._dispatch_id,
            lattice=next((record.lattice for record in seen.records if record.lattice), ""),
            region=self._account.region,
            runs=_by_time(runs),
            kinds=shipped().types,
            price_of=price_of,
            notes=(*_told(seen, now, self._hidden), *filter(None, [self._board.problem]), *self._unseen, *unpriced),
            at=now,
            server_url=config.server_url(),
            electrons=_listed(rows, seen, log_ends),
            maps=maps,
        )

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next look. Most calls of the first look are for what is read once."""
        return max(EVERY_S, self._calls / CALLS_PER_S) if self._looks > 1 else EVERY_S

    def _rows(self) -> list[Row]:
        try:
            if not self._hidden:
                return self._board.look()
        except AccessDenied as error:
            if self._looks:
                raise
            self._hidden = f"Jobs could not be seen, outcomes alone tell of them: {error}"
        self._board = Board(self._account, self._dispatch_id, from_s3_alone=True, clock=self._clock)
        return self._board.look()

    def _see_queues(self, queues: frozenset[str]) -> None:
        if queues != self._of_queues:
            self._of_queues, self._unseen = queues, []
            self._capacities = machines_of(self._account, queues, self._unseen)


def _runs(
    seen: SeenJobs,
    children: Mapping[str, list[Record]],
    capacities: Mapping[str, QueueMachines],
    instances: Instances,
) -> list[Run]:
    call_ids = [each.call.call_id for each in seen.records if each.call] + [each.call_id for each in seen.forgotten]
    numbers, called = _numbered(dict.fromkeys(call_ids))
    described = [*seen.records, *(child for some in children.values() for child in some)]
    hosts = instances.at(place for record in described for place in places(record))
    runs = []
    for record in seen.records:
        called_at = None if record.call is None else called[record.call.call_id]
        capacity = capacities.get(record.detail.queue, NO_CAPACITY)
        run = _seen_on(run_of_job(record, seen.outcomes.get(record.job_id), called_at, capacity), record, hosts)
        runs.append(_with_children(run, children.get(record.job_id, []), capacity, hosts))
    for place, (name, arguments) in seen.forgotten.items():
        known = name if name != "-" else f"node {place.node_id}"
        run = run_of_call(place.node_id, known, place.call_id, seen.outcomes.get(place), called[place.call_id])
        runs.append(run._replace(arguments=arguments))
    runs = [run._replace(number=numbers.get(run.call_id, 1)) for run in runs]
    for place, reused in seen.reused.items():
        node_id, name, _ = reused.nodes[0]
        runs.append(run_of_reused(node_id, name, place.call_id, reused))
    return runs


def _told(seen: SeenJobs, now: float, hidden: str) -> list[str]:
    """Notes on what is not known of the jobs."""
    gone = [
        place
        for place in seen.forgotten
        if seen.outcomes.get(place) is not None or now - place.made_at >= SUBMITTED_WITHIN_S
    ]
    notes = [each for each in (hidden, *seen.problems.values()) if each]
    if gone and not hidden:
        calls = len(seen.forgotten) + len({record.call for record in seen.records})
        notes.append(
            f"AWS Batch knows no job of {len(gone)} of {calls} calls (it keeps ended ones for at least 7 "
            "days): what these asked for, their queues and earlier attempts are not known, nor what they cost."
        )
    return notes


def _listed(rows: Iterable[Row], seen: SeenJobs, log_ends: Mapping[str, str]) -> tuple[ListedElectron, ...]:
    """The electrons with the last lines that they printed: from the outcome, where there is one."""
    of_forgotten = {place.call_id: seen.outcomes.get(place) for place in seen.forgotten}
    found = []
    for row in rows:
        outcome = seen.outcomes.get(row.job_id) or of_forgotten.get(row.call_id)
        end = log_ends.get(row.job_id, "") if outcome is None else end_of_outcome(outcome)
        found.append(ListedElectron(row, end))
    return tuple(found)


def gather_electron(account: Account, electron: Electron, *, clock: Callable[[], float] = time.time) -> ReportFacts:
    """Collect the facts about an electron that was found already."""
    notes: list[str] = []
    records = [record for each in electron.calls for record in each.records]
    capacities = machines_of(account, {record.detail.queue for record in records}, notes)
    numbers, called = _numbered(each.place.call_id for each in electron.calls)
    children = ArrayChildren(account).of(records)
    hosts = _hosts(account, [*records, *(child for some in children.values() for child in some)], notes)
    runs = []
    for each in electron.calls:
        call_id, outcome = each.place.call_id, each.outcome
        if each.reused is not None:
            runs.append(run_of_reused(electron.node_id, electron.name, call_id, each.reused))
            continue
        for record in each.records:
            its_own = outcome if outcome is not None and outcome.job_id in ("", record.job_id) else None
            capacity = capacities.get(record.detail.queue, NO_CAPACITY)
            run = _seen_on(run_of_job(record, its_own, called[call_id], capacity), record, hosts)
            runs.append(_with_children(run, children.get(record.job_id, []), capacity, hosts))
        if not each.records:
            runs.append(run_of_call(electron.node_id, electron.name, call_id, outcome, called[call_id]))
    runs = [run._replace(number=numbers.get(run.call_id, 1), arguments=electron.arguments) for run in runs]
    return _with_prices(account, electron.dispatch_id, records, runs, notes, clock())


def _hosts(account: Account, records: Iterable[Record], notes: list[str]) -> dict[ContainerInstance, Instance]:
    instances = Instances(account)
    found = instances.at(place for record in records for place in places(record))
    notes += [instances.problem] if instances.problem else []
    return found


def _seen_on(run: Run, record: Record, hosts: Mapping[ContainerInstance, Instance]) -> Run:
    """The run, with the instances that ECS knows for attempts whose outcome does not name one."""
    named, attempts = places(record), []
    for each in run.attempts:
        host = hosts.get(named[each.number - 1]) if each.machine.assumed else None
        if host is not None:
            machine = each.machine._replace(instance_type=host.instance_type, zone=host.zone, assumed=False)
            each = each._replace(machine=machine)
        attempts.append(each)
    return run._replace(attempts=tuple(attempts))


def _with_children(
    run: Run, children: Iterable[Record], capacity: QueueMachines, hosts: Mapping[ContainerInstance, Instance]
) -> Run:
    """The run of an array, with the attempts of its jobs."""
    runs = [_seen_on(run_of_job(child, None, None, capacity), child, hosts) for child in children]
    return run._replace(children=tuple(attempt for each in runs for attempt in each.attempts))


def _numbered(call_ids: Iterable[str]) -> tuple[dict[str, int], dict[str, float | None]]:
    """By call id, the number of the try, and the time of the call, which only the id of a first try has."""
    numbers = {call_id: number for chain in further_tries.chains(call_ids) for number, call_id in enumerate(chain, 1)}
    return numbers, {call_id: call_made_at(call_id) if number == 1 else None for call_id, number in numbers.items()}


def _with_prices(
    account: Account, dispatch_id: str, records: list[Record], runs: list[Run], notes: list[str], now: float
) -> ReportFacts:
    price_of, unpriced = Tariff(account).of(runs, now)
    lattice = next((record.lattice for record in records if record.lattice), "")
    return ReportFacts(
        dispatch_id,
        lattice,
        account.region,
        _by_time(runs),
        shipped().types,
        price_of,
        (*notes, *unpriced),
        now,
        config.server_url(),
    )


def _by_time(runs: Iterable[Run]) -> tuple[Run, ...]:
    return tuple(sorted(runs, key=lambda run: (run.began_at or 0.0, run.node_id, run.number, run.job_id)))
