"""A small S3 client on awscrt: objects to and from memory and files, conditional writes, retries.

Moves bulk data in parallel parts, and takes a tenth of a second to import: the supervisor does so while the electron
runs. Knows buckets, keys and bytes; nothing of calls.

Credentials come from awscrt's default chain: environment, profile, web identity, ECS
(``AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`` and ``_FULL_URI``), IMDS. 5xx answers, throttling and broken connections are
retried with growing pauses.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import quote

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
    S3ChecksumAlgorithm,
    S3ChecksumConfig,
    S3ChecksumLocation,
    S3Client,
    S3RequestTlsMode,
    S3RequestType,
    S3RetryConfig,
    S3RetryMode,
    create_default_s3_signing_config,
)

from covalent_cirro.contract.checksums import PART_BYTES, of_whole
from covalent_cirro.runner.s3.answers import Answer, Endpoint, OutOfTime, explain

_CONNECTIONS = 8
_CONNECTIONS_LARGE = 32
_LARGE_MEMORY_BYTES = 8 * 1024**3
_MAX_ATTEMPTS = 12
"""With awscrt's pauses of at most 0.5 s, 1 s, 2 s, ... 16 s, 20 s, 20 s: about a minute on average. A job that gives up
costs its electron; at seven attempts, with every third call answered by 500, one job in some hundreds did."""
_CONNECT_TIMEOUT_MS = 5_000


class Pending:
    """A request in progress, in awscrt's threads."""

    def __init__(self, where: tuple[str, str, str], request: Any, answer: dict[str, Any]) -> None:
        self._where = where
        self._answer = answer
        # awscrt drops a request without references. It is kept here, not by `answer`, which awscrt refers to: that
        # circle, half of it native, would never be freed, nor the body with it.
        self._request = request
        self.future: Future[Any] = request.finished_future

    def out_of_time(self) -> OutOfTime:
        """The error for a request that is not waited for any longer."""
        bucket, key, operation = self._where
        return OutOfTime(f"S3 {operation} of s3://{bucket}/{key} took more time than was left", "OutOfTime", None)

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self.future.done()

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer.

        Raises:
            S3Error: It failed; the message names bucket, key, operation, and what to check.
            TimeoutError: It has not ended yet.
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
        endpoint: Endpoint of S3.
        environ: ``AWS_CA_BUNDLE``, ``AWS_MAX_ATTEMPTS``. The credential chain reads the process's own environment.
        memory_bytes: The container's memory limit; more memory allows more connections. `None`: unknown.
    """

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str], memory_bytes: int | None = None) -> None:
        self._endpoint = endpoint
        attempts = environ.get("AWS_MAX_ATTEMPTS", "")
        retries = (int(attempts) if attempts.isdigit() else _MAX_ATTEMPTS) - 1
        roomy = memory_bytes is None or memory_bytes >= _LARGE_MEMORY_BYTES
        group = EventLoopGroup(2)
        bootstrap = ClientBootstrap(group, DefaultHostResolver(group))
        credentials = AwsCredentialsProvider.new_default_chain(bootstrap)
        tls = None
        if not endpoint.plain:
            options = TlsContextOptions()
            bundle = environ.get("AWS_CA_BUNDLE")
            if bundle:
                options.override_default_trust_store_from_path(None, bundle)
            tls = ClientTlsContext(options).new_connection_options()
        self._client = S3Client(
            bootstrap=bootstrap,
            region=endpoint.region,
            tls_mode=S3RequestTlsMode.DISABLED if endpoint.plain else S3RequestTlsMode.ENABLED,
            tls_connection_options=tls,
            signing_config=create_default_s3_signing_config(region=endpoint.region, credential_provider=credentials),
            part_size=PART_BYTES,
            multipart_upload_threshold=PART_BYTES,
            max_active_connections_override=_CONNECTIONS_LARGE if roomy else _CONNECTIONS,
            retry_config=S3RetryConfig(
                max_retries=max(0, retries),
                retry_mode=S3RetryMode.STANDARD if retries > 0 else S3RetryMode.NONE,
            ),
            connect_timeout_ms=_CONNECT_TIMEOUT_MS,
        )

    def get(self, bucket: str, key: str) -> Pending:
        """Start to read an object into memory: one GET up to `PART_BYTES`."""
        return self._begin("GET", "GetObject", bucket, key)

    def get_file(self, bucket: str, key: str, path: str) -> Pending:
        """Start to read an object into a file, a large one in parallel ranges. The file appears when it is complete."""
        return self._begin("GET", "GetObject", bucket, key, recv_filepath=path)

    def get_range(self, bucket: str, key: str, offset: int, size: int, path: str) -> Pending:
        """Start to read some bytes of an object into a file, in one GET (RFC 9110, 14.1.2)."""
        headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
        return self._begin("GET", "GetObject", bucket, key, headers=headers, single=True, recv_filepath=path)

    def list_keys(self, bucket: str, prefix: str, after: str) -> Pending:
        """Start to list the keys under a prefix that sort behind another key: a page of at most 1,000."""
        query = {"list-type": "2", "prefix": prefix, "start-after": after}
        return self._begin("GET", "ListObjectsV2", bucket, "", query=query, single=True)

    def head(self, bucket: str, key: str) -> Pending:
        """Start to read an object's headers, its checksum included."""
        return self._begin("HEAD", "HeadObject", bucket, key, headers={"x-amz-checksum-mode": "ENABLED"})

    def put(self, bucket: str, key: str, data: bytes, condition: Mapping[str, str] | None = None) -> Pending:
        """Start to write an object in one PUT, so that a condition (``{"If-None-Match": "*"}``) holds for all of it."""
        headers = {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream", **(condition or {})}
        return self._begin("PUT", "PutObject", bucket, key, headers=headers, body=io.BytesIO(data), single=True)

    def put_file(
        self, bucket: str, key: str, path: str, sha256: str = "", condition: Mapping[str, str] | None = None
    ) -> Pending:
        """Start to write an object from a file, one of more than `PART_BYTES` in parallel parts.

        Args:
            sha256: SHA-256 of the file, in hex, which S3 checks and keeps (`checksums.py`).
            condition: As in `put`. For parts, it is sent with CompleteMultipartUpload (seen with awscrt 0.38.1).
        """
        size = os.path.getsize(path)
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream", **(condition or {})}
        options: dict[str, Any] = {}
        if sha256 and size <= PART_BYTES:
            headers |= {"x-amz-sdk-checksum-algorithm": "SHA256", "x-amz-checksum-sha256": of_whole(sha256)}
        elif sha256:
            options["checksum_config"] = S3ChecksumConfig(S3ChecksumAlgorithm.SHA256, S3ChecksumLocation.HEADER)
        return self._begin("PUT", "PutObject", bucket, key, headers=headers, send_filepath=path, **options)

    def delete(self, bucket: str, key: str) -> Pending:
        """Start to delete an object; it is no error if the object does not exist."""
        return self._begin("DELETE", "DeleteObject", bucket, key)

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
        query: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Pending:
        host, path = self._endpoint.address(bucket, key)
        if query is not None:
            path += "?" + "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
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
