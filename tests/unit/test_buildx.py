"""Docker's own builder: which engine builds by it, what it is told, and what is made of what it says."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.deployment.images import buildx
from covalent_cirro.deployment.images.docker_engine import DockerEngine
from covalent_cirro.errors import ImageError

SAID = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 5.91kB done
#1 DONE 0.0s

#5 [base 1/2] FROM docker.io/library/python:3.11-slim-bookworm
#5 CACHED

#6 [base 2/2] RUN useradd --uid 1000 --create-home cirro
#6 0.412 made
#6 DONE 0.5s

#7 [packages 2/3] WORKDIR /build
#7 DONE 0.0s
"""

BROKEN = (
    SAID
    + """
#8 [packages 3/3] RUN python -m pip install awscrt
#8 1.204 Collecting awscrt
#8 2.310 ERROR: No matching distribution found for awscrt
#8 ERROR: process "/bin/sh -c python -m pip install awscrt" did not complete successfully: exit code: 1
------
 > [packages 3/3] RUN python -m pip install awscrt:
2.310 ERROR: No matching distribution found for awscrt
------
Dockerfile:3
--------------------
   3 | >>> RUN python -m pip install awscrt
--------------------
ERROR: failed to solve: process "/bin/sh -c python -m pip install awscrt" did not complete successfully: exit code: 1
"""
)

PROGRAM = """\
#!{python}
import json, os, sys
if sys.argv[1:] == ["buildx", "version"]:
    sys.exit({version})
names = [sys.argv[at + 1] for at, word in enumerate(sys.argv) if word == "--build-arg"]
told = {{"words": sys.argv[1:], "arguments": {{name: os.environ[name] for name in names}}}}
told["engine"] = {{name: os.environ.get(name) for name in ("DOCKER_HOST", "DOCKER_CONTEXT")}}
open({record!r}, "w").write(json.dumps(told))
sys.stderr.write({said!r})
sys.exit({code})
"""


class Docker:
    """A ``docker`` program in the place of the real one, and an engine that says what it is.

    Attributes:
        record: What the program was called with.
        images: What the engine has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record.json"
        self.images: dict[str, dict[str, Any]] = {}
        self.components = [{"Name": "Engine"}]
        self.api = SimpleNamespace(build=self.build)
        self.built_by_api: list[str] = []

    def program(self, said: str = SAID, code: int = 0, version: int = 0) -> None:
        """Put the program where it is found."""
        path = self.folder / "docker"
        path.write_text(
            PROGRAM.format(python=sys.executable, version=version, record=str(self.record), said=said, code=code)
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def told(self) -> dict[str, Any]:
        """What the program was called with."""
        return dict(json.loads(self.record.read_text()))

    # --- what the SDK's client is asked -------------------------------------------------------------------------------

    def version(self) -> dict[str, Any]:
        return {"Arch": "amd64", "Components": self.components}

    @property
    def images_api(self) -> Any:
        return SimpleNamespace(get=lambda reference: SimpleNamespace(attrs={"Id": "1", "Architecture": "amd64"}))

    def build(self, **request: Any) -> list[dict[str, str]]:
        self.built_by_api.append(request["tag"])
        return []


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Found first; and no variable of the machine's own Docker."""
    made = Docker(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return made


def build(docker: Docker, say: Callable[[str], None] = lambda step: None, **given: Any) -> None:
    """Build a folder's Dockerfile."""
    client = SimpleNamespace(api=docker.api, version=docker.version, images=docker.images_api)
    context = docker.folder / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\n")
    given = {"platform": "linux/amd64", "arguments": {"PIP_INDEX_URL": "https://ada:secret@index"}, **given}
    DockerEngine(client).build(context, "Dockerfile", "cirro-runner:1", say=say, **given)


def test_docker_builds_by_its_own_builder_where_it_is_there(docker: Docker) -> None:
    """The API's, which is the legacy one, loses the platform on Docker 29: it is not used."""
    docker.program()
    steps: list[str] = []
    build(docker, steps.append)
    words = docker.told["words"]
    assert words[:2] == ["buildx", "build"]
    assert words[words.index("--platform") + 1] == "linux/amd64"
    assert {"--provenance=false", "--load"} <= set(words)
    assert words[words.index("--tag") + 1] == "cirro-runner:1"
    assert words[-1] == str(docker.folder / "context")
    assert words[words.index("--file") + 1] == str(docker.folder / "context" / "Dockerfile")
    assert steps == ["RUN useradd --uid 1000 --create-home cirro"]
    assert docker.built_by_api == []


def test_what_build_arguments_say_is_in_no_list_of_processes(docker: Docker) -> None:
    """An index's address may hold a password: the program is told the name, and has the value by its environment."""
    docker.program()
    build(docker)
    assert "secret" not in " ".join(docker.told["words"])
    assert docker.told["arguments"] == {"PIP_INDEX_URL": "https://ada:secret@index"}


@pytest.mark.parametrize("host", [None, "tcp://10.0.0.5:2376"])
def test_it_builds_where_everything_else_looks(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, host: str | None
) -> None:
    """The program has contexts and builders of its own: the image would be in another engine, or see no other image."""
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    if host is not None:
        monkeypatch.setenv("DOCKER_HOST", host)
    docker.program()
    build(docker)
    assert docker.told["engine"] == {"DOCKER_HOST": host or "unix:///var/run/docker.sock", "DOCKER_CONTEXT": None}
    words = docker.told["words"]
    assert words[words.index("--builder") + 1] == "default"


def test_other_engines_and_docker_without_it_build_by_the_api(docker: Docker) -> None:
    """podman's service has no such builder; the plugin may not be installed, nor the program."""
    build(docker)
    docker.program(version=1)
    build(docker)
    docker.program()
    docker.components = [{"Name": "Podman Engine"}]
    build(docker)
    assert docker.built_by_api == ["cirro-runner:1"] * 3
    assert not docker.record.exists()


def test_a_failed_step_is_told_with_its_last_lines(docker: Docker) -> None:
    """As from any other engine."""
    docker.program(BROKEN, code=1)
    with pytest.raises(ImageError) as failed:
        build(docker)
    text = str(failed.value)
    assert "the step `RUN python -m pip install awscrt` failed" in text
    assert "\n    ERROR: No matching distribution found for awscrt\n" in text
    assert "exit code: 1" in text
    assert "made" not in text


def test_a_failure_of_no_step_is_told_in_its_words(docker: Docker) -> None:
    """A file that is missing, or a builder that does not start."""
    docker.program("ERROR: failed to solve: dockerfile parse error on line 1: unknown instruction: FORM\n", code=1)
    with pytest.raises(ImageError, match="unknown instruction: FORM"):
        build(docker)
    docker.program("unknown flag: --provenance\nSee 'docker buildx build --help'.\n", code=125)
    with pytest.raises(ImageError, match="unknown flag: --provenance"):
        build(docker)


def test_the_program_is_asked_for_once_it_is_needed(docker: Docker) -> None:
    """Without it on the path there is none."""
    assert buildx.program() is None
    docker.program()
    assert buildx.program() == str(docker.folder / "docker")
