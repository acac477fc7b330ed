"""The images of `docker/` as an engine builds them: what is in them, what they say, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro import __version__
from covalent_cirro.contract import protocol
from covalent_cirro.deployment.images import build as image_build
from covalent_cirro.deployment.images import buildx
from covalent_cirro.deployment.images.build import Built
from covalent_cirro.deployment.images.docker_engine import DockerEngine
from covalent_cirro.deployment.images.recipe import (
    DOCKERFILE,
    PINS,
    PYTHON,
    Recipe,
    build_arguments,
    docker_folder,
    pip_settings,
    write_runner_context,
)
from covalent_cirro.errors import ImageError
from covalent_cirro.jobs import image_modules
from covalent_cirro.jobs.image_rules import PYTHONS
from tests.images.conftest import BASE, silent

Build = Callable[[Recipe], Built]

pytestmark = pytest.mark.container

LIMIT_BYTES = 250_000_000
OFFICIAL_BASE_BYTES = 131_000_000
"""python:3.11-slim-bookworm unpacked, as Docker Hub has it (its layers of 2026 lie between 124 and 131 MB)."""


def said(engine: DockerEngine, image: str, script: str) -> str:
    """What a program in a container of an image writes."""
    code, output = engine.ask(image, ["python", "-c", script])
    assert code == 0, output
    return output.strip()


@pytest.mark.parametrize("name", ["runner", "gpu_runner"])
def test_the_labels_are_what_the_container_says(
    engine: DockerEngine, name: str, request: pytest.FixtureRequest
) -> None:
    """Each of the four, asked for in another way than the build does."""
    built: Built = request.getfixturevalue(name)
    labels = built.image.labels
    python, cloudpickle, runner = said(
        engine,
        built.reference,
        "import sys, importlib.metadata as m; print('%d.%d' % sys.version_info[:2]); "
        "print(m.version('cloudpickle')); print(m.version('covalent-cirro'))",
    ).splitlines()
    call_format = said(
        engine, built.reference, "from covalent_cirro.contract.problems import CALL_FORMAT; print(CALL_FORMAT)"
    )
    assert ".".join(labels[protocol.LABEL_PYTHON].split(".")[:2]) == python == PYTHON
    assert labels[protocol.LABEL_CLOUDPICKLE] == cloudpickle
    assert labels[protocol.LABEL_RUNNER] == runner == __version__ == labels["org.opencontainers.image.version"]
    assert labels[protocol.LABEL_FORMAT] == call_format
    modules = image_modules.load(labels[protocol.LABEL_MODULES], built.image.layers)
    assert modules is not None
    assert {"awscrt", "cloudpickle", "covalent_cirro", "pip"} <= modules
    assert not modules & {"json", "covalent"}
    assert labels["org.opencontainers.image.base.name"] == f"docker.io/library/{BASE}"


def test_the_labels_say_what_it_is_from(client: Any, runner: Built) -> None:
    """The base by its digest, so that a moved tag is seen; it was built from that very one."""
    base = client.images.get(BASE)
    digests = {each.partition("@")[2] for each in base.attrs["RepoDigests"]}
    assert runner.image.labels["org.opencontainers.image.base.digest"] in digests
    layers = client.images.get(runner.reference).attrs["RootFS"]["Layers"]
    below = base.attrs["RootFS"]["Layers"]
    assert layers[: len(below)] == below


@pytest.mark.parametrize(("package", "next_stage"), [("cloudpickle", "requirements"), ("setuptools", "cpu")])
def test_another_file_in_the_place_of_a_pinned_one_is_not_installed(
    engine: DockerEngine, runner: Built, tmp_path: Path, package: str, next_stage: str
) -> None:
    """What an index gives must have the hash that is known; here it is the known one that is wrong."""
    write_runner_context(tmp_path, None)
    # The stage that fails is the last: podman 4.3 may panic where others wait for one that fails.
    dockerfile = tmp_path / DOCKERFILE
    dockerfile.write_text(dockerfile.read_text().partition(f" AS {next_stage}\n")[0].rpartition("\nFROM ")[0])
    pins = tmp_path / "docker" / "pins.txt"
    pins.write_text(re.sub(rf"(?m)^({package}==.*sha256:)[0-9a-f]{{8}}", r"\g<1>00000000", pins.read_text()))
    arguments = {**pip_settings(), **build_arguments(Recipe())}
    with pytest.raises(ImageError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        engine.build(tmp_path, DOCKERFILE, "cirro-test:1", platform="linux/amd64", arguments=arguments, say=silent)


def download(folder: Path, python: str, machine: str, pins: list[str]) -> subprocess.CompletedProcess[str]:
    """Have pip look for the files of some pins, for a Python and a processor."""
    (folder / "pins.txt").write_text("\n".join(pins))
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += ["--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={name}_{machine}" for name in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    command += [f"--dest={folder}", f"--requirement={folder / 'pins.txt'}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def all_pins() -> dict[str, list[str]]:
    """The lines of docker/pins.txt, by package; the newest last."""
    found: dict[str, list[str]] = {}
    for line in (docker_folder() / PINS).read_text().splitlines():
        if not line.startswith("#"):
            found.setdefault(line.partition("==")[0], []).append(line)
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_image_finds_files_of_the_known_hashes(tmp_path: Path, python: str, machine: str) -> None:
    """For each Python and processor that can be asked for."""
    ran = download(tmp_path, python, machine, [lines[-1] for lines in all_pins().values()])
    assert ran.returncode == 0, ran.stderr


def test_every_cloudpickle_that_may_be_here_has_its_file(tmp_path: Path) -> None:
    """It is the same for all Pythons and processors."""
    for line in all_pins()["cloudpickle"]:
        ran = download(tmp_path, PYTHON, "x86_64", [line])
        assert ran.returncode == 0, ran.stderr


STAND_IN = """\
#!/bin/sh
# `docker buildx build` where there is none: the same words, less what only buildx has, to podman's builder.
[ "$2" = version ] && exit 0
shift 2
for word do
    shift
    case "$word" in
        --provenance=false | --load | --progress=plain) ;;
        --builder) skip=1 ;;
        *) if [ -n "$skip" ]; then skip=; else set -- "$@" "$word"; fi ;;
    esac
