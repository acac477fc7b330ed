"""Electrons on Fargate, on the emulated AWS: a deployment with a queue for them, and what they get there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.electron.engine.engine import close_engines
from covalent_cirro.errors import SettingsError
from tests.plugin.conftest import Account, emulated

Make = Callable[..., CirroBatchExecutor]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account whose deployment has a queue for Fargate, with Spot first."""
    with emulated(tmp_path_factory.mktemp("account")) as made:
        parameters = {"FargateSpotMaxVcpus": "8", "FargateMaxVcpus": "8"}
        done = deployment.deploy(made.client("cloudformation"), parameters=parameters)
        yield made._replace(settings=done.settings)


def environment() -> dict[str, str]:
    """The variables of the job that say what it runs on."""
    from covalent_cirro import checkpoint

    names = ("AWS_EXECUTION_ENV", "AWS_BATCH_JQ_NAME", "AWS_BATCH_CE_NAME")
    return {**{name: os.environ[name] for name in names}, "attempt": str(checkpoint.attempt())}


async def test_an_electron_runs_on_fargate(account: Account, executor: Make, metadata: dict[str, Any]) -> None:
    """In the queue that the deployment made, with the next size that Fargate has, an address, and what it is told."""
    assert account.settings["batch_fargate_queue"] == "cirro-fargate"
    chosen = executor(platform="FARGATE", vcpu=0.25, memory=0.7, poll_freq=1)
    found = await chosen.run(environment, [], {}, metadata)
    assert (found["AWS_EXECUTION_ENV"], found["AWS_BATCH_JQ_NAME"]) == ("AWS_ECS_FARGATE", "cirro-fargate")
    batch = account.client("batch")
    (summary,) = batch.list_jobs(jobQueue="cirro-fargate", jobStatus="SUCCEEDED")["jobSummaryList"]
    (job,) = batch.describe_jobs(jobs=[summary["jobId"]])["jobs"]
    needs = {each["type"]: each["value"] for each in job["container"]["resourceRequirements"]}
    assert needs == {"VCPU": "0.25", "MEMORY": "1024"}
    assert (
        job["parameters"]["raised"]
        == ("0.25 vCPU and 0.700195 GB -> 0.25 vCPU and 1 GB, the next size that Fargate has")
        or "0.25 vCPU and 1 GB" in job["parameters"]["raised"]
    )
    assert job["tags"]["covalent-cirro"] == "cirro"
    assert job["container"]["networkConfiguration"] == {"assignPublicIp": "ENABLED"}
    await close_engines()


async def test_an_electron_that_fargate_spot_interrupts_runs_again(
    account: Account, executor: Make, metadata: dict[str, Any]
) -> None:
    """By AWS Batch, as on an instance that is lost."""
    account.emulator.faults.add("lose_host", count=1, seconds=0)
    try:
        chosen = executor(platform="FARGATE", poll_freq=1, retry_attempts=2, memory=2)
        found = await chosen.run(environment, [], {}, metadata)
    finally:
        account.emulator.faults.clear()
    assert found["attempt"] == "2"
    await close_engines()


async def test_a_queue_of_instances_is_refused_before_anything_is_registered(
    account: Account, executor: Make, metadata: dict[str, Any]
) -> None:
    """With the setting's name and the way to a queue for Fargate."""
    chosen = executor(platform="FARGATE", batch_fargate_queue="cirro-cpu", memory=2)
    with pytest.raises((SettingsError, TaskRuntimeError), match=r"batch_fargate_queue='cirro-cpu'.*FargateMaxVcpus"):
        await chosen.run(environment, [], {}, metadata)
    await close_engines()


async def test_a_queue_for_fargate_takes_no_job_for_instances(
    account: Account, executor: Make, metadata: dict[str, Any], tmp_path: Path
) -> None:
    """AWS Batch refuses it when it is submitted; the words say which option to change."""
    with pytest.raises((SettingsError, TaskRuntimeError), match=r'capability EC2.*batch_queue=.*platform="FARGATE"'):
        await executor(batch_queue="cirro-fargate").run(environment, [], {}, metadata)
    await close_engines()
