"""cloudknot: a Knot for a function, whose `map` submits an array or jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.peer import Case, Place
from peers.works import WORKS, shared_value

TITLE = "cloudknot 0.6.1"
PACKAGES = ("cloudknot==0.6.1",)
SERVER = False
CASES = {
    "tasks": Case("tasks", '`job_type="independent"`', 20),
    "map20": Case("map20", "array", 20),
    "map400": Case("map400", "array", 400),
    "shared": Case("shared", "array, the value in each item", 10, starts_after_upload=True),
}
SET_UP = """\
Its own CloudFormation templates, unchanged: a Pars (default VPC, roles, bucket) and a Knot (compute environment, queue,
definition). Both are made before the call: calls and seconds of that do not count. The call is `knot.map(items)` to the
list. Stubbed: building and pushing the image are left out, `pipreqs` (it asks a package index what the function
imports) gives nothing, and a program `docker` that does nothing is on the path, because cloudknot looks for it. Jobs
run the script that cloudknot generates, which is its image's entrypoint, with the role of the instance. It submits an
array before it uploads the input: with 50 MB, jobs are not let start before the input is there, as on AWS, where
machines need longer."""


def entrypoint(case: Case, place: Place, python: Path) -> list[str]:
    """The script that cloudknot writes, named after the function."""
    return [str(python), str(place.folder / f"{_function(case).__name__}.py")]


def square(index):  # type: ignore[no-untyped-def]
    return index * index


def checked(data, index):  # type: ignore[no-untyped-def]
    import zlib

    return zlib.crc32(data) + index


def _function(case: Case) -> Callable[..., int]:
    return checked if case.work == "shared" else square


def prepare(case: Case, place: Place) -> Callable[[], Any]:
    """Make a Pars and a Knot for the function."""
    _have_docker(place.folder)
    import cloudknot
    from pipreqs import pipreqs

    pipreqs.get_all_imports = lambda *args, **options: []
    pipreqs.get_imports_info = lambda *args, **options: []
    image = cloudknot.DockerImage(func=_function(case), dir_name=str(place.folder), base_image="python:3.11")
    # As if `build` and `push` had been called.
    image._images = [{"name": "cloudknot", "tag": "cloudknot"}]
    image._repo_uri = place.image
    knot = cloudknot.Knot(
        name="peers",
        pars=cloudknot.Pars(name="peers"),
        docker_image=image,
        max_vcpus=8,
        job_def_vcpus=1,
        memory=2000,
    )
    count = WORKS[case.work].items
    if case.work == "shared":
        data = shared_value(place.inputs)
        return lambda: knot.map([(data, index) for index in range(count)], starmap=True).result()
    if case.work == "tasks":
        return lambda: [each.result() for each in knot.map(list(range(count)), job_type="independent")]
    return lambda: knot.map(list(range(count))).result()


def _have_docker(folder: Path) -> None:
    program = folder / "docker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    # Its config: without the first of these it refuses to begin (its command `cloudknot configure` writes them).
    config = folder / "cloudknot.ini"
    config.write_text(f"[aws]\nconfigured = True\nregion = {os.environ['AWS_DEFAULT_REGION']}\n")
    os.environ["CLOUDKNOT_CONFIG_FILE"] = str(config)
