"""AWS Signature Version 4 of a request: which key it names, and whether it was made with that key's secret. Pure.

Source: IAM User Guide, "Create a signed AWS API request"; S3 API Reference, "Authenticating requests". It must not know
services, except that the paths of S3 are not encoded a second time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from covalent_cirro.local.emulator.http.server import Environ

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"

_HEADER = re.compile(rf"{ALGORITHM}\s+(.*)")
_FIELD = re.compile(r"(\w+)=([^,\s]*)")
_AT = "%Y%m%dT%H%M%SZ"


class Signature(NamedTuple):
    """The signature of a request, and what the request says about it.

    Attributes:
        access_key: Id of the key.
        scope: ``date/region/service/aws4_request``.
        names: The headers that are signed.
        value: The signature, in hex.
        at: Its time, as in ``X-Amz-Date``.
        expires_s: How long a presigned URL is valid; `None`: the signature is in a header.
    """

    access_key: str
    scope: str
    names: tuple[str, ...]
    value: str
    at: str
    expires_s: int | None

    @property
    def region(self) -> str:
        """The region that it was made for."""
        return self.scope.split("/")[1]

    @property
    def service(self) -> str:
        """The service that it was made for."""
        return self.scope.split("/")[2]


def of(environ: Environ) -> Signature | None:
    """The signature of a request, in its headers or its query; `None` if it has none, an incomplete one, or two.

    Two are refused: one part of the emulator could check the first, and another part use the second.
    """
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    header = _HEADER.fullmatch(authorization)
    try:
        if authorization and (header is None or "X-Amz-" in environ["QUERY_STRING"]):
            return None
        if header is not None:
            given = dict(_FIELD.findall(header[1]))
            expires_s, at = None, environ["HTTP_X_AMZ_DATE"]
        else:
            query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
            if query["X-Amz-Algorithm"] != ALGORITHM:
                return None
            given = {name: query[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders", "Signature")}
            expires_s, at = int(query["X-Amz-Expires"]), query["X-Amz-Date"]
        access_key, _, scope = given["Credential"].partition("/")
        names = tuple(given["SignedHeaders"].lower().split(";"))
        if scope.count("/") != 3:
            return None
        return Signature(access_key, scope, names, given["Signature"], at, expires_s)
    except (KeyError, ValueError):
        return None


def holds(signature: Signature, environ: Environ, secret: str, body: Callable[[], bytes], *, now: float) -> bool:
    """Whether a request was signed with a secret. Only for presigned URLs the time is checked.

    Args:
        signature: What `of` found.
        environ: The request.
        secret: Secret of the key that it names.
        body: Reads the whole body. Called where the request does not state its digest, which S3's do.
        now: Epoch seconds.
    """
    if "host" not in signature.names or not signature.scope.startswith(signature.at[:8]):
        return False
    if not _in_time(signature, now):
        return False
    path = environ["RAW_URI"].partition("?")[0] or "/"
    lines = "".join(f"{name}:{_header(environ, name)}\n" for name in signature.names)
    canonical = "\n".join(
        (
            environ["REQUEST_METHOD"],
            path if signature.service == "s3" else quote(path, safe="/-_.~"),
            _query(environ["QUERY_STRING"]),
            lines,
            ";".join(signature.names),
            _payload(signature, environ, body),
        )
    )
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    to_sign = f"{ALGORITHM}\n{signature.at}\n{signature.scope}\n{digest}"
    key = f"AWS4{secret}".encode()
    for part in signature.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return hmac.compare_digest(expected.encode(), signature.value.encode())


def _in_time(signature: Signature, now: float) -> bool:
    if signature.expires_s is None:
        return True
    try:
        signed = datetime.strptime(signature.at, _AT).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return False
    return now <= signed + signature.expires_s


def _header(environ: Environ, name: str) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return " ".join(str(value).split())


def _query(query: str) -> str:
    pairs = [part.partition("=") for part in query.split("&") if part]
    encoded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded if name != "X-Amz-Signature")


def _encoded(part: str) -> str:
    return quote(unquote(part, "latin-1"), safe="-_.~", encoding="latin-1")


def _payload(signature: Signature, environ: Environ, body: Callable[[], bytes]) -> str:
    stated: str | None = environ.get("HTTP_X_AMZ_CONTENT_SHA256")
    if stated is not None:
        return stated
    if signature.expires_s is not None:
        return UNSIGNED if signature.service == "s3" else EMPTY_SHA256
    return hashlib.sha256(body()).hexdigest()
