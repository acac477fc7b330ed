"""Pushes an image to the deployment's repository, and records it in Covalent's config as the executor's.

Must not know the command line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import Access
from covalent_cirro.covalent_server import config
from covalent_cirro.covalent_server.config import Recorded
from covalent_cirro.deployment.images import repository as images
from covalent_cirro.deployment.images.build import Built
from covalent_cirro.deployment.images.docker_engine import DockerEngine, Uploaded
from covalent_cirro.deployment.images.repository import PushedImage, Repository
from covalent_cirro.deployment.stacks import output_key
from covalent_cirro.errors import ImageError, NotFound
from covalent_cirro.jobs.formatting import sentences
from covalent_cirro.jobs.image_rules import ARCHITECTURE, ARCHITECTURES, VERSION_LABELS

_REFUSED = ("denied", "unauthorized", "not authorized", "forbidden")
"""Words in messages of engines and ECR about a user who may not push."""


PUSHING = (
    *("ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:InitiateLayerUpload"),
    *("ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:BatchGetImage", "ecr:DescribeImages"),
    "ecr:GetDownloadUrlForLayer",
)
"""Permissions for a push (ECR User Guide, IAM permissions for pushing an image) and for the check after it."""


class Pushed(NamedTuple):
    """A pushed image.

    Attributes:
        uri: URI with digest, for the executor's ``container_image_uri``.
        image: What ECR says of the image.
        uploaded: Whether it was sent; False where ECR had it already.
        recorded: The change of Covalent's config.
    """

    uri: str
    image: PushedImage
    uploaded: bool
    recorded: Recorded


def repository_of(outputs: dict[str, str], client: Any, access: Access) -> Repository:
    """A deployment's repository.

    Raises:
        NotFound: The deployment has no repository.
    """
    uri = outputs.get("ImageRepository")
    if not uri:
        raise NotFound(
            "the deployment has no repository for images: it is not complete. Finish it with `cirro deploy`.",
            operation="cloudformation:DescribeStacks",
            code="NoImageRepository",
        )
    return Repository(client, access, uri)


def machines_of(outputs: Mapping[str, str]) -> tuple[str, ...]:
    """The architectures of a deployment's machines: first that for electrons without a GPU, then that of others."""
    cpu = outputs.get(output_key("cpu_architecture")) or ARCHITECTURE
    others = any(output_key(each) in outputs for each in ("batch_gpu_queue", "batch_multi_node_queue"))
    return (cpu, ARCHITECTURE) if others and cpu != ARCHITECTURE else (cpu,)


def require_architecture(architectures: Iterable[str], machines: Sequence[str]) -> None:
    """Refuse an image that no machine of the deployment can run.

    Args:
        architectures: Architectures, ``amd64``, or platforms, ``linux/amd64``, that the image is for.
        machines: From `machines_of`.

    Raises:
        ImageError: They are other ones.
    """
    needed = [ARCHITECTURES[machine] for machine in machines]
    found = list(architectures)
    if not {each.rpartition("/")[2] for each in found} & set(needed):
        raise ImageError(
            f"the image is for {' and '.join(found)}, and the deployment's machines are {' and '.join(machines)}, on "
            f"which it would end with `exec format error`: build it with --platform linux/{needed[0]}."
        )


def missing(architectures: Iterable[str], machines: Sequence[str]) -> list[str]:
    """The architectures of machines that an image is not for, in Docker's words."""
    return [ARCHITECTURES[each] for each in machines if ARCHITECTURES[each] not in architectures]


def _require_whole(repository: Repository, there: PushedImage, built: Built) -> None:
    """Compare the pushed image with the built one: an engine may lose platform or labels.

    Raises:
        ImageError: They differ.
    """
    # The image is none of a list: its facts do not depend on the machines.
    found = images.facts(repository, [there.digest]).get(there.digest)
    wanted = {"architecture": built.image.architecture} | {
        name: built.image.labels.get(label, "") for name, label in VERSION_LABELS.items()
    }
    wrong = [
        f"{name} {getattr(found, name, '') or 'none'} in the place of {value}"
        for name, value in wanted.items()
        if getattr(found, name, "") != value
    ]
    if wrong:
        raise ImageError(
            f"{repository.uri}@{there.digest} is not the image that was built: it has {', '.join(wrong)}. The engine "
            "that built or pushed it lost that: with Docker, install its buildx plugin and build again. Delete what is "
            f"there first: aws ecr batch-delete-image --repository-name {repository.name} --image-ids "
            f"imageDigest={there.digest}"
        )


def push(
    engine: DockerEngine,
    repository: Repository,
    built: Sequence[Built],
    *,
    progress: Callable[[Uploaded], None],
    machines: Sequence[str] = (ARCHITECTURE,),
) -> Pushed:
    """Push an image to the deployment's repository, unless it is there already, and make it the executor's.

    Args:
        engine: The engine that has the image.
        repository: The deployment's repository.
        built: The image: one for each platform, of which one list is made.
        progress: Called repeatedly for each layer.
        machines: From `machines_of`.

    Raises:
        ImageError: It is for none of the deployment's machines, or it cannot be pushed.
        NotFound: The repository does not exist.
        AccessDenied: The user or role may not push.
        HostError: Covalent's config cannot be written; the image is pushed.
    """
    require_architecture([each.image.architecture for each in built], machines)
    there, uploaded = {}, False
    for each in built:
        there[each.image.architecture], new = _push_one(engine, repository, each, progress)
        uploaded = uploaded or new
    if len(built) > 1:
        digests = {architecture: each.digest for architecture, each in there.items()}
        image = images.put_list(repository, _list_tag(built), digests)
    else:
        [image] = there.values()
    uri = f"{repository.uri}@{image.digest}"
    return Pushed(uri, image, uploaded, config.set_image(uri))


def _list_tag(built: Sequence[Built]) -> str:
    """The tag of a list of images: that of the first, with a digest of all tags in the place of its own."""
    digest = hashlib.sha256(" ".join(each.tag for each in built).encode()).hexdigest()[:16]
    return f"{built[0].tag.rpartition('-')[0]}-{digest}"


def _push_one(
    engine: DockerEngine, repository: Repository, built: Built, progress: Callable[[Uploaded], None]
) -> tuple[PushedImage, bool]:
    """Push the image of one platform, unless it is there already; returns what ECR has, and whether it was sent."""
    there = images.find(repository, built.tag)
    uploaded = there is None
    if there is None:
        login = images.login(repository)
        engine.tag(built.reference, repository.uri, built.tag)
        try:
            engine.push(repository.uri, built.tag, username=login.username, password=login.password, progress=progress)
        except ImageError as error:
            if not any(word in str(error).lower() for word in _REFUSED):
                raise
            raise ImageError(
                f"{sentences(str(error), 'Check that')} {repository.access.named()} is the account you mean, and that "
                f"its user or role may push: {', '.join(PUSHING)}. Who deploys may; the managed policy "
                "AmazonEC2ContainerRegistryPowerUser is enough. The deployment's SubmitterPolicy, which is for running "
                "electrons, is not."
            ) from error
        finally:
            engine.untag(f"{repository.uri}:{built.tag}")
        there = images.find(repository, built.tag)
        if there is None:
            raise ImageError(f"the engine says that it pushed {repository.uri}:{built.tag}, and ECR has no such image.")
    _require_whole(repository, there, built)
    return there, uploaded
