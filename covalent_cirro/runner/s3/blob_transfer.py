"""Blobs: bytes in S3 under their own SHA-256, checked when fetched, stored once, compressed if that makes them smaller.

Knows S3 and files; it must not know what the bytes mean.
"""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from covalent_cirro.contract import checksums
from covalent_cirro.contract.places import blob_key
from covalent_cirro.contract.references import Blob
from covalent_cirro.runner.s3 import answers

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.s3_client import Client, Pending

_CHUNK = 1024 * 1024
_SAMPLE_BYTES = 64 * 1024
_SAMPLES = 8
_WORTHWHILE = 0.9
_ZLIB_LEVEL = 1  # nearly as small as the default level, and several times as fast
_TRIES = 5  # each with as many parallel parts as the client makes by itself
_PAUSE_S = 0.5
_AT_A_TIME = 128
"""Blobs that are fetched at a time: each has an open file, of which a container may have 1,024."""
_FLUSHES = 16  # a random byte each: 128 bits
_FRESH_S = 24 * 3600.0
"""A blob found in S3 that is older is stored anew: a lifecycle rule of some days must not take it from jobs to come."""


class BlobError(Exception):
    """A blob is missing, or has other bytes than its name says."""


class Wait(Protocol):
    """Waits for a request: with a deadline, or until the job is being stopped."""

    def __call__(self, pending: Pending) -> answers.Answer: ...


def fetch(client: Client, bucket: str, prefix: str, blobs: Iterable[Blob], folder: str, wait: Wait) -> dict[Blob, str]:
    """Fetch blobs in parallel, each once; check and decode them.

    Returns:
        Path of the decoded bytes of each blob.

    Raises:
        BlobError: The first one that is missing, cut short, changed, or longer than it says. The message names it.
    """
    waiting, pending = deque(dict.fromkeys(blobs)), deque[tuple[Blob, "Pending", str]]()
    paths = {}
    while waiting or pending:
        while waiting and len(pending) < _AT_A_TIME:
            blob = waiting.popleft()
            stored = os.path.join(folder, blob.sha256 + ".stored")
            pending.append((blob, client.get_file(bucket, blob_key(prefix, blob.sha256), stored), stored))
        blob, request, stored = pending.popleft()
        try:
            wait(request)
        except answers.S3Error as error:
            raise BlobError(f"the blob {blob.sha256} could not be fetched: {error}") from error
        paths[blob] = decode(blob, stored, os.path.join(folder, f"{blob.sha256}.{blob.codec}"))
    return paths


def decode(blob: Blob, stored: str, path: str) -> str:
    """Check the stored bytes against the digest and write the decoded ones; ``stored`` is used up.

    Returns:
        The path of the decoded bytes.

    Raises:
        BlobError: Size, digest or encoding is not that of the blob.
    """
    found = os.path.getsize(stored)
    if found != blob.size:
        raise BlobError(
            f"the blob {blob.sha256} has {found} bytes in S3 instead of {blob.size}: cut short, or replaced"
        )
    digest = sha256(stored)
    if digest != blob.sha256:
        raise BlobError(f"the blob {blob.sha256} was changed in S3: its bytes have the SHA-256 {digest}")
    if blob.codec == "raw":
        if blob.raw_size != blob.size:
            raise BlobError(f"the blob {blob.sha256} says {blob.raw_size} bytes where it has {blob.size}")
        os.replace(stored, path)
        return path
    decoder = zlib.decompressobj()
    size = 0
    with open(stored, "rb") as source, open(path, "wb") as target:
        try:
            while not decoder.eof:
                chunk = decoder.unconsumed_tail or source.read(_CHUNK)
                # Bounded: a small blob must not fill the disk, whatever size its reference claims.
                data = decoder.decompress(chunk, _CHUNK)
                size += len(data)
                if size > blob.raw_size:
                    raise BlobError(f"the blob {blob.sha256} decodes to more than its {blob.raw_size} bytes")
                target.write(data)
                if not chunk and not data:
                    break
        except zlib.error as error:
            raise BlobError(f"the blob {blob.sha256} is not zlib data: {error}") from error
        if size != blob.raw_size or not decoder.eof:
            raise BlobError(f"the blob {blob.sha256} decodes to {size} bytes instead of {blob.raw_size}")
    os.unlink(stored)
    return path


def encode(path: str) -> tuple[Blob, str]:
    """Choose how to store a file: as it is, or compressed to a file beside it.

    Returns:
        The blob, and the path of the bytes to store.
    """
    raw_size = os.path.getsize(path)
    if not _compresses(path, raw_size):
        return _raw(path), path
    return _compressed(path, _ZLIB_LEVEL)


def encode_anew(path: str) -> tuple[Blob, str]:
    """Encode a file to stored bytes that nobody can guess, so that its name is not taken in S3.

    A zlib stream may be flushed at any point; this one is flushed at random points (RFC 1950, RFC 1951).

    Returns:
        The blob, and the path of the bytes to store.
    """
    raw_size = os.path.getsize(path)
    level = _ZLIB_LEVEL if _compresses(path, raw_size) else 0
    return _compressed(path, level, [1 + byte for byte in os.urandom(_FLUSHES)])


