"""A small S3 client on awscrt: objects to and from memory and files, conditional writes, errors in plain words.

Starts in a tenth of a second and moves bulk data in parallel parts. Knows buckets, keys and bytes; nothing of calls.

Credentials come from awscrt's default chain: environment, profile, web identity, ECS
(``AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`` and ``_FULL_URI``), IMDS. 5xx answers, throttling and broken connections are
retried with growing pauses.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import (
    ClientBootstrap,
    ClientTlsContext,
    DefaultHostResolver,
    EventLoopGroup,
    TlsContextOptions,
)
from awscrt.s3 import (
    S3Client,
    S3RequestTlsMode,
    S3RequestType,
    S3RetryConfig,
    S3RetryMode,
    create_default_s3_signing_config,
)

PART_BYTES = 8 * 1024 * 1024
"""Files above this size go in parallel parts of it. S3 wants 5 MiB at least and 10,000 parts at most (S3 User Guide,
"Amazon S3 multipart upload limits"); awscrt enlarges the parts where that is not enough."""

_CONNECTIONS = 8
_CONNECTIONS_LARGE = 32
_LARGE_MEMORY_BYTES = 8 * 1024**3
_MAX_ATTEMPTS = 7  # with awscrt's pauses of at most 0.5 s, 1 s, 2 s, ... 16 s: about 15 s on average
_CONNECT_TIMEOUT_MS = 5_000
_DEFAULT_REGION = "us-east-1"

_ROLE = "the job role (jobRoleArn of the job definition)"
_NEEDED = {"GetObject": "s3:GetObject", "HeadObject": "s3:GetObject", "PutObject": "s3:PutObject"}


class S3Error(Exception):
    """An operation that failed for good.

    Attributes:
        code: S3's error code, or awscrt's name where no answer came.
        status: HTTP status; `None` where no answer came.
    """

    def __init__(self, message: str, code: str, status: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class NotThere(S3Error):
    """404: no such object or bucket."""


class Refused(S3Error):
    """403, or no credentials at all. Without s3:ListBucket, S3 says 403 for an object that is not there."""


class OutOfTime(S3Error):
    """It did not come in the time that is left to a job that is being stopped."""


class ConditionFailed(S3Error):
    """412: the object exists (If-None-Match), or is another one by now (If-Match)."""


class Answer(NamedTuple):
    """What came back.

    Attributes:
        body: The object, where it was asked for in memory.
        headers: Names in lower case.
    """

    body: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str:
        """The object's entity tag, for If-Match."""
        return self.headers.get("etag", "")


