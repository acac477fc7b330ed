"""The gateway to ECR: images in a deployment's repository, and the login for a push. Must not know Docker's engine.

For commands, whose calls block; the Covalent server looks up images by `aws/image_labels.py`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import Access, translate
from covalent_cirro.errors import AwsError, ImageError, NotFound
from covalent_cirro.jobs import image_rules
from covalent_cirro.jobs.image_rules import ImageFacts

CONFIG_TIMEOUT_S = 30
AT_A_TIME = 8
PAGE = 100
"""Images in one answer of DescribeImages; ECR gives up to 1000 (API Reference, DescribeImages, maxResults)."""


class Repository(NamedTuple):
    """A repository, with a client for it.

    Attributes:
        client: A boto3 ECR client.
        access: Named in messages.
        uri: URI of the repository, ``<account>.dkr.ecr.<region>.amazonaws.com/<name>``.
    """

    client: Any
    access: Access
    uri: str

    @property
    def name(self) -> str:
        """Name of the repository, without the registry's host."""
        return self.uri.partition("/")[2]


class Login(NamedTuple):
    """A login for a registry, valid for twelve hours.

    Attributes:
        username: User name, ``AWS``.
        password: Password, which must be passed to the engine only.
    """

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


class PushedImage(NamedTuple):
    """An image in ECR.

    Attributes:
        digest: Digest of its manifest, ``sha256:...``.
        tags: Its tags; empty for an image that was replaced.
        size_bytes: Size of its layers, compressed, as a pull transfers them.
        pushed_at: Time of the push.
        scan_status: Status of its last scan for vulnerabilities; empty without one.
        findings: Number of vulnerabilities by severity.
    """

    digest: str
    tags: tuple[str, ...]
    size_bytes: int
    pushed_at: datetime
    scan_status: str
    findings: dict[str, int]


def names(repository: Repository, image: PushedImage, uri: str) -> bool:
    """Whether a URI names an image of a repository."""
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
    """The image with a tag; `None` where there is none.

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
    """All images of a repository, latest first.

    Raises:
        NotFound: The repository does not exist.
    """
    with _translated("DescribeImages", repository):
        pages = repository.client.get_paginator("describe_images").paginate(
            repositoryName=repository.name, PaginationConfig={"PageSize": PAGE}
        )
        found = [_pushed(detail) for page in pages for detail in page["imageDetails"]]
    return sorted(found, key=lambda image: image.pushed_at, reverse=True)


def facts(
    repository: Repository, digests: list[str], architecture: str = image_rules.ARCHITECTURE
) -> dict[str, ImageFacts]:
    """Facts of images by digest; for a list of images, those of the image for machines of an architecture.

    Entries that are no images of programs (a chart, a signature) are left out.

    Raises:
        ImageError: The image does not exist.
        AwsError: ECR refused, or its storage could not be reached.
    """
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        read = pool.map(lambda digest: _facts(repository, digest, architecture), digests)
        return {digest: found for digest, found in zip(digests, read, strict=True) if found is not None}


def architectures(repository: Repository, digest: str) -> tuple[str, ...]:
    """What an image is built for, or all images of a list; none where ECR's answer cannot be parsed.

    Raises:
        ImageError: The image does not exist.
        AwsError: ECR refused, or its storage could not be reached.
    """
    try:
        contents = image_rules.contents(_manifest(repository, digest))
    except (ValueError, KeyError, TypeError):
        return ()
    if contents.config is None:
        return contents.architectures
    found = _facts(repository, digest, image_rules.ARCHITECTURE)
    return () if found is None or not found.architecture else (found.architecture,)


def _facts(repository: Repository, digest: str, architecture: str) -> ImageFacts | None:
    try:
        contents = image_rules.contents(_manifest(repository, digest), architecture)
        if contents.config is None:
            if contents.child is None:
                return image_rules.without_ours(contents)
            contents = image_rules.contents(_manifest(repository, contents.child))
        with _translated("GetDownloadUrlForLayer", repository):
            url = repository.client.get_download_url_for_layer(
                repositoryName=repository.name, layerDigest=contents.config
            )["downloadUrl"]
            with urllib.request.urlopen(url, timeout=CONFIG_TIMEOUT_S) as answer:  # noqa: S310  (ECR's own address)
                return image_rules.facts(answer.read(image_rules.MAX_CONFIG_BYTES), contents.config)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def put_list(repository: Repository, tag: str, images: Mapping[str, str]) -> PushedImage:
    """Make one image of several for other architectures, which are in the repository: a list of images.

    Args:
        repository: The repository.
        tag: Tag of the list.
        images: Digests of the images by architecture, ``"arm64"``.

    Raises:
        ImageError: An image does not exist.
        AccessDenied: The user or role may not push.
    """
    entries: list[dict[str, Any]] = []
    for architecture, digest in images.items():
        manifest = _manifest(repository, digest)
        entries.append(
            {
                "mediaType": str(json.loads(manifest).get("mediaType") or "application/vnd.oci.image.manifest.v1+json"),
                "size": len(manifest.encode()),
                "digest": digest,
                "platform": {"architecture": architecture, "os": "linux"},
            }
        )
    # Docker reads no list of its own kind with images of OCI's.
    kind = _OCI_INDEX if any(".oci." in each["mediaType"] for each in entries) else _DOCKER_LIST
    listed = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries})
    already = contextlib.suppress(repository.client.exceptions.ImageAlreadyExistsException)
    with _translated("PutImage", repository), already:
        repository.client.put_image(
            repositoryName=repository.name, imageManifest=listed, imageManifestMediaType=kind, imageTag=tag
        )
    found = find(repository, tag)
    if found is None:
        raise ImageError(f"ecr:PutImage was answered, and ECR has no image {repository.uri}:{tag}. Push again.")
    return found


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
    """`sessions.translate`, with ECR's error for a missing repository."""
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
