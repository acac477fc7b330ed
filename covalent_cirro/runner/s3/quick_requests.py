"""Reads and writes one small object of S3 with the standard library alone: many jobs need no more, and no awscrt.

Importing awscrt takes longer than everything else that a job does before its electron's first line, and the runner
needs one small document first. A job with a short log and a small result writes one small document last. This module
does both in the simple case: credentials in the environment or from the container's endpoint, a direct connection, and
a 200. In every other case it returns nothing, and `s3_client.py` reads or writes the document, with every source of
credentials, retries, and errors that say what to do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.runner.s3.answers import Answer, Endpoint

_TIMEOUT_S = 3.0
_CREDENTIALS_S = 300.0
"""Credentials of a container are good for longer when they are given, and may have ended when the electron has."""

_CHUNK = 64 * 1024
_MOST_WRITTEN = 512 * 1024
"""Bytes that are written in one piece, without a second try, within the timeout."""

_MAX_HEAD_BYTES = 64 * 1024

_ECS_HOST = "169.254.170.2"
"""Where ``AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`` is asked for (ECS Developer Guide, "Task IAM role")."""

_CREDENTIAL_HOSTS = frozenset({_ECS_HOST, "169.254.170.23", "fd00:ec2::23", "127.0.0.1", "::1", "localhost"})
"""The only hosts that ``AWS_CONTAINER_CREDENTIALS_FULL_URI`` may name with http, and that get the token (AWS SDKs
and Tools Reference Guide, "Container credential provider")."""

_NOT_HERE = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "AWS_CA_BUNDLE")
"""If one of these is set, in upper or lower case, the connection to S3 is not direct."""

_PROFILE_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
"""Paths where awscrt looks for profiles, which it prefers to the container's credentials."""


class Credentials(NamedTuple):
    """Credentials that requests are signed with.

    Attributes:
        key_id: Access key id.
        secret: Secret access key.
        token: Session token; empty for a long-term key.
    """

    key_id: str
    secret: str
    token: str


class QuickRequests:
    """Reads and writes small objects in the simple case.

    Args:
        endpoint: Endpoint of S3.
        environ: The environment: credentials, proxies, certificates.
    """

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._credentials: Credentials | None = None
        self._credentials_at = 0.0
        self._usable = not any(environ.get(name) or environ.get(name.lower()) for name in _NOT_HERE)

    def get(self, bucket: str, key: str, first: int = 0, size: int | None = None) -> Answer | None:
        """The object, or ``size`` bytes of it; `None` in every case that is not simple, errors included. Never raises.

        Waits at most about `_TIMEOUT_S` for the credentials, and as long for the object, besides DNS. After a
        failure it makes no further request.
        """
        if self._usable:
            try:
                return self._get(bucket, key, first, size)
            except Exception:
                # Whatever the error is, awscrt meets it again and reports it.
                self._usable = False
        return None

    def put_new(self, bucket: str, key: str, data: bytes) -> bool:
        """Write an object that does not exist yet. False in every case that is not simple; it may be there then.

        Never raises, and waits as `get` does.
        """
        if self._usable and len(data) <= _MOST_WRITTEN:
            try:
                self._request("PUT", bucket, key, data, {"if-none-match": "*"})
                return True
            except Exception:
                # Whatever the error is, awscrt meets it again and reports it.
                self._usable = False
        return False

    def _get(self, bucket: str, key: str, first: int, size: int | None) -> Answer:
        extra = {} if size is None else {"range": f"bytes={first}-{first + size - 1}"}  # RFC 9110, 14.1.2
        answer = self._request("GET", bucket, key, extra=extra)
        if "content-length" not in answer.headers or len(answer.body) != (len(answer.body) if size is None else size):
            raise ValueError("a body that may be cut short")
        return answer

    def _request(
        self, method: str, bucket: str, key: str, body: bytes = b"", extra: Mapping[str, str] = MappingProxyType({})
    ) -> Answer:
        if self._credentials is None or self._credentials_at < time.monotonic() - _CREDENTIALS_S:
            self._credentials, self._credentials_at = find_credentials(self._environ), time.monotonic()
        host, path = self._endpoint.address(bucket, key)
        headers = sign(self._credentials, self._endpoint.region, host, path, time.time(), method, body, extra)
        return _fetch(host, path, headers, method, body, tls=not self._endpoint.plain, part="range" in extra)


