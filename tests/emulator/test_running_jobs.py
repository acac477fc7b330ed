"""A change of compute environments while jobs run: what AWS Batch and CloudFormation do, and what a deployment does."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro import deployment
from covalent_cirro.deployment import holdings, teardown
from covalent_cirro.deployment.running_jobs import POLL_S
from covalent_cirro.errors import StackError
from covalent_cirro.jobs.affected_jobs import END, WAIT, AffectedJobs
from covalent_cirro.local.emulator import Emulator, Timing
from tests.emulator.conftest import Aws
from tests.emulator.formation_stacks import Stacks

LARGER = {"CpuInstanceTypes": "m6i.2xlarge"}
_names = (f"running-{number}" for number in itertools.count(1))

MACHINES: dict[str, Any] = {
    "Resources": {
        "Machines": {
            "Type": "AWS::Batch::ComputeEnvironment",
            "Properties": {
                "Type": "MANAGED",
                "ReplaceComputeEnvironment": False,
                "UpdatePolicy": {"TerminateJobsOnUpdate": False, "JobExecutionTimeoutMinutes": 7200},
                "ComputeResources": {
                    "Type": "EC2",
                    "AllocationStrategy": "BEST_FIT_PROGRESSIVE",
                    "MinvCpus": 0,
                    "MaxvCpus": 8,
                    "InstanceTypes": ["m6i.large"],
                    "InstanceRole": "role",
                    "Subnets": ["subnet-1"],
                    "SecurityGroupIds": ["sg-1"],
                },
            },
        },
    },
    "Outputs": {"Machines": {"Value": {"Ref": "Machines"}}},
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An emulator in which the two hours of CloudFormation are 3.6 s."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(scale=0.0005)) as emulator:
        yield Aws(emulator)


def environment(aws: Aws, name: str) -> dict[str, Any]:
    """What DescribeComputeEnvironments says of one."""
    [found] = aws.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"]
    return dict(found)


def runs_on(aws: Aws, queue: str) -> str:
    """A job that runs, on and on."""
    job_id = aws.submit("sleep", "600", queue=queue)
    aws.reach(job_id, "RUNNING")
    return job_id


# --- AWS Batch ----------------------------------------------------------------------------------------------------


def test_a_job_holds_its_environment_in_the_update(aws: Aws, poll: Any) -> None:
    """Its instance stays for it alone; others get new ones; no second update; VALID when the job has ended."""
    name = aws.environment(instanceTypes=["m6i.xlarge"])
    queue = aws.queue(name)
    old = runs_on(aws, queue)
    aws.batch.update_compute_environment(computeEnvironment=name, computeResources={"instanceTypes": ["c6i.xlarge"]})
    assert environment(aws, name)["status"] == "UPDATING"
    with pytest.raises(ClientError, match="resource is being modified"):
        aws.batch.update_compute_environment(computeEnvironment=name, computeResources={"maxvCpus": 32})
    new = aws.done(aws.submit("true", queue=queue))
    assert new["container"]["containerInstanceArn"] != aws.job(old)["container"]["containerInstanceArn"]
    assert aws.job(old)["status"] == "RUNNING"
    aws.batch.terminate_job(jobId=old, reason="done")
    poll(lambda: environment(aws, name)["status"] == "VALID", "a VALID environment")


def test_jobs_that_do_not_end_in_time_lose_their_instance(aws: Aws) -> None:
    """After ``jobExecutionTimeoutMinutes``; at once with ``terminateJobsOnUpdate``."""
    for policy in ({"jobExecutionTimeoutMinutes": 1}, {"terminateJobsOnUpdate": True}):
        name = aws.environment(instanceTypes=["m6i.large"])
        job_id = runs_on(aws, aws.queue(name))
        aws.batch.update_compute_environment(
            computeEnvironment=name, computeResources={"instanceTypes": ["c6i.large"]}, updatePolicy=policy
        )
        job = aws.done(job_id)
        assert job["statusReason"].startswith("Host EC2 (instance i-")
        assert environment(aws, name)["status"] == "VALID"


@pytest.mark.parametrize("resources", [{"maxvCpus": 32}, {"minvCpus": 2}, {"instanceTypes": ["m6i.large"]}])
def test_other_updates_leave_the_instances(aws: Aws, resources: dict[str, Any]) -> None:
    """More vCPUs, or no change."""
    name = aws.environment(instanceTypes=["m6i.large"])
    job_id = runs_on(aws, aws.queue(name))
    aws.batch.update_compute_environment(computeEnvironment=name, computeResources=resources)
    assert environment(aws, name)["status"] == "VALID"
    assert aws.job(job_id)["status"] == "RUNNING"
    aws.batch.terminate_job(jobId=job_id, reason="done")


# --- CloudFormation -----------------------------------------------------------------------------------------------


def test_a_job_that_runs_longer_than_cloudformation_waits_ruins_the_stack(aws: Aws, poll: Any) -> None:
    """The update is given up after two hours; the rollback meets an environment that is still UPDATING."""
    stack = Stacks(aws)
    assert stack.create(MACHINES) == "CREATE_COMPLETE"
    job_id = runs_on(aws, aws.queue(stack.outputs()["Machines"]))
    body = copy.deepcopy(MACHINES)
    body["Resources"]["Machines"]["Properties"]["ComputeResources"]["InstanceTypes"] = ["c6i.large"]
    change_set = stack.client.create_change_set(
        StackName=stack.name, ChangeSetName="larger", TemplateBody=json.dumps(body)
    )["Id"]
    stack.client.execute_change_set(ChangeSetName=change_set)
    assert stack.status() == "UPDATE_IN_PROGRESS"
    poll(lambda: stack.status() != "UPDATE_IN_PROGRESS", "the end of the update")
    assert poll(lambda: stack.status().endswith("FAILED") and stack.status()) == "UPDATE_ROLLBACK_FAILED"
    [given_up, refused] = [reason for status, reason in stack.events("Machines") if status == "UPDATE_FAILED"]
    assert "NotStabilized" in given_up
    assert "resource is being modified" in refused
    aws.batch.terminate_job(jobId=job_id, reason="done")


# --- a deployment -------------------------------------------------------------------------------------------------


class Deployment:
    """A deployment of a test, and the job that runs in it."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws = aws
        self.name = name
        self.clients: Callable[[str], Any] = functools.cache(aws.emulator.client)
        self.said: list[str] = []
        self.deploy({"CpuInstanceTypes": "m6i.xlarge"})
        self.job_id = runs_on(aws, f"{name}-cpu")

    def deploy(self, parameters: dict[str, object], **more: Any) -> deployment.Deployed:
        """Make it, or change it."""
        return deployment.deploy(
            self.clients("cloudformation"),
            self.name,
            parameters,
            **{"clients": self.clients, "say": self.said.append, "sleep": lambda _: None, **more},
        )

    @property
    def instance_types(self) -> list[str]:
        """Of its environment for CPU on Spot."""
        [found] = [
            each
            for each in self.aws.batch.describe_compute_environments()["computeEnvironments"]
            if each["computeEnvironmentName"].startswith(f"{self.name}-compute-CpuSpot")
        ]
        return list(found["computeResources"]["instanceTypes"])


