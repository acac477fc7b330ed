"""Joins bodies of results to the file of a list: nothing is unpickled, and no body is held whole in memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import platform
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from covalent_cirro import local_files
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import nested, tobj
from covalent_cirro.contract.limits import INLINE_BYTES
from covalent_cirro.contract.maps import Chunk
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.references import Blob, Inline, Ref
from covalent_cirro.contract.stored_references import ReferenceFinder
from covalent_cirro.errors import CirroError, OutcomeError

KEPT_BYTES = 4 * 1024 * 1024
"""Most bytes of small results that are kept in memory for who needs the list."""

_SCAN_BYTES = 4096
_COPY_BYTES = 1024 * 1024


class ListWriter:
    """Writes the list of a map's results, in the order of the items.

    Attributes:
        chunks: What the list was joined from; `None` if that is too much to be kept.
    """

    def __init__(self, file: BinaryIO, length: int) -> None:
        version, pickler = platform.python_version(), importlib.metadata.version("cloudpickle")
        fields = tobj.header_fields("", list.__doc__ or "", version, pickler)
        text = f"[{length:,} result{'' if length == 1 else 's'}]"
        self._writer = tobj.Writer(file, fields, text.encode())
        self._writer.write(nested.LIST_HEAD)
        self._finder = ReferenceFinder()
        self._size = 0
        self._inline = 0
        self._ends: list[tuple[int, int]] = []
        self.chunks: list[Chunk] | None = []

    async def add(self, store: Store, place: Location, stop: int, body: Ref, data: bytes | None = None) -> None:
        """Append a body. If it cannot be read, the list is as before.

        Args:
            store: Store of the account.
            place: The call.
            stop: The item after the last one of the body.
            body: The body.
            data: Its bytes, where they were read already.

        Raises:
            DigestMismatch, NotFound: The body is not what was stored.
        """
        if isinstance(body, Inline):
            data = body.data
        if data is not None:
            self._write(data)
        elif isinstance(body, Blob):
            mark = self._writer.mark()
            try:
                await self._stream(store, place, body)
            except CirroError:
                self._writer.back_to(mark)
                raise
        self._size += body.raw_size if isinstance(body, Blob) else len(body.data)
        first = self._ends[-1][0] if self._ends else 0
        self._ends.append((stop, self._size))
        self._keep(Chunk(first, stop, body))

    def copy(self, source: BinaryIO, offset: int, size: int, stop: int) -> None:
        """Append bytes of a file, which are no chunk.

        Args:
            source: The file.
            offset: Position of the first byte.
            size: Number of bytes.
            stop: The item after the last one of the bytes.
        """
        source.seek(offset)
        left = size
        while left and (data := source.read(min(left, _COPY_BYTES))):
            self._write(data)
            left -= len(data)
        self._size += size
        self._ends.append((stop, self._size))
        self.chunks = None

    def _keep(self, chunk: Chunk) -> None:
        """Remember a chunk; small ones that follow one another become one."""
        if self.chunks is None:
            return
        body, last = chunk.body, self.chunks[-1] if self.chunks else None
        if isinstance(body, Inline):
            self._inline += len(body.data)
            before = last.body.data if last is not None and isinstance(last.body, Inline) else b""
            if last is not None and before and len(before) + len(body.data) <= INLINE_BYTES:
                self.chunks[-1] = Chunk(last.first, chunk.stop, Inline(before + body.data))
                return
        self.chunks.append(chunk)
        if self._inline > KEPT_BYTES:
            self.chunks = None

    async def _stream(self, store: Store, place: Location, body: Blob) -> None:
        mark = self._writer.mark()

        @contextlib.contextmanager
        def begin() -> Iterator[Callable[[bytes], object]]:
            self._writer.back_to(mark)  # after an error the body is read again from its start
            yield self._write

        await store.read_into(body, place.bucket, place.prefix, begin)

    def _write(self, data: bytes) -> None:
        self._finder.see(memoryview(data))
        self._writer.write(data)

    @property
    def names_stored_values(self) -> bool:
        """Whether results name stored values: the call that gets the list must name them too, and so must read it."""
        return bool(self._finder.found)

    def close(self) -> None:
        """Write the end of the list."""
        self._writer.write(nested.LIST_TAIL)
        self._writer.close()

    def check(self, path: str, length: int) -> None:
        """Check that the file has as many results as there are items, each in its place.

        Args:
            path: The file that was written.
            length: Number of items.

        Raises:
            OutcomeError: A job has stored something else than the results of its items.
        """
        ends = item_ends(path)
        if ends is None or len(ends) != length or any(ends[stop - 1] != size for stop, size in self._ends):
            raise OutcomeError(
                f"The results of the {length:,} items were refused: the jobs have not stored one result for each item. "
                "Somebody else may have written to the bucket: look at what ran with the same job role."
            )


def item_ends(path: str) -> list[int] | None:
    """Where each item ends in the body of the list in a TransportableObject; `None` for any other value."""
    with local_files.errors_about(path), open(path, "rb") as file:
        raw = tobj.PickleFile(file, tobj.read_header(file))
        return nested.item_ends(cast(BinaryIO, io.BufferedReader(raw, _SCAN_BYTES)))


async def read_small(store: Store, place: Location, body: Blob) -> bytes:
    """The bytes of a body, in memory."""
    buffer = io.BytesIO()

    @contextlib.contextmanager
    def begin() -> Iterator[Callable[[bytes], object]]:
        buffer.seek(0)
        buffer.truncate()
        yield buffer.write

    await store.read_into(body, place.bucket, place.prefix, begin)
    return buffer.getvalue()
