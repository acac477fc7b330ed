"""``cirro status`` on an emulated account: what is deployed, how it is, and how full."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from covalent_cirro import deployment
from covalent_cirro.aws import capacity
from covalent_cirro.local.emulator import Emulator, Timing
from tests.access import variables

DEADLINE_S = 90.0


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An account with a deployment, which this process's environment names."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(boot_s=0.0), iam=True) as emulator,
    ):
        patch.setenv("COVALENT_CONFIG_DIR", str(tmp_path_factory.mktemp("covalent")))
        patch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
        for name, value in variables(emulator.key).items():
            patch.setenv(name, value)
        deployment.deploy(emulator.client("cloudformation"), "cirro")
        yield emulator


def definition(emulator: Emulator, name: str, *command: str) -> str:
    """A job definition of one vCPU, with the deployment's role and log group: IAM is enforced here."""
    outputs = deployment.outputs(emulator.client("cloudformation"), "cirro")
    made = emulator.client("batch").register_job_definition(
        jobDefinitionName=name,
        type="container",
        containerProperties={
            "image": "image",
            "command": list(command),
            "executionRoleArn": f"arn:aws:iam::{emulator.account}:role/{outputs['BatchExecutionRoleName']}",
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": outputs["BatchJobLogGroupName"]},
            },
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "256"}],
        },
    )
    return str(made["jobDefinitionArn"])


@pytest.fixture
def batch(emulator: Emulator) -> Any:
    """AWS Batch of the account."""
    return emulator.client("batch")


@pytest.fixture
def faults(emulator: Emulator) -> Iterator[Any]:
    """The emulator's faults, gone afterwards."""
    yield emulator.faults
    emulator.faults.clear()


@pytest.fixture
def jobs(emulator: Emulator, batch: Any) -> Iterator[Callable[[int], list[str]]]:
    """Submits jobs to the CPU queue that run until the test ends."""
    submitted: list[str] = []
    waits = definition(emulator, "waits", "python", "-c", "import time; time.sleep(600)")

    def submit(number: int) -> list[str]:
        made = [
            batch.submit_job(jobName="waits", jobQueue="cirro-cpu", jobDefinition=waits)["jobId"] for _ in range(number)
        ]
        submitted.extend(made)
        return made

    yield submit
    for job in submitted:
        batch.terminate_job(jobId=job, reason="the test is over")


def read(cirro: Callable[..., Result], *arguments: str) -> dict[str, Any]:
    """``cirro status --json``."""
    result = cirro("status", "--json", *arguments)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.output)
    return document


def queue(document: dict[str, Any], name: str = "cirro-cpu") -> dict[str, Any]:
    """A queue of the document."""
    (found,) = [each for each in document["queues"] if each["name"] == name]
    return dict(found)


