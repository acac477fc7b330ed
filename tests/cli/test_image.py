"""``cirro image`` without an engine: what it lists, and what it says where something is missing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from covalent_cirro import __version__, deployment
from covalent_cirro.aws.sessions import Access
from covalent_cirro.cli import render
from covalent_cirro.contract import problems, protocol
from covalent_cirro.covalent_server import config
from covalent_cirro.deployment.images import build
from covalent_cirro.deployment.images import push as image_push
from covalent_cirro.deployment.images import repository as images
from covalent_cirro.deployment.images.recipe import Recipe
from covalent_cirro.deployment.images.repository import Repository
from covalent_cirro.errors import ImageError
from covalent_cirro.jobs import image_rules
from covalent_cirro.local.emulator import Emulator
from tests.access import variables
from tests.fake_engine import FakeEngine
from tests.pushed_images import Pushes

Cirro = Callable[..., Result]

LABELS = {
    protocol.LABEL_PYTHON: "3.11.9",
    protocol.LABEL_CLOUDPICKLE: "3.1.2",
    protocol.LABEL_RUNNER: __version__,
    protocol.LABEL_FORMAT: problems.CALL_FORMAT,
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An account with a deployment ``cirro``, whose policies count."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), iam=True) as emulator:
        deployment.deploy(emulator.client("cloudformation"))
        yield emulator


@pytest.fixture(autouse=True)
def account(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ``cirro`` finds in its environment: the emulated account, a config of its own, and no engine."""
    for name, value in {
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
        **variables(emulator.key),
        "AWS_REGION": "us-east-1",
        "COVALENT_CONFIG_DIR": str(tmp_path / "covalent"),
        "DOCKER_HOST": "tcp://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def repository(emulator: Emulator) -> Iterator[tuple[Pushes, str, str]]:
    """Pushes into the deployment's repository, its name and its URI. It is empty before and after."""
    uri = deployment.outputs(emulator.client("cloudformation"))["ImageRepository"]
    pushes, name = Pushes(emulator), uri.partition("/")[2]
    yield pushes, name, uri
    ids = pushes.ecr.list_images(repositoryName=name)["imageIds"]
    while ids:  # an image that a list names goes after the list
        pushes.ecr.batch_delete_image(repositoryName=name, imageIds=ids)
        ids = pushes.ecr.list_images(repositoryName=name)["imageIds"]


def test_an_empty_repository(cirro: Cirro, repository: tuple[Pushes, str, str]) -> None:
    """Says how it is filled; for a program it is an empty list."""
    assert "`cirro image push`" in cirro("image", "list").output
    assert json.loads(cirro("image", "list", "--json").output) == []


def test_the_images_of_the_repository(cirro: Cirro, repository: tuple[Pushes, str, str]) -> None:
    """With what each says of itself, a list of images for several processors too, and the one that jobs use."""
    pushes, name, uri = repository
    digest = pushes.image(name, "3.11-cpu-0123456789abcdef", labels=LABELS, layers=[b"x" * 2_000_000])
    arm = pushes.image(name, architecture="arm64", labels={protocol.LABEL_PYTHON: "3.12"}, layers=[b"arm"])
    both = pushes.index(name, "both", {"arm64": arm, "amd64": digest})
    config.set_image(f"{uri}@{digest}")
    rows = {row["digest"]: row for row in json.loads(cirro("image", "list", "--json").output)}
    assert set(rows) == {digest, arm, both}
    first = rows[digest]
    assert first["tags"] == ["3.11-cpu-0123456789abcdef"]
    assert first["uri"] == f"{uri}@{digest}"
    assert first["versions"] == {
        "python": "3.11.9",
        "cloudpickle": "3.1.2",
        "runner": __version__,
        "call_format": problems.CALL_FORMAT,
    }
    assert first["size_bytes"] > 2_000_000
    assert [row["used"] for row in (first, rows[arm], rows[both])] == [True, False, False]
    assert rows[both]["versions"] == first["versions"]
    assert (rows[arm]["architecture"], rows[arm]["versions"]["runner"]) == ("arm64", "")
    shown = cirro("image", "list").output
    [line] = [line for line in shown.splitlines() if "0123456789abcdef" in line]
    assert line.startswith("*")
    assert all(part in line for part in (digest[7:19], "2 MB", "3.11.9", "3.1.2", __version__))
    assert "* jobs use it" in shown


def test_an_image_that_jobs_do_not_use(cirro: Cirro, repository: tuple[Pushes, str, str]) -> None:
    """The list says which one they do."""
    pushes, name, _ = repository
    pushes.image(name, "one", labels=LABELS)
    config.set_image("another:1")
    assert "Jobs use none of them: container_image_uri is 'another:1'" in cirro("image", "list").output


def test_without_a_deployment(cirro: Cirro) -> None:
    """There is nowhere to push to; that is said before an engine is asked for."""
    for command in ("list", "push"):
        result = cirro("image", command, "--stack-name", "nothing")
        assert result.exit_code == 1
        assert "there is no deployment 'nothing' in us-east-1" in result.stderr
        assert "cirro deploy" in result.stderr


def test_without_an_engine(cirro: Cirro) -> None:
    """How to get one."""
    for command in ("build", "push"):
        result = cirro("image", command)
        assert result.exit_code == 1
        assert "no Docker engine answers" in result.stderr
        assert "Docker Desktop" in result.stderr


def test_without_the_repository(cirro: Cirro, emulator: Emulator) -> None:
    """It was deleted behind the deployment's back: which, and what makes it again."""
    client = emulator.client("cloudformation")
    deployment.deploy(client, "bare")
    uri = deployment.outputs(client, "bare")["ImageRepository"]
    emulator.client("ecr").delete_repository(repositoryName=uri.partition("/")[2], force=True)
    result = cirro("image", "list", "--stack-name", "bare")
    assert result.exit_code == 1
    assert f"repository {uri}" in result.stderr
    assert "RepositoryNotFoundException" in result.stderr
    assert "`cirro deploy` makes it again" in result.stderr


def test_who_may_not_see_the_repository(cirro: Cirro, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads AWS's own words: a user that may look at the stacks and at nothing else."""
    iam = emulator.client("iam")
    iam.create_user(UserName="guest")
    document = {"Effect": "Allow", "Action": "cloudformation:Describe*", "Resource": "*"}
    iam.put_user_policy(
        UserName="guest",
        PolicyName="look",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [document]}),
    )
    key = iam.create_access_key(UserName="guest")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    result = cirro("image", "list")
    assert result.exit_code == 1
    assert "AccessDenied" in result.stderr
    assert "ecr:DescribeImages" in result.stderr
    assert "guest" in result.stderr


