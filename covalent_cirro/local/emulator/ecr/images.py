"""The images of the emulated ECR: which each repository has, with which tags, and what a deletion removes.

What is set for a repository comes in as `RepositoryRules`. This module must not know HTTP or moto; refusals have ECR's
error codes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.ecr.image_lifecycle import ImageAge, expired, wildcard
from covalent_cirro.local.emulator.ecr.layers import EcrError, Layers, Upload

MAX_MANIFEST_BYTES = 4 << 20
"""What a registry takes at least (OCI Distribution, Pushing manifests), and this one at most."""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SINGLE = frozenset((DOCKER_MANIFEST, OCI_MANIFEST))
MULTIPLE = frozenset((DOCKER_LIST, OCI_INDEX))

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""OCI Distribution, Pulling manifests."""


class RepositoryRules(NamedTuple):
    """What is set for a repository.

    Attributes:
        mutability: ``imageTagMutability``.
        filters: Of ``imageTagMutabilityExclusionFilters``.
        lifecycle: The text of its lifecycle policy.
    """

    mutability: str = "MUTABLE"
    filters: tuple[str, ...] = ()
    lifecycle: str | None = None

    def fixes(self, tag: str) -> bool:
        """Whether a tag cannot be moved to another image."""
        excluded = any(wildcard(pattern, tag) for pattern in self.filters)
        return self.mutability.startswith("IMMUTABLE") != excluded


@dataclass
class Image:
    """One manifest that was pushed.

    Attributes:
        blobs: Digests of its configuration and layers.
        children: Digests of the images that an index lists.
        size: Bytes of its blobs; of an index, those of its largest image.
        number: Number of the push: later ones have greater numbers.
        scan: moto's object with the results of scans; `None` before the first.
    """

    digest: str
    media_type: str
    manifest: bytes
    blobs: tuple[str, ...]
    children: tuple[str, ...]
    size: int
    artifact_type: str | None
    number: int
    pushed_at: float
    pulled_at: float | None = None
    tags: list[str] = field(default_factory=list)
    scan: Any = None


@dataclass
class Repository:
    """The contents of one repository: sizes of blobs, and images, by digest."""

    name: str
    region: str
    blobs: dict[str, int] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)

    def tagged(self, tag: str) -> Image | None:
        """The image with a tag."""
        return next((image for image in self.images.values() if tag in image.tags), None)

    def parent(self, digest: str) -> Image | None:
        """An index that lists an image."""
        return next((image for image in self.images.values() if digest in image.children), None)


