"""The registry behind the emulated ECR: the OCI distribution API under ``/v2/``, as docker and podman speak it.

Source: OCI Distribution Specification 1.1; what ECR answers where that leaves a choice. It must not know how images are
kept, nor ECR's own API.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode

from covalent_cirro.local.emulator.ecr.images import MAX_MANIFEST_BYTES, Image, Images
from covalent_cirro.local.emulator.ecr.layers import DIGEST, PIECE_BYTES, EcrError, Upload
from covalent_cirro.local.emulator.http.answers import Answer
from covalent_cirro.local.emulator.http.server import Environ, StartResponse

SERVICE = "registry"
"""Its calls are counted, and hit by faults, under this name: ``registry:PutManifest``."""
USER = "AWS"
"""The user name that goes with a token (ECR API Reference, GetAuthorizationToken)."""
TOKEN_LIFE_S = 12 * 3600.0
"""How long a token is valid (ECR API Reference, GetAuthorizationToken)."""
LAYERS = "/_cirro/layers/"
"""Layers by a URL that needs no headers, as S3's presigned ones: ``<LAYERS><region>/<digest>?repository=<name>``, with
the time until which it is valid, and a signature."""
LAYER_LIFE_S = 3600
"""How long such a URL is valid. AWS does not say; its URLs of S3 are valid for an hour by default."""
JSON = "application/json; charset=utf-8"
TAGS = 1000
"""Tags in one answer, at most."""

_NAME = r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
_ROUTES: tuple[tuple[re.Pattern[str], dict[str, str]], ...] = tuple(
    (re.compile(pattern), methods)
    for pattern, methods in (
        (r"/v2/?", {"GET": "Ping", "HEAD": "Ping"}),
        (rf"/v2/{_NAME}/tags/list", {"GET": "ListTags"}),
        (
            rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)",
            {"GET": "GetManifest", "HEAD": "GetManifest", "PUT": "PutManifest"},
        ),
        (rf"/v2/{_NAME}/blobs/uploads/?", {"POST": "BeginUpload"}),
        (
            rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[^/]+)",
            {"GET": "GetUpload", "PATCH": "PatchUpload", "PUT": "PutUpload", "DELETE": "DeleteUpload"},
        ),
        (rf"/v2/{_NAME}/blobs/(?P<digest>[^/]+)", {"GET": "GetBlob", "HEAD": "GetBlob"}),
    )
)

_ERRORS: dict[str, tuple[int, str]] = {
    "RepositoryNotFound": (404, "NAME_UNKNOWN"),
    "LayersNotFound": (404, "BLOB_UNKNOWN"),
    "ImageNotFound": (404, "MANIFEST_UNKNOWN"),
    "UploadNotFound": (404, "BLOB_UPLOAD_UNKNOWN"),
    "InvalidLayerPart": (416, "BLOB_UPLOAD_INVALID"),
    "InvalidLayer": (400, "DIGEST_INVALID"),
    "ImageDigestDoesNotMatch": (400, "DIGEST_INVALID"),
    "ImageTagAlreadyExists": (400, "TAG_INVALID"),
    "ReferencedImagesNotFound": (400, "MANIFEST_BLOB_UNKNOWN"),
    "InvalidParameter": (400, "MANIFEST_INVALID"),
}
"""HTTP status and the specification's error code by ECR's."""

_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload Too Large",
    416: "Range Not Satisfiable",
}


class Token(NamedTuple):
    """A token of ``ecr:GetAuthorizationToken``, valid for the repositories of a region, until an epoch second."""

    password: str
    region: str
    expires_at: float


class Tokens:
    """The passwords that the registry accepts, and the URLs that need none. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._secret = secrets.token_bytes()

    def issue(self, region: str) -> Token:
        """Make a new token."""
        now = self._clock()
        token = Token(secrets.token_urlsafe(48), region, now + TOKEN_LIFE_S)
        with self._lock:
            self._tokens = {key: each for key, each in self._tokens.items() if each.expires_at > now}
            self._tokens[token.password] = token
        return token

    def layer_url(self, endpoint_url: str, region: str, repository: str, digest: str) -> str:
        """A URL by which a blob can be fetched without headers."""
        until = str(int(self._clock() + LAYER_LIFE_S))
        signature = self._sign(region, repository, digest, until)
        query = urlencode({"repository": repository, "until": until, "signature": signature})
        return f"{endpoint_url}{LAYERS}{region}/{digest}?{query}"

    def holds(self, region: str, repository: str, digest: str, query: Mapping[str, str]) -> bool:
        """Whether `layer_url` made a URL with this query, and it has not expired."""
        until = query.get("until", "")
        expected = self._sign(region, repository, digest, until)
        genuine = hmac.compare_digest(expected.encode(), query.get("signature", "").encode())
        return genuine and float(until) >= self._clock()

    def _sign(self, *parts: str) -> str:
        return hmac.digest(self._secret, json.dumps(parts).encode(), "sha256").hex()

    def of(self, authorization: str) -> Token | None:
        """The token in a request's ``Authorization`` header, if it is one."""
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(given).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        token = self._tokens.get(password)
        return token if user == USER and token is not None and token.expires_at > self._clock() else None


