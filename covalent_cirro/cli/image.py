"""``cirro image``: builds, pushes and lists the images of jobs. Shows what `deployment.images` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.jobs.formatting import megabytes
from covalent_cirro.jobs.image_rules import (
    ARCHITECTURE,
    ARCHITECTURES,
    BOTH_PLATFORMS,
    DEVICES,
    PLATFORMS,
    PYTHONS,
    VERSION_LABELS,
    ImageFacts,
)

if TYPE_CHECKING:
    from covalent_cirro.deployment.images.build import Built
    from covalent_cirro.deployment.images.recipe import Recipe
    from covalent_cirro.deployment.images.repository import PushedImage, Repository

Command = TypeVar("Command", bound=Callable[..., Any])

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


def _recipe_options(command: Command) -> Command:
    for option in (
        click.option(
            "--python",
            type=click.Choice(PYTHONS),
            help=f"Minor version of Python. Unset: that of the Python here, {_PYTHON}.",
        ),
        click.option(
            "--platform",
            type=click.Choice((*PLATFORMS, BOTH_PLATFORMS)),
            help="What it is built for; with both, one image for either. Unset: what the deployment's machines are for "
            "electrons without a GPU.",
        ),
        click.option(
            "--device", type=click.Choice(DEVICES), help="gpu: the container sees NVIDIA's driver. Unset: cpu."
        ),
        click.option(
            "--file",
            "dockerfile",
            type=_FILE,
            help="Your Dockerfile; its folder is the build context. `FROM ${CIRRO_RUNNER}` is the runner's image.",
        ),
        click.option(
            "--base-image",
            metavar="NAME",
            help="Base of the runner's image, a Debian with Python, by name or with its digest. Unset: the current "
            "python:<version>-slim-bookworm.",
        ),
        click.option(
            "--requirements", type=_FILE, help="A requirements file with the packages that your electrons import."
        ),
    ):
        command = option(command)
    return command


@click.group()
def image() -> None:
    """Build the images of jobs, push them to the deployment's repository, and list those in it."""


@image.command()
@_recipe_options
@json_option
def build(as_json: bool, **recipe: Any) -> None:
    """Build an image on this machine's Docker engine. An unchanged image is not built again.

    \b
    cirro image build --requirements requirements.txt --device gpu
    cirro image build --file Dockerfile
    """
    from covalent_cirro.deployment.images import build as image_build
    from covalent_cirro.deployment.images.docker_engine import DockerEngine

    with DockerEngine.connect() as engine, render.steps(quiet=as_json) as say:
        built = [image_build.build(engine, each, say) for each in _recipes(recipe)]
        image_build.remember(engine, built)
    if as_json:
        render.document(_described(built))
        return
    _show(built)
    render.line("Push it: cirro image push")


@image.command()
@_recipe_options
@target_options
@json_option
def push(target: Target, as_json: bool, **recipe: Any) -> None:
    """Push an image to the deployment's repository and make it the executor's.

    Without options, push the image that was built last; with options of `cirro image build`, the image that they
    describe, which is built first if needed. An image that the repository has already is not sent again.
    """
    from covalent_cirro.covalent_server import config
    from covalent_cirro.deployment.images import build as image_build
    from covalent_cirro.deployment.images import push as image_push
    from covalent_cirro.deployment.images.docker_engine import DockerEngine

    repository, machines = _repository(target)
    image_push.require_architecture([each.platform for each in _recipes(recipe)], machines)
    with DockerEngine.connect() as engine:
        with render.steps(quiet=as_json) as say:
            given = any(value is not None for value in recipe.values())
            last = () if given else image_build.latest(engine)
            built = last or [image_build.build(engine, each, say) for each in _recipes(recipe)]
            image_build.remember(engine, built)
        if not as_json:
            _show(built)
        with render.transfer(quiet=as_json) as show:
            show(built[0].tag, 0, 0)  # not every engine tells the progress of layers
            pushed = image_push.push(
                engine,
                repository,
                built,
                progress=lambda layer: show(layer.layer, layer.sent_bytes, layer.total_bytes),
                machines=machines,
            )
    if as_json:
        recorded = not pushed.recorded.kept
        render.document({**_described(built), "uri": pushed.uri, "uploaded": pushed.uploaded, "recorded": recorded})
        return
    render.done(f"{pushed.uri} {'is pushed' if pushed.uploaded else 'was there already'}")
    for lacking in image_push.missing([each.image.architecture for each in built], machines):
        other = lacking == ARCHITECTURES[ARCHITECTURE] and machines[0] != ARCHITECTURE
        electrons = "with GPUs or on several machines" if other else "without a GPU"
        render.warning(
            f"electrons {electrons} run on {lacking}, which this image is not for: they are refused with it. "
            f"`cirro image push --platform {BOTH_PLATFORMS}` makes one image for both."
        )
    for name, value in pushed.recorded.kept.items():
        render.warning(
            f"{name} stays {value!r}, which somebody set in {config.config_path()}: jobs use that image. Take "
            "the line out and push again, or set it yourself."
        )
    if not pushed.recorded.kept:
        render.done(f"jobs use it: it is container_image_uri in {config.config_path()}")


