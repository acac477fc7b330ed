"""``cirro deploy``: creates or updates a deployment, and records it in Covalent's config.

Shows what `deployment` plans, asks the user, and shows what it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import account, render
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.affected_jobs import CHOICES, END, REFUSE, WAIT, AffectedJobs
from covalent_cirro.jobs.formatting import duration

if TYPE_CHECKING:
    from covalent_cirro.covalent_server.config import Recorded
    from covalent_cirro.deployment import Deployed
    from covalent_cirro.deployment.change_sets import Change
    from covalent_cirro.deployment.plans import PartPlan, Plan
    from covalent_cirro.deployment.stack_events import StackEvent


@click.command()
@click.option(
    "--parameter",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="A parameter of the templates; may be repeated. Unset: the value of the last deployment, or the default.",
)
@click.option(
    "--running-jobs",
    type=click.Choice(CHOICES),
    help="What to do about jobs that run on instances which are replaced, or are in queues that are deleted. refuse: "
    "change nothing. wait: make the changes when no such job is left. end: the jobs may run for "
    "JobExecutionTimeoutMinutes (a parameter), then AWS Batch terminates them; those in the queues at once. Unset: "
    "ask; refuse where nobody can answer.",
)
@click.option("--yes", is_flag=True, help="Do not ask whether to make the changes.")
@target_options
@json_option
def deploy(target: Target, given: tuple[str, ...], running_jobs: str | None, yes: bool, as_json: bool) -> None:
    """Create or update everything that electrons need in an AWS account.

    Shows the changes, asks whether to make them, and shows their progress. Deploying again changes only what has to
    change, and goes on after a failure. The deployment's settings are written into Covalent's config, except for those
    that you set there yourself.

    \b
    cirro deploy --region eu-west-1
    cirro deploy --parameter GpuInstanceTypes=g5,g6 --parameter GpuSpotMaxVcpus=128
    """
    from covalent_cirro import deployment
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.covalent_server import config

    parameters = named_values(given)
    client = Clients(target.access)
    shown: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        where = account.in_words(client, target.local_stack, target.access.profile, known=plan.account)
        return ask(plan, where, again=len(shown) > 1, yes=yes, as_json=as_json)

    try:
        done = deployment.deploy(
            client("cloudformation"),
            target.stack_name,
            parameters,
            clients=client,
            confirm=confirm,
            on_running_jobs=lambda found: running_jobs or ask_about_jobs(found, as_json=as_json),
            on_event=None if as_json else show_event(target.stack_name),
            say=(lambda step: None) if as_json else render.line,
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    recorded = config.record(
        done.settings,
        stack_name=target.stack_name,
        region=str(client("cloudformation").meta.region_name),
        profile=target.access.profile or "",
        suggested={"time_limit": deployment.TIME_LIMIT_S},
    )
    if as_json:
        document = _document(done, recorded, shown, config.config_path())
        render.document({**document, "account": account.account_id(client)})
    else:
        _show(done, recorded, config.config_path())
    for problem in done.problems:
        render.failure(problem)
    if done.problems:
        sys.exit(1)


def ask(plan: Plan, where: str, *, again: bool, yes: bool, as_json: bool) -> bool:
    """Show a plan, and ask whether to execute it.

    Args:
        plan: The plan.
        where: The account in words.
        again: It is about changes that were not in the first plan.
        yes: Do not ask.
        as_json: Show nothing.

    Raises:
        UsageError: No user can answer.
    """
    if not as_json:
        _show_plan(plan, where, again)
    if yes:
        return True
    if as_json or not render.interactive():
        raise click.UsageError(
            "without a terminal nobody can be asked about these changes: give --yes. Nothing was changed."
        )
    return render.confirm(f"Make these changes in {where}?")


def ask_about_jobs(found: AffectedJobs, *, as_json: bool) -> str:
    """Ask what is to be done about running jobs; refuse where no user can answer."""
    if as_json or not render.interactive():
        return REFUSE
    render.alert(f"{found} {found.where}.")
    render.facts(
        [
            (REFUSE, "change nothing"),
            (WAIT, "change it when no job runs any more, those that start meanwhile included"),
            (END, f"change it now: {found.ended_how}"),
        ]
    )
    return render.choose("What about them?", CHOICES)


def show_event(name: str) -> Callable[[StackEvent], None]:
    """A function that shows events of a deployment's stacks."""

    def show(event: StackEvent) -> None:
        what = f"{event.logical_id} ({event.resource_type})"
        render.event(event.stack_name.removeprefix(f"{name}-"), event.status, what, event.reason)

    return show


