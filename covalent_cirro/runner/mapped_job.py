"""One job of a mapped electron, for the supervisor: which items it has, and how it ended.

Imported for mapped electrons only. `item_sources` fetches the items, `item_chunks` stores the results.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.maps import ItemResults, Mapped
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call
from covalent_cirro.runner import item_sources
from covalent_cirro.runner.item_chunks import ChunkPlace, ItemChunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from covalent_cirro.runner.job_identity import JobIdentity
    from covalent_cirro.runner.s3.blob_transfer import Wait
    from covalent_cirro.runner.s3.job_bucket import JobBucket
    from covalent_cirro.runner.s3.s3_client import Client


def mapped_of(call: Call, child_index: int | None) -> Mapped | None:
    """What makes a call one of a mapped electron; `None` for any other call.

    Args:
        call: The call.
        child_index: AWS_BATCH_JOB_ARRAY_INDEX; `None` for an ordinary job.

    Raises:
        ProtocolError: The job is none of those that the call is for.
    """
    mapped = call.tasks[0].mapped if len(call.tasks) == 1 else None
    if mapped is None:
        if child_index is not None or any(task.mapped is not None for task in call.tasks):
            raise ProtocolError("the job is one of an array, and its call is not that of one mapped electron")
    elif (child_index or 0) >= len(mapped.children) or (child_index is None and len(mapped.children) > 1):
        raise ProtocolError(f"the call is for {len(mapped.children)} jobs of an array, and this is job {child_index}")
    return mapped


def make_mapped_job(
    mapped: Mapped,
    job: JobIdentity,
    bucket: JobBucket,
    folder: str,
    interval_s: float,
    stored: Callable[[int], None],
    say: Callable[[str], None],
) -> MappedJob:
    """The job of a map that this one is.

    Args:
        mapped: The map.
        job: Which job this is.
        bucket: The bucket of the call.
        folder: Folder where the electron's process leaves its results.
        interval_s: Seconds from one chunk of results to the next, at first.
        stored: Called with the item, in the whole list, before which the results of all are stored; in a thread.
        say: Prints a line on the container's stderr.
    """
    first, stop = mapped.children[job.where.child_index or 0]
    place = ChunkPlace(job.where, first, stop, job.attempt, job.mac_key, folder)

    def stored_before(stop: int) -> None:
        stored(mapped.place_of(stop))

    chunks = ItemChunks(place, bucket.client, interval_s, bucket.wait, stored_before, say)
    return MappedJob(mapped, place, chunks, functools.partial(bucket.quick.get, job.where.bucket))


class MappedJob:
    """One job of a mapped electron.

    Args:
        mapped: Its map.
        place: Which items the job has, and where their results are stored.
        chunks: Stores them.
        quick: Reads bytes of an object with the standard library, in the simple case.
    """

    def __init__(self, mapped: Mapped, place: ChunkPlace, chunks: ItemChunks, quick: item_sources.Quick) -> None:
        self._mapped, self._place, self._chunks, self._quick = mapped, place, chunks, quick
        self._quickly: item_sources.Pieces | None = None
        self._child = place.where.child_index or 0
        self._items: dict[str, str] = {}

    @property
    def results(self) -> ItemResults | None:
        """What is stored so far; `None` if nothing is."""
        return self._chunks.results if self._chunks.results.chunks else None

    def needs_client(self) -> bool:
        """Whether `fetch` needs the S3 client. Few small items are read with the standard library."""
        if self._place.attempt > 1:
            return True
        self._quickly = item_sources.quickly(self._mapped, self._child, self._place.where, self._quick)
        return self._quickly is None

    def fetch(self, client: Client | None, wait: Wait) -> None:
        """Take the results of earlier attempts, and fetch the items.

        Raises:
            BlobError: Items are missing.
            S3Error: S3 cannot be read.
        """
        if self._place.attempt > 1:
            self._chunks.restore()
        place = self._place
        self._items = item_sources.fetch(
            client, place.where, self._mapped, self._child, place.folder, wait, self._quickly or {}
        )

    def request(self) -> dict[str, Any]:
        """What the electron's process is told of the items (`child.py`)."""
        mapped, place = self._mapped, self._place
        stopped = mapped.on_error == "stop" and bool(self._chunks.results.failures)
        return {
            "first": self._chunks.next,
            "stop": self._chunks.next if stopped else place.stop,
            "skip": self._chunks.done,
            "places": mapped.places_of(range(place.first, place.stop)),
            "length": mapped.whole_length,
            "items": self._items,
            "parallel": max(1, mapped.parallel),
            "on_error": mapped.on_error,
        }

    def begin(self) -> None:
        """Start to store results: the electron computes."""
        self._chunks.begin()

    def died(self, failure: Failure) -> Failure:
        """The failure of a job whose process ended, with the items that it was computing.

        Call it after the electron's process has ended.
        """
        items = self._chunks.running()
        if not items:
            return failure
        indexes = [self._mapped.place_of(item) for item in items]
        which = f"item {indexes[0]}" if len(items) == 1 else f"the items {', '.join(map(str, indexes))}"
        return failure._replace(message=f"{failure.message}. It was computing {which} of {self._mapped.whole_length}")

    def finish(self, *, again: bool) -> None:
        """Store the rest of the results; ``again`` says whether another attempt may need them.

        Raises:
            S3Error: They could not be stored.
        """
        self._chunks.finish(again=again)

    def failure(self) -> Failure | None:
        """The failure of a job that computed its items; `None` if none failed, or errors are results."""
        results = self._chunks.results
        if not results.failures or self._mapped.on_error == "return":
            return None
        first, count = results.failures[0], self._place.stop - self._place.first
        number = f"{results.failed_count} of {count} items failed" if count > 1 else "the item failed"
        message = f"{number}; item {self._mapped.place_of(first.item)}: {first.failure.message}"
        return Failure(Kind.ITEMS, message, first.failure.traceback)
