"""Reads in ECR the labels of a job's image before the job is submitted. Asks once for each image.

An image whose lookup fails is not refused: the runner checks the versions when it starts. `jobs/image_rules.py` decides
which images are refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from covalent_cirro.aws import sessions
from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.errors import AwsError, CirroError, ImageError
from covalent_cirro.jobs import image_rules
from covalent_cirro.jobs.image_rules import ARCHITECTURE, EcrImage, ImageFacts, MissingImage, Pickled

log = logging.getLogger(__name__)

FRESH_S = 60.0
"""Seconds for which a lookup of a tag holds. After that it is repeated while the electron goes on."""

REFUSED_FRESH_S = 2.0
"""Greatest age of a lookup by which an image is refused: the user may have pushed another one meanwhile."""

FAILED_S = 600.0
"""Seconds after a failed lookup during which AWS is not asked again."""

LOOK_S = 10.0
"""A lookup that takes longer counts as failed: electrons do not wait for an ECR that does not answer."""

MAX_LISTED = 1000
"""Images in one answer of DescribeImages (ECR API Reference, maxResults)."""


class _Known(NamedTuple):
    found: ImageFacts | MissingImage | None  # None: the lookup failed
    at: float
    for_ever: bool
    digest: str | None = None  # of the manifest that the tag names

    def age_s(self, now: float) -> float:
        return 0.0 if self.for_ever else now - self.at


class ImageVersions:
    """Labels of images, for one account. Made by `engine.py`, which closes it.

    Args:
        client: Returns an ECR client for a region, `None` for the engine's region; called when it is first needed.
        fetch: Returns the body of a URL; its second argument is the limit in bytes.
        own_host: Host and port of the AWS endpoint in use, where an emulated ECR has its images.
        access: Named in messages.
    """

    def __init__(
        self,
        client: Callable[[str | None], Awaitable[Any]],
        fetch: Callable[[str, int], Awaitable[bytes]],
        own_host: str,
        access: sessions.Access,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._fetch = fetch
        self._own_host = own_host
        self._access = access
        self._clock = clock
        # An image may be a list of images, of which each architecture has its own.
        self._known: dict[tuple[str, str], _Known] = {}
        self._by_digest: dict[tuple[str, str], ImageFacts] = {}
        self._looks = SingleFlight[tuple[str, str], _Known]()
        self._warned: set[str] = set()

    async def require(
        self, uri: str, pickled: Pickled, architecture: str = ARCHITECTURE, options: Sequence[str] = ()
    ) -> None:
        """Refuse an image that cannot run an electron. Waits for AWS only if nothing is known of the image yet.

        Args:
            uri: ``container_image_uri``.
            pickled: Versions that pickled the electron.
            architecture: One of `image_rules.ARCHITECTURES`, that of the machine.
            options: `Settings.runner_options` of the electron.

        Raises:
            ImageError: The image cannot run it; the message names both versions and both remedies.
        """
        if reason := image_rules.refused_by_name(uri):
            raise ImageError(reason)
        image = image_rules.ecr_image(uri, self._own_host)
        if image is None:
            return

        def reason_of(known: _Known) -> str | None:
            found = known.found
            return None if found is None else image_rules.why_not(uri, found, pickled, architecture, options)

        known = self._known.get((uri, architecture)) or await self._look(uri, image, architecture)
        reason = reason_of(known)
        if reason is not None and known.age_s(self._clock()) > REFUSED_FRESH_S:
            reason = reason_of(await self._look(uri, image, architecture))
        elif known.age_s(self._clock()) > (FAILED_S if known.found is None else FRESH_S):
            self._looks.start((uri, architecture), lambda: self._looked(uri, image, architecture))
        if reason is not None:
            raise ImageError(reason)

    def modules(self, uri: str, architecture: str = ARCHITECTURE) -> frozenset[str] | None:
        """Top-level modules that can be imported in an image; `None` where `require` has not found it out."""
        known = self._known.get((uri, architecture))
        return known.found.modules if known is not None and isinstance(known.found, ImageFacts) else None

    async def named(self, uri: str, max_age_s: float = FRESH_S, architecture: str = ARCHITECTURE) -> str:
        """The URI with the digest of its tag: ``host/name:tag@sha256:...``; unchanged where ECR does not know it.

        Args:
            uri: ``container_image_uri``.
            max_age_s: Greatest age of an earlier lookup that may be used.
            architecture: That of `require`, whose lookup is used.
        """
        image = image_rules.ecr_image(uri, self._own_host)
        if image is None or image.digest is not None:
            return uri
        known = self._known.get((uri, architecture))
        if known is None or known.age_s(self._clock()) > (FAILED_S if known.found is None else max_age_s):
            known = await self._look(uri, image, architecture)
        return uri if known.digest is None else f"{uri}@{known.digest}"

    async def aclose(self) -> None:
        """Cancel lookups that are under way."""
        await self._looks.aclose()

    async def _look(self, uri: str, image: EcrImage, architecture: str) -> _Known:
        return await self._looks.run((uri, architecture), lambda: self._looked(uri, image, architecture))

    async def _looked(self, uri: str, image: EcrImage, architecture: str) -> _Known:
        found: ImageFacts | MissingImage | None = None
        digest: str | None = None
        try:
            found, digest = await asyncio.wait_for(self._ask(image, architecture), LOOK_S)
        except Exception as error:
            if uri not in self._warned:
                self._warned.add(uri)
                why = str(error) if isinstance(error, CirroError) else repr(error)
                log.warning(
                    "container_image_uri=%r is used unchecked, since ECR could not be asked for it: %s", uri, why
                )
        known = self._known[uri, architecture] = _Known(
            found, self._clock(), image.digest is not None and isinstance(found, ImageFacts), digest
        )
        return known

    # --- ECR --------------------------------------------------------------------------------------------------------

    async def _ask(self, image: EcrImage, architecture: str) -> tuple[ImageFacts | MissingImage, str | None]:
        client = await self._client(image.region)
        try:
            answer = await self._call(
                client.batch_get_image, image, imageIds=[image.id], acceptedMediaTypes=list(image_rules.MANIFEST_TYPES)
            )
        except AwsError as error:
            if error.code == "RepositoryNotFoundException":
                return MissingImage(_words(error), None), None
            raise
        if not answer["images"]:
            failure = (answer.get("failures") or [{}])[0]
            why = f"{failure.get('failureCode')}: {failure.get('failureReason')}"
            if failure.get("failureCode") != "ImageNotFound":
                raise AwsError(f"AWS said {why}", operation="ecr:BatchGetImage", code=str(failure.get("failureCode")))
            return MissingImage(why, await self._tags(client, image)), None
        entry = answer["images"][0]
        digest = str(entry["imageId"]["imageDigest"])
        key = digest, architecture
        if key not in self._by_digest:
            self._by_digest[key] = await self._read(client, image, entry["imageManifest"], architecture)
        return self._by_digest[key], digest

    async def _read(self, client: Any, image: EcrImage, manifest: str, architecture: str) -> ImageFacts:
        contents = image_rules.contents(manifest, architecture)
        if contents.config is None:
            if contents.child is None:
                return image_rules.without_ours(contents)
            answer = await self._call(
                client.batch_get_image,
                image,
                imageIds=[{"imageDigest": contents.child}],
                acceptedMediaTypes=list(image_rules.MANIFEST_TYPES),
            )
            contents = image_rules.contents(answer["images"][0]["imageManifest"])
        answer = await self._call(client.get_download_url_for_layer, image, layerDigest=contents.config)
        data = await self._fetch(answer["downloadUrl"], image_rules.MAX_CONFIG_BYTES)
        return image_rules.facts(data, contents.config)

    async def _tags(self, client: Any, image: EcrImage) -> tuple[str, ...] | None:
        try:
            answer = await self._call(
                client.describe_images, image, filter={"tagStatus": "TAGGED"}, maxResults=MAX_LISTED
            )
        except AwsError:
            return None  # the list of tags only makes the message better
        newest = sorted(answer["imageDetails"], key=lambda detail: detail["imagePushedAt"], reverse=True)
        return tuple(tag for detail in newest for tag in detail.get("imageTags", ()))

    async def _call(self, call: Callable[..., Awaitable[Any]], image: EcrImage, **given: Any) -> Any:
        if image.registry is not None:
            given["registryId"] = image.registry
        name = "".join(map(str.capitalize, call.__name__.split("_")))
        with sessions.translate(f"ecr:{name}", access=self._access, of=f"repository {image.repository!r}"):
            return await call(repositoryName=image.repository, **given)


def _words(error: AwsError) -> str:
    """The message of an error, as AWS wrote it."""
    said = error.__cause__
    return str(getattr(said, "response", {}).get("Error", {}).get("Message") or error)


async def fetch(url: str, limit: int) -> bytes:
    """The body of a URL.

    Raises:
        ValueError: It has more bytes than ``limit``.
        aiohttp.ClientError: It cannot be had.
    """
    import aiohttp  # comes with aiobotocore

    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.get(url, raise_for_status=True) as answer,
    ):
        data = bytearray()
        async for piece in answer.content.iter_chunked(1 << 16):
            data += piece
            if len(data) > limit:
                raise ValueError(f"more than {limit} bytes")
        return bytes(data)
