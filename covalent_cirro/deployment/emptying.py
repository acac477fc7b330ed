"""Counts and deletes the contents of buckets and image repositories, which CloudFormation deletes only when empty.

The gateway to S3 and ECR for that; knows no stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import translate
from covalent_cirro.deployment.stacks import access_of_client
from covalent_cirro.errors import AwsError, NotFound, StackError

MAX_DELETED_OBJECTS = 1000
"""Keys in one DeleteObjects call (S3 API Reference, DeleteObjects)."""

MAX_DELETED_IMAGES = 100
"""Images in one BatchDeleteImage call (ECR API Reference, BatchDeleteImage, imageIds)."""

MAX_COUNTED = 200_000
"""Objects that are counted, at most: 200 calls, about 20 s."""

NO_REPOSITORY = "RepositoryNotFoundException"
"""ECR's error code for a repository that does not exist, with status 400 (ECR API Reference)."""

REFERENCED = "ImageReferencedByManifestList"
"""Failure code for an image in another image's list: that one is deleted first (ECR API Reference, ImageFailure)."""


class Contents(NamedTuple):
    """The contents of a bucket or of a repository.

    Attributes:
        name: Name of the bucket or repository.
        entries: Number of object versions, delete markers and unfinished uploads; or of images.
        size_bytes: Size of all entries.
        is_all: False where there are more than were counted.
    """

    name: str
    entries: int
    size_bytes: int
    is_all: bool = True


Progress = Callable[[int], None]
"""Called with the number of entries that were deleted so far."""


def bucket_contents(s3: Any, bucket: str) -> Contents:
    """Count the objects of a bucket; none where it does not exist.

    Args:
        s3: A boto3 S3 client.
        bucket: Its name.
    """
    count = size_bytes = 0
    try:
        for page in _version_pages(s3, bucket):
            count += len(page.get("Versions", [])) + len(page.get("DeleteMarkers", []))
            size_bytes += sum(int(each.get("Size", 0)) for each in page.get("Versions", []))
            if count >= MAX_COUNTED:
                return Contents(bucket, count, size_bytes, is_all=False)
        return Contents(bucket, count + sum(1 for _ in _uploads(s3, bucket)), size_bytes)
    except NotFound:
        return Contents(bucket, 0, 0)


def empty_bucket(s3: Any, bucket: str, progress: Progress = lambda count: None) -> int:
    """Delete every version of every object, every delete marker and every unfinished upload.

    Args:
        s3: A boto3 S3 client.
        bucket: Name of the bucket. A bucket that does not exist is empty.
        progress: Called with the number of deleted entries.

    Returns:
        The number of deleted entries.

    Raises:
        StackError: S3 refuses to delete an object; with its reason.
        AccessDenied, AwsError: S3 refused or could not be reached.
    """
    count = 0
    try:
        for page in _version_pages(s3, bucket):
            objects = [
                {"Key": each["Key"], "VersionId": each["VersionId"]}
                for each in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
            ]
            if not objects:
                continue
            with _translated(s3, "s3:DeleteObjects", bucket):
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for refused in answer.get("Errors", []):
                raise StackError(
                    f"bucket {bucket!r} could not be emptied: {refused.get('Key')}: {refused.get('Code')}: "
                    f"{refused.get('Message')}. What is left of it stays."
                )
            count += len(objects)
            progress(count)
        for upload in _uploads(s3, bucket):
            with _translated(s3, "s3:AbortMultipartUpload", bucket):
                s3.abort_multipart_upload(Bucket=bucket, **upload)
            count += 1
            progress(count)
    except NotFound:
        pass
    return count


def repository_contents(ecr: Any, repository: str) -> Contents:
    """Count the images of a repository; none where it does not exist.

    Args:
        ecr: A boto3 ECR client.
        repository: Its name.
    """
    count = size_bytes = 0
    try:
        with _translated(ecr, "ecr:DescribeImages", repository):
            for page in ecr.get_paginator("describe_images").paginate(repositoryName=repository):
                count += len(page["imageDetails"])
                size_bytes += sum(int(each.get("imageSizeInBytes", 0)) for each in page["imageDetails"])
    except AwsError as error:
        if error.code != NO_REPOSITORY:
            raise
    return Contents(repository, count, size_bytes)


def empty_repository(ecr: Any, repository: str, progress: Progress = lambda count: None) -> int:
    """Delete all images, lists of images before the images in them.

    Args:
        ecr: A boto3 ECR client.
        repository: Name of the repository. A repository that does not exist is empty.
        progress: Called with the number of deleted images.

    Returns:
        The number of deleted images.

    Raises:
        StackError: ECR refuses to delete an image; with its reason.
        AccessDenied, AwsError: ECR refused or could not be reached.
    """
    count = 0
    while digests := _digests(ecr, repository):
        before = count
        refused: dict[str, str] = {}
        for start in range(0, len(digests), MAX_DELETED_IMAGES):
            some = [{"imageDigest": digest} for digest in digests[start : start + MAX_DELETED_IMAGES]]
            with _translated(ecr, "ecr:BatchDeleteImage", repository):
                answer = ecr.batch_delete_image(repositoryName=repository, imageIds=some)
            failures = {each.get("imageId", {}).get("imageDigest", ""): each for each in answer.get("failures", [])}
            count += len(some) - len(failures)
            for digest, each in failures.items():
                if each.get("failureCode") != REFERENCED:
                    refused[digest] = f"{each.get('failureCode')}: {each.get('failureReason')}"
        progress(count)
        if count == before or refused:
            digest, reason = next(iter(refused.items()), (digests[0], REFERENCED))
            raise StackError(f"image {digest} of repository {repository!r} could not be deleted: {reason}.")
    return count


def _digests(ecr: Any, repository: str) -> list[str]:
    try:
        with _translated(ecr, "ecr:ListImages", repository):
            pages = list(ecr.get_paginator("list_images").paginate(repositoryName=repository))
    except AwsError as error:
        if error.code == NO_REPOSITORY:
            return []
        raise
    return list(dict.fromkeys(each["imageDigest"] for page in pages for each in page["imageIds"]))


def _version_pages(s3: Any, bucket: str) -> Iterator[dict[str, Any]]:
    with _translated(s3, "s3:ListObjectVersions", bucket):
        yield from s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": MAX_DELETED_OBJECTS}
        )


def _uploads(s3: Any, bucket: str) -> Iterable[dict[str, str]]:
    with _translated(s3, "s3:ListMultipartUploads", bucket):
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for each in page.get("Uploads", []):
                yield {"Key": each["Key"], "UploadId": each["UploadId"]}


def _translated(client: Any, operation: str, name: str) -> Any:
    return translate(operation, access=access_of_client(client), of=repr(name))
