"""How far a map is: its jobs by state, its items, how fast it is, and how long it takes yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from covalent_cirro.contract import chunk_records
from covalent_cirro.contract.chunk_records import ChunkName
from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.places import Location
from covalent_cirro.jobs.formatting import duration
from covalent_cirro.jobs.states import JobDetail, JobState


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


def counted(keys: Iterable[str], place: Location, mapped: Mapped, at: float) -> ItemCounts:
    """Count the items of a map from the names of what its jobs have stored.

    Args:
        keys: Keys under the place of the call.
        place: The call.
        mapped: What the call says of the map.
        at: Epoch seconds of the listing.
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
    # Of a further try, the other items were done before.
    done, failed = mapped.length - sum(stop - first for first, stop in mapped.children), 0
    for number, (first, stop) in enumerate(mapped.children):
        record = furthest.get(number)
        # A short job stores an outcome only; one that was ended early has a record of what it had done.
        done += min(record.done if record is not None else stop - first if number in ended else 0, stop - first)
        failed += record.failed if record is not None else 0
    return ItemCounts(mapped.length, done, failed, at)


def counted_by_state(detail: JobDetail, mapped: Mapped, at: float) -> ItemCounts | None:
    """Count the items of a map from the states of its jobs; `None` where a job has more than one item.

    Args:
        detail: The array job.
        mapped: What the call says of the map.
        at: Epoch seconds of the look at the job.
    """
    if not detail.array_size or any(stop - first > 1 for first, stop in mapped.children):
        return None
    before = mapped.length - len(mapped.children)  # of a further try, the other items were done before
    failed = detail.children_in(JobState.FAILED.value)
    return ItemCounts(mapped.length, before + detail.children_in(JobState.SUCCEEDED.value) + failed, failed, at)


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
        if counts.done < counts.length:
            parts.append(f"{duration((counts.length - counts.done) / rate)} left")
    return ", ".join(parts)