done
exec podman --url "$DOCKER_HOST" build "$@" >&2
"""


def test_what_docker_buildx_is_told_builds_the_image(
    engine: DockerEngine, runner: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program that stands in for Docker's, which is not here: arguments and their values, platform, file, name."""
    if shutil.which("podman") is None or not os.environ.get("DOCKER_HOST", "").startswith("unix:"):
        pytest.skip("the stand-in for docker buildx is podman")
    (tmp_path / "docker").write_text(STAND_IN)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(DockerEngine, "_builder", lambda self: buildx.program())
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("six\n")
    built = image_build.build(engine, Recipe(requirements=requirements), silent)
    try:
        assert built.changed
        assert said(engine, built.reference, "import six; print('six')") == "six"
        assert built.image.architecture == "amd64"
        modules = built.image.labels[protocol.LABEL_MODULES]
        assert "six" in modules.split()
        assert {**built.image.labels, **runner.image.labels, protocol.LABEL_MODULES: modules} == built.image.labels
    finally:
        engine.untag(built.reference)


def test_the_image_is_small(engine: DockerEngine, runner: Built) -> None:
    """With the official base below 250 MB; measured by what it adds, since the base here may be another."""
    base = engine.find(BASE)
    assert base is not None
    added = runner.image.size_bytes - base.size_bytes
    assert 0 < added < 40_000_000
    assert OFFICIAL_BASE_BYTES + added < LIMIT_BYTES
    if base.size_bytes <= OFFICIAL_BASE_BYTES:
        assert runner.image.size_bytes < LIMIT_BYTES


