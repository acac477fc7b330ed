"""What an image is made of, what its build tells, and what is made of that, without an engine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro import __version__
from covalent_cirro.aws.sessions import Access
from covalent_cirro.contract import problems, protocol
from covalent_cirro.deployment.images import build, push
from covalent_cirro.deployment.images import recipe as image_recipe
from covalent_cirro.deployment.images import repository as images
from covalent_cirro.deployment.images.build import Built
from covalent_cirro.deployment.images.docker_engine import DockerEngine, LocalImage, follow_build
from covalent_cirro.deployment.images.recipe import Recipe
from covalent_cirro.deployment.images.repository import PushedImage, Repository
from covalent_cirro.errors import ImageError, NotFound, SettingsError
from covalent_cirro.jobs import image_modules
from covalent_cirro.jobs.image_rules import PYTHONS
from docs.make_rooms import PACKAGE, imports, room
from tests.fake_engine import TRUE, FakeEngine, contents

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
TRAINING = (ROOT / "docker/training.Dockerfile").read_text()
SERVE = (ROOT / "docker/serve.Dockerfile").read_text()
HERE = Access(None, None, None, None)


def silent(step: str) -> None:
    """Nobody looks."""


# --- the files of docker/ ---------------------------------------------------------------------------------------------


def arguments_of(dockerfile: str) -> dict[str, str]:
    """Build arguments with their defaults."""
    return dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))


def pins(path: str) -> dict[str, set[str]]:
    """Names and pinned lines of a requirements file."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / path).read_text().splitlines():
        if line and not line.startswith("#"):
            found.setdefault(line.partition("==")[0], set()).add(line)
    return found


def test_the_dockerfile_by_itself_builds_what_this_version_is() -> None:
    """Its defaults are this version, this format, and the versions that all is tested with."""
    default, pinned = arguments_of(DOCKERFILE), pins("constraints.txt")
    assert default["RUNNER_VERSION"] == __version__
    assert default["CALL_FORMAT"] == problems.CALL_FORMAT
    assert pinned["cloudpickle"] == {f"cloudpickle=={default['CLOUDPICKLE_VERSION']}"}
    assert pinned["awscrt"] == {f"awscrt=={default['AWSCRT_VERSION']}"}
    assert pinned["setuptools"] == hashed()["setuptools"]


