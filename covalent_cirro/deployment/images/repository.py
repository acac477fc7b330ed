"""The gateway to ECR: the images of a deployment's repository, and the login for a push. Must not know Docker's engine.

For commands, which wait; the Covalent server looks images up by `aws/image_labels.py`.
"""

from __future__ import annotations

import base64
import contextlib
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import Access, translate
from covalent_cirro.errors import AwsError, ImageError, NotFound
from covalent_cirro.jobs import image_rules
from covalent_cirro.jobs.image_rules import ImageFacts

MAX_CONFIG_BYTES = 4 << 20
"""A larger configuration of an image is not read: a well-formed one has some kilobytes."""

CONFIG_TIMEOUT_S = 30
AT_A_TIME = 8
PAGE = 100
"""Images in one answer of DescribeImages; ECR gives up to 1000 (API Reference, DescribeImages, maxResults)."""


class Repository(NamedTuple):
    """A repository, and how to get at it.

    Attributes:
        client: A boto3 ECR client.
        access: Named in messages.
        uri: ``<account>.dkr.ecr.<region>.amazonaws.com/<name>``.
    """

    client: Any
    access: Access
    uri: str

    @property
    def name(self) -> str:
        """Without the registry's host."""
        return self.uri.partition("/")[2]


class Login(NamedTuple):
    """For a registry, for twelve hours.

    Attributes:
        username: ``AWS``.
        password: To be handed to the engine and nobody else.
    """

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


class PushedImage(NamedTuple):
    """An image that is in ECR.

    Attributes:
        digest: ``sha256:...`` of its manifest.
        tags: Its tags; of an image that was replaced, none.
        size_bytes: Of its layers, compressed: what a pull transfers.
        pushed_at: When.
        scan_status: Of its last scan for vulnerabilities, empty where there was none.
        findings: Vulnerabilities by severity.
    """

    digest: str
    tags: tuple[str, ...]
    size_bytes: int
    pushed_at: datetime
    scan_status: str
    findings: dict[str, int]


def names(repository: Repository, image: PushedImage, uri: str) -> bool:
    """Whether a URI, such as the executor's ``container_image_uri``, names an image of a repository."""
    return uri in (f"{repository.uri}@{image.digest}", *(f"{repository.uri}:{tag}" for tag in image.tags))


def login(repository: Repository) -> Login:
    """Get a password for the registry.

    Raises:
        AccessDenied: The user or role may not call ecr:GetAuthorizationToken.
    """
    with _translated("GetAuthorizationToken", repository):
        answer = repository.client.get_authorization_token()
    username, _, password = (
        base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode().partition(":")
    )
    return Login(username, password)


def find(repository: Repository, tag: str) -> PushedImage | None:
    """The image with a tag, or `None`.

    Raises:
        NotFound: The repository does not exist.
    """
    with _translated("DescribeImages", repository):
        try:
            answer = repository.client.describe_images(repositoryName=repository.name, imageIds=[{"imageTag": tag}])
        except repository.client.exceptions.ImageNotFoundException:
            return None
    return _pushed(answer["imageDetails"][0]) if answer["imageDetails"] else None


def listing(repository: Repository) -> list[PushedImage]:
    """All images of a repository, the latest first.

    Raises:
        NotFound: The repository does not exist.
    """
    with _translated("DescribeImages", repository):
        pages = repository.client.get_paginator("describe_images").paginate(
            repositoryName=repository.name, PaginationConfig={"PageSize": PAGE}
        )
        found = [_pushed(detail) for page in pages for detail in page["imageDetails"]]
    return sorted(found, key=lambda image: image.pushed_at, reverse=True)


def facts(repository: Repository, digests: list[str]) -> dict[str, ImageFacts]:
    """What images say of themselves, by digest; of a list of images, the one for the deployment's machines.

    What is no image of programs (a chart, a signature) is left out.

    Raises:
        ImageError: There is no such image.
        AwsError: ECR refused, or its storage could not be reached.
    """
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        read = pool.map(lambda digest: _facts(repository, digest), digests)
        return {digest: found for digest, found in zip(digests, read, strict=True) if found is not None}


def _facts(repository: Repository, digest: str) -> ImageFacts | None:
    try:
        contents = image_rules.contents(_manifest(repository, digest))
        if contents.config is None:
            if contents.child is None:
                return ImageFacts(" and ".join(contents.architectures))
            contents = image_rules.contents(_manifest(repository, contents.child))
        with _translated("GetDownloadUrlForLayer", repository):
            url = repository.client.get_download_url_for_layer(
                repositoryName=repository.name, layerDigest=contents.config
            )["downloadUrl"]
            with urllib.request.urlopen(url, timeout=CONFIG_TIMEOUT_S) as answer:  # noqa: S310  (ECR's own address)
                return image_rules.facts(answer.read(MAX_CONFIG_BYTES))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _manifest(repository: Repository, digest: str) -> str:
    with _translated("BatchGetImage", repository):
        answer = repository.client.batch_get_image(
            repositoryName=repository.name,
            imageIds=[{"imageDigest": digest}],
            acceptedMediaTypes=list(image_rules.MANIFEST_TYPES),
        )
    if not answer["images"]:
        why = "; ".join(str(failure.get("failureReason")) for failure in answer.get("failures", ())) or "nothing"
        raise ImageError(f"ecr:BatchGetImage for {repository.uri}@{digest}: AWS said {why}. List them again.")
    return str(answer["images"][0]["imageManifest"])


def _pushed(detail: dict[str, Any]) -> PushedImage:
    return PushedImage(
        digest=detail["imageDigest"],
        tags=tuple(sorted(detail.get("imageTags") or ())),
        size_bytes=int(detail.get("imageSizeInBytes") or 0),
        pushed_at=detail["imagePushedAt"],
        scan_status=str((detail.get("imageScanStatus") or {}).get("status", "")),
        findings=dict((detail.get("imageScanFindingsSummary") or {}).get("findingSeverityCounts") or {}),
    )


@contextlib.contextmanager
def _translated(operation: str, repository: Repository) -> Iterator[None]:
    """`sessions.translate`, which does not know ECR's own errors."""
    try:
        with translate(f"ecr:{operation}", access=repository.access, of=f"repository {repository.uri}"):
            yield
    except AwsError as error:
        if error.code == "RepositoryNotFoundException":
            raise NotFound(
                f"{error} It was deleted, or the deployment is in another account or region: `cirro deploy` makes "
                "it again.",
                operation=error.operation,
                code=error.code,
            ) from error
        raise
