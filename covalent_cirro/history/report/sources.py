"""Collects the facts of a report: jobs and outcomes of a dispatch, the instances of its queues, and prices.

Knows which gateway has a fact, not what a fact means. Where AWS refuses a fact that a report can do without, the report
has a note about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from covalent_cirro.aws.clients import run_blocking
from covalent_cirro.aws.prices import ON_DEMAND, SPOT, Price, Prices, SpotHistory, shipped, shipped_price
from covalent_cirro.contract.protocol import Outcome, call_made_at
from covalent_cirro.covalent_server import config
from covalent_cirro.errors import AccessDenied, CallError, CirroError, StackError
from covalent_cirro.history import archive, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.archive import StoredCall
from covalent_cirro.history.find import Electron
from covalent_cirro.history.instances import ContainerInstance, Instance, Instances, places
from covalent_cirro.history.records import Record
from covalent_cirro.history.report.costs import Offer, need_of
from covalent_cirro.history.report.runs import (
    NO_CAPACITY,
    Machine,
    QueueMachines,
    Run,
    run_of_call,
    run_of_job,
    run_of_reused,
)
from covalent_cirro.jobs import further_tries
from covalent_cirro.jobs.machines import InstanceType, Need, of_environment
from covalent_cirro.jobs.queues import Environment

SPOT_BEFORE_S = 24 * 3600.0
"""Seconds before the first attempt from which Spot prices are read: a price holds until the next one."""

PRICED_TYPES = 8
"""Instance types of a compute environment in an estimate: the smallest that fit, which AWS Batch prefers."""

MARKETS = {"SPOT": SPOT, "EC2": ON_DEMAND}
"""Markets by the type of a compute environment (Batch API Reference, ComputeResource)."""


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


def gather(
    account: Account, wanted: str, node_id: int | None = None, *, clock: Callable[[], float] = time.time
) -> ReportFacts:
    """Collect the facts about a dispatch.

    Args:
        account: The account.
        wanted: Id of the dispatch, or the beginning of the id.
        node_id: Id of a node, for the facts about that node only.
        clock: Epoch seconds.

    Raises:
        NoSuchElectron: There is no such dispatch, or there are several.
        AwsError: The bucket cannot be read.
    """
    dispatch_id = find.dispatch_named(account, wanted)
    notes: list[str] = []
    kept = archive.calls(account, dispatch_id, node_id)
    records = [each for each in _records(account, dispatch_id, kept, notes) if node_id in (None, each.node_id)]
    outcomes = _outcomes(account, kept, notes)
    capacities = _capacities(account, {record.detail.queue for record in records}, notes)
    numbers, called = _numbered(each.place.call_id for each in kept)
    hosts = _hosts(account, records, notes)
    runs, known = [], set()
    for record in records:
        call_id = "" if record.call is None else record.call.call_id
        known.add(call_id)
        outcome = outcomes.get(call_id)
        if record.call is not None:
            outcome = archive.outcome_of_job(account, record.call, record.detail, outcome)
        capacity = capacities.get(record.detail.queue, NO_CAPACITY)
        runs.append(_seen_on(run_of_job(record, outcome, called.get(call_id), capacity), record, hosts))
    forgotten = [each for each in kept if each.place.call_id not in known]
    runs += account.each(
        lambda each: _forgotten(account, each, outcomes.get(each.place.call_id), called[each.place.call_id], notes),
        forgotten,
    )
    runs = [run._replace(number=numbers.get(run.call_id, 1)) for run in runs]
    for place, reused in archive.reuses(account, dispatch_id):
        if isinstance(reused, CallError):
            notes.append(str(reused))
            continue
        mine, name, _ = reused.nodes[0]
        runs += [run_of_reused(mine, name, place.call_id, reused)] if node_id in (None, mine) else []
    if forgotten:
        notes.append(
            f"AWS Batch knows no job of {len(forgotten)} of {len(kept)} calls (it keeps ended ones for at least 7 "
            "days): what these asked for, their queues and earlier attempts are not known, nor what they cost."
        )
    return _with_prices(account, dispatch_id, records, runs, notes, clock())


def gather_electron(account: Account, electron: Electron, *, clock: Callable[[], float] = time.time) -> ReportFacts:
    """Collect the facts about an electron that was found already."""
    notes: list[str] = []
    records = [record for each in electron.calls for record in each.records]
    capacities = _capacities(account, {record.detail.queue for record in records}, notes)
    numbers, called = _numbered(each.place.call_id for each in electron.calls)
    hosts = _hosts(account, records, notes)
    runs = []
    for each in electron.calls:
        call_id, outcome = each.place.call_id, each.outcome
        if each.reused is not None:
            runs.append(run_of_reused(electron.node_id, electron.name, call_id, each.reused))
            continue
        for record in each.records:
            its_own = outcome if outcome is not None and outcome.job_id in ("", record.job_id) else None
            capacity = capacities.get(record.detail.queue, NO_CAPACITY)
            runs.append(_seen_on(run_of_job(record, its_own, called[call_id], capacity), record, hosts))
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


def _numbered(call_ids: Iterable[str]) -> tuple[dict[str, int], dict[str, float | None]]:
    """By call id, the number of the try, and the time of the call, which only the id of a first try has."""
    numbers = {call_id: number for chain in further_tries.chains(call_ids) for number, call_id in enumerate(chain, 1)}
    return numbers, {call_id: call_made_at(call_id) if number == 1 else None for call_id, number in numbers.items()}


def _with_prices(
    account: Account, dispatch_id: str, records: list[Record], runs: list[Run], notes: list[str], now: float
) -> ReportFacts:
    runs.sort(key=lambda run: (run.began_at or 0.0, run.node_id, run.number, run.job_id))
    prices = Prices(account.clients, account.region)
    price_of = pricing(prices, runs, now)
    lattice = next((record.lattice for record in records if record.lattice), "")
    return ReportFacts(
        dispatch_id,
        lattice,
        account.region,
        tuple(runs),
        shipped().types,
        price_of,
        (*notes, *prices.notes),
        now,
        config.server_url(),
    )


def _records(account: Account, dispatch_id: str, kept: list[StoredCall], notes: list[str]) -> list[Record]:
    try:
        return find.jobs_of(account, dispatch_id, kept)
    except AccessDenied as error:
        notes.append(f"Jobs could not be seen, outcomes alone tell of them: {error}")
        return []


def _outcomes(account: Account, kept: list[StoredCall], notes: list[str]) -> dict[str, Outcome]:
    there = [each.place for each in kept if each.has_outcome]
    found = account.each(lambda place: find.outcome_or_problem(account, place), there)
    notes += [problem for _, problem in found if problem]
    named = zip(there, found, strict=True)
    return {place.call_id: outcome for place, (outcome, _) in named if outcome is not None}


def _forgotten(
    account: Account, kept: StoredCall, outcome: Outcome | None, called_at: float | None, notes: list[str]
) -> Run:
    call, problem = find.call_or_problem(account, kept.place)
    notes += [problem] if problem else []
    first = call.tasks[0] if call is not None and call.tasks else None
    name, arguments = (first.name, first.arguments) if first is not None else (f"node {kept.node_id}", ())
    run = run_of_call(kept.node_id, name, kept.place.call_id, outcome, called_at)
    return run._replace(arguments=arguments)


# --- instances of queues ----------------------------------------------------------------------------------------------


def _capacities(account: Account, queues: Iterable[str], notes: list[str]) -> dict[str, QueueMachines]:
    try:
        found = _environments(account, queues)
    except CirroError as error:
        notes.append(f"What queues run on could not be seen: {error}")
        return {}
    return {name: queue_machines(each) for name, each in found.items()}


def _environments(account: Account, queues: Iterable[str]) -> dict[str, list[Environment]]:
    names = list(queues)
    return account.ask(
        "batch:DescribeComputeEnvironments", lambda: run_blocking(account.capacity.environments_of(names))
    )


def queue_machines(found: list[Environment]) -> QueueMachines:
    """The instances of a queue, from its compute environments."""
    markets = {MARKETS.get(each.kind, "") for each in found}
    first = found[0].instance_types if found else ()
    return QueueMachines(
        market_of_cluster={each.cluster.rpartition("/")[2]: MARKETS.get(each.kind, "") for each in found},
        market=markets.pop() if len(markets) == 1 else "",
        kinds=of_environment(first, shipped().types),
    )


# --- prices -----------------------------------------------------------------------------------------------------------


def pricing(prices: Prices, runs: Iterable[Run], now: float) -> Callable[[Machine, float, float], Price | None]:
    """A function for the price of an hour of the runs' machines. All prices are read here, once."""
    attempts = [each for run in runs for each in run.attempts if each.machine.instance_type]
    on_demand = prices.on_demand(each.machine.instance_type for each in attempts if each.machine.market != SPOT)
    on_spot = [each for each in attempts if each.machine.market == SPOT]
    history = SpotHistory(())
    if on_spot:
        start = min(each.began_at for each in on_spot) - SPOT_BEFORE_S
        stop = max(now if each.ended_at is None else each.ended_at for each in on_spot)
        history = prices.spot((each.machine.instance_type for each in on_spot), start, stop)

    def price_of(machine: Machine, began_at: float, ended_at: float) -> Price | None:
        name = machine.instance_type
        if machine.market == SPOT:
            found = history.price(name, machine.zone, began_at, ended_at)
            return found or shipped_price(name, prices.region, SPOT)
        price = on_demand.get(name)
        # It is not known whether it was Spot: the on-demand price is the highest that it can have been.
        return price if price is None or machine.market else price._replace(exact=False)

    return price_of


