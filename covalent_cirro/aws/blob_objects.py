"""Blobs as objects in S3: looks at one, restarts its lifetime, compares it with a file, uploads it.

The calls of `BlobObjects` are awaited, for the event loop of the server and for clients that block
(`clients.Awaited`). `upload` and `is_whole` block. Knows keys and bytes; must not know retries and threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from covalent_cirro.aws import sessions
from covalent_cirro.contract import checksums
from covalent_cirro.contract.references import Blob
from covalent_cirro.errors import AwsError, NotFound

REFRESH_AFTER_S = 7 * 24 * 3600
"""An older blob is renewed when it is needed again, so that it does not expire before its job has run. The bucket's
lifecycle keeps blobs and jobs at least twice as long (``infra/storage.yaml``, ExpireAfterDays)."""

PARTS_AT_ONCE = 2
"""Parts of one large blob that are sent at the same time."""

_TYPE = "application/octet-stream"


class BlobObjects:
    """Looks at objects and renews them.

    Args:
        client: A client of S3 whose calls are awaited.
        access: What the client was made for; named in errors.
    """

    def __init__(self, client: Any, access: sessions.Access) -> None:
        self._client = client
        self._access = access

    async def head(self, bucket: str, key: str) -> dict[str, Any] | None:
        """What HeadObject says of an object, its checksum included; `None` where there is none."""
        from botocore.exceptions import ClientError

        with errors("s3:HeadObject", bucket, key, self._access):
            try:
                found: dict[str, Any] = await self._client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                # An answer to HEAD has no body: for a missing bucket and for a missing key it is just 404.
                if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise
            return found

    async def renew(self, bucket: str, key: str) -> bool:
        """Restart an object's lifetime by copying it onto itself; False if it is gone."""
        try:
            with errors("s3:CopyObject", bucket, key, self._access):
                await self._client.copy_object(
                    Bucket=bucket,
                    Key=key,
                    CopySource={"Bucket": bucket, "Key": key},
                    MetadataDirective="REPLACE",
                    ContentType=_TYPE,
                    ChecksumAlgorithm="SHA256",
                )
        except NotFound:
            return False
        except AwsError as error:
            if error.code != "InvalidRequest":
                raise
            # CopyObject takes at most 5 GB (S3 User Guide, "Copying objects").
            return await self._renew_in_parts(bucket, key)
        return True

    async def _renew_in_parts(self, bucket: str, key: str) -> bool:
        head = await self.head(bucket, key)
        if head is None:
            return False
        size, place = int(head["ContentLength"]), {"Bucket": bucket, "Key": key}
        # Parts as `upload` makes them: the checksum stays that of the file.
        part = checksums.part_bytes(size)
        with errors("s3:UploadPartCopy", bucket, key, self._access):
            begun = await self._client.create_multipart_upload(**place, ContentType=_TYPE, ChecksumAlgorithm="SHA256")
            upload, parts = {**place, "UploadId": begun["UploadId"]}, []
            try:
                for number, start in enumerate(range(0, size, part), 1):
                    copied = await self._client.upload_part_copy(
                        **upload,
                        PartNumber=number,
                        CopySource=place,
                        CopySourceIfMatch=head["ETag"],
                        CopySourceRange=f"bytes={start}-{min(start + part, size) - 1}",
                    )
                    said = copied["CopyPartResult"]
                    kept = {name: said[name] for name in ("ETag", "ChecksumSHA256") if name in said}
                    parts.append({"PartNumber": number, **kept})
                await self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            except BaseException:
                await self._client.abort_multipart_upload(**upload)
                raise
        return True


def errors(operation: str, bucket: str, key: str, access: sessions.Access) -> contextlib.AbstractContextManager[None]:
    """Turn errors of a call about an object into ours."""
    return sessions.translate(operation, access=access, of=f"s3_bucket_name={bucket!r}, key {key!r}")


def is_old(head: dict[str, Any]) -> bool:
    """Whether an object should be renewed where it is needed again."""
    written: datetime = head["LastModified"]
    return (datetime.now(timezone.utc) - written).total_seconds() > REFRESH_AFTER_S


def is_whole(head: dict[str, Any] | None, blob: Blob, path: str | None, *, trust_parts: bool = False) -> bool:
    """Whether an object has the bytes of a blob, by its size and S3's own checksum.

    Args:
        head: What HeadObject said; `None` where there is no object.
        blob: The blob.
        path: File with the blob's bytes, if there is one: an object that was sent in parts is compared with the file.
        trust_parts: An object that was sent in parts is taken for whole without a file; it is checked when it is read.
    """
    if head is None or head["ContentLength"] != blob.size:
        return False
    # A blob without a checksum of S3's is sent again, and has one then.
    checksum = head.get("ChecksumSHA256") or ""
    if not checksums.is_of_parts(checksum):
        return bool(checksum == checksums.of_whole(blob.sha256))
    if path is None:
        return trust_parts
    with open(path, "rb") as file:
        return checksums.of_parts(file, blob.size) == checksum


def upload(
    client: Any,
    blob: Blob,
    path: str,
    bucket: str,
    key: str,
    access: sessions.Access,
    sent: Callable[[int], object] | None = None,
) -> None:
    """Upload a file, a large one in parallel parts, with checksums that S3 checks and keeps. Blocks.

    Args:
        client: A client of S3 whose calls block.
        blob: The blob whose bytes the file has.
        path: The file.
        bucket: The bucket.
        key: The key.
        access: What the client was made for.
        sent: Called with numbers of bytes as they are sent, in several threads.
    """
    with errors("s3:PutObject", bucket, key, access):
        if blob.size <= checksums.PART_BYTES:
            with open(path, "rb") as file:
                client.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=file,
                    ContentType=_TYPE,
                    ChecksumSHA256=checksums.of_whole(blob.sha256),
                )
            return
        from boto3.exceptions import S3UploadFailedError
        from boto3.s3.transfer import S3Transfer, TransferConfig

        part = checksums.part_bytes(blob.size)
        config = TransferConfig(
            multipart_threshold=part,
            multipart_chunksize=part,
            max_concurrency=PARTS_AT_ONCE,
            # The classic client reads parts from the file as it sends them; CRT would hold them in memory.
            preferred_transfer_client="classic",
        )
        try:
            S3Transfer(client=client, config=config).upload_file(
                path,
                bucket,
                key,
                callback=sent,
                extra_args={"ContentType": _TYPE, "ChecksumAlgorithm": "SHA256"},
            )
        except S3UploadFailedError as error:
            raise error.__context__ or error from error
