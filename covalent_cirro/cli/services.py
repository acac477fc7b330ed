"""Shows services: what changes and costs, what is deployed, and how it is. Used by ``cirro serve``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from covalent_cirro.cli import render
from covalent_cirro.cli.deploy import action_words, change_rows
from covalent_cirro.jobs.formatting import counted, duration, elapsed, usd

if TYPE_CHECKING:
    from covalent_cirro.serving.deploying import ServedService, ServicePlan
    from covalent_cirro.serving.running_service import RunningService
    from covalent_cirro.serving.service_costs import StandingCost

DIGEST = "@sha256:"
DIGEST_CHARS = 12
"""Characters of a digest that are shown."""


# --- a plan -----------------------------------------------------------------------------------------------------------


def show_plan(plan: ServicePlan, where: str, region: str, *, emulated: bool) -> None:
    """What changes, and what the service then costs."""
    render.line(f"What will change in the service {plan.service!r} of {where}:")
    render.changes(f"{plan.part.stack_name}: {action_words(plan.part)}", list(change_rows(plan.part)))
    _show_costs(plan, region, emulated=emulated)


def _show_costs(plan: ServicePlan, region: str, *, emulated: bool) -> None:
    from covalent_cirro.aws import serving_prices
    from covalent_cirro.serving import service_costs

    prices = serving_prices.shipped()
    parts = service_costs.lines(plan.size, plan.min_tasks, prices.usd)
    rows = [(part.what, part) for part in (*parts, service_costs.total(parts))]
    if plan.max_tasks > plan.min_tasks:
        most = service_costs.total(service_costs.lines(plan.size, plan.max_tasks, prices.usd))
        rows.append((f"in all while {plan.max_tasks} tasks run, the most", most))
    held = f"list prices of {prices.region} of {prices.date}" + (
        "" if region == prices.region else f", not of {region}"
    )
    would = "in AWS it would cost" if emulated else "it costs"
    render.line(f"While it runs, whether or not anybody asks it anything, {would} ({held}):")
    render.table(("", "a day", "a month"), (_cost_row(what, cost) for what, cost in rows))
    unit, log = prices.usd["load_balancer_capacity_unit"], prices.usd["log_ingestion"]
    render.line(
        f"Besides, by use: ${unit:.3f} an hour for each capacity unit of the load balancer (25 new connections a "
        f"second, 1 GB an hour), ${log:.2f} for each GB of logs, and what is sent to the internet."
    )


def _cost_row(what: str, cost: StandingCost) -> tuple[str, str, str]:
    return what, f"${cost.usd_per_day:,.2f}", f"${cost.usd_per_month:,.2f}"


# --- a service that is deployed ---------------------------------------------------------------------------------------


def show_served(served: ServedService) -> None:
    """Where the service answers, and a line to try."""
    url, path = served.outputs["Url"], served.parameters.get("HealthPath", "/")
    if served.changed:
        render.done(f"the service {served.name!r} is ready")
    else:
        render.done(f"nothing changed: the service {served.name!r} is as it was asked for")
    render.facts([("url", _public_url(served)), *_served_facts(served.parameters)])
    if served.domain and served.domain not in url:
        balancer = url.partition("//")[2]
        render.line(f"DNS has to point {served.domain} to it: a CNAME or an alias to {balancer}")
    least = int(served.parameters.get("MinTasks", "1"))
    if served.reached.healthy < least:
        render.warning(f"{served.reached.healthy} of {least} tasks are healthy yet: `cirro serve status {served.name}`")
    if served.reached.answered:
        render.line(f"It answers. Try it:\n  {curl(url, path, served.domain)}")
    elif served.reached.serves:
        render.warning(
            f"its tasks are healthy, but this machine gets no answer: {served.reached.last}. AllowFrom says who may "
            f"reach it. To try it from there:\n  {curl(url, path, served.domain)}"
        )
    else:
        render.failure(
            f"it does not serve yet: {served.reached.last}. `cirro serve status {served.name}` says how its tasks are, "
            f"`cirro serve logs {served.name}` what they print."
        )


def _public_url(served: ServedService) -> str:
    return f"https://{served.domain}" if served.domain else served.outputs["Url"]


def _served_facts(parameters: dict[str, str]) -> list[tuple[str, str]]:
    facts = [("image", short_image(parameters.get("Image", "")))]
    return [*facts, ("model", parameters["Model"])] if parameters.get("Model") else facts


def curl(url: str, path: str, domain: str) -> str:
    """A command that asks the service; also before DNS points the name of its certificate to it."""
    if not domain:
        return f"curl {url}{path}"
    balancer = url.partition("//")[2]
    target = balancer if ":" in balancer else f"{balancer}:443"  # the emulated one has a port of its own
    return f"curl --connect-to {domain}:443:{target} https://{domain}{path}"


def short_image(uri: str) -> str:
    """The URI of an image with a shorter digest."""
    name, mark, digest = uri.partition(DIGEST)
    return f"{name}{mark}{digest[:DIGEST_CHARS]}" if mark else uri


def served_document(served: ServedService, plans: Iterable[ServicePlan]) -> dict[str, Any]:
    """The document of ``deploy``, ``update`` and ``rollback`` for programs."""
    return {
        "name": served.name,
        "changed": served.changed,
        "url": _public_url(served),
        "load_balancer_url": served.outputs["Url"],
        "image": served.parameters.get("Image", ""),
        "model": served.parameters.get("Model", ""),
        "answered": served.reached.answered,
        "healthy_targets": served.reached.healthy,
        "last_answer": served.reached.last,
        "outputs": served.outputs,
        "changes": [change._asdict() for plan in plans for change in plan.part.changes],
    }


# --- the state of a service -------------------------------------------------------------------------------------------


def show_state(seen: RunningService, region: str, *, emulated: bool) -> None:
    """Tasks, targets, versions, requests, latency and cost of a service."""
    parameters = seen.stack.parameters
    targets = f"{seen.healthy} healthy of {len(seen.targets)}"
    others = {state: count for state, count in seen.target_counts.items() if state != "healthy"}
    rows = [
        ("stack", f"{seen.stack.name} {seen.stack.status}"),
        ("url", seen.url or "none yet"),
        *_served_facts(parameters),
        ("tasks", f"{seen.running} running of {seen.desired}" + (f", {seen.pending} pending" if seen.pending else "")),
        ("targets", targets + (f" ({counted(others)})" if others else "")),
        ("last change", seen.rollout or "?"),
        *_traffic_facts(seen),
        *([("cost", _cost_now(seen, region, emulated=emulated))] if seen.url else []),
    ]
    if parameters.get("PreviousImage"):
        before = [short_image(parameters["PreviousImage"]), parameters.get("PreviousModel", "")]
        rows.append(("before", f"{' '.join(each for each in before if each)} (`cirro serve rollback`)"))
    render.heading(f"service {seen.name!r} of deployment {parameters.get('DeploymentName', '?')!r} in {region}")
    render.facts(rows)
    if seen.tasks:
        render.table(("task", "zone", "state", "since", "serves"), (_task_row(each) for each in seen.tasks))
    for target in seen.targets:
        if target.reason and target.state != "healthy":
            render.line(f"target {target.address} is {target.state}: {target.reason}")
    if seen.last_message:
        render.line(f"ECS: {seen.last_message}")
    render.line("")


def _task_row(task: Any) -> tuple[str, ...]:
    since = "" if task.started_at is None else elapsed(time.time() - task.started_at)
    serves = task.model or short_image(task.image)
    return task.task_id[:8], task.zone, task.status, since, serves + ("" if task.is_new else " (ends)")


def _traffic_facts(seen: RunningService) -> list[tuple[str, str]]:
    traffic = seen.traffic
    if traffic is None:
        return [("requests", "? (cloudwatch:GetMetricData is not allowed)")] if seen.url else []
    share = f", {traffic.errors:,} answered with 5xx" if traffic.errors else ", none answered with 5xx"
    facts = [("requests", f"{traffic.requests:,} in the last hour" + (share if traffic.requests else ""))]
    if traffic.p50_s is not None and traffic.p99_s is not None:
        facts.append(
            ("latency", f"median {duration(traffic.p50_s)}, p99 {duration(traffic.p99_s)}, in the last 5 minutes")
        )
    return facts


def _cost_now(seen: RunningService, region: str, *, emulated: bool) -> str:
    from covalent_cirro.aws import serving_prices
    from covalent_cirro.serving import service_costs, service_values

    prices = serving_prices.shipped()
    zones = len(seen.stack.parameters.get("SubnetIds", "").split(","))  # each subnet is in a zone of its own
    size = service_values.size(seen.stack.parameters, zones)
    standing = service_costs.total(service_costs.lines(size, seen.running, prices.usd)).usd_per_day
    text = f"${standing:,.2f} a day with {seen.running} {'task' if seen.running == 1 else 'tasks'}"
    units = None if seen.traffic is None else seen.traffic.capacity_units
    if units:
        text += f", and {usd(units * 24 * prices.usd['load_balancer_capacity_unit'])} for requests as in the last hour"
    held = f"{prices.region}, {prices.date}" + ("" if region == prices.region else f"; not {region}")
    return f"{text} (list prices, {held})" + (", in AWS; here nothing" if emulated else "")


def state_document(seen: RunningService) -> dict[str, Any]:
    """The document of ``status`` for programs."""
    return {
        "name": seen.name,
        "stack": {"name": seen.stack.name, "status": seen.stack.status, "reason": seen.stack.reason},
        "url": seen.url,
        "image": seen.stack.parameters.get("Image", ""),
        "model": seen.stack.parameters.get("Model", ""),
        "desired": seen.desired,
        "running": seen.running,
        "pending": seen.pending,
        "rollout": seen.rollout,
        "tasks": [task._asdict() for task in seen.tasks],
        "targets": [target._asdict() for target in seen.targets],
        "traffic": None if seen.traffic is None else seen.traffic._asdict(),
    }