def named_values(given: tuple[str, ...]) -> dict[str, str]:
    """Parameters that were given as ``NAME=VALUE``."""
    parameters = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE.", param_hint="--parameter")
        parameters[name] = value
    return parameters


# --- output -------------------------------------------------------------------------------------------------------


def _show_plan(plan: Plan, where: str, again: bool) -> None:
    render.line(
        f"More changes than were shown before, in the deployment {plan.name!r} of {where}:"
        if again
        else f"What will change in the deployment {plan.name!r} of {where}:"
    )
    for part in plan.parts:
        rows = list(change_rows(part))
        if rows:
            render.changes(f"{part.stack_name}: {action_words(part)}", rows)
    if plan.linked_roles:
        rows = [("+", name, "service-linked role", "shared by all of the account, stays") for name in plan.linked_roles]
        render.changes("the account, which lacks these:", rows)
    for words in plan.costs:
        render.line(words)
    for words in plan.warnings:
        render.alert(words)


def action_words(part: PartPlan) -> str:
    """What is done to a stack, in words."""
    if part.action == "later":
        return "what changes is known only when the stacks before it are made, and shown then"
    action = {
        "create": "is made",
        "recreate": "is made anew after a failed try",
        "update": "is changed",
        "remove": "is deleted",
    }[part.action]
    return f"{action} (read from its template)" if part.foreseen else action


def change_rows(part: PartPlan) -> Iterator[tuple[str, str, str, str]]:
    """The changes of a stack as `render.changes` shows them."""
    if part.action == "none":
        return
    for name, before, after in part.parameters:
        yield "=", name, "parameter", f"{_value(before)} -> {_value(after)}"
    for change in part.changes:
        yield _sign(change), change.logical_id, change.resource_type, _details(change)
    if not part.parameters and not part.changes:
        yield "~", part.stack_name, "stack", "no resource: its outputs or tags, or what is not known yet"


def _value(value: str | None) -> str:
    return "(none)" if value is None else value or '""'


def _sign(change: Change) -> str:
    if change.action == "Modify":
        return "-/+" if change.replacement == "True" else "~"
    return {"Add": "+", "Remove": "-"}.get(change.action, change.action)


def _details(change: Change) -> str:
    if change.action == "Add":
        return "perhaps" if change.replacement else ""
    if change.action != "Modify":
        return change.physical_id
    how = {"True": "replaced by a new one", "Conditional": "in place, or replaced if AWS has to"}.get(
        change.replacement, "in place"
    )
    return f"{how}: {', '.join(change.properties)}" if change.properties else how


def _show(done: Deployed, recorded: Recorded, path: Path) -> None:
    if done.changed:
        render.done(f"the deployment {done.name!r} is ready")
    else:
        render.done(f"nothing changed: the deployment {done.name!r} is as its templates and parameters say")
    render.facts(done.settings.items())
    if recorded.written:
        render.done(f"written into [executors.cirro] of {path}: {', '.join(recorded.written)}")
        if "time_limit" in recorded.written:
            time_limit = duration(float(recorded.written["time_limit"]))
            render.line(
                f"Electrons may run for {time_limit} from now on (time_limit). Set another time on an executor, or "
                "there: the option's default of 300 s ends most trainings."
            )
        render.line(
            "A Covalent server that runs takes these settings with the next electron: it need not be restarted, unless "
            "covalent-cirro was installed after it was started."
        )
    for name, value in recorded.kept.items():
        render.warning(
            f"{name} in {path} stays {value!r}, which you set; the deployment's is {done.settings.get(name)!r}. "
            "Take the line out and deploy again to use that."
        )
    if "batch_fargate_queue" in done.settings:
        from covalent_cirro.deployment import fargate_advice
        from covalent_cirro.jobs.image_rules import ARCHITECTURE

        architecture = done.settings.get("cpu_architecture") or ARCHITECTURE
        render.line(fargate_advice.words(architecture, done.settings["region"]))
    render.line(
        "Next: `cirro image push` puts the image of your electrons into its repository; `cirro doctor` checks it all."
    )


def _document(done: Deployed, recorded: Recorded, shown: list[Plan], path: Path) -> dict[str, Any]:
    return {
        "name": done.name,
        "changed": done.changed,
        "problems": list(done.problems),
        "outputs": done.outputs,
        "settings": done.settings,
        "linked_roles": [name for plan in shown for name in plan.linked_roles],
        "changes": [
            {"stack": part.stack_name, **change._asdict()}
            for plan in shown
            for part in plan.parts
            for change in part.changes
        ],
        "config": {
            "file": str(path),
            "written": recorded.written,
            "kept": recorded.kept,
        },
    }
