"""Stores the results of the items of a mapped electron in chunks, while the electron computes.

Runs in the supervisor, in a thread of its own. It reads what the electron's process leaves
on the disk (`item_journal.py`), and takes the results of earlier attempts from their records. It never unpickles.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from covalent_cirro.contract import chunk_records, nested
from covalent_cirro.contract.chunk_records import ChunkName, chain
from covalent_cirro.contract.limits import INLINE_BYTES, INLINE_TOTAL_BYTES
from covalent_cirro.contract.maps import MAX_CHUNKS, MAX_FAILURES_TOLD, Chunk, ItemFailure, ItemResults
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Inline, Ref
from covalent_cirro.runner.item_journal import BODY, Done, ItemReader
from covalent_cirro.runner.s3 import answers, blob_transfer
from covalent_cirro.runner.s3.blob_transfer import Wait

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.s3_client import Client

CHUNK_BYTES = 8 * 1024 * 1024
"""Results of so many bytes are stored at once: one part of an upload (`checksums.PART_BYTES`)."""

_SHARE = 100
"""A chunk is also as long as a hundredth of all before it, in time or bytes: `MAX_CHUNKS` are never reached."""

_LOOK_S = 1.0
"""Seconds from one look at the disk to the next."""

_TRACEBACKS = 20
"""Failures of which the traceback is kept; a table of failures shows the first."""

_AT_A_TIME = 32
"""Records that are read at a time."""

_PADDING_BYTES = 16
_COPY_BYTES = 1024 * 1024


class ChunkPlace(NamedTuple):
    """Whose results are stored, and where.

    Attributes:
        where: The job's own place.
        first: Its first item, in the whole list.
        stop: The item after its last.
        attempt: AWS_BATCH_JOB_ATTEMPT.
        mac_key: MAC key of the job.
        folder: Folder where the electron's process leaves its results.
    """

    where: Location
    first: int
    stop: int
    attempt: int
    mac_key: str
    folder: str


class ItemChunks:
    """The results of one job.

    Args:
        place: Whose results, and where.
        client: Gives the S3 client.
        interval_s: Seconds from one chunk to the next, at first.
        wait: Waits for a request.
        stored: Called with the item after the last one that is stored, in the thread.
        say: Prints a line on the container's stderr.

    Attributes:
        results: What is stored so far.
    """

    def __init__(
        self,
        place: ChunkPlace,
        client: Callable[[], Client],
        interval_s: float,
        wait: Wait,
        stored: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self.results = ItemResults(())
        self._place, self._client, self._wait, self._stored, self._say = place, client, wait, stored, say
        self._interval_s = interval_s
        self._waiting: list[Done] = []
        self._journal = ItemReader(place.folder)
        self._body_at = 0
        self._inlined = 0
        self._failed = 0
        self._began_at = self._last_at = time.monotonic()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = ""

    # --- what earlier attempts have left ---

    def restore(self) -> None:
        """Take the results that earlier attempts have stored, from the first item on.

        Raises:
            S3Error: S3 cannot be read.
        """
        place = self._place
        if not place.mac_key:
            return  # any job could have written the records
        names = {
            each for each in self._names() if each.attempt < place.attempt and each.done <= place.stop - place.first
        }
        good: dict[ChunkName, ItemResults] = {}
        while missing := [name for name in chain(names) if name not in good]:
            for start in range(0, len(missing), _AT_A_TIME):
                for name, found in self._read(missing[start : start + _AT_A_TIME]):
                    if found is None:
                        names.discard(name)
                    else:
                        good[name] = found
        for name in chain(names):
            self._add(good[name])
        self._failed = self.results.failed_count
        if self.results.chunks:
            self._say(f"goes on after {self.done} of {place.stop - place.first} items, which earlier attempts computed")

    def _names(self) -> Iterable[ChunkName]:
        base, after, more, count = self._place.where.chunk_key(""), "", True, 0
        while more and count < chunk_records.MAX_NAMES:
            try:
                page = self._wait(self._client().list_keys(self._place.where.bucket, base, after)).body
            except answers.Refused as error:
                self._say(f"results of earlier attempts are not found, and computed again: {error}")
                return
            keys = [key.decode() for key in re.findall(rb"<Key>([^<]*)</Key>", page)]
            more = b"<IsTruncated>true</IsTruncated>" in page and bool(keys)
            after, count = keys[-1] if keys else "", count + len(keys)
            yield from (name for key in keys if (name := chunk_records.parse_name(key[len(base) :])) is not None)

    def _read(self, names: list[ChunkName]) -> Iterable[tuple[ChunkName, ItemResults | None]]:
        place, client = self._place, self._client()
        pending = [client.get(place.where.bucket, place.where.chunk_key(name.name)) for name in names]
        for name, request in zip(names, pending, strict=True):
            try:
                found = chunk_records.parse(self._wait(request).body, place.where, place.mac_key)
            except (answers.NotThere, answers.Refused, ProtocolError) as error:
                self._say(f"the record {name.name} of earlier results is not used: {error}")
                yield name, None
            else:
                yield name, found if self._fits(name, found) else None

    def _fits(self, name: ChunkName, found: ItemResults) -> bool:
        [chunk] = found.chunks
        return (
            (chunk.first, chunk.stop) == (self._place.first + name.before, self._place.first + name.done)
            and len(found.seconds) == chunk.stop - chunk.first
            and all(chunk.first <= item < chunk.stop for item in found.failed)
        )

    # --- while the electron computes ---

    @property
    def done(self) -> int:
        """Number of items whose results are stored."""
        return len(self.results.seconds)

    @property
    def next(self) -> int:
        """The item after the last one that is stored, in the whole list."""
        return self._place.first + self.done

    def begin(self) -> None:
        """Start to store what the electron computes."""
        self._began_at = self._last_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._end.wait(min(_LOOK_S, self._interval_s)):
            try:
                self._look()
                if self._is_due(time.monotonic()):
                    self._last_at = time.monotonic()
                    self._take(record=True)
            except (answers.S3Error, OSError) as error:
                # Not lost yet: all of it is tried again with the next chunk.
                if str(error) != self._refused:
                    self._refused = str(error)
                    self._say(f"results could not be stored so far: {error}")

    def _is_due(self, now: float) -> bool:
        if not self._waiting or len(self.results.chunks) >= MAX_CHUNKS - 1:
            return False
        interval_s = max(self._interval_s, (now - self._began_at) / _SHARE)
        size = self._waiting[-1].end - self._body_at
        return now - self._last_at >= interval_s or size >= max(CHUNK_BYTES, self._body_at / _SHARE)

    def _look(self) -> None:
        """Read what is new in the journal."""
        for done in self._journal.new():
            failure = done.failure
            if failure is not None:
                self._failed += 1
                if self._failed > _TRACEBACKS:
                    done = done._replace(failure=failure._replace(traceback=""))
            self._waiting.append(done)

    def _take(self, *, record: bool) -> None:
        """Store all that waits as a chunk."""
        taken, start, first = list(self._waiting), self._body_at, self.next
        if not taken:
            return
        chunk = Chunk(first, first + len(taken), self._store(start, taken))
        failures = [ItemFailure(i, each.failure) for i, each in enumerate(taken, first) if each.failure is not None]
        told = max(0, MAX_FAILURES_TOLD - len(self.results.failures))
        new = ItemResults(
            (chunk,),
            tuple(failures[:told]),
            tuple(each.seconds for each in taken),
            ranges(each.item for each in failures[told:]),
        )
        if record:
            self._write_record(new)
        self._body_at = taken[-1].end
        del self._waiting[: len(taken)]
        self._add(new)
        self._stored(self.next)

    def _store(self, start: int, taken: list[Done]) -> Ref:
        end = taken[-1].end
        size = end - start
        path = os.path.join(self._place.folder, f"{start}.chunk")
        with open(os.path.join(self._place.folder, BODY), "rb") as body:
            body.seek(start)
            if size <= INLINE_BYTES and self._inlined + size <= INLINE_TOTAL_BYTES:
                return Inline(body.read(size))
            with open(path, "wb") as file:
                while (left := end - start - file.tell()) and (data := body.read(min(_COPY_BYTES, left))):
                    file.write(data)
        last = (taken[-2].end if len(taken) > 1 else start) - start

        def change() -> None:
            with open(path, "r+b") as file:
                nested.pad(file, last, os.urandom(_PADDING_BYTES))

        where = self._place.where
        try:
            return blob_transfer.store_raw(
                self._client(), where.bucket, where.prefix, path, time.time(), self._wait, change
            )
        finally:
            os.unlink(path)

    def _write_record(self, new: ItemResults) -> None:
        place = self._place
        failed = self.results.failed_count + new.failed_count
        name = ChunkName(place.attempt, self.done, self.done + len(new.seconds), failed).name
        data = chunk_records.dump(place.where, new, place.mac_key)
        try:
            self._wait(
                self._client().put(place.where.bucket, place.where.chunk_key(name), data, {"If-None-Match": "*"})
            )
        except answers.ConditionFailed:
            # Our own PUT succeeded although its answer was lost; or another job has put something there, which has no
            # authentic content, and the items are computed again if there is another attempt.
            return

    def _add(self, new: ItemResults) -> None:
        found = self.results
        told = (*found.failures, *new.failures)[:MAX_FAILURES_TOLD]
        # Records of several attempts may together say more than an outcome may.
        more = [each.item for each in new.failures[len(told) - len(found.failures) :]]
        self.results = ItemResults(
            found.chunks + new.chunks,
            told,
            found.seconds + new.seconds,
            (*found.more_failures, *ranges(more), *new.more_failures),
        )
        self._inlined += sum(len(each.body.data) for each in new.chunks if isinstance(each.body, Inline))

    # --- after the electron ---

    def running(self) -> list[int]:
        """The items that were being computed. Call it after the electron's process has ended."""
        self._stop()
        self._look()
        first = self.next + len(self._waiting)
        if self._journal.begun:
            return [item for item in self._journal.begun if item >= first]
        return [first] if first < self._place.stop else []

    def finish(self, *, again: bool) -> None:
        """Store the rest; `results` has it.

        There is a record of the rest where one is of use: the last name tells how many items are done and have failed.
        A job that ends before its first record, without failures, needs none.

        Args:
            again: Whether another attempt may follow, which reads records.

        Raises:
            S3Error: It could not be stored.
        """
        self._stop()
        self._look()
        failed = any(each.failure is not None for each in self._waiting)
        self._take(record=again or failed or bool(self.results.chunks))

    def _stop(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def ranges(items: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Numbers in order as ranges (first, stop)."""
    found: list[tuple[int, int]] = []
    for item in items:
        if found and found[-1][1] == item:
            found[-1] = found[-1][0], item + 1
        else:
            found.append((item, item + 1))
    return tuple(found)
