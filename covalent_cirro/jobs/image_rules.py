"""Whether jobs can run in an image, by its name, manifest and labels in ECR. Pure.

This module must not know how they are fetched (`aws/image_labels.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.contract.problems import FORMAT, REVISION
from covalent_cirro.contract.protocol import (
    LABEL_CLOUDPICKLE,
    LABEL_FORMAT,
    LABEL_MODULES,
    LABEL_PYTHON,
    LABEL_RUNNER,
    same_cloudpickle,
    same_python,
)
from covalent_cirro.jobs import image_modules

STOCK_IMAGE = "public.ecr.aws/covalent/covalent-executor-base"
"""The stock plugin's image, without its tag: its default, and so the default of ``container_image_uri``."""

ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
"""Architectures of machines, as EC2 and the option ``cpu_architecture`` name them, and what images call them."""

ARCHITECTURE = "x86_64"
"""Architecture of the machines, where nobody chose another."""

VERSION_LABELS = {
    "python": LABEL_PYTHON,
    "cloudpickle": LABEL_CLOUDPICKLE,
    "runner": LABEL_RUNNER,
    "call_format": LABEL_FORMAT,
}
"""Names of versions, as in `ImageFacts`, and the labels that have them."""

PYTHONS = ("3.10", "3.11", "3.12")
"""Minor versions of Python that the runner runs with."""

DEVICES = ("cpu", "gpu")
PLATFORMS = ("linux/amd64", "linux/arm64")
BOTH_PLATFORMS = ",".join(PLATFORMS)
"""One image for machines of either architecture."""

MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
"""Media types that ECR may answer with: images, and lists of images for several architectures."""

MAX_CONFIG_BYTES = 4 << 20
"""Bytes of an image's configuration that are read, at most: a well-formed one has some kilobytes."""

TAGS_SHOWN = 10

