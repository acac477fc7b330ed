"""Pushes an image to the deployment's repository, and records it in Covalent's config as the executor's.

Must not know the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import Access
from covalent_cirro.covalent_server import config
from covalent_cirro.covalent_server.config import Recorded
from covalent_cirro.deployment.images import repository as images
from covalent_cirro.deployment.images.build import Built
from covalent_cirro.deployment.images.docker_engine import DockerEngine, Uploaded
from covalent_cirro.deployment.images.repository import PushedImage, Repository
from covalent_cirro.errors import ImageError, NotFound
from covalent_cirro.jobs.formatting import sentences
from covalent_cirro.jobs.image_rules import ARCHITECTURE, VERSION_LABELS

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


def require_architecture(architecture: str) -> None:
    """Refuse an image whose architecture is not that of the deployment's instances.

    Args:
        architecture: Architecture, ``amd64``, or platform, ``linux/amd64``.

    Raises:
        ImageError: The architecture is another one.
    """
    if architecture.rpartition("/")[2] != ARCHITECTURE:
        raise ImageError(
            f"the image is for {architecture}, and the deployment's compute environments have x86_64 machines, on "
            f"which it would end with `exec format error`: build it with --platform linux/{ARCHITECTURE}."
        )


def _require_whole(repository: Repository, there: PushedImage, built: Built) -> None:
    """Compare the pushed image with the built one: an engine may lose platform or labels.

    Raises:
        ImageError: They differ.
    """
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
    built: Built,
    *,
    progress: Callable[[Uploaded], None],
) -> Pushed:
    """Push an image to the deployment's repository, unless it is there already, and make it the executor's.

    Args:
        engine: The engine that has the image.
        repository: The deployment's repository.
        built: The image.
        progress: Called repeatedly for each layer.

    Raises:
        ImageError: Its architecture is not that of the deployment's instances, or it cannot be pushed.
        NotFound: The repository does not exist.
        AccessDenied: The user or role may not push.
        HostError: Covalent's config cannot be written; the image is pushed.
    """
    require_architecture(built.image.architecture)
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
    uri = f"{repository.uri}@{there.digest}"
    return Pushed(uri, there, uploaded, config.set_image(uri))
