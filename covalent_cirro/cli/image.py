"""``cirro image``: builds, pushes and lists the images of jobs. Shows what `deployment.images` does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.jobs.formatting import megabytes
from covalent_cirro.jobs.image_rules import DEVICES, PLATFORMS, PYTHONS, VERSION_LABELS, ImageFacts

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
            "--platform", type=click.Choice(PLATFORMS), help="Unset: linux/amd64, as the deployment's instances."
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
        built = image_build.build(engine, _recipe(recipe), say)
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

    image_push.require_architecture(_recipe(recipe).platform)
    repository = _repository(target)
    with DockerEngine.connect() as engine:
        with render.steps(quiet=as_json) as say:
            given = any(value is not None for value in recipe.values())
            last = None if given else image_build.latest(engine)
            built = last or image_build.build(engine, _recipe(recipe), say)
            image_build.remember(engine, built)
        if not as_json:
            _show(built)
        with render.transfer(quiet=as_json) as show:
            show(built.tag, 0, 0)  # not every engine tells the progress of layers
            pushed = image_push.push(
                engine, repository, built, progress=lambda layer: show(layer.layer, layer.sent_bytes, layer.total_bytes)
            )
    if as_json:
        recorded = not pushed.recorded.kept
        render.document({**_described(built), "uri": pushed.uri, "uploaded": pushed.uploaded, "recorded": recorded})
        return
    render.done(f"{pushed.uri} {'is pushed' if pushed.uploaded else 'was there already'}")
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

    repository = _repository(target)
    found = images.listing(repository)
    told = images.facts(repository, [each.digest for each in found])
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


def _recipe(given: dict[str, Any]) -> Recipe:
    from covalent_cirro.deployment.images.recipe import Recipe

    return Recipe(**{name: value for name, value in given.items() if value is not None})


def _repository(target: Target) -> Repository:
    from covalent_cirro import deployment
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.deployment.images import push as image_push

    client = Clients(target.access)
    outputs = deployment.outputs(client("cloudformation"), target.stack_name)
    return image_push.repository_of(outputs, client("ecr"), target.access)


def _described(built: Built) -> dict[str, Any]:
    return {
        "image": built.reference,
        "id": built.image.image_id,
        "changed": built.changed,
        "size_bytes": built.image.size_bytes,
        "architecture": built.image.architecture,
        "versions": _versions(built.image.labels),
        "warnings": list(built.warnings),
    }


def _show(built: Built) -> None:
    versions = _versions(built.image.labels)
    render.done(
        f"{built.reference} {'is built' if built.changed else 'is here already: nothing has changed'} (Python "
        f"{versions['python']}, cloudpickle {versions['cloudpickle']}, runner {versions['runner']}, "
        f"{megabytes(built.image.size_bytes)} unpacked)"
    )
    for warning in built.warnings:
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
