"""Prices of EC2 instances, from AWS's Price List API and Spot price history; where they fail, from a shipped table.

Knows prices and dates, nothing of jobs: `history/report/costs.py` computes what a job costs.
"""

from __future__ import annotations

import bisect
import csv
import functools
import importlib.resources
import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from covalent_cirro.aws.clients import Clients
from covalent_cirro.aws.sessions import translate
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs.machines import InstanceType

ON_DEMAND = "on-demand"
SPOT = "spot"

PRICING_REGION = "us-east-1"
"""The Price List API has endpoints in three regions, each of which knows all (AWS General Reference, Price List)."""

CURRENCY = "USD"

PRODUCT_DESCRIPTIONS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")
"""In the Spot price history. The account's age decides which one has prices (Karpenter asks for both)."""

HISTORY_DAYS = 90
"""How far back the Spot price history goes (EC2 API Reference, DescribeSpotPriceHistory, StartTime)."""

DAY_S = 24 * 3600.0


class Price(NamedTuple):
    """Price of an hour of an instance.

    Attributes:
        usd_per_hour: US dollars, without tax.
        market: `ON_DEMAND` or `SPOT`.
        date: Day on which the price holds, ``"2026-07-20"``.
        source: Where the price comes from, for people.
        exact: False for a price that replaces an unknown one.
    """

    usd_per_hour: float
    market: str
    date: str
    source: str
    exact: bool = True


