"""Checks of an account, a deployment and a Covalent server, for ``cirro doctor`` and ``cirro status``.

`checks` lists the checks, `deployment_facts` asks for each fact once, `verdicts` decides, and `examine` runs the checks
in parallel. This package must not know the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from covalent_cirro.aws.sessions import Access
from covalent_cirro.deployment.doctor.check import Check, Skip
from covalent_cirro.deployment.doctor.checks import CHECKS
from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts, RequestedResources
from covalent_cirro.errors import AccessDenied, AwsError, CirroError
from covalent_cirro.jobs.findings import FAILURE, SKIPPED, WARNING, Finding

__all__ = ["Finding", "RequestedResources", "examine"]

THREADS = 12
"""Checks at the same time. Nearly all their time is waiting for AWS, or for checks that began before them."""

_IAM_ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
}
"""Calls whose permission has another name (Service Authorization Reference, Amazon S3)."""


def examine(
    access: Access,
    stack_name: str,
    asked: RequestedResources | None = None,
    *,
    checks: Sequence[Check] = CHECKS,
) -> list[Finding]:
    """Check a deployment, its account, and the Covalent server that uses it.

    Changes nothing, except that one object is written into the bucket and deleted. Takes seconds.

    Args:
        access: Credentials and region.
        stack_name: Name of the deployment.
        asked: What an electron will ask for; the executor's settings fill in what is `None`.
        checks: The checks.

    Returns:
        The findings, in the order of the checks.
    """
    facts = DeploymentFacts(access, stack_name, asked or RequestedResources())
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
        return [_finding_of_error(check.id, error)]


def _finding_of_error(id: str, error: CirroError) -> Finding:
    """The finding of a check to which AWS refused an answer."""
    if isinstance(error, AccessDenied):
        action = _IAM_ACTIONS.get(error.operation, error.operation)
        return Finding(
            id, "", WARNING, f"not looked at: these credentials may not call {action}", f"Allow {action} to see it."
        )
    if isinstance(error, AwsError) and error.retryable:
        return Finding(id, "", WARNING, f"not looked at: {error}", "Try again.")
    return Finding(id, "", FAILURE, str(error))