def test_an_image_for_other_machines_is_refused_before_it_is_built(cirro: Cirro) -> None:
    """The deployment's are x86_64."""
    result = cirro("image", "push", "--platform", "linux/arm64")
    assert result.exit_code == 1
    assert "is for linux/arm64" in result.stderr
    assert "--platform linux/amd64" in result.stderr


def test_who_may_not_push_reads_the_registrys_words_and_which_policy_is_missing(
    emulator: Emulator, repository: tuple[Pushes, str, str]
) -> None:
    """The config stays as it is, and so do the names of the engine's images."""
    engine = FakeEngine()
    built = build.build(engine, Recipe(), lambda step: None)
    names = set(engine.images)
    words = "denied: User: arn:aws:iam::1:user/guest is not authorized to perform: ecr:InitiateLayerUpload"
    engine.refusal = f"the image could not be pushed: {words}."
    place = Repository(emulator.client("ecr"), Access(None, None, None, None), repository[2])
    with pytest.raises(ImageError, match=f"{words}.*ecr:PutImage.*PowerUser is enough.*SubmitterPolicy.* is not"):
        image_push.push(engine, place, [built], progress=lambda layer: None)
    assert set(engine.images) == names
    assert config.executor_section() == {}


class PushingEngine(FakeEngine):
    """An engine that pushes what it has, less what it loses.

    Attributes:
        loses: Labels that it loses.
        architecture_there: What it says that the image is for; `None`: what it is for.
    """

    def __init__(self, pushes: Pushes) -> None:
        super().__init__()
        self.loses: set[str] = set()
        self.architecture_there: str | None = None
        self._pushes = pushes

    def push(self, repository: str, tag: str, **given: Any) -> None:
        image = self.images[f"{repository}:{tag}"]
        labels = {name: value for name, value in image.labels.items() if name not in self.loses}
        architecture = image.architecture if self.architecture_there is None else self.architecture_there
        self._pushes.image(repository.partition("/")[2], tag, labels=labels, architecture=architecture)


