"""Builds images of jobs, once for each content, and checks what they contain. Must not know AWS or the command line."""

from __future__ import annotations

import json
import platform
import secrets
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from covalent_cirro.contract import protocol
from covalent_cirro.deployment.images import recipe as recipes
from covalent_cirro.deployment.images.docker_engine import DockerEngine, LocalImage, Say
from covalent_cirro.deployment.images.recipe import Recipe
from covalent_cirro.errors import ImageError, SettingsError
from covalent_cirro.jobs import image_modules
from covalent_cirro.jobs.image_rules import ARCHITECTURES, PYTHONS

LOCAL_NAME = "cirro-runner"
"""Repository name of the images on this machine."""

LATEST = "latest"
"""Tag of the image that was built last, which `cirro image push` takes by default. Of an image that was built for
several platforms at once, those after the first have the architecture behind it: ``latest-arm64``."""

INSTALL = "pip install --no-deps covalent-cirro cloudpickle awscrt"
"""The command that makes jobs able to run in an image."""

_PROBE = """
import json, os, pkgutil, platform, sys
from importlib.metadata import packages_distributions
import awscrt.s3, cloudpickle, covalent_cirro
from covalent_cirro.contract import problems
import covalent_cirro.runner.supervisor
places = [each or "." for each in sys.path if each != os.path.dirname(os.__file__)]
folders = [entry.name for each in places if os.path.isdir(each) for entry in os.scandir(each) if entry.is_dir()]
modules = {*folders, *packages_distributions(), *(each.name for each in pkgutil.iter_modules(places))}
print(json.dumps({"python": platform.python_version(), "cloudpickle": cloudpickle.__version__,
    "runner": covalent_cirro.__version__, "pid": os.getpid(),
    "call_format": getattr(problems, "CALL_FORMAT", str(problems.FORMAT)),
    "modules": sorted(each for each in modules - sys.stdlib_module_names if each.isidentifier())}))
"""
"""Program that runs in a container: it imports what a job needs, and prints the versions and the top-level modules that
can be imported. A folder is one of them also where it is no package: Python imports it as a namespace."""


class Versions(NamedTuple):
    """Versions and modules in an image, as a container of it prints them.

    Attributes:
        python: Version of its ``python``, ``"3.11.9"``.
        cloudpickle: Version of cloudpickle.
        runner: Version of covalent-cirro.
        call_format: `problems.CALL_FORMAT` of its runner.
        modules: Top-level modules that can be imported, without those of Python.
    """

    python: str
    cloudpickle: str
    runner: str
    call_format: str
    modules: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """The labels for these versions."""
        return {
            protocol.LABEL_PYTHON: self.python,
            protocol.LABEL_CLOUDPICKLE: self.cloudpickle,
            protocol.LABEL_RUNNER: self.runner,
            protocol.LABEL_FORMAT: self.call_format,
        }


class Built(NamedTuple):
    """An image on this machine.

    Attributes:
        reference: Its name: ``cirro-runner:3.11-cpu-<digest of its content>``.
        tag: The tag in ``reference``.
        image: What the engine says of the image.
        changed: Whether the image had to be built.
        warnings: What may go wrong with it.
    """

    reference: str
    tag: str
    image: LocalImage
    changed: bool
    warnings: tuple[str, ...]


def build(engine: DockerEngine, recipe: Recipe, say: Say) -> Built:
    """Build the image of a recipe, unless an image with the same content exists.

    Args:
        engine: The engine that builds it.
        recipe: The content of the image.
        say: Called with each step.

    Raises:
        SettingsError: Files of the recipe cannot be read, or contradict each other.
        ImageError: The image cannot be built, or jobs cannot run in it.
    """
    own = recipe.dockerfile
    built = _runner(engine, recipe, say) if own is None else _own(engine, recipe, own, say)
    return built._replace(warnings=warnings(built.image))


def remember(engine: DockerEngine, built: Sequence[Built]) -> None:
    """Make an image the one that `latest` returns: one for each platform that it was built for."""
    for name in _LATEST_FOR:
        engine.untag(f"{LOCAL_NAME}:{name}")
    for number, each in enumerate(built):
        engine.tag(each.reference, LOCAL_NAME, f"{LATEST}-{each.image.architecture}" if number else LATEST)


