"""Jobs on instances that an update of a compute environment replaces, and what can be done about them. Pure."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from covalent_cirro.jobs.formatting import counted

REFUSE, WAIT, END = "refuse", "wait", "end"
CHOICES = (REFUSE, WAIT, END)
"""What can be done about them: change nothing; wait for them first; terminate those that run too long."""


class AffectedJobs(NamedTuple):
    """Jobs on instances that a change replaces.

    Attributes:
        states: Number of jobs by state.
        environments: Logical ids of the compute environments.
        minutes: Minutes that AWS Batch lets the jobs run once the change begins.
    """

    states: Counter[str]
    environments: tuple[str, ...]
    minutes: int

    def __str__(self) -> str:
        """``"2 jobs run (1 RUNNING, 1 STARTING)"``."""
        count = self.states.total()
        told = counted(dict(sorted(self.states.items())))
        return f"{count} job{'' if count == 1 else 's'} run{'s' if count == 1 else ''} ({told})"
