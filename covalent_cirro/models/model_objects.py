"""The objects of models in S3: puts one where there is none, moves a pointer, reads and lists. Its calls block.

Knows keys and bytes; must not know what a model is. S3 decides who of several writers is the first (S3 User Guide,
"Add preconditions to S3 operations with conditional requests").
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import IO, Any, Protocol, TypeVar

from covalent_cirro.aws import blob_objects
from covalent_cirro.aws.clients import Awaited, Clients, run_blocking
from covalent_cirro.aws.sessions import Access
from covalent_cirro.contract import checksums
from covalent_cirro.errors import AwsError, ModelError, NotFound, TooLarge

T = TypeVar("T")

PATIENCE_S = 60.0
"""Seconds for which a call is repeated that S3 throttles or fails, or refuses for a write at the same time."""

LONGEST_PAUSE_S = 5.0

_CONDITION_FAILED = frozenset({"PreconditionFailed", "NoSuchKey"})
"""Error codes of a write whose condition does not hold: another object is there (412), or, with If-Match, none (404; S3
API Reference, PutObject)."""


class Objects(Protocol):
    """What a registry needs of a bucket."""

    def put_new(self, key: str, body: IO[bytes], sha256: str, size: int) -> None:
        """Put an object where there is none. If there is one with the same bytes, nothing happens.

        Args:
            key: The key.
            body: The bytes, from the beginning of the file.
            sha256: Digest of the bytes, in hex.
            size: Number of the bytes.

        Raises:
            ModelError: There is one with other bytes.
        """

    def swap(self, key: str, data: bytes, etag: str | None) -> bool:
        """Put a small object in the place of the one with this ETag; of none, for `None`.

        Returns:
            Whether it was put; False where there is another object by now.
        """

    def read(self, key: str, limit: int) -> tuple[bytes, str] | None:
        """The bytes of an object and its ETag; `None` if there is none.

        Raises:
            TooLarge: It has more than ``limit`` bytes.
        """

    def keys(self, base: str) -> list[str]:
        """All keys that begin with a text."""

    def folders(self, base: str) -> list[str]:
        """What follows in keys that begin with a text, up to the next slash, without the slash."""


class BucketObjects:
    """Objects of a bucket.

    Args:
        access: Credentials, region and endpoint.
        bucket: Name of the bucket.
    """

    def __init__(self, access: Access, bucket: str) -> None:
        self._access = access
        self._bucket = bucket
        self._clients = Clients(access)

    def put_new(self, key: str, body: IO[bytes], sha256: str, size: int) -> None:
        """See `Objects.put_new`."""
        checksum = checksums.of_whole(sha256)

        def put() -> None:
            body.seek(0)
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ChecksumSHA256=checksum, IfNoneMatch="*")

        if self._put(key, put):
            return
        # This call may have put it itself: an answer is lost now and then, and the call is made again.
        blobs = blob_objects.BlobObjects(Awaited(self._client), self._access)
        head = run_blocking(blobs.head(self._bucket, key))
        if head is None or (head["ContentLength"], head.get("ChecksumSHA256")) != (size, checksum):
            raise ModelError(f"s3://{self._bucket}/{key} is there already, with other bytes. It was not changed.")

    def swap(self, key: str, data: bytes, etag: str | None) -> bool:
        """See `Objects.swap`."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}

        def put() -> None:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **condition)

        return self._put(key, put)

    def read(self, key: str, limit: int) -> tuple[bytes, str] | None:
        """See `Objects.read`."""

        def get() -> tuple[bytes, str]:
            found = self._client.get_object(Bucket=self._bucket, Key=key)
            with contextlib.closing(found["Body"]) as body:
                if found["ContentLength"] > limit:
                    raise TooLarge(self._bucket, key, found["ContentLength"], limit)
                return body.read(), found["ETag"]

        try:
            return self._call("s3:GetObject", key, get)
        except NotFound as error:
            if error.code != "NoSuchKey":
                raise
            return None

    def keys(self, base: str) -> list[str]:
        """See `Objects.keys`."""
        return [each["Key"] for page in self._pages(base) for each in page.get("Contents", ())]

    def folders(self, base: str) -> list[str]:
        """See `Objects.folders`."""
        pages = self._pages(base, Delimiter="/")
        return [each["Prefix"][len(base) : -1] for page in pages for each in page.get("CommonPrefixes", ())]

    def _pages(self, base: str, **options: str) -> list[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        return self._call(
            "s3:ListBucket", base, lambda: list(paginator.paginate(Bucket=self._bucket, Prefix=base, **options))
        )

    def _put(self, key: str, put: Callable[[], None]) -> bool:
        """Whether the object was put; False where its condition does not hold."""
        try:
            self._call("s3:PutObject", key, put)
        except AwsError as error:
            if error.code in _CONDITION_FAILED:
                return False
            raise
        return True

    @functools.cached_property
    def _client(self) -> Any:
        return self._clients("s3")

    def _call(self, operation: str, key: str, call: Callable[[], T]) -> T:
        import tenacity

        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, AwsError) and error.retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_S),
            stop=tenacity.stop_after_delay(PATIENCE_S),
            reraise=True,
        ):
            with attempt, blob_objects.errors(operation, self._bucket, key, self._access):
                return call()
        raise AssertionError("tenacity returns or raises")
