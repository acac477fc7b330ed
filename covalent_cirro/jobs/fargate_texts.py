"""What users read of jobs on AWS Fargate. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covalent_cirro.settings import Settings

PARAMETER = "raised"
"""Parameter of a job that says how its size was raised, for those who read no settings."""

PARAMETER_CHARS = 200
"""Most characters of the parameter."""


def raised(settings: Settings) -> str:
    """How vCPUs and memory were raised to a size that Fargate has; empty where they were not."""
    if settings.size == settings.asked:
        return ""
    return f"{settings.asked} -> {settings.size}, the next size that Fargate has"
