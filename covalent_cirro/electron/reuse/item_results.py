"""Which items of an earlier map have results, and where these are: in the chunks of its jobs, or of maps before it.

Reads documents of S3, one for each job at most, whatever the number of items; the bytes of results only of the chunks
that are asked for. Results of jobs count that failed, were cancelled or go on.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import logging
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from covalent_cirro import local_files
from covalent_cirro.aws.batch import job_name
from covalent_cirro.contract import nested
from covalent_cirro.contract.item_tables import NOT_REUSED, ResultTable
from covalent_cirro.contract.maps import DIGEST_BYTES, Chunk, Mapped, ReusedItems
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Call
from covalent_cirro.contract.references import Blob, Inline, Ref
from covalent_cirro.electron.call_writer import read_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps import map_tries
from covalent_cirro.electron.maps.child_ends import ChildEnds, MapTry, jobs_of
from covalent_cirro.electron.maps.reused_items import bytes_of, read_table
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.electron.reuse.earlier import EarlierMap
from covalent_cirro.electron.reuse.pickles import CLASS_MARKERS
from covalent_cirro.errors import DigestMismatch, NotFound, OutcomeError
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


class ItemBytes(NamedTuple):
    """Where the result of an item is.

    Attributes:
        source: A blob, stored as it is, or the bytes of the document.
        offset: Position of the first byte.
        size: Number of bytes.
    """

    source: Ref
    offset: int
    size: int


class EarlierItems:
    """The items of an earlier map.

    Attributes:
        digests: Digests of all its items.
        usable: For each item whether it has a result.
        tried: Places of the earlier tries of its call, which it has the results of.
        origin: URI of its call; where it has none, since all its items were reused, that of the call they are of.
        job_id: Id of the job of that call; empty where it is not known.
    """

    def __init__(self, digests: bytes, length: int, place: Location) -> None:
        self.digests = digests
        self.usable = bytearray(length)
        self.tried: set[str] = set()
        self.origin = place.call_uri
        self.job_id = ""
        self._place = place
        self._table: ResultTable | None = None
        self._reused: ReusedItems | None = None
        self._chunks: list[Chunk] = []
        self._numbers = array("q", [-1]) * length

    def add_reused(self, reused: ReusedItems, table: ResultTable) -> None:
        """Add the items whose results the map has reused itself."""
        self._reused, self._table = reused, table
        for item, source in enumerate(table.source):
            if source != NOT_REUSED and source < len(reused.sources):
                self.usable[item] = 1

    def add_computed(self, mapped: Mapped, chunks: Sequence[Chunk], failed: set[int]) -> None:
        """Add the items that the jobs of the map computed."""
        self._chunks = list(chunks)
        at = 0
        for first, stop in mapped.places_of(range(mapped.length)):
            for item in range(first, stop):
                self._numbers[item] = at
                at += 1
        for chunk in chunks:
            numbers = range(chunk.first, min(chunk.stop, mapped.length))
            for item in itertools.chain(*(range(*each) for each in mapped.places_of(numbers))):
                self.usable[item] = self._numbers[item] not in failed

    def by_source(self, items: Sequence[int]) -> tuple[dict[int, ItemBytes], dict[int, list[int]]]:
        """Where the results of items are.

        Returns:
            For items whose place is known, that place; for the others, the items by the index of their chunk.
        """
        known: dict[int, ItemBytes] = {}
        in_chunks: dict[int, list[int]] = {}
        firsts = [chunk.first for chunk in self._chunks]
        for item in items:
            if self._reused is not None and self._table is not None and self._table.source[item] != NOT_REUSED:
                source, offset, size = self._table.at(item)
                known[item] = ItemBytes(self._reused.sources[source], offset, size)
            else:
                in_chunks.setdefault(bisect.bisect_right(firsts, self._numbers[item]) - 1, []).append(item)
        return known, in_chunks

    async def in_chunk(self, engine: Engine, number: int, items: Sequence[int], folder: str) -> dict[int, ItemBytes]:
        """Where in a chunk the results of items are. Those that nobody may reuse are left out.

        Args:
            engine: The account's.
            number: Index of the chunk.
            items: Items whose results are in it.
            folder: Folder for a file with the chunk.
        """
        chunk = self._chunks[number]
        asked = {self._numbers[item] - chunk.first: item for item in items}
        body = chunk.body
        if isinstance(body, Blob) and body.codec != "raw":
            return {}
        try:
            with _body(folder) as file:
                if isinstance(body, Inline):
                    file.write(body.data)
                else:
                    await engine.store.read_into(body, self._place.bucket, self._place.prefix, lambda: _writing(file))
                found = await asyncio.to_thread(_found_in, file, chunk.stop - chunk.first, asked)
        except (NotFound, DigestMismatch) as error:
            log.info("Results of an earlier map are computed again: %s", error)
            return {}
        return {item: ItemBytes(body, offset, size) for item, (offset, size) in found.items()}


@contextlib.contextmanager
def _body(folder: str) -> Iterator[BinaryIO]:
    """A temporary file for a body."""
    with local_files.errors_about(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(nested.LIST_HEAD)
        yield file


@contextlib.contextmanager
def _writing(file: BinaryIO) -> Iterator[Callable[[bytes], object]]:
    file.seek(len(nested.LIST_HEAD))
    file.truncate()
    yield file.write


def _found_in(file: BinaryIO, length: int, asked: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Offset and size of the results that are asked for, by item; of a body with other items, of none."""
    file.seek(0, os.SEEK_END)
    file.write(nested.LIST_TAIL)
    file.seek(0)
    ends = nested.item_ends(file)
    if ends is None or len(ends) != length:
        return {}
    found = {}
    for number, item in asked.items():
        begin = ends[number - 1] if number else 0
        if not _defines_class(file, len(nested.LIST_HEAD) + begin, ends[number] - begin):
            found[item] = begin, ends[number] - begin
    return found