# --- the shipped table ------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Prices that come with this package.

    Attributes:
        region: Region in which the prices hold.
        date: Day on which the prices hold.
        source: Where the prices come from.
        types: Instance types by name.
        usd_per_hour: On-demand prices by instance type.
    """

    region: str
    date: str
    source: str
    types: Mapping[str, InstanceType]
    usd_per_hour: Mapping[str, float]


@functools.lru_cache(maxsize=1)
def shipped() -> Table:
    """The table ``prices.csv``, read once. It lacks metal sizes, and instances whose GPUs AWS Batch cannot use."""
    text = importlib.resources.files("covalent_cirro.aws").joinpath("prices.csv").read_text("utf-8")
    said: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            name, _, value = line.lstrip("# ").partition(": ")
            said[name] = value
        else:
            lines.append(line)
    rows = list(csv.DictReader(lines))
    types = {
        row["instance_type"]: InstanceType(
            row["instance_type"], int(row["vcpus"]), int(row["memory_mib"]), int(row["gpus"]), row["architecture"]
        )
        for row in rows
    }
    prices = {row["instance_type"]: float(row["usd_per_hour"]) for row in rows}
    return Table(said["region"], said["date"], said["source"], types, prices)


def shipped_price(instance_type: str, region: str, market: str = ON_DEMAND) -> Price | None:
    """The price in the shipped table; `None` for an instance type that the table lacks.

    The table has no Spot prices: the on-demand price, which a Spot price does not exceed, replaces them.
    """
    table = shipped()
    if instance_type not in table.usd_per_hour:
        return None
    exact = region == table.region and market == ON_DEMAND
    where = "" if region == table.region else f" for {table.region}, not {region}"
    instead = "" if market == ON_DEMAND else ", the on-demand price as the most that Spot can cost"
    source = f"table of this package{where}{instead}"
    return Price(table.usd_per_hour[instance_type], market, table.date, source, exact)


# --- what AWS says ----------------------------------------------------------------------------------------------------


def parse_product(document: str) -> tuple[str, Price] | None:
    """Instance type and on-demand price of one entry of GetProducts' ``PriceList``; `None` without a price.

    Source: AWS Price List User Guide, "Reading service price list files"; Karpenter reads the same fields.
    """
    product = json.loads(document)
    name = product.get("product", {}).get("attributes", {}).get("instanceType")
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            usd = float(dimension.get("pricePerUnit", {}).get(CURRENCY) or 0)
            if name and usd > 0 and dimension.get("unit") == "Hrs":
                date = str(term.get("effectiveDate") or product.get("publicationDate") or "")[:10]
                return str(name), Price(usd, ON_DEMAND, date, "AWS Price List API")
    return None


class SpotChange(NamedTuple):
    """A new Spot price of an instance type in a zone, from the epoch second ``at`` on."""

    instance_type: str
    zone: str
    at: float
    usd_per_hour: float


class SpotHistory:
    """Spot prices over time; each holds until the next one."""

    def __init__(self, changes: Iterable[SpotChange]) -> None:
        steps: dict[tuple[str, str], dict[float, float]] = {}
        for change in changes:
            steps.setdefault((change.instance_type, change.zone), {})[change.at] = change.usd_per_hour
        self._steps = {key: sorted(found.items()) for key, found in steps.items()}

    def price(self, instance_type: str, zone: str, start: float, stop: float) -> Price | None:
        """The mean price from ``start`` to ``stop``, or the price at ``start`` where both are equal; `None` if unknown.

        Args:
            instance_type: The instance type.
            zone: Availability zone; empty for the mean of all zones.
            start: Epoch seconds.
            stop: Epoch seconds.
        """
        zones = [each for name, each in self._steps if name == instance_type and zone in ("", each)]
        exact = bool(zone)
        if not zones and zone:  # the price of other zones is better than none
            zones = [each for name, each in self._steps if name == instance_type]
            exact = False
        if not zones:
            return None
        means = [_mean(self._steps[instance_type, each], start, stop) for each in zones]
        day = datetime.fromtimestamp(start, timezone.utc).strftime("%Y-%m-%d")
        source = "EC2 Spot price history" + ("" if exact else f", mean of {len(zones)} zones")
        return Price(sum(means) / len(means), SPOT, day, source, exact)


def _mean(steps: Sequence[tuple[float, float]], start: float, stop: float) -> float:
    """Mean of a step function from ``start`` to ``stop``. Before its first step it has the value of that step."""
    times = [at for at, _ in steps]

    def at(moment: float) -> float:
        return steps[max(0, bisect.bisect_right(times, moment) - 1)][1]

    if stop <= start:
        return at(start)
    cuts = [start, *(each for each in times if start < each < stop), stop]
    total = sum(at(begin) * (end - begin) for begin, end in itertools.pairwise(cuts))
    return total / (stop - start)


class Prices:
    """Prices of one region. AWS is asked once for each; the shipped table has those that AWS does not give.

    Args:
        clients: Clients of the account that asks.
        region: The region of the instances.

    Attributes:
        region: The region of the instances.
        notes: Why some prices are not from AWS, for people; empty where all are.
    """

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self.region = region
        self.notes: list[str] = []
        self._on_demand: dict[str, Price | None] = {}
        self._silent = False

    def on_demand(self, instance_types: Iterable[str]) -> dict[str, Price]:
        """On-demand prices by instance type; instance types without a known price are left out."""
        wanted = sorted(set(instance_types))
        for name in wanted:
            if name not in self._on_demand:
                self._on_demand[name] = self._ask(name) or shipped_price(name, self.region)
        return {name: price for name in wanted if (price := self._on_demand[name]) is not None}

    def _ask(self, instance_type: str) -> Price | None:
        if self._silent:
            return None
        wanted = {
            "instanceType": instance_type,
            "regionCode": self.region,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
        }
        filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
        try:
            pricing = self._clients("pricing", PRICING_REGION)
            with translate("pricing:GetProducts", access=self._clients.access, of=instance_type):
                pages = pricing.get_paginator("get_products").paginate(
                    ServiceCode="AmazonEC2", Filters=filters, FormatVersion="aws_v1"
                )
                documents = [document for page in pages for document in page["PriceList"]]
            found = [parsed[1] for document in documents if (parsed := parse_product(document)) is not None]
        except (CirroError, ValueError, AttributeError) as error:
            # After one refusal no further call is made: AWS would refuse each one after all retries.
            self._silent = True
            self.notes.append(f"On-demand prices are those of the table of {shipped().date}: {error}")
            return None
        if not found:
            self.notes.append(f"AWS's price list has no {instance_type} in {self.region}.")
            return None
        return min(found, key=lambda price: price.usd_per_hour)

    def spot(self, instance_types: Iterable[str], start: float, stop: float) -> SpotHistory:
        """Spot prices from ``start`` to ``stop``, in epoch seconds; an empty history where EC2 refuses."""
        wanted = sorted(set(instance_types))
        if not wanted:
            return SpotHistory(())
        if start < time.time() - HISTORY_DAYS * DAY_S:
            self.notes.append(f"EC2 has Spot prices of the last {HISTORY_DAYS} days only: older ones are not exact.")
        try:
            client = self._clients("ec2", self.region)
            with translate("ec2:DescribeSpotPriceHistory", access=self._clients.access, of=", ".join(wanted)):
                pages = client.get_paginator("describe_spot_price_history").paginate(
                    InstanceTypes=wanted,
                    ProductDescriptions=list(PRODUCT_DESCRIPTIONS),
                    StartTime=datetime.fromtimestamp(start, timezone.utc),
                    EndTime=datetime.fromtimestamp(max(start, stop), timezone.utc),
                )
                found = [each for page in pages for each in page["SpotPriceHistory"]]
        except (CirroError, ValueError) as error:
            self.notes.append(f"Spot prices could not be read, on-demand prices replace them: {error}")
            return SpotHistory(())
        return SpotHistory(
            SpotChange(
                each["InstanceType"], each["AvailabilityZone"], each["Timestamp"].timestamp(), float(each["SpotPrice"])
            )
            for each in found
        )
