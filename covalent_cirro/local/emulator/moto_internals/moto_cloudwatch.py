"""Writes metrics into CloudWatch of moto, many values at once; adds percentiles, and the order of dimensions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING, once, replace

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")


@once
def install() -> None:
    """Add percentiles (``p99``) of the values that `put` wrote, and find metrics whatever the order of dimensions is.

    moto gives nothing for percentiles; and its order of dimensions, by which it compares two lists of them, is none.
    """
    from moto.cloudwatch import models

    usual = models.Statistics.get_statistics_for_type

    def get_statistics_for_type(self: Any, stat: str) -> Any:
        asked = _PERCENTILE.fullmatch(stat)
        if asked is None:
            return usual(self, stat)
        values: Counter[float] = Counter(self.metric_single_values_list)
        for each in self.metric_aggregated_list:
            values.update(getattr(each, "cirro_values", {each.sum / each.sample_count: int(each.sample_count)}))
        return percentile(values, float(asked[1]))

    def is_before(self: Any, other: Any) -> bool:
        return bool((self.name, self.value) < (other.name, other.value))

    replace(models.Dimension, "__lt__", is_before)
    replace(models.Statistics, "get_statistics_for_type", get_statistics_for_type)


def percentile(values: Mapping[float, int], percent: float) -> float | None:
    """The smallest value that at least ``percent`` of all values do not exceed; `None` where there are none.

    Args:
        values: How often each value occurs.
        percent: From 0 to 100.
    """
    left = sum(values.values()) * percent / 100
    for value in sorted(values):
        left -= values[value]
        if left <= 0:
            return value
    return None


def put(
    account: str,
    region: str,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    unit: str,
    values: Mapping[float, int],
) -> None:
    """Write values of a metric with the time of now, as one datum.

    Args:
        values: How often each value occurred.
    """
    with IMPORTING:
        from moto.cloudwatch.models import MetricAggregatedDatum, cloudwatch_backends

    datum = MetricAggregatedDatum(
        namespace=namespace,
        name=name,
        min_stat=min(values),
        max_stat=max(values),
        sample_count=float(sum(values.values())),
        sum_stat=sum(value * count for value, count in values.items()),
        dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        timestamp=None,
        unit=unit,
    )
    datum.cirro_values = dict(values)
    cloudwatch_backends[account][region].metric_data.append(datum)
