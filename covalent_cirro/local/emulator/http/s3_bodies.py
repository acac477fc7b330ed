"""Bodies of uploads to S3, before moto gets them: decoded once, and compared with the checksums that came with them.

moto decodes ``aws-chunked`` bodies by repeated concatenation. This module must not know what the objects are.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from typing import Any

from covalent_cirro.local.emulator.http.server import Environ


class WrongDigest(Exception):
    """The body does not have the checksum that its request names; ``str`` is the S3 error code."""


class BytesBody:
    """A body that was read already; a read of all of it makes no copy."""

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
    """Read the body of an upload, decode ``aws-chunked``, check its checksums, and put the decoded body in its place.

    Raises:
        WrongDigest: ``BadDigest`` or ``IncompleteBody``.
        ConnectionError: The client closed the connection within the body.
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
        environ["CONTENT_TYPE"] = "binary/octet-stream"  # else moto parses the object as a form, without an end
    _check(environ, data)
    environ["wsgi.input"] = BytesBody(data)


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
