"""The Price List API and the Spot price history of the emulated EC2, in AWS's form.

On-demand prices are those of the package's table, in every region. Spot prices are below them and change with time; for
one time they are always the same. moto answers the first API with an error, the second with one price of 2006.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple
from xml.sax.saxutils import escape

from covalent_cirro.aws.prices import shipped
from covalent_cirro.jobs.machines import InstanceType
from covalent_cirro.local.emulator.batch.model import Json

STEP_S = 6 * 3600
"""How long a Spot price is valid here; AWS's change a few times a day."""

LEAST_SHARE, MOST_SHARE = 0.30, 0.60
"""Lowest and highest Spot price, as a share of the on-demand price."""

MAX_PAGE = 1000
"""Entries of a page of the Spot price history (EC2 API Reference, DescribeSpotPriceHistory, MaxResults)."""

PRODUCT_PAGE = 100
"""Entries of a page of GetProducts (AWS Price List API Reference, GetProducts, MaxResults)."""

DESCRIPTION = "Linux/UNIX"
EC2_XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"

_SAMPLES = {"OnDemand": "JRTCKXETXF", "Hrs": "6YS6EN2CT7"}
"""The codes that AWS has for an on-demand term and for its hourly rate; the same in every product."""


class SpotPriceQuery(NamedTuple):
    """A request for a page of the Spot price history. Times are epoch seconds."""

    instance_types: Sequence[str]
    zones: Sequence[str]
    descriptions: Sequence[str]
    start: float
    stop: float
    size: int
    skip: int


# --- the Price List API -----------------------------------------------------------------------------------------------


def get_products(given: Json) -> Json:
    """GetProducts, of EC2's instances: those whose attributes match all the filters."""
    filters = [(each["Type"], each["Field"], each["Value"]) for each in given.get("Filters") or ()]
    regions = [value for kind, field, value in filters if field == "regionCode" and kind in ("TERM_MATCH", "EQUALS")]
    found = []
    if given.get("ServiceCode") == "AmazonEC2":
        for region in regions or [shipped().region]:
            products = (_product(kind, region) for kind in shipped().types.values())
            found += [each for each in products if _matches(each["product"]["attributes"], filters)]
    size, skip = int(given.get("MaxResults") or PRODUCT_PAGE), int(given.get("NextToken") or 0)
    page = {"FormatVersion": "aws_v1", "PriceList": [json.dumps(each) for each in found[skip : skip + size]]}
    return page if skip + size >= len(found) else {**page, "NextToken": str(skip + size)}


def _matches(attributes: Mapping[str, str], filters: Iterable[tuple[str, str, str]]) -> bool:
    def met(kind: str, field: str, value: str) -> bool:
        has = attributes.get("servicecode" if field == "ServiceCode" else field)
        if has is None:
            return False
        if kind == "CONTAINS":
            return value in has
        if kind in ("ANY_OF", "NONE_OF"):
            return (has in value.split(",")) == (kind == "ANY_OF")
        return has.lower() == value.lower()

    return all(met(*each) for each in filters)


def _product(kind: InstanceType, region: str) -> Json:
    price = shipped().usd_per_hour[kind.name]
    sku = f"{zlib.crc32(f'{region}/{kind.name}'.encode()):08X}CIRRO000"
    term, rate = (f"{sku}.{_SAMPLES['OnDemand']}", f"{sku}.{_SAMPLES['OnDemand']}.{_SAMPLES['Hrs']}")
    attributes = {
        "capacitystatus": "Used",
        "instanceType": kind.name,
        "licenseModel": "No License required",
        "locationType": "AWS Region",
        "marketoption": "OnDemand",
        "memory": f"{kind.memory_mib / 1024:g} GiB",
        "operatingSystem": "Linux",
        "operation": "RunInstances",
        "preInstalledSw": "NA",
        "regionCode": region,
        "servicecode": "AmazonEC2",
        "tenancy": "Shared",
        "usagetype": f"BoxUsage:{kind.name}",
        "vcpu": str(kind.vcpus),
        **({"gpu": str(kind.gpus)} if kind.gpus else {}),
    }
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"${price:g} per On Demand Linux {kind.name} Instance Hour",
        "appliesTo": [],
        "rateCode": rate,
        "pricePerUnit": {"USD": f"{price:.10f}"},
    }
    on_demand = {
        "sku": sku,
        "offerTermCode": _SAMPLES["OnDemand"],
        "effectiveDate": f"{shipped().date}T00:00:00Z",
        "termAttributes": {},
        "priceDimensions": {rate: dimension},
    }
    return {
        "product": {"productFamily": "Compute Instance", "sku": sku, "attributes": attributes},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {term: on_demand}},
        "version": shipped().date.replace("-", ""),
        "publicationDate": f"{shipped().date}T00:00:00Z",
    }


