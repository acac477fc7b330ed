"""Jobs on instances that an update of a compute environment replaces, or in queues that it deletes. Pure."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from covalent_cirro.jobs.formatting import counted

REFUSE, WAIT, END = "refuse", "wait", "end"
CHOICES = (REFUSE, WAIT, END)
"""What can be done about them: change nothing; wait for them first; terminate those that run too long."""


class AffectedJobs(NamedTuple):
    """Jobs on instances that a change replaces, or in queues that it deletes.

    Attributes:
        states: Number of jobs by state.
        environments: Logical ids of the compute environments.
        minutes: Minutes that AWS Batch lets the jobs run once the change begins.
        queues: Logical ids of queues that are deleted, whose jobs are terminated at once, those that wait as well.
    """

    states: Counter[str]
    environments: tuple[str, ...]
    minutes: int
    queues: tuple[str, ...] = ()

    def __str__(self) -> str:
        """``"2 jobs run (1 RUNNING, 1 STARTING)"``; with queues ``"2 jobs have not ended (...)"``."""
        count = self.states.total()
        told = counted(dict(sorted(self.states.items())))
        one = count == 1
        verb = f"ha{'s' if one else 've'} not ended" if self.queues else f"run{'s' if one else ''}"
        return f"{count} job{'' if one else 's'} {verb} ({told})"

    @property
    def where(self) -> str:
        """Where they are: ``"on instances that this change replaces (CpuSpotEnvironment)"``."""
        places = [f"on instances that this change replaces ({', '.join(self.environments)})"] * bool(self.environments)
        places += [f"in queues that this change deletes ({', '.join(self.queues)})"] * bool(self.queues)
        return " or ".join(places)

    @property
    def ended_how(self) -> str:
        """What becomes of them if the change is made now."""
        if self.queues:
            return "AWS Batch terminates those in the queues at once"
        return f"they get {self.minutes} minutes, then AWS Batch terminates them"
