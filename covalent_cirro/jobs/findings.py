"""What a check found, and the commands that remedies name. Knows no check."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"
LEVELS = (OK, WARNING, FAILURE, SKIPPED)


class Finding(NamedTuple):
    """One line of ``cirro doctor``.

    Attributes:
        id: Of the check; stable, for programs.
        subject: What was looked at, where one check looks at several things: a queue's name.
        level: One of `LEVELS`.
        seen: What was seen, in AWS's words where they are AWS's.
        remedy: What to do next; empty where all is well.
    """

    id: str
    subject: str
    level: str
    seen: str
    remedy: str = ""


class Where(NamedTuple):
    """What commands in remedies need, so that they mean this deployment and no other."""

    stack_name: str
    region: str
    profile: str | None

    def aws(self, command: str) -> str:
        """A command of the AWS CLI."""
        return f"aws {command} --region {self.region}" + (f" --profile {self.profile}" if self.profile else "")

    def cirro(self, command: str) -> str:
        """A command of ours."""
        profile = f" --profile {self.profile}" if self.profile else ""
        return f"cirro {command} --stack-name {self.stack_name} --region {self.region}{profile}"