def hashed() -> dict[str, set[str]]:
    """By package, ``name==version`` of all that docker/pins.txt has a hash of."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docker" / image_recipe.PINS).read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[a-z]+==[\d.]+( --hash=sha256:[0-9a-f]{64})+", line), line
            found.setdefault(line.partition("==")[0], set()).add(line.partition(" ")[0])
    return found


def test_all_that_the_image_takes_from_an_index_has_its_hash() -> None:
    """In each version that it may take; pip takes nothing else, and no source that would run as it is built."""
    installs = re.findall(r"pip install (.*?)(?:\n|&&)", DOCKERFILE.replace("\\\n", " "))
    ours = [words for words in installs if "requirements.txt" not in words and " . " not in f" {words} "]
    assert len(ours) == 2
    assert all({"--require-hashes", "--no-deps", "--only-binary"} <= set(words.split()) for words in ours)
    default, known = arguments_of(DOCKERFILE), hashed()
    assert known["awscrt"] == {f"awscrt=={default['AWSCRT_VERSION']}"}
    assert f"cloudpickle=={importlib.metadata.version('cloudpickle')}" in known["cloudpickle"]
    assert f"cloudpickle=={default['CLOUDPICKLE_VERSION']}" in known["cloudpickle"]


def test_the_images_cloudpickle_is_one_whose_hash_is_known() -> None:
    """The one that pickles; else the newest of its major version; else the build is refused before it begins."""
    known = sorted(hashed()["cloudpickle"])
    assert image_recipe.pinned_cloudpickle("3.1.0") == "3.1.0"
    assert f"cloudpickle=={image_recipe.pinned_cloudpickle('3.99.0')}" == known[-1]
    with pytest.raises(SettingsError, match=r"cloudpickle 4\.0\.0 is installed here.*3\.1\.2"):
        image_recipe.pinned_cloudpickle("4.0.0")


def test_the_training_image_has_the_versions_that_the_sweep_is_tested_with() -> None:
    """Those of constraints.txt, for each Python."""
    pinned = pins("constraints.txt")
    assert pins("docker/training.requirements.txt") == {
        name: pinned[name] for name in ("torch", "numpy", "scikit-learn")
    }


def test_the_dockerfile_has_all_labels() -> None:
    """Those that a submission is judged by."""
    labels = set(re.findall(r"(covalent-cirro\.[\w-]+)=", DOCKERFILE))
    assert labels == set(TRUE.labels)


def test_the_packages_of_the_image_are_all_that_is_copied() -> None:
    """What the Dockerfile copies of this package is what the context has, and the .dockerignore lets through."""
    copied = set(re.findall(r"covalent_cirro/([\w./]+\.(?:py|typed))", DOCKERFILE))
    folders = set(re.findall(r"^COPY covalent_cirro/(\w+) covalent_cirro/\1/$", DOCKERFILE, re.MULTILINE))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == set(image_recipe.RUNNER_FILES)
    assert folders == set(image_recipe.RUNNER_FOLDERS)
    assert {f"!covalent_cirro/{name}" for name in copied | folders} <= set(ignored)


def test_the_packages_of_the_image_are_all_that_is_installed() -> None:
    """Each folder with modules is a package of the runner's own pyproject.toml."""
    listed = tomlkit.parse((ROOT / "docker" / "runner.toml").read_text()).unwrap()["tool"]["setuptools"]["packages"]
    found = {path.parent for name in image_recipe.RUNNER_FOLDERS for path in (PACKAGE / name).rglob("*.py")}
    found |= {(PACKAGE / name).parent for name in image_recipe.RUNNER_FILES}
    assert set(listed) == {".".join(folder.relative_to(ROOT).parts) for folder in found}


ELECTRONS_IMPORT = {"checkpoint", "trial", "item_maps", "stored_values.handles", "errors"}
"""Modules that the pickles of electrons name, or that functions import in a job."""

NOT_IN_JOBS = {"stored_values.user_cache"}
"""Imported where `stored_values.handles` is used outside of jobs."""


def test_the_image_has_every_module_that_a_job_imports() -> None:
    """Directly or through another one: a job without it ends at its first line, or cannot unpickle its electron."""
    of = imports()
    found, left = set[str](), [module for module in of if room(module) == "runner" or module in ELECTRONS_IMPORT]
    assert set(left) >= ELECTRONS_IMPORT
    while left:
        module = left.pop()
        left += of.get(module, set()) - found - NOT_IN_JOBS
        found.add(module)
    assert found >= {"contract.protocol", "contract.nested"}
    there = {name.removesuffix(".py").replace("/", ".") for name in image_recipe.RUNNER_FILES}
    assert {module for module in found if room(module) not in image_recipe.RUNNER_FOLDERS} <= there


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, TRAINING, SERVE], ids=["runner", "training", "serve"])
def test_settings_of_pip_stay_in_stages_that_are_not_the_image(dockerfile: str) -> None:
    """No stage that declares them is one that the image is FROM."""
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    parents = {}
    for stage in stages:
        base, name = re.match(r"(\S+)(?: AS (\S+))?", stage).groups()  # type: ignore[union-attr]
        parents[name] = (base.replace("${DEVICE}", "gpu"), stage)
    name: str | None = None
    chain = []
    while name in parents:
        name, stage = parents[name]
        chain.append(stage)
    assert len(chain) >= 1
    assert not any("PIP_" in stage for stage in chain)
    assert any("PIP_INDEX_URL" in stage for stage in stages)


