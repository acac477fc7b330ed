"""Prices of jobs on AWS Fargate: by the vCPU and by the GB, from the table that comes with this package.

The table is that of services (`serving_prices.csv`), which pay the same.
"""

from __future__ import annotations

from covalent_cirro.aws import serving_prices
from covalent_cirro.aws.prices import SPOT, Price
from covalent_cirro.jobs.fargate_machines import FargateMachine
from covalent_cirro.settings.fargate_sizes import MIB_PER_GIB

SPOT_DISCOUNT = 0.7
"""What Fargate Spot is cheaper at the most (AWS Fargate pricing). AWS lists no history of it, and it changes seldom."""


def price(machine: FargateMachine, region: str, market: str) -> Price:
    """The price of an hour of a machine.

    Args:
        machine: The machine.
        region: Its region. The table has one region; prices of others differ by up to a third.
        market: `prices.ON_DEMAND`, `SPOT`, or empty where it is not known: then on demand.
    """
    table = serving_prices.shipped()
    per_vcpu = table.usd[f"fargate_{machine.architecture}_vcpu"]
    per_gb = table.usd[f"fargate_{machine.architecture}_gb"]
    usd = per_vcpu * machine.size.vcpus + per_gb * machine.size.memory_mib / MIB_PER_GIB
    where = "" if region == table.region else f" for {table.region}, not {region}"
    if market == SPOT:
        source = f"table of this package{where}, less {SPOT_DISCOUNT:.0%}, the most that Fargate Spot is cheaper"
        return Price(usd * (1 - SPOT_DISCOUNT), SPOT, table.date, source, exact=False)
    return Price(
        usd, market or "on-demand", table.date, f"table of this package{where}", exact=not where and bool(market)
    )
