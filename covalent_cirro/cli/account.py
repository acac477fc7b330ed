"""Which AWS and Covalent a command uses: the user's own, or the local stack that runs in this folder or above.

It says so before the command begins. `local.nearest` finds the local stack.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.errors import CirroError

Command = TypeVar("Command", bound=Callable[..., Any])

ENDPOINT = "AWS_ENDPOINT_URL"

NAMED = "covalent_cirro.named_by"
"""Key in a command's context of the options with which the user went past a local stack."""


def aws_option(command: Command) -> Command:
    """Add ``--aws``; without it, the command runs as in ``cirro local exec`` where a local stack is found.

    The command must have no options that name an account; else use `options.target_options`.
    """

    @AWS_OPTION
    @functools.wraps(command)
    def with_choice(aws: bool, **given: Any) -> Any:
        choose(["--aws"] if aws else [], unasked=bool(given.get("yes")))
        return command(**given)

    return with_choice  # type: ignore[return-value]


AWS_OPTION = click.option(
    "--aws", is_flag=True, help="Use your own AWS, also where a local stack runs in this folder or above."
)


def choose(named_by: list[str], *, unasked: bool = False) -> Path | None:
    """Let the running command use the nearest local stack, unless the user names an AWS, and say so on stderr.

    The environment is changed until the command ends. Nothing may have imported Covalent before, which reads its
    variables once.

    Args:
        named_by: Options that name the user's own AWS: ``["--profile"]``.
        unasked: The command is to delete, or to cause costs, without a question.

    Returns:
        The state folder of the local stack; `None` where the command uses what the environment names.

    Raises:
        UsageError: The local stack of this folder has ended, and the command would ask nothing before it acts on AWS.
        EmulatorError: The state of a local stack cannot be read.
    """
    from covalent_cirro.cli import render

    context = click.get_current_context()
    context.meta[NAMED] = named_by
    endpoint = os.environ.get(ENDPOINT)
    if endpoint and "--aws" in named_by:
        render.note(f"{ENDPOINT}={endpoint!r} is set: this uses the AWS at that address. Unset it for any other.")
    if named_by or endpoint:
        return None

    from covalent_cirro.aws import setting_sources
    from covalent_cirro.local import nearest

    found = nearest.find()
    if found.running is None:
        if unasked and found.ended is not None:
            raise click.UsageError(
                f"the local stack in {shown(found.ended)} does not run. Give --aws if this is to act on your own AWS "
                "without a question, or start the local stack with `cirro local up`. Nothing was changed."
            )
        if found.ended is not None:
            render.note(f"The local stack in {shown(found.ended)} does not run: this uses your own AWS.")
        return None
    instead = " and ".join(setting_sources.account_variables())
    render.note(
        f"This uses the local stack in {shown(found.running.state_dir)}"
        + (f", not {instead}" if instead else "")
        + "; --aws uses your own AWS."
    )
    context.with_resource(_environment(found.running.environment(os.environ)))
    return found.running.state_dir


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def in_words(clients: Clients, local_stack: Path | None, profile: str | None, *, known: str = "") -> str:
    """The account that a command acts on, as a question or a heading names it.

    Args:
        clients: Clients of the account.
        local_stack: State folder of the local stack that the command uses.
        profile: Profile that the command uses.
        known: Id of the account, if it is known; else STS is asked.
    """
    from covalent_cirro.jobs import console_links

    if local_stack is not None:
        return f"the local stack in {shown(local_stack)} (emulated, no costs)"
    endpoint, account = clients.endpoint_url, known or account_id(clients)
    if not console_links.is_aws(endpoint):
        return f"account {account} at {endpoint}"
    return f"AWS account {account}, {clients.region}" + (f", profile {profile!r}" if profile else "")


def account_id(clients: Clients) -> str:
    """Id of the account; ``"(unknown)"`` where STS does not say."""
    from covalent_cirro.errors import CirroError

    try:
        with clients.asking("sts:GetCallerIdentity") as sts:
            return str(sts.get_caller_identity()["Account"])
    except CirroError:
        return "(unknown)"


def shown(state_dir: Path) -> str:
    """The path of a state folder, shorter where it is in this folder."""
    return state_dir.name if state_dir.parent == Path.cwd() else str(state_dir)


# --- where credentials are missing ------------------------------------------------------------------------------------


def advice(error: CirroError, context: click.Context) -> str:
    """What an error about credentials leaves out: a local stack that the command could use. Empty for other errors."""
    from covalent_cirro.errors import NoCredentials, Unsigned

    if not isinstance(error, Unsigned | NoCredentials):
        return ""
    return advice_without_credentials(context, has_none=getattr(error, "code", "") == "NoCredentialsError")


def advice_without_credentials(context: click.Context, *, has_none: bool) -> str:
    """A local stack that the command could use instead of AWS, or how to start one; empty where that is no help.

    Args:
        context: Of the command, or of its group.
        has_none: No credentials were found, rather than wrong ones.
    """
    from covalent_cirro.aws import setting_sources
    from covalent_cirro.covalent_server import config
    from covalent_cirro.errors import CirroError
    from covalent_cirro.local import nearest

    named_by = context.meta.get(NAMED)
    if named_by is None or os.environ.get(ENDPOINT):
        return ""
    try:
        found = nearest.find()
        has_deployed = config.last_deploy() is not None
    except CirroError:
        return ""
    if found.running is not None:
        return (
            f"A local stack runs in {shown(found.running.state_dir)}: without {' and '.join(named_by)}, this command "
            "uses that."
        )
    if named_by or not has_none:
        return ""
    if found.ended is not None:
        return f"The local stack in {shown(found.ended)} does not run: `cirro local up --server` starts it again."
    if has_deployed or setting_sources.names_an_account():
        return ""
    return (
        "Without an AWS account: `cirro local up --server` runs an emulated AWS on this machine (install "
        "'covalent-cirro[emulator]' for it), which the commands in this folder then use."
    )
