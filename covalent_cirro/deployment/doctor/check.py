"""What a check of ``cirro doctor`` is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts
from covalent_cirro.jobs.findings import Finding

Findings = Iterable[Finding]


class Check(NamedTuple):
    """One check.

    Attributes:
        id: Id of the check, which never changes.
        look: Returns findings; may raise `Skip`, or a `CirroError` where AWS does not answer.
        needs: Ids of checks that must not fail; otherwise this check is skipped.
    """

    id: str
    look: Callable[[DeploymentFacts], Findings]
    needs: tuple[str, ...] = ("credentials",)


class Skip(Exception):
    """There is nothing to check; the message says what is missing."""
