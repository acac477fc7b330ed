"""What the scheduler decided and somebody has to do in the world: start an attempt, stop it, tell of a change.

Plain data; it must not know why something was decided, nor how it is done.
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
    """SIGTERM, the grace, SIGKILL."""

    job: Job
    attempt: Attempt


@dataclass(frozen=True)
class Kill:
    """SIGKILL to all of the attempt at once: its host is gone."""

    job: Job
    attempt: Attempt


@dataclass(frozen=True)
class Changed:
    """The job's state changed: an event. ``blocked`` marks a queue's head that got a reason for being stuck."""

    job: Job
    status: str
    blocked: bool = False


Action = Launch | Stop | Kill | Changed