def test_the_wheel_builds_the_same_image_as_the_repository(wheel: Path, tmp_path: Path) -> None:
    """An installed package has all that the context is made of."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    write = (
        "import sys; from pathlib import Path; import covalent_cirro; "
        "from covalent_cirro.deployment.images import recipe; "
        "assert recipe.docker_folder() == Path(covalent_cirro.__file__).parent / 'docker'; "
        "recipe.write_runner_context(Path(sys.argv[1]), None)"
    )
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    subprocess.run([sys.executable, "-c", write, str(there)], cwd=tmp_path / "installed", check=True)
    image_recipe.write_runner_context(here, None)
    assert contents(there) == contents(here)
    assert "docker/Dockerfile" in contents(here)
    assert (tmp_path / "installed/covalent_cirro/docker/training.Dockerfile").is_file()


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_the_bases_of_a_dockerfile() -> None:
    """With arguments in their place, without its stages."""
    assert image_recipe.bases(DOCKERFILE, {"PYTHON_VERSION": "3.12", "DEVICE": "gpu"}) == ["python:3.12-slim-bookworm"]
    other = {"BASE_IMAGE": "mirror.example/python@sha256:1"}
    assert image_recipe.bases(DOCKERFILE, other) == ["mirror.example/python@sha256:1"]
    assert image_recipe.bases(TRAINING, {"CIRRO_RUNNER": "cirro-runner:x"}) == ["cirro-runner:x"]
    text = (
        "ARG A=one\nARG B\nFROM --platform=linux/amd64 ${A}:${C:-two} as first\nARG A=late\nfrom $A\n"
        "FROM First\nFROM scratch\nFROM ${B}\nFROM one:two\n"
    )
    assert image_recipe.bases(text, {}) == ["one:two", "one"]


def test_the_tag_follows_the_content(tmp_path: Path) -> None:
    """Equal for equal files in another folder; another for a change of a byte, of a name, or of an input."""

    def tag(name: str, files: Mapping[str, str], **inputs: object) -> str:
        folder = tmp_path / name
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return image_recipe.content_tag(Recipe(python="3.11"), folder, inputs)

    tags = [
        tag("a", {"Dockerfile": "FROM x", "b/c": "1"}, base="sha256:1"),
        tag("b", {"Dockerfile": "FROM x", "b/c": "2"}, base="sha256:1"),
        tag("c", {"Dockerfile": "FROM x", "b/d": "1"}, base="sha256:1"),
        tag("d", {"Dockerfile": "FROM x", "b/c": "1"}, base="sha256:2"),
    ]
    assert len(set(tags)) == 4
    assert tag("e", {"Dockerfile": "FROM x", "b/c": "1"}, base="sha256:1") == tags[0]
    ignored = {"Dockerfile": "FROM x", "b/c": "1", ".dockerignore": "data", "data/large": "1"}
    assert tag("f", ignored) == tag("g", {**ignored, "data/large": "2"})
    assert re.fullmatch(r"3\.11-cpu-[0-9a-f]{16}", tags[0])


def test_requirements_that_need_more_than_themselves_are_refused(tmp_path: Path) -> None:
    """With the line, before anything is built."""
    path = tmp_path / "requirements.txt"
    for line in ("-r more.txt", "  --constraint x", "-e .", "./wheels/a.whl", "/a.whl", "file:///a.whl", "../a"):
        path.write_text(f"# ours\ntorch>=2\n{line}\n")
        with pytest.raises(SettingsError, match=f"line 3: {re.escape(repr(line.strip()))} needs a file beside it"):
            image_recipe.read_requirements(path)
    path.write_text("torch>=2 # -r no\n--extra-index-url https://x/\ngit+https://github.com/a/b\nrich\n.5 ; no\n")
    assert image_recipe.read_requirements(path).startswith("torch")
    with pytest.raises(SettingsError, match="missing"):
        image_recipe.read_requirements(tmp_path / "missing.txt")


def test_settings_of_pip_that_a_container_can_use(tmp_path: Path) -> None:
    """Addresses, from its files and from the environment, which counts more; paths of this machine are left out."""
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://user:secret@index/simple\nfind-links = /wheels https://links/\n"
        "trusted-host = index other\ntimeout = 5\n"
    )
    environ = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    found = image_recipe.pip_settings(environ)
    assert found["PIP_INDEX_URL"] == "https://user:secret@index/simple"
    assert found["PIP_FIND_LINKS"] == "https://links/"
    assert found["PIP_TRUSTED_HOST"] == "index other"
    assert set(found) <= set(image_recipe.PIP_ARGUMENTS)
    changed = image_recipe.pip_settings({**environ, "PIP_INDEX_URL": "http://mine/", "PIP_FIND_LINKS": "/wheels"})
    assert changed["PIP_INDEX_URL"] == "http://mine/"
    assert "PIP_FIND_LINKS" not in changed


# --- what the engine says ---------------------------------------------------------------------------------------------

DOCKER = [
    {"stream": "Step 1/3 : FROM base\n"},
    {"stream": " ---> 0e44be67e68b\n"},
    {"stream": "Step 2/3 : RUN   make   all\n"},
    {"stream": " ---> Running in 12\n"},
    {"stream": "one\n"},
    {"stream": "two\n"},
    {"error": "The command '/bin/sh -c make all' returned a non-zero code: 2"},
]
PODMAN = [
    {"stream": "[1/2] STEP 1/3: FROM base\n"},
    {"stream": "[1/2] STEP 2/3: RUN make all\n"},
    {"stream": "one\ntwo\n"},
    {"error": 'building at STEP "RUN make all": while running runtime: exit status 2'},
]


@pytest.mark.parametrize("lines", [DOCKER, PODMAN], ids=["docker", "podman"])
def test_a_failed_build_says_which_step_and_what_it_wrote(lines: list[dict[str, str]]) -> None:
    """The end of it, and of no other step."""
    steps: list[str] = []
    with pytest.raises(ImageError) as caught:
        follow_build(lines, steps.append)
    text = str(caught.value)
    assert steps == ["RUN make all"]
    assert "the step `RUN make all` failed" in text
    assert "one\n    two\n" in text
    assert "base" not in text.replace("the image could not be built", "")


@given(st.lists(st.text(alphabet="abc \n", max_size=200), max_size=100))
def test_a_failed_build_shows_little(lines: list[str]) -> None:
    """However much the step wrote."""
    documents = [{"stream": "Step 1/1 : RUN x"}, *({"stream": line} for line in lines), {"error": "over"}]
    with pytest.raises(ImageError) as caught:
        follow_build(documents, silent)
    assert len(str(caught.value).splitlines()) <= 22


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("write /usr/x: no space left on device", "docker system prune"),
        ("exec /bin/sh: exec format error", "QEMU"),
        ('Get "https://127.0.0.1:1/v2/": http: server gave HTTP response to HTTPS client', "insecure = true"),
    ],
)
def test_what_can_be_done_about_it(said: str, advice: str) -> None:
    """A full disk, a foreign platform, and a registry without TLS have a remedy each."""
    with pytest.raises(ImageError, match=re.escape(said)) as caught:
        follow_build([{"error": said}], silent)
    assert advice in str(caught.value)


def test_no_engine_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever DOCKER_HOST names."""
    for host in ("tcp://127.0.0.1:1", "unix:///nowhere.sock", "nonsense://x"):
        monkeypatch.setenv("DOCKER_HOST", host)
        expected = r"no Docker engine answers \(.*Docker Desktop.*DOCKER_HOST"
        with pytest.raises(ImageError, match=expected), DockerEngine.connect():
            pass