class Pending:
    """A request under way, in awscrt's own threads."""

    def __init__(self, where: tuple[str, str, str], request: Any, answer: dict[str, Any]) -> None:
        self._where = where
        self._answer = answer
        # awscrt drops a request that nobody holds. Held here and not by `answer`, which awscrt holds in turn: that
        # circle, half of it native, would never be freed, nor the body with it.
        self._request = request
        self.future: Future[Any] = request.finished_future

    def out_of_time(self) -> OutOfTime:
        """The error for one that is not waited for any longer."""
        bucket, key, operation = self._where
        return OutOfTime(f"S3 {operation} of s3://{bucket}/{key} took more time than was left", "OutOfTime", None)

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self.future.done()

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer.

        Raises:
            S3Error: It failed; the message names bucket, key, operation, and what to check.
            TimeoutError: Not yet.
        """
        from concurrent.futures import TimeoutError as NotYet

        try:
            self.future.result(timeout_s)
        except NotYet as error:
            raise TimeoutError(f"{self._where[2]} takes more than {timeout_s} s") from error
        except Exception as error:
            raise explain(error, *self._where) from error
        chunks = sorted(self._answer["chunks"])
        headers = {name.lower(): value for name, value in self._answer["headers"]}
        return Answer(b"".join(chunk for _, chunk in chunks), headers)


class Client:
    """S3 for one process.

    Args:
        environ: ``AWS_REGION``, ``AWS_DEFAULT_REGION``, ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``,
            ``AWS_CA_BUNDLE``, ``AWS_MAX_ATTEMPTS``. The credential chain reads the process's own environment.
        memory_bytes: The container's memory limit; more memory allows more connections. `None`: unknown.

    Raises:
        S3Error: An endpoint that is not a URL.
    """

    def __init__(self, environ: Mapping[str, str], memory_bytes: int | None = None) -> None:
        self.region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION
        self._endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        if self._endpoint and urlsplit(self._endpoint).scheme not in ("http", "https"):
            message = f"the endpoint {self._endpoint!r} (AWS_ENDPOINT_URL) is not an http or https URL"
            raise S3Error(message, "InvalidEndpoint", None)
        attempts = environ.get("AWS_MAX_ATTEMPTS", "")
        retries = (int(attempts) if attempts.isdigit() else _MAX_ATTEMPTS) - 1
        roomy = memory_bytes is None or memory_bytes >= _LARGE_MEMORY_BYTES
        group = EventLoopGroup(2)
        bootstrap = ClientBootstrap(group, DefaultHostResolver(group))
        credentials = AwsCredentialsProvider.new_default_chain(bootstrap)
        plain = self._endpoint.startswith("http://")
        tls = None
        if not plain:
            options = TlsContextOptions()
            bundle = environ.get("AWS_CA_BUNDLE")
            if bundle:
                options.override_default_trust_store_from_path(None, bundle)
            tls = ClientTlsContext(options).new_connection_options()
        self._client = S3Client(
            bootstrap=bootstrap,
            region=self.region,
            tls_mode=S3RequestTlsMode.DISABLED if plain else S3RequestTlsMode.ENABLED,
            tls_connection_options=tls,
            signing_config=create_default_s3_signing_config(region=self.region, credential_provider=credentials),
            part_size=PART_BYTES,
            multipart_upload_threshold=PART_BYTES,
            max_active_connections_override=_CONNECTIONS_LARGE if roomy else _CONNECTIONS,
            retry_config=S3RetryConfig(
                max_retries=max(0, retries),
                retry_mode=S3RetryMode.STANDARD if retries > 0 else S3RetryMode.NONE,
            ),
            connect_timeout_ms=_CONNECT_TIMEOUT_MS,
        )

    def address(self, bucket: str, key: str) -> tuple[str, str]:
        """Host and path of an object: by path at a set endpoint and for a bucket with dots, else by virtual host."""
        path = "/" + quote(key, safe="/-_.~")
        if self._endpoint:
            parts = urlsplit(self._endpoint)
            return parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + f"/{bucket}{path}"
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        host = f"s3.{self.region}.{domain}"
        # A certificate's wildcard covers one label only.
        return (host, f"/{bucket}{path}") if "." in bucket else (f"{bucket}.{host}", path)

    def get(self, bucket: str, key: str) -> Pending:
        """Begin to read an object into memory: one GET up to `PART_BYTES`."""
        return self._begin("GET", "GetObject", bucket, key)

    def get_file(self, bucket: str, key: str, path: str) -> Pending:
        """Begin to read an object into a file, large ones in parallel ranges. The file appears when it is done."""
        return self._begin("GET", "GetObject", bucket, key, recv_filepath=path)

    def head(self, bucket: str, key: str) -> Pending:
        """Begin to ask for an object's headers."""
        return self._begin("HEAD", "HeadObject", bucket, key)

    def put(self, bucket: str, key: str, data: bytes, condition: Mapping[str, str] | None = None) -> Pending:
        """Begin to write an object in a single PUT, where a condition (``{"If-None-Match": "*"}``) holds for it all."""
        headers = {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream", **(condition or {})}
        return self._begin("PUT", "PutObject", bucket, key, headers=headers, body=io.BytesIO(data), single=True)

    def put_file(self, bucket: str, key: str, path: str) -> Pending:
        """Begin to write an object from a file, large ones in parallel parts."""
        headers = {"Content-Length": str(os.path.getsize(path)), "Content-Type": "application/octet-stream"}
        return self._begin("PUT", "PutObject", bucket, key, headers=headers, send_filepath=path)

    def _begin(
        self,
        method: str,
        operation: str,
        bucket: str,
        key: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: io.BytesIO | None = None,
        single: bool = False,
        **options: Any,
    ) -> Pending:
        host, path = self.address(bucket, key)
        request = HttpRequest(method, path, HttpHeaders([("Host", host), *(headers or {}).items()]), body)
        types = {"GET": S3RequestType.GET_OBJECT, "PUT": S3RequestType.PUT_OBJECT}
        answer: dict[str, Any] = {"headers": [], "chunks": []}
        lock = threading.Lock()

        def on_headers(status_code: int, headers: list[tuple[str, str]], **_: Any) -> None:
            answer["headers"] = headers

        def on_body(chunk: bytes, offset: int, **_: Any) -> None:
            with lock:
                answer["chunks"].append((offset, bytes(chunk)))

        sent = self._client.make_request(
            type=S3RequestType.DEFAULT if single else types.get(method, S3RequestType.DEFAULT),
            operation_name=operation,
            request=request,
            on_headers=on_headers,
            on_body=None if "recv_filepath" in options else on_body,
            **options,
        )
        return Pending((bucket, key, operation), sent, answer)


def explain(error: Exception, bucket: str, key: str, operation: str) -> S3Error:
    """An awscrt error as ours. Takes code and message from S3's answer; never the rest, which can hold signatures."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None) or b""
    name = str(getattr(error, "name", type(error).__name__))
    code = _xml(body, "Code") or (f"HTTP {status}" if status else name)
    said = _xml(body, "Message") or ("" if status else str(getattr(error, "message", error)))
    failed = f"S3 {operation} of s3://{bucket}/{key} failed: {code}" + (f": {said}" if said else "")
    if "CREDENTIALS" in name or "IMDS" in name:
        return Refused(
            f"{failed}. The container has no AWS credentials: give the job definition a job role (jobRoleArn), or set "
            "them in its environment",
            code,
            status,
        )
    if status == 403:
        needed = _NEEDED.get(operation, operation)
        return Refused(
            f"{failed}. Check that {_ROLE} allows {needed} on arn:aws:s3:::{bucket}/*, that the bucket's policy and "
            "encryption key do not deny it, and s3:ListBucket, without which S3 says 403 for what is not there",
            code,
            status,
        )
    if status == 404:
        why = (
            f"There is no bucket {bucket!r} in this account and region"
            if code == "NoSuchBucket"
            else "The object is not there: deleted, or expired by the bucket's lifecycle rule before the job began"
        )
        return NotThere(f"{failed}. {why}", code, status)
    if status == 412:
        return ConditionFailed(failed, code, status)
    if status in (301, 400) and _xml(body, "Region"):
        return S3Error(f"{failed}. The bucket is in {_xml(body, 'Region')}: set AWS_REGION", code, status)
    if status is None:
        return S3Error(f"{failed}. Check the job's network: a route to S3, and DNS", code, status)
    return S3Error(failed, code, status)


def _xml(body: bytes, tag: str) -> str:
    match = re.search(rf"<{tag}>([^<]*)</{tag}>".encode(), body)
    return match[1].decode("utf-8", "replace").strip()[:500] if match else ""
