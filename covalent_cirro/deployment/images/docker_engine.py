"""The gateway to the Docker engine: builds, runs, tags and pushes images. Knows nothing of jobs.

It uses the engine's API by Docker's SDK, so that Docker, Docker Desktop and podman's service work. Docker builds with
BuildKit where that is installed (`buildx`).
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from covalent_cirro.deployment.images import buildx
from covalent_cirro.errors import ImageError

TIMEOUT_S = 3600
"""Seconds without an answer of the engine: it sends nothing while a large package is downloaded."""

LAST_LINES = 20
"""Lines of a failed step that the error shows."""

STEP = re.compile(r"(?:\[\d+/\d+\] )?step \d+/\d+ ?: (?P<instruction>.*)", re.IGNORECASE)
"""A step in the output of Docker (``Step 2/7 : RUN make``) and podman (``[1/2] STEP 2/7: RUN make``)."""

_FAILED_STEP = re.compile(r'building at STEP "(?P<instruction>.*)": (?P<why>.*)', re.DOTALL)
"""The failed step in the output of podman, which builds several stages at the same time."""

_NO_SPACE = "no space left on device"
_PLAIN_HTTP = ("does not look like a tls handshake", "server gave http response to https client")

Say = Callable[[str], None]


class LocalImage(NamedTuple):
    """An image that the engine has.

    Attributes:
        image_id: Digest of its configuration, ``sha256:...``.
        tags: Its names, ``repository:tag``.
        labels: Its labels.
        architecture: ``amd64`` or ``arm64``.
        size_bytes: Size of all its layers, unpacked.
        entrypoint: Its ENTRYPOINT; empty without one.
        digests: Its names in registries, ``repository@sha256:...``.
        layers: Digests of its unpacked layers, from the lowest to the highest one.
    """

    image_id: str
    tags: tuple[str, ...]
    labels: dict[str, str]
    architecture: str
    size_bytes: int
    entrypoint: tuple[str, ...]
    digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def by_digest(self, name: str) -> str | None:
        """The name ``repository:tag`` with a digest instead of the tag; `None` where no registry has the image."""
        repository = _repository(name)
        return next((each for each in self.digests if _repository(each) == repository), None)


def _repository(reference: str) -> str:
    """The repository of a reference, without the parts that are optional for Docker Hub."""
    name = reference.partition("@")[0]
    host, _, last = name.rpartition("/")
    full = f"{host}/{last.partition(':')[0]}" if host else last.partition(":")[0]
    return full.removeprefix("docker.io/").removeprefix("library/")


class Uploaded(NamedTuple):
    """Progress of the upload of a layer.

    Attributes:
        layer: The engine's short name of the layer.
        status: The engine's status, ``"Pushing"``.
        sent_bytes: Bytes sent so far; 0 if unknown.
        total_bytes: Bytes of the layer; 0 if unknown.
    """

    layer: str
    status: str
    sent_bytes: int
    total_bytes: int


class DockerEngine:
    """A connection to the engine. Made by `connect`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    @contextlib.contextmanager
    def connect(cls) -> Iterator[DockerEngine]:
        """Connect to the engine that ``DOCKER_HOST`` names, or to that of the usual socket.

        Raises:
            ImageError: No engine answers, or Docker's SDK is not installed.
        """
        try:
            import docker.errors

            import docker
        except ImportError as error:
            raise ImageError(
                f"images need Docker's SDK, which is not installed ({error}): pip install docker"
            ) from error
        try:
            client = docker.from_env(timeout=TIMEOUT_S)
        except docker.errors.DockerException as error:
            raise _no_engine(error) from error
        try:
            try:
                client.ping()
            except Exception as error:  # for some addresses the SDK raises errors of requests
                raise _no_engine(error) from error
            yield cls(client)
        finally:
            client.close()

    def find(self, reference: str) -> LocalImage | None:
        """The image of this name or id; `None` where the engine does not have it."""
        import docker.errors

        with _translated(f"the image {reference} cannot be looked up"):
            try:
                attributes = self._client.images.get(reference).attrs
            except docker.errors.ImageNotFound:
                return None
        config = attributes.get("Config") or {}
        return LocalImage(
            image_id=str(attributes["Id"]),
            tags=tuple(attributes.get("RepoTags") or ()),
            labels=dict(config.get("Labels") or {}),
            architecture=str(attributes["Architecture"]),
            size_bytes=int(attributes.get("Size") or 0),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            digests=tuple(attributes.get("RepoDigests") or ()),
            layers=tuple((attributes.get("RootFS") or {}).get("Layers") or ()),
        )

    def pull(self, reference: str, platform: str, say: Say) -> LocalImage:
        """The image of this name for a platform; it is pulled if the engine does not have it.

        Raises:
            ImageError: It cannot be pulled; with the engine's words.
        """
        found = self.find(reference)
        if found is not None and found.architecture == platform.rpartition("/")[2]:
            return found
        say(f"pulling {reference}")
        failed = f"the image {reference} cannot be pulled for {platform}"
        with _translated(failed):
            for line in self._client.api.pull(reference, platform=platform, stream=True, decode=True):
                if line.get("error"):
                    raise _said(failed, str(line["error"]))
        found = self.find(reference)
        if found is None:
            raise ImageError(f"{failed}: the engine pulled it and does not have it")
        return found

    def build(
        self,
        context: Path,
        dockerfile: str,
        tag: str,
        *,
        platform: str,
        arguments: Mapping[str, str],
        say: Say,
    ) -> LocalImage:
        """Build an image.

        Args:
            context: Folder with all files that the Dockerfile copies; its ``.dockerignore`` is respected.
            dockerfile: Path of the Dockerfile in the context.
            tag: Name of the image, ``repository:tag``.
            platform: Platform of the image, ``linux/amd64``.
            arguments: Build arguments; they may be secret, and are not shown.
            say: Called with each step.

        Raises:
            ImageError: A step failed; with the last lines of its output.
        """
        builder = self._builder()
        if builder is not None:
            try:
                buildx.build(
                    builder,
                    context,
                    dockerfile,
                    tag,
                    platform=platform,
                    arguments=arguments,
                    say=lambda step: say(_short(step)),
                )
            except buildx.Failed as failed:
                raise _step_failed(failed.step or "docker buildx build", failed.lines, failed.why) from failed
        else:
            self._build_by_api(context, dockerfile, tag, platform=platform, arguments=arguments, say=say)
        found = self.find(tag)
        if found is None:
            raise ImageError(f"the image could not be built: the engine finished and has no {tag}")
        return found

    def _builder(self) -> str | None:
        """Path of the program with BuildKit; `None` where it is not installed, or the engine is not Docker's."""
        with _translated("the Docker engine does not say what it is"):
            components = self._client.version().get("Components") or ()
        if any("podman" in str(each.get("Name", "")).lower() for each in components):
            return None
        return buildx.program()

    def _build_by_api(
        self,
        context: Path,
        dockerfile: str,
        tag: str,
        *,
        platform: str,
        arguments: Mapping[str, str],
        say: Say,
    ) -> None:
        foreign = platform.rpartition("/")[2] != self.architecture()
        with _translated("the image could not be built"):
            lines = self._client.api.build(
                path=str(context),
                dockerfile=dockerfile,
                tag=tag,
                buildargs=dict(arguments),
                # Only a foreign platform is named: with any platform podman searches registries for the base image.
                platform=platform if foreign else None,
                rm=True,
                forcerm=True,
                decode=True,
            )
            follow_build(lines, say)

    def architecture(self) -> str:
        """The engine's architecture, as images name it: ``amd64``."""
        with _translated("the Docker engine does not say what it runs on"):
            return str(self._client.version()["Arch"])

    def ask(self, reference: str, command: list[str]) -> tuple[int, str]:
        """Run a command in a container of an image, with the image's entrypoint and user.

        Returns:
            Exit code, and output on stdout and stderr.

        Raises:
            ImageError: The container cannot be started.
        """
        with _translated(f"a container of {reference} cannot be run"):
            container = self._client.containers.create(reference, command, network_mode="none")
            try:
                # Attached before the start, because podman's log loses the end.
                stream = container.attach(stream=True, stdout=True, stderr=True)
                container.start()
                output = b"".join(stream)
                return int(container.wait()["StatusCode"]), output.decode("utf-8", "replace")
            finally:
                container.remove(force=True, v=True)

    def tag(self, reference: str, repository: str, tag: str) -> None:
        """Add a name to an image."""
        with _translated(f"the image {reference} cannot be tagged"):
            self._client.api.tag(reference, repository, tag)

    def untag(self, reference: str) -> None:
        """Remove a name from an image; an image without another name is deleted."""
        import docker.errors

        with contextlib.suppress(docker.errors.APIError):
            self._client.api.remove_image(reference, noprune=True)

    def push(
        self, repository: str, tag: str, *, username: str, password: str, progress: Callable[[Uploaded], None]
    ) -> None:
        """Push an image to a registry.

        Args:
            repository: Repository in the registry, with the registry's host.
            tag: Tag in the registry.
            username: User name for the registry.
            password: Password for the registry. It is sent to the engine in a header of this call only.
            progress: Called repeatedly for each layer.

        Raises:
            ImageError: The push failed; with the engine's or the registry's words.
        """
        failed = f"the image {repository}:{tag} could not be pushed"
        with _translated(failed):
            lines = self._client.api.push(
                repository,
                tag,
                stream=True,
                decode=True,
                auth_config={"username": username, "password": password},
            )
            for line in lines:
                if line.get("error"):
                    raise _said(failed, str(line["error"]).replace(password, "***"))
                if line.get("id"):
                    detail = line.get("progressDetail") or {}
                    progress(
                        Uploaded(
                            str(line["id"]),
                            str(line.get("status", "")),
                            int(detail.get("current") or 0),
                            int(detail.get("total") or 0),
                        )
                    )


