"""``cirro doctor``: checks account, deployment and Covalent server. Shows the findings of `deployment.doctor`."""

from __future__ import annotations

import sys
from typing import Any

import click

from covalent_cirro.cli import account, render
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.jobs.findings import FAILURE, LEVELS
from covalent_cirro.jobs.formatting import counted


@click.command(epilog="Exit codes: 0 no failure, but there may be warnings; 1 at least one failure.")
@click.option(
    "--vcpu", type=click.IntRange(min=1), help="vCPUs that an electron will ask for. Unset: as in the config."
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    help="Memory in GB that it will ask for. Unset: as in the config.",
)
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs that it will ask for. Unset: as in the config.")
@json_option
@target_options
def doctor(target: Target, vcpu: int | None, memory: float | None, gpus: int | None, as_json: bool) -> None:
    """Check whether an electron would run: account, deployment, image, Covalent server; and the services.

    Changes nothing, except that one object is written into the bucket and deleted.
    """
    from covalent_cirro.deployment.doctor import RequestedResources, examine
    from covalent_cirro.deployment.doctor.checks import CHECKS
    from covalent_cirro.serving import service_checks

    asked = RequestedResources(vcpu=vcpu, memory=memory, num_gpus=gpus)
    with render.steps(quiet=as_json) as say:
        say(f"looking at deployment {target.stack_name!r}")
        checks = (*CHECKS, *service_checks.CHECKS)
        findings = examine(target.access, target.stack_name, asked, checks=checks)
    if as_json:
        render.document({"findings": [finding._asdict() for finding in findings], "counts": _counts(findings)})
    else:
        render.findings(findings)
        counts = {level: count for level, count in _counts(findings).items() if count}
        render.line(f"\n{counted(counts)}")
        if any(finding.id == "credentials" and finding.level == FAILURE for finding in findings):
            advice = account.advice_without_credentials(click.get_current_context(), has_none=True)
            render.line(advice) if advice else None
    if any(finding.level == FAILURE for finding in findings):
        sys.exit(1)


def _counts(findings: list[Any]) -> dict[str, int]:
    return {level: sum(finding.level == level for finding in findings) for level in LEVELS}