_LATEST_FOR = tuple(f"{LATEST}-{architecture}" for architecture in ARCHITECTURES.values())


def latest(engine: DockerEngine) -> tuple[Built, ...]:
    """The last image that was given to `remember`; empty where there was none."""
    found = (engine.find(f"{LOCAL_NAME}:{name}") for name in (LATEST, *_LATEST_FOR))
    return tuple(built for image in found if image is not None and (built := _known(image)) is not None)


def _known(image: LocalImage) -> Built | None:
    # podman puts docker.io/library/ before the name
    tags = [name.rpartition(":")[2] for name in image.tags if name.rpartition(":")[0].endswith(LOCAL_NAME)]
    tag = next((tag for tag in sorted(tags) if not tag.startswith(LATEST)), None)
    return None if tag is None else Built(f"{LOCAL_NAME}:{tag}", tag, image, False, warnings(image))


def warnings(image: LocalImage) -> tuple[str, ...]:
    """Differences between an image and what is installed here, by the image's labels, which `build` has checked."""
    from covalent_cirro import __version__

    found = []
    python, runner = image.labels.get(protocol.LABEL_PYTHON, ""), image.labels.get(protocol.LABEL_RUNNER, "")
    theirs, ours = image.labels.get(protocol.LABEL_CLOUDPICKLE, ""), version("cloudpickle")
    if theirs != ours:
        found.append(
            f"the image has cloudpickle {theirs}, this is {ours}; within a major version they read each other."
        )
    if ".".join(python.split(".")[:2]) != recipes.PYTHON:
        found.append(
            f"the image has Python {python}, this is Python {platform.python_version()}: electrons dispatched from "
            f"here cannot be read there. Build with --python {recipes.PYTHON}, or dispatch from Python {python}."
        )
    if runner != __version__:
        found.append(f"the image has covalent-cirro {runner}, this is {__version__}: build it again.")
    return tuple(found)


def _runner(engine: DockerEngine, recipe: Recipe, say: Say) -> Built:
    requirements = None if recipe.requirements is None else recipes.read_requirements(recipe.requirements)
    with tempfile.TemporaryDirectory(prefix="cirro-image-") as folder:
        recipes.write_runner_context(Path(folder), requirements)
        return _make(engine, recipe, Path(folder), recipes.DOCKERFILE, recipes.build_arguments(recipe), {}, say)


def _own(engine: DockerEngine, recipe: Recipe, dockerfile: Path, say: Say) -> Built:
    try:
        text = dockerfile.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Dockerfile {dockerfile}: {error}") from error
    arguments = recipes.build_arguments(recipe)
    inputs: dict[str, object] = {}
    if recipes.uses_runner(text):
        runner = _runner(engine, recipe, say)
        # The tag depends on the content only; the image's id differs between machines.
        inputs["runner"] = runner.tag
        arguments[recipes.RUNNER_ARGUMENT] = runner.reference
    elif recipe.requirements is not None or recipe.base_image is not None:
        raise SettingsError(
            f"Dockerfile {dockerfile} does not use ${{{recipes.RUNNER_ARGUMENT}}}, the image that --requirements and "
            f"--base-image are for. Let it be FROM that, with `ARG {recipes.RUNNER_ARGUMENT}` before it, or say in it "
            "what it is FROM and has to install."
        )
    return _make(engine, recipe, dockerfile.parent, dockerfile.name, arguments, inputs, say)