# --- builds, on an engine that only keeps names -----------------------------------------------------------------------


def test_what_has_not_changed_is_not_built_again(tmp_path: Path) -> None:
    """A change of the requirements or of the device is another image; the same again is not."""
    engine, requirements = FakeEngine(), tmp_path / "requirements.txt"
    requirements.write_text("six\n")
    recipes = [Recipe(), Recipe(device="gpu"), Recipe(requirements=requirements)]
    first = [build.build(engine, recipe, silent) for recipe in recipes]
    again = [build.build(engine, recipe, silent) for recipe in recipes]
    assert [built.changed for built in first] == [True] * 3
    assert [built.changed for built in again] == [False] * 3
    assert [built.reference for built in again] == [built.reference for built in first]
    # Each is built, and then labelled with what its container says.
    assert len({built.reference for built in first}) == len(engine.builds) / 2 == 3
    requirements.write_text("six\nrich\n")
    assert build.build(engine, recipes[2], silent).changed
    assert engine.builds[-2][2]["docker/requirements.txt"] == b"six\nrich\n"
    assert not any(re.search(r"-[0-9a-f]{8}$", name) for name in engine.images)


def test_a_new_base_is_another_image() -> None:
    """Its id is part of the tag."""
    engine = FakeEngine()
    first = build.build(engine, Recipe(), silent)
    base = f"python:{image_recipe.PYTHON}-slim-bookworm"
    engine.images[base] = engine.images[base]._replace(image_id="another")
    second = build.build(engine, Recipe(), silent)
    assert second.changed
    assert second.tag != first.tag