def test_nothing_is_in_it_that_a_job_does_not_need(engine: DockerEngine, runner: Built) -> None:
    """Not root; no compiler, no git, no Covalent; the runner and its two packages beside pip."""
    found = json.loads(
        said(
            engine,
            runner.reference,
            "import os, shutil, json, importlib.metadata as m; print(json.dumps({"
            "'user': os.getuid(), 'home': os.getcwd(), 'writable': os.access('.', os.W_OK),"
            "'tools': [tool for tool in ('gcc', 'cc', 'g++', 'make', 'git') if shutil.which(tool)],"
            "'packages': sorted(d.metadata['Name'] for d in m.distributions()),"
            "'pip': [n for n in os.environ if n.startswith('PIP_') and n != 'PIP_CERT']}))",
        )
    )
    assert found == {
        "user": 1000,
        "home": "/home/cirro",
        "writable": True,
        "tools": [],
        "packages": ["awscrt", "cloudpickle", "covalent-cirro", "pip"],
        "pip": [],
    }


def test_gpus_are_brought_in(client: Any, runner: Built, gpu_runner: Built) -> None:
    """By two variables, which is all in which the images differ; their layers are the same."""
    cpu, gpu = (client.images.get(built.reference).attrs for built in (runner, gpu_runner))
    assert set(gpu["Config"]["Env"]) - set(cpu["Config"]["Env"]) == {
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    }
    assert set(cpu["Config"]["Env"]) <= set(gpu["Config"]["Env"])
    assert cpu["RootFS"]["Layers"] == gpu["RootFS"]["Layers"]


def test_the_entrypoint_is_no_shell(client: Any, engine: DockerEngine, runner: Built) -> None:
    """The command becomes the container's first process, and so gets its signals."""
    assert client.images.get(runner.reference).attrs["Config"]["Entrypoint"] == ["/usr/bin/env"]
    assert said(engine, runner.reference, "import os; print(os.getpid())") == "1"


def package(folder: Path, name: str) -> None:
    """A wheel with one module that holds ``VALUE = 5``."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 5\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_requirements_come_from_where_pip_here_has_them_and_leave_no_trace_of_it(
    build: Build,
    engine: DockerEngine,
    client: Any,
    serve: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A password in an index's address is nowhere in what would be pushed."""
    (tmp_path / "wheels").mkdir()
    package(tmp_path / "wheels", "tinydep")
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://somebody:hush-hush@{serve(tmp_path / 'wheels')}/")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"tinydep==1.0  # {tmp_path.name}\n")
    built = build(Recipe(requirements=requirements))
    assert built.changed
    assert said(engine, built.reference, "import tinydep; print(tinydep.VALUE)") == "5"
    assert not build(Recipe(requirements=requirements)).changed
    image = client.images.get(built.reference)
    assert "hush-hush" not in json.dumps([image.attrs, image.history()])
    # What is in no file of the image is in no layer: they are copied whole, and none takes away what another brought.
    for word, found in (("hush-hush", False), ("VALUE = 5", True)):
        _, output = engine.ask(built.reference, ["grep", "-rlas", word, "/usr/local", "/etc", "/home", "/tmp"])
        assert bool(output) == found


def test_requirements_that_do_not_exist(build: Build, tmp_path: Path) -> None:
    """pip's own words, and the step."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-package-of-covalent-cirro==9.9\n# no network is needed to know it\n--no-index\n")
    with pytest.raises(ImageError) as caught:
        build(Recipe(requirements=requirements))
    assert "the step `RUN mkdir" in str(caught.value)
    assert "No matching distribution found for no-such-package-of-covalent-cirro==9.9" in str(caught.value)


def own(tmp_path: Path, text: str) -> Recipe:
    """A recipe of a Dockerfile of one's own."""
    (tmp_path / "own").mkdir(exist_ok=True)
    (tmp_path / "own" / "Dockerfile").write_text(text)
    return Recipe(dockerfile=tmp_path / "own" / "Dockerfile")


