"""``cirro serve``: services in an account, each an ECS service behind a load balancer. Shows what `serving` does."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from covalent_cirro.cli import account, render, services
from covalent_cirro.cli.deploy import named_values, show_event
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import Declined, SettingsError

if TYPE_CHECKING:
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.serving.deploying import Choice, ServedService, ServicePlan

Command = TypeVar("Command", bound=Callable[..., Any])

NOTHING_SERVED = 3
"""Exit code of ``status`` where the deployment has no service; ``cirro status`` has the same one."""

_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_NAME = click.argument("name", required=False)


def _what_is_served(command: Command) -> Command:
    """Add the options that say what is served."""
    for option in (
        click.option(
            "--model",
            metavar="NAME[@VERSION]",
            help="A registered model (`cirro models`). Without @VERSION its current version, which is then kept.",
        ),
        click.option(
            "--image", metavar="IMAGE", help="URI of an image in ECR. Its tag is looked up once: tasks run its digest."
        ),
    ):
        command = option(command)
    return command


@click.group()
def serve() -> None:
    """Serve a model: containers behind a load balancer, in a deployment's network."""


@serve.command()
@_NAME
@_what_is_served
@click.option("--command", metavar="WORDS", help="Command of the container. Unset: the image's own.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port that the container listens on. Unset: 8000.")
@click.option(
    "--health",
    metavar="PATH",
    help="Path that answers 200 once a task can serve. Unset: /ready for a model, /health for an image.",
)
@click.option("--certificate", metavar="ARN", help="Certificate of ACM in this region, for HTTPS.")
@click.option(
    "--allow-from",
    metavar="CIDR",
    multiple=True,
    help="Addresses that may reach it, 203.0.113.0/24; may be repeated. Needed without a certificate.",
)
@click.option(
    "--parameter",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="Another parameter of serving.yaml (infra/README.md), MinTasks=3; may be repeated.",
)
@_YES
@target_options
@json_option
def deploy(
    target: Target,
    name: str | None,
    model: str | None,
    image: str | None,
    command: str | None,
    port: int | None,
    health: str | None,
    certificate: str | None,
    allow_from: tuple[str, ...],
    given: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Make a service, or bring it up to date, and wait until its load balancer answers.

    Checks network, image, model and certificate, shows the changes and what they cost, and asks. What is not given
    keeps its value, or gets a default. NAME is that of the model where it is not given. Deploying again changes only
    what has to change, and goes on after a failure.

    \b
    cirro serve deploy --model recommender --allow-from 203.0.113.7/32
    cirro serve deploy shop --image 123456789012.dkr.ecr.us-east-1.amazonaws.com/shop:v3 --port 8080 --health /ping \\
        --certificate arn:aws:acm:us-east-1:123456789012:certificate/...
    """
    from covalent_cirro.serving import service_values
    from covalent_cirro.serving.deploying import DEPLOY, Choice

    parameters = named_values(given)
    if command is not None:
        parameters["Command"] = _command(command)
    options = {"Port": port, "HealthPath": health, "CertificateArn": certificate}
    parameters |= {key: str(value) for key, value in options.items() if value is not None}
    if allow_from:
        parameters["AllowFrom"] = ",".join(allow_from)
    if name is None and model is not None:
        name = service_values.name_for_model(model.partition("@")[0])
    if name is None:
        raise click.UsageError("give the service a NAME, or --model, whose name it then has.")
    _carry_out(target, name, Choice(image, model, parameters), DEPLOY, yes=yes, as_json=as_json)


@serve.command()
@_NAME
@_what_is_served
@_YES
@target_options
@json_option
def update(target: Target, name: str | None, model: str | None, image: str | None, yes: bool, as_json: bool) -> None:
    """Serve another model or image: new tasks start, old ones end once the new ones are healthy.

    Without --model and --image: the current version of the model that is served. No request is lost. If the new tasks
    do not become healthy, the service goes back to the old ones by itself, and the command says why. NAME may be left
    out where the deployment has one service.
    """
    from covalent_cirro.serving.deploying import UPDATE, Choice

    _carry_out(target, name, Choice(image, model), UPDATE, yes=yes, as_json=as_json)


@serve.command()
@_NAME
@_YES
@target_options
@json_option
def rollback(target: Target, name: str | None, yes: bool, as_json: bool) -> None:
    """Serve the model and image again that were served before the last change.

    It is a rolling update like any other; a second rollback goes forward again. NAME may be left out where the
    deployment has one service.
    """
    from covalent_cirro.serving.deploying import ROLLBACK, Choice

    _carry_out(target, name, Choice(), ROLLBACK, yes=yes, as_json=as_json)


@serve.command(epilog=f"Exit codes: 0 there is a service; {NOTHING_SERVED} there is none.")
@_NAME
@json_option
@target_options
def status(target: Target, name: str | None, as_json: bool) -> None:
    """Show tasks, targets, versions, requests, latency and cost of a service; without NAME of all services."""
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.serving import running_service, service_facts

    clients = Clients(target.access)
    if name is None:
        found = running_service.find_all(clients, target.stack_name)
    else:
        found = dict([running_service.choose(clients, target.stack_name, name)])
    seen = [running_service.look(clients, each, stack) for each, stack in found.items()]
    emulated = service_facts.is_emulated(clients)
    if as_json:
        render.document([services.state_document(each) for each in seen])
    elif not seen:
        render.line(f"the deployment {target.stack_name!r} has no service; `cirro serve deploy` makes one")
    for each in [] if as_json else seen:
        services.show_state(each, clients.region, emulated=emulated)
    if not seen:
        sys.exit(NOTHING_SERVED)


@serve.command()
@_NAME
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--since",
    "minutes",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Minutes of the past to begin with.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object in each line: task, at_ms and text.")
@target_options
def logs(target: Target, name: str | None, follow: bool, minutes: int, as_json: bool) -> None:
    """Show what the tasks of a service printed, each line with the beginning of its task's id."""
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.errors import ServingError
    from covalent_cirro.serving import running_service, task_logs

    clients = Clients(target.access)
    name, stack = running_service.choose(clients, target.stack_name, name)
    group = stack.outputs.get("LogGroup", "")
    if not group:
        raise ServingError(f"the service {name!r} has no log group: its stack is {stack.status}.")
    since_ms = int((time.time() - 60 * minutes) * 1000)
    printed = False
    with contextlib.suppress(KeyboardInterrupt):
        for each in (task_logs.follow if follow else task_logs.read)(clients, group, since_ms):
            printed = True
            if as_json:
                render.document_line(each._asdict())
            else:
                render.raw(f"{each.task[:8]} {each.text}\n")
    render.end_raw()
    if not printed and not as_json:
        render.note(f"nothing was printed in the last {minutes} minutes")


@serve.command(epilog="Exit codes: 0 nothing is left; 1 something is left, which is listed, or it failed.")
@_NAME
@_YES
@target_options
@json_option
def destroy(target: Target, name: str | None, yes: bool, as_json: bool) -> None:
    """Delete a service: its tasks, its load balancer and its logs. Models and images stay with the deployment.

    NAME may be left out where the deployment has one service. After a failure, the next call goes on.
    """
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.serving import removing, running_service

    clients = Clients(target.access)
    name, stack = running_service.choose(clients, target.stack_name, name)
    where = account.in_words(clients, target.local_stack, target.access.profile)
    if not as_json:
        url = stack.outputs.get("Url", "nowhere yet")
        render.line(f"What will be deleted: the service {name!r} ({stack.name}), which answers at {url}, and its logs.")
    if not yes:
        _require_terminal(as_json, "Nothing was deleted.")
        if not render.confirm(f"Delete it from {where}?"):
            raise Declined("nothing was deleted: you said no.")
    with render.steps(quiet=as_json) as say:
        on_event = None if as_json else show_event(target.stack_name)
        left = removing.remove(clients, target.stack_name, stack, say=say, on_event=on_event)
    if as_json:
        render.document({"name": name, "stack": stack.name, "left": list(left)})
    elif left:
        render.failure(
            f"of the service {name!r} this is left:\n" + "\n".join(f"  {each}" for each in left) + "\nDelete it."
        )
    else:
        render.done(f"nothing of the service {name!r} is left in {where}")
    if left:
        sys.exit(1)


# --- what deploy, update and rollback do alike ------------------------------------------------------------------------


def _carry_out(target: Target, name: str | None, choice: Choice, what: str, *, yes: bool, as_json: bool) -> None:
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.serving import deploying, running_service, service_facts

    clients = Clients(target.access)
    if name is None:
        name, _ = running_service.choose(clients, target.stack_name, None)
    where = account.in_words(clients, target.local_stack, target.access.profile)
    emulated = service_facts.is_emulated(clients)
    plans: list[ServicePlan] = []

    def confirm(plan: ServicePlan) -> bool:
        plans.append(plan)
        if not as_json:
            services.show_plan(plan, where, clients.region, emulated=emulated)
        if yes:
            return True
        _require_terminal(as_json, "Nothing was changed.")
        return render.confirm(f"Make these changes in {where}?")

    shown = deploying.Shown(
        confirm=confirm,
        on_event=None if as_json else show_event(target.stack_name),
        on_message=None if as_json else _show_message,
        say=(lambda step: None) if as_json else render.line,
    )
    try:
        served = deploying.carry_out(clients, target.stack_name, name, choice, what, shown=shown)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    _show_served(served, plans, clients, as_json=as_json)


def _show_served(served: ServedService, plans: list[ServicePlan], clients: Clients, *, as_json: bool) -> None:
    if as_json:
        render.document({**services.served_document(served, plans), "account": account.account_id(clients)})
    else:
        services.show_served(served)
    if not served.reached.serves:
        sys.exit(1)


def _show_message(message: str) -> None:
    render.event("ECS", "", message, "")


def _require_terminal(as_json: bool, nothing: str) -> None:
    if as_json or not render.interactive():
        raise click.UsageError(f"without a terminal nobody can be asked: give --yes. {nothing}")


def _command(words: str) -> str:
    split = shlex.split(words)
    if any("," in word for word in split):
        raise click.BadParameter(
            "CloudFormation separates the words by commas, so that none can have one: put the command into a file of "
            "the image.",
            param_hint="--command",
        )
    return ",".join(split)