@pytest.mark.parametrize(
    ("given", "digests", "base"),
    [
        pytest.param(None, ("python@sha256:1",), "python@sha256:1", id="Docker"),
        pytest.param(None, ("docker.io/library/python@sha256:1",), "docker.io/library/python@sha256:1", id="podman"),
        pytest.param("mirror.example:5000/python:1", ("python@sha256:1", "mirror.example:5000/python@sha256:2"),
                     "mirror.example:5000/python@sha256:2", id="a mirror's"),
        pytest.param("python:1@sha256:1", ("python@sha256:1",), "python@sha256:1", id="the user's digest"),
        pytest.param("made-here:1", ("python@sha256:1",), "made-here:1", id="no registry's"),
    ],
)  # fmt: skip
def test_the_base_is_given_by_its_digest(given: str | None, digests: tuple[str, ...], base: str) -> None:
    """As it was looked up: what its tag means in the next moment is another question. The tag does not depend on it."""
    engine, recipe = FakeEngine(), Recipe(base_image=given)
    engine.images[recipe.base] = LocalImage("base", (), {}, "amd64", 1, (), digests)
    first = build.build(engine, recipe, silent)
    _, arguments, _ = engine.builds[0]
    assert arguments["BASE_IMAGE"] == base
    assert arguments.get("BASE_DIGEST", "") == base.partition("@")[2]
    assert arguments.get("BASE_NAME") == (None if given is None else given.partition("@")[0])
    engine.images[recipe.base] = engine.images[recipe.base]._replace(digests=())
    assert build.build(engine, recipe, silent).tag == first.tag


def test_labels_that_do_not_tell_the_truth_are_put_right() -> None:
    """By what the container itself says."""
    lies = {**TRUE.labels, protocol.LABEL_CLOUDPICKLE: "1.0", protocol.LABEL_PYTHON: image_recipe.PYTHON}
    built = build.build(FakeEngine(labels=lies), Recipe(), silent)
    assert {**built.image.labels, **TRUE.labels} == built.image.labels


def test_a_label_has_the_modules_for_the_layers_of_the_image() -> None:
    """As the container lists them. Of an image that is built on this one and adds to it, the label says nothing."""
    image = build.build(FakeEngine(), Recipe(), silent).image
    label = image.labels[protocol.LABEL_MODULES]
    assert image_modules.load(label, image.layers) == {"cloudpickle", "covalent_cirro", "numpy"}
    assert image_modules.load(label, [*image.layers, "sha256:more"]) is None


