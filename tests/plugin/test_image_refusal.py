"""An image that cannot run an electron is refused before anything is sent or paid for; all others cost one look."""

from __future__ import annotations

import logging
import platform
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.contract import problems, protocol
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import send as submission
from covalent_cirro.electron import without_server
from covalent_cirro.electron.launches import Launch
from covalent_cirro.errors import ImageError
from covalent_cirro.jobs import image_modules
from covalent_cirro.jobs.states import parse_job
from covalent_cirro.settings import BY_NAME
from tests.access import control
from tests.plugin.conftest import Account
from tests.pushed_images import Pushes, digest_of

Make = Callable[..., CirroBatchExecutor]
Go = Callable[..., Awaitable[Any]]

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MINOR = ".".join(platform.python_version().split(".")[:2])
OTHER = "3.10" if MINOR != "3.10" else "3.12"
GOOD = {
    protocol.LABEL_PYTHON: platform.python_version(),
    protocol.LABEL_CLOUDPICKLE: cloudpickle.__version__,
    protocol.LABEL_RUNNER: "1.0",
    protocol.LABEL_FORMAT: problems.CALL_FORMAT,
}
NOISE = uuid.uuid4().bytes * 4096
"""An argument that does not ride inside the call."""
WRITES = {
    "s3:PutObject",
    "s3:CreateMultipartUpload",
    "batch:RegisterJobDefinition",
    "batch:SubmitJob",
}
LOOKS = {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:DescribeImages"}


class Repository(NamedTuple):
    """A repository of the account, and how many calls are made.

    Attributes:
        pushes: For pushing to it.
        name: Its name.
    """

    pushes: Pushes
    name: str

    @property
    def uri(self) -> str:
        """What ``container_image_uri`` begins with."""
        return f"127.0.0.1:{self.pushes.emulator.port}/{self.name}"

    def calls(self, names: set[str]) -> dict[str, int]:
        """Calls since `count`, of these operations."""
        return {
            name: each["count"]
            for name, each in control(self.pushes.emulator, "calls?caller=client").items()
            if name in names
        }

    def count(self) -> None:
        """Count from zero."""
        control(self.pushes.emulator, "calls", method="DELETE")


@pytest.fixture
def repository(account: Account) -> Repository:
    """A new repository."""
    pushes = Pushes(account.emulator)
    return Repository(pushes, pushes.repository(f"images-{uuid.uuid4().hex[:8]}"))


@pytest.fixture(autouse=True)
def no_faults(account: Account) -> Iterator[None]:
    """Faults are shared by the module."""
    yield
    account.emulator.faults.clear()


def reverse(data: bytes) -> bytes:
    """An electron."""
    return data[::-1]


def train(data: bytes) -> bytes:
    """An electron that imports what is nowhere."""
    import einops  # type: ignore[import-not-found]
    import lab  # type: ignore[import-not-found]

    return bytes(lab.train(einops, data))


async def run(made: CirroBatchExecutor) -> Any:
    """By the stock class's own method."""
    return await made.run(reverse, [NOISE], {}, {"dispatch_id": str(uuid.uuid4()), "node_id": 3})


@pytest.fixture
def send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """As Covalent's server sends an electron, whose files are given instead of looked up in its database."""

    async def go(made: CirroBatchExecutor, electron: Callable[[bytes], bytes] = reverse) -> Any:
        folder = tmp_path / str(uuid.uuid4())
        folder.mkdir()
        function, argument = without_server._pickle(str(folder), electron, [NOISE])
        group = Group(
            nodes={0: Node(0, 0, electron.__name__, {"function": function})},
            inputs={1: argument},
            lattice="lattice",
            python=platform.python_version(),
            covalent="0.240.0",
        )
        monkeypatch.setattr(assets, "load_group", lambda *_: group)
        spec = type("TaskSpec", (), {"electron_id": 0, "args": [1], "kwargs": {}})

        async def keep(*_: Any) -> None:
            pass

        launch = Launch(str(uuid.uuid4()), [0])
        try:
            return await submission.send(launch, made.settings, [spec], keep)
        finally:
            launch.close()

    return go


@pytest.fixture(params=["run", "send"])
def go(request: pytest.FixtureRequest, send: Go) -> Go:
    """Both ways of an electron to its job."""
    return run if request.param == "run" else send


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"labels": {**GOOD, protocol.LABEL_PYTHON: f"{OTHER}.1"}}, [f"Python {OTHER}.1", f"Python {MINOR}"]),
        ({"labels": {**GOOD, protocol.LABEL_CLOUDPICKLE: "1.6.0"}}, ["cloudpickle 1.6.0", "cloudpickle==1.6.0"]),
        ({"labels": {**GOOD, protocol.LABEL_FORMAT: "99"}}, ["calls of format 99"]),
        ({"labels": GOOD, "architecture": "arm64"}, ["is for arm64"]),
        (
            {"labels": {**GOOD, protocol.LABEL_FORMAT: str(problems.FORMAT)}},
            ["older covalent-cirro", "ignores environment"],
        ),
    ],
)
async def test_an_image_that_cannot_run_it_is_refused(
    repository: Repository, executor: Make, go: Go, image: dict[str, Any], words: list[str]
) -> None:
    """Nothing is uploaded, registered or submitted."""
    repository.pushes.image(repository.name, "1", **image)
    made = executor(container_image_uri=f"{repository.uri}:1", environment={"OMP_NUM_THREADS": "1"})
    repository.count()
    with pytest.raises(ImageError) as refused:
        await go(made)
    assert [word for word in [f"{repository.uri}:1", *words] if word not in str(refused.value)] == []
    assert repository.calls(WRITES) == {}
    assert repository.calls(LOOKS) == {"ecr:BatchGetImage": 1, "ecr:GetDownloadUrlForLayer": 1}


