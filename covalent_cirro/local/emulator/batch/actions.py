"""What the scheduler decided and `service` has to carry out: start an attempt, stop it, publish a change of state.

It must not know why something was decided, nor how it is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass

from covalent_cirro.local.emulator.batch.model import Attempt, Job


@dataclass(frozen=True)
class Launch:
    """Start the job's attempt."""

    job: Job
    attempt: Attempt


@dataclass(frozen=True)
class Stop:
    """SIGTERM to the attempt, SIGKILL after the grace period."""

    job: Job
    attempt: Attempt


@dataclass(frozen=True)
class Kill:
    """SIGKILL to all processes of the attempt at once: its host was terminated."""

    job: Job
    attempt: Attempt


@dataclass(frozen=True)
class Changed:
    """The job's state changed; ``blocked``: it is the first of its queue and got a reason why it cannot start."""

    job: Job
    status: str
    blocked: bool = False


Action = Launch | Stop | Kill | Changed
