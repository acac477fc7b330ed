"""Fetches what the electrons of a call need from S3. Imported for calls that need something."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.references import Blob, Input, Joined, JoinedParts
from covalent_cirro.runner.s3 import answers, blob_transfer
from covalent_cirro.runner.sigterm import Sigterm

if TYPE_CHECKING:
    from covalent_cirro.runner.mapped_job import MappedJob
    from covalent_cirro.runner.s3.job_bucket import JobBucket


def fetch(
    blobs: Collection[Blob],
    joined: Iterable[Joined | JoinedParts],
    items: MappedJob | None,
    bucket: JobBucket,
    folder: str,
    sigterm: Sigterm,
) -> dict[Input, str] | Failure:
    """Fetch the inputs of a call, and join those that are results of mapped electrons.

    Args:
        blobs: All blobs that the call refers to (`requests.blobs_of`).
        joined: Its inputs that are joined of some of them (`requests.joined_of`).
        items: The job's items; `None` if it is not one of a mapped electron.
        bucket: The bucket of the call.
        folder: Where the files are written.
        sigterm: Ends the wait for S3.

    Returns:
        The paths of blobs and of joined lists; why there are none, if something could not be fetched.

    Raises:
        SigtermArrived: While this waited.
    """
    if blobs or (items is not None and items.needs_client()):
        bucket.client()  # before SIGTERM may interrupt its import
    try:
        with sigterm.interrupts():
            return _fetch(blobs, joined, items, bucket, folder)
    except (blob_transfer.BlobError, answers.S3Error, OSError) as error:
        return Failure(Kind.FETCH, str(error))


def _fetch(
    blobs: Collection[Blob],
    joined: Iterable[Joined | JoinedParts],
    items: MappedJob | None,
    bucket: JobBucket,
    folder: str,
) -> dict[Input, str]:
    paths: dict[Input, str] = {}
    if blobs:
        where = bucket.where
        found = blob_transfer.fetch(bucket.client(), where.bucket, where.prefix, blobs, folder, bucket.wait)
        paths.update({blob: path for blob, path in found.items()})
    for number, each in enumerate(joined):
        from covalent_cirro.runner import item_sources

        path = os.path.join(folder, f"joined-{number}.pickle")
        item_sources.join(each, paths, path)
        paths[each] = path
    if items is not None:
        items.fetch(bucket.made, bucket.wait)
    return paths


def fetch_blob(bucket: JobBucket, folder: str, blob: Blob) -> str:
    """Fetch one blob into a folder; returns the path of its decoded bytes.

    Raises:
        BlobError: It is missing or damaged.
    """
    where = bucket.where
    return blob_transfer.fetch(bucket.client(), where.bucket, where.prefix, [blob], folder, bucket.wait)[blob]
