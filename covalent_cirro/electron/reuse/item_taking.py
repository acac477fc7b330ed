"""Takes the results of items from earlier maps, so that a map computes the other items only.

Nothing is unpickled, and no result that is a blob goes up again: a table says where the result of each item is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from covalent_cirro import local_files
from covalent_cirro.contract import nested
from covalent_cirro.contract.item_tables import NOT_REUSED, ResultTable
from covalent_cirro.contract.maps import MAX_RUNS
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Call
from covalent_cirro.contract.references import Blob, Inline
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps import item_digests, shares
from covalent_cirro.electron.maps.map_plans import ListFile, MapPlan, ReusePlan
from covalent_cirro.electron.maps.shares import Ranges
from covalent_cirro.electron.reuse import item_matches, item_results
from covalent_cirro.electron.reuse.earlier import EarlierDispatch
from covalent_cirro.electron.reuse.item_results import EarlierItems, ItemBytes
from covalent_cirro.jobs.reuse_texts import items_not_reused
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

MAX_MAPS = 10
"""Most earlier maps of the same function from which items are taken."""

MAX_PARTS = 200
"""Most parts of a list that is stored already of which a further list consists: a job reads each part with a call."""

_AT_A_TIME = 8
_COPY_BYTES = 1024 * 1024


class FoundItems(NamedTuple):
    """Items of a map that have results.

    Attributes:
        reuse: Where these are.
        job_id: Id of the job that most of them are of.
        why_not: Why the other items have to be computed, for users; empty if there are none.
        is_whole: The list is that of an earlier map, with the same items at the same places.
    """

    reuse: ReusePlan
    job_id: str
    why_not: str
    is_whole: bool


async def find(
    engine: Engine, settings: Settings, earlier: EarlierDispatch, place: Location, call: Call, plan: MapPlan
) -> FoundItems | None:
    """Find the items of a map that are the same work as items of an earlier dispatch.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        earlier: The earlier dispatch.
        place: Place that the call would have.
        call: The call; of its lists it needs the names only.
        plan: The map.

    Returns:
        The items; `None` if there are none.
    """
    work, maps = await earlier.maps_like(call, need_modules=plan.need_modules)
    if not maps:
        return None
    with await asyncio.to_thread(_Gathering, engine, place, plan) as gathering:
        for each in maps[:MAX_MAPS]:
            if not gathering.is_complete and each.place.base not in gathering.tried:
                found = await item_results.read(engine, settings, each)
                if found is not None:
                    await gathering.take(found, same_place=work.knows_place)
    return await asyncio.to_thread(gathering.found)


class _Gathering:
    """Gathers results of items from one earlier map after the other."""

    def __init__(self, engine: Engine, place: Location, plan: MapPlan) -> None:
        self.tried: set[str] = set()
        self._engine, self._place, self._plan = engine, place, plan
        with local_files.errors_about(plan.digests), open(plan.digests, "rb") as file:
            self._mine = file.read()
        self._small_path = os.path.join(plan.folder, "small")
        with local_files.errors_about(self._small_path):
            self._small = open(self._small_path, "wb")  # noqa: SIM115  (closed by `__exit__`)
        self._table = ResultTable(plan.length)
        self._wanted = bytearray(b"\x01") * plan.length
        self._sources: dict[Blob, int] = {}
        self._there: dict[Blob, bool] = {}
        self._taken: Counter[tuple[str, str]] = Counter()
        self._without_result = 0
        self._is_whole = False

    def __enter__(self) -> _Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        self._small.close()

    @property
    def is_complete(self) -> bool:
        """Whether all items have results."""
        return not any(self._wanted)

    async def take(self, earlier: EarlierItems, *, same_place: bool) -> None:
        """Take the results of an earlier map."""
        self.tried |= earlier.tried
        self._is_whole = self._is_whole or earlier.digests == self._mine
        found = await asyncio.to_thread(self._matches, earlier, same_place=same_place)
        items = {other: item for item, other in enumerate(found) if other != item_matches.NONE}
        known, in_chunks = await asyncio.to_thread(earlier.by_source, list(items))
        chunks = list(in_chunks.items())
        for start in range(0, len(chunks), _AT_A_TIME):
            for more in await asyncio.gather(
                *(
                    earlier.in_chunk(self._engine, number, of, self._plan.folder)
                    for number, of in chunks[start : start + _AT_A_TIME]
                )
            ):
                await self._add(earlier, items, more)
        await self._add(earlier, items, known)
        self._without_result += sum(self._wanted[item] for item in items.values())  # what could not be taken after all

    def _matches(self, earlier: EarlierItems, *, same_place: bool) -> Sequence[int]:
        def matches(usable: bytearray) -> Sequence[int]:
            return item_matches.matches(
                self._mine, earlier.digests, wanted=self._wanted, usable=usable, same_place=same_place
            )

        found = matches(earlier.usable)
        unusable = bytearray(not each for each in earlier.usable)
        if any(unusable):
            pairs = zip(found, matches(unusable), strict=True)
            self._without_result += sum(one == item_matches.NONE != other for one, other in pairs)
        return found

    async def _add(self, earlier: EarlierItems, items: Mapping[int, int], found: Mapping[int, ItemBytes]) -> None:
        """Add results of an earlier map, as far as they are there."""
        blobs = {each.source for each in found.values() if isinstance(each.source, Blob)} - self._there.keys()
        store = self._engine.store
        held = await asyncio.gather(*(store.keep(blob, self._place.bucket, self._place.prefix) for blob in blobs))
        self._there.update(zip(blobs, held, strict=True))
        await asyncio.to_thread(self._set, earlier, items, found)

    def _set(self, earlier: EarlierItems, items: Mapping[int, int], found: Mapping[int, ItemBytes]) -> None:
        for other, (source, offset, size) in found.items():
            item = items[other]
            if isinstance(source, Inline):
                at = self._small.tell()
                self._small.write(source.data[offset : offset + size])
                self._table.set(item, 0, at, size)
            elif self._there[source]:
                self._table.set(item, self._sources.setdefault(source, len(self._sources) + 1), offset, size)
            else:
                continue
            self._wanted[item] = 0
            self._taken[earlier.origin, earlier.job_id] += 1

    def found(self) -> FoundItems | None:
        """What was taken; `None` if nothing was. Call it after the block."""
        left = _merged(self._table)
        if not self._taken:
            return None
        table = os.path.join(self._plan.folder, "table")
        with local_files.errors_about(table), open(table, "wb") as file:
            file.write(self._table.dump())
        (((origin, job_id), _),) = self._taken.most_common(1)
        reuse = ReusePlan(self._plan.length, left, origin, self._small_path, tuple(self._sources), table)
        number = sum(stop - first for first, stop in left)
        why = items_not_reused(number, min(self._without_result, number), self._plan.length, origin) if number else ""
        return FoundItems(reuse, job_id, why, self._is_whole)


def _merged(table: ResultTable) -> Ranges:
    """The items that are computed, as ranges; where these are too many, items between them are computed too."""
    left = table.left()
    if len(left) <= MAX_RUNS:
        return left
    gaps = sorted((each.stop - each.first, each.first, each.stop) for each in table.pieces())
    between = [each for each in gaps if table.source[each[1]] != NOT_REUSED]
    for _, first, stop in between[: len(left) - MAX_RUNS]:
        for item in range(first, stop):
            table.clear(item)
    return table.left()


def left_of(plan: MapPlan, reuse: ReusePlan, is_stored: Mapping[str, bool]) -> MapPlan:
    """The map of the items that are left: as many for each job as in the whole map.

    Args:
        plan: The whole map.
        reuse: Results of earlier maps.
        is_stored: For the name of each list whether its items are stored already, by the map that they are results of.
    """
    length = sum(stop - first for first, stop in reuse.left)
    size = -(-length * len(plan.children) // plan.length)
    lists = {
        name: _left_of_list(each, reuse.left, os.path.join(plan.folder, f"left-{number}"), is_stored=is_stored[name])
        for number, (name, each) in enumerate(plan.lists.items())
    }
    return plan._replace(length=length, children=shares.shared(length, size), lists=lists, reuse=reuse)


def _left_of_list(of: ListFile, left: Ranges, path: str, *, is_stored: bool) -> ListFile:
    """The list of the items that are left: parts of the whole one where that is stored, else a file of its own."""
    parts = [(of.ends[first - 1] if first else 0, of.ends[stop - 1]) for first, stop in left]
    ends, size = [], 0
    for (begin, end), (first, stop) in zip(parts, left, strict=True):
        ends += [size + each - begin for each in of.ends[first:stop]]
        size += end - begin
    if is_stored and len(parts) <= MAX_PARTS:
        return ListFile(of.path, of.is_tobj, ends, parts, of.ends[-1])
    with item_digests.open_list(of) as source, local_files.errors_about(path), open(path, "wb") as file:
        file.write(nested.LIST_HEAD)
        for begin, end in parts:
            source.seek(len(nested.LIST_HEAD) + begin)
            while begin < end and (data := source.read(min(_COPY_BYTES, end - begin))):
                file.write(data)
                begin += len(data)
        file.write(nested.LIST_TAIL)
    return ListFile(path, False, ends)
