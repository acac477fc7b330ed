"""A report as one HTML page, without fonts or pictures from other servers; it has a script only while it is watched.

It turns facts into texts and shapes for the template ``page.html``; it must not know where the facts come from.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from covalent_cirro.history.electron_list import counts, differences, reasons
from covalent_cirro.history.report import Report, costs, timeline
from covalent_cirro.history.report.costs import CostLine, CostTotal
from covalent_cirro.history.report.item_spread import MapReport
from covalent_cirro.history.report.runs import Run
from covalent_cirro.history.report.sizing import SizeProposal
from covalent_cirro.history.report.sources import ListedElectron
from covalent_cirro.history.report.steps import Step
from covalent_cirro.history.report.timeline import Segment
from covalent_cirro.jobs import arguments
from covalent_cirro.jobs.formatting import MIB, counted, duration, elapsed, gigabytes, memory, moment_utc, usd
from covalent_cirro.jobs.reuse_texts import REUSED
from covalent_cirro.jobs.states import JobState

if TYPE_CHECKING:
    import jinja2

WIDTH = 1000.0
"""Width of a timeline in units, which the browser scales."""

LEAST_WIDTH = 1.5
"""Least width of a segment in units, so that it can be seen."""

HEIGHT = 40.0
LEAST_HEIGHT = 1.0
"""Height of a histogram, and least height of a bar that stands for an item, in units."""

TICKS = 4
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Distances of two ticks, in seconds."""


LOGS = 100
"""Electrons whose last lines are in the page, from the beginning of the list: each has up to some kilobytes."""

OPEN_LOGS = 5
"""Logs that are shown before somebody asks for them: of the first electrons, if they run or have failed."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page's ``Content-Security-Policy``: it loads nothing, and texts of electrons cannot become scripts."""


def page(report: Report, *, watched: bool = False, trouble: str = "") -> str:
    """The page, as HTML.

    Args:
        report: What it shows.
        watched: Whether it asks the server that it comes from for newer versions of itself.
        trouble: Why the report is older than it should be; mostly empty.
    """
    called_with = {node_id: arguments.line(each) for node_id, each in report.differences.items()}
    own = differences([each.row for each in report.electrons])
    return _template().render(
        policy=watched_policy() if watched else POLICY,
        watched=watched,
        trouble=trouble,
        script=_script(),
        counts=counted(counts(each.row for each in report.electrons)),
        reasons=reasons(each.row for each in report.electrons),
        electrons=[
            _electron(each, arguments.line(called), number, report.at)
            for number, (each, called) in enumerate(zip(report.electrons, own, strict=True))
        ],
        report=report,
        title=report.lattice or f"dispatch {report.dispatch_id[:8]}",
        made_at=moment_utc(report.at),
        tiles=_tiles(report),
        legend=[(kind, what) for kind, what in timeline.KINDS.items() if _has(report, kind)],
        ticks=_ticks(report),
        rows=[
            _row(report, run, segments, called_with[run.node_id])
            for run, segments in zip(report.runs, report.segments, strict=True)
        ],
        results=[run for run in report.runs if run.result],
        sizes=[_size(size) for size in report.sizes],
        steps=[_step(step) for step in report.steps],
        maps=[_map(each) for each in report.maps],
        nodes=[_node(report, node_id, total, called_with[node_id]) for node_id, total in report.nodes.items()],
        shows_arguments=any(called_with[node_id] for node_id in report.nodes),
        total=report.total,
        lost=[_attempt(line) for line in report.lines if line.attempt.lost],
        prices=_prices(report.lines),
        not_in_it=costs.NOT_IN_IT,
        notes=report.notes,
        usd=usd,
        duration=duration,
    )