def poll(condition: Callable[[], bool]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_deployed_has_an_exit_code_of_its_own(emulator: Emulator, cirro: Callable[..., Result]) -> None:
    """3, as where no local stack runs; it says what to do."""
    result = cirro("status", "--stack-name", "another")
    assert result.exit_code == 3
    assert "`cirro deploy` makes it" in result.output
    assert json.loads(cirro("status", "--stack-name", "another", "--json").output)["deployed"] is False


def test_a_deployment_is_shown_on_one_screen(emulator: Emulator, cirro: Callable[..., Result]) -> None:
    """Stacks with their last change, queues with their jobs, compute environments with how full they are."""
    result = cirro("status")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert any(line.startswith("cirro-compute CREATE_COMPLETE 20") for line in lines)
    assert "cirro-cpu ENABLED VALID none" in lines
    assert any(
        line.startswith("CpuSpotEnvironment") and line.endswith("SPOT ENABLED VALID 0 of 256 0") for line in lines
    )
    assert len(lines) < 24


def test_jobs_are_counted_by_state(
    emulator: Emulator, cirro: Callable[..., Result], jobs: Callable[[int], list[str]], batch: Any
) -> None:
    """What runs, with the instances and vCPUs it runs on; what has ended stays counted."""
    ids = jobs(3)
    poll(lambda: all(job["status"] == "RUNNING" for job in batch.describe_jobs(jobs=ids)["jobs"]))
    document = read(cirro)
    assert queue(document)["jobs"]["RUNNING"] == {"number": 3, "more": False}
    (spot,) = [each for each in document["compute_environments"] if "CpuSpot" in each["name"]]
    assert spot["instances"] >= 1
    assert 3 <= spot["vcpus"] <= spot["max_vcpus"] == 256
    assert "3 RUNNING" in cirro("status").output
    batch.terminate_job(jobId=ids[0], reason="enough")
    poll(lambda: queue(read(cirro))["jobs"]["FAILED"]["number"] == 1)


def test_many_jobs_are_counted_up_to_a_limit(
    emulator: Emulator, cirro: Callable[..., Result], batch: Any, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue may hold millions: the count stops after some pages, sooner for jobs that have ended."""
    monkeypatch.setattr("covalent_cirro.local.emulator.batch.job_operations.LIST_JOBS", 2)
    faults.add("stuck", job="many")
    many = definition(emulator, "many", "true")
    ids = [
        batch.submit_job(jobName="many", jobQueue="cirro-cpu-on-demand", jobDefinition=many)["jobId"]
        for _ in range(2 * capacity.COUNTED_PAGES + 1)
    ]
    try:
        assert queue(read(cirro), "cirro-cpu-on-demand")["jobs"]["RUNNABLE"] == {"number": 20, "more": True}
        batch.terminate_job(jobId=ids.pop(), reason="one less")
        assert queue(read(cirro), "cirro-cpu-on-demand")["jobs"]["RUNNABLE"] == {"number": 20, "more": False}
    finally:
        for job in ids:
            batch.terminate_job(jobId=job, reason="the test is over")
    assert queue(read(cirro), "cirro-cpu-on-demand")["jobs"]["FAILED"] == {"number": 2, "more": True}
    assert "2+ FAILED" in cirro("status").output


def test_a_sick_environment_is_shown_with_awss_reason(
    emulator: Emulator, cirro: Callable[..., Result], batch: Any, faults: Any
) -> None:
    """INVALID, and why."""
    name = next(each["name"] for each in read(cirro)["compute_environments"] if "GpuSpot" in each["name"])
    faults.add("invalid", environment=name, reason="CLIENT_ERROR - no instance joined")
    result = cirro("status")
    assert result.exit_code == 0
    assert "ENABLED INVALID" in result.output
    assert "CLIENT_ERROR - no instance joined" in result.output


def test_a_look_is_a_handful_of_calls(emulator: Emulator, cirro: Callable[..., Result]) -> None:
    """One for each stack, one for all queues, all environments and all clusters, one for each queue and state."""
    emulator.calls.reset()
    read(cirro)
    counts = {name: each["count"] for name, each in emulator.calls.counts().items()}
    assert counts.pop("batch:ListJobs") == 4 * 7
    assert counts == {
        "cloudformation:DescribeStacks": 5,
        "batch:DescribeJobQueues": 1,
        "batch:DescribeComputeEnvironments": 1,
        "ecs:DescribeClusters": 1,
    }


def test_what_may_not_be_counted_is_unknown(
    emulator: Emulator, cirro: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may see stacks and queues, and no jobs and clusters, sees those."""
    iam = emulator.client("iam")
    iam.create_user(UserName="reader")
    actions = ["cloudformation:Describe*", "batch:Describe*"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    document = read(cirro)
    assert set(queue(document)["jobs"].values()) == {None}
    assert {each["instances"] for each in document["compute_environments"]} == {None}
    assert "batch:ListJobs is not allowed" in cirro("status").output


def test_a_refusal_is_an_error_in_awss_words(
    emulator: Emulator, cirro: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials that AWS takes there is nothing to show: exit code 1, no traceback."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    result = cirro("status")
    assert result.exit_code == 1
    assert "security token included in the request is invalid" in result.output
