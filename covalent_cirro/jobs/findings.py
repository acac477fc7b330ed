"""Findings of checks, and the commands that their remedies name. Knows no check. Pure."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"
LEVELS = (OK, WARNING, FAILURE, SKIPPED)


class Finding(NamedTuple):
    """One line of ``cirro doctor``.

    Attributes:
        id: Id of the check; stable, for programs.
        subject: Name of what was checked, where one check covers several things: a queue.
        level: One of `LEVELS`.
        seen: What was found, in AWS's words where AWS said it.
        remedy: What to do next; empty where nothing is wrong.
    """

    id: str
    subject: str
    level: str
    seen: str
    remedy: str = ""


class Where(NamedTuple):
    """The deployment that commands in remedies name."""

    stack_name: str
    region: str
    profile: str | None

    def aws(self, command: str) -> str:
        """A command of the AWS CLI, with region and profile."""
        return f"aws {command} --region {self.region}" + (f" --profile {self.profile}" if self.profile else "")

    def cirro(self, command: str) -> str:
        """A command of ``cirro``, with the deployment's name, region and profile."""
        profile = f" --profile {self.profile}" if self.profile else ""
        return f"cirro {command} --stack-name {self.stack_name} --region {self.region}{profile}"
