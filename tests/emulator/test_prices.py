"""Prices of the emulated account, asked for with boto3: the Price List API and the Spot price history."""

from __future__ import annotations

import datetime
import json

from covalent_cirro.aws.prices import parse_product, shipped
from tests.emulator.conftest import Aws

NOW = datetime.datetime.now(datetime.timezone.utc)


def test_products_are_filtered_and_paged(aws: Aws) -> None:
    """All filters must match; the pages together have all products."""
    pricing = aws.client("pricing")
    wanted = {"regionCode": "eu-west-1", "operatingSystem": "Linux", "tenancy": "Shared", "vcpu": "4", "gpu": "1"}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonEC2", Filters=filters, PaginationConfig={"PageSize": 2}
    )
    found = [document for page in pages for document in page["PriceList"]]
    names = {parsed[0] for document in found if (parsed := parse_product(document)) is not None}
    assert {"g4dn.xlarge", "g5.xlarge", "g6.xlarge"} <= names
    assert len(names) == len(found)
    assert all(shipped().types[name].vcpus == 4 for name in names)
    assert {json.loads(document)["product"]["attributes"]["regionCode"] for document in found} == {"eu-west-1"}
    assert pricing.get_products(ServiceCode="AmazonS3")["PriceList"] == []
    windows = [{"Type": "TERM_MATCH", "Field": "operatingSystem", "Value": "Windows"}]
    assert pricing.get_products(ServiceCode="AmazonEC2", Filters=windows)["PriceList"] == []


def test_spot_prices_have_a_history_for_each_zone(aws: Aws) -> None:
    """The newest first, in pages, back to the last change before the time; in the zones that have the type."""
    ec2 = aws.client("ec2")
    start = NOW - datetime.timedelta(days=3)
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=["m6i.large", "c6i.large"],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=start,
        EndTime=NOW,
        PaginationConfig={"PageSize": 20},
    )
    found = [each for page in pages for each in page["SpotPriceHistory"]]
    times = [each["Timestamp"] for each in found]
    assert times == sorted(times, reverse=True)
    assert times[-1] <= start
    assert max(times) <= NOW
    offers = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["m6i.large"]}]
    )["InstanceTypeOfferings"]
    zones = {each["AvailabilityZone"] for each in found if each["InstanceType"] == "m6i.large"}
    assert zones == {offer["Location"] for offer in offers}
    assert all(0 < float(each["SpotPrice"]) < shipped().usd_per_hour[each["InstanceType"]] for each in found)
    one = ec2.describe_spot_price_history(
        InstanceTypes=["m6i.large"], AvailabilityZone=sorted(zones)[0], StartTime=start, EndTime=NOW
    )["SpotPriceHistory"]
    assert {each["AvailabilityZone"] for each in one} == {sorted(zones)[0]}
