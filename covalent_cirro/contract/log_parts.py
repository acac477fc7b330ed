"""Parts of an electron's log in S3: how they are named, and in which order they are the text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

STDOUT, STDERR = "stdout", "stderr"
STREAMS = (STDOUT, STDERR)

MAX_INTERVAL_S = 60.0
"""New text waits at most this long for its part, however long the electron runs."""

_LONGER = 60
"""The interval grows to this fraction of the running time: few objects for long jobs, quick news from new ones."""


def interval_s(first_s: float, running_s: float) -> float:
    """Seconds after which new text is due: ``first_s`` at first, then a 60th of the running time, a minute at most."""
    return max(first_s, min(MAX_INTERVAL_S, running_s / _LONGER))


class Part(NamedTuple):
    """What the name of a part says. Parts of a stream sort in the order of the text.

    Attributes:
        attempt: AWS_BATCH_JOB_ATTEMPT.
        stream: `STDOUT` or `STDERR`.
        number: From 0 in each stream of an attempt, over all electrons of the job.
    """

    attempt: int
    stream: str
    number: int

    @property
    def name(self) -> str:
        """Its name, behind ``log/`` in its key."""
        return f"{self.attempt:02d}/{self.stream}.{self.number:06d}"


_NAME = re.compile(r"([0-9]{2})/(stdout|stderr)\.([0-9]{6})")


def parse(name: str) -> Part | None:
    """The part that a name is of; `None` for any other name, which a job may have given to an object of its own."""
    match = _NAME.fullmatch(name)
    return None if match is None else Part(int(match[1]), match[2], int(match[3]))


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Of names of objects those that are of parts, in the order of the text."""
    return tuple(sorted(name for name in names if _NAME.fullmatch(name)))
