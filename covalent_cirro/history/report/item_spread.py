"""The items of maps: how long they took, what one cost, and how many jobs to share them over next time. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.contract.maps import MAX_CHILDREN
from covalent_cirro.history.map_items import MapState
from covalent_cirro.history.report.costs import CostLine, total
from covalent_cirro.jobs.formatting import duration

LEAST_JOB_S = 180.0
"""Seconds that a job should last, at least: AWS advises 3 to 5 minutes (Batch User Guide, Best practices)."""

GOOD_JOB_S = 300.0
"""Seconds of the jobs that are proposed."""

LONG_JOB_S = 3600.0
"""Seconds of a job above which more jobs are proposed: the map would end sooner, and a lost host would cost less."""

BINS = 24
"""Bars of the histogram."""

SKEWED = 8.0
"""Factor of the median from which on the longest item makes the bars of the histogram grow with the time."""


class MapFacts(NamedTuple):
    """What is known of a map.

    Attributes:
        node_id, name: Id of its node, and name of the electron.
        job_id: Id of its newest job.
        state: Its items.
        jobs: Jobs that its items were shared over, at first.
        seconds: Seconds that items took, as far as they are known, in no certain order.
    """

    node_id: int
    name: str
    job_id: str
    state: MapState
    jobs: int
    seconds: Sequence[float]


class Bin(NamedTuple):
    """Items that took ``from_s <= seconds < to_s``; in the last bin up to ``to_s``."""

    from_s: float
    to_s: float
    items: int


class MapReport(NamedTuple):
    """What a report says of a map. `None`: not known.

    Attributes:
        node_id, name, job_id: Ids and name.
        items: Number of items.
        done: How many have a result or have failed.
        failed: How many have no result, of a map that has ended; else how many have failed.
        known: Of how many items the seconds are known.
        min_s, median_s, p95_s, max_s: Seconds of the items: shortest, half, 95 of 100, longest.
        histogram: How many items took how long.
        jobs: Jobs that the items were shared over.
        job_s: Mean seconds that a job computed items.
        usd_per_item: Cost of the map, divided by the items that are done, in US dollars.
        exact: Whether nothing is assumed in this cost.
        next_jobs: ``array_size`` for next time.
        why: Why that many.
    """

    node_id: int
    name: str
    job_id: str
    items: int
    done: int
    failed: int
    known: int
    min_s: float | None
    median_s: float | None
    p95_s: float | None
    max_s: float | None
    histogram: tuple[Bin, ...]
    jobs: int
    job_s: float | None
    usd_per_item: float | None
    exact: bool
    next_jobs: int | None
    why: str


def map_reports(found: Iterable[MapFacts], lines: Sequence[CostLine]) -> list[MapReport]:
    """What a report says of each map.

    Args:
        found: The maps.
        lines: Cost of each attempt of the dispatch.
    """
    return [_report(each, [line for line in lines if line.node_id == each.node_id]) for each in found]


def _report(of: MapFacts, lines: Sequence[CostLine]) -> MapReport:
    counts, mapped = of.state.counts, of.state.mapped
    seconds = sorted(of.seconds)
    cost = total(lines)
    usd = cost.usd / counts.done if counts.done and lines and cost.unknown < cost.attempts else None
    job_s = None
    if seconds:
        work_s = math.fsum(seconds) / len(seconds) * counts.length / max(1, mapped.parallel)
        job_s = work_s / of.jobs
    next_jobs, why = _shared_next(counts.length, of.jobs, job_s)
    return MapReport(
        node_id=of.node_id,
        name=of.name,
        job_id=of.job_id,
        items=counts.length,
        done=counts.done,
        failed=counts.without_result,
        known=len(seconds),
        min_s=_rank(seconds, 0.0),
        median_s=_rank(seconds, 0.5),
        p95_s=_rank(seconds, 0.95),
        max_s=_rank(seconds, 1.0),
        histogram=_histogram(seconds),
        jobs=of.jobs,
        job_s=job_s,
        usd_per_item=usd,
        exact=cost.exact,
        next_jobs=next_jobs,
        why=why,
    )


def _shared_next(items: int, jobs: int, job_s: float | None) -> tuple[int | None, str]:
    """How many jobs to share the items over next time, and why."""
    if job_s is None:
        return None, "how long items took is not known yet"
    computed = f"a job computed for {duration(job_s)} on the average"
    wanted = max(1, min(items, MAX_CHILDREN, math.floor(jobs * job_s / GOOD_JOB_S)))
    if job_s < LEAST_JOB_S and wanted < jobs:
        return wanted, f"{computed}; AWS advises 3 to 5 minutes at least, since each job has to start"
    if job_s > LONG_JOB_S and wanted > jobs:
        return wanted, f"{computed}; with more jobs the map ends sooner, and a host that is lost costs less"
    return jobs, computed


def _rank(ordered: Sequence[float], share: float) -> float | None:
    """The value that this share of all values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _histogram(ordered: Sequence[float]) -> tuple[Bin, ...]:
    if not ordered:
        return ()
    least, most = ordered[0], ordered[-1]
    if most <= least:
        return (Bin(least, most, len(ordered)),)
    median = ordered[len(ordered) // 2]
    if least > 0 and most > SKEWED * median:
        edges = [least * (most / least) ** (i / BINS) for i in range(BINS + 1)]
    else:
        edges = [least + (most - least) * i / BINS for i in range(BINS + 1)]
    counts = [0] * BINS
    at = 0
    for value in ordered:
        while at < BINS - 1 and value >= edges[at + 1]:
            at += 1
        counts[at] += 1
    return tuple(Bin(edges[i], edges[i + 1], count) for i, count in enumerate(counts))
