"""Compute environments: instances come and go, jobs queue for them, GPUs are pinned, what can never run says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError


def _hosts(aws: Any, environment: str) -> list[dict[str, Any]]:
    status = aws.emulator.status()["us-east-1"]
    return [host for host in status["hosts"] if host["compute_environment"] == environment]


def test_max_vcpus_limits_how_many_run_at_once(aws: Any) -> None:
    """The third job waits until one of the first two ended, in the order of submission."""
    queue = aws.queue(aws.environment(maxvCpus=4, instanceTypes=["m6i.large"]))
    definition = aws.definition("sleep", "0.3", vcpus=2)
    jobs = [aws.submit(queue=queue, definition=definition) for _ in range(3)]
    done = [aws.done(job_id) for job_id in jobs]
    first_end = min(done[0]["stoppedAt"], done[1]["stoppedAt"])
    assert done[2]["startedAt"] >= first_end


def test_instances_come_when_needed_and_go_when_idle(aws: Any, poll: Any) -> None:
    """None before the first job, one while it runs, none some time after."""
    environment = aws.environment(instanceTypes=["m6i.xlarge"])
    assert _hosts(aws, environment) == []
    job_id = aws.submit("sleep", "0.2", queue=aws.queue(environment))
    aws.reach(job_id, "RUNNING")
    (host,) = _hosts(aws, environment)
    assert (host["instance_type"], host["vcpus"], host["used_vcpus"]) == ("m6i.xlarge", 4, 1)
    assert len(host["instance_id"]) == 19
    poll(lambda: _hosts(aws, environment) == [], "an empty environment")


def test_min_vcpus_are_kept_warm(aws: Any) -> None:
    """There before any job."""
    environment = aws.environment(minvCpus=3, instanceTypes=["m6i.large"])
    assert sum(host["vcpus"] for host in _hosts(aws, environment)) == 4


def test_the_smallest_type_that_fits_is_taken(aws: Any) -> None:
    """By memory too: a job that wants all that an instance has needs the next size."""
    environment = aws.environment(instanceTypes=["m6i"])
    aws.done(aws.submit(queue=aws.queue(environment), definition=aws.definition("true", memory=8192)))
    assert [host["instance_type"] for host in _hosts(aws, environment)] == ["m6i.xlarge"]


def test_hosts_for_many_jobs_boot_side_by_side(aws: Any) -> None:
    """Waiting for machines takes as long for eight jobs as for one."""
    queue = aws.queue(aws.environment(maxvCpus=16, instanceTypes=["m6i.large"]))
    definition = aws.definition("sleep", "0.2", vcpus=2)
    jobs = [aws.submit(queue=queue, definition=definition) for _ in range(8)]
    done = [aws.done(job_id) for job_id in jobs]
    assert max(job["startedAt"] for job in done) < min(job["stoppedAt"] for job in done) + 200


def test_the_second_environment_takes_what_the_first_cannot(aws: Any) -> None:
    """Environments are tried in order."""
    small, large = aws.environment(maxvCpus=2, instanceTypes=["m6i.large"]), aws.environment(maxvCpus=8)
    queue = aws.queue(small, large)
    definition = aws.definition("sh", "-c", "echo $AWS_BATCH_CE_NAME; sleep 0.4", vcpus=2)
    jobs = [aws.submit(queue=queue, definition=definition) for _ in range(2)]
    assert [aws.log(aws.done(job_id)) for job_id in jobs] == [[small], [large]]


def test_a_gpu_job_gets_gpus_of_its_own(aws: Any, tmp_path: Path) -> None:
    """Two jobs that run at the same time on one instance with four GPUs do not share one."""
    queue = aws.queue(aws.environment(maxvCpus=48, instanceTypes=["g5.12xlarge"]))
    meet = f"touch {tmp_path}/$AWS_BATCH_JOB_ID; while [ $(ls {tmp_path} | wc -l) -lt 2 ]; do sleep 0.02; done"
    definition = aws.definition("sh", "-c", f"{meet}; echo $NVIDIA_VISIBLE_DEVICES", gpus=2)
    jobs = [aws.submit(queue=queue, definition=definition) for _ in range(2)]
    gpus = [gpu for job_id in jobs for gpu in aws.log(aws.done(job_id))[0].split(",")]
    assert len(set(gpus)) == 4
    assert {gpu.partition("-")[0] for gpu in gpus} == {"GPU"}


def test_gpus_are_not_shared_at_the_same_time(aws: Any) -> None:
    """A machine with one GPU runs one GPU job at a time."""
    queue = aws.queue(aws.environment(maxvCpus=4, instanceTypes=["g5.xlarge"]))
    definition = aws.definition("sleep", "0.2", gpus=1)
    first, second = (aws.submit(queue=queue, definition=definition) for _ in range(2))
    assert aws.done(second)["startedAt"] >= aws.done(first)["stoppedAt"]


@pytest.mark.parametrize(
    ("environment", "needs", "reason"),
    [
        ({"instanceTypes": ["m6i.large"]}, {"memory": 500_000}, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"),
        ({"instanceTypes": ["m6i"]}, {"gpus": 1}, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"),
        ({"maxvCpus": 2}, {"vcpus": 8}, "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE"),
    ],
)
def test_a_job_that_can_never_run_says_why(aws: Any, environment: Any, needs: Any, reason: str) -> None:
    """It stays RUNNABLE for ever, at the head of its queue, and stops those behind it."""
    queue = aws.queue(aws.environment(**environment))
    job_id = aws.submit(queue=queue, definition=aws.definition("true", **needs))
    behind = aws.submit("true", queue=queue)
    job = aws.job(job_id)
    assert job["status"] == "RUNNABLE"
    assert job["statusReason"].startswith(reason)
    assert aws.job(behind)["status"] == "RUNNABLE"
    assert "statusReason" not in aws.job(behind)
    aws.batch.terminate_job(jobId=job_id, reason="stuck")
    assert aws.done(behind)["status"] == "SUCCEEDED"


def test_a_time_limit_for_stuck_jobs_cancels_them(aws: Any) -> None:
    """jobStateTimeLimitActions, with AWS's text."""
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    action = {"reason": reason, "state": "RUNNABLE", "maxTimeSeconds": 600, "action": "CANCEL"}
    queue = aws.queue(jobStateTimeLimitActions=[action])
    # 600 s are 12 s here: make the job older instead of waiting.
    job_id = aws.submit(queue=queue, definition=aws.definition("true", gpus=1))
    batch = aws.emulator.batch()
    with batch.lock:
        batch.scheduler.jobs[job_id].runnable_at -= 600
        batch.advance()
    job = aws.done(job_id)
    assert job["statusReason"] == f"Canceled by JobStateTimeLimit action due to reason: {reason}"