def _make(
    engine: DockerEngine,
    recipe: Recipe,
    context: Path,
    dockerfile: str,
    arguments: dict[str, str],
    inputs: dict[str, object],
    say: Say,
) -> Built:
    text = (context / dockerfile).read_text("utf-8")
    runner = arguments.get(recipes.RUNNER_ARGUMENT)
    bases = {name: engine.pull(name, recipe.platform, say) for name in recipes.bases(text, arguments) if name != runner}
    ids = {name: image.image_id for name, image in bases.items()}
    inputs = {**inputs, "arguments": arguments, "bases": ids, "dockerfile": text, "platform": recipe.platform}
    tag = recipes.content_tag(recipe, context, inputs)
    reference = f"{LOCAL_NAME}:{tag}"
    found = engine.find(reference)
    if found is not None:
        return Built(reference, tag, found, False, ())
    unchecked = f"{reference}-{secrets.token_hex(4)}"
    try:
        image = engine.build(
            context,
            dockerfile,
            unchecked,
            platform=recipe.platform,
            arguments={**recipes.pip_settings(), **arguments, **_pinned(recipe, bases)},
            say=say,
        )
        say("asking the image what it is")
        versions = ask(engine, unchecked)
        modules = image_modules.dump(versions.modules, image.layers)
        labels = {**versions.labels, **({protocol.LABEL_MODULES: modules} if modules else {})}
        _label(engine, unchecked, reference, recipe, labels)
    finally:
        engine.untag(unchecked)
    made = engine.find(reference)
    assert made is not None, reference
    return Built(reference, tag, made, True, ())


def _pinned(recipe: Recipe, bases: Mapping[str, LocalImage]) -> dict[str, str]:
    """Build arguments that name the base image by the digest that was looked up, whatever its tag means later."""
    base = bases.get(recipe.base)
    found = None if base is None else base.by_digest(recipe.base)
    if found is None:  # the image is in no registry
        return {}
    return {recipes.BASE_ARGUMENT: found, recipes.BASE_DIGEST_ARGUMENT: found.partition("@")[2]}


def ask(engine: DockerEngine, reference: str) -> Versions:
    """Find out the versions and modules in an image, by a container that imports what a job imports.

    Raises:
        ImageError: A job cannot run in the image; the message says what is missing, and how to add it.
    """
    code, output = engine.ask(reference, ["python", "-c", _PROBE])
    lines = output.strip().splitlines()
    try:
        told = json.loads(lines[-1])
        versions = Versions(
            python=str(told["python"]),
            cloudpickle=str(told["cloudpickle"]),
            runner=str(told["runner"]),
            call_format=str(told["call_format"]),
            modules=tuple(map(str, told["modules"])),
        )
    except (IndexError, ValueError, TypeError, KeyError):
        image = engine.find(reference)
        entrypoint = shlex.join(image.entrypoint) if image else ""
        shown = "\n    ".join(lines[-5:]) or "nothing"
        if "exec format error" in output.lower():
            raise ImageError(
                "the image is for another processor than this machine's, and cannot be looked into here. Install "
                "QEMU first (`docker run --privileged --rm tonistiigi/binfmt --install all`), or build on one."
            ) from None
        raise ImageError(
            f"jobs cannot run in this image: `python -c ...`, which looks for the runner, ended with exit code {code} "
            f"and said\n    {shown}\n"
            + (f"Its ENTRYPOINT is {entrypoint}: it must run the command that it is given. " if entrypoint else "")
            + f"The image needs Python {PYTHONS[0]} to {PYTHONS[-1]} as `python`, and `RUN {INSTALL}`."
        ) from None
    if told["pid"] != 1:
        raise ImageError(
            "jobs cannot be stopped in this image: its ENTRYPOINT starts the command as a process of its own, so that "
            "SIGTERM (a cancel, a time limit, a Spot instance that is taken back) does not reach the runner. End the "
            'script with `exec "$@"`, or write ENTRYPOINT ["/usr/bin/env"].'
        )
    return versions


def _label(engine: DockerEngine, unchecked: str, reference: str, recipe: Recipe, labels: Mapping[str, str]) -> None:
    """Build the same image with these labels, which only its container knows. They add no layer."""
    said = " ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    with tempfile.TemporaryDirectory(prefix="cirro-label-") as folder:
        (Path(folder) / "Dockerfile").write_text(f"FROM {unchecked}\nLABEL {said}\n")
        engine.build(Path(folder), "Dockerfile", reference, platform=recipe.platform, arguments={}, say=lambda _: None)