def follow_build(lines: Iterable[Mapping[str, Any]], say: Say) -> None:
    """Read the engine's answer to a build to its end.

    Args:
        lines: JSON documents of the answer.
        say: Called with each step.

    Raises:
        ImageError: A step failed; with the last lines of its output.
    """
    step = "the beginning"
    shown: deque[str] = deque(maxlen=LAST_LINES)
    for document in lines:
        for text in str(document.get("stream") or "").splitlines():
            announced = STEP.match(text.strip())
            if announced is not None:
                step = announced["instruction"]
                if step.upper().startswith("RUN "):  # other instructions take no time and write nothing
                    shown.clear()
                    say(_short(step))
            elif text.strip():
                shown.append(text.rstrip())
        if document.get("error"):
            said = str(document["error"]).strip()
            named = _FAILED_STEP.search(said)
            if named is not None:
                step, said = named["instruction"], named["why"]
            raise _step_failed(step, shown, said)


def _step_failed(step: str, lines: Iterable[str], said: str) -> ImageError:
    before = "".join(f"\n    {line}" for line in lines)
    return _said(f"the image could not be built: the step `{_short(step)}` failed{before}\n   ", said)


def _short(step: str) -> str:
    text = " ".join(step.split())
    return text if len(text) <= 100 else text[:97] + "..."


