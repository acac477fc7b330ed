"""Prices of Fargate, load balancers, public addresses and logs, from a table that comes with this package."""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Mapping
from typing import NamedTuple


class ServingPrices(NamedTuple):
    """The table ``serving_prices.csv``.

    Attributes:
        region: Region in which the prices hold; others differ by up to a third.
        date: Day on which the prices hold.
        source: Where the prices come from.
        usd: US dollars by item: by the hour, for logs by the GB.
    """

    region: str
    date: str
    source: str
    usd: Mapping[str, float]


@functools.lru_cache(maxsize=1)
def shipped() -> ServingPrices:
    """The table, read once."""
    text = importlib.resources.files("covalent_cirro.aws").joinpath("serving_prices.csv").read_text("utf-8")
    said: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            name, _, value = line.lstrip("# ").partition(": ")
            said[name] = value
        else:
            lines.append(line)
    usd = {row["item"]: float(row["usd"]) for row in csv.DictReader(lines)}
    return ServingPrices(said["region"], said["date"], said["source"], usd)
