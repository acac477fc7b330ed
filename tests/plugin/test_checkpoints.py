"""Checkpoints through the whole of it: executor, emulated AWS, runner. Hosts are lost, with and without a notice."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.local.emulator import Timing
from covalent_cirro.local.emulator.faults import Faults
from covalent_cirro.runner.times import Times
from tests.access import control
from tests.plugin.conftest import Account, emulated

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]
DEADLINE_S = 120


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account where a minute of a job's time limit takes 6 seconds, and all else as long as on AWS."""
    timing = Timing(scale=0.1, boot_s=3, idle_s=600, grace_s=300)
    with emulated(tmp_path_factory.mktemp("account"), timing=timing) as made:
        yield made


@pytest.fixture
def faults(account: Account) -> Iterator[Faults]:
    """The emulator's faults, cleared afterwards."""
    yield account.emulator.faults
    account.emulator.faults.clear()


@pytest.fixture(autouse=True)
def fresh_hosts(account: Account) -> Iterator[None]:
    """A notice stays in its host's metadata: the next test must not run there."""
    yield
    batch = account.emulator.batch()
    for host in list(batch.fleet.hosts):
        batch.lose_host(host)


@pytest.fixture(scope="module")
def sweep() -> Any:
    """The example, as a module that travels with its functions."""
    pytest.importorskip("torch")
    path = Path(__file__).parents[2] / "examples" / "sweep.py"
    spec = importlib.util.spec_from_file_location("sweep_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    module.EPOCHS = 10
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[spec.name]


async def appears(path: Path, going: asyncio.Future[Any] | None = None) -> None:
    """Wait for a file that an electron makes."""
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        if going is not None and going.done():
            await going
        assert time.monotonic() < deadline, f"{path} did not appear"
        await asyncio.sleep(0.05)


def lose_host(account: Account, query: str = "") -> None:
    """The only host that has a job goes away."""
    (host,) = [
        each["instance_id"] for region in account.emulator.status().values() for each in region["hosts"] if each["jobs"]
    ]
    control(account.emulator, f"hosts/{host}{query}", method="DELETE")


def checkpoint_of(account: Account, metadata: dict[str, Any]) -> list[str]:
    """Keys of the electron's checkpoint."""
    return [key for key in account.keys() if metadata["dispatch_id"] in key and "/checkpoint/" in key]


# --- the training example -------------------------------------------------------------------------------------------


def train(fit: Any, configuration: Any, data: Any, seed: int, epochs: list[str], stop_in: int, stopped: str) -> Any:
    """The example's `fit`; notes what it prints, and in its first attempt comes no further than into an epoch."""
    from covalent_cirro import checkpoint

    def note(text: str, flush: bool = False) -> None:
        epochs.append(text.partition("  loss")[0])
        if checkpoint.attempt() == 1 and text.startswith(f"epoch {stop_in - 1:2d}"):
            Path(stopped).touch()
            time.sleep(600)

    fit.__globals__["print"] = note
    model, training = fit(configuration, data["train"], data["validation"], seed)
    weights = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return epochs, weights, training.losses, training.accuracies


async def test_a_training_that_is_killed_in_epoch_7_goes_on_with_epoch_7(
    account: Account, executor: Make, metadata: dict[str, Any], sweep: Any, tmp_path: Path
) -> None:
    """Its host is lost without a word; the second attempt trains 7 to 10, and no bit of the result differs."""
    data = sweep.load_data(0.2, 0.2, 7)
    configuration = sweep.Configuration(channels=8, learning_rate=0.003, dropout=0.3)
    made = executor(memory=2, retry_attempts=3, time_limit=3000)
    stopped = tmp_path / "stopped"
    arguments = [sweep.fit, configuration, data, 7, [], 7]

    going = asyncio.ensure_future(made.run(train, [*arguments, str(stopped)], {}, metadata))
    await appears(stopped, going)
    lose_host(account)
    epochs, *killed = await going

    assert epochs == ["attempt 2 goes on after epoch 6", "epoch  7", "epoch  8", "epoch  9", "epoch 10"]
    quiet = {**metadata, "node_id": 4}
    epochs, *whole = await made.run(train, [sweep.fit, configuration, data, 7, [], -1, ""], {}, quiet)
    assert [text for text in epochs if "attempt" in text] == []
    assert len(epochs) == 10
    assert killed == whole
    assert checkpoint_of(account, metadata) == []


# --- warnings -------------------------------------------------------------------------------------------------------


def count(until: int, step_s: float, begun: str, stored: str) -> list[int]:
    """Counts; stores where it is when it is told that its host goes, and not before. Says when it has come to 4."""
    from covalent_cirro import checkpoint

    place = checkpoint.folder() / "place"
    steps = json.loads(place.read_text()) if place.exists() else []
    told = False
    for number in range(len(steps), until):
        steps.append(number if checkpoint.attempt() == 1 else -number)
        time.sleep(step_s if checkpoint.attempt() == 1 else 0)
        if number == 4:
            Path(begun).touch()
        if checkpoint.host_is_going() and not told:
            told = True
            place.write_text(json.dumps(steps))
            checkpoint.save()
            Path(stored).touch()
    return steps


async def test_a_spot_notice_reaches_the_electron_before_its_host_goes(
    account: Account, executor: Make, metadata: dict[str, Any], tmp_path: Path
) -> None:
    """It stores where it is; the next attempt goes on from there."""
    begun, stored = tmp_path / "begun", tmp_path / "stored"
    going = asyncio.ensure_future(
        executor(retry_attempts=3).run(count, [100, 0.3, str(begun), str(stored)], {}, metadata)
    )
    await appears(begun, going)
    lose_host(account, "?notice_s=600")
    await appears(stored, going)
    lose_host(account)
    steps = await going
    assert [abs(step) for step in steps] == list(range(100))
    first = [step for step in steps if step > 0]
    assert 3 <= len(first) < 30


def leave() -> int:
    """Ends by itself when it gets the notice."""
    from covalent_cirro import checkpoint

    while checkpoint.attempt() == 1:
        if checkpoint.host_is_going():
            sys.exit("the host is going")
        time.sleep(0.05)
    return checkpoint.attempt()


def end_with_the_host() -> int:
    """In its first attempt: waits for the notice, and then meets what a machine that shuts down does to containers."""
    import os
    import signal

    from covalent_cirro import checkpoint

    if checkpoint.attempt() == 1:
        while not checkpoint.host_is_going():
            time.sleep(0.05)
        os.kill(os.getppid(), signal.SIGTERM)
        sys.exit(1)
    return checkpoint.attempt()


@pytest.mark.parametrize("electron", [leave, end_with_the_host])
async def test_a_job_that_ends_after_a_notice_is_retried(
    executor: Make, metadata: dict[str, Any], faults: Faults, electron: Callable[[], int]
) -> None:
    """Though AWS Batch sees a container that exited, and retries no other one."""
    faults.add("lose_host", seconds=8.0, notice_s=7.5, count=1)
    assert await executor(retry_attempts=2).run(electron, [], {}, metadata) == 2


@pytest.mark.parametrize("drains", [True, False])
async def test_a_notice_costs_one_attempt(
    account: Account,
    executor: Make,
    metadata: dict[str, Any],
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    *,
    drains: bool,
) -> None:
    """The next one starts on another host, also where ECS goes on placing jobs on the one that is taken back."""
    if not drains:
        monkeypatch.setattr(account.emulator.batch().fleet, "drains", lambda environment: False)
    faults.add("lose_host", seconds=8.0, notice_s=7.5, count=1)
    assert await executor(retry_attempts=3).run(leave, [], {}, metadata) == 2
    jobs = account.client("batch").list_jobs(
        jobQueue=account.settings["batch_queue"],
        filters=[{"name": "AFTER_CREATED_AT", "values": ["0"]}],
    )["jobSummaryList"]
    [job] = account.client("batch").describe_jobs(jobs=[jobs[0]["jobId"]])["jobs"]
    first, second = (each["container"]["containerInstanceArn"] for each in job["attempts"])
    assert first != second


async def test_a_notice_asked_for_an_instance_is_in_its_metadata(
    account: Account, executor: Make, metadata: dict[str, Any], tmp_path: Path
) -> None:
    """As EC2 writes it; before that there is none, and only this host has it."""
    begun = tmp_path / "begun"
    going = asyncio.ensure_future(executor(retry_attempts=2).run(look, [str(begun)], {}, {**metadata, "node_id": 5}))
    await appears(begun, going)
    lose_host(account, "?notice_s=600")
    status, before, after = await going
    assert (status, before) == (200, 404)
    assert after["action"] == "terminate"
    time.strptime(after["time"], "%Y-%m-%dT%H:%M:%SZ")


def look(begun: str) -> Any:
    """What the metadata service says of Spot, before and after."""
    import os
    import urllib.error
    import urllib.request

    base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "/latest/"
    asked = urllib.request.Request(
        base + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        token = {"X-aws-ec2-metadata-token": answer.read().decode()}
        status = answer.status
    request = urllib.request.Request(base + "meta-data/spot/instance-action", headers=token)
    before = 0
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return status, before, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            before = error.code
            Path(begun).touch()
            time.sleep(0.1)


def until_told() -> None:
    """Stores nothing until it is told to; then ends by itself."""
    from covalent_cirro import checkpoint

    here = checkpoint.folder()
    while not checkpoint.host_is_going():
        time.sleep(0.05)
    (here / "place").write_text("where it was")
    sys.exit(1)


async def test_a_job_at_its_time_limit_stores_its_folder_first(
    account: Account, executor: Make, metadata: dict[str, Any]
) -> None:
    """SIGTERM: the electron is told, and ends before it would get the signal; its checkpoint is whole in S3."""
    with pytest.raises(TaskRuntimeError, match="Job attempt duration exceeded timeout") as caught:
        await executor(time_limit=60).run(until_told, [], {}, metadata)
    job_id = re.findall(r"AWS Batch job ([0-9a-f-]{36})", str(caught.value))[0]
    (job,) = account.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    assert job["stoppedAt"] - job["startedAt"] < 1000 * (6 + Times().grace)
    keys = checkpoint_of(account, metadata)
    assert len(keys) == 2
    (file,) = [key for key in keys if "/files/" in key]
    s3 = account.client("s3")
    assert s3.get_object(Bucket=account.settings["s3_bucket_name"], Key=file)["Body"].read() == b"where it was"