def operation(method: str, path: str) -> str:
    """What a request to the registry asks for, such as ``PutManifest``."""
    for pattern, methods in _ROUTES:
        if pattern.fullmatch(path):
            return methods.get(method, f"{method} {path}")
    return f"{method} {path}"


class Registry:
    """WSGI application for ``/v2/`` and `LAYERS`.

    Args:
        images: The images.
        tokens: The tokens that it accepts.
        endpoint_url: Gives its own URL.
    """

    def __init__(self, images: Images, tokens: Tokens, endpoint_url: Callable[[], str]) -> None:
        self._images = images
        self._tokens = tokens
        self._endpoint_url = endpoint_url

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        try:
            if path.startswith(LAYERS):
                region, _, digest = path.removeprefix(LAYERS).partition("/")
                name = _query(environ).get("repository", "")
                if not self._tokens.holds(region, name, digest, _query(environ)):
                    return _give(start, _error(403, "DENIED", "The URL is not one of ECR's, or has expired."))
                return self._blob(environ, start, *self._images.blob(region, name, digest), digest)
            token = self._tokens.of(environ.get("HTTP_AUTHORIZATION", ""))
            if token is None:
                return _give(start, self._challenge())
            for pattern, methods in _ROUTES:
                found = pattern.fullmatch(path)
                if found is None:
                    continue
                if method not in methods:
                    return _give(start, _error(405, "UNSUPPORTED", f"ECR does not take {method} here."))
                answer: Callable[..., Any] = getattr(self, f"_{_snake(methods[method])}")
                made = answer(environ, token.region, **found.groupdict())
                if isinstance(made, _File):
                    return self._blob(environ, start, *made)
                return _give(start, made, bodiless=method == "HEAD")
        except EcrError as error:
            return _give(start, refusal(error), bodiless=method == "HEAD")
        return _give(start, _error(404, "NAME_UNKNOWN", f"there is no {path}"), bodiless=method == "HEAD")

    def _challenge(self) -> Answer:
        answer = _error(401, "UNAUTHORIZED", "Not Authorized")
        realm = f'Basic realm="{self._endpoint_url()}/",service="ecr.amazonaws.com"'
        return answer._replace(headers=[*answer.headers, ("Www-Authenticate", realm)])

    def _ping(self, environ: Environ, region: str) -> Answer:
        return _json(200, {})

    # --- manifests --------------------------------------------------------------------------------------------------

    def _get_manifest(self, environ: Environ, region: str, name: str, reference: str) -> Answer:
        image = self._images.find(region, name, **_named(reference))
        if environ["REQUEST_METHOD"] == "GET":
            self._images.pulled(image)
        return Answer(200, [("Content-Type", image.media_type), *_docker(image)], image.manifest)

    def _put_manifest(self, environ: Environ, region: str, name: str, reference: str) -> Answer:
        manifest = environ["wsgi.input"].read(MAX_MANIFEST_BYTES + 1)
        if len(manifest) > MAX_MANIFEST_BYTES:
            return _error(413, "MANIFEST_INVALID", f"The manifest has more than {MAX_MANIFEST_BYTES} bytes.")
        media_type = environ.get("CONTENT_TYPE") or None
        try:
            image, _ = self._images.put(region, name, manifest, media_type, **_named(reference))
        except EcrError as error:
            if error.code == "LayersNotFound":
                return _error(400, "MANIFEST_BLOB_UNKNOWN", error.text)
            raise
        return Answer(201, [("Location", f"/v2/{name}/manifests/{image.digest}"), *_docker(image)], b"")

    def _list_tags(self, environ: Environ, region: str, name: str) -> Answer:
        query = _query(environ)
        count = min(int(query["n"]) if query.get("n", "").isdigit() else TAGS, TAGS)
        tags = sorted(tag for image in self._images.all(region, name) for tag in image.tags)
        left = [tag for tag in tags if tag > query.get("last", "")]
        answer = _json(200, {"name": name, "tags": left[:count]})
        if not 0 < count < len(left):
            return answer
        more = urlencode({"n": count, "last": left[count - 1]})
        return answer._replace(headers=[*answer.headers, ("Link", f'</v2/{name}/tags/list?{more}>; rel="next"')])

    # --- uploads ----------------------------------------------------------------------------------------------------

    def _begin_upload(self, environ: Environ, region: str, name: str) -> Answer:
        query = _query(environ)
        if "mount" in query and self._images.mount(region, name, query["mount"], query.get("from", "")):
            return _created(name, query["mount"])
        upload = self._images.begin(region, name)
        if "digest" not in query:
            return _under_way(202, name, upload)
        upload.append(environ["wsgi.input"].read)
        return self._finished(region, name, upload, query["digest"])

    def _get_upload(self, environ: Environ, region: str, name: str, upload: str) -> Answer:
        return _under_way(204, name, self._images.upload(region, name, upload))

    def _patch_upload(self, environ: Environ, region: str, name: str, upload: str) -> Answer:
        found = self._images.upload(region, name, upload)
        part = re.fullmatch(r"(?:bytes )?(\d+)-\d+(?:/.*)?", environ.get("HTTP_CONTENT_RANGE", ""))
        found.append(environ["wsgi.input"].read, int(part[1]) if part else None)
        return _under_way(202, name, found)

    def _put_upload(self, environ: Environ, region: str, name: str, upload: str) -> Answer:
        found = self._images.upload(region, name, upload)
        digest = _query(environ).get("digest", "")
        if DIGEST.fullmatch(digest) is None:
            raise EcrError("InvalidLayer", f"{digest!r} is not a SHA-256 digest.")
        found.append(environ["wsgi.input"].read)
        return self._finished(region, name, found, digest)

    def _delete_upload(self, environ: Environ, region: str, name: str, upload: str) -> Answer:
        self._images.cancel(region, name, upload)
        return Answer(204, [], b"")

    def _finished(self, region: str, name: str, upload: Upload, digest: str) -> Answer:
        return _created(name, self._images.finish(region, name, upload.id, digest))

    # --- downloads --------------------------------------------------------------------------------------------------

    def _get_blob(self, environ: Environ, region: str, name: str, digest: str) -> _File:
        return _File(*self._images.blob(region, name, digest), digest)

    def _blob(self, environ: Environ, start: StartResponse, path: Path, size: int, digest: str) -> Iterable[bytes]:
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", digest),
            ("Accept-Ranges", "bytes"),
        ]
        begin, end, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", environ.get("HTTP_RANGE", ""))
        if asked is not None and any(asked.groups()):
            first, last = asked.groups()
            begin = int(first) if first else max(0, size - int(last))
            end = min(size, int(last) + 1) if first and last else size
            if begin >= end:
                answer = _error(416, "RANGE_INVALID", f"The blob has {size} bytes.")
                return _give(start, answer._replace(headers=[*answer.headers, ("Content-Range", f"bytes */{size}")]))
            status = 206
            headers.append(("Content-Range", f"bytes {begin}-{end - 1}/{size}"))
        start(f"{status} {_REASONS[status]}", [*headers, ("Content-Length", str(end - begin))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else _pieces(path, begin, end)


class _File(NamedTuple):
    path: Path
    size: int
    digest: str


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _query(environ: Environ) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}


def _named(reference: str) -> dict[str, str | None]:
    by_digest = DIGEST.fullmatch(reference) is not None
    return {"digest": reference if by_digest else None, "tag": None if by_digest else reference}


def _docker(image: Image) -> list[tuple[str, str]]:
    return [("Docker-Content-Digest", image.digest)]


def _created(name: str, digest: str) -> Answer:
    return Answer(201, [("Location", f"/v2/{name}/blobs/{digest}"), ("Docker-Content-Digest", digest)], b"")


def _under_way(status: int, name: str, upload: Upload) -> Answer:
    headers = [
        ("Location", f"/v2/{name}/blobs/uploads/{quote(upload.id)}"),
        ("Range", f"0-{max(0, upload.size - 1)}"),
        ("Docker-Upload-UUID", upload.id),
    ]
    return Answer(status, headers, b"")


def _pieces(path: Path, begin: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while begin < end and (data := file.read(min(PIECE_BYTES, end - begin))):
            begin += len(data)
            yield data


def refusal(error: EcrError) -> Answer:
    """The answer to a refused request, as the specification has it."""
    status, code = _ERRORS.get(error.code, (400, "UNSUPPORTED"))
    return _error(status, code, error.text)


def _error(status: int, code: str, text: str) -> Answer:
    return _json(status, {"errors": [{"code": code, "message": text}]})


def _json(status: int, value: Any) -> Answer:
    return Answer(status, [("Content-Type", JSON)], json.dumps(value).encode())


def _give(start: StartResponse, answer: Answer, *, bodiless: bool = False) -> Iterable[bytes]:
    headers = [("Docker-Distribution-Api-Version", "registry/2.0"), *answer.headers]
    length = [] if answer.status == 204 else [("Content-Length", str(len(answer.body)))]
    start(f"{answer.status} {_REASONS.get(answer.status, 'Error')}", [*headers, *length])
    return [] if bodiless else [answer.body]


def serves(environ: Environ) -> bool:
    """Whether a request is for the registry: its paths, without a signature of AWS's."""
    path = environ["PATH_INFO"]
    if path != "/v2" and not path.startswith("/v2/"):
        return False
    signed = environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4") or "X-Amz-Credential=" in environ["QUERY_STRING"]
    return not signed
