"""What a dispatch used and what it cost, as facts, as one JSON document and as one HTML page.

Works from AWS Batch, S3 and AWS's prices alone, without a Covalent server. It must not know the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron
from covalent_cirro.history.report import costs, sizing, timeline
from covalent_cirro.history.report.costs import Line, Total
from covalent_cirro.history.report.runs import Run
from covalent_cirro.history.report.sizing import Size
from covalent_cirro.history.report.sources import Gathered, gather, gather_electron
from covalent_cirro.history.report.timeline import Segment
from covalent_cirro.jobs.reuse_texts import REUSED
from covalent_cirro.jobs.states import JobState

FORMAT = 1
"""Version of `document`."""


class Report(NamedTuple):
    """A dispatch, looked at.

    Attributes:
        dispatch_id: The dispatch.
        lattice: Its name; empty where nobody knows it any more.
        region: Where it ran.
        at: Epoch seconds when it was looked at.
        runs: Jobs of its electrons, in the order of their calls.
        segments: The pieces of each run's time, in the order of `runs`.
        sizes: Asked for, used, and what to ask for next time.
        lines: What each attempt cost.
        total: The sum of `lines`.
        nodes: The sum of each node.
        notes: What could not be learnt, for people.
    """

    dispatch_id: str
    lattice: str
    region: str
    at: float
    runs: tuple[Run, ...]
    segments: tuple[tuple[Segment, ...], ...]
    sizes: tuple[Size, ...]
    lines: tuple[Line, ...]
    total: Total
    nodes: Mapping[int, Total]
    notes: tuple[str, ...]

    @property
    def began_at(self) -> float | None:
        """When the first electron was called."""
        return min((each[0].began_at for each in self.segments if each), default=None)

    @property
    def ended_at(self) -> float | None:
        """When the last one ended; now where one still runs."""
        return max((each[-1].ended_at for each in self.segments if each), default=None)

    @property
    def running(self) -> int:
        """How many runs have not ended."""
        return sum(not run.has_ended for run in self.runs)

    @property
    def reused(self) -> int:
        """How many nodes have the results of an earlier job."""
        return sum(run.state == REUSED for run in self.runs)

    @property
    def failed(self) -> int:
        """How many nodes have failed: their last run did."""
        last = {run.node_id: run for run in self.runs}
        return sum(run.state == JobState.FAILED.value for run in last.values())


def make(
    account: Account, wanted: str, node_id: int | None = None, *, clock: Callable[[], float] = time.time
) -> Report:
    """Look at a dispatch.

    Args:
        account: Where.
        wanted: The dispatch's id, or the beginning of it.
        node_id: Only this node of it.
        clock: Epoch seconds.

    Raises:
        NoSuchElectron: There is no such dispatch, or several; candidates are named.
        AwsError: The bucket cannot be read.
    """
    return compute(gather(account, wanted, node_id, clock=clock))


def of_electron(account: Account, electron: Electron, *, clock: Callable[[], float] = time.time) -> Report:
    """Look at one electron that has been found already."""
    return compute(gather_electron(account, electron, clock=clock))


def compute(found: Gathered) -> Report:
    """What follows from the facts."""
    lines = costs.lines(found.runs, found.kinds, found.price_of, found.at)
    return Report(
        dispatch_id=found.dispatch_id,
        lattice=found.lattice,
        region=found.region,
        at=found.at,
        runs=found.runs,
        segments=tuple(timeline.segments(run, found.at) for run in found.runs),
        sizes=tuple(sizing.sizes(found.runs)),
        lines=tuple(lines),
        total=costs.total(lines),
        nodes=costs.by_node(lines),
        notes=found.notes,
    )


def document(report: Report) -> dict[str, Any]:
    """The report for programs. Times are epoch seconds, money is US dollars; `None` is what nobody knows."""
    by_job: dict[tuple[int, str], list[Line]] = {}
    for line in report.lines:
        by_job.setdefault((line.node_id, line.job_id), []).append(line)
    return {
        "format": FORMAT,
        "dispatch_id": report.dispatch_id,
        "lattice": report.lattice,
        "region": report.region,
        "at": report.at,
        "began_at": report.began_at,
        "ended_at": report.ended_at,
        "running": report.running,
        "failed": report.failed,
        "reused": report.reused,
        "cost": _cost(report),
        "electrons": [
            {
                "node_id": run.node_id,
                "name": run.name,
                "job_id": run.job_id,
                "try": run.number,
                "state": run.state,
                "queue": run.queue,
                "asked": None if run.need is None else run.need._asdict(),
                "usage": None if run.usage is None else run.usage._asdict(),
                "timeline": [segment._asdict() for segment in segments],
                "attempts": [_line(line) for line in by_job.get((run.node_id, run.job_id), [])],
            }
            for run, segments in zip(report.runs, report.segments, strict=True)
        ],
        "cost_by_node": {str(node_id): each._asdict() for node_id, each in report.nodes.items()},
        "sizes": [
            {**size._asdict(), "asked": size.asked._asdict(), "next": size.next._asdict(), "options": size.options}
            for size in report.sizes
        ],
        "notes": list(report.notes),
    }


def cost_document(report: Report) -> dict[str, Any]:
    """What an electron cost, for programs: in all, and each attempt with the price of its instance and its source."""
    return {
        **_cost(report),
        "is_final": not report.running,
        "attempts": [{"job_id": line.job_id, **_line(line)} for line in report.lines],
        "notes": list(report.notes),
    }


def _cost(report: Report) -> dict[str, Any]:
    return {**report.total._asdict(), "currency": "USD", "not_included": list(costs.NOT_IN_IT)}


def _line(line: Line) -> dict[str, Any]:
    attempt = line.attempt
    return {
        "attempt": attempt.number,
        "began_at": attempt.began_at,
        "ended_at": attempt.ended_at,
        "lost": attempt.lost,
        "reason": attempt.reason,
        "instance": attempt.machine._asdict(),
        "share": line.share,
        "seconds": line.seconds,
        "price": None if line.price is None else line.price._asdict(),
        "usd": line.usd,
        "exact": line.exact,
    }


__all__ = ["Report", "compute", "cost_document", "document", "make", "of_electron"]
