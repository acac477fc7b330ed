"""Service-linked roles that an account needs once, before its first compute environment: looked for, made, waited for.

They are of the account and not of a deployment: a CloudFormation resource of one fails where it is there already. AWS
Batch makes them too, but only while it makes the first compute environment, which then fails: ECS does not see its yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.deployment.holdings import Client, translated
from covalent_cirro.deployment.stack_events import Watch
from covalent_cirro.errors import AccessDenied, AwsError, NotFound

SERVICES = {
    "AWSServiceRoleForECS": "ecs.amazonaws.com",
    "AWSServiceRoleForBatch": "batch.amazonaws.com",
    "AWSServiceRoleForEC2Spot": "spot.amazonaws.com",
}
"""The roles, and the services that they are of (ECS Developer Guide, AWS Batch User Guide, EC2 User Guide: using
service-linked roles)."""

SETTLES_S = 15.0
"""So long a new role may be unknown to services, after IAM has shown it. AWS gives no number (IAM User Guide,
Troubleshoot: changes that I make are not always immediately visible); ten seconds are usual."""

_THERE_ALREADY = ("has been taken in this account", "already exists")
"""How IAM says that a role is there: of a service-linked role, and of any other."""


def missing(client: Client) -> tuple[str, ...]:
    """Names of those that the account lacks; one that may not be looked at counts as lacking.

    Raises:
        AwsError: IAM could not be reached.
    """
    return tuple(name for name in SERVICES if not _is_there(client, name))


def make(client: Client, names: Iterable[str]) -> None:
    """Make those that are missing. One that came to be there meanwhile is no error.

    Raises:
        AccessDenied: The user or role may not: what it needs.
        AwsError: IAM refused or could not be reached.
    """
    iam = client("iam")
    for name in names:
        try:
            with translated(iam, "iam:CreateServiceLinkedRole", name):
                iam.create_service_linked_role(AWSServiceName=SERVICES[name])
        except AccessDenied as error:
            raise AccessDenied(
                f"{error} Who deploys first in an account needs iam:CreateServiceLinkedRole for "
                f"{', '.join(SERVICES.values())}. Nothing was made yet.",
                operation=error.operation,
                code=error.code,
            ) from error
        except AwsError as error:
            if not any(words in str(error) for words in _THERE_ALREADY):
                raise


def wait(client: Client, names: Iterable[str], made_at: float, watch: Watch) -> None:
    """Wait until services can use the roles that were made.

    Args:
        client: Makes boto3 clients.
        names: The roles.
        made_at: When they were made, on the clock of ``watch``.
        watch: Waits.

    Raises:
        StackError: The time is over.
        AwsError: IAM could not be reached.
    """
    for name in names:
        while not _is_there(client, name, unless_denied=True):
            watch.pause(f"IAM does not show the role {name} that was made")
    left_s = made_at + SETTLES_S - watch.now()
    if left_s > 0:
        watch.rest(left_s)


def _is_there(client: Client, name: str, *, unless_denied: bool = False) -> bool:
    iam = client("iam")
    try:
        with translated(iam, "iam:GetRole", name):
            iam.get_role(RoleName=name)
    except AccessDenied:
        return unless_denied
    except NotFound:
        return False
    return True