def test_what_came_to_ecr_is_what_was_built(emulator: Emulator, repository: tuple[Pushes, str, str]) -> None:
    """It is read back before jobs use it."""
    engine = PushingEngine(repository[0])
    built = build.build(engine, Recipe(), lambda step: None)
    place = Repository(emulator.client("ecr"), Access(None, None, None, None), repository[2])
    pushed = image_push.push(engine, place, [built], progress=lambda layer: None)
    assert config.executor_section()["container_image_uri"] == pushed.uri


def test_one_image_for_both_architectures(
    cirro: Cirro, emulator: Emulator, repository: tuple[Pushes, str, str]
) -> None:
    """Each is pushed by itself, and a list of both is what jobs use; a second push sends nothing."""
    engine = PushingEngine(repository[0])
    built = []
    for architecture in ("amd64", "arm64"):
        engine.architectures = architecture
        built.append(build.build(engine, Recipe(platform=f"linux/{architecture}"), lambda step: None))
    place = Repository(emulator.client("ecr"), Access(None, None, None, None), repository[2])
    pushed = image_push.push(engine, place, built, progress=lambda layer: None, machines=("arm64", "x86_64"))
    assert config.executor_section()["container_image_uri"] == pushed.uri
    digest = pushed.uri.partition("@")[2]
    assert set(images.architectures(place, digest)) == {"amd64", "arm64"}
    for machine, architecture in image_rules.ARCHITECTURES.items():
        assert images.facts(place, [digest], machine)[digest].architecture == architecture
    again = image_push.push(engine, place, built, progress=lambda layer: None, machines=("arm64",))
    assert (again.uri, again.uploaded) == (pushed.uri, False)
    assert image_push.missing(("amd64",), ("arm64", "x86_64")) == ["arm64"]


@pytest.mark.parametrize(
    ("architecture", "loses", "words"),
    [
        ("", (), "architecture none in the place of amd64"),
        ("arm64", (), "architecture arm64 in the place of amd64"),
        ("amd64", (protocol.LABEL_RUNNER,), f"runner none in the place of {__version__}"),
    ],
)
def test_an_image_that_an_engine_spoiled_is_not_used(
    emulator: Emulator, repository: tuple[Pushes, str, str], architecture: str, loses: tuple[str, ...], words: str
) -> None:
    """As Docker 29's legacy builder does: said with what was lost; also where it lay there already."""
    engine = PushingEngine(repository[0])
    engine.architecture_there, engine.loses = architecture, set(loses)
    built = build.build(engine, Recipe(), lambda step: None)
    place = Repository(emulator.client("ecr"), Access(None, None, None, None), repository[2])
    for _ in range(2):
        with pytest.raises(ImageError, match=f"is not the image that was built: it has {words}.*buildx"):
            image_push.push(engine, place, [built], progress=lambda layer: None)
    assert config.executor_section() == {}


def test_a_push_shows_how_far_its_layers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; elsewhere nothing that would fill a log."""
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=100)
        monkeypatch.setattr(render, "_out", lambda console=console: console)
        with render.transfer() as show:
            show("0e44be67e68b", 5_000_000, 0)
            show("0e44be67e68b", 5_000_000, 10_000_000)
        assert ("0e44be67e68b" in screen.getvalue()) is terminal
        assert ("5.0/10.0 MB" in screen.getvalue()) is terminal


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--device", "tpu"),
        ("build", "--platform", "windows/amd64"),
        ("build", "--python", "2.7"),
        ("build", "--requirements", "missing.txt"),
        ("push", "--file", "missing.Dockerfile"),
    ],
)
def test_wrong_usage(cirro: Cirro, words: tuple[str, ...]) -> None:
    """A value that does not exist is told from a failure by its exit code."""
    assert cirro("image", *words).exit_code == 2
