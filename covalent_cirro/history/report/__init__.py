"""What a dispatch used and what it cost: as facts, as a JSON document and as an HTML page.

It reads AWS Batch, S3 and AWS's prices, and needs no Covalent server. It must not know the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from covalent_cirro.contract.protocol import Arguments
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron
from covalent_cirro.history.report import costs, sizing, timeline
from covalent_cirro.history.report.costs import CostLine, CostTotal
from covalent_cirro.history.report.item_spread import MapReport, map_reports
from covalent_cirro.history.report.runs import Run
from covalent_cirro.history.report.sizing import SizeProposal
from covalent_cirro.history.report.sources import DispatchSources, ListedElectron, ReportFacts, gather_electron
from covalent_cirro.history.report.steps import Step, steps
from covalent_cirro.history.report.timeline import Segment
from covalent_cirro.jobs.arguments import differing
from covalent_cirro.jobs.reuse_texts import REUSED
from covalent_cirro.jobs.states import CANCELLED, JobState

FORMAT = 1
"""Version of `document`."""


class Report(NamedTuple):
    """A report on a dispatch.

    Attributes:
        dispatch_id: Id of the dispatch.
        lattice: Name of the lattice; empty where it is not known any more.
        region: Region of the jobs.
        at: Epoch seconds when the report was made.
        runs: Jobs of its electrons, in the order of their calls.
        segments: Segments of each run's time, in the order of `runs`.
        sizes: For electrons of one name: what they asked for, what they used, and what to ask for next time.
        lines: Cost of each attempt.
        total: Sum of `lines`.
        nodes: Sum of `lines` by node id.
        notes: What could not be found out, for people.
        ui_url: URL of the dispatch in the Covalent UI; empty where the server is not known.
        electrons: The electrons' jobs, with what they printed: first those that run.
        maps: Its maps: how long items took, what one cost, and how many jobs to share them over next time.
    """

    dispatch_id: str
    lattice: str
    region: str
    at: float
    runs: tuple[Run, ...]
    segments: tuple[tuple[Segment, ...], ...]
    sizes: tuple[SizeProposal, ...]
    lines: tuple[CostLine, ...]
    total: CostTotal
    nodes: Mapping[int, CostTotal]
    notes: tuple[str, ...]
    ui_url: str = ""
    electrons: tuple[ListedElectron, ...] = ()
    maps: tuple[MapReport, ...] = ()

    @property
    def began_at(self) -> float | None:
        """When the first electron was called."""
        return min((each[0].began_at for each in self.segments if each), default=None)

    @property
    def ended_at(self) -> float | None:
        """When the last electron ended; the time of the report if one still runs."""
        return max((each[-1].ended_at for each in self.segments if each), default=None)

    @property
    def running(self) -> int:
        """How many runs have not ended."""
        return sum(not run.has_ended for run in self.runs)

    @property
    def is_under_way(self) -> bool:
        """Whether a job has not ended, or is about to be submitted."""
        return self.running > 0 or any(each.row.is_under_way for each in self.electrons)

    @property
    def reused(self) -> int:
        """How many nodes have the results of an earlier job."""
        return sum(run.state == REUSED for run in self.runs)

    @property
    def differences(self) -> Mapping[int, Arguments]:
        """By node id the arguments in which electrons of the same function differ; of a node's last run."""
        last = {run.node_id: run for run in self.runs}
        found = differing([(run.name, run.arguments) for run in last.values()])
        return dict(zip(last, found, strict=True))

    @property
    def steps(self) -> list[Step]:
        """Machines, time and cost of the electrons of each name, in the order of their first calls."""
        return steps(self.runs, self.lines, self.at)

    @property
    def failed(self) -> int:
        """How many nodes have failed, by their last run."""
        return self._ended_as(JobState.FAILED.value)

    @property
    def cancelled(self) -> int:
        """How many nodes were cancelled, by their last run."""
        return self._ended_as(CANCELLED)

    def _ended_as(self, state: str) -> int:
        return sum(run.state == state for run in {run.node_id: run for run in self.runs}.values())


def make(account: Account, wanted: str, *, clock: Callable[[], float] = time.time) -> Report:
    """Make a report on a dispatch. For a report that is brought up to date: `DispatchSources` and `compute`.

    Args:
        account: The account.
        wanted: Id of the dispatch, or the beginning of the id.
        clock: Epoch seconds.

    Raises:
        NoSuchElectron: There is no such dispatch, or several; candidates are named.
        AwsError: The bucket cannot be read.
    """
    return compute(DispatchSources(account, wanted, clock=clock).look())


def of_electron(account: Account, electron: Electron, *, clock: Callable[[], float] = time.time) -> Report:
    """Make a report on an electron."""
    return compute(gather_electron(account, electron, clock=clock))


def compute(found: ReportFacts) -> Report:
    """Compute a report from facts."""
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
        ui_url=f"{found.server_url}/{found.dispatch_id}" if found.server_url else "",
        electrons=found.electrons,
        maps=tuple(map_reports(found.maps, lines)),
    )


def document(report: Report) -> dict[str, Any]:
    """The report for programs. Times are epoch seconds, money is US dollars; `None` is unknown."""
    by_job: dict[tuple[int, str], list[CostLine]] = {}
    for line in report.lines:
        by_job.setdefault((line.node_id, line.job_id), []).append(line)
    return {
        "format": FORMAT,
        "dispatch_id": report.dispatch_id,
        "lattice": report.lattice,
        "ui_url": report.ui_url,
        "region": report.region,
        "at": report.at,
        "began_at": report.began_at,
        "ended_at": report.ended_at,
        "running": report.running,
        "failed": report.failed,
        "cancelled": report.cancelled,
        "reused": report.reused,
        "cost": _cost(report),
        "electrons": [
            {
                "node_id": run.node_id,
                "name": run.name,
                "arguments": dict(run.arguments),
                "job_id": run.job_id,
                "try": run.number,
                "state": run.state,
                "result": run.result,
                "queue": run.queue,
                "asked": None if run.need is None else run.need._asdict(),
                "usage": None if run.usage is None else run.usage._asdict(),
                "timeline": [segment._asdict() for segment in segments],
                "attempts": [_line(line) for line in by_job.get((run.node_id, run.job_id), [])],
            }
            for run, segments in zip(report.runs, report.segments, strict=True)
        ],
        "steps": [
            {**step._asdict(), "instances": [each._asdict() for each in step.instances]} for step in report.steps
        ],
        "maps": [{**each._asdict(), "histogram": [one._asdict() for one in each.histogram]} for each in report.maps],
        "cost_by_node": {str(node_id): each._asdict() for node_id, each in report.nodes.items()},
        "sizes": [
            {
                **size._asdict(),
                "asked": size.asked._asdict(),
                "next": size.next._asdict(),
                "outliers": [each._asdict() for each in size.outliers],
                "options": size.options,
            }
            for size in report.sizes
        ],
        "notes": list(report.notes),
    }


def cost_document(report: Report) -> dict[str, Any]:
    """The cost of an electron, for programs: the sum, and for each attempt the price of its instance and its source."""
    return {
        **_cost(report),
        "is_final": not report.running,
        "attempts": [{"job_id": line.job_id, **_line(line)} for line in report.lines],
        "notes": list(report.notes),
    }


def _cost(report: Report) -> dict[str, Any]:
    return {**report.total._asdict(), "currency": "USD", "not_included": list(costs.NOT_IN_IT)}


def _line(line: CostLine) -> dict[str, Any]:
    attempt = line.attempt
    return {
        "attempt": attempt.number,
        "node": attempt.node,
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
