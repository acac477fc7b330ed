"""Finds a call of an earlier dispatch that did the same work, and whose results are still there.

Reads S3 only, each call once for all electrons. Knows nothing of what is done with a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.aws.store import Store
from covalent_cirro.contract.documents import parse_call, parse_reused
from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call, Outcome, Reused
from covalent_cirro.contract.references import Blob, Inline, Ref
from covalent_cirro.electron.call_writer import SMALL_BYTES
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.result_writer import AskJob, read_outcome
from covalent_cirro.electron.reuse import reasons, work
from covalent_cirro.electron.reuse.package_files import Files, read_archives
from covalent_cirro.electron.reuse.pickles import CLASS_MARKERS
from covalent_cirro.electron.reuse.work import ItemWork, Work
from covalent_cirro.errors import DigestMismatch, NotFound, OutcomeError, SettingsError
from covalent_cirro.jobs.reuse_texts import checked_origin

log = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")

FRESH_S = 30.0
"""How long the list of an earlier dispatch's calls is used, since that dispatch may be under way."""

READS_AT_ONCE = 16
"""Most documents and blobs of an earlier dispatch that are read at a time."""

REMEMBERED_DISPATCHES = 4
REMEMBERED_BLOBS = 64
"""Number of blobs whose content is kept, each of at most `work.READ_BYTES`."""
REMEMBERED_SCANS = 10_000
REMEMBERED_PACKAGES = 16
"""Number of calls' packages of which digests and imports of all files are kept."""

COMPARED = 100
"""Most earlier calls of the same electrons that are compared with one that is not reused, to tell the reason."""


class ReusableCall(NamedTuple):
    """A call whose results can be reused.

    Attributes:
        place: Place of the call in S3.
        node_ids: Its electrons, in the order of the call's tasks.
        outcome: The outcome of its job.
    """

    place: Location
    node_ids: tuple[int, ...]
    outcome: Outcome


class NotReused(NamedTuple):
    """Why no results of the earlier dispatch are reused, in a few words for users."""

    why: str


class EarlierMap(NamedTuple):
    """A map of the earlier dispatch, of which at least some items have results.

    Attributes:
        place: Place of its call in S3.
        reused: Its ``reused.json``, where it has no call, since all its items were reused one by one.
        work: What it does with each item.
    """

    place: Location
    reused: Reused | None
    work: ItemWork


class _Done(NamedTuple):
    place: Location
    node_ids: tuple[int, ...]
    work: Work


class _Read(NamedTuple):
    """What a call of the earlier dispatch is.

    Attributes:
        done: Its work; `None` where it cannot be read.
        of_items: The map that it is; `None` for any other call.
        is_whole: Its results may be reused as a whole.
    """

    done: _Done | None = None
    of_items: EarlierMap | None = None
    is_whole: bool = True