@contextlib.contextmanager
def _translated(failed: str) -> Iterator[None]:
    """Turn errors of the SDK into `ImageError`."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.DockerException as error:
        explanation = getattr(error, "explanation", None) or error
        text = explanation.decode("utf-8", "replace") if isinstance(explanation, bytes) else str(explanation)
        raise _said(failed, text) from error
    except requests.RequestException as error:
        raise ImageError(f"{failed}: the Docker engine broke off: {error}. Look at its log, and try again.") from error
    except OSError as error:
        raise _said(failed, str(error)) from error


def _said(failed: str, text: str) -> ImageError:
    advice = ""
    if _NO_SPACE in text.lower():
        advice = (
            " The disk that the engine keeps its images on is full: `docker system df` shows what is on it, `docker "
            "system prune` removes what nothing uses; with Docker Desktop it can also be made larger in the settings."
        )
    elif "exec format error" in text.lower():
        advice = (
            " This engine cannot run programs of that platform: build on a machine of that kind, or install QEMU "
            "(docker run --privileged --rm tonistiigi/binfmt --install all)."
        )
    elif any(words in text.lower() for words in _PLAIN_HTTP):
        advice = (
            " That registry speaks plain HTTP, as the emulated one does. Docker takes this from 127.0.0.0/8 by itself; "
            'podman wants `[[registry]]`, `location = "127.0.0.1"` and `insecure = true` in a file of '
            "/etc/containers/registries.conf.d, and a new start of its service."
        )
    return ImageError(f"{failed}: {text.strip()}{'' if text.rstrip().endswith('.') else '.'}{advice}")


def _no_engine(error: Exception) -> ImageError:
    return ImageError(
        f"no Docker engine answers ({error}). Start Docker Desktop, or install an engine "
        "(https://docs.docker.com/engine/install/) and let your user use it; podman's service does too. DOCKER_HOST "
        "names one that is elsewhere."
    )
