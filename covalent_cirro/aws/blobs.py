"""Turns files into blobs and blobs into files as a stream, which holds a few MB in memory. Knows no S3 and no network.

A blob is a pickle without Covalent's base64 (a quarter smaller), compressed where that helps. Its name is the SHA-256
of the stored bytes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from covalent_cirro import local_files
from covalent_cirro.contract import tobj
from covalent_cirro.contract.references import Blob
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
    """A blob in a temporary file, ready to be sent. The caller removes the file at ``path``."""

    blob: Blob
    path: str


def stage(source: Source, folder: str) -> Staged:
    """Write the blob of ``source`` into a new file in ``folder``.

    Raises:
        LocalFileError, tobj.TobjError: The source cannot be read, or there is no room for the blob; no file is left
            behind.
    """
    with local_files.errors_about(folder):
        os.makedirs(folder, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix="cirro-blob-", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                chunks = _while_there_is_room(source.chunks(), folder)
                blob = encode(chunks, file, as_it_is=source.as_it_is)
        except BaseException:
            os.unlink(path)
            raise
    return Staged(blob, path)


def _while_there_is_room(chunks: Iterable[bytes], folder: str) -> Iterator[bytes]:
    # The size of a compressed blob is known at its end only.
    for chunk in chunks:
        local_files.require_room(folder, len(chunk))
        yield chunk


def encode(chunks: Iterable[bytes], file: BinaryIO, *, as_it_is: bool = False) -> Blob:
    """Write a blob's stored bytes to ``file``. The same chunks give the same blob. ``as_it_is``: never compressed."""
    digest, raw_size, size = hashlib.sha256(), 0, 0

    def put(data: bytes) -> None:
        nonlocal size
        digest.update(data)
        size += file.write(data)

    compressor: zlib._Compress | None = None
    for index, chunk in enumerate(chunks):
        if index == 0 and not as_it_is and _shrinks(chunk):
            compressor = zlib.compressobj(_LEVEL)
        raw_size += len(chunk)
        put(compressor.compress(chunk) if compressor else chunk)
    if compressor:
        put(compressor.flush())
    return Blob(digest.hexdigest(), size, "zlib" if compressor else "raw", raw_size)


def _shrinks(chunk: bytes) -> bool:
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
