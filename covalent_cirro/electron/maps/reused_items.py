"""Puts the list of a map together from results that it reuses and results that it computed.

Nothing is unpickled: bytes are copied by a table that says where the result of each item is. They go through files, so
that the server's memory does not grow with the results.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from covalent_cirro import local_files
from covalent_cirro.contract import item_tables, nested, tobj
from covalent_cirro.contract.item_tables import NOT_REUSED, ResultTable
from covalent_cirro.contract.maps import ReusedItems
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Inline, Ref
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps import shares
from covalent_cirro.electron.maps.joined import StoredList
from covalent_cirro.electron.maps.list_writer import ListWriter, item_ends, read_small
from covalent_cirro.electron.maps.shares import SourcePart
from covalent_cirro.errors import DigestMismatch, NotFound, OutcomeError

log = logging.getLogger(__name__)

MAX_PARTS = 5000
"""Parts of a list that are remembered, so that who needs the list need not upload it: 0.7 MB of a call."""


class Computed(NamedTuple):
    """The list of the results that a map computed itself.

    Attributes:
        path: A TransportableObject with the list.
        stored: What it was joined from; `None` where that is too much to be kept.
    """

    path: str
    stored: StoredList | None


async def write(
    engine: Engine, place: Location, reused: ReusedItems, computed: Computed | None, to: BinaryIO, folder: str
) -> tuple[ListWriter, StoredList | None]:
    """Write the whole list of a map.

    Args:
        engine: The account's.
        place: The call.
        reused: What the map reuses.
        computed: What it computed; `None` where all results are reused.
        to: The file of the list.
        folder: Folder for a file with the results that are reused.

    Returns:
        The writer of the list, for its check; and what the list was joined from.

    Raises:
        OutcomeError: Results that were to be reused have expired.
    """
    table = await read_table(engine, place, reused)
    if table is None:
        raise _expired(reused)
    used = set(table.source) - {NOT_REUSED}
    with local_files.errors_about(folder), tempfile.TemporaryFile(dir=folder) as file:
        begins: dict[int, int] = {}
        for number, source in enumerate(reused.sources):
            if number in used:
                begins[number] = file.seek(0, io.SEEK_END)
                await _append(engine, place, source, file, reused)
        if used - begins.keys():
            raise OutcomeError(f"What {place.call_uri} says of results that it reuses is damaged; it was refused.")
        writer = ListWriter(to, reused.length)
        parts = await asyncio.to_thread(_write, table, reused, computed, file, begins, writer)
    if parts is None or len(parts) > MAX_PARTS:
        return writer, None
    own = computed.stored.bodies if computed is not None and computed.stored is not None else ()
    return writer, StoredList((*own, *reused.sources), tuple(parts))


async def _append(engine: Engine, place: Location, source: Ref, file: BinaryIO, reused: ReusedItems) -> None:
    start = file.tell()
    if isinstance(source, Inline):
        file.write(source.data)
        return

    @contextlib.contextmanager
    def begin() -> Iterator[Callable[[bytes], object]]:
        file.seek(start)
        file.truncate()
        yield file.write

    try:
        await engine.store.read_into(source, place.bucket, place.prefix, begin)
    except NotFound as error:
        raise _expired(reused) from error


def _expired(reused: ReusedItems) -> OutcomeError:
    return OutcomeError(
        f"Results of {reused.origin}, which were to be reused, have expired meanwhile. Dispatch again: what is gone is "
        "computed."
    )


def _write(
    table: ResultTable,
    reused: ReusedItems,
    computed: Computed | None,
    file: BinaryIO,
    begins: dict[int, int],
    writer: ListWriter,
) -> list[SourcePart] | None:
    """Copy all results in their order; returns the parts of the bodies that the list was joined from, if known."""
    with contextlib.ExitStack() as opened:
        own, ends = None, list[int]()
        if computed is not None:
            with local_files.errors_about(computed.path):
                ends = item_ends(computed.path) or []
                own = opened.enter_context(tobj.pickle_file(open(computed.path, "rb")))  # noqa: SIM115  (it closes both)
        done = 0
        for piece in table.pieces():
            if piece.source != NOT_REUSED:
                writer.copy(file, begins[piece.source] + piece.offset, piece.size, piece.stop)
                continue
            begin, done = ends[done - 1] if done else 0, done + piece.stop - piece.first
            if own is None or done > len(ends):
                raise OutcomeError(f"Of {reused.length:,} items, some have no result; the list was refused.")
            writer.copy(own, len(nested.LIST_HEAD) + begin, ends[done - 1] - begin, piece.stop)
        writer.close()
    if computed is not None and computed.stored is None:
        return None
    stored = computed.stored if computed is not None and computed.stored is not None else StoredList(())
    return _parts(table, stored, ends)


def _parts(table: ResultTable, computed: StoredList, ends: list[int]) -> list[SourcePart]:
    """The parts of the list: of the bodies of what was computed, and of the reused ones, which follow these."""
    found: list[SourcePart] = []
    left = table.left()
    stops = itertools.accumulate((stop - first for first, stop in left), initial=0)
    ranges = [(ends[first - 1] if first else 0, ends[stop - 1]) for first, stop in itertools.pairwise(stops)]
    of_computed = iter(shares.cut(ranges, computed.pieces))
    for piece in table.pieces():
        if piece.source == NOT_REUSED:
            found += (SourcePart(*span) for span in next(of_computed))
        else:
            found.append(SourcePart(len(computed.bodies) + piece.source, piece.offset, piece.size))
    return found


async def read_table(engine: Engine, place: Location, reused: ReusedItems) -> ResultTable | None:
    """Where the results are that a map reuses; `None` where that has expired."""
    data = await bytes_of(engine, place, reused.table)
    try:
        return None if data is None else await asyncio.to_thread(item_tables.parse, data, reused.length)
    except ProtocolError as error:
        log.warning("The reused items of %s are not known: %s", place.call_uri, error)
        return None


async def bytes_of(engine: Engine, place: Location, ref: Ref) -> bytes | None:
    """The bytes of a reference; `None` where they are not there any more."""
    if isinstance(ref, Inline):
        return ref.data
    try:
        return await read_small(engine.store, place, ref)
    except (NotFound, DigestMismatch):
        return None
