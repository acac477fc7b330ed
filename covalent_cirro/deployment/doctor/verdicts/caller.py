"""Findings about the caller and the account: credentials, region, clock, cost tag. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.formatting import minutes
from covalent_cirro.settings import SECTION

CLOCK_WARNING_S, CLOCK_FAILURE_S = 60, 300
"""AWS refuses a signature that is more than five minutes off (IAM User Guide, Signature Version 4)."""

EXPIRY_WARNING_S = 3600
"""A dispatch of an hour is nothing unusual, and credentials of a login do not renew themselves."""


class Caller(NamedTuple):
    """Who AWS takes us for.

    Attributes:
        account: 12 digits.
        arn: Of the user or role.
        method: Where the credentials came from, in botocore's words: ``"sso"``, ``"env"``.
        expires_in_s: Seconds until they expire; `None` where that is not known, or they do not.
        clock_ahead_s: How much later it is here than at AWS.
    """

    account: str
    arn: str
    method: str
    expires_in_s: float | None
    clock_ahead_s: float | None


_NOT_RENEWED = frozenset({"sso", "env", "custom-process", "login"})
"""Credentials that somebody has to renew; those of an instance or a container renew themselves."""


def credentials(identity: Caller, where: Where) -> Finding:
    """Whose they are, and for how long."""
    seen = f"account {identity.account}, {identity.arn}, from {identity.method}"
    if identity.expires_in_s is not None:
        seen += f", for another {minutes(identity.expires_in_s)}"
        if identity.expires_in_s < EXPIRY_WARNING_S and identity.method in _NOT_RENEWED:
            how = "aws sso login" + (f" --profile {where.profile}" if where.profile else "")
            return Finding(
                "credentials", "", WARNING, seen, f"Renew them before a long dispatch: `{how}`, or as you got them."
            )
    if identity.arn.endswith(":root"):
        return Finding(
            "credentials",
            "",
            WARNING,
            f"{seen}: the account's root user, which no policy can limit",
            "Make an IAM user or an SSO user for this, and use its profile: --profile.",
        )
    return Finding("credentials", "", OK, seen)


def clock(ahead_s: float | None) -> Finding:
    """This machine's clock beside AWS's."""
    if ahead_s is None:
        return Finding("clock", "", WARNING, "AWS's answer told no time", "Check that this machine's clock is right.")
    off_s = abs(ahead_s)
    seen = f"{off_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} AWS's"
    remedy = "Set this machine's clock (NTP): AWS refuses what is signed more than five minutes off."
    if off_s >= CLOCK_FAILURE_S:
        return Finding("clock", "", FAILURE, seen, remedy)
    if off_s >= CLOCK_WARNING_S:
        return Finding("clock", "", WARNING, seen, remedy)
    return Finding("clock", "", OK, "agrees with AWS's" if off_s < 2 else seen)  # the header has whole seconds


def region(settings_region: str, stack_region: str) -> Finding:
    """Whether the executor goes where the deployment is."""
    if settings_region != stack_region:
        return Finding(
            "region",
            "",
            FAILURE,
            f"the executor uses {settings_region}, the deployment looked at is in {stack_region}",
            f"Set region = {json.dumps(stack_region)} in [{SECTION}], or look at the other with --region.",
        )
    return Finding("region", "", OK, stack_region)


def cost_tag(tag: str, status: str | None, where: Where) -> Finding:
    """Whether the tag that the budget sums up is one for cost allocation."""
    if status == "Active":
        return Finding("cost_tag", tag, OK, "active: the budget counts what carries it")
    seen = "AWS does not know it yet (it appears up to a day after the first deployment)" if status is None else status
    command = f"aws ce update-cost-allocation-tags-status --cost-allocation-tags-status TagKey={tag},Status=Active"
    profile = f" --profile {where.profile}" if where.profile else ""
    return Finding(
        "cost_tag",
        tag,
        WARNING,
        f"not active for cost allocation ({seen}): the budget counts nothing and its alarm stays silent",
        f"`{command}{profile}`, in the account that pays.",
    )
