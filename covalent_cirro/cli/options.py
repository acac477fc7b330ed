"""Options that several commands share: the deployment, the credentials, and output as JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from covalent_cirro.cli import account

if TYPE_CHECKING:
    from covalent_cirro.aws.sessions import Access

Command = TypeVar("Command", bound=Callable[..., Any])


class Target(NamedTuple):
    """A deployment, and the access to its account.

    Attributes:
        access: Credentials and region; AWS's own chain chooses the endpoint (``AWS_ENDPOINT_URL``).
        stack_name: Name of the deployment: the names of its stacks are ``<stack_name>-network`` and so on.
        local_stack: State folder of the local stack that is used; `None` for what the environment or the user names.
    """

    access: Access
    stack_name: str
    local_stack: Path | None = None


def target_options(command: Command) -> Command:
    """Add ``--stack-name``, ``--region``, ``--profile`` and ``--aws``; the command gets them as ``target``.

    Without all but the first, and without an endpoint in the environment, the command uses a local stack that runs in
    this folder or above. An option that is not given has the value that the last ``cirro deploy`` recorded; without
    one, AWS's chain decides.
    """

    @click.option("--stack-name", metavar="NAME", help="Name of the deployment. Unset: the last one, or 'cirro'.")
    @click.option("--region", help="AWS region. Unset: that of the last deployment, or AWS's usual chain.")
    @click.option("--profile", help="AWS profile. Unset: that of the last deployment, or AWS's usual chain.")
    @account.AWS_OPTION
    @functools.wraps(command)
    def with_target(stack_name: str | None, region: str | None, profile: str | None, aws: bool, **given: Any) -> Any:
        named = {"--aws": aws, "--profile": profile, "--region": region}
        local_stack = account.choose(
            [option for option, value in named.items() if value], unasked=bool(given.get("yes"))
        )
        target = settle(stack_name, region, profile)
        return command(target=target._replace(local_stack=local_stack), **given)

    return with_target  # type: ignore[return-value]


def settle(stack_name: str | None, region: str | None, profile: str | None) -> Target:
    """The deployment. Recorded options of the last deployment are used only if it is the same deployment."""
    from covalent_cirro.aws.sessions import Access
    from covalent_cirro.covalent_server import config
    from covalent_cirro.deployment.plans import DEFAULT_NAME

    last = config.last_deploy()
    if last is not None and stack_name in (None, last.stack_name):
        stack_name = last.stack_name
        # Another profile may belong to another account, and have another region.
        region = region or (last.region if profile in (None, last.profile) else None)
        profile = profile or last.profile
    access = Access(profile=profile or None, credentials=None, region=region or None, endpoint_url=None)
    return Target(access, stack_name or DEFAULT_NAME)


def json_option(command: Command) -> Command:
    """Add ``--json``; the command gets it as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="For programs: one JSON document.")(command)
