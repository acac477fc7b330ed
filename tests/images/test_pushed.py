"""From ``cirro image push`` to electrons: the image goes to the emulated ECR, and each job is a container of it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, deployment, mapped, stored
from covalent_cirro.cli import main
from covalent_cirro.contract import documents, failure_kinds, protocol
from covalent_cirro.covalent_server import config
from covalent_cirro.deployment.images import build
from covalent_cirro.deployment.images.build import Built
from covalent_cirro.deployment.images.docker_engine import DockerEngine
from covalent_cirro.deployment.images.recipe import PYTHON, Recipe, build_arguments, pip_settings
from covalent_cirro.local.emulator import Emulator
from tests.access import credentials_file, variables
from tests.emulator.conftest import poll
from tests.images.conftest import ROOT, Host, silent

pytestmark = pytest.mark.container

cloudpickle.register_pickle_by_value(sys.modules[__name__])
_nodes = itertools.count()
LATEST = f"{build.LOCAL_NAME}:{build.LATEST}"
TRAINING = ("Dockerfile", "requirements.txt")


class Account:
    """An emulated account with a deployment whose jobs are containers, and ``cirro`` as its owner calls it."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder
        self.deployed = deployment.deploy(emulator.client("cloudformation"))
        self.environment = {
            "AWS_ENDPOINT_URL": emulator.endpoint_url,
            **variables(emulator.key),
            "AWS_REGION": "us-east-1",
            "COVALENT_CONFIG_DIR": str(folder),
        }
        credentials_file(folder / "credentials", emulator.key)

    def cirro(self, *words: str) -> Result:
        """``cirro image ...`` in this account."""
        result = CliRunner().invoke(main, ["image", *words], env=self.environment)
        assert result.exit_code == 0, result.stderr
        return result

    def executor(self, image: str, **given: Any) -> CirroBatchExecutor:
        """An executor for the deployment."""
        settings = {
            **self.deployed.settings,
            "endpoint_url": self.emulator.endpoint_url,
            "credentials": str(self.folder / "credentials"),
            "profile": "emulated",
            "container_image_uri": image,
            "vcpu": 1,
            "memory": 0.5,
            "cache_dir": str(self.folder / "cache"),
        }
        return CirroBatchExecutor(**{**settings, **given})

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of the deployment, as AWS Batch describes them."""
        batch = self.emulator.client("batch")
        found: list[dict[str, Any]] = []
        for status in ("RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"):
            queue = self.deployed.outputs["BatchQueue"]
            ids = [job["jobId"] for job in batch.list_jobs(jobQueue=queue, jobStatus=status)["jobSummaryList"]]
            found += batch.describe_jobs(jobs=ids)["jobs"] if ids else []
        return found

    def job_of(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The job of an electron, by the place of its call."""
        place = f"/{metadata['dispatch_id']}/{metadata['node_id']}/"
        [job] = [job for job in self.jobs() if any(place in part for part in job["parameters"].values())]
        return job

    def log(self, job: dict[str, Any]) -> list[str]:
        """The lines that a job has logged until now."""
        try:
            events = self.emulator.client("logs").get_log_events(
                logGroupName=self.deployed.outputs["BatchJobLogGroupName"],
                logStreamName=job["container"]["logStreamName"],
                startFromHead=True,
            )["events"]
        except ClientError:  # the stream appears with its first line
            return []
        return [event["message"] for event in events]

    def outcome(self, metadata: dict[str, Any]) -> protocol.Outcome:
        """What an electron's runner published."""
        s3, bucket = self.emulator.client("s3"), self.deployed.outputs["S3BucketName"]
        place = f"/{metadata['dispatch_id']}/{metadata['node_id']}/"
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        [key] = [key for key in keys if place in key and key.endswith("outcome.json")]
        return documents.parse_outcome(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


@pytest.fixture(scope="module")
def account(engine: DockerEngine, docker_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One account for all tests here."""
    folder = tmp_path_factory.mktemp("account")
    with pytest.MonkeyPatch.context() as patch:
        if docker_host[0] is not None:
            patch.setenv("DOCKER_HOST", docker_host[0])
        before = engine.find(LATEST)
        with Emulator(state_dir=folder / "emulator", docker=True) as emulator:
            yield Account(emulator, folder)
        # What `cirro image push` takes here is what its user built last, and no test.
        if before is None:
            engine.untag(LATEST)
        else:
            engine.tag(before.image_id, build.LOCAL_NAME, build.LATEST)


@pytest.fixture(scope="module")
def pushed(account: Account, runner: Built) -> dict[str, Any]:
    """What ``cirro image push --json`` says of the runner's image."""
    said: dict[str, Any] = json.loads(account.cirro("push", "--python", PYTHON, "--json").stdout)
    return said


@pytest.fixture
def metadata() -> dict[str, Any]:
    """An electron's place in a dispatch."""
    return {"dispatch_id": "pushed", "node_id": next(_nodes)}


def test_a_push_makes_the_image_the_executors(
    account: Account, pushed: dict[str, Any], runner: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its digest; the list shows it as the one that jobs use, with its versions."""
    repository = account.deployed.outputs["ImageRepository"]
    ecr = account.emulator.client("ecr")
    [detail] = ecr.describe_images(repositoryName=repository.partition("/")[2])["imageDetails"]
    assert pushed["uri"] == f"{repository}@{detail['imageDigest']}"
    assert detail["imageTags"] == [runner.tag]
    assert (pushed["uploaded"], pushed["recorded"], pushed["changed"]) == (True, True, False)
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(account.folder))
    assert config.executor_section()["container_image_uri"] == pushed["uri"]
    [row] = json.loads(account.cirro("list", "--json").stdout)
    assert row["used"]
    assert row["digest"] == detail["imageDigest"]
    assert row["versions"] == pushed["versions"]
    assert row["versions"]["python"].startswith(PYTHON)


def test_a_second_push_sends_nothing(account: Account, pushed: dict[str, Any], engine: DockerEngine) -> None:
    """Not even the name of the repository stays among the engine's images."""
    again = json.loads(account.cirro("push", "--python", PYTHON, "--json").stdout)
    assert (again["uri"], again["uploaded"]) == (pushed["uri"], False)
    assert engine.find(f"{account.deployed.outputs['ImageRepository']}:{pushed['image'].partition(':')[2]}") is None
    told = account.cirro("push", "--python", PYTHON).stdout
    assert "nothing has changed" in told
    assert "was there already" in told


def test_the_password_of_the_registry_is_nowhere(
    account: Account, pushed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push leaves nothing in Docker's own configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    account.cirro("push", "--python", PYTHON)
    assert list(tmp_path.rglob("*")) == []


async def test_electrons_run_in_the_image_from_the_repository(account: Account, pushed: dict[str, Any]) -> None:
    """A small sweep, side by side; each job is a container that was made from the digest."""

    def square(number: int) -> tuple[int, str]:
        import platform

        return number * number, platform.python_version()

    places = [{"dispatch_id": "pushed", "node_id": next(_nodes)} for _ in range(4)]
    results = await asyncio.gather(
        *(account.executor(pushed["uri"]).run(square, [n], {}, place) for n, place in enumerate(places))
    )
    assert [result[0] for result in results] == [0, 1, 4, 9]
    assert all(result[1].startswith(PYTHON) for result in results)
    for place in places:
        job = account.job_of(place)
        assert (job["status"], job["container"]["exitCode"]) == ("SUCCEEDED", protocol.ExitCode.OK)
        assert job["container"]["image"] == pushed["uri"]


async def test_exit_codes(account: Account, pushed: dict[str, Any]) -> None:
    """Of an electron that raises and of one that ends its process: the runner's, and the outcome says why."""

    def raises() -> None:
        raise ValueError("of no use")

    def leaves() -> None:
        import os

        os._exit(42)

    for function, kind, words in (
        (raises, failure_kinds.Kind.RAISED, "of no use"),
        (leaves, failure_kinds.Kind.EXITED, "42"),
    ):
        place = {"dispatch_id": "pushed", "node_id": next(_nodes)}
        with pytest.raises(TaskRuntimeError, match=words):
            await account.executor(pushed["uri"]).run(function, [], {}, place)
        [result] = account.outcome(place).results
        assert result.failure is not None
        assert result.failure.kind == kind
        job = account.job_of(place)
        assert (job["status"], job["container"]["exitCode"]) == ("FAILED", protocol.ExitCode.RAISED)


async def test_a_job_that_is_terminated_says_so_itself(
    account: Account, pushed: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """SIGTERM arrives at the runner in the container, which publishes an outcome within its grace."""

    def sleeps() -> None:
        import time

        print("asleep", flush=True)
        time.sleep(600)

    run = asyncio.ensure_future(account.executor(pushed["uri"]).run(sleeps, [], {}, metadata))

    def running() -> dict[str, Any] | None:
        jobs = [job for job in account.jobs() if job["status"] == "RUNNING"]
        return jobs[0] if jobs else None

    job = await asyncio.to_thread(poll, running, "the job")
    # Until its runner listens, a container's first process does not hear SIGTERM.
    await asyncio.to_thread(poll, lambda: "asleep" in account.log(job), "the electron")
    account.emulator.client("batch").terminate_job(jobId=job["jobId"], reason="the test is over")
    with pytest.raises(TaskRuntimeError):
        await run
    job = account.job_of(metadata)
    assert job["statusReason"] == "the test is over"
    assert job["container"]["exitCode"] == protocol.ExitCode.TERMINATED
    [result] = account.outcome(metadata).results
    assert result.failure is not None
    assert result.failure.kind == failure_kinds.Kind.TERMINATED


async def test_memory_is_the_containers(account: Account, pushed: dict[str, Any], metadata: dict[str, Any]) -> None:
    """An electron that takes more than its job asked for is killed, and its outcome has the limit and the reason."""

    def fill() -> int:
        return len(bytearray(1 << 30))

    with pytest.raises(
        TaskRuntimeError, match=r"ran out of memory: it was killed at its limit of 0.25 GB.*\nTo do: Set memory="
    ):
        await account.executor(pushed["uri"], memory=0.25).run(fill, [], {}, metadata)
    outcome = account.outcome(metadata)
    [result] = outcome.results
    assert result.failure is not None
    assert result.failure.kind == failure_kinds.Kind.OUT_OF_MEMORY
    assert outcome.usage.memory_limit_bytes == 256 << 20
    assert outcome.usage.oom_kills == 1  # the cgroup's own count


@mapped("x")
def weighed(x: int, weights: list[int]) -> int:
    """An item that needs a stored value, and a report of its progress."""
    from covalent_cirro import trial

    trial.report(0, x)
    return x * sum(weights)


async def test_maps_and_stored_values_are_known_in_the_image(
    account: Account, pushed: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """The pickles name modules of this package, which the image has."""
    made = account.executor(pushed["uri"], array_size=2)
    lists = {"x": stored([1, 2, 3], executor=made), "weights": stored([2, 3], executor=made)}
    assert await made.run(weighed, [], lists, metadata) == [5, 10, 15]


@mapped("mib")
def filled(mib: int) -> tuple[int, str]:
    """An item that takes so much memory; says in which job it was computed."""
    return len(bytearray(mib << 20)) >> 20, os.environ["AWS_BATCH_JOB_ID"]


async def test_items_that_ran_out_of_memory_run_again_with_more(
    account: Account, pushed: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """The kernel kills in one job of the array; a further try has the items of that job that are left, and no other."""
    made = account.executor(pushed["uri"], memory=0.25, memory_max=1, array_size=2, poll_freq=1)
    results = await made.run(filled, [], {"mib": [1, 2, 3, 400, 5]}, metadata)
    assert [mib for mib, _ in results] == [1, 2, 3, 400, 5]
    place = f"/{metadata['dispatch_id']}/{metadata['node_id']}/"
    own = [job for job in account.jobs() if any(place in part for part in job["parameters"].values())]
    array, further = sorted(own, key=lambda job: job["createdAt"])
    jobs = [job for _, job in results]
    assert jobs == [f"{array['jobId']}:0"] * 2 + [f"{array['jobId']}:1"] + [further["jobId"]] * 2
    [killed] = account.emulator.client("batch").describe_jobs(jobs=[f"{array['jobId']}:1"])["jobs"]
    assert killed["container"]["exitCode"] == protocol.ExitCode.RAISED
    assert further["status"] == "SUCCEEDED"
    asked = {each["type"]: each["value"] for each in further["container"]["resourceRequirements"]}
    assert asked["MEMORY"] == "512"


# --- the training sweep -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training(
    engine: DockerEngine, runner: Built, serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The image of `docker/training.Dockerfile`, with a build of torch for CPU from where pip here has one.

    It takes minutes: what an earlier run made of the same runner and the same files is taken as it is.
    """
    made_of = [runner.tag, *((ROOT / "docker" / f"training.{name}").read_text() for name in TRAINING)]
    reference = f"cirro-training:test-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}"
    if engine.find(reference) is not None:
        return reference
    folder = tmp_path_factory.mktemp("torch")
    (folder / "simple" / "torch").mkdir(parents=True)
    tag = f"cp{PYTHON.replace('.', '')}"
    links = os.environ.get("PIP_FIND_LINKS", "").split()
    wheels = [path for link in links if Path(link).is_dir() for path in Path(link).glob(f"torch-*+cpu-{tag}-*.whl")]
    arguments = {**pip_settings(), **build_arguments(Recipe()), "CIRRO_RUNNER": runner.reference}
    for wheel in wheels:
        (folder / "simple" / "torch" / wheel.name).symlink_to(wheel)
        host = serve(folder)
        arguments |= {"PYTORCH_INDEX_URL": f"http://{host}/simple", "PIP_TRUSTED_HOST": "127.0.0.1"}
    context = shutil.copytree(ROOT / "docker", folder / "docker")
    engine.build(context, "training.Dockerfile", reference, platform="linux/amd64", arguments=arguments, say=silent)
    return reference


def sweep() -> ModuleType:
    """``examples/sweep.py``, with shorter trainings."""
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "examples" / "sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sweep"] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    module.EPOCHS = 4  # type: ignore[attr-defined]
    return module


@pytest.mark.timeout(900)
async def test_the_training_sweep_runs_in_its_image(account: Account, training: str, engine: DockerEngine) -> None:
    """The functions of ``examples/sweep.py``: digits are loaded, models trained and ranked, the best trained again."""
    assert build.ask(engine, training).python.startswith(PYTHON)
    code = sweep()

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        place = {"dispatch_id": "training", "node_id": next(_nodes)}
        return await account.executor(training, memory=1).run(function, list(arguments), {}, place)

    data = await run(code.load_data, code.TEST_SHARE, code.VALIDATION_SHARE, code.SEED)
    grid = [code.Configuration(channels, 0.03, 0.0) for channels in (4, 8)]
    trainings = await asyncio.gather(*(run(code.train, data, configuration, code.SEED) for configuration in grid))
    best = await run(code.retrain, data, code.rank(*trainings), code.SEED)
    assert [len(each.losses) for each in trainings] == [4, 4]
    assert all(each.losses[-1] < each.losses[0] for each in trainings)
    assert best["final"].accuracy > 0.5
    assert len(best["model"]) > 1000