def test_a_disabled_environment_starts_nothing(aws: Any) -> None:
    """Enabled again, it goes on."""
    environment = aws.environment()
    queue = aws.queue(environment)
    aws.batch.update_compute_environment(computeEnvironment=environment, state="DISABLED")
    job_id = aws.submit("true", queue=queue)
    assert aws.job(job_id)["status"] == "RUNNABLE"
    aws.batch.update_compute_environment(computeEnvironment=environment, state="ENABLED")
    assert aws.done(job_id)["status"] == "SUCCEEDED"


def test_a_larger_maximum_lets_a_job_start(aws: Any) -> None:
    """UpdateComputeEnvironment acts on what waits."""
    environment = aws.environment(maxvCpus=2)
    job_id = aws.submit(queue=aws.queue(environment), definition=aws.definition("true", vcpus=4))
    aws.batch.update_compute_environment(computeEnvironment=environment, computeResources={"maxvCpus": 8})
    assert aws.done(job_id)["status"] == "SUCCEEDED"


def test_a_queue_needs_its_environments_and_they_cannot_go_before_it(aws: Any) -> None:
    """The relationship that makes deletion of stacks fail on AWS."""
    environment = aws.environment()
    queue = aws.queue(environment)
    aws.batch.update_compute_environment(computeEnvironment=environment, state="DISABLED")
    with pytest.raises(ClientError, match="found existing JobQueue relationship"):
        aws.batch.delete_compute_environment(computeEnvironment=environment)
    aws.batch.update_job_queue(jobQueue=queue, state="DISABLED")
    aws.batch.delete_job_queue(jobQueue=queue)
    aws.batch.delete_compute_environment(computeEnvironment=environment)
    found = aws.batch.describe_compute_environments(computeEnvironments=[environment])
    assert found["computeEnvironments"] == []


def test_a_fair_share_queue_takes_turns(aws: Any) -> None:
    """A job of a share that uses nothing starts before one of a share with running jobs, even if it came later."""
    policy = aws.batch.create_scheduling_policy(name=aws.name("policy"), fairsharePolicy={})["arn"]
    environment = aws.environment(maxvCpus=4, instanceTypes=["m6i.large"])
    queue = aws.queue(environment, schedulingPolicyArn=policy)
    definition = aws.definition("sleep", "0.3", vcpus=2)
    ones = [aws.submit(queue=queue, definition=definition, shareIdentifier="one") for _ in range(4)]
    two = aws.submit(queue=queue, definition=definition, shareIdentifier="two")
    assert aws.done(two)["startedAt"] < aws.done(ones[3])["startedAt"]
    with pytest.raises(ClientError, match="shareIdentifier is required"):
        aws.submit(queue=queue, definition=definition)
    with pytest.raises(ClientError, match="must not be given"):
        aws.submit("true", shareIdentifier="one")


def test_a_queue_of_higher_priority_goes_first(aws: Any) -> None:
    """On a shared environment, whichever was submitted first."""
    environment = aws.environment(maxvCpus=2, instanceTypes=["m6i.large"])
    low, high = aws.queue(environment, priority=1), aws.queue(environment, priority=10)
    definition = aws.definition("sleep", "0.2", vcpus=2)
    blocker = aws.submit(queue=low, definition=definition)
    late = aws.submit(queue=low, definition=definition)
    first = aws.submit(queue=high, definition=definition)
    assert aws.done(first)["startedAt"] < aws.done(late)["startedAt"]
    aws.done(blocker)