def test_any_image_gets_the_runner_by_one_line(
    build: Build,
    engine: DockerEngine,
    wheel: Path,
    serve: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which does not bring Covalent along; the labels that it has not are made."""
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://{serve(wheel.parent)}/")
    recipe = own(tmp_path, f"FROM {BASE}\nARG PIP_FIND_LINKS\nRUN {image_build.INSTALL}\n")
    built = build(recipe)
    versions = image_build.ask(engine, built.reference)
    assert versions.labels.items() <= built.image.labels.items()
    assert versions.runner == __version__
    listed = said(
        engine,
        built.reference,
        "import importlib.metadata as m; print([d.metadata['Name'] for d in m.distributions()])",
    )
    assert "covalent-cirro" in listed
    assert not any(name in listed for name in ("'covalent'", "boto3", "aiobotocore"))
    assert not build(recipe).changed


def test_an_image_of_ones_own_on_top_of_the_runners(
    build: Build, engine: DockerEngine, runner: Built, tmp_path: Path
) -> None:
    """With a file of its folder; a change of the file is another image, and one that is ignored is none."""
    recipe = own(tmp_path, "ARG CIRRO_RUNNER\nFROM ${CIRRO_RUNNER}\nCOPY model ./\n")
    folder = tmp_path / "own"
    (folder / "model").write_text("weights of today")
    (folder / ".dockerignore").write_text("data\n")
    first = build(recipe)
    assert said(engine, first.reference, "print(open('model').read())") == "weights of today"
    inherited = {name: value for name, value in runner.image.labels.items() if name != protocol.LABEL_MODULES}
    assert first.image.labels.items() >= inherited.items()
    (folder / "data").write_text("large")
    assert not build(recipe).changed
    (folder / "model").write_text("weights of tomorrow")
    assert build(recipe).changed


def test_another_cloudpickle_in_an_image_of_ones_own_is_told(
    build: Build, engine: DockerEngine, tmp_path: Path
) -> None:
    """Its labels are inherited and would lie; the versions are the container's."""
    spoil = "import cloudpickle, pathlib; p = pathlib.Path(cloudpickle.__file__); "
    spoil += "p.write_text(p.read_text().replace(cloudpickle.__version__, '3.9.9'))"
    text = f'ARG CIRRO_RUNNER\nFROM ${{CIRRO_RUNNER}}\nUSER root\nRUN python -c "{spoil}"\nUSER cirro\n'
    built = build(own(tmp_path, text))
    assert said(engine, built.reference, "import cloudpickle; print(cloudpickle.__version__)") == "3.9.9"
    assert built.image.labels[protocol.LABEL_CLOUDPICKLE] == "3.9.9"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (f"FROM {BASE}", r"(?s)No module named 'awscrt'.*pip install --no-deps covalent-cirro"),
        ("ARG CIRRO_RUNNER\nFROM ${CIRRO_RUNNER}\nENTRYPOINT echo serving", r"(?s)serving.*ENTRYPOINT is /bin/sh"),
        (
            'ARG CIRRO_RUNNER\nFROM ${CIRRO_RUNNER}\nENTRYPOINT ["sh", "-c", "\\"$@\\"; true", "sh"]',
            r"SIGTERM.*exec",
        ),
    ],
    ids=["no runner", "shell entrypoint", "no exec"],
)
def test_images_in_which_no_job_could_run_are_refused(build: Build, tmp_path: Path, lines: str, reason: str) -> None:
    """Before they are pushed."""
    with pytest.raises(ImageError, match=reason):
        build(own(tmp_path, f"{lines}\nLABEL test={tmp_path.name}\n"))


def test_a_base_that_cannot_be_had(build: Build, tmp_path: Path) -> None:
    """Which, and the engine's own words."""
    with pytest.raises(
        ImageError, match=r"the image 127\.0\.0\.1:1/base:1 cannot be pulled for linux/amd64: .*127\.0\.0\.1:1"
    ):
        build(own(tmp_path, "FROM 127.0.0.1:1/base:1\n"))