class EarlierDispatch:
    """The calls with an outcome of one dispatch. There is one for each engine and dispatch (`earlier_dispatch`)."""

    def __init__(
        self,
        store: Store,
        ask: AskJob,
        bucket: str,
        prefix: str,
        dispatch_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._ask = store, ask
        self._bucket, self._prefix, self._dispatch_id = bucket, prefix, dispatch_id
        self._clock = clock
        self._by_key: dict[str, list[_Done]] = {}
        self._by_names: dict[tuple[str, ...], list[_Done]] = {}
        self._maps: dict[str, EarlierMap] = {}
        self._without_outcome: set[int] = set()
        self._seen: set[str] = set()
        self._seen_without_outcome: set[str] = set()
        self._listed_at: float | None = None
        self._loading = SingleFlight[str, None]()
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._contents: OrderedDict[Blob, bytes] = OrderedDict()
        self._scans: OrderedDict[Blob, bool] = OrderedDict()
        self._packages: OrderedDict[tuple[Ref, ...], Files | None] = OrderedDict()
        self._reading_packages = SingleFlight[tuple[Ref, ...], Files | None]()

    async def load(self) -> None:
        """Read the calls that were not read yet, unless that was done within `FRESH_S`.

        Raises:
            SettingsError: The bucket has nothing of such a dispatch.
            AccessDenied, AwsError: It cannot be read.
        """
        if self._listed_at is None or self._clock() - self._listed_at >= FRESH_S:
            await self._loading.run("", self._load)

    async def _load(self) -> None:
        calls = await self._store.list_calls(self._bucket, self._prefix, self._dispatch_id)
        if not calls:
            raise SettingsError(
                f"reuse_from={self._dispatch_id!r}: s3://{self._bucket}/{self._prefix}jobs/{self._dispatch_id}/ is "
                "empty, so no electron of such a dispatch ran as a job with this bucket and prefix, or all have "
                "expired. Nothing was computed. Give the whole id of an earlier dispatch (`cirro jobs --all` lists "
                "them), or unset reuse_from."
            )
        news = [
            place
            for place, names in calls.items()
            if place.base not in self._seen and ({"call.json", "outcome.json"} <= names or "reused.json" in names)
        ]
        ended = {place.base for place in news}
        # Maps that go on, were cancelled or lost: some of their items have results.
        news += [
            place
            for place, names in calls.items()
            if not {place.base} & (self._seen | self._seen_without_outcome | ended)
            and "call.json" in names
            and any(name.startswith(("array/", "items/")) for name in names)
        ]
        found = await asyncio.gather(*(self._read_call(place, "reused.json" in calls[place]) for place in news))
        for place, each in zip(news, found, strict=True):  # in the order of the calls, of which the newest is taken
            if each.done is not None and place.base in ended:
                if each.is_whole:
                    self._by_key.setdefault(each.done.work.key, []).append(each.done)
                self._by_names.setdefault(each.done.work.names, []).append(each.done)
            if each.of_items is not None:
                self._maps[place.base] = each.of_items
        self._seen |= ended
        self._seen_without_outcome |= {place.base for place in news} - ended
        self._without_outcome = {
            place.node_id
            for place, names in calls.items()
            if "call.json" in names and names.isdisjoint({"outcome.json", "reused.json"})
        }
        self._listed_at = self._clock()

    async def find(self, call: Call) -> ReusableCall | NotReused:
        """Find a call of the same work whose results are all there; or why the work has to be computed."""
        await self.load()
        mine = await self._work(call)
        why_nots = []
        for done in reversed(self._by_key.get(mine.key, ())):
            why_not, outcome = await self._usable(done)
            if outcome is not None:
                return ReusableCall(done.place, done.node_ids, outcome)
            why_nots.append(why_not)
        if why_nots:
            return NotReused(f"no result to reuse in the earlier dispatch ({why_nots[0]})")
        return NotReused(await asyncio.to_thread(self._why_not, call, mine))

    async def maps_like(self, call: Call, *, need_modules: bool) -> tuple[ItemWork, list[EarlierMap]]:
        """Maps that do the same with each of their items as the map of a call, the newest first.

        Args:
            call: The call of one map.
            need_modules: As `maps.item_digests.Digests.need_modules`.

        Returns:
            What the map does with each item, and the earlier maps.
        """
        await self.load()
        mine = (await self._work(call)).for_each_item
        assert mine is not None, "it is the call of a map"
        found = [
            each
            for each in self._maps.values()
            if (each.work.key_with_modules == mine.key_with_modules if need_modules else each.work.key == mine.key)
        ]
        return mine, sorted(found, key=lambda each: each.place.call_id, reverse=True)

    def _why_not(self, call: Call, mine: Work) -> str:
        node_ids = tuple(task.node_id for task in call.tasks)
        same_names = self._by_names.get(mine.names, [])
        same_nodes = [each.work for each in same_names if each.node_ids == node_ids]
        nearest = reasons.nearest(mine, [*(each.work for each in same_names[-COMPARED:]), *same_nodes])
        if nearest is not None:
            return reasons.changes(mine, nearest)
        if node_ids[0] in self._without_outcome:
            return "no result to reuse in the earlier dispatch (its job wrote no outcome)"
        return "no electron of this name in the earlier dispatch"

    async def _usable(self, done: _Done) -> tuple[str, Outcome | None]:
        """The outcome of a call; or the reason why it cannot be reused, and `None`."""
        place = done.place
        try:
            outcome = await read_outcome(self._store, self._ask, place)
        except OutcomeError as error:
            return str(error), None
        if outcome is None:
            return "its outcome has expired", None
        if not outcome.succeeded or tuple(each.node_id for each in outcome.results) != done.node_ids:
            return "it failed", None
        refs: list[Ref] = []
        for result in outcome.results:
            refs += [result.output.pickle, result.output.string] if result.output is not None else []
            refs += [chunk.body for chunk in result.items.chunks] if result.items is not None else []
        blobs = [ref for ref in refs if isinstance(ref, Blob)]
        there = await asyncio.gather(*(self._store.holds(blob, place.bucket, place.prefix) for blob in blobs))
        parts = {
            place.log_key(part) for each in outcome.results for log in (each.stdout, each.stderr) for part in log.parts
        }
        if parts:
            parts -= {key for key, _ in await self._store.list_keys(place.bucket, place.log_key(""))}
        if parts or not all(there):
            return "part of its results has expired", None
        for result in outcome.results:
            try:
                pickles = [result.output.pickle] if result.output is not None else []
                pickles += [chunk.body for chunk in result.items.chunks] if result.items is not None else []
                if any([await self._defines_classes(ref, place) for ref in pickles]):
                    return (
                        "its result has objects of a class that the script itself defines, which another run of the "
                        "script takes for another class. A class of a module in the image, or in local_packages, is one"
                    ), None
            except (NotFound, DigestMismatch) as error:
                return str(error), None
        return "", outcome

    async def _read_call(self, place: Location, is_reused: bool) -> _Read:
        """The call that did the work of a call: itself, or the one whose results it reused."""
        own, reused = place, None
        try:
            if is_reused:
                data = await self._read(place, place.reused_key)
                if data is None:
                    return _Read()
                reused = parse_reused(data)
                place = checked_origin(place, reused)
            data = await self._read(place, place.call_key)
            if data is None:
                return _Read()
            call = parse_call(data) if len(data) <= SMALL_BYTES else await asyncio.to_thread(parse_call, data)
        except ProtocolError as error:
            log.warning("The call %s of an earlier dispatch cannot be used: %s", place.call_uri, error)
            return _Read()
        found = await self._work(call)
        done = _Done(place, tuple(task.node_id for task in call.tasks), found)
        # Where all items were reused one by one, what they have in common with those of the call is the work on each.
        by_item = reused if reused is not None and reused.items is not None else None
        of_items = None
        if found.for_each_item is not None:
            of_items = EarlierMap(own if by_item is not None else place, by_item, found.for_each_item)
        return _Read(done, of_items, by_item is None)

    async def _read(self, place: Location, key: str) -> bytes | None:
        async with self._reads:
            return await self._store.get_document(place.bucket, key, MAX_DOCUMENT_BYTES)

    # --- content of blobs ---

    async def _work(self, call: Call) -> Work:
        blobs, archives = work.blobs_to_read(call), tuple(work.archives_to_read(call))
        files = None
        if archives:
            files = await self._reading_packages.run(archives, lambda: self._files(archives))
        read = await asyncio.gather(*(self._content(blob) for blob in blobs))
        contents = {blob: data for blob, data in zip(blobs, read, strict=True) if data is not None}
        return await asyncio.to_thread(work.work_of, call, contents, files)

    async def _files(self, archives: tuple[Ref, ...]) -> Files | None:
        if archives in self._packages:
            return self._packages[archives]
        read = [each.data if isinstance(each, Inline) else await self._read_blob(each) for each in archives]
        known = [data for data in read if data is not None]
        # Without the archive of an expired blob, packages are compared by their digests.
        files = await asyncio.to_thread(read_archives, known) if len(known) == len(read) else None
        return _remember(self._packages, archives, files, REMEMBERED_PACKAGES)

    async def _content(self, blob: Blob) -> bytes | None:
        if blob in self._contents:
            return self._contents[blob]
        data = await self._read_blob(blob)
        return None if data is None else _remember(self._contents, blob, data, REMEMBERED_BLOBS)

    async def _read_blob(self, blob: Blob) -> bytes | None:
        """The content of a blob; `None` where it cannot be read: then it is compared by its digest."""
        collected = bytearray()

        @contextlib.contextmanager
        def begin() -> Iterator[Callable[[bytes], object]]:
            collected.clear()
            yield collected.extend

        async with self._reads:
            try:
                await self._store.read_into(blob, self._bucket, self._prefix, begin)
            except (NotFound, DigestMismatch):
                return None
        return bytes(collected)

    async def _defines_classes(self, ref: Ref, place: Location) -> bool:
        """Whether the pickle of a result defines a class itself, and does not name the module of the class."""
        if not isinstance(ref, Blob):
            return any(marker in ref.data for marker in CLASS_MARKERS)
        if ref in self._scans:
            return self._scans[ref]
        scan = _MarkerScan()
        async with self._reads:
            await self._store.read_into(ref, place.bucket, place.prefix, scan.begin)
        return _remember(self._scans, ref, scan.found, REMEMBERED_SCANS)


class _MarkerScan:
    """Looks for `CLASS_MARKERS` in a stream, also for one that is in two pieces of the stream."""

    def __init__(self) -> None:
        self.found = False
        self._end = b""

    @contextlib.contextmanager
    def begin(self) -> Iterator[Callable[[bytes], object]]:
        self.found, self._end = False, b""
        yield self._see

    def _see(self, piece: bytes) -> None:
        data = self._end + bytes(piece)
        self.found = self.found or any(marker in data for marker in CLASS_MARKERS)
        self._end = data[-max(map(len, CLASS_MARKERS)) :]


def _remember(memory: OrderedDict[K, T], key: K, value: T, most: int) -> T:
    memory[key] = value
    while len(memory) > most:
        memory.popitem(last=False)
    return value


_earlier: WeakKeyDictionary[Engine, OrderedDict[tuple[str, str, str], EarlierDispatch]] = WeakKeyDictionary()


def earlier_dispatch(engine: Engine, bucket: str, prefix: str, dispatch_id: str) -> EarlierDispatch:
    """The calls of a dispatch, which are read once for all electrons of an engine. Keeps the last dispatches used."""
    known = _earlier.setdefault(engine, OrderedDict())
    where = (bucket, prefix, dispatch_id)
    if where not in known:
        known[where] = EarlierDispatch(engine.store, engine.batch.job, bucket, prefix, dispatch_id)
    known.move_to_end(where)
    while len(known) > REMEMBERED_DISPATCHES:
        known.popitem(last=False)
    return known[where]
