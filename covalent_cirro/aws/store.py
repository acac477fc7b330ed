"""Blobs and documents in S3. Each blob is sent once, however many electrons share it, and checked at each read.

Knows keys and bytes, nothing of jobs. Small documents go through aiobotocore on the event loop; bulk bytes go between
files and S3 in a few threads, so that they neither block the loop nor fill the server's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import IO, Any, TypeVar

from covalent_cirro.aws import blob_objects, sessions
from covalent_cirro.aws.blob_objects import BlobObjects
from covalent_cirro.aws.blobs import CHUNK_BYTES, Source, Staged, decode, stage
from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.contract import checksums, stored_references
from covalent_cirro.contract.limits import INLINE_BYTES
from covalent_cirro.contract.places import Location, blob_key, calls_among, node_base
from covalent_cirro.contract.references import Blob, Inline, Ref
from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.errors import DigestMismatch, NotFound, TooLarge

T = TypeVar("T")

TRANSFER_THREADS = 4
"""Blobs that are staged or transferred at the same time. Each takes a few MB of memory."""

TRUSTED_FOR_S = 3600.0
"""Seconds after which a blob that was found in S3 is looked up again."""

REMEMBERED = 10_000
"""Files and blobs that are remembered, at most."""


class Store:
    """One bucket's documents and blobs for one account. Made by `engine.py`, which closes it."""

    def __init__(
        self,
        client: Any,
        blocking_client: Callable[[], Any],
        access: sessions.Access,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float,
    ) -> None:
        self._client = client
        self._objects = BlobObjects(client, access)
        self._blocking_client = functools.lru_cache(maxsize=1)(blocking_client)
        self._access = access
        self._clock = clock
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(TRANSFER_THREADS, thread_name_prefix="cirro-store")
        self._digests: OrderedDict[tuple[object, ...], Blob] = OrderedDict()
        self._references: OrderedDict[Blob, tuple[StoredReference, ...]] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._in_flight = SingleFlight[tuple[object, ...], Any]()

    def close(self) -> None:
        """End the threads. Transfers under way run to their end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def distrust(self) -> None:
        """Look up every blob in S3 again: one was missing or damaged."""
        self._seen.clear()

    # --- documents ---

    async def put_document(self, bucket: str, key: str, data: bytes, *, once: bool = False) -> None:
        """Write a small object; with ``once`` only where no object has the key."""
        condition = {"IfNoneMatch": "*"} if once else {}

        async def put() -> None:
            with self._errors("s3:PutObject", bucket, key):
                await self._client.put_object(
                    Bucket=bucket, Key=key, Body=data, ContentType="application/json", **condition
                )

        await self._patiently(put)

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None:
        """Read a small object; `None` if there is none.

        Raises:
            TooLarge: It has more than ``limit`` bytes.
        """

        async def get() -> bytes | None:
            with self._errors("s3:GetObject", bucket, key):
                try:
                    response = await self._client.get_object(Bucket=bucket, Key=key)
                except self._client.exceptions.NoSuchKey:
                    return None
                async with response["Body"] as body:
                    if response["ContentLength"] > limit:
                        raise TooLarge(bucket, key, response["ContentLength"], limit)
                    data: bytes = await body.read()
                    return data

        return await self._patiently(get)

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, datetime]]:
        """Keys under a prefix with the time they were written, in the order of the keys."""

        async def listing() -> list[tuple[str, datetime]]:
            with self._errors("s3:ListBucket", bucket, prefix):
                pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
                return [
                    (item["Key"], item["LastModified"]) async for page in pages for item in page.get("Contents", ())
                ]

        return await self._patiently(listing)

    async def list_calls(
        self, bucket: str, prefix: str, dispatch_id: str, node_id: int | None = None
    ) -> dict[Location, set[str]]:
        """Calls of a dispatch or of one of its nodes, with the names of their objects; those of a node oldest first."""
        base = f"{prefix}jobs/{dispatch_id}/" if node_id is None else node_base(prefix, dispatch_id, node_id)
        keys = [key for key, _ in await self.list_keys(bucket, base)]
        return calls_among(keys, bucket, prefix, dispatch_id)

    # --- blobs up ---

    async def put(
        self,
        source: Source,
        bucket: str,
        prefix: str,
        folder: str,
        *,
        inline: bool,
        allowed: Callable[[], Awaitable[None]] | None = None,
    ) -> Ref:
        """Make the content of a file available to a job.

        Args:
            source: The file.
            bucket: The bucket.
            prefix: Prefix of all keys; ``blobs/`` follows it.
            folder: Folder for the staged blob, if it has to be sent.
            inline: Whether a small content may be sent inside the document.
            allowed: Awaited before anything is sent; its errors are raised.

        Returns:
            `Inline` up to `INLINE_BYTES` if allowed; else the `Blob`, which is then in S3.
        """
        if inline and await self._in_thread(source.size) <= INLINE_BYTES:
            return Inline(await self._in_thread(source.read))
        identity = (*await self._in_thread(source.identity), bucket, prefix)
        blob = self._digests.get(identity)
        if blob is None or blob not in self._references or not await self._renewed(blob, bucket, prefix):
            if allowed is not None:
                await allowed()
            blob = await self._in_flight.run(identity, lambda: self._stage_and_send(source, bucket, prefix, folder))
            self._remember(self._digests, identity, blob)
        return blob

    def stored_in(self, ref: Ref) -> tuple[StoredReference, ...]:
        """The stored values (`covalent_cirro.stored`) that the content of a reference names, which `put` has given."""
        return stored_references.find(ref.data) if isinstance(ref, Inline) else self._references.get(ref, ())

    async def _stage_and_send(self, source: Source, bucket: str, prefix: str, folder: str) -> Blob:
        staged = await self._in_thread(stage, source, folder)
        try:
            key = blob_key(prefix, staged.blob.sha256)
            await self._in_flight.run((bucket, key), lambda: self._send(staged, bucket, prefix))
        finally:
            await self._in_thread(os.unlink, staged.path)
        self._remember(self._references, staged.blob, staged.references)
        return staged.blob

    async def _send(self, staged: Staged, bucket: str, prefix: str) -> None:
        if await self._renewed(staged.blob, bucket, prefix, staged.path):
            return
        key = blob_key(prefix, staged.blob.sha256)
        upload = functools.partial(blob_objects.upload, access=self._access)
        blob, path = staged.blob, staged.path
        await self._patiently(lambda: self._in_thread(upload, self._blocking_client(), blob, path, bucket, key))
        self._remember(self._seen, (bucket, key), self._clock())

    async def keep(self, blob: Blob, bucket: str, prefix: str) -> bool:
        """Whether a blob that this server did not send is in S3; an old one is renewed."""
        looked_up = ("keep", bucket, blob_key(prefix, blob.sha256))
        is_there: bool = await self._in_flight.run(
            looked_up, lambda: self._renewed(blob, bucket, prefix, trust_parts=True)
        )
        return is_there

    async def _renewed(
        self, blob: Blob, bucket: str, prefix: str, path: str | None = None, *, trust_parts: bool = False
    ) -> bool:
        """Whether the blob is in S3; an old one is renewed, so that it does not expire while a job waits.

        Args:
            blob: The blob.
            bucket: The bucket.
            prefix: Prefix of its keys.
            path: File with the blob's bytes, if there is one: a blob that was sent in parts is compared with the file.
            trust_parts: As for `blob_objects.is_whole`.
        """
        key = blob_key(prefix, blob.sha256)
        seen = self._seen.get((bucket, key))
        if seen is not None and self._clock() - seen < TRUSTED_FOR_S:
            return True
        head = await self._head(bucket, key)
        if head is None:
            return False
        if not await self._in_thread(
            functools.partial(blob_objects.is_whole, trust_parts=trust_parts), head, blob, path
        ):
            return False
        if blob_objects.is_old(head) and not await self.renew(bucket, key):
            return False
        self._remember(self._seen, (bucket, key), self._clock())
        return True

    async def holds(self, blob: Blob, bucket: str, prefix: str) -> bool:
        """Whether the blob is in S3 now, by one HeadObject; earlier lookups do not count."""
        head = await self._head(bucket, blob_key(prefix, blob.sha256))
        if head is None or head["ContentLength"] != blob.size:
            return False
        checksum = head.get("ChecksumSHA256") or ""
        # A blob that was sent in parts, or without a checksum, is checked when it is read.
        return not checksum or checksums.is_of_parts(checksum) or checksum == checksums.of_whole(blob.sha256)

    async def renew(self, bucket: str, key: str) -> bool:
        """Restart an object's lifetime by copying it onto itself; False if it is gone."""
        return await self._patiently(lambda: self._objects.renew(bucket, key))

    async def _head(self, bucket: str, key: str) -> dict[str, Any] | None:
        return await self._patiently(lambda: self._objects.head(bucket, key))

    # --- blobs down ---

    async def read_into(
        self,
        blob: Blob,
        bucket: str,
        prefix: str,
        begin: Callable[[], contextlib.AbstractContextManager[Callable[[bytes], object]]],
    ) -> None:
        """Stream a decoded blob into the file that ``begin`` opens.

        Args:
            begin: Returns a context that yields a write function. Called again after the stream broke, to start anew.

        Raises:
            DigestMismatch: The stored bytes do not have the digest that is the blob's name.
            NotFound: The blob is gone.
            OSError: The file that ``begin`` opened could not be written.
        """
        key = blob_key(prefix, blob.sha256)

        def read() -> None:
            with contextlib.closing(self._body(bucket, key)) as body, begin() as write:
                decode(self._chunks(body, bucket, key), blob, write)

        try:
            await self._patiently(lambda: self._in_thread(read))
        except (DigestMismatch, NotFound):
            self._seen.pop((bucket, key), None)  # the next electron looks it up, and sends it again
            raise

    async def read_range(self, blob: Blob, bucket: str, prefix: str, offset: int, size: int) -> bytes:
        """Read some of the stored bytes of a blob, which are not checked by its digest.

        Raises:
            NotFound: The blob is gone.
        """
        key = blob_key(prefix, blob.sha256)

        async def get() -> bytes:
            with self._errors("s3:GetObject", bucket, key):
                found = await self._client.get_object(
                    Bucket=bucket, Key=key, Range=f"bytes={offset}-{offset + size - 1}"
                )
                async with found["Body"] as body:
                    data: bytes = await body.read()
                    return data

        return await self._patiently(get)

    async def append_object(self, bucket: str, key: str, file: IO[bytes]) -> None:
        """Append an object's bytes to an open file; after a broken stream it starts again at the file's earlier end.

        Raises:
            OSError: The file could not be written.
        """
        start = file.tell()

        def read() -> None:
            file.seek(start)
            file.truncate()
            with contextlib.closing(self._body(bucket, key)) as body:
                for chunk in self._chunks(body, bucket, key):
                    file.write(chunk)

        await self._patiently(lambda: self._in_thread(read))

    def _body(self, bucket: str, key: str) -> Any:
        with self._errors("s3:GetObject", bucket, key):
            return self._blocking_client().get_object(Bucket=bucket, Key=key)["Body"]

    def _chunks(self, body: Any, bucket: str, key: str) -> Iterator[bytes]:
        """The pieces of a body. Errors of the network become `AwsError`; errors of the caller's block do not."""
        while True:
            with self._errors("s3:GetObject", bucket, key):
                chunk: bytes = body.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    # --- how ---

    def _errors(self, operation: str, bucket: str, key: str) -> contextlib.AbstractContextManager[None]:
        return blob_objects.errors(operation, bucket, key, self._access)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        return await sessions.patiently(call, self._patience_s)

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    @staticmethod
    def _remember(memory: OrderedDict[Any, Any], key: object, value: object) -> None:
        memory[key] = value
        memory.move_to_end(key)
        while len(memory) > REMEMBERED:
            memory.popitem(last=False)
