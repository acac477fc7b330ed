"""Service-linked roles, which an account needs before its first compute environment: found, created, waited for.

They belong to the account and not to a deployment: a CloudFormation resource fails where the role exists already. AWS
Batch creates them too, but only with the first compute environment, which then fails: ECS does not know its role yet.
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
"""The roles, and their services (ECS Developer Guide, AWS Batch User Guide, EC2 User Guide: using
service-linked roles)."""

SETTLES_S = 15.0
"""Seconds for which services may not know a new role that IAM already shows. AWS gives no number (IAM User Guide,
Troubleshoot: changes that I make are not always immediately visible); ten seconds are usual."""

_THERE_ALREADY = ("has been taken in this account", "already exists")
"""IAM's messages about a role that exists already: a service-linked role, and any other."""


def missing(client: Client) -> tuple[str, ...]:
    """Names of the roles that the account lacks; a role that may not be read counts as lacking.

    Raises:
        AwsError: IAM could not be reached.
    """
    return tuple(name for name in SERVICES if not _is_there(client, name))


def make(client: Client, names: Iterable[str]) -> None:
    """Create missing roles. It is no error if one was created meanwhile.

    Raises:
        AccessDenied: The user or role may not create them; with the permission that it needs.
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
    """Wait until services can use new roles.

    Args:
        client: Makes boto3 clients.
        names: Names of the roles.
        made_at: Seconds on the clock of ``watch`` when they were created.
        watch: Waits for AWS.

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