_ECR = re.compile(r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_ECR_DUAL_STACK = re.compile(
    r"(?P<registry>\d{12})\.dkr-ecr\.(?P<region>[a-z0-9-]+)\.on\.(?:aws|(?P<cn>amazonwebservices\.com\.cn))(?=/)"
)
"""ECR's hosts for IPv4 and IPv6. The ECS agent logs in at ``dkr.ecr`` hosts, with credentials that Docker's containerd
store holds for no other (aws/amazon-ecs-agent#4829, #5106)."""
_NAME = re.compile(
    r"(?P<host>[^/@]+)/(?P<repository>[^:@]+)(?::(?P<tag>[A-Za-z0-9_][\w.-]*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class EcrImage(NamedTuple):
    """An image of a private registry of ECR.

    Attributes:
        registry: Account of the registry; `None` for the caller's own.
        region: Region of the registry; `None` for the caller's own.
        repository: Name of the repository.
        tag: Tag of the image. A digest, if there is one, takes precedence.
        digest: ``sha256:...``, or `None`.
    """

    registry: str | None
    region: str | None
    repository: str
    tag: str
    digest: str | None

    @property
    def id(self) -> dict[str, str]:
        """``imageId`` of ECR's API."""
        return {"imageTag": self.tag} if self.digest is None else {"imageDigest": self.digest}


class ImageFacts(NamedTuple):
    """What the configuration of an image says. A version is empty where the image has no label for it.

    Attributes:
        architecture: ``amd64``, ``arm64``; for a list of images without one for the machines, all that it has.
        python: Version of Python, ``"3.11"`` or ``"3.11.7"``.
        cloudpickle: Version of cloudpickle.
        runner: Version of covalent-cirro.
        call_format: `problems.CALL_FORMAT` of its runner.
        entrypoint: ENTRYPOINT of the image.
        modules: Top-level modules that can be imported in it, without those of Python; `None` where it does not say.
    """

    architecture: str
    python: str = ""
    cloudpickle: str = ""
    runner: str = ""
    call_format: str = ""
    entrypoint: tuple[str, ...] = ()
    modules: frozenset[str] | None = None


class MissingImage(NamedTuple):
    """ECR has no such image.

    Attributes:
        why: AWS's words.
        tags: Tags in the repository, newest first; `None` where they are not known.
    """

    why: str
    tags: tuple[str, ...] | None


class Pickled(NamedTuple):
    """Versions of Python and cloudpickle that pickled an electron; empty where unknown."""

    python: str
    cloudpickle: str


def ecr_image(uri: str, own_host: str) -> EcrImage | None:
    """The image in a private ECR registry that a URI names; `None` for images elsewhere.

    Args:
        uri: ``host/repository[:tag][@digest]``.
        own_host: Host and port of the AWS endpoint that is used: the emulated ECR has its images there.
    """
    name = _NAME.fullmatch(uri.strip())
    if name is None:
        return None
    private = _ECR.fullmatch(name["host"])
    if private is None and name["host"] != own_host:
        return None
    registry, region = (None, None) if private is None else (private["registry"], private["region"])
    return EcrImage(registry, region, name["repository"], name["tag"] or "latest", name["digest"])


class Manifest(NamedTuple):
    """What a manifest points to.

    Attributes:
        config: Digest of the image's configuration; `None` for a list of images.
        child: In a list, digest of the image for the machines; `None` if there is none.
        architectures: In a list, the architectures of its images.
    """

    config: str | None = None
    child: str | None = None
    architectures: tuple[str, ...] = ()


def contents(manifest: str, architecture: str = ARCHITECTURE) -> Manifest:
    """Parse a manifest.

    Args:
        manifest: The manifest of an image, or of a list of images.
        architecture: One of `ARCHITECTURES`, that of the machines.

    Raises:
        ValueError, KeyError, TypeError: It has another form.
    """
    document = json.loads(manifest)
    if "manifests" not in document:
        return Manifest(config=str(document["config"]["digest"]))
    images: dict[str, str] = {}
    for each in document["manifests"]:
        platform: Mapping[str, Any] = each.get("platform") or {}
        # BuildKit lists its attestations as images for the platform unknown/unknown.
        if platform.get("os", "linux") == "linux":
            images.setdefault(str(platform.get("architecture", "")), str(each["digest"]))
    return Manifest(child=images.get(ARCHITECTURES[architecture]), architectures=tuple(sorted(images)))


def without_ours(manifest: Manifest) -> ImageFacts:
    """What is known of a list of images that has none for the machines."""
    return ImageFacts(" and ".join(manifest.architectures))


def facts(configuration: bytes, digest: str | None) -> ImageFacts:
    """Parse an image's configuration (OCI Image Specification).

    Args:
        configuration: Its bytes.
        digest: Its digest, as the manifest has it; `None` of a manifest that has none: a list in a list of images.

    Raises:
        ValueError, TypeError, AttributeError: It has another digest or form.
    """
    if f"sha256:{hashlib.sha256(configuration).hexdigest()}" != digest:
        raise ValueError(f"the configuration of the image does not have its digest {digest}")
    document = json.loads(configuration)
    config: Mapping[str, Any] = document.get("config") or {}
    labels: Mapping[str, Any] = config.get("Labels") or {}
    entrypoint: Sequence[Any] = config.get("Entrypoint") or ()
    layers: Sequence[Any] = (document.get("rootfs") or {}).get("diff_ids") or ()
    return ImageFacts(
        architecture=str(document.get("architecture") or ""),
        python=str(labels.get(LABEL_PYTHON, "")),
        cloudpickle=str(labels.get(LABEL_CLOUDPICKLE, "")),
        runner=str(labels.get(LABEL_RUNNER, "")),
        call_format=str(labels.get(LABEL_FORMAT, "")),
        entrypoint=tuple(map(str, entrypoint)),
        modules=image_modules.load(str(labels.get(LABEL_MODULES, "")), layers),
    )


def refused_by_name(uri: str) -> str | None:
    """Why no job can run in an image, where its URI alone shows it; `None` otherwise."""
    uri = uri.strip()
    if re.split("[:@]", uri, maxsplit=1)[0] == STOCK_IMAGE:
        return (
            f"container_image_uri={uri!r} is the stock plugin's image, which is used where no other is set. It has no "
            "covalent-cirro in it: a job would be paid for and fail. `cirro image push` makes an image and sets "
            "container_image_uri to it; or set it to an image of yours that has covalent-cirro."
        )
    dual_stack = _ECR_DUAL_STACK.match(uri)
    if dual_stack is not None:
        registry, region, suffix = dual_stack["registry"], dual_stack["region"], ".cn" if dual_stack["cn"] else ""
        same = f"{registry}.dkr.ecr.{region}.amazonaws.com{suffix}{uri[dual_stack.end() :]}"
        return (
            f"container_image_uri={uri!r} names ECR by its dual-stack host, at which the ECS agent does not log in: "
            f"the image would not be pulled. It is the same image as {same!r}: set that."
        )
    return None


def why_not(
    uri: str,
    found: ImageFacts | MissingImage,
    pickled: Pickled,
    architecture: str = ARCHITECTURE,
    options: Sequence[str] = (),
) -> str | None:
    """Why a job with this image cannot run an electron; `None` if it can, or where a version is not known.

    Args:
        uri: ``container_image_uri``, for the message.
        found: What ECR says of the image.
        pickled: Versions that pickled the electron.
        architecture: One of `ARCHITECTURES`, that of the machine.
        options: `Settings.runner_options` of the electron.
    """
    if isinstance(found, MissingImage):
        return f"container_image_uri={uri!r} does not exist: AWS said {found.why.rstrip('.')}. {_there(found.tags)}"
    needed = ARCHITECTURES[architecture]
    if found.architecture not in ("", needed):
        return (
            f"container_image_uri={uri!r} is for {found.architecture}, the machines of its jobs are {needed}: it would "
            f"end with `exec format error`. Build and push it for them: `cirro image push --platform linux/{needed}`, "
            f"or `docker build --platform linux/{needed}` and `docker push`."
        )
    understood, _, revision = found.call_format.partition(".")
    if understood.isdigit() and int(understood) != FORMAT:
        newer = int(understood) > FORMAT
        remedy = "Update covalent-cirro where the Covalent server runs" if newer else "Build and push the image anew"
        return (
            f"container_image_uri={uri!r} has covalent-cirro {found.runner or 'of another version'}, which understands "
            f"calls of format {understood}; the one here writes format {FORMAT}. {remedy}: both sides need the "
            "same minor version of covalent-cirro."
        )
    if options and understood.isdigit() and (not revision.isdigit() or int(revision) < REVISION):
        return (
            f"container_image_uri={uri!r} has an older covalent-cirro, whose runner ignores {' and '.join(options)}: "
            "the electron would run without. Build and push the image anew (`cirro image push`)."
        )
    if found.python and pickled.python and not same_python(found.python, pickled.python):
        theirs, ours = _minor(found.python), _minor(pickled.python)
        return (
            f"container_image_uri={uri!r} has Python {found.python}, the electron was pickled by Python "
            f"{pickled.python}: a pickled function is read only by the same minor version. Use an image with Python "
            f"{ours} (`cirro image push --python {ours}`), or dispatch from Python {theirs}."
        )
    if found.cloudpickle and pickled.cloudpickle and not same_cloudpickle(found.cloudpickle, pickled.cloudpickle):
        return (
            f"container_image_uri={uri!r} has cloudpickle {found.cloudpickle}, the electron was pickled by "
            f"cloudpickle {pickled.cloudpickle}: another major version does not read it. Build the image with "
            f"cloudpickle=={pickled.cloudpickle}, or install cloudpickle=={found.cloudpickle} where you dispatch."
        )
    return None


def _there(tags: tuple[str, ...] | None) -> str:
    push = "`cirro image push` pushes one and sets container_image_uri."
    if tags is None:
        return push
    if not tags:
        return f"The repository has no tagged image. {push}"
    more = f" and {len(tags) - TAGS_SHOWN} more" if len(tags) > TAGS_SHOWN else ""
    return f"The repository has the tags {', '.join(tags[:TAGS_SHOWN])}{more}. Set one of them, or push: {push}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