def offers(account: Account, need: Need | None = None) -> tuple[list[Offer], list[str]]:
    """Instance types that the queue of the executor's settings may start, and their prices now, for an estimate.

    Args:
        account: The account, with the settings.
        need: What an electron asks for; `None` for what the settings say.

    Returns:
        The offers of the first compute environment with a type that fits; and notes on prices, for people.

    Raises:
        StackError: The queue does not exist.
        AccessDenied, AwsError: AWS did not describe the queue.
    """
    wanted = need_of(account.settings) if need is None else need
    settings = account.settings
    queue = settings.batch_gpu_queue if wanted.gpus and settings.batch_gpu_queue else settings.batch_queue
    name = queue.rpartition("/")[2]
    prices = Prices(account.clients, account.region)
    found = _environments(account, [name])
    if name not in found:
        raise StackError(
            f"with {account.access.named()}, region {account.region} has no job queue {name!r}. Give the --profile, "
            "--region and --stack-name of a deployment; `cirro deploy` makes one."
        )
    for each in found[name]:
        kinds = [kind for kind in of_environment(each.instance_types, shipped().types) if wanted.fits(kind)]
        kinds = kinds[:PRICED_TYPES]
        if kinds:
            return _priced(prices, MARKETS.get(each.kind, ON_DEMAND), kinds), prices.notes
    return [], prices.notes


def _priced(prices: Prices, market: str, kinds: list[InstanceType]) -> list[Offer]:
    names = [kind.name for kind in kinds]
    now = time.time()
    if market == SPOT:
        history = prices.spot(names, now - SPOT_BEFORE_S, now)
        found = {
            name: price
            for name in names
            if (price := history.price(name, "", now, now) or shipped_price(name, prices.region, SPOT)) is not None
        }
    else:
        found = prices.on_demand(names)
    return [Offer(kind, found[kind.name]) for kind in kinds if kind.name in found]