class Images:
    """All images of one emulator. Safe for threads.

    Args:
        folder: Folder of the layers, made with the first one.
        rules: Gives what is set for a repository, by region and name; `None` where there is no such repository.
        account: Gives the id of the registry.
    """

    def __init__(
        self,
        folder: Path,
        rules: Callable[[str, str], RepositoryRules | None],
        account: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layers = Layers(folder)
        self._rules = rules
        self._account = account
        self._clock = clock
        self._lock = threading.RLock()
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._numbers = itertools.count()

    # --- repositories -----------------------------------------------------------------------------------------------

    def repository(self, region: str, name: str) -> Repository:
        """A repository.

        Raises:
            EcrError: RepositoryNotFound.
        """
        self._existing(region, name)
        with self._lock:
            return self._repositories.setdefault((region, name), Repository(name, region))

    def _existing(self, region: str, name: str) -> RepositoryRules:
        rules = self._rules(region, name)
        if rules is None:
            raise EcrError("RepositoryNotFound", f"The repository {self._place(name)} does not exist")
        return rules

    def _place(self, name: str) -> str:
        return f"with name '{name}' in the registry with id '{self._account()}'"

    def drop_repository(self, region: str, name: str) -> None:
        """Remove the contents of a repository that was deleted."""
        with self._lock:
            dropped = self._repositories.pop((region, name), None)
            self._layers.drop_all((region, name))
            if dropped is not None:
                self._free(dropped.blobs)

    def close(self) -> None:
        """Remove all files."""
        self._layers.close()

    # --- blobs ------------------------------------------------------------------------------------------------------

    def begin(self, region: str, name: str) -> Upload:
        """A new upload."""
        self.repository(region, name)
        return self._layers.begin((region, name))

    def upload(self, region: str, name: str, upload_id: str) -> Upload:
        """An upload that has begun.

        Raises:
            EcrError: UploadNotFound.
        """
        return self._layers.upload((region, name), upload_id)

    def cancel(self, region: str, name: str, upload_id: str) -> None:
        """Remove an upload."""
        self._layers.drop((region, name), upload_id)

    def finish(self, region: str, name: str, upload_id: str, digest: str | None) -> str:
        """Make an upload a blob; returns its digest.

        Raises:
            EcrError: Its digest is another; the upload is removed then.
        """
        repository = self.repository(region, name)
        with self._lock:
            found, size = self._layers.finish((region, name), upload_id, digest)
            repository.blobs[found] = size
        return found

    def mount(self, region: str, name: str, digest: str, source: str) -> bool:
        """Add a blob of another repository to this one; False where the other lacks it."""
        repository = self.repository(region, name)
        with self._lock:
            other = self._repositories.get((region, source))
            if other is None or digest not in other.blobs:
                return False
            repository.blobs[digest] = other.blobs[digest]
        return True

    def blob(self, region: str, name: str, digest: str) -> tuple[Path, int]:
        """The file of a blob, and its size.

        Raises:
            EcrError: LayersNotFound.
        """
        size = self.repository(region, name).blobs.get(digest)
        if size is None:
            text = f"Layers with digests '[{digest}]' could not be found in the repository {self._place(name)}"
            raise EcrError("LayersNotFound", text)
        return self._layers.path(digest), size

    def _free(self, digests: Iterable[str]) -> None:
        """Remove the files of blobs that no repository has any more."""
        kept = {digest for repository in self._repositories.values() for digest in repository.blobs}
        self._layers.remove(set(digests) - kept)

    # --- images -----------------------------------------------------------------------------------------------------

    def put(
        self, region: str, name: str, manifest: bytes, media_type: str | None, *, tag: str | None, digest: str | None
    ) -> tuple[Image, bool]:
        """Add a manifest. Returns the image, and whether anything is new: the image, or its tag.

        Raises:
            EcrError: The manifest is malformed, something that it names is missing, its digest is another, or its
                tag cannot be moved.
        """
        repository = self.repository(region, name)
        parsed = _parse(manifest, media_type)
        found = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        if digest not in (None, found):
            raise EcrError("ImageDigestDoesNotMatch", f"The manifest has digest {found}, not {digest}.")
        if tag is not None and TAG.fullmatch(tag) is None:
            raise EcrError("InvalidParameter", f"{tag!r} is not a tag.")
        rules = self._existing(region, name)
        with self._lock:
            holder = None if tag is None else repository.tagged(tag)
            if tag is not None and holder is not None and holder.digest != found and rules.fixes(tag):
                text = (
                    f"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten "
                    "because the tag is immutable."
                )
                raise EcrError("ImageTagAlreadyExists", text)
            image = repository.images.get(found)
            new = image is None or (tag is not None and tag not in image.tags)
            if image is None:
                image = self._made(repository, manifest, parsed, found)
                repository.images[found] = image
            if tag is not None and holder is not image:
                if holder is not None:
                    holder.tags.remove(tag)
                image.tags.append(tag)
            # Without a tag it may be part of an index that is pushed later.
            if rules.lifecycle and new and tag is not None:
                self._expire(repository, rules.lifecycle)
        return image, new

    def _made(self, repository: Repository, manifest: bytes, parsed: _Parsed, digest: str) -> Image:
        missing = sorted(set(parsed.blobs) - set(repository.blobs))
        if missing:
            raise EcrError(
                "LayersNotFound",
                f"Layers with digests '[{', '.join(missing)}]' required for pushing image into repository with name "
                f"'{repository.name}' in the registry with id '{self._account()}' do not exist",
            )
        absent = sorted(set(parsed.children) - set(repository.images))
        if absent:
            raise EcrError(
                "ReferencedImagesNotFound",
                f"Images with digests '[{', '.join(absent)}]' required for pushing image into repository with name "
                f"'{repository.name}' in the registry with id '{self._account()}' do not exist",
            )
        size = sum(repository.blobs[blob] for blob in set(parsed.blobs))
        return Image(
            digest=digest,
            media_type=parsed.media_type,
            manifest=manifest,
            blobs=parsed.blobs,
            children=parsed.children,
            size=max([size, *(repository.images[child].size for child in parsed.children)]),
            artifact_type=parsed.artifact_type,
            number=next(self._numbers),
            pushed_at=self._clock(),
        )

    def _expire(self, repository: Repository, policy: str) -> None:
        aged = [
            ImageAge(image.digest, tuple(image.tags), image.pushed_at, image.number)
            for image in repository.images.values()
            # What an index lists stays as long as the index (User Guide, Lifecycle policies).
            if repository.parent(image.digest) is None
        ]
        for digest in expired(aged, policy, self._clock()):
            image = repository.images[digest]
            self._remove(repository, image)
            for child in image.children:
                if child in repository.images and repository.parent(child) is None:
                    self._remove(repository, repository.images[child])

    def find(self, region: str, name: str, *, tag: str | None = None, digest: str | None = None) -> Image:
        """An image by tag, digest, or both.

        Raises:
            EcrError: ImageNotFound.
        """
        repository = self.repository(region, name)
        with self._lock:
            image = (
                repository.tagged(tag) if digest is None and tag is not None else repository.images.get(digest or "")
            )
            if image is None or (tag is not None and tag not in image.tags):
                text = (
                    f"The image with imageId {{imageDigest:'{digest or 'null'}', imageTag:'{tag or 'null'}'}} does not "
                    f"exist within the repository {self._place(name)}"
                )
                raise EcrError("ImageNotFound", text)
            return image

    def pulled(self, image: Image) -> None:
        """Note that its manifest was fetched."""
        image.pulled_at = self._clock()

    def all(self, region: str, name: str) -> list[Image]:
        """The images of a repository, oldest first."""
        repository = self.repository(region, name)
        with self._lock:
            return list(repository.images.values())

    def delete(self, region: str, name: str, *, tag: str | None = None, digest: str | None = None) -> list[Json]:
        """Delete an image by digest; or by a tag, which removes the image with its last tag.

        Returns:
            The image ids that were removed.

        Raises:
            EcrError: ImageNotFound, or ImageReferencedByManifestList.
        """
        repository = self.repository(region, name)
        with self._lock:
            image = self.find(region, name, tag=tag, digest=digest)
            if digest is None and tag is not None and len(image.tags) > 1:
                image.tags.remove(tag)
                return [{"imageDigest": image.digest, "imageTag": tag}]
            parent = repository.parent(image.digest)
            if parent is not None:
                text = f"Requested image referenced by manifest list: [{parent.digest}]"
                raise EcrError("ImageReferencedByManifestList", text)
            self._remove(repository, image)
            return [{"imageDigest": image.digest, "imageTag": each} for each in image.tags] or [
                {"imageDigest": image.digest}
            ]

    def _remove(self, repository: Repository, image: Image) -> None:
        del repository.images[image.digest]
        used = {blob for other in repository.images.values() for blob in other.blobs}
        obsolete = set(image.blobs) - used
        for digest in obsolete:
            repository.blobs.pop(digest, None)
        self._free(obsolete)


class _Parsed(NamedTuple):
    media_type: str
    blobs: tuple[str, ...]
    children: tuple[str, ...]
    artifact_type: str | None


def _parse(manifest: bytes, media_type: str | None) -> _Parsed:
    try:
        document: Any = json.loads(manifest)
        said = document.get("mediaType")
        kind = media_type or said
        if said is not None and said != kind:
            raise EcrError("InvalidParameter", f"The manifest says that it is {said}, the request that it is {kind}.")
        if kind in MULTIPLE:
            children = tuple(str(each["digest"]) for each in document["manifests"])
            return _Parsed(kind, (), children, document.get("artifactType"))
        if kind in SINGLE:
            parts = [document["config"], *document["layers"]]
            blobs = tuple(str(each["digest"]) for each in parts if not each.get("urls"))
            return _Parsed(kind, blobs, (), document["config"].get("mediaType"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EcrError("InvalidParameter", f"The image manifest is malformed: {error!r}") from None
    raise EcrError("InvalidParameter", f"The image manifest's media type {kind!r} is not supported.")
