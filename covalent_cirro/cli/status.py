"""``cirro status``: the state of a deployment. Shows what `deployment.doctor.overview` reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import Target, json_option, target_options

if TYPE_CHECKING:
    from covalent_cirro.aws.capacity import JobCount
    from covalent_cirro.deployment.doctor.overview import EnvironmentView, Overview, QueueView

NOT_DEPLOYED = 3
"""Exit code where nothing is deployed; ``cirro local status`` has the same one where nothing runs."""


@click.command(epilog=f"Exit codes: 0 it is deployed; {NOT_DEPLOYED} nothing is deployed under this name.")
@json_option
@target_options
def status(target: Target, as_json: bool) -> None:
    """Show stacks, queues and compute environments with their states, jobs and instances."""
    from covalent_cirro.deployment.doctor.overview import look

    seen = look(target.access, target.stack_name)
    if as_json:
        render.document(_document(seen))
    elif not seen.deployed:
        render.line(f"nothing is deployed as {seen.name!r} in {seen.region}; `cirro deploy` makes it")
    else:
        _show(seen)
    if not seen.deployed:
        sys.exit(NOT_DEPLOYED)


def _show(seen: Overview) -> None:
    from covalent_cirro.deployment.plans import stack_name

    render.line(f"deployment {seen.name!r} in {seen.region}\n")
    render.table(
        ("stack", "status", "last change", ""),
        (
            (
                (part, "not there", "", "")
                if stack is None
                else (stack.name, stack.status, stack.changed_at.replace("T", " "), stack.reason)
            )
            for part, stack in seen.stacks.items()
        ),
    )
    if seen.queues:
        render.line("")
        render.table(
            ("queue", "state", "jobs", ""),
            (
                (view.queue.name, f"{view.queue.state} {view.queue.status}", _jobs(view), _unhealthy(view.queue))
                for view in seen.queues
            ),
        )
    if seen.environments:
        render.line("")
        render.table(
            ("compute environment", "type", "state", "vCPUs", "instances", ""),
            (_environment_row(view, f"{stack_name(seen.name, 'compute')}-") for view in seen.environments),
        )


def _jobs(view: QueueView) -> str:
    counted = [f"{count} {state}" for state, count in view.jobs.items() if count is not None and count.number]
    hidden = ["? (batch:ListJobs is not allowed)"] if None in view.jobs.values() else []
    return ", ".join([*counted, *hidden]) or "none"


def _environment_row(view: EnvironmentView, prefix: str) -> tuple[str, ...]:
    each = view.environment
    return (
        each.name.removeprefix(prefix),
        each.kind or "unmanaged",
        f"{each.state} {each.status}",
        f"{each.vcpus} of {each.max_vcpus}",
        "?" if view.instances is None else str(view.instances),
        _unhealthy(each),
    )


def _unhealthy(each: Any) -> str:
    """AWS's reason for a state other than ENABLED and VALID; else nothing."""
    return "" if (each.state, each.status) == ("ENABLED", "VALID") else str(each.reason)


def _document(seen: Overview) -> dict[str, Any]:
    return {
        "deployed": seen.deployed,
        "name": seen.name,
        "region": seen.region,
        "stacks": {
            part: stack
            and {"name": stack.name, "status": stack.status, "reason": stack.reason, "changed_at": stack.changed_at}
            for part, stack in seen.stacks.items()
        },
        "queues": [
            {**view.queue._asdict(), "jobs": {state: _count(count) for state, count in view.jobs.items()}}
            for view in seen.queues
        ],
        "compute_environments": [
            {**view.environment._asdict(), "instances": view.instances} for view in seen.environments
        ],
    }


def _count(count: JobCount | None) -> dict[str, Any] | None:
    return None if count is None else count._asdict()