async def test_an_image_that_is_not_there_is_refused_with_those_that_are(
    repository: Repository, executor: Make, go: Go
) -> None:
    """And a repository that is not there as well."""
    repository.pushes.image(repository.name, "good", labels=GOOD)
    repository.count()
    with pytest.raises(ImageError, match=r"has the tags good\."):
        await go(executor(container_image_uri=f"{repository.uri}:misspelt"))
    with pytest.raises(ImageError, match="The repository with name 'nowhere'"):
        await go(executor(container_image_uri=f"127.0.0.1:{repository.pushes.emulator.port}/nowhere:1"))
    assert repository.calls(WRITES) == {}


async def test_the_untouched_default_is_refused(repository: Repository, executor: Make, go: Go) -> None:
    """Its image has no runner in it; nobody needs to be asked for that."""
    repository.count()
    with pytest.raises(ImageError, match="cirro image push"):
        await go(executor(container_image_uri=BY_NAME["container_image_uri"].default))
    assert repository.calls(WRITES | LOOKS) == {}


async def test_ecrs_dual_stack_host_is_refused(repository: Repository, executor: Make, go: Go) -> None:
    """The ECS agent does not log in there: by its name, before anything is asked or paid for."""
    repository.count()
    named = r"dual-stack host.*the same image as '123456789012\.dkr\.ecr\.us-east-1\.amazonaws\.com/a:1'"
    with pytest.raises(ImageError, match=named):
        await go(executor(container_image_uri="123456789012.dkr-ecr.us-east-1.on.aws/a:1"))
    assert repository.calls(WRITES | LOOKS) == {}


