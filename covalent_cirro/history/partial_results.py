"""Results that are there of a map that goes on, failed or was cancelled (`partial`), for a script of a user.

Reads what the map's jobs have stored, from AWS alone: no Covalent server is asked. Results are checked by their
digests, and the documents that name them by the key of the map's jobs. They are unpickled in the process of the caller,
which is a user's, and where `ct.get_result` would unpickle them, too.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from covalent_cirro.aws.blobs import CHUNK_BYTES, decode
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.contract import chunk_records, item_tables, nested
from covalent_cirro.contract.item_tables import NOT_REUSED
from covalent_cirro.contract.limits import MAX_OUTCOME_BYTES
from covalent_cirro.contract.maps import ItemResults, Mapped, ReusedItems
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Blob, Inline, Ref
from covalent_cirro.covalent_server import config
from covalent_cirro.errors import NoSuchElectron, OutcomeError, SettingsError, TooLarge
from covalent_cirro.history import archive, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.names import Wanted
from covalent_cirro.settings import Settings


class _ItemPlace(NamedTuple):
    """Where the result of an item is: the item with a number of a body, or some bytes of it."""

    body: Ref
    place: Location
    number: int = -1
    offset: int = 0
    size: int = 0


class PartialResults(Mapping[int, Any]):
    """Results of a map that are there, by the index of the item: a mapping that does not change any more.

    A result is unpickled when it is asked for, and fetched with those that its job stored at the same time: so results
    that are larger than the memory, together, can be gone through one after the other. Call `covalent_cirro.partial`
    again for what has come since.

    Attributes:
        length: Number of items of the whole list.
        failed: By the index of each item that failed, its error in a line.

    Example:
        >>> done = partial("1f3a9c0d", 3)
        >>> print(len(done), "of", done.length, "done,", len(done.failed), "failed")
        >>> best = min(done.items(), key=lambda item: item[1]["loss"])
    """

    def __init__(
        self, account: Account, length: int, found: Mapping[int, _ItemPlace], failed: Mapping[int, str]
    ) -> None:
        """For `partial`, which reads the account."""
        self.length = length
        self.failed = dict(sorted(failed.items()))
        self._account = account
        self._found = {index: found[index] for index in sorted(found)}
        self._last: tuple[Ref, bytes, list[int] | None] = (Inline(b""), b"", None)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[int]:
        return iter(self._found)

    def __getitem__(self, index: int) -> Any:
        """Fetch and unpickle the result of an item.

        Raises:
            KeyError: It has no result yet, or it failed.
            NotFound: Its result has expired.
        """
        where = self._found[index]
        body, ends = self._body(where)
        begin, end = where.offset, where.offset + where.size
        if where.number >= 0:
            if ends is None or where.number >= len(ends):
                raise OutcomeError(f"What a job has stored of item {index} is not a list of results; it was refused.")
            begin, end = ends[where.number - 1] if where.number else 0, ends[where.number]
        (value,) = pickle.loads(nested.LIST_HEAD + body[begin:end] + nested.LIST_TAIL)
        return value

    def __repr__(self) -> str:
        return f"<results of {len(self):,} of {self.length:,} items, {len(self.failed):,} failed>"

    def _body(self, where: _ItemPlace) -> tuple[bytes, list[int] | None]:
        """The body with a result, and where its items end. The last one is kept: results come in their order."""
        if self._last[0] != where.body or not self._last[1]:
            data = _bytes_of(self._account, where.place, where.body)
            ends = nested.item_ends(io.BytesIO(nested.LIST_HEAD + data + nested.LIST_TAIL))
            self._last = where.body, data, ends
        return self._last[1], self._last[2]


def partial(dispatch: str, node: int, *, executor: Any = None) -> PartialResults:
    """The results that are there of a map: while it runs, and after it failed or was cancelled.

    Works without a Covalent server. Results are unpickled in this process, as by ``ct.get_result``: their modules are
    needed here.

    Args:
        dispatch: Id of the dispatch, or the beginning of the id.
        node: Number of the map's node (``cirro jobs`` and the Covalent UI show it).
        executor: The `CirroBatchExecutor` whose account, bucket and prefix are used. Default: that of
            ``[executors.cirro]`` in Covalent's config.

    Returns:
        The results by the index of the item, and the errors of the items that failed.

    Raises:
        NoSuchElectron: There is no such electron, or it is no map.
        SettingsError: ``executor`` is of another kind, or a setting has an impossible value.
        AwsError: AWS cannot be asked.

    Example:
        >>> dispatch_id = ct.dispatch(sweep)(configs)
        >>> covalent_cirro.partial(dispatch_id, 0)
        <results of 4,120 of 10,000 items, 2 failed>
    """
    settings = _settings_of(executor)
    last = config.last_deploy()
    with Account(access_of(settings), last.stack_name if last is not None else "", settings) as account:
        return read(account, find.electron(account, Wanted(dispatch, node)))


def _settings_of(executor: Any) -> Settings:
    from covalent_cirro.cirro import CirroBatchExecutor

    if executor is None or executor == "cirro":
        return CirroBatchExecutor().settings
    if isinstance(executor, CirroBatchExecutor):
        return executor.settings
    raise SettingsError(f"executor={executor!r} has no bucket: give a CirroBatchExecutor, or leave it out")


def read(account: Account, electron: Electron) -> PartialResults:
    """The results that are there of a map.

    Args:
        account: The account.
        electron: The map.

    Raises:
        NoSuchElectron: It is no map, or its call has expired.
    """
    found: dict[int, _ItemPlace] = {}
    failed: dict[int, str] = {}
    length = None
    for each in electron.calls:  # further tries compute what earlier ones have not
        of = find.own(account, each)  # without an outcome that another job wrote
        if of.reused is not None and of.reused.items is not None:
            place = of.place
            length = of.reused.items.length
            found |= _reused(account, place, of.reused.items)
            continue
        mapped = of.call.tasks[0].mapped if of.call is not None and of.call.tasks else None
        if mapped is None:
            continue
        length = mapped.whole_length
        if mapped.reused is not None:
            found |= _reused(account, of.place, mapped.reused)
        for index, where in _computed(account, of, mapped):
            if isinstance(where, str):
                failed[index] = where
                found.pop(index, None)
            else:
                found[index] = where
                failed.pop(index, None)
    if length is None:
        raise NoSuchElectron(f"{electron.dispatch_id}:{electron.node_id} is no map, or its call has expired.")
    return PartialResults(account, length, found, failed)


def _computed(account: Account, of: CallHistory, mapped: Mapped) -> Iterator[tuple[int, _ItemPlace | str]]:
    """Of each item that the jobs of a call have computed, its index, and where its result is or why it failed."""
    is_array = len(mapped.children) > 1
    indexes = [i for first, stop in mapped.places_of(range(mapped.length)) for i in range(first, stop)]
    whole = of.outcome.results[0].items if of.outcome is not None and of.outcome.succeeded else None
    if whole is not None and is_array:  # the server has put the outcomes of all jobs together
        yield from _of_results(whole, of.place, indexes)
        return
    names = set(archive.objects(account, of.place.bucket, of.place.base))
    jobs = [of.place.child(number) if is_array else of.place for number in range(len(mapped.children))]
    below = [_Child(job, first, stop) for job, (first, stop) in zip(jobs, mapped.children, strict=True)]
    for items in account.each(lambda child: _items_of(account, of, child, names), below):
        for each in items:
            yield from _of_results(each, of.place, indexes)


class _Child(NamedTuple):
    """A job of a map, and its items."""

    place: Location
    first: int
    stop: int


def _of_results(items: ItemResults, place: Location, indexes: list[int]) -> Iterator[tuple[int, _ItemPlace | str]]:
    told = {each.item: each.failure.message for each in items.failures}
    failed = {*items.failed}
    for chunk in items.chunks:
        for number in range(chunk.first, min(chunk.stop, len(indexes))):
            if number in failed:
                yield indexes[number], told.get(number, "it failed; why was not kept")
            else:
                yield indexes[number], _ItemPlace(chunk.body, place, number - chunk.first)


def _items_of(account: Account, of: CallHistory, child: _Child, names: Iterable[str]) -> list[ItemResults]:
    """What a job has stored: its outcome, or its records as long as it has none. What another job wrote is left out."""
    records = [each.detail for each in of.records]
    keys = [(detail, key) for detail in records if (key := detail.mac_key_of(child.place)) is not None]
    found: list[ItemResults] = []
    outcome = None
    if child.place.outcome_key in names:
        try:
            outcome = archive.read_outcome(account, child.place)
        except OutcomeError:
            outcome = None
        if outcome is not None and keys:
            detail, index = keys[-1][0], child.place.child_index
            # The parent does not say how many attempts the job had: as of one that runs, all are looked for.
            job_id = detail.job_id if index is None else f"{detail.job_id}:{index}"
            own = detail if index is None else detail._replace(job_id=job_id, state="RUNNING", attempts=())
            outcome = archive.outcome_of_job(account, child.place, own, outcome)
        if outcome is not None and len(outcome.results) == 1 and outcome.results[0].items is not None:
            found.append(outcome.results[0].items)
    if outcome is None or not outcome.is_final:  # the records may be those of a later attempt
        prefix = child.place.chunk_key("")
        known = (chunk_records.parse_name(each.removeprefix(prefix)) for each in names if each.startswith(prefix))
        for name in chunk_records.chain(each for each in known if each is not None):
            record = _record(account, child.place, prefix + name.name, [key for _, key in keys])
            if record is None:
                break
            found.append(record)
    return [
        each for each in found if all(child.first <= chunk.first < chunk.stop <= child.stop for chunk in each.chunks)
    ]


def _record(account: Account, place: Location, key: str, mac_keys: Iterable[str]) -> ItemResults | None:
    try:
        data = archive.read(account, place.bucket, key, MAX_OUTCOME_BYTES)
    except TooLarge:
        return None
    for mac_key in mac_keys if data is not None else ():
        try:
            return chunk_records.parse(data or b"", place, mac_key)
        except ProtocolError:
            continue  # that of another job, which has no such results
    return None


def _reused(account: Account, place: Location, reused: ReusedItems) -> dict[int, _ItemPlace]:
    """Where the results are that a map reuses."""
    table = item_tables.parse(_bytes_of(account, place, reused.table), reused.length)
    found = {}
    for index, source in enumerate(table.source):
        if source != NOT_REUSED and source < len(reused.sources):
            _, offset, size = table.at(index)
            found[index] = _ItemPlace(reused.sources[source], place, -1, offset, size)
    return found


def _bytes_of(account: Account, place: Location, ref: Ref) -> bytes:
    """The bytes of a reference, checked by their digest.

    Raises:
        NotFound: They have expired.
        DigestMismatch: They are others.
    """
    if not isinstance(ref, Blob):
        return ref.data
    s3, key = account.clients("s3"), place.blob_key(ref.sha256)

    def get() -> bytes:
        data = bytearray()
        with s3.get_object(Bucket=place.bucket, Key=key)["Body"] as body:
            decode(iter(lambda: body.read(CHUNK_BYTES), b""), ref, data.extend)
        return bytes(data)

    return account.ask("s3:GetObject", get, of=f"key {key!r}")
