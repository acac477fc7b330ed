"""What EC2 instances cost: AWS's Price List API and Spot price history, and a shipped table where they do not answer.

Knows prices and dates, nothing of jobs: what a job costs of an instance is computed elsewhere.
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
"""Of the Spot price history: which of them has the prices depends on the account's age (Karpenter asks for both)."""

HISTORY_DAYS = 90
"""How far back the Spot price history goes (EC2 API Reference, DescribeSpotPriceHistory, StartTime)."""

DAY_S = 24 * 3600.0


class Price(NamedTuple):
    """What an hour of an instance costs.

    Attributes:
        usd_per_hour: US dollars, without tax.
        market: `ON_DEMAND` or `SPOT`.
        date: Day for which the price holds, ``"2026-07-20"``.
        source: Where it is from, for people.
        exact: False for one that stands in for what could not be learnt.
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
        region: The region they are of.
        date: The day they are of.
        source: Where they are from.
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
    """The table ``prices.csv``, read once. It has no metal sizes, and no instance whose GPUs AWS Batch cannot use."""
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
    """The price of the shipped table, which never changes; `None` for an instance type that it lacks.

    It has no Spot prices: the on-demand price stands in, which a Spot price does not exceed.
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
    """Instance type and on-demand price of one entry of GetProducts' ``PriceList``; `None` for what is none.

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
    """From when on an instance type costs how much in a zone."""

    instance_type: str
    zone: str
    at: float
    usd_per_hour: float


class SpotHistory:
    """Spot prices over time, as steps: each holds until the next one."""

    def __init__(self, changes: Iterable[SpotChange]) -> None:
        steps: dict[tuple[str, str], dict[float, float]] = {}
        for change in changes:
            steps.setdefault((change.instance_type, change.zone), {})[change.at] = change.usd_per_hour
        self._steps = {key: sorted(found.items()) for key, found in steps.items()}

    def price(self, instance_type: str, zone: str, start: float, stop: float) -> Price | None:
        """The mean price over a time, or at a moment where ``start`` is ``stop``; `None` where nothing is known.

        Args:
            instance_type: The instance type.
            zone: Availability zone; empty where it is not known: then the mean of all zones.
            start: Epoch seconds.
            stop: Epoch seconds.
        """
        zones = [each for name, each in self._steps if name == instance_type and zone in ("", each)]
        exact = bool(zone)
        if not zones and zone:  # better another zone's than none
            zones = [each for name, each in self._steps if name == instance_type]
            exact = False
        if not zones:
            return None
        means = [_mean(self._steps[instance_type, each], start, stop) for each in zones]
        day = datetime.fromtimestamp(start, timezone.utc).strftime("%Y-%m-%d")
        source = "EC2 Spot price history" + ("" if exact else f", mean of {len(zones)} zones")
        return Price(sum(means) / len(means), SPOT, day, source, exact)


def _mean(steps: Sequence[tuple[float, float]], start: float, stop: float) -> float:
    """Mean of a step function over a time. Before its first step it is as after it."""
    times = [at for at, _ in steps]

    def at(moment: float) -> float:
        return steps[max(0, bisect.bisect_right(times, moment) - 1)][1]

    if stop <= start:
        return at(start)
    cuts = [start, *(each for each in times if start < each < stop), stop]
    total = sum(at(begin) * (end - begin) for begin, end in itertools.pairwise(cuts))
    return total / (stop - start)


class Prices:
    """Prices of one region, asked of AWS once each. What AWS does not tell is taken from the shipped table.

    Args:
        clients: Clients of the account that asks.
        region: The region of the instances.

    Attributes:
        region: The region of the instances.
        notes: Why prices are not AWS's own, in words for people; empty where all are.
    """

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self.region = region
        self.notes: list[str] = []
        self._on_demand: dict[str, Price | None] = {}
        self._silent = False

    def on_demand(self, instance_types: Iterable[str]) -> dict[str, Price]:
        """On-demand prices by instance type; what nobody knows is missing."""
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
            # One refusal is enough: every other call would be refused like it, after all its retries.
            self._silent = True
            self.notes.append(f"On-demand prices are those of the table of {shipped().date}: {error}")
            return None
        if not found:
            self.notes.append(f"AWS's price list has no {instance_type} in {self.region}.")
            return None
        return min(found, key=lambda price: price.usd_per_hour)

    def spot(self, instance_types: Iterable[str], start: float, stop: float) -> SpotHistory:
        """Spot prices of a time, in epoch seconds; without any where EC2 does not tell."""
        wanted = sorted(set(instance_types))
        if not wanted:
            return SpotHistory(())
        if start < time.time() - HISTORY_DAYS * DAY_S:
            self.notes.append(f"EC2 tells Spot prices of the last {HISTORY_DAYS} days only: older ones are not exact.")
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
            self.notes.append(f"Spot prices could not be learnt, on-demand prices stand for them: {error}")
            return SpotHistory(())
        return SpotHistory(
            SpotChange(
                each["InstanceType"], each["AvailabilityZone"], each["Timestamp"].timestamp(), float(each["SpotPrice"])
            )
            for each in found
        )