@image.command("list")
@target_options
@json_option
def listing(target: Target, as_json: bool) -> None:
    """List the images in the deployment's repository, latest first, and mark the one that jobs use."""
    from covalent_cirro.covalent_server import config
    from covalent_cirro.deployment.images import repository as images

    repository, machines = _repository(target)
    found = images.listing(repository)
    told = images.facts(repository, [each.digest for each in found], machines[0])
    uri = str(config.executor_section().get(config.IMAGE) or "")
    rows = [
        _listed(repository, each, told.get(each.digest), used=images.names(repository, each, uri)) for each in found
    ]
    if as_json:
        render.document(rows)
        return
    if not rows:
        render.line(f"{repository.uri} has no image yet: `cirro image push` builds and pushes one")
        return
    render.line(repository.uri)
    render.table(
        ("", "tag", "digest", "size", "pushed", "Python", "cloudpickle", "runner", "scan"),
        [
            (
                "*" if row["used"] else "",
                ", ".join(row["tags"]) or "-",
                row["digest"].removeprefix("sha256:")[:12],
                megabytes(row["size_bytes"]),
                f"{datetime.fromisoformat(row['pushed_at']):%Y-%m-%d %H:%M}",
                *(row["versions"][name] or "-" for name in ("python", "cloudpickle", "runner")),
                _scan(row["scan"]),
            )
            for row in rows
        ],
    )
    if any(row["used"] for row in rows):
        render.line("* jobs use it")
    else:
        render.line(f"Jobs use none of them: container_image_uri is {uri!r}")


def _recipes(given: dict[str, Any]) -> list[Recipe]:
    """What is to be built: a recipe for each platform."""
    from covalent_cirro.covalent_server import config
    from covalent_cirro.deployment.images.recipe import Recipe

    wanted = {name: value for name, value in given.items() if value is not None}
    machine = str(config.executor_section().get("cpu_architecture") or ARCHITECTURE)
    platforms = wanted.pop("platform", f"linux/{ARCHITECTURES.get(machine, machine)}")
    return [Recipe(**wanted, platform=platform) for platform in platforms.split(",")]


def _repository(target: Target) -> tuple[Repository, tuple[str, ...]]:
    """The deployment's repository, and the architectures of its machines."""
    from covalent_cirro import deployment
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.deployment.images import push as image_push

    client = Clients(target.access)
    outputs = deployment.outputs(client("cloudformation"), target.stack_name)
    return image_push.repository_of(outputs, client("ecr"), target.access), image_push.machines_of(outputs)


def _described(built: Sequence[Built]) -> dict[str, Any]:
    """The image; for several platforms the first one, and the others in ``more``."""
    first, *others = built
    described = {
        "image": first.reference,
        "id": first.image.image_id,
        "changed": first.changed,
        "size_bytes": first.image.size_bytes,
        "architecture": first.image.architecture,
        "versions": _versions(first.image.labels),
        "warnings": list(first.warnings),
    }
    return {**described, "more": [_described([each]) for each in others]} if others else described


def _show(built: Sequence[Built]) -> None:
    for each in built:
        versions = _versions(each.image.labels)
        platform = f"{each.image.architecture}, " if len(built) > 1 else ""
        state = "is built" if each.changed else "is here already: nothing has changed"
        render.done(
            f"{each.reference} {state} ({platform}Python "
            f"{versions['python']}, cloudpickle {versions['cloudpickle']}, runner {versions['runner']}, "
            f"{megabytes(each.image.size_bytes)} unpacked)"
        )
        for warning in each.warnings:
            render.warning(warning)


def _listed(repository: Repository, found: PushedImage, told: ImageFacts | None, *, used: bool) -> dict[str, Any]:
    return {
        "uri": f"{repository.uri}@{found.digest}",
        "digest": found.digest,
        "tags": list(found.tags),
        "size_bytes": found.size_bytes,
        "pushed_at": found.pushed_at.isoformat(),
        "architecture": told.architecture if told else "",
        "versions": {name: getattr(told, name, "") for name in VERSION_LABELS},
        "used": used,
        "scan": {"status": found.scan_status, "findings": found.findings},
    }


def _versions(labels: dict[str, str]) -> dict[str, str]:
    return {name: labels.get(label, "") for name, label in VERSION_LABELS.items()}


def _scan(scan: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {severity.lower()}" for severity, count in scan["findings"].items())
    return counts or {"COMPLETE": "nothing found", "ACTIVE": "nothing found"}.get(
        scan["status"], scan["status"].lower() or "-"
    )
