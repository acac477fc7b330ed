"""Costs of electrons: for each attempt its share of an instance while it ran; and estimates. Pure.

Cost of an attempt = price of an hour x largest share (of vCPU, memory or GPU) of the instance x hours. A node of a
multi-node job has its instance for itself (Batch User Guide, Multi-node parallel jobs: nodes are single-tenant); on
Fargate an attempt has the whole machine, for a minute at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.aws.prices import Price
from covalent_cirro.history.report.runs import BilledAttempt, Machine, Run
from covalent_cirro.jobs import fargate_machines
from covalent_cirro.jobs.fargate_machines import LEAST_BILLED_S, FargateMachine
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.settings import Settings

HOUR_S = 3600.0

NOT_IN_IT = (
    "time in which an instance boots, pulls the image, or stands idle between jobs and before it goes",
    "what of an instance no job uses",
    "disks of instances, S3, ECR, CloudWatch Logs and data transfer",
    "tax, discounts, savings plans and credits",
)
"""What these costs leave out."""

PriceOf = Callable[[Machine, float, float], "Price | None"]
"""``price_of(machine, began_at, ended_at)``: price of an hour of the machine; `None` if unknown."""


def need_of(settings: Settings) -> Need:
    """What an electron with these settings asks for."""
    return Need(settings.size.vcpus, settings.memory_mib, settings.num_gpus)


def share(need: Need, kind: InstanceType) -> float:
    """The share of an instance that a job takes, 0 to 1: the largest of its shares of vCPU, usable memory and GPU."""
    parts = [need.vcpus / kind.vcpus, need.memory_mib / kind.usable_memory_mib]
    if kind.gpus:
        parts.append(need.gpus / kind.gpus)
    return min(1.0, max(0.0, *parts))


class CostLine(NamedTuple):
    """The cost of an attempt.

    Attributes:
        node_id, name, job_id: Ids and name of its run.
        attempt: The attempt.
        share: Share of the instance; `None` where the instance type, or what the job asked for, is not known.
        seconds: How long the attempt ran.
        price: Price of an hour of the instance; `None` if unknown.
        usd: Cost in US dollars; `None` if unknown.
        exact: Whether instance type and price are known, and not assumed.
    """

    node_id: int
    name: str
    job_id: str
    attempt: BilledAttempt
    share: float | None
    seconds: float
    price: Price | None
    usd: float | None
    exact: bool


def lines(runs: Iterable[Run], kinds: Mapping[str, InstanceType], price_of: PriceOf, now: float) -> list[CostLine]:
    """The cost of each attempt, including attempts that failed.

    Args:
        runs: The runs.
        kinds: Instance types by name.
        price_of: Prices.
        now: Epoch seconds, for attempts that still run.
    """
    found = []
    for run in runs:
        for attempt in run.billed:
            ended_at = now if attempt.ended_at is None else attempt.ended_at
            seconds = max(0.0, ended_at - attempt.began_at)
            kind = kinds.get(attempt.machine.instance_type)
            part = None if kind is None or run.need is None else share(run.need, kind)
            if kind is not None and run.nodes > 1:
                part = 1.0
            billed_s = seconds
            if (fargate := fargate_machines.parse(attempt.machine.instance_type)) is not None:
                part, billed_s = 1.0, max(seconds, LEAST_BILLED_S)
            price = None
            if kind is not None or fargate is not None:
                price = price_of(attempt.machine, attempt.began_at, max(ended_at, attempt.began_at))
            usd = None if part is None or price is None else price.usd_per_hour * part * billed_s / HOUR_S
            exact = usd is not None and price is not None and price.exact and not attempt.machine.assumed
            found.append(CostLine(run.node_id, run.name, run.job_id, attempt, part, seconds, price, usd, exact))
    return found


class CostTotal(NamedTuple):
    """A sum of lines.

    Attributes:
        usd: Sum of the known costs, in US dollars.
        lost_usd: Part of ``usd`` for attempts whose instance was lost.
        attempts: Number of attempts.
        lost: Number of attempts whose instance was lost.
        lost_s: Seconds that these attempts ran.
        unknown: Number of attempts whose cost is not known, and not in the sum.
        exact: Whether nothing is assumed or left out.
    """

    usd: float
    lost_usd: float
    attempts: int
    lost: int
    lost_s: float
    unknown: int
    exact: bool


def total(found: Sequence[CostLine]) -> CostTotal:
    """The sum of lines."""
    lost = [each for each in found if each.attempt.lost]
    return CostTotal(
        usd=math.fsum(each.usd or 0.0 for each in found),
        lost_usd=math.fsum(each.usd or 0.0 for each in lost),
        attempts=len(found),
        lost=len(lost),
        lost_s=math.fsum(each.seconds for each in lost),
        unknown=sum(each.usd is None for each in found),
        exact=all(each.exact for each in found),
    )


def by_node(found: Iterable[CostLine]) -> dict[int, CostTotal]:
    """The sum of each node, by its id."""
    grouped: dict[int, list[CostLine]] = {}
    for each in found:
        grouped.setdefault(each.node_id, []).append(each)
    return {node_id: total(some) for node_id, some in sorted(grouped.items())}


# --- estimates ------------------------------------------------------------------------------------------------------


def not_in_estimate(settings: Settings) -> tuple[str, ...]:
    """What an estimate for these settings leaves out.

    On Fargate no instance boots or stands idle; time counts from the download of the image on (AWS Fargate pricing). A
    node of a multi-node job is counted with its whole instance.
    """
    of_instances, _unused, *others = NOT_IN_IT
    if settings.on_fargate:
        return ("time in which the image is pulled", *others)
    return (of_instances, *others) if settings.nodes > 1 else NOT_IN_IT


class Offer(NamedTuple):
    """An instance type that a queue may start, and the price of an hour of it now."""

    kind: InstanceType
    price: Price


class Estimate(NamedTuple):
    """What electrons will cost, if each runs for ``run_s`` and none is interrupted.

    Attributes:
        least_usd: Cost on the cheapest instance type that fits, in US dollars.
        most_usd: Cost on the most expensive one.
        least: The cheapest offer.
        most: The most expensive offer.
        electrons: Number of electrons.
        run_s: Seconds that each electron runs.
        nodes: Machines of each electron.
    """

    least_usd: float
    most_usd: float
    least: Offer
    most: Offer
    electrons: int
    run_s: float
    nodes: int = 1


def estimate(
    need: Need, run_s: float, offers: Iterable[Offer], *, electrons: int = 1, nodes: int = 1
) -> Estimate | None:
    """Estimate what electrons will cost; `None` where they fit on none of the offers.

    Args:
        need: What each machine of an electron is asked for (`need_of`).
        run_s: Seconds that each electron runs.
        offers: Instance types that may be started for them.
        electrons: Number of electrons.
        nodes: Machines of each.
    """
    hours = electrons * nodes * run_s / HOUR_S
    fitting = [
        (each.price.usd_per_hour * (share(need, each.kind) if nodes == 1 else 1.0) * hours, each)
        for each in offers
        if need.fits(each.kind)
    ]
    if not fitting:
        return None
    least, most = min(fitting, key=lambda pair: pair[0]), max(fitting, key=lambda pair: pair[0])
    return Estimate(least[0], most[0], least[1], most[1], electrons, run_s, nodes)


def estimate_on_fargate(
    machine: FargateMachine, run_s: float, prices: Iterable[Price], *, electrons: int = 1
) -> Estimate | None:
    """Estimate what electrons on Fargate will cost; `None` without a price.

    Args:
        machine: The machine that each electron has.
        run_s: Seconds that each electron runs.
        prices: Price of an hour of it for each compute environment of the queue.
        electrons: Number of electrons.
    """
    hours = electrons * max(run_s, LEAST_BILLED_S) / HOUR_S
    size = machine.size
    kind = InstanceType(machine.name, math.ceil(size.vcpus), size.memory_mib, 0, machine.architecture)
    offers = sorted((Offer(kind, price) for price in prices), key=lambda offer: offer.price.usd_per_hour)
    if not offers:
        return None
    least, most = offers[0], offers[-1]
    return Estimate(least.price.usd_per_hour * hours, most.price.usd_per_hour * hours, least, most, electrons, run_s)
