"""Retries, time limits, cancel and terminate."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

IGNORES_TERM = "trap '' TERM; echo ready; while true; do sleep 0.05; done"


def test_a_failed_job_is_tried_again(aws: Any) -> None:
    """As often as it has attempts; job and id stay, task and log stream are new."""
    job = aws.done(aws.submit("sh", "-c", "exit 1", retryStrategy={"attempts": 3}))
    assert job["status"] == "FAILED"
    assert job["retryStrategy"]["attempts"] == 3
    assert len(job["attempts"]) == 3
    assert len({attempt["container"]["logStreamName"] for attempt in job["attempts"]}) == 3
    assert len({attempt["container"]["taskArn"] for attempt in job["attempts"]}) == 3


def test_a_later_attempt_may_succeed(aws: Any) -> None:
    """It knows its number."""
    job = aws.done(aws.submit("sh", "-c", "test $AWS_BATCH_JOB_ATTEMPT = 2", retryStrategy={"attempts": 5}))
    assert job["status"] == "SUCCEEDED"
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [1, 0]


def test_submit_replaces_the_definitions_strategy(aws: Any) -> None:
    """And without one the definition's holds."""
    definition = aws.definition("false", options={"retryStrategy": {"attempts": 2}})
    assert len(aws.done(aws.submit(definition=definition))["attempts"]) == 2
    assert len(aws.done(aws.submit(definition=definition, retryStrategy={"attempts": 1}))["attempts"]) == 1


