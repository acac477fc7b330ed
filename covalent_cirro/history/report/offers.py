"""What an electron could run on, and its price now, for an estimate before anything is submitted."""

from __future__ import annotations

import time

from covalent_cirro.aws import fargate_prices
from covalent_cirro.aws.prices import ON_DEMAND, SPOT, Price, Prices, shipped, shipped_price
from covalent_cirro.errors import StackError
from covalent_cirro.history.account import Account
from covalent_cirro.history.report.costs import Offer, need_of
from covalent_cirro.history.report.queue_machines import MARKETS, environments
from covalent_cirro.history.report.tariff import SPOT_BEFORE_S
from covalent_cirro.jobs.fargate_machines import FargateMachine
from covalent_cirro.jobs.machines import InstanceType, of_environment

PRICED_TYPES = 8
"""Instance types of a compute environment in an estimate: the smallest that fit, which AWS Batch prefers."""


def offers(account: Account) -> tuple[list[Offer], list[str]]:
    """Instance types that the queue of the executor's settings may start, and their prices now, for an estimate.

    Args:
        account: The account, with the settings, which say what an electron asks for.

    Returns:
        The offers of the first compute environment with a type that fits; and notes on prices, for people.

    Raises:
        StackError: The queue does not exist.
        AccessDenied, AwsError: AWS did not describe the queue.
    """
    settings = account.settings
    wanted = need_of(settings)
    name = settings.queue.rpartition("/")[2]
    prices = Prices(account.clients, account.region)
    found = environments(account, [name])
    if name not in found:
        raise StackError(
            f"with {account.access.named()}, region {account.region} has no job queue {name!r}. Give the --profile, "
            "--region and --stack-name of a deployment; `cirro deploy` makes one."
        )
    for each in found[name]:
        if settings.nodes > 1 and not each.runs_several_nodes:
            continue
        kinds = [kind for kind in of_environment(each.instance_types, shipped().types) if wanted.fits(kind)]
        kinds = kinds[:PRICED_TYPES]
        if kinds:
            return _priced(prices, MARKETS.get(each.kind, ON_DEMAND), kinds), prices.notes
    return [], prices.notes


def fargate_offers(account: Account, machine: FargateMachine) -> list[Price]:
    """Prices now of a machine on Fargate, for each compute environment of the queue for Fargate.

    Raises:
        StackError: The queue does not exist, or is none for Fargate.
        AccessDenied, AwsError: AWS did not describe the queue.
    """
    settings = account.settings
    name = (settings.batch_fargate_queue or settings.batch_queue).rpartition("/")[2]
    kinds = [each.kind for each in environments(account, [name]).get(name, ()) if each.on_fargate]
    if not kinds:
        raise StackError(
            f"with {account.access.named()}, region {account.region} has no queue for Fargate that is called {name!r}. "
            "`cirro deploy --parameter FargateMaxVcpus=64` makes one and sets batch_fargate_queue."
        )
    return [fargate_prices.price(machine, account.region, MARKETS[kind]) for kind in kinds]


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
