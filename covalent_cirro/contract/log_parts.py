"""Parts of an electron's log in S3: their names and their order. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

STDOUT, STDERR = "stdout", "stderr"
STREAMS = (STDOUT, STDERR)

MAX_INTERVAL_S = 60.0
"""Seconds that new text waits at most for its part, however long the electron runs."""

_LONGER = 60
"""The interval is the running time divided by this number: few objects for long jobs, quick updates from new ones."""


def interval_s(first_s: float, running_s: float) -> float:
    """Seconds after which new text is due: ``first_s`` at first, then a 60th of the running time, a minute at most."""
    return max(first_s, min(MAX_INTERVAL_S, running_s / _LONGER))


class Part(NamedTuple):
    """The name of a part, parsed. Parts of a stream sort in the order of the text.

    Attributes:
        attempt: Value of AWS_BATCH_JOB_ATTEMPT.
        stream: `STDOUT` or `STDERR`.
        number: Number of the part, from 0, in each stream of an attempt, counted over all electrons of the job.
    """

    attempt: int
    stream: str
    number: int

    @property
    def name(self) -> str:
        """The part of the key behind ``log/``."""
        return f"{self.attempt:02d}/{self.stream}.{self.number:06d}"


_NAME = re.compile(r"([0-9]{2})/(stdout|stderr)\.([0-9]{6})")


def parse(name: str) -> Part | None:
    """Parse a name; `None` if it is not the name of a part, which a job may have given to an object of its own."""
    match = _NAME.fullmatch(name)
    return None if match is None else Part(int(match[1]), match[2], int(match[3]))


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """The names of parts among names of objects, in the order of the text."""
    return tuple(sorted(name for name in names if _NAME.fullmatch(name)))
