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
from covalent_cirro.contract.protocol import MAX_DOCUMENT_BYTES, Blob, Call, Location, Outcome, ProtocolError, Ref
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.result_writer import AskJob, read_outcome
from covalent_cirro.electron.reuse import work
from covalent_cirro.electron.reuse.pickles import CLASS_MARKERS
from covalent_cirro.errors import DigestMismatch, NotFound, OutcomeError, SettingsError
from covalent_cirro.jobs.reuse_texts import checked_origin

log = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_S = 30.0
"""How long the list of an earlier dispatch's calls is used, since that dispatch may be under way."""

READS_AT_ONCE = 16
"""Most documents and blobs of an earlier dispatch that are read at a time."""

REMEMBERED_DISPATCHES = 4
REMEMBERED_BLOBS = 64
"""Number of blobs whose content is kept, each of at most `work.READ_BYTES`."""
REMEMBERED_SCANS = 10_000


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


class _Done(NamedTuple):
    place: Location
    node_ids: tuple[int, ...]


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
        self._seen: set[str] = set()
        self._listed_at: float | None = None
        self._loading = SingleFlight[str, None]()
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._contents: OrderedDict[Blob, bytes] = OrderedDict()
        self._scans: OrderedDict[Blob, bool] = OrderedDict()

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
        found = await asyncio.gather(*(self._work_at(place, "reused.json" in calls[place]) for place in news))
        for each in found:  # in the order of the calls, of which the newest one is taken
            if each is not None:
                self._by_key.setdefault(each[0], []).append(each[1])
        self._seen |= {place.base for place in news}
        self._listed_at = self._clock()

    async def find(self, call: Call) -> ReusableCall | None:
        """Find a call of the same work whose results are all there; `None` where the work has to be computed."""
        await self.load()
        key = await self._key(call)
        for done in reversed(self._by_key.get(key, ())):
            why_not, outcome = await self._usable(done)
            if outcome is not None:
                return ReusableCall(done.place, done.node_ids, outcome)
            log.info("The work of %s is done again: %s", done.place.call_uri, why_not)
        return None

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
                if result.output is not None and await self._defines_classes(result.output.pickle, place):
                    return (
                        "its result has objects of a class that the script itself defines, which another run of the "
                        "script takes for another class. A class of a module in the image, or in local_packages, is one"
                    ), None
            except (NotFound, DigestMismatch) as error:
                return str(error), None
        return "", outcome

    async def _work_at(self, place: Location, is_reused: bool) -> tuple[str, _Done] | None:
        """The key of the work of a call, and the call that did the work: itself, or the one whose results it reused."""
        try:
            if is_reused:
                data = await self._read(place, place.reused_key)
                if data is None:
                    return None
                place = checked_origin(place, parse_reused(data))
            data = await self._read(place, place.call_key)
            if data is None:
                return None
            call = parse_call(data)
        except ProtocolError as error:
            log.warning("The call %s of an earlier dispatch cannot be used: %s", place.call_uri, error)
            return None
        return await self._key(call), _Done(place, tuple(task.node_id for task in call.tasks))

    async def _read(self, place: Location, key: str) -> bytes | None:
        async with self._reads:
            return await self._store.get_document(place.bucket, key, MAX_DOCUMENT_BYTES)

    # --- content of blobs ---

    async def _key(self, call: Call) -> str:
        blobs = work.blobs_to_read(call)
        read = await asyncio.gather(*(self._content(blob) for blob in blobs))
        contents = {blob: data for blob, data in zip(blobs, read, strict=True) if data is not None}
        return await asyncio.to_thread(work.key, call, contents)

    async def _content(self, blob: Blob) -> bytes | None:
        async with self._reads:
            if blob in self._contents:
                return self._contents[blob]
            collected = bytearray()

            @contextlib.contextmanager
            def begin() -> Iterator[Callable[[bytes], object]]:
                collected.clear()
                yield collected.extend

            try:
                await self._store.read_into(blob, self._bucket, self._prefix, begin)
            except (NotFound, DigestMismatch):
                return None  # the blob is compared by its digest
            return _remember(self._contents, blob, bytes(collected), REMEMBERED_BLOBS)

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


def _remember(memory: OrderedDict[Blob, T], blob: Blob, value: T, most: int) -> T:
    memory[blob] = value
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
