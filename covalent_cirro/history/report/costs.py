"""What electrons cost: each attempt its share of an instance for as long as it ran; and before, an estimate. Pure.

The cost of an attempt is the price of an hour x the largest share (of vCPU, memory or GPU) of the instance x the hours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.aws.prices import Price
from covalent_cirro.history.report.runs import BilledAttempt, Machine, Run
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.settings import Settings

HOUR_S = 3600.0

NOT_IN_IT = (
    "time in which an instance boots, pulls the image, or stands idle between jobs and before it goes",
    "what of an instance no job uses",
    "disks of instances, S3, ECR, CloudWatch Logs and data transfer",
    "tax, discounts, savings plans and credits",
)
"""What a cost told here leaves out."""

PriceOf = Callable[[Machine, float, float], "Price | None"]
"""``price_of(machine, began_at, ended_at)``: what an hour of it cost; `None` where nobody knows."""


def need_of(settings: Settings) -> Need:
    """What an electron asks for with these settings."""
    return Need(settings.vcpu, settings.memory_mib, settings.num_gpus)


def share(need: Need, kind: InstanceType) -> float:
    """The part of an instance that a job takes from others: the largest of its vCPU, memory and GPU; from 0 to 1.

    Of the memory, what jobs can have of it counts as all.
    """
    parts = [need.vcpus / kind.vcpus, need.memory_mib / kind.usable_memory_mib]
    if kind.gpus:
        parts.append(need.gpus / kind.gpus)
    return min(1.0, max(0.0, *parts))


class Line(NamedTuple):
    """What one attempt cost.

    Attributes:
        node_id, name, job_id: Of its run.
        attempt: The attempt.
        share: Of the instance; `None` where the instance type or what was asked for is not known.
        seconds: How long it ran.
        price: Of an hour; `None` where nobody knows.
        usd: `None` where something of it is not known.
        exact: Instance type and price were told, not assumed.
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


def lines(runs: Iterable[Run], kinds: Mapping[str, InstanceType], price_of: PriceOf, now: float) -> list[Line]:
    """What each attempt cost, those without result too.

    Args:
        runs: The runs.
        kinds: Instance types by name.
        price_of: Prices.
        now: Epoch seconds, for attempts that still run.
    """
    found = []
    for run in runs:
        for attempt in run.attempts:
            ended_at = now if attempt.ended_at is None else attempt.ended_at
            seconds = max(0.0, ended_at - attempt.began_at)
            kind = kinds.get(attempt.machine.instance_type)
            part = None if kind is None or run.need is None else share(run.need, kind)
            price = (
                None if kind is None else price_of(attempt.machine, attempt.began_at, max(ended_at, attempt.began_at))
            )
            usd = None if part is None or price is None else price.usd_per_hour * part * seconds / HOUR_S
            exact = usd is not None and price is not None and price.exact and not attempt.machine.assumed
            found.append(Line(run.node_id, run.name, run.job_id, attempt, part, seconds, price, usd, exact))
    return found


class Total(NamedTuple):
    """A sum of lines.

    Attributes:
        usd: Of those whose cost is known.
        lost_usd: Of these, for attempts whose instance was lost.
        attempts: How many.
        lost: Of these, how many lost their instance.
        lost_s: Their time.
        unknown: How many have a cost that is not known, and is not in the sum.
        exact: Whether nothing in it is assumed or left out.
    """

    usd: float
    lost_usd: float
    attempts: int
    lost: int
    lost_s: float
    unknown: int
    exact: bool


def total(found: Sequence[Line]) -> Total:
    """The sum of lines."""
    lost = [each for each in found if each.attempt.lost]
    return Total(
        usd=math.fsum(each.usd or 0.0 for each in found),
        lost_usd=math.fsum(each.usd or 0.0 for each in lost),
        attempts=len(found),
        lost=len(lost),
        lost_s=math.fsum(each.seconds for each in lost),
        unknown=sum(each.usd is None for each in found),
        exact=all(each.exact for each in found),
    )


def by_node(found: Iterable[Line]) -> dict[int, Total]:
    """The sum of each node, by its id."""
    grouped: dict[int, list[Line]] = {}
    for each in found:
        grouped.setdefault(each.node_id, []).append(each)
    return {node_id: total(some) for node_id, some in sorted(grouped.items())}


# --- before ---------------------------------------------------------------------------------------------------------


class Offer(NamedTuple):
    """An instance type that a queue may start, and what an hour of it costs now."""

    kind: InstanceType
    price: Price


class Estimate(NamedTuple):
    """What electrons will cost, if each runs as long as was said and none is interrupted.

    Attributes:
        least_usd: On the cheapest instance type that fits.
        most_usd: On the dearest one.
        least: The cheapest offer.
        most: The dearest one.
        electrons: How many electrons.
        run_s: Seconds of each.
    """

    least_usd: float
    most_usd: float
    least: Offer
    most: Offer
    electrons: int
    run_s: float


def estimate(need: Need, run_s: float, offers: Iterable[Offer], *, electrons: int = 1) -> Estimate | None:
    """What electrons will cost; `None` where what they ask for fits on none of the offers.

    Args:
        need: What each asks for (`need_of`).
        run_s: Seconds that each runs.
        offers: What may be started for them.
        electrons: How many they are.
    """
    hours = electrons * run_s / HOUR_S
    fitting = [
        (each.price.usd_per_hour * share(need, each.kind) * hours, each) for each in offers if need.fits(each.kind)
    ]
    if not fitting:
        return None
    least, most = min(fitting, key=lambda pair: pair[0]), max(fitting, key=lambda pair: pair[0])
    return Estimate(least[0], most[0], least[1], most[1], electrons, run_s)
