"""``cirro doctor``: everything that could go wrong, looked at before it costs.

`checks` says what is looked at, `facts` asks each thing once, `health` decides, and here it is done in parallel. Knows
neither the terminal nor how findings are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from covalent_cirro.aws.sessions import Access
from covalent_cirro.deployment.doctor.checks import CHECKS, Check, Skip
from covalent_cirro.deployment.doctor.deployment_facts import Asked, DeploymentFacts
from covalent_cirro.errors import AccessDenied, AwsError, CirroError
from covalent_cirro.jobs.findings import FAILURE, SKIPPED, WARNING, Finding

__all__ = ["Asked", "Finding", "examine"]

THREADS = 12
"""Checks at a time. They wait for AWS nearly all of the time, and each waits only for checks that began before it."""

_IAM_ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
}
"""Permissions whose name is not that of the call (Service Authorization Reference, Amazon S3)."""


def examine(
    access: Access,
    stack_name: str,
    asked: Asked | None = None,
    *,
    checks: Sequence[Check] = CHECKS,
) -> list[Finding]:
    """Look at a deployment, the account that it is in, and the Covalent server that uses it.

    Reads only, but for one object that is written into the bucket and deleted. Takes seconds.

    Args:
        access: Credentials and region.
        stack_name: Name of the deployment.
        asked: What one electron will ask for; what is `None` in it is as the executor's settings have it.
        checks: What to look at.

    Returns:
        What was found, in the order of the checks.
    """
    facts = DeploymentFacts(access, stack_name, asked or Asked())
    with ThreadPoolExecutor(THREADS, thread_name_prefix="doctor") as pool:
        results: dict[str, Future[list[Finding]]] = {}
        for check in checks:
            results[check.id] = pool.submit(_carry_out, check, facts, [results[need] for need in check.needs])
        return [finding for result in results.values() for finding in result.result()]


def _carry_out(check: Check, facts: DeploymentFacts, needs: Sequence[Future[list[Finding]]]) -> list[Finding]:
    for need in needs:
        broken = next((each for each in need.result() if each.level in (FAILURE, SKIPPED)), None)
        if broken is not None:
            return [Finding(check.id, "", SKIPPED, f"not looked at: {broken.id} has to be right first")]
    try:
        return list(check.look(facts))
    except Skip as skip:
        return [Finding(check.id, "", SKIPPED, f"not looked at: {skip}")]
    except CirroError as error:
        return [_untold(check.id, error)]


def _untold(id: str, error: CirroError) -> Finding:
    """What it means that AWS did not answer a question."""
    if isinstance(error, AccessDenied):
        action = _IAM_ACTIONS.get(error.operation, error.operation)
        return Finding(
            id, "", WARNING, f"not looked at: these credentials may not call {action}", f"Allow {action} to see it."
        )
    if isinstance(error, AwsError) and error.retryable:
        return Finding(id, "", WARNING, f"not looked at: {error}", "Try again.")
    return Finding(id, "", FAILURE, str(error))
