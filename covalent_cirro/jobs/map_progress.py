"""How far a map is: its jobs by state, its items, how fast it is, and how long it takes yet. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.contract import chunk_records
from covalent_cirro.contract.chunk_records import ChunkName
from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.places import Location
from covalent_cirro.jobs.formatting import duration
from covalent_cirro.jobs.states import JobDetail


class ItemCounts(NamedTuple):
    """The items of a map at a time.

    Attributes:
        length: Number of items of the whole list.
        done: How many have a result or have failed.
        failed: How many have failed.
        at: Epoch seconds of the count; of the end, where it is `over`.
        over: Whether the map has ended. Items that are not done have no result then.
    """

    length: int
    done: int
    failed: int
    at: float
    over: bool = False

    @property
    def without_result(self) -> int:
        """Items that failed, and after the end those that were not computed."""
        return self.failed + (self.length - self.done if self.over else 0)


class JobItems(NamedTuple):
    """The items of one job of a map at a time.

    Attributes:
        number: Index of the job in its array.
        first, stop: Its items: ``first <= i < stop``.
        done: How many of them have a result or have failed: the first ones.
        failed: How many have failed.
        has_outcome: Whether it has stored its outcome.
    """

    number: int
    first: int
    stop: int
    done: int
    failed: int
    has_outcome: bool


def of_jobs(keys: Iterable[str], place: Location, mapped: Mapped) -> list[JobItems]:
    """Count the items of each job of a call from the names of what the jobs have stored.

    Args:
        keys: Keys under the place of the call.
        place: The call.
        mapped: What the call says of the map.
    """
    alone = len(mapped.children) == 1
    furthest: dict[int, ChunkName] = {}
    ended: set[int] = set()
    for key in keys:
        child, _, name = ("0", "", key.removeprefix(place.base)) if alone else _below(key, place)
        number = int(child) if child.isdecimal() else -1
        if not 0 <= number < len(mapped.children):
            continue
        if name == "outcome.json":
            ended.add(number)
        record = chunk_records.parse_name(name.removeprefix("items/")) if name.startswith("items/") else None
        if record is not None and (number not in furthest or furthest[number].done < record.done):
            furthest[number] = record
    found = []
    for number, (first, stop) in enumerate(mapped.children):
        record = furthest.get(number)
        # A short job without failures stores an outcome only (`runner/item_chunks.py`).
        done = min(record.done if record is not None else stop - first if number in ended else 0, stop - first)
        failed = min(record.failed if record is not None else 0, done)
        found.append(JobItems(number, first, stop, done, failed, number in ended))
    return found


def without_failed(jobs: Iterable[JobItems], failed: Container[int]) -> list[JobItems]:
    """The jobs, of which some have failed as AWS Batch says: one that failed as a whole has an outcome and no record.

    Args:
        jobs: The jobs.
        failed: Numbers of jobs that AWS Batch calls FAILED.
    """
    return [
        job._replace(done=0) if job.number in failed and not job.failed and job.done == job.stop - job.first else job
        for job in jobs
    ]


def total(tries: Sequence[Sequence[JobItems]], length: int, at: float, *, over: bool = False) -> ItemCounts:
    """The items of all jobs of a map together.

    Args:
        tries: The jobs of each try, oldest first. Items that belong to none of these jobs were done before.
        length: Number of items of the whole list.
        at: Epoch seconds of the listing, or of the end.
        over: Whether the map has ended.
    """
    done, failed, covered = 0, 0, 0
    later: list[int] = []
    for jobs in reversed(tries):
        for job in jobs:
            # A further try has the items of a job from one of them on.
            begin = bisect.bisect_left(later, job.first)
            until = later[begin] if begin < len(later) and later[begin] < job.stop else job.stop
            covered += until - job.first
            done += min(job.done, until - job.first)
            failed += min(job.failed, until - job.first)
        later = sorted({*later, *(job.first for job in jobs)})
    return ItemCounts(length, length - covered + done, failed, at, over)


def _below(key: str, place: Location) -> tuple[str, str, str]:
    return key.removeprefix(place.array_base).partition("/") if key.startswith(place.array_base) else ("", "", "")


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
        if counts.done < counts.length and not counts.over:
            parts.append(f"{duration((counts.length - counts.done) / rate)} left")
    if counts.over and counts.done < counts.length:
        parts.append(f"{counts.length - counts.done:,} without a result")
    return ", ".join(parts)
