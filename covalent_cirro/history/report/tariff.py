"""The prices of the machines on which runs were: asked for once, and again while a dispatch is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from covalent_cirro.aws import fargate_prices
from covalent_cirro.aws.prices import SPOT, Price, Prices, SpotHistory, shipped_price
from covalent_cirro.history.account import Account
from covalent_cirro.history.report.runs import Machine, Run
from covalent_cirro.jobs import fargate_machines

SPOT_BEFORE_S = 24 * 3600.0
"""Seconds before the first attempt from which Spot prices are read: a price holds until the next one."""

PRICES_S = 600.0
"""Seconds between two reads of prices while a dispatch is watched: a Spot price changes every few hours."""


class Tariff:
    """The prices of runs' machines, which are asked for again after `PRICES_S`, and for machines of another kind."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._asked: tuple[frozenset[Machine], float] = (frozenset(), float("-inf"))
        self._price_of: Callable[[Machine, float, float], Price | None] = lambda machine, began_at, ended_at: None
        self._notes: list[str] = []

    def of(self, runs: list[Run], now: float) -> tuple[Callable[[Machine, float, float], Price | None], list[str]]:
        """A function for the price of an hour of the runs' machines, and notes on prices."""
        machines = frozenset(each.machine._replace(zone="", assumed=False) for run in runs for each in run.billed)
        known, asked_at = self._asked
        if not machines <= known or now - asked_at >= PRICES_S:
            prices = Prices(self._account.clients, self._account.region)
            self._price_of, self._notes, self._asked = pricing(prices, runs, now), prices.notes, (machines, now)
        return self._price_of, self._notes


def pricing(prices: Prices, runs: Iterable[Run], now: float) -> Callable[[Machine, float, float], Price | None]:
    """A function for the price of an hour of the runs' machines. All prices are read here, once."""
    billed = [each for run in runs for each in run.billed if each.machine.instance_type]
    attempts = [each for each in billed if fargate_machines.parse(each.machine.instance_type) is None]
    on_demand = prices.on_demand(each.machine.instance_type for each in attempts if each.machine.market != SPOT)
    on_spot = [each for each in attempts if each.machine.market == SPOT]
    history = SpotHistory(())
    if on_spot:
        start = min(each.began_at for each in on_spot) - SPOT_BEFORE_S
        stop = max(now if each.ended_at is None else each.ended_at for each in on_spot)
        history = prices.spot((each.machine.instance_type for each in on_spot), start, stop)

    def price_of(machine: Machine, began_at: float, ended_at: float) -> Price | None:
        name = machine.instance_type
        if (fargate := fargate_machines.parse(name)) is not None:
            return fargate_prices.price(fargate, prices.region, machine.market)
        if machine.market == SPOT:
            found = history.price(name, machine.zone, began_at, ended_at)
            return found or shipped_price(name, prices.region, SPOT)
        price = on_demand.get(name)
        # It is not known whether it was Spot: the on-demand price is the highest that it can have been.
        return price if price is None or machine.market else price._replace(exact=False)

    return price_of
