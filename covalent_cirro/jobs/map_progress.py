"""How far a map is: its jobs by state, its items, how fast it is, and how long it takes yet. Pure."""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.jobs.formatting import duration
from covalent_cirro.jobs.states import JobDetail


class ItemCounts(NamedTuple):
    """The items of a map at a time.

    Attributes:
        length: Number of items of the whole list.
        done: How many have a result or have failed.
        failed: How many have failed.
        at: Epoch seconds of the count.
    """

    length: int
    done: int
    failed: int
    at: float


def jobs_line(detail: JobDetail) -> str:
    """The jobs of an array by state: ``100: 20 RUNNABLE, 60 RUNNING, 20 SUCCEEDED``; empty for any other job."""
    if not detail.array_size:
        return ""
    states = ", ".join(f"{count:,} {state}" for state, count in detail.array_states)
    return f"{detail.array_size:,}: {states}" if states else f"{detail.array_size:,}"


def items_line(counts: ItemCounts, started_at: float | None) -> str:
    """The items of a map: ``400 of 10,000 done, 3 failed, 12 a second, 13 min left``.

    Args:
        counts: The items now.
        started_at: Epoch seconds at which the first item may have begun; `None` where that is not known.
    """
    parts = [f"{counts.done:,} of {counts.length:,} done"]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    lasted = counts.at - started_at if started_at is not None else 0.0
    if counts.done and lasted > 0:
        rate = counts.done / lasted
        parts.append(f"{rate:.3g} a second" if rate >= 1 else f"{rate * 60:.3g} a minute")
        if counts.done < counts.length:
            parts.append(f"{duration((counts.length - counts.done) / rate)} left")
    return ", ".join(parts)