def _defines_class(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a result defines a class itself: in another run of the script that would be another class."""
    file.seek(at)
    longest, end = max(map(len, CLASS_MARKERS)), b""
    while size and (piece := file.read(min(size, 1024 * 1024))):
        if any(marker in end + piece for marker in CLASS_MARKERS):
            return True
        size -= len(piece)
        end = piece[-longest:]
    return False


async def read(engine: Engine, settings: Settings, of: EarlierMap) -> EarlierItems | None:
    """The items of an earlier map; `None` where its documents are not there any more, or of an older version."""
    place = of.place
    if of.reused is not None:
        items, digests = of.reused.items, of.reused.digests
        if items is None or digests is None:
            return None
        known = await _with_reused(engine, place, digests, items, items.length)
        if known is not None:
            known.origin, known.job_id = of.reused.origin, of.reused.job_id
        return known
    written = await read_call(engine.store, place)
    mapped = written.call.tasks[0].mapped if written is not None else None
    if written is None or mapped is None or mapped.digests is None:
        return None
    found = await _with_reused(engine, place, mapped.digests, mapped.reused, mapped.whole_length)
    if found is not None:
        found.tried = {place.sibling(each.call_id).base for each in written.call.tried}
        chunks, failed, found.job_id = await _computed(engine, settings, place, written.call, mapped)
        await asyncio.to_thread(found.add_computed, mapped, chunks, failed)
    return found


async def _with_reused(
    engine: Engine, place: Location, digests: Ref, reused: ReusedItems | None, length: int
) -> EarlierItems | None:
    data = await bytes_of(engine, place, digests)
    if data is None or len(data) != length * DIGEST_BYTES:
        return None
    found = EarlierItems(data, length, place)
    if reused is not None:
        table = await read_table(engine, place, reused)
        if table is None:
            return None
        await asyncio.to_thread(found.add_reused, reused, table)
    return found


async def _computed(
    engine: Engine, settings: Settings, place: Location, call: Call, mapped: Mapped
) -> tuple[list[Chunk], set[int], str]:
    """Chunks of the results that the jobs of a map have stored, items of the call's list that failed, and its job."""
    try:
        outcome = await read_outcome(engine.store, engine.batch.job, place)
    except OutcomeError as error:
        log.info("The outcome of an earlier map is not used: %s", error)
        outcome = None
    items = outcome.results[0].items if outcome is not None and len(outcome.results) == 1 else None
    is_whole = items is not None and items.stop == mapped.length and items.chunks[0].first == 0
    if outcome is not None and outcome.succeeded and items is not None and is_whole and not items.failed_count:
        return list(items.chunks), set(), outcome.job_id
    task = call.tasks[0]
    job_id = outcome.job_id if outcome is not None else ""
    job_id = (
        job_id
        or await engine.batch.find(
            settings.queue, settings.queue_option, job_name(task.name, call.dispatch_id, task.node_id, call.call_id)
        )
        or ""
    )
    parent = await engine.batch.job(job_id) if job_id else None
    try:
        tries = [*await map_tries.earlier(engine, place, call), MapTry(place, mapped, job_id, parent)]
    except OutcomeError as error:
        log.info("Earlier tries of an earlier map are not used: %s", error)
        tries = [MapTry(place, mapped, job_id, parent)]
    chunks: list[Chunk] = []
    failed: set[int] = set()
    async for child in ChildEnds(engine, jobs_of(tries)).read(with_bodies=False):
        result = child.result.items if child.result is not None else None
        for chunk in result.chunks if result is not None else ():
            if chunk.stop <= child.job.until and (not chunks or chunks[-1].stop <= chunk.first):
                chunks.append(chunk)
        failed.update(each.item for each in child.failures)
        failed.update(*child.failures_not_told)
    return chunks, failed, job_id