@functools.lru_cache(maxsize=1)
def watched_policy() -> str:
    """The ``Content-Security-Policy`` of a page that is watched: its own script, and requests to its own server."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    return f"{POLICY}; script-src 'sha256-{digest}'; connect-src 'self'"


def served_policy() -> str:
    """The policy in the header of a page that is watched, which no other page may show in a frame."""
    return f"{watched_policy()}; frame-ancestors 'none'"


@functools.lru_cache(maxsize=1)
def _script() -> str:
    return _file("page.js")


def _file(name: str) -> str:
    return importlib.resources.files("covalent_cirro.history.report").joinpath(name).read_text("utf-8")


@functools.lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    import jinja2  # only for a page: the commands that write times and money import this file too

    source = _file("page.html")
    # Names of electrons and their arguments may be any text: autoescape makes them harmless.
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(source)


# --- parts of the page ------------------------------------------------------------------------------------------------


def _tiles(report: Report) -> list[dict[str, str]]:
    total = report.total
    about = "" if total.exact else "≈ "
    lost = f"{usd(total.lost_usd)} of it for lost attempts" if total.lost else "no attempt lost its instance"
    unknown = f"; {total.unknown} of {total.attempts} attempts without a price" if total.unknown else ""
    nodes = len({run.node_id for run in report.runs})
    how = [f"{report.failed} failed"] if report.failed else ["none failed"]
    how += [f"{report.cancelled} cancelled"] if report.cancelled else []
    how += [f"{report.running} under way"] if report.running else []
    how += [f"{report.reused} reused"] if report.reused else []
    began_at, ended_at = report.began_at, report.ended_at
    took = "?" if began_at is None or ended_at is None else duration(ended_at - began_at)
    ran, waited = (_sum(report, kind) for kind in (timeline.RUN, timeline.QUEUE))
    return [
        {"name": "Cost", "value": f"{about}{usd(total.usd)}", "more": lost + unknown},
        {"name": "From call to end", "value": took, "more": moment_utc(began_at)},
        {"name": "Electrons", "value": str(nodes), "more": ", ".join(how)},
        {"name": "Ran", "value": duration(ran), "more": f"all electrons together; they waited {duration(waited)}"},
    ]


def _electron(listed: ListedElectron, called_with: str, number: int, now: float) -> dict[str, Any]:
    row = listed.row
    since = "" if row.since is None else f" {elapsed(now - row.since)}" + (" ago" if row.has_ended else "")
    used = "" if row.used_bytes is None else f"{memory(row.used_bytes / MIB)} of "
    attempts = f" of {row.attempts_allowed}" if row.attempts_allowed else ""
    details = [
        f"attempt {row.attempt}{attempts}" if row.attempt else "",
        f"number {row.position} in its queue" if row.position else "",
        row.where or row.queue,
        f"{used}{memory(row.memory_mib)}" if row.memory_mib else "",
    ]
    return {
        "key": f"{row.node_id}-{row.call_id or row.job_id}",
        "name": row.electron,
        "called_with": called_with,
        "node_id": row.node_id,
        "state": row.state,
        "told": f"{row.state}{since}",
        "details": " \N{MIDDLE DOT} ".join(each for each in details if each),
        "why": "" if row.reason else row.why,  # the reason of a wait is above the list, once for all that have it
        "log_end": listed.log_end if number < LOGS else "",
        "is_open": number < OPEN_LOGS and row.state in (JobState.RUNNING.value, JobState.FAILED.value),
    }


def _sum(report: Report, kind: str) -> float:
    return sum(each.seconds for segments in report.segments for each in segments if each.kind == kind)


def _has(report: Report, kind: str) -> bool:
    return any(each.kind == kind for segments in report.segments for each in segments)


def _span(report: Report) -> tuple[float, float]:
    began_at, ended_at = report.began_at or 0.0, report.ended_at or 0.0
    return began_at, max(ended_at - began_at, 0.001)


def _ticks(report: Report) -> list[dict[str, Any]]:
    _, seconds = _span(report)
    step = next(
        (each for each in STEPS_S if seconds / each <= TICKS), STEPS_S[-1] * -(-seconds // (STEPS_S[-1] * TICKS))
    )
    count = int(seconds / step)
    return [
        {"at": round(100 * i * step / seconds, 3), "text": duration(i * step) if i else "0"} for i in range(count + 1)
    ]


def _row(report: Report, run: Run, segments: Sequence[Segment], called_with: str) -> dict[str, Any]:
    began_at, seconds = _span(report)
    pieces = []
    for each in segments:
        width = max(LEAST_WIDTH, WIDTH * each.seconds / seconds)
        x = min(WIDTH * (each.began_at - began_at) / seconds, WIDTH - width)
        title = f"{each.kind} {duration(each.seconds)}"
        pieces.append({"kind": each.kind, "x": round(max(0.0, x), 2), "width": round(width, 2), "title": title})
    is_reused = run.state == REUSED
    told = ", ".join(str(piece["title"]) for piece in pieces) or (
        f"reused from job {run.job_id}" if is_reused else "nothing is known of its time"
    )
    name = run.name if run.number == 1 else f"{run.name}, try {run.number}"
    return {
        "name": name,
        "called_with": called_with,
        "node_id": run.node_id,
        "state": run.state,
        "reused": is_reused,
        "pieces": pieces,
        "told": told,
    }


def _size(size: SizeProposal) -> dict[str, Any]:
    asked, wanted = size.asked, size.next
    return {
        "name": size.name,
        "runs": size.runs,
        "bars": [
            _bar("vCPU", size.used_vcpus, asked.vcpus, _figure(size.used_vcpus), f"{asked.vcpus:g}"),
            _bar(
                "memory",
                size.used_memory_mib,
                asked.memory_mib,
                gigabytes(size.used_memory_mib),
                gigabytes(asked.memory_mib),
            ),
            *([_gpu_bar(size)] if asked.gpus else []),
        ],
        "options": size.options,
        "changes": wanted != asked or size.outliers,
        "outliers": size.outliers,
        "why": size.why,
    }


def _gpu_bar(size: SizeProposal) -> dict[str, Any]:
    details = []
    if size.gpu_utilization is not None:
        details.append(f"{size.gpu_utilization:.0f} % busy")
    if size.gpu_memory_mib is not None:
        details.append(gigabytes(size.gpu_memory_mib))
    used = "?" if size.used_gpus is None else str(size.used_gpus)
    told = f"{used} ({', '.join(details)})" if details else used
    return _bar("GPU", size.used_gpus, size.asked.gpus, told, str(size.asked.gpus))


def _bar(name: str, used: float | None, asked: float, used_text: str, asked_text: str) -> dict[str, Any]:
    part = 0.0 if used is None or not asked else used / asked
    return {
        "name": name,
        "width": round(min(100.0, 100.0 * part), 1),
        "over": part > 1,
        "text": f"{used_text} of {asked_text}",
    }


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "nodes": step.nodes,
        "attempts": step.attempts,
        "instances": step.where,
        "took": "?" if step.elapsed_s is None else duration(step.elapsed_s),
        "ran": duration(step.ran_s),
        "usd": step.cost,
    }


def _map(of: MapReport) -> dict[str, Any]:
    most = max((each.items for each in of.histogram), default=0)
    bars = []
    for number, each in enumerate(of.histogram):
        height = 0.0 if not each.items else max(LEAST_HEIGHT, HEIGHT * each.items / most)
        told = f"{each.items:,} items: {duration(each.from_s)} to {duration(each.to_s)}"
        bars.append({"x": number, "y": round(HEIGHT - height, 2), "height": round(height, 2), "title": told})
    times = [("shortest", of.min_s), ("median", of.median_s), ("95 of 100 up to", of.p95_s), ("longest", of.max_s)]
    some = "" if of.known == of.done else f"; times of {of.known:,} of them are known"
    failed = f", {of.failed:,} without a result" if of.failed else ""
    return {
        "name": of.name,
        "node_id": of.node_id,
        "counts": f"{of.done:,} of {of.items:,} items in {of.jobs:,} jobs{failed}{some}",
        "times": ", ".join(f"{name} {duration(seconds)}" for name, seconds in times if seconds is not None),
        "bars": bars,
        "bins": max(1, len(of.histogram)),
        "height": HEIGHT,
        "usd": "?" if of.usd_per_item is None else ("" if of.exact else "≈ ") + usd(of.usd_per_item),
        "array_size": "" if of.next_jobs is None else f"array_size={of.next_jobs}",
        "changes": of.next_jobs not in (None, of.jobs),
        "why": of.why,
    }


def _node(report: Report, node_id: int, total: CostTotal, called_with: str) -> dict[str, Any]:
    runs = [run for run in report.runs if run.node_id == node_id]
    mine = [line for line in report.lines if line.node_id == node_id]
    machines = dict.fromkeys(machine(line) for line in mine)
    return {
        "node_id": node_id,
        "name": runs[-1].name,
        "called_with": called_with,
        "state": runs[-1].state,
        "jobs": len(runs),
        "attempts": total.attempts,
        "lost": total.lost,
        "ran": duration(sum(line.seconds for line in mine)),
        "machines": list(machines),
        "shares": list(dict.fromkeys("?" if line.share is None else f"{line.share:.0%}" for line in mine)),
        "usd": ("" if total.exact else "≈ ") + (usd(total.usd) if total.unknown < total.attempts else "?"),
    }


def machine(line: CostLine) -> str:
    """Type, market and zone of the instance of an attempt, as far as they are known."""
    of = line.attempt.machine
    words = [of.instance_type or "unknown type", of.market, of.zone]
    return " ".join(word for word in words if word) + (" (assumed)" if of.assumed and of.instance_type else "")


def _attempt(line: CostLine) -> dict[str, Any]:
    return {
        "name": line.name,
        "node_id": line.node_id,
        "number": line.attempt.number,
        "seconds": duration(line.seconds),
        "usd": usd(line.usd),
        "machine": machine(line),
        "reason": line.attempt.reason,
    }


def _prices(lines: Sequence[CostLine]) -> list[dict[str, str]]:
    """For each instance type and market, the least and the highest price of an hour."""
    found: dict[tuple[str, str, str], list[CostLine]] = {}
    for line in lines:
        if line.price is not None:
            found.setdefault((line.attempt.machine.instance_type, line.price.market, line.price.source), []).append(
                line
            )
    rows = []
    for (name, market, source), some in sorted(found.items()):
        hours = sorted(line.price.usd_per_hour for line in some if line.price is not None)
        dates = sorted(line.price.date for line in some if line.price is not None)
        between = usd(hours[0]) if usd(hours[0]) == usd(hours[-1]) else f"{usd(hours[0])} to {usd(hours[-1])}"
        days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        rows.append({"name": name, "market": market, "hour": between, "date": days, "source": source})
    return rows