def find_credentials(environ: Mapping[str, str]) -> Credentials:
    """Credentials from the environment or the container's endpoint, in the order of awscrt's chain.

    Raises:
        LookupError: Another source may have credentials.
        OSError, ValueError, KeyError: The endpoint did not answer as it should.
    """
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return Credentials(key_id, secret, environ.get("AWS_SESSION_TOKEN", ""))
    files = (os.path.expanduser(environ.get(name) or usual) for name, usual in _PROFILE_FILES.items())
    if environ.get("AWS_PROFILE") or environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or any(map(os.path.exists, files)):
        raise LookupError("these come before the container's")
    relative, full = (environ.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL"))
    if relative and not relative.startswith("/"):
        raise ValueError("not a relative URI")
    uri = urlsplit(f"http://{_ECS_HOST}{relative}" if relative else full or "")
    if uri.scheme != "http" or uri.hostname not in _CREDENTIAL_HOSTS or "@" in uri.netloc:
        raise LookupError("no endpoint that may be asked without TLS")
    token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if file := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        with open(file, encoding="ascii") as opened:
            token = opened.read().strip()
    path = (uri.path or "/") + (f"?{uri.query}" if uri.query else "")
    given = json.loads(_fetch(uri.netloc, path, {"authorization": token} if token else {}).body)
    found = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given.get("Token") or "")
    if not all(isinstance(part, str) for part in found):
        raise ValueError("not credentials")
    return found


def sign(
    credentials: Credentials,
    region: str,
    host: str,
    path: str,
    now: float,
    method: str = "GET",
    body: bytes = b"",
    extra: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The headers of a request for an object, without ``host``, signed with AWS Signature Version 4.

    Args:
        credentials: What to sign with.
        region: Region of the bucket.
        host: The host header, as it is sent.
        path: The path as it is sent: percent-encoded, no query. Only S3 does not encode it a second time (IAM User
            Guide, "Create a signed AWS API request").
        now: Time in epoch seconds.
        method: ``"GET"`` or ``"PUT"``.
        body: What is sent.
        extra: Further headers, in lower case.
    """
    digest = hashlib.sha256(body).hexdigest()
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": at, **extra}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    headers = dict(sorted(headers.items()))  # as the signature requires
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
    to_sign = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    del headers["host"]
    return headers


def _fetch(
    netloc: str,
    path: str,
    headers: Mapping[str, str],
    method: str = "GET",
    body: bytes = b"",
    *,
    tls: bool = False,
    part: bool = False,
) -> Answer:
    """One request on a connection of its own.

    HTTP/1.0, so that the body comes in one piece: up to ``Content-Length``, or to the end of the connection.

    Raises:
        OSError: No connection, or not in time.
        ValueError: The answer is not a 200 with a complete body of at most `MAX_DOCUMENT_BYTES`; for a part of an
            object, not a 206.
    """
    sent = {"host": netloc, **headers, **({"content-length": str(len(body))} if method == "PUT" else {})}
    lines = [f"{method} {path} HTTP/1.0", *(f"{name}: {value}" for name, value in sent.items())]
    if not all(line.isascii() and line.isprintable() for line in lines) or " " in path:
        raise ValueError("what would not stay in its line")
    parts = urlsplit(f"//{netloc}")
    deadline = time.monotonic() + _TIMEOUT_S
    connection = _connect(parts.hostname or "", parts.port or (443 if tls else 80), deadline)
    try:
        if tls:
            import ssl

            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=parts.hostname)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        received, body_at, size = bytearray(), 0, MAX_DOCUMENT_BYTES + 1
        found: dict[str, str] = {}
        while not body_at or len(received) - body_at < size:
            connection.settimeout(_left_s(deadline))
            chunk = connection.recv(_CHUNK)
            if not chunk:
                break
            received += chunk
            if not body_at and (end := received.find(b"\r\n\r\n")) >= 0:
                body_at = end + 4
                found = _parse_head(bytes(received[:end]), "206" if part else "200")
                size = int(found.get("content-length", size))
            if len(received) - body_at > (MAX_DOCUMENT_BYTES if body_at else _MAX_HEAD_BYTES):
                raise ValueError("too long")
    finally:
        connection.close()
    answer = bytes(received[body_at:])
    if not body_at or len(answer) != int(found.get("content-length", len(answer))):
        raise ValueError("cut short")
    return Answer(answer, found)


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers. All addresses together have the timeout: S3 has many of them."""
    failed = OSError("no address")
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return socket.create_connection((str(address[0]), port), _left_s(deadline))
        except OSError as error:
            failed = error
    raise failed


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _parse_head(head: bytes, wanted: str) -> dict[str, str]:
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ")[1:2] != [wanted]:
        raise ValueError(f"not a plain {wanted}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers or "content-encoding" in headers:
        raise ValueError("encoded")
    return headers