@pytest.mark.parametrize("labels", [GOOD, {}])
async def test_an_image_that_can_run_it_is_looked_at_once(
    repository: Repository, executor: Make, labels: dict[str, str]
) -> None:
    """The second electron asks nothing of ECR; an image without labels is let pass."""
    repository.pushes.image(repository.name, "1", labels=labels)
    made = executor(container_image_uri=f"{repository.uri}:1")
    assert await run(made) == NOISE[::-1]
    assert repository.calls(LOOKS) == {"ecr:BatchGetImage": 1, "ecr:GetDownloadUrlForLayer": 1}
    repository.count()
    assert await run(made) == NOISE[::-1]
    assert repository.calls(LOOKS) == {}


@pytest.mark.parametrize(
    ("layers", "warned"),
    [
        pytest.param((b"layer",), "it imports lab, which the job's image", id="the image that the label is of"),
        pytest.param((b"layer", b"more"), "", id="one that was built on it"),
    ],
)
async def test_an_electron_that_imports_what_its_image_lacks_is_warned_of(
    repository: Repository,
    executor: Make,
    send: Go,
    account: Account,
    caplog: pytest.LogCaptureFixture,
    layers: tuple[bytes, ...],
    warned: str,
) -> None:
    """In the server's log, and for every list of jobs in a parameter of its job. Nothing more is asked of AWS."""
    modules = image_modules.dump({"einops", "cloudpickle"}, [digest_of(b"layer")])
    labels = {**GOOD, protocol.LABEL_MODULES: modules}
    repository.pushes.image(repository.name, "1", labels=labels, layers=layers)
    repository.count()
    with caplog.at_level(logging.WARNING, logger="covalent_cirro.electron.missing_modules"):
        sent = await send(executor(container_image_uri=f"{repository.uri}:1"), train)
    assert repository.calls(LOOKS) == {"ecr:BatchGetImage": 1, "ecr:GetDownloadUrlForLayer": 1}
    [job] = account.client("batch").describe_jobs(jobs=[sent.job_id])["jobs"]
    assert job["parameters"].get(image_modules.PARAMETER, "") == ("lab" if warned else "")
    assert parse_job(job).missing_modules == (("lab",) if warned else ())
    assert bool(caplog.records) == bool(warned)
    assert warned in caplog.text
    account.client("batch").terminate_job(jobId=sent.job_id, reason="the test is over")


async def test_of_an_image_for_several_processors_ours_is_looked_at(repository: Repository, executor: Make) -> None:
    """By its digest, as `cirro image push` sets it."""
    ours = repository.pushes.image(repository.name, labels={**GOOD, protocol.LABEL_PYTHON: f"{OTHER}.9"})
    other = repository.pushes.image(repository.name, labels=GOOD, architecture="arm64")
    index = repository.pushes.index(repository.name, "both", {"arm64": other, "amd64": ours})
    with pytest.raises(ImageError, match=rf"Python {OTHER}\.9"):
        await run(executor(container_image_uri=f"{repository.uri}@{index}"))


async def test_who_may_not_look_goes_on(
    repository: Repository, executor: Make, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once; the next electron does not ask again."""
    repository.pushes.image(repository.name, "1", labels={**GOOD, protocol.LABEL_PYTHON: f"{OTHER}.1"})
    # A 409 that says what AWS says in a 400.
    account.emulator.faults.add("conflict", service="ecr", code="AccessDeniedException")
    made = executor(container_image_uri=f"{repository.uri}:1")
    repository.count()
    with caplog.at_level(logging.WARNING, logger="covalent_cirro.aws.image_labels"):
        for _ in range(2):
            assert await run(made) == NOISE[::-1]
    assert repository.calls(LOOKS) == {"ecr:BatchGetImage": 1}
    said = [record.getMessage() for record in caplog.records if "unchecked" in record.getMessage()]
    assert len(said) == 1
    assert "AccessDeniedException" in said[0]


async def test_images_of_other_registries_are_not_looked_at(repository: Repository, executor: Make) -> None:
    """ECR knows nothing of them."""
    repository.count()
    assert await run(executor(container_image_uri="public.ecr.aws/somebody/something:1")) == NOISE[::-1]
    assert repository.calls(LOOKS) == {}