@pytest.fixture
def here(aws: Aws) -> Iterator[Deployment]:
    """A deployment with a job that runs on the CPU queue."""
    made = Deployment(aws, next(_names))
    yield made
    teardown.destroy(made.clients, holdings.survey(made.clients, made.name), sleep=lambda _: None)


def test_nothing_is_changed_under_jobs_that_run(aws: Aws, here: Deployment) -> None:
    """By itself: it says how many, where, and what can be done; no change set is left."""
    with pytest.raises(StackError) as refused:
        here.deploy(LARGER)
    assert "1 job runs (1 RUNNING) on instances that this change replaces" in str(refused.value)
    assert "CpuSpotEnvironment, CpuOnDemandEnvironment" in str(refused.value)
    assert "--running-jobs wait" in str(refused.value)
    assert "60 minutes" in str(refused.value)
    assert here.instance_types == ["m6i.xlarge"]
    assert aws.job(here.job_id)["status"] == "RUNNING"
    assert aws.client("cloudformation").list_change_sets(StackName=f"{here.name}-compute")["Summaries"] == []


def test_no_queue_is_deleted_under_its_jobs(aws: Aws, here: Deployment) -> None:
    """A change to fair shares makes new queues; AWS Batch would terminate what is in the old ones, at once."""
    with pytest.raises(StackError) as refused:
        here.deploy({"FairShare": "true"})
    assert "1 job has not ended (1 RUNNING) in queues that this change deletes (" in str(refused.value)
    assert "CpuQueue" in str(refused.value)
    assert "--running-jobs wait" in str(refused.value)
    assert "AWS Batch terminates those in the queues at once" in str(refused.value)
    assert aws.job(here.job_id)["status"] == "RUNNING"


def test_changes_that_leave_the_instances_ask_nobody(aws: Aws, here: Deployment) -> None:
    """More vCPUs; and machines of a queue on which no job runs."""
    assert here.deploy({"CpuSpotMaxVcpus": 512, "GpuInstanceTypes": "g5,g6"}).changed
    assert aws.job(here.job_id)["status"] == "RUNNING"


def test_jobs_are_waited_for(aws: Aws, here: Deployment) -> None:
    """The change begins once none runs, however long that takes."""
    asked: list[AffectedJobs] = []
    slept: list[float] = []

    def choose(found: AffectedJobs) -> str:
        asked.append(found)
        return WAIT

    def sleep(seconds: float) -> None:
        if seconds != POLL_S:
            return
        slept.append(seconds)
        assert here.instance_types == ["m6i.xlarge"]
        if len(slept) == 3:
            aws.batch.terminate_job(jobId=here.job_id, reason="done")
            aws.done(here.job_id)

    assert here.deploy(LARGER, on_running_jobs=choose, sleep=sleep).changed
    assert [found.states for found in asked] == [{"RUNNING": 1}]
    assert len(slept) == 3
    assert here.instance_types == ["m6i.2xlarge"]
    waits = [words for words in here.said if words.startswith("waiting until no job runs")]
    assert waits == ["waiting until no job runs on instances that are replaced: 1 job runs (1 RUNNING)"]


def test_jobs_are_ended_after_the_minutes_that_the_user_gives(aws: Aws, here: Deployment) -> None:
    """AWS Batch does it; then the deployment is as it was asked for."""
    given = {**LARGER, "JobExecutionTimeoutMinutes": 1}
    asked: list[AffectedJobs] = []

    def choose(found: AffectedJobs) -> str:
        asked.append(found)
        return END

    assert here.deploy(given, on_running_jobs=choose).changed
    assert [found.minutes for found in asked] == [1]
    assert here.instance_types == ["m6i.2xlarge"]
    assert aws.done(here.job_id)["statusReason"].startswith("Host EC2 (instance i-")
