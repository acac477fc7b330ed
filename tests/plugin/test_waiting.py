"""Why jobs wait, on the emulator: worked out after the deadline and no sooner, and told with what to change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.electron.engine.engine import Engine, engine_of
from covalent_cirro.electron.engine.waits import DEADLINE_VARIABLE
from covalent_cirro.local.emulator import Emulator, Timing
from tests.access import variables
from tests.plugin.conftest import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]

PATIENCE_S = 120.0


def add(x: int, y: int) -> int:
    """An electron."""
    return x + y


def sleep() -> None:
    """An electron that holds its machine."""
    time.sleep(600)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, account: Account) -> Any:
    """A deadline that tests can wait for, and no fault left behind."""
    monkeypatch.setenv(DEADLINE_VARIABLE, "0.5")
    yield
    account.emulator.faults.clear()


@contextlib.asynccontextmanager
async def waiting(made: CirroBatchExecutor, where: dict[str, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """An electron under way, whose job is ended with the block."""
    run = asyncio.ensure_future(made.run(add, [20, 22], {}, where))
    try:
        yield run
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        engine: Engine = await engine_of(access_of(made.settings))
        for job in await _unfinished(engine, made.settings.queue):
            await engine.batch.terminate([job], "the test is over")


async def _unfinished(engine: Engine, queue: str) -> list[str]:
    found = []
    for status in ("SUBMITTED", "RUNNABLE", "STARTING", "RUNNING"):
        listed = await engine.batch._client.list_jobs(jobQueue=queue, jobStatus=status)
        found += [job["jobId"] for job in listed["jobSummaryList"]]
    return found


async def told(caplog: pytest.LogCaptureFixture, why: str) -> str:
    """The log's line with a reason, once it is there."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for record in caplog.records:
            if record.name == "covalent_cirro.electron.engine.waits" and f"({why})" in record.getMessage():
                return record.getMessage()
        await asyncio.sleep(0.05)
    raise AssertionError(f"nothing of {why}: {[record.getMessage() for record in caplog.records]}")


async def test_a_job_that_fits_nowhere(
    executor: Make, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """AWS's words, what is asked for beside what there is, and both ways out."""
    async with waiting(executor(memory=4000), metadata):
        line = await told(caplog, "no_instance_type_fits")
    assert "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT" in line
    assert "4096000 MiB of memory of at most" in line
    assert "Ask for less (vcpu, memory, num_gpus" in line
    assert "cirro deploy" in line
    assert "--parameter CpuInstanceTypes=..." in line


async def test_no_capacity(
    account: Account, executor: Make, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Where EC2 has none, it is told, nothing is ended, and the job runs once there is some again."""
    fault = account.emulator.faults.add("no_capacity")
    async with waiting(executor(), metadata) as run:
        line = await told(caplog, "no_capacity")
        assert "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill" in line
        account.emulator.faults.clear(fault)
        assert await asyncio.wait_for(run, PATIENCE_S) == 42


async def test_all_vcpus_in_use(
    account: Account, executor: Make, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A full queue is told with the place in it and the parameter that makes it larger; it is not an alarm."""
    caplog.set_level(logging.INFO)
    batch = account.client("batch")
    environments = [each["computeEnvironmentName"] for each in _environments(account)]
    before = {each["computeEnvironmentName"]: each["computeResources"]["maxvCpus"] for each in _environments(account)}
    for name in environments:
        batch.update_compute_environment(computeEnvironment=name, computeResources={"maxvCpus": 2})
    try:
        made = executor(vcpu=2)
        holding = [executor(vcpu=2) for _ in range(2)]
        for index, each in enumerate(holding):
            where = {**metadata, "node_id": index}
            await each._upload_task(sleep, [], {}, where)
            await each.submit_task(where, {})
        async with waiting(made, {**metadata, "node_id": 9}):
            line = await told(caplog, "max_vcpus_reached")
        assert "4 of at most 4 vCPUs; 2 jobs of the queue run, with 4 vCPUs" in line
        assert "number 1 in the queue" in line
        assert "MaxVcpus=" in line
        (record,) = [each for each in caplog.records if "(max_vcpus_reached)" in each.getMessage()]
        assert record.levelno == logging.INFO
    finally:
        for name, most in before.items():
            batch.update_compute_environment(computeEnvironment=name, computeResources={"maxvCpus": most})


def _environments(account: Account) -> list[dict[str, Any]]:
    batch = account.client("batch")
    (queue,) = batch.describe_job_queues(jobQueues=[account.settings["batch_queue"]])["jobQueues"]
    names = [each["computeEnvironment"] for each in queue["computeEnvironmentOrder"]]
    found: list[dict[str, Any]] = batch.describe_compute_environments(computeEnvironments=names)["computeEnvironments"]
    return found


async def test_jobs_behind_one_that_cannot_start(
    account: Account, executor: Make, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """AWS explains only the first job of a queue: the others are told which that is, and why it stands."""
    large, small = executor(memory=4000), executor()
    await large._upload_task(add, [1, 2], {}, metadata)
    first = await large.submit_task(metadata, {})
    async with waiting(small, {**metadata, "node_id": 4}):
        line = await told(caplog, "behind_stuck_job")
    assert first in line
    assert "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT" in line
    assert "number 2 in the queue" in line


async def test_no_instance_and_no_reason(
    account: Account, executor: Make, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As with a quota of 0, of which AWS says nothing: what it usually is, and the command that looks at quotas."""
    account.emulator.faults.add("stuck")  # UNDETERMINED, as AWS has it where it does not know
    async with waiting(executor(num_gpus=1), metadata):
        line = await told(caplog, "no_instance_started")
    assert "AWS Batch says: UNDETERMINED" in line
    assert "quota" in line
    assert "cirro doctor --stack-name cirro" in line
    assert "--parameter GpuInstanceTypes=..." in line


async def test_scaling_up_from_zero_is_no_alarm(
    tmp_path: Path, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that takes longer than the deadline to come is told for what it is, and the job runs on it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(DEADLINE_VARIABLE, "8")
    with Emulator(state_dir=tmp_path / "emulator", timing=Timing(boot_s=13)) as emulator:
        for name, value in variables(emulator.key).items():
            monkeypatch.setenv(name, value)
        made = CirroBatchExecutor(
            **deployment.deploy(emulator.client("cloudformation")).settings,
            endpoint_url=emulator.endpoint_url,
            container_image_uri="cirro-runner",
            vcpu=1,
            memory=0.5,
            cache_dir=str(tmp_path / "cache"),
        )
        assert await made.run(add, [20, 22], {}, metadata) == 42
    lines = [record for record in caplog.records if record.name == "covalent_cirro.electron.engine.waits"]
    assert [(record.levelno, "(scaling_up)" in record.getMessage()) for record in lines] == [(logging.INFO, True)]


async def test_nothing_is_said_before_the_deadline(
    executor: Make, metadata: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that gets its machine in time is no news."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(DEADLINE_VARIABLE, "600")
    assert await executor().run(add, [20, 22], {}, metadata) == 42
    assert not [record for record in caplog.records if record.name == "covalent_cirro.electron.engine.waits"]
