"""Prices: what AWS's documents say, the mean of a Spot price over a time, and the table that is shipped."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.aws import prices
from covalent_cirro.aws.prices import ON_DEMAND, SPOT, SpotChange, SpotHistory, shipped, shipped_price
from covalent_cirro.jobs.machines import BUNDLES, Need, of_environment
from covalent_cirro.local.emulator import price_api

PRODUCT = {
    "product": {
        "productFamily": "Compute Instance",
        "attributes": {"instanceType": "m5.large", "regionCode": "eu-west-1", "tenancy": "Shared", "vcpu": "2"},
        "sku": "ABC",
    },
    "serviceCode": "AmazonEC2",
    "terms": {
        "OnDemand": {
            "ABC.JRTCKXETXF": {
                "priceDimensions": {
                    "ABC.JRTCKXETXF.6YS6EN2CT7": {
                        "unit": "Hrs",
                        "endRange": "Inf",
                        "description": "$0.107 per On Demand Linux m5.large Instance Hour",
                        "appliesTo": [],
                        "rateCode": "ABC.JRTCKXETXF.6YS6EN2CT7",
                        "beginRange": "0",
                        "pricePerUnit": {"USD": "0.1070000000"},
                    }
                },
                "sku": "ABC",
                "effectiveDate": "2026-07-01T00:00:00Z",
                "offerTermCode": "JRTCKXETXF",
                "termAttributes": {},
            }
        },
        "Reserved": {},
    },
    "version": "20260720000000",
    "publicationDate": "2026-07-20T00:00:00Z",
}


def test_a_product_of_the_price_list_is_read() -> None:
    """The hourly on-demand price in US dollars, with the day since when it holds."""
    found = prices.parse_product(json.dumps(PRODUCT))
    assert found is not None
    name, price = found
    assert (name, price.usd_per_hour, price.market, price.date) == ("m5.large", 0.107, ON_DEMAND, "2026-07-01")


@pytest.mark.parametrize("terms", [{}, {"Reserved": {}}, {"OnDemand": {}}], ids=["none", "reserved", "empty"])
def test_a_product_without_an_on_demand_price_is_none(terms: dict[str, object]) -> None:
    """A reservation's price is not an hour's."""
    assert prices.parse_product(json.dumps({**PRODUCT, "terms": terms})) is None


def test_a_price_of_zero_or_by_another_unit_is_not_taken() -> None:
    """AWS's list has both: capacity blocks for nothing, and dedicated hosts by the quantity."""
    for wrong in ({"pricePerUnit": {"USD": "0.0000000000"}}, {"unit": "Quantity"}, {"pricePerUnit": {"CNY": "0.7"}}):
        document = json.loads(json.dumps(PRODUCT))
        for term in document["terms"]["OnDemand"].values():
            for dimension in term["priceDimensions"].values():
                dimension.update(wrong)
        assert prices.parse_product(json.dumps(document)) is None


def test_the_emulated_price_list_has_the_same_form() -> None:
    """What the emulator answers is read by the same function, and says the table's price."""
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in WANTED.items()]
    answer = price_api.get_products({"ServiceCode": "AmazonEC2", "Filters": filters})
    (document,) = answer["PriceList"]
    found = prices.parse_product(document)
    assert found is not None
    assert found[1].usd_per_hour == shipped().usd_per_hour["g5.xlarge"]
    assert set(json.loads(document)) == {"product", "serviceCode", "terms", "version", "publicationDate"}


WANTED = {
    **{"instanceType": "g5.xlarge", "regionCode": "eu-west-1", "operatingSystem": "Linux", "tenancy": "Shared"},
    **{"preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand"},
}


# --- the shipped table ----------------------------------------------------------------------------------------------


def test_the_table_has_all_that_a_deployment_starts_by_default() -> None:
    """Every family behind AWS Batch's own names and every GPU family of the template, with plausible prices."""
    table = shipped()
    for names in [*BUNDLES, "g4dn", "g5", "g6", "g6e", "p4d", "p5"]:
        assert of_environment([names], table.types), names
    assert set(table.types) == set(table.usd_per_hour)
    assert all(0.001 < usd < 1000 for usd in table.usd_per_hour.values())
    assert table.types["g5.xlarge"]._asdict() == {
        **{"name": "g5.xlarge", "vcpus": 4, "memory_mib": 16384, "gpus": 1, "architecture": "x86_64"},
    }
    assert not any(".metal" in name for name in table.types)