# --- the Spot price history -------------------------------------------------------------------------------------------


def spot_price(instance_type: str, zone: str, at: float) -> float | None:
    """The Spot price of an instance type at a time, in US dollars an hour; `None` for a type that has no price."""
    on_demand = shipped().usd_per_hour.get(instance_type)
    if on_demand is None:
        return None
    drawn = zlib.crc32(f"{instance_type}/{zone}/{int(at // STEP_S)}".encode()) / 0xFFFFFFFF
    return round(on_demand * (LEAST_SHARE + drawn * (MOST_SHARE - LEAST_SHARE)), 4)


def spot_changes(asked: SpotPriceQuery, offers: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str, float, float]]:
    """Type, zone, time and price of each change, the newest first; also the last one before the start of the query.

    Args:
        asked: The request.
        offers: By instance type, the zones that have it.
    """
    if asked.descriptions and DESCRIPTION not in asked.descriptions:
        return
    names = asked.instance_types or sorted(offers)
    first, last = int(asked.start // STEP_S), int(asked.stop // STEP_S)
    for step in range(last, first - 1, -1):
        for name in names:
            for zone in sorted(offers.get(name, ())):
                price = spot_price(name, zone, step * STEP_S)
                if price is not None and (not asked.zones or zone in asked.zones):
                    yield name, zone, float(step * STEP_S), price


def parse_asked(given: Mapping[str, str], now: float) -> SpotPriceQuery:
    """DescribeSpotPriceHistory's parameters, of EC2's query protocol."""

    def numbered(name: str) -> list[str]:
        keys = [key for key in given if re.fullmatch(rf"{name}\.\d+", key)]
        return [given[key] for key in sorted(keys, key=lambda key: int(key.rpartition(".")[2]))]

    def moment(name: str) -> float:
        text = given.get(name)
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else now

    filters = {
        name: [value for key, value in given.items() if key.startswith(f"Filter.{number}.Value.")]
        for key, name in given.items()
        if (number := key.removeprefix("Filter.").removesuffix(".Name")).isdigit() and key.endswith(".Name")
    }
    zones = [given["AvailabilityZone"]] if given.get("AvailabilityZone") else filters.get("availability-zone", [])
    return SpotPriceQuery(
        instance_types=numbered("InstanceType") or filters.get("instance-type", []),
        zones=zones,
        descriptions=numbered("ProductDescription") or filters.get("product-description", []),
        start=moment("StartTime"),
        stop=min(now, moment("EndTime")),
        size=min(MAX_PAGE, int(given.get("MaxResults") or MAX_PAGE)),
        skip=int(given.get("NextToken") or 0),
    )


def spot_history(asked: SpotPriceQuery, offers: Mapping[str, Iterable[str]]) -> str:
    """DescribeSpotPriceHistory's answer, in XML."""
    found = list(spot_changes(asked, offers))
    shown = found[asked.skip : asked.skip + asked.size]
    end = asked.skip + asked.size
    token = str(end) if end < len(found) else ""
    items = "".join(
        f"<item><instanceType>{escape(name)}</instanceType><productDescription>{DESCRIPTION}</productDescription>"
        f"<spotPrice>{price:.6f}</spotPrice><timestamp>{_iso(at)}</timestamp>"
        f"<availabilityZone>{escape(zone)}</availabilityZone></item>"
        for name, zone, at, price in shown
    )
    inner = f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken>"
    return f'<DescribeSpotPriceHistoryResponse xmlns="{EC2_XMLNS}">{inner}</DescribeSpotPriceHistoryResponse>'


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
