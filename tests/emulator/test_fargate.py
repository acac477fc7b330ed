"""Fargate: a machine for each job, of its size, without an instance; Spot, which takes it back after a SIGTERM."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

SIZE = {"vcpus": "0.25", "memory": 512}
RETRY = {
    "attempts": 2,
    "evaluateOnExit": [
        {"onStatusReason": "Your Spot Task was interrupted*", "action": "RETRY"},
        {"onReason": "*", "action": "EXIT"},
    ],
}


def queue(aws: Any, kind: str = "FARGATE") -> str:
    """A queue over a new compute environment of Fargate."""
    environment = aws.name("fargate")
    resources = {"type": kind, "maxvCpus": 4, "subnets": ["subnet-1"], "securityGroupIds": ["sg-1"]}
    aws.batch.create_compute_environment(computeEnvironmentName=environment, type="MANAGED", computeResources=resources)
    return str(aws.queue(environment))


def definition(aws: Any, *command: str) -> str:
    """A job definition for Fargate."""
    options = {"platformCapabilities": ["FARGATE"]}
    return str(aws.definition(*command, options=options, executionRoleArn=aws.role(), **SIZE))


def test_a_job_has_a_machine_of_its_own(aws: Any) -> None:
    """Of exactly its size, with a part of a vCPU, and no container instance; its task names the cluster."""
    job = aws.done(aws.submit(queue=queue(aws), definition=definition(aws, "true")))
    assert job["status"] == "SUCCEEDED"
    assert job["platformCapabilities"] == ["FARGATE"]
    assert "containerInstanceArn" not in job["container"]
    assert "fargate" in job["attempts"][0]["container"]["taskArn"].split("/")[1]
    assert not [host for host in aws.emulator.batch().fleet.hosts.values() if host.single_use]


def test_a_job_learns_where_it_runs_from_ecs_alone(aws: Any) -> None:
    """There is no instance metadata service: nothing names one, and the task's zone comes with ECS's metadata."""
    code = (
        "import json, os, urllib.request; uri = os.environ['ECS_CONTAINER_METADATA_URI_V4']; "
        "found = json.load(urllib.request.urlopen(uri + '/task')); "
        "print(json.dumps([os.environ['AWS_EXECUTION_ENV'], 'AWS_EC2_METADATA_SERVICE_ENDPOINT' in os.environ, "
        "found['LaunchType'], found['AvailabilityZone']]))"
    )
    job = aws.done(aws.submit(queue=queue(aws), definition=definition(aws, "python", "-c", code)))
    assert job["status"] == "SUCCEEDED"
    [line] = aws.log(job)
    assert json.loads(line) == ["AWS_ECS_FARGATE", False, "FARGATE", "us-east-1a"]


@pytest.mark.parametrize("notice_s", [None, 60.0])
def test_an_interrupted_job_on_spot_can_be_retried(aws: Any, faults: Any, poll: Any, notice_s: float | None) -> None:
    """After a SIGTERM, which is the notice, or at once; in AWS's words."""
    faults.add("lose_host", count=1, seconds=0 if notice_s is None else notice_s, notice_s=notice_s)
    job_id = aws.submit(
        queue=queue(aws, "FARGATE_SPOT"), definition=definition(aws, "sleep", "600"), retryStrategy=RETRY
    )

    def retried() -> Any:
        job = aws.job(job_id)
        return job["status"] == "RUNNING" and job["attempts"] and job

    job = poll(retried, "a second attempt")
    [attempt] = job["attempts"]
    assert attempt["statusReason"] == "Your Spot Task was interrupted."
    assert attempt["container"].get("exitCode") == (None if notice_s is None else 143)
    aws.batch.terminate_job(jobId=job_id, reason="done")
    aws.done(job_id)


def test_a_queue_takes_jobs_of_its_platform_only(aws: Any) -> None:
    """Refused when they are submitted, in AWS's words."""
    with pytest.raises(ClientError, match="can not run Jobs with capability EC2"):
        aws.submit(queue=queue(aws), definition=aws.definition("true"))
    with pytest.raises(ClientError, match="can not run Jobs with capability FARGATE"):
        aws.submit(queue=aws.queue(), definition=definition(aws, "true"))


def test_a_queue_has_one_architecture(aws: Any) -> None:
    """And a compute environment too."""
    with pytest.raises(ClientError, match="architectures"):
        aws.queue(aws.environment(instanceTypes=["m6i"]), aws.environment(instanceTypes=["m6g"]))
    with pytest.raises(ClientError, match="one architecture"):
        aws.environment(instanceTypes=["m6i", "c7g.large"])
    assert aws.done(aws.submit("true", queue=aws.queue(aws.environment(instanceTypes=["default_arm64"]))))[
        "status"
    ] == ("SUCCEEDED")