def _compressed(path: str, level: int, flush_after: Iterable[int] = ()) -> tuple[Blob, str]:
    """Compress a file beside itself, with a flush after each of the first so many bytes."""
    import hashlib

    stored = path + ".zlib"
    encoder, digest, size = zlib.compressobj(level), hashlib.sha256(), 0
    with open(path, "rb") as source, open(stored, "wb") as target:

        def write(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += len(data)
            target.write(data)

        for count in flush_after:
            write(encoder.compress(source.read(count)) + encoder.flush(zlib.Z_SYNC_FLUSH))
        while chunk := source.read(_CHUNK):
            write(encoder.compress(chunk))
        write(encoder.flush())
    return Blob(digest.hexdigest(), size, "zlib", os.path.getsize(path)), stored


def _compresses(path: str, size: int) -> bool:
    """Whether samples of the file become clearly smaller."""
    before = after = 0
    with open(path, "rb") as file:
        for i in range(_SAMPLES):
            file.seek(i * size // _SAMPLES)
            sample = file.read(min(_SAMPLE_BYTES, size // _SAMPLES + 1))
            before += len(sample)
            after += len(zlib.compress(sample, _ZLIB_LEVEL))
    return after < _WORTHWHILE * before


def store(client: Client, bucket: str, prefix: str, path: str, now: float, wait: Wait) -> Blob:
    """Store a file as a blob, unless it is there already.

    No object is overwritten: the job role does not allow it. If the key has other bytes, or a blob that may expire
    soon, the file is stored under another name.

    Args:
        now: Time in epoch seconds, to tell whether a blob that exists is young enough.

    Raises:
        s3.S3Error: It could not be stored.
    """
    blob, stored = encode(path)
    if not _store(client, bucket, prefix, blob, stored, now, wait):
        blob, stored = encode_anew(path)
        _put(client, bucket, blob_key(prefix, blob.sha256), stored, blob, wait)
    return blob


def store_raw(
    client: Client, bucket: str, prefix: str, path: str, now: float, wait: Wait, change: Callable[[], None]
) -> Blob:
    """Store a file as a blob as it is, so that ranges of it can be read. One PUT, where its bytes are new.

    Args:
        now: Time in epoch seconds, to tell whether a blob that exists is young enough.
        change: Gives the file other bytes with the same meaning; called where its name is taken by other bytes, or by a
            blob that may expire soon.

    Raises:
        s3.S3Error: It could not be stored.
    """
    blob = _raw(path)
    try:
        _put(client, bucket, blob_key(prefix, blob.sha256), path, blob, wait)
    except answers.ConditionFailed:
        if not _is_there(client, bucket, prefix, blob, path, now, wait):
            change()
            blob = _raw(path)
            _put(client, bucket, blob_key(prefix, blob.sha256), path, blob, wait)
    return blob


def _raw(path: str) -> Blob:
    size = os.path.getsize(path)
    return Blob(sha256(path), size, "raw", size)


def _store(client: Client, bucket: str, prefix: str, blob: Blob, stored: str, now: float, wait: Wait) -> bool:
    """Store a blob under its name; False if another object has that key."""
    found = _is_there(client, bucket, prefix, blob, stored, now, wait)
    if found is not None:
        return found
    try:
        _put(client, bucket, blob_key(prefix, blob.sha256), stored, blob, wait)
    except answers.ConditionFailed:
        # Another job stored the same blob, or our own PUT succeeded although its answer was lost.
        return bool(_is_there(client, bucket, prefix, blob, stored, now, wait))
    return True


def _is_there(client: Client, bucket: str, prefix: str, blob: Blob, stored: str, now: float, wait: Wait) -> bool | None:
    """Whether the blob is in S3, complete and young; `None` if the key does not exist."""
    try:
        there = wait(client.head(bucket, blob_key(prefix, blob.sha256))).headers
    except (answers.NotThere, answers.Refused):
        # A role that may only put objects gets 403 here; if it may not do that either, the PUT fails.
        return None
    return _is_whole(there, blob, stored) and _is_fresh(there.get("last-modified"), now)


def _put(client: Client, bucket: str, key: str, stored: str, blob: Blob, wait: Wait) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            wait(client.put_file(bucket, key, stored, blob.sha256, {"If-None-Match": "*"}))
            return
        except answers.OutOfTime:
            raise
        except answers.S3Error as error:
            # A result is not lost because S3 was busy: awscrt does not retry a 409.
            passes = error.status is None or error.status == 409 or error.status >= 500
            if not passes or tries_left == 0:
                raise
            time.sleep(_PAUSE_S * (_TRIES - tries_left))


def _is_whole(headers: Mapping[str, str], blob: Blob, stored: str) -> bool:
    """Whether S3's own checksum of the object is the blob's digest."""
    checksum = headers.get("x-amz-checksum-sha256", "")
    if headers.get("content-length") != str(blob.size):
        return False
    if checksums.is_of_parts(checksum):
        with open(stored, "rb") as file:
            return checksum == checksums.of_parts(file, blob.size)
    return checksum == checksums.of_whole(blob.sha256)


def _is_fresh(last_modified: str | None, now: float) -> bool:
    from email.utils import parsedate_to_datetime

    try:
        return now - parsedate_to_datetime(last_modified or "").timestamp() < _FRESH_S
    except (TypeError, ValueError):
        return False


def sha256(path: str) -> str:
    """SHA-256 of a file, in hex."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