def test_the_modules_of_an_environment_are_listed(tmp_path: Path) -> None:
    """Packages, modules and folders on the path, also those of an installed distribution, without Python's own."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "lab.py").write_text("")
    (tmp_path / "not-a-module.py").write_text("")
    ran = subprocess.run(
        [sys.executable, "-c", build._PROBE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(json.loads(ran.stdout.splitlines()[-1])["modules"])
    assert {"weights", "lab", "covalent_cirro", "cloudpickle", "awscrt", "yaml"} <= found
    assert not found & {"json", "not-a-module", "site-packages"}


def test_an_image_without_a_runner_is_refused() -> None:
    """With what it said, its entrypoint and the line that is missing; its name does not stay."""
    engine = FakeEngine(told={})
    with pytest.raises(ImageError, match=r"(?s)exit code 1.*usage: serve.*ENTRYPOINT is /usr/bin/env.*--no-deps"):
        build.build(engine, Recipe(), silent)
    assert not any(name.startswith("cirro-runner") for name in engine.images)


def test_an_image_that_keeps_sigterm_to_itself_is_refused() -> None:
    """Its jobs could not be stopped in order."""
    engine = FakeEngine(told={**TRUE._asdict(), "pid": 7})
    with pytest.raises(ImageError, match=r'SIGTERM.*exec "\$@"'):
        build.build(engine, Recipe(), silent)


def test_an_image_of_another_python_is_warned_about() -> None:
    """It is built all the same: somebody may dispatch from there."""
    other = next(python for python in PYTHONS if python != image_recipe.PYTHON)
    engine = FakeEngine(
        told={**TRUE._asdict(), "python": f"{other}.1", "pid": 1},
        labels={**TRUE.labels, protocol.LABEL_PYTHON: other},
    )
    [warning] = build.build(engine, Recipe(python=other), silent).warnings
    assert f"Python {other}" in warning
    assert f"--python {image_recipe.PYTHON}" in warning
    assert engine.builds[0][1]["PYTHON_VERSION"] == other


def test_a_dockerfile_of_ones_own_is_from_the_runners_image(tmp_path: Path) -> None:
    """Which is built first, with the requirements; a change of them is another image."""
    own, requirements = tmp_path / "Dockerfile", tmp_path / "more.txt"
    own.write_text("ARG CIRRO_RUNNER\nFROM ${CIRRO_RUNNER}\n")
    requirements.write_text("six\n")
    engine = FakeEngine()
    built = build.build(engine, Recipe(dockerfile=own, requirements=requirements), silent)
    (_, labelled_runner, built_on_it, labelled), arguments = [tag for tag, _, _ in engine.builds], engine.builds[2][1]
    assert arguments["CIRRO_RUNNER"] == labelled_runner
    assert built.reference == labelled == built_on_it.rpartition("-")[0] != labelled_runner
    assert not build.build(engine, Recipe(dockerfile=own, requirements=requirements), silent).changed
    requirements.write_text("rich\n")
    assert build.build(engine, Recipe(dockerfile=own, requirements=requirements), silent).changed


def test_requirements_without_a_place_are_refused(tmp_path: Path) -> None:
    """A Dockerfile that is FROM something else would leave them out."""
    own, requirements = tmp_path / "Dockerfile", tmp_path / "requirements.txt"
    own.write_text("FROM debian\n")
    requirements.write_text("six\n")
    with pytest.raises(SettingsError, match="CIRRO_RUNNER"):
        build.build(FakeEngine(), Recipe(dockerfile=own, requirements=requirements), silent)
    with pytest.raises(SettingsError, match="--base-image"):
        build.build(FakeEngine(), Recipe(dockerfile=own, base_image="python:3.11"), silent)


def test_the_last_image_is_remembered() -> None:
    """Until there is another."""
    engine = FakeEngine()
    assert build.latest(engine) == ()
    built = build.build(engine, Recipe(), silent)
    build.remember(engine, [built])
    named = engine.images[built.reference]._replace(
        tags=(f"docker.io/library/{built.reference}", "x/cirro-runner:latest")
    )
    engine.images["cirro-runner:latest"] = named
    [last] = build.latest(engine)
    assert (last.reference, last.tag) == (built.reference, built.tag)


def test_an_image_for_two_platforms_is_remembered_as_one() -> None:
    """And the next one takes its place, also if it is for one platform."""
    engine = FakeEngine()
    built = []
    for architecture in ("amd64", "arm64"):
        engine.architectures = architecture
        one = build.build(engine, Recipe(platform=f"linux/{architecture}"), silent)
        engine.images[one.reference] = engine.images[one.reference]._replace(tags=(one.reference,))
        built.append(one)
    assert len({each.reference for each in built}) == 2
    build.remember(engine, built)
    assert [each.reference for each in build.latest(engine)] == [each.reference for each in built]
    build.remember(engine, built[1:])
    assert [each.reference for each in build.latest(engine)] == [built[1].reference]


@pytest.mark.parametrize(
    ("outputs", "machines"),
    [
        ({}, ("x86_64",)),
        ({"CpuArchitecture": "x86_64", "BatchGpuQueue": "cirro-gpu"}, ("x86_64",)),
        ({"CpuArchitecture": "arm64"}, ("arm64",)),
        ({"CpuArchitecture": "arm64", "BatchGpuQueue": "cirro-gpu"}, ("arm64", "x86_64")),
    ],
)
def test_the_architectures_of_a_deployments_machines(outputs: dict[str, str], machines: tuple[str, ...]) -> None:
    """Machines with GPUs are always x86_64."""
    assert push.machines_of(outputs) == machines


def test_an_image_of_another_processor_cannot_be_looked_into() -> None:
    """Without an emulation of it: said, and not that the image lacks Python."""
    engine = FakeEngine(told={})
    engine.ask = lambda reference, command: (255, "exec /usr/bin/env: exec format error\n")  # type: ignore[method-assign]
    with pytest.raises(ImageError, match=r"another processor.*QEMU"):
        build.build(engine, Recipe(platform="linux/arm64"), silent)


# --- push -------------------------------------------------------------------------------------------------------------


def test_an_image_for_other_machines_is_not_pushed() -> None:
    """The deployment's are x86_64."""
    engine = FakeEngine()
    engine.architectures = "arm64"
    built = build.build(engine, Recipe(platform="linux/arm64"), silent)
    with pytest.raises(ImageError, match=r"arm64.*x86_64.*--platform linux/amd64"):
        push.push(engine, Repository(None, HERE, "1.dkr/x"), [built], progress=lambda layer: None)
    assert engine.pushes == []


def test_a_deployment_without_a_repository() -> None:
    """Is not complete."""
    with pytest.raises(NotFound, match="cirro deploy"):
        push.repository_of({}, None, HERE)


def test_which_image_a_setting_names() -> None:
    """By digest or by one of its tags."""
    image = PushedImage("sha256:1", ("a", "b"), 1, datetime.now(timezone.utc), "", {})
    repository = Repository(None, HERE, "1.dkr/x")
    assert repository.name == "x"
    assert images.names(repository, image, "1.dkr/x@sha256:1")
    assert images.names(repository, image, "1.dkr/x:b")
    assert not images.names(repository, image, "1.dkr/x:c")
    assert not images.names(repository, image, "")


def test_a_login_does_not_show_its_password() -> None:
    """Wherever it is printed by mistake."""
    assert "secret" not in f"{images.Login('AWS', 'secret')!r} {images.Login('AWS', 'secret')}"


def test_what_was_built_is_complete() -> None:
    """A `Built` names its image."""
    built = build.build(FakeEngine(), Recipe(), silent)
    assert isinstance(built, Built)
    assert built.reference == f"cirro-runner:{built.tag}"
