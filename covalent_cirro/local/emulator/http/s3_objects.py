"""Object bodies between the network and moto's S3: decoded once, held once, shared by parallel reads.

moto decodes ``aws-chunked`` bodies by repeated concatenation and reads an object anew for every GET: 100 parallel
reads of a dataset would hold 100 copies. It must not know what the objects are.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import weakref
import zlib
from typing import Any

from covalent_cirro.local.emulator.http.server import Environ

CACHE_BYTES = 256 * 1024 * 1024
"""Bodies read last, kept in memory up to this size together."""
SMALL_BYTES = 1024 * 1024
"""Smaller bodies are not kept: reading them again costs nothing."""


class WrongDigest(Exception):
    """The body does not have the checksum that came with it; ``str`` is the S3 error code."""


class Whole:
    """A body that was read already; gives it away in one piece, without a copy."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int | None = -1) -> bytes:
        """All of it, or the next ``size`` bytes."""
        if size is None or size < 0 or size >= len(self._data):
            data, self._data = self._data, b""
            return data
        data, self._data = self._data[:size], self._data[size:]
        return data

    def readline(self, limit: int = -1) -> bytes:
        """One line."""
        end = self._data.find(b"\n") + 1
        return self.read(end or len(self._data))


def take_body(environ: Environ) -> None:
    """Read an upload's body, undo ``aws-chunked``, check its checksums, and put it back plain.

    Raises:
        WrongDigest: ``BadDigest`` or ``IncompleteBody``.
        ConnectionError: The client broke off.
    """
    streaming = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "").startswith("STREAMING-")
    encodings = [each.strip() for each in environ.get("HTTP_CONTENT_ENCODING", "").split(",") if each.strip()]
    if streaming or "aws-chunked" in encodings:
        data = _decode(environ)
        environ["HTTP_X_AMZ_CONTENT_SHA256"] = "UNSIGNED-PAYLOAD"
        kept = ",".join(each for each in encodings if each != "aws-chunked")
        environ.pop("HTTP_CONTENT_ENCODING", None)
        if kept:
            environ["HTTP_CONTENT_ENCODING"] = kept
    else:
        data = environ["wsgi.input"].read()
    for header in _DIGESTS:  # moto keeps a checksum only where the SDK's own header names it
        if header in environ and header.startswith(_CHECKSUM):
            environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", header.removeprefix(_CHECKSUM))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_LENGTH"] = str(len(data))
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        environ["CONTENT_TYPE"] = "binary/octet-stream"  # moto would parse the object as a form, for ever
    _check(environ, data)
    environ["wsgi.input"] = Whole(data)


def _decode(environ: Environ) -> bytes:
    """The payload of an ``aws-chunked`` body; its trailing checksum becomes a header.

    Source: S3 API Reference, Signature calculations for the Authorization header: chunked upload, trailing headers.
    """
    body = environ["wsgi.input"]
    reader = body if hasattr(body, "readline") else io.BytesIO(body.read())
    payload = io.BytesIO()
    while True:
        line = reader.readline()
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise WrongDigest("IncompleteBody") from None
        if size == 0:
            break
        payload.write(reader.read(size))
        reader.readline()
    while True:
        name, _, value = reader.readline().decode("latin-1").strip().partition(":")
        if not name:
            break
        if name.lower().startswith("x-amz-checksum-"):
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value.strip()
    expected = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH")
    if expected is not None and int(expected) != payload.tell():
        raise WrongDigest("IncompleteBody")
    return payload.getvalue()


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _crt(name: str, size: int) -> Any:
    def digest(data: bytes) -> bytes | None:
        try:
            from awscrt import checksums
        except ImportError:
            return None
        return int(getattr(checksums, name)(data)).to_bytes(size, "big")

    return digest


_CHECKSUM = "HTTP_X_AMZ_CHECKSUM_"

_DIGESTS: dict[str, Any] = {
    "HTTP_CONTENT_MD5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    "HTTP_X_AMZ_CHECKSUM_CRC32": _crc32,
    "HTTP_X_AMZ_CHECKSUM_CRC32C": _crt("crc32c", 4),
    "HTTP_X_AMZ_CHECKSUM_CRC64NVME": _crt("crc64nvme", 8),
    "HTTP_X_AMZ_CHECKSUM_SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "HTTP_X_AMZ_CHECKSUM_SHA256": lambda data: hashlib.sha256(data).digest(),
}


def _check(environ: Environ, data: bytes) -> None:
    for header, digest in _DIGESTS.items():
        expected = environ.get(header)
        actual = None if expected is None else digest(data)
        if actual is not None and base64.b64encode(actual).decode() != expected:
            raise WrongDigest("BadDigest")
    sha256 = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    if len(sha256) == 64 and hashlib.sha256(data).hexdigest() != sha256:
        raise WrongDigest("XAmzContentSHA256Mismatch")


class _Cache:
    """Bodies of moto's keys that were read last, by the key object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[int, bytes] = {}
        self._size = 0

    def get(self, key: Any) -> bytes | None:
        with self._lock:
            data = self._bodies.pop(id(key), None)
            if data is not None:
                self._bodies[id(key)] = data
            return data

    def put(self, key: Any, data: bytes) -> None:
        if not SMALL_BYTES < len(data) <= CACHE_BYTES:
            return
        with self._lock:
            if id(key) not in self._bodies:
                weakref.finalize(key, self.drop, id(key))
                self._bodies[id(key)] = data
                self._size += len(data)
            while self._size > CACHE_BYTES:
                oldest = next(iter(self._bodies))
                self._size -= len(self._bodies.pop(oldest))

    def drop(self, number: int) -> None:
        with self._lock:
            self._size -= len(self._bodies.pop(number, b""))


_cache = _Cache()
_installed = threading.Lock()


def share_reads() -> None:
    """Make moto's S3 keys share one copy of a body among all who read it. Does nothing the second time."""
    from moto.s3 import models

    FakeKey: Any = models.FakeKey

    with _installed:
        if getattr(FakeKey, "_cirro_shared", False):
            return
        write = FakeKey.value.fset

        def get_value(self: Any) -> bytes:
            with self.lock:
                data = _cache.get(self)
                if data is None:
                    self._value_buffer.seek(0)
                    data = self._value_buffer.read()
                    _cache.put(self, data)
                return data

        def set_value(self: Any, new: bytes) -> None:
            _cache.drop(id(self))
            if self._etag is None and isinstance(new, bytes):
                # moto would compute it later, moving the file's position under a parallel read.
                self._etag = hashlib.md5(new, usedforsecurity=False).hexdigest()
            write(self, new)

        FakeKey.value = property(get_value, set_value)
        FakeKey._cirro_shared = True


def count_parts() -> None:
    """Have HeadObject tell the checksum of an object that was sent in parts with their number, as S3 does.

    moto 5.2.5 does so in GetObject only. Does nothing the second time.
    """
    from moto.s3 import models

    Backend: Any = models.S3Backend

    with _installed:
        complete = Backend.complete_multipart_upload
        if getattr(complete, "counts_parts", False):
            return

        def completed(self: Any, *arguments: Any, **options: Any) -> Any:
            key = complete(self, *arguments, **options)
            if key is not None and key.checksum_type == "COMPOSITE" and key.checksum_value:
                key.checksum_value, key.checksum_type = f"{key.checksum_value}-{key.checksum_parts}", None
            return key

        completed.counts_parts = True  # type: ignore[attr-defined]
        Backend.complete_multipart_upload = completed