def test_the_table_says_where_and_when_it_is_from() -> None:
    """A date and a source; the price of another region, or for Spot, is not exact and says what it is."""
    table = shipped()
    assert datetime.date.fromisoformat(table.date) <= datetime.date.today()
    assert "AWS Price List API" in table.source
    home, other, spot = (
        shipped_price("m6i.large", table.region),
        shipped_price("m6i.large", "eu-west-1"),
        shipped_price("m6i.large", table.region, SPOT),
    )
    assert home is not None
    assert other is not None
    assert spot is not None
    assert (home.exact, other.exact, spot.exact) == (True, False, False)
    assert "not eu-west-1" in other.source
    assert "most that Spot can cost" in spot.source
    assert shipped_price("z99.huge", table.region) is None


# --- Spot -----------------------------------------------------------------------------------------------------------


def test_a_spot_price_is_the_mean_over_the_time() -> None:
    """An hour at 0.10 and three at 0.20 are 0.175; before the first change the price is as after it."""
    history = SpotHistory(
        [SpotChange("m5.large", "eu-west-1a", 3600.0, 0.2), SpotChange("m5.large", "eu-west-1a", 0.0, 0.1)]
    )
    price = history.price("m5.large", "eu-west-1a", 0.0, 4 * 3600.0)
    assert price is not None
    assert price.usd_per_hour == pytest.approx(0.175)
    assert (price.market, price.date, price.exact) == (SPOT, "1970-01-01", True)
    before = history.price("m5.large", "eu-west-1a", -7200.0, -3600.0)
    assert before is not None
    assert before.usd_per_hour == pytest.approx(0.1)


def test_a_zone_that_is_not_known_gives_the_mean_of_all() -> None:
    """Which is not exact; of an unknown type there is no price."""
    history = SpotHistory([SpotChange("a", "za", 0.0, 0.1), SpotChange("a", "zb", 0.0, 0.3)])
    for zone in ("", "zc"):
        price = history.price("a", zone, 10.0, 10.0)
        assert price is not None
        assert price.usd_per_hour == pytest.approx(0.2)
        assert not price.exact
    assert history.price("b", "za", 0.0, 1.0) is None


steps = st.dictionaries(st.integers(0, 1000), st.floats(0.001, 10), min_size=1, max_size=8)


@settings(deadline=None)
@given(steps, st.integers(-100, 1100), st.integers(0, 500), st.integers(1, 499))
def test_a_mean_lies_between_the_prices_and_adds_up(
    changes: dict[int, float], start: int, length: int, cut: int
) -> None:
    """Never below the least or above the most; two parts of a time weigh as much as the whole."""
    history = SpotHistory(SpotChange("a", "z", float(at), usd) for at, usd in changes.items())

    def mean(begin: float, end: float) -> float:
        price = history.price("a", "z", begin, end)
        assert price is not None
        return price.usd_per_hour

    whole = mean(start, start + length)
    assert min(changes.values()) - 1e-9 <= whole <= max(changes.values()) + 1e-9
    middle = start + min(cut, length)
    parts = mean(start, middle) * (middle - start) + mean(middle, start + length) * (start + length - middle)
    assert parts == pytest.approx(whole * length, rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(st.sampled_from(sorted(shipped().types)), st.integers(0, 10**10))
def test_emulated_spot_is_cheaper_than_on_demand(name: str, at: int) -> None:
    """As on AWS, where a Spot price does not exceed the on-demand price."""
    price = price_api.spot_price(name, "eu-west-1a", float(at))
    assert price is not None
    assert 0 < price < shipped().usd_per_hour[name] or price < 0.001


def test_the_emulated_history_begins_before_the_time_that_is_asked_for() -> None:
    """The last change before StartTime is in the answer too, as EC2 documents it."""
    parameters = {
        "InstanceType.1": "m5.large",
        "ProductDescription.1": "Linux/UNIX",
        "StartTime": "2026-11-20T10:00:00Z",
        "EndTime": "2026-11-20T11:00:00Z",
    }
    asked = price_api.parse_asked(parameters, now=2e9)
    found = list(price_api.spot_changes(asked, {"m5.large": ["eu-west-1a"]}))
    assert found[-1][2] <= asked.start
    windows = asked._replace(descriptions=["Windows"])
    assert list(price_api.spot_changes(windows, {"m5.large": ["eu-west-1a"]})) == []
    assert not list(price_api.spot_changes(asked._replace(descriptions=["Windows"]), {"m5.large": ["eu-west-1a"]}))


def test_a_need_fits_some_type_of_the_table() -> None:
    """A small electron does, one beyond the largest machine does not."""
    kinds = shipped().types.values()
    assert any(Need(1, 1024, 0).fits(kind) for kind in kinds)
    assert not any(Need(100_000, 1024, 0).fits(kind) for kind in kinds)
