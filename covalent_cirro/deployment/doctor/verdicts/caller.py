"""Findings about the caller and the account: credentials, region, clock, cost tag. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.formatting import minutes
from covalent_cirro.settings import SECTION

CLOCK_WARNING_S, CLOCK_FAILURE_S = 60, 300
"""Seconds of deviation. AWS refuses a signature that is more than five minutes off (IAM User Guide, SigV4)."""

EXPIRY_WARNING_S = 3600
"""Seconds before the expiry: a dispatch may take an hour, and credentials of a login are not renewed by themselves."""


class Caller(NamedTuple):
    """The caller, as AWS knows it.

    Attributes:
        account: Account id, 12 digits.
        arn: ARN of the user or role.
        method: Source of the credentials in botocore's words: ``"sso"``, ``"env"``.
        expires_in_s: Seconds until the credentials expire; `None` if they do not, or if that is not known.
        clock_ahead_s: Seconds by which this machine's clock is ahead of AWS's; `None` if unknown.
    """

    account: str
    arn: str
    method: str
    expires_in_s: float | None
    clock_ahead_s: float | None


_NOT_RENEWED = frozenset({"sso", "env", "custom-process", "login"})
"""Sources whose credentials the user has to renew; those of instances and containers are renewed by botocore."""


def credentials(identity: Caller, where: Where) -> Finding:
    """Who the caller is, and when the credentials expire."""
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
    """Whether this machine's clock agrees with AWS's."""
    if ahead_s is None:
        return Finding("clock", "", WARNING, "AWS's answer has no time", "Check that this machine's clock is right.")
    off_s = abs(ahead_s)
    seen = f"{off_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} AWS's"
    remedy = "Set this machine's clock (NTP): AWS refuses what is signed more than five minutes off."
    if off_s >= CLOCK_FAILURE_S:
        return Finding("clock", "", FAILURE, seen, remedy)
    if off_s >= CLOCK_WARNING_S:
        return Finding("clock", "", WARNING, seen, remedy)
    return Finding("clock", "", OK, "agrees with AWS's" if off_s < 2 else seen)  # the header has whole seconds


def region(settings_region: str, stack_region: str) -> Finding:
    """Whether the executor uses the region of the deployment."""
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
    """Whether the tag by which the budget selects costs is active for cost allocation."""
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
