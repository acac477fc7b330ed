"""Turns files into blobs and blobs into files as a stream, which holds a few MB in memory. Knows no S3 and no network.

A blob is a pickle without Covalent's base64 (a quarter smaller), compressed where that helps. Its name is the SHA-256
of the stored bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

from covalent_cirro import local_files
from covalent_cirro.contract import tobj
from covalent_cirro.contract.references import Blob
from covalent_cirro.contract.stored_references import ReferenceFinder, StoredReference
from covalent_cirro.errors import DigestMismatch

CHUNK_BYTES = 1024 * 1024

SAMPLE_BYTES = 256 * 1024
"""Bytes that are compressed to find out whether compression helps."""

WORTHWHILE = 0.8
"""A sample that shrinks to less than this share is worth compressing; floats and images are not."""

_LEVEL = 1


class Source(NamedTuple):
    """A file whose content is to be stored.

    Attributes:
        path: The file.
        is_tobj: Only the pickle in this TransportableObject is stored; else the whole file.
        as_it_is: It is not compressed, so that ranges of it can be read.
    """

    path: str
    is_tobj: bool
    as_it_is: bool = False

    def identity(self) -> tuple[str, int, int, int, bool, bool]:
        """Equal for the same file as long as nobody writes it: a digest computed before still holds."""
        with local_files.errors_about(self.path):
            stat = os.stat(self.path)
        return (self.path, stat.st_ino, stat.st_size, stat.st_mtime_ns, self.is_tobj, self.as_it_is)

    def size(self) -> int:
        """Bytes to store, before compressing."""
        with local_files.errors_about(self.path), open(self.path, "rb") as file:
            if not self.is_tobj:
                return os.fstat(file.fileno()).st_size
            return tobj.pickle_size(file, tobj.read_header(file))

    def chunks(self) -> Iterator[bytes]:
        """The bytes to store, in pieces of about `CHUNK_BYTES`."""
        with local_files.errors_about(self.path), open(self.path, "rb") as file:
            if self.is_tobj:
                yield from tobj.iter_pickle(file, tobj.read_header(file))
            else:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

    def read(self) -> bytes:
        """All bytes at once, for content that is sent inline."""
        return b"".join(self.chunks())


class Staged(NamedTuple):
    """A blob in a file, ready to be sent. The caller removes the file at ``path``.

    Attributes:
        blob: The blob.
        path: The file with its stored bytes.
        references: Stored values (`covalent_cirro.stored`) that the bytes name.
    """

    blob: Blob
    path: str
    references: tuple[StoredReference, ...] = ()


def stage(source: Source, folder: str) -> Staged:
    """Write the blob of ``source`` into a new file in ``folder``.

    Raises:
        LocalFileError, tobj.TobjError: The source cannot be read, or there is no room for the blob; no file is left
            behind.
    """
    with temporary(folder) as (file, path):
        encoder = Encoder(file, folder, as_it_is=source.as_it_is)
        for chunk in source.chunks():
            encoder.write(chunk)
        return Staged(encoder.finish(), path, encoder.references)


@contextlib.contextmanager
def temporary(folder: str) -> Iterator[tuple[BinaryIO, str]]:
    """A new file in a folder, for a blob; it is removed where the block raises.

    Raises:
        LocalFileError: The file cannot be made or written.
    """
    with local_files.errors_about(folder):
        os.makedirs(folder, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix="cirro-blob-", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                yield file, path
        except BaseException:
            os.unlink(path)
            raise


class Writes(Protocol):
    """What `Encoder` needs of a file."""

    def write(self, data: Any, /) -> object:
        """Append bytes."""


class Encoder:
    """Writes a blob's stored bytes. The same bytes give the same blob, in whatever pieces they come.

    Args:
        file: Gets the stored bytes.
        folder: Folder of the file, on whose disk there must be room; empty: that is not checked.
        flush: Called by `finish`.
        as_it_is: The bytes are not compressed.

    Raises:
        LocalFileError: There is no room for the blob.
    """

    def __init__(
        self,
        file: Writes,
        folder: str = "",
        flush: Callable[[], object] = lambda: None,
        *,
        as_it_is: bool = False,
    ) -> None:
        self._file = file
        self._flush = flush
        self._folder = folder
        self._digest = hashlib.sha256()
        self._size = self._raw_size = 0
        self._begin = None if as_it_is else bytearray()  # what came before it was known whether compression helps
        self._compressor: zlib._Compress | None = None
        self._finder = ReferenceFinder()

    def write(self, data: Any) -> int:
        """Append bytes, a memoryview for example, of any length."""
        with memoryview(data) as view, view.cast("B") as raw:
            for start in range(0, raw.nbytes, CHUNK_BYTES):
                self._append(raw[start : start + CHUNK_BYTES])
            return raw.nbytes

    def _append(self, piece: memoryview) -> None:
        self._raw_size += piece.nbytes
        self._finder.see(piece)
        if self._begin is not None:
            self._begin += piece
            if len(self._begin) >= SAMPLE_BYTES:
                self._decide()
            return
        self._put(self._compressor.compress(piece) if self._compressor else piece)

    def _decide(self) -> None:
        begin, self._begin = self._begin, None
        if begin:
            self._compressor = zlib.compressobj(_LEVEL) if _shrinks(begin) else None
            self._put(self._compressor.compress(begin) if self._compressor else begin)

    def _put(self, data: Any) -> None:
        if self._folder:
            # The size of a compressed blob is known at its end only.
            local_files.require_room(self._folder, len(data))
        self._digest.update(data)
        self._size += len(data)
        self._file.write(data)

    def finish(self) -> Blob:
        """The blob, once all is written."""
        if self._begin is not None:
            self._decide()
        if self._compressor is not None:
            self._put(self._compressor.flush())
        self._flush()
        codec = "zlib" if self._compressor is not None else "raw"
        return Blob(self._digest.hexdigest(), self._size, codec, self._raw_size)

    @property
    def references(self) -> tuple[StoredReference, ...]:
        """Stored values that the bytes name."""
        return tuple(self._finder.found)


def shrinks(source: Source) -> bool:
    """Whether the blob of a source will be compressed, as its beginning says."""
    return _shrinks(next(source.chunks(), b""))


def _shrinks(chunk: bytes | bytearray) -> bool:
    sample = chunk[:SAMPLE_BYTES]
    return len(zlib.compress(sample, _LEVEL)) < WORTHWHILE * len(sample)


def decode(stored: Iterable[bytes], blob: Blob, write: Callable[[bytes], object]) -> None:
    """Check a blob's stored bytes against its name while writing what they decode to.

    What was written may be used only after this returns: the digest is known at the end.

    Raises:
        DigestMismatch: Changed, cut short, or not what the reference says.
    """
    digest, size, raw_size = hashlib.sha256(), 0, 0
    decompressor = zlib.decompressobj() if blob.codec == "zlib" else None

    def put(data: bytes) -> None:
        nonlocal raw_size
        raw_size += len(data)
        if raw_size > blob.raw_size:
            raise DigestMismatch(f"blob {blob.sha256} decodes to more than the {blob.raw_size} bytes it should have")
        write(data)

    try:
        for chunk in stored:
            digest.update(chunk)
            size += len(chunk)
            if decompressor is None:
                put(chunk)
                continue
            put(decompressor.decompress(chunk, CHUNK_BYTES))
            while decompressor.unconsumed_tail:
                put(decompressor.decompress(decompressor.unconsumed_tail, CHUNK_BYTES))
        if decompressor is not None:
            put(decompressor.flush())
    except zlib.error as error:
        raise DigestMismatch(f"blob {blob.sha256} is damaged: {error}") from error
    if digest.hexdigest() != blob.sha256 or size != blob.size:
        raise DigestMismatch(
            f"blob {blob.sha256} of {blob.size} bytes was changed or cut short: its {size} stored bytes have the "
            f"SHA-256 {digest.hexdigest()}"
        )
    if raw_size != blob.raw_size:
        raise DigestMismatch(f"blob {blob.sha256} decodes to {raw_size} bytes, not {blob.raw_size}")
