"""Findings about the secrets that the config names for electrons. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where


class LookedUpSecret(NamedTuple):
    """What is known of a secret. Nobody has read its value.

    Attributes:
        variable: Name of the variable that electrons have.
        arn: Its ARN.
        region: Region in which it is.
        absent: AWS's words where it is not there; empty where it is.
        unknown: AWS's words where it could not be looked up.
        denied: What the execution role may not do with it: actions with IAM's decisions; `None` where IAM could not
            be asked.
    """

    variable: str
    arn: str
    region: str
    absent: str = ""
    unknown: str = ""
    denied: Sequence[str] | None = ()


def secret(found: LookedUpSecret, role: str, where: Where) -> Finding:
    """Whether electrons can have a secret.

    Args:
        found: The secret.
        role: The execution role.
        where: The deployment.
    """
    subject = f"{found.variable} from {found.arn}"
    if found.absent:
        remedy = (
            "Make it, or correct `secrets` in the config: a secret is named by its whole ARN, a parameter by its name."
        )
        return Finding(
            "secrets", subject, FAILURE, f"there is no such secret in {found.region}: {found.absent}", remedy
        )
    if found.denied:
        seen = f"the execution role {role} may not read it: {', '.join(found.denied)}"
        remedy = (
            f"`{where.cirro('deploy')} --parameter SecretArns=...`, with the ARNs of all secrets that jobs may have."
        )
        return Finding("secrets", subject, FAILURE, seen, remedy)
    unknown = [found.unknown] if found.unknown else []
    unknown += ["IAM did not say whether the execution role may read it"] if found.denied is None else []
    if unknown:
        remedy = "Have somebody look who may; an electron's error tells it, too."
        return Finding("secrets", subject, WARNING, "; ".join(unknown), remedy)
    if found.region != where.region:
        seen = f"it is in {found.region}, and jobs run in {where.region}: each container reads it from there"
        remedy = f"Replicate it to {where.region}, and name it there; private subnets do not reach the other region."
        return Finding("secrets", subject, WARNING, seen, remedy)
    return Finding("secrets", subject, OK, f"it is there, and the execution role {role} may read it")