@pytest.mark.parametrize(
    ("entries", "attempts"),
    [
        ([{"onExitCode": "3", "action": "EXIT"}], 1),
        ([{"onExitCode": "3*", "action": "exit"}], 1),
        ([{"onExitCode": "4", "action": "EXIT"}], 2),
        ([{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 1),
        ([{"onStatusReason": "Essential*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 2),
        ([{"onStatusReason": "Essential*", "onExitCode": "4", "action": "EXIT"}], 2),
    ],
)
def test_evaluate_on_exit_decides(aws: Any, entries: list[Any], attempts: int) -> None:
    """The first entry that matches; with none the job is retried. ``*`` matches a reason that is not there."""
    job = aws.done(aws.submit("sh", "-c", "exit 3", retryStrategy={"attempts": 2, "evaluateOnExit": entries}))
    assert len(job["attempts"]) == attempts


def test_a_retried_job_goes_to_the_front(aws: Any) -> None:
    """It runs again before those that waited behind it."""
    queue = aws.queue(aws.environment(maxvCpus=2, instanceTypes=["m6i.large"]))
    failing = aws.definition("sh", "-c", "sleep 0.1; exit 1", vcpus=2)
    first = aws.submit(queue=queue, definition=failing, retryStrategy={"attempts": 2})
    second = aws.submit(queue=queue, definition=aws.definition("true", vcpus=2))
    assert aws.done(second)["startedAt"] >= aws.done(first)["stoppedAt"]


def test_a_time_limit_ends_the_attempt_and_is_not_retried(aws: Any) -> None:
    """SIGTERM first: this process obeys it."""
    job = aws.done(aws.submit("sleep", "300", timeout={"attemptDurationSeconds": 60}, retryStrategy={"attempts": 3}))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert len(job["attempts"]) == 1
    assert job["container"]["exitCode"] == 143
    assert job["timeout"] == {"attemptDurationSeconds": 60}


def test_sigkill_follows_for_who_ignores_sigterm(aws: Any) -> None:
    """After the grace of 30 s, scaled here: 137, and no word of memory."""
    job_id = aws.submit("sh", "-c", IGNORES_TERM)
    aws.reach(job_id, "RUNNING")
    aws.batch.terminate_job(jobId=job_id, reason="now")
    job = aws.done(job_id)
    assert job["container"]["exitCode"] == 137
    assert "reason" not in job["container"]


def test_a_process_may_use_the_grace(aws: Any, poll: Any) -> None:
    """What it writes after SIGTERM is logged."""
    job_id = aws.submit("sh", "-c", "trap 'echo saved; exit 7' TERM; echo up; while true; do sleep 0.02; done")
    poll(lambda: aws.log(aws.reach(job_id, "RUNNING")), "its first line")
    aws.batch.terminate_job(jobId=job_id, reason="stop")
    job = aws.done(job_id)
    assert job["container"]["exitCode"] == 7
    assert aws.log(job) == ["up", "saved"]


def test_terminate_ends_a_running_job_with_the_reason(aws: Any) -> None:
    """It is FAILED, not retried, and says who asked."""
    job_id = aws.submit("sleep", "300", retryStrategy={"attempts": 3})
    aws.reach(job_id, "RUNNING")
    aws.batch.terminate_job(jobId=job_id, reason="because I say so")
    job = aws.done(job_id)
    assert (job["status"], job["statusReason"]) == ("FAILED", "because I say so")
    assert job["isTerminated"] is True
    assert job["isCancelled"] is False
    assert len(job["attempts"]) == 1
    queue = job["jobQueue"]
    (summary,) = aws.batch.list_jobs(jobQueue=queue, jobStatus="FAILED")["jobSummaryList"]
    assert summary["isTerminated"] is True


def test_cancel_does_nothing_to_a_running_job(aws: Any) -> None:
    """And answers 200."""
    job_id = aws.submit("sleep", "0.5")
    aws.reach(job_id, "RUNNING")
    aws.batch.cancel_job(jobId=job_id, reason="too late")
    assert aws.done(job_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("operation", ["cancel_job", "terminate_job"])
def test_a_waiting_job_ends_without_a_start(aws: Any, operation: str) -> None:
    """No attempt, and the reason that was given."""
    queue = aws.queue(aws.environment(maxvCpus=2, instanceTypes=["m6i.large"]))
    definition = aws.definition("sleep", "300", vcpus=2)
    running = aws.submit(queue=queue, definition=definition)
    waiting = aws.submit(queue=queue, definition=definition)
    assert aws.job(waiting)["status"] == "RUNNABLE"
    getattr(aws.batch, operation)(jobId=waiting, reason="not needed")
    job = aws.done(waiting)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "not needed", [])
    assert job["isCancelled"] is (operation == "cancel_job")
    aws.batch.terminate_job(jobId=running, reason="enough")


def test_a_pending_job_is_cancelled_once_its_dependencies_are_done(aws: Any) -> None:
    """Until then it stays PENDING, already marked."""
    queue = aws.queue()
    first = aws.submit("sleep", "0.4", queue=queue)
    second = aws.submit("true", queue=queue, dependsOn=[{"jobId": first}])
    aws.batch.cancel_job(jobId=second, reason="not needed")
    job = aws.job(second)
    assert (job["status"], job["isCancelled"]) == ("PENDING", True)
    job = aws.done(second)
    assert (job["statusReason"], job["attempts"]) == ("not needed", [])


def test_jobs_are_ended_in_bulk(aws: Any) -> None:
    """Unknown ids count as done, as the API says."""
    queue = aws.queue()
    jobs = [aws.submit("sleep", "300", queue=queue) for _ in range(2)]
    answer = aws.batch.terminate_jobs(jobs=[*jobs, "nobody"], reason="all of you")
    assert answer["successful"] == [*jobs, "nobody"]
    assert answer["errors"] == []
    for job_id in jobs:
        assert aws.done(job_id)["statusReason"] == "all of you"


def test_a_bulk_call_names_the_jobs_that_it_did_not_take(aws: Any, faults: Any) -> None:
    """In the midst of a 200, under the keys of the API's model; they run on, and the next call takes them."""
    queue = aws.queue()
    well, ill = (aws.submit("sleep", "300", queue=queue, jobName=aws.name(kind)) for kind in ("well", "ill"))
    faults.add("bulk_error", job="ill", count=1)
    answer = aws.batch.terminate_jobs(jobs=[ill, well], reason="both")
    assert answer["successful"] == [well]
    assert answer["errors"] == [{"job": ill, "code": "ThrottlingException", "message": "Rate exceeded"}]
    assert aws.done(well)["statusReason"] == "both"
    assert aws.job(ill)["status"] not in ("SUCCEEDED", "FAILED")
    assert aws.batch.terminate_jobs(jobs=[ill], reason="again")["errors"] == []
    assert aws.done(ill)["statusReason"] == "again"


def test_unknown_and_ended_jobs_are_no_error(aws: Any) -> None:
    """200, and an ended job stays as it ended."""
    aws.batch.terminate_job(jobId="nobody", reason="x")
    aws.batch.cancel_job(jobId="nobody", reason="x")
    job_id = aws.submit("true")
    aws.done(job_id)
    aws.batch.terminate_job(jobId=job_id, reason="x")
    job = aws.job(job_id)
    assert (job["status"], job["isTerminated"]) == ("SUCCEEDED", False)


def test_a_reason_has_a_length(aws: Any) -> None:
    """At most 1024 characters."""
    with pytest.raises(ClientError, match="1024"):
        aws.batch.terminate_job(jobId="x", reason="x" * 1025)


def test_deleting_a_queue_ends_its_jobs(aws: Any) -> None:
    """It must be DISABLED first; a disabled queue takes no job."""
    queue = aws.queue()
    job_id = aws.submit("sleep", "300", queue=queue)
    aws.reach(job_id, "RUNNING")
    with pytest.raises(ClientError, match="DISABLED"):
        aws.batch.delete_job_queue(jobQueue=queue)
    aws.batch.update_job_queue(jobQueue=queue, state="DISABLED")
    with pytest.raises(ClientError, match="DISABLED"):
        aws.submit("true", queue=queue)
    aws.batch.delete_job_queue(jobQueue=queue)
    assert aws.done(job_id)["status"] == "FAILED"
