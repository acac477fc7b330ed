"""The timeline of a run: its time in segments, from the call to the stored result. Pure."""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.history.report.runs import Run
from covalent_cirro.jobs import states

UPLOAD = "upload"
QUEUE = "queue"
START = "start"
FETCH = "fetch"
RUN = "run"
STORE = "store"
LOST = "lost"
FAILED = "failed"
CANCELLED = "cancelled"

KINDS: dict[str, str] = {
    UPLOAD: "from the call to the job: what is not in S3 yet is sent there",
    QUEUE: "the job waits, an instance boots, the image is pulled (AWS Batch keeps no times in between)",
    START: "the container starts",
    FETCH: "function and inputs are fetched from S3",
    RUN: "the electron runs",
    STORE: "result and logs are stored in S3, and the container ends",
    LOST: "an attempt whose instance was lost",
    FAILED: "an attempt that failed and left no times of its own",
    CANCELLED: "an attempt that a user cancelled, and that left no times of its own",
}
"""Kinds of segments, in their order, with what they mean."""


class Segment(NamedTuple):
    """A segment of a run's time, in epoch seconds."""

    kind: str
    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_at - self.began_at


def segments(run: Run, now: float) -> tuple[Segment, ...]:
    """The segments of a run's time: ordered, without overlap, none of them empty.

    Its times are from three clocks (this machine's, AWS's, the instance's), which differ a little: where a time is
    before the one that precedes it, the earlier segment is cut.

    Args:
        run: The run.
        now: Epoch seconds; a segment that goes on ends here.
    """
    if run.began_at is None:
        return ()
    steps: list[tuple[str, float]] = []
    if run.called_at is not None and run.created_at is not None:
        steps.append((UPLOAD, run.created_at))
    if run.children:
        # The jobs of an array run side by side: from the first that starts to the last that ends.
        steps.append((QUEUE, min(each.began_at for each in run.children)))
        last_end = max((each.ended_at for each in run.children if each.ended_at is not None), default=now)
        steps.append((RUN, last_end if run.has_ended else now))
    for attempt in run.attempts:
        last = attempt is run.attempts[-1]
        ended_at = now if attempt.ended_at is None else attempt.ended_at
        steps.append((QUEUE, attempt.began_at))
        if attempt.lost:
            steps.append((LOST, ended_at))
        elif last and run.times:
            times = run.times
            ends = (("started", START), ("fetched", FETCH), ("ran", RUN))
            steps += [(kind, times[name]) for name, kind in ends if name in times]
            steps.append((STORE if "ran" in times else RUN, ended_at))
        else:
            ended = CANCELLED if last and run.state == states.CANCELLED else FAILED
            steps.append((RUN if attempt.ended_at is None else ended, ended_at))
    if not run.has_ended and not run.children and (not run.attempts or run.attempts[-1].ended_at is not None):
        steps.append((QUEUE, now))
    return _ordered(run.began_at, steps)


def _ordered(began_at: float, steps: list[tuple[str, float]]) -> tuple[Segment, ...]:
    # No segment ends before the segment before it, or after a later one.
    ends: list[float] = []
    latest = float("inf")
    for _, end in reversed(steps):
        latest = min(latest, end)
        ends.append(latest)
    found = []
    at = began_at
    for (kind, _), end in zip(steps, reversed(ends), strict=True):
        if end > at:
            found.append(Segment(kind, at, end))
            at = end
    return tuple(found)
