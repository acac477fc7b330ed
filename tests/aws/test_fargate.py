"""What only a real account can show of Fargate: that a job starts there, from 0.25 vCPU, and what AWS Batch refuses.

On a deployment of its own, which goes when they end.
"""

from __future__ import annotations

import os
import sys

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro.errors import SettingsError
from tests.aws.conftest import Make, deploy, executors, metadata
from tests.aws.walk import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def executor(account: Account, parameters: dict[str, object]) -> Make:
    """Makes executors of small jobs on Fargate, in a queue with Spot first."""
    settings = deploy(account, {**parameters, "FargateSpotMaxVcpus": 2, "FargateMaxVcpus": 2})
    return executors(account, settings, platform="FARGATE", vcpu=0.25, memory=0.5)


async def test_a_function_runs_on_fargate(executor: Make) -> None:
    """In the smallest size there is; it pulls its image, writes its log and reads S3 from a public subnet."""
    found = await executor().run(lambda: os.environ["AWS_EXECUTION_ENV"], [], {}, metadata())
    assert found == "AWS_ECS_FARGATE"


async def test_a_size_is_raised(executor: Make) -> None:
    """3 GB with a quarter of a vCPU are half a vCPU: AWS Batch takes what it is raised to."""
    limit = await executor(memory=3, job_properties={"ephemeralStorage": {"sizeInGiB": 21}}).run(
        lambda: os.environ["AWS_BATCH_JQ_NAME"], [], {}, metadata()
    )
    assert limit.endswith("-fargate")


async def test_a_queue_for_fargate_takes_no_job_for_instances(executor: Make) -> None:
    """AWS Batch's own words, and the option to change."""
    made = executor(platform="EC2", vcpu=1, memory=1)
    made = executor(platform="EC2", vcpu=1, memory=1, batch_queue=made.settings.batch_fargate_queue)
    with pytest.raises((SettingsError, TaskRuntimeError), match="capability EC2"):
        await made.run(lambda: None, [], {}, metadata())
