"""``cirro show``: all facts about one electron. Shows the stories of `history.story`, and costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.electrons import DispatchName
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.formatting import MIB, duration, elapsed, memory, moment, usd

if TYPE_CHECKING:
    from covalent_cirro.contract.protocol import Usage
    from covalent_cirro.contract.reports import Point
    from covalent_cirro.history.electron_nodes import NodeRow
    from covalent_cirro.history.map_jobs import MapJob
    from covalent_cirro.history.report import Report
    from covalent_cirro.history.saved_checkpoints import SavedCheckpoint
    from covalent_cirro.history.story import Story


@click.command()
@click.argument("electron", type=DispatchName(node=True), metavar="DISPATCH:NODE")
@json_option
@target_options
def show(target: Target, electron: Wanted, as_json: bool) -> None:
    """Show all facts about one electron: times, attempts, what it asked for, used and cost, and why it waits or failed.

    The facts are from AWS Batch, as long as it knows the job, and from S3. Needs no Covalent server.
    """
    from covalent_cirro.history import electron_nodes, find, map_items, map_jobs, reported, saved_checkpoints
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.instances import Instances
    from covalent_cirro.history.map_jobs import MapJob
    from covalent_cirro.history.queue_places import JobWaits
    from covalent_cirro.history.report import cost_document, of_electron
    from covalent_cirro.history.story import Site, document, tell

    with open_account(target.access, target.stack_name) as account:
        found = find.electron(account, electron)
        site, record = Site(account.region, account.partition), found.record
        turn = JobWaits(account).of([record]).get(record.job_id) if record else None
        instances = Instances(account)
        hosts = instances.of_attempts(record) if record else {}
        of_map, children = map_items.state_of(account, found, time.time()), list[MapJob]()
        if of_map is not None and record is not None and record.detail.array_size:
            children, of_map = map_jobs.worth_seeing(account, record, of_map, time.time())
        story = tell(
            found, account.settings, site, turn=turn, hosts=hosts, items=None if of_map is None else of_map.counts
        )
        nodes = electron_nodes.rows(account, found, instances)
        saved = saved_checkpoints.latest(account, found)
        points = reported.of_electron(account, story.lattice, story.dispatch_id, story.node_id)
        cost = of_electron(account, found)
    if instances.problem:
        render.note(instances.problem)
    if as_json:
        checkpoint = None if saved is None else saved._asdict()
        jobs = [each._asdict() for each in children]
        values = [point._asdict() for point in points]
        found_besides = {"map_jobs": jobs, "reported": values, "checkpoint": checkpoint, "cost": cost_document(cost)}
        render.document({**document(story), **found_besides, "nodes": [each._asdict() for each in nodes]})
    else:
        _show(story, points, saved, cost, time.time(), children, nodes)


def _show(
    story: Story,
    points: Sequence[Point],
    saved: SavedCheckpoint | None,
    cost: Report,
    now: float,
    children: Sequence[MapJob] = (),
    nodes: Sequence[NodeRow] = (),
) -> None:
    of = f" of {story.lattice}" if story.lattice else ""
    render.heading(f"{story.electron}{of}, {story.dispatch_id}:{story.node_id}")
    render.facts(_facts(story, points, saved, cost))
    if children:
        _show_jobs(children)
    if nodes:
        _show_nodes(nodes)
    if story.periods:
        render.heading("\ntimes (UTC)")
        render.table(
            ("", "from", "lasted"),
            (
                (
                    f"  {period.what}" if period.part else period.what,
                    moment(period.began_at),
                    elapsed((period.ended_at or now) - period.began_at) + ("" if period.ended_at else ", so far"),
                )
                for period in story.periods
            ),
        )
    if story.tried:
        render.heading("\nearlier tries")
        render.table(
            ("", "job", "ended", "attempts", "memory", "queue", "then"),
            (
                (
                    str(each.number),
                    each.job_id,
                    each.end.replace("_", " "),
                    str(each.attempts),
                    (f"{memory(each.reached_bytes / MIB)} of " if each.reached_bytes else "") + memory(each.memory_mib),
                    each.queue,
                    each.then,
                )
                for each in story.tried
            ),
        )
    if story.attempts:
        render.heading("\nattempts")
        render.table(
            ("", "state", "exit code", "host", "reason"),
            (
                (
                    str(each.number),
                    each.state,
                    "" if each.exit_code is None else str(each.exit_code),
                    each.host,
                    each.reason,
                )
                for each in story.attempts
            ),
        )
    _show_cost(cost)
    if story.error:
        render.heading("\nerror")
        render.line(story.error)
    if story.links:
        render.heading("\nAWS console")
        render.facts(story.links.items())


VALUE_CHARS = 200
"""Characters of a variable that are shown; --json has all."""

JOBS_SHOWN = 20
"""Jobs of a map that are listed, at most: those that failed first, then the slowest; and attempts with their cost."""


def _show_jobs(children: Sequence[MapJob]) -> None:
    render.heading("\njobs that failed, and the slowest that run")
    render.table(
        ("", "state", "items", "done", "failed", "ran", "reason"),
        (
            (
                each.job_id.rpartition(":")[2],
                each.state,
                f"{each.first}-{each.stop - 1}" if each.stop > each.first + 1 else str(each.first),
                f"{each.done:,} of {each.stop - each.first:,}",
                f"{each.failed:,}" if each.failed else "",
                "" if each.ran_s is None else duration(each.ran_s),
                each.reason,
            )
            for each in children[:JOBS_SHOWN]
        ),
    )
    if len(children) > JOBS_SHOWN:
        render.line(f"and {len(children) - JOBS_SHOWN:,} more; --json has them all")


def _show_nodes(nodes: Sequence[NodeRow]) -> None:
    render.heading("\nnodes")
    render.table(
        ("", "state", "end", "exit code", "host", "CPU", "memory at the peak", "reason"),
        (
            (
                f"{each.number}, main" if each.number == 0 else str(each.number),
                each.state,
                each.end,
                "" if each.exit_code is None else str(each.exit_code),
                each.host,
                "" if each.cpu_s is None else f"{each.cpu_s:.1f} s",
                memory(each.peak_memory_bytes / MIB) if each.peak_memory_bytes else "",
                each.reason,
            )
            for each in nodes[:JOBS_SHOWN]
        ),
    )
    if len(nodes) > JOBS_SHOWN:
        render.line(f"and {len(nodes) - JOBS_SHOWN:,} more; --json has them all")


def _show_cost(cost: Report) -> None:
    if not cost.lines:
        return
    from covalent_cirro.history.report.page import machine

    of_nodes = any(line.attempt.node for line in cost.lines)
    render.heading("\ncost")
    render.table(
        ("", "ran", "of it", "instance", "an hour", "cost", "price"),
        (
            (
                f"{line.attempt.number}" + (f", node {line.attempt.node}" if of_nodes else ""),
                duration(line.seconds) + ("" if line.attempt.ended_at else ", so far"),
                "?" if line.share is None else f"{line.share:.0%}",
                machine(line),
                usd(None if line.price is None else line.price.usd_per_hour),
                ("" if line.exact else "≈ ") + usd(line.usd),
                "" if line.price is None else f"{line.price.source}, {line.price.date}",
            )
            for line in cost.lines[:JOBS_SHOWN]
        ),
    )
    if len(cost.lines) > JOBS_SHOWN:
        render.line(f"and {len(cost.lines) - JOBS_SHOWN:,} more attempts; --json has them all")
    for note in cost.notes:
        render.line(note)


def _cost(cost: Report) -> str:
    total = cost.total
    if not cost.lines:
        return "nothing: no container of it has run"
    about = "" if total.exact and not cost.running else "≈ "
    parts = [f"{about}{usd(total.usd)}" if total.unknown < total.attempts else "not known"]
    parts[0] += ", so far: an estimate while it runs" if cost.running else ""
    if total.lost:
        parts.append(f"{usd(total.lost_usd)} of it for {total.lost} lost with the instance")
    if total.unknown and total.unknown < total.attempts:
        parts.append(f"{total.unknown} of {total.attempts} attempts without a price")
    return "; ".join(parts)


def _checkpoint(saved: SavedCheckpoint | None) -> str:
    if saved is None:
        return ""
    files = "1 file" if saved.files == 1 else f"{saved.files} files"
    return f"{moment(saved.saved_at)}, {files}, {memory(saved.stored_bytes / MIB)}: {saved.uri}"


def _facts(
    story: Story, points: Sequence[Point], saved: SavedCheckpoint | None, cost: Report
) -> Iterator[tuple[str, str]]:
    from covalent_cirro.contract import texts
    from covalent_cirro.jobs import arguments, image_modules, learning_curves

    rows: tuple[tuple[str, Any], ...] = (
        ("called with", arguments.line(story.arguments, arguments.WHOLE_CHARS)),
        ("state", _state(story)),
        ("jobs", story.jobs),
        ("items", story.items),
        ("nodes", story.node_states),
        ("why", story.why),
        ("not reused", story.not_reused),
        ("warning", image_modules.warning(story.missing_modules) if story.missing_modules and not story.end else ""),
        ("to do", story.advice),
        ("asked for", _asked(story)),
        ("raised", story.raised),
        ("environment", ", ".join(f"{name}={texts.cut(value, VALUE_CHARS)}" for name, value in story.environment)),
        ("secrets", ", ".join(f"{name} from {place}" for name, place in story.secrets)),
        ("used", _used(story.usage, story.vcpus, story.peak_node)),
        ("reported", learning_curves.line(points)),
        ("cost", _cost(cost)),
        ("checkpoint", _checkpoint(saved)),
        ("queue", story.queue),
        *story.extras.items(),
        ("image", story.image),
        ("job", story.job_id),
        ("definition", story.definition),
        ("call", story.call_uri),
        ("log", story.log_group and f"{story.log_group}: {_stream(story)}"),
        ("exit code", "" if story.exit_code is None else story.exit_code),
        ("container", story.python and f"Python {story.python}, cloudpickle {story.cloudpickle}"),
        ("other jobs", ", ".join(f"{job_id} {state}" for job_id, state in story.earlier_jobs)),
    )
    yield from ((name, str(value)) for name, value in rows if value not in ("", None))


def _state(story: Story) -> str:
    from covalent_cirro.jobs.states import CANCELLED

    end = "" if story.state == CANCELLED else story.end
    return story.state + (f" ({end.replace('_', ' ')})" if end else "")


def _stream(story: Story) -> str:
    return next((each.log_stream for each in reversed(story.attempts) if each.log_stream), "no stream yet")


def _asked(story: Story) -> str:
    from covalent_cirro.jobs.panel import ON_FARGATE

    parts = [
        "" if story.vcpus is None else f"{story.vcpus:g} vCPU",
        "" if story.memory_mib is None else memory(story.memory_mib),
        "on Fargate" if story.platform == ON_FARGATE else "",
        f"{story.gpus} GPU" if story.gpus else "",
        f"on each of {story.num_nodes:,} machines" if story.num_nodes else "",
        "" if story.time_limit_s is None else f"{elapsed(story.time_limit_s)} an attempt",
        "" if story.attempts_allowed is None else f"up to {story.attempts_allowed} attempts",
    ]
    return ", ".join(part for part in parts if part)


def _used(usage: Usage | None, vcpus: float | None, peak_node: int | None = None) -> str:
    if usage is None:
        return ""
    where = "" if peak_node is None else f", on node {peak_node}"
    parts = []
    if usage.wall_s > 0:
        share = f" of {vcpus:g}" if vcpus else ""
        parts.append(f"{usage.cpu_s / usage.wall_s:.2g}{share} vCPU on average ({usage.cpu_s:.1f} s of CPU)")
    if usage.peak_memory_bytes:
        limit = f" of {memory(usage.memory_limit_bytes / MIB)}" if usage.memory_limit_bytes else ""
        parts.append(f"{memory(usage.peak_memory_bytes / MIB)}{limit} at the peak{where}")
    parts += [_gpu(gpu) for gpu in usage.gpus]
    return ", ".join(parts)


def _gpu(gpu: dict[str, Any]) -> str:
    name = str(gpu.get("name") or "GPU")
    busy = gpu.get("utilization")
    peak, total = gpu.get("peak_memory_bytes"), gpu.get("memory_bytes")
    parts = [
        f"{busy:g} % busy" if isinstance(busy, (int, float)) else "",
        f"{memory(peak / MIB)} at the peak" if isinstance(peak, (int, float)) else "",
    ]
    of = f" of {memory(total / MIB)}" if isinstance(total, (int, float)) and isinstance(peak, (int, float)) else ""
    return f"{name} " + ", ".join(part for part in parts if part) + of
