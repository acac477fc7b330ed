"""What DescribeJobs says, and what a failed job's end is called: one row for each text of AWS."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro.jobs import Asked, JobState, explain_failure, parse_job, was_cancelled_by_us

ASKED = Asked(memory_gb=4, time_limit_s=300, attempts=3, image="repo/img:1", log_group="jobs")


def failed(reason: str = "", status_reason: str = "", exit_code: int | None = None, **more: Any) -> dict[str, Any]:
    """A failed job as DescribeJobs gives it."""
    container: dict[str, Any] = {"logStreamName": "s"} if exit_code is not None else {}
    if reason:
        container["reason"] = reason
    if exit_code is not None:
        container["exitCode"] = exit_code
    attempt = {"container": container, "statusReason": status_reason}
    return {
        "jobId": "j",
        "status": "FAILED",
        "statusReason": status_reason,
        "container": container,
        "attempts": [attempt],
        **more,
    }


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (
            failed("OutOfMemoryError: Container killed due to memory usage", "Essential container in task exited", 137),
            ["Out of memory", "4 GB", "memory=8"],
        ),
        (
            failed("", "Host EC2 (instance i-0123456789abcdef0) terminated."),
            ["host was lost", "retry_attempts above 3"],
        ),
        (failed("", "Job attempt duration exceeded timeout", 137), ["Time limit", "time_limit=300"]),
        (
            failed("CannotPullContainerError: pull access denied", "Task failed to start"),
            ["could not be pulled", "container_image_uri='repo/img:1'"],
        ),
        (
            failed("CannotStartContainerError: exec format error", "Task failed to start"),
            ["another processor", "--platform"],
        ),
        (
            failed("CannotStartContainerError: failed to initialize logging driver: x", "Task failed to start"),
            ["batch_job_log_group_name='jobs'"],
        ),
        (failed("", "ECS was unable to assume the role 'arn' that was provided"), ["batch_job_role_name"]),
        (failed("DockerTimeoutError: Could not transition", "Task failed to start"), ["could not be started"]),
        (failed("", "Container Overrides length must be at most 8192"), ["too long"]),
        (failed("", "Essential container in task exited", 137), ["SIGKILL", "4 GB"]),
        (failed("", "Essential container in task exited", 1), ["pip install", "covalent-cirro"]),
        (failed("", "operator said so", isTerminated=True), ["somebody else"]),
        (failed("", "Canceled by JobStateTimeLimit action due to reason: X"), ["before its container ran"]),
    ],
    ids=lambda value: value["statusReason"][:30] if isinstance(value, dict) else "",
)
def test_every_end_is_explained_in_awss_words_with_what_to_do(job: dict[str, Any], says: list[str]) -> None:
    """No job ends without a name."""
    text = explain_failure(parse_job(job), ASKED)
    for words in (*says, job["statusReason"].rstrip("."), job["container"].get("reason", "")):
        assert words in text


def test_a_job_with_next_to_nothing_in_it_is_read() -> None:
    """AWS leaves out what has not come yet; 0 is a time that has not."""
    detail = parse_job({"jobId": "j", "status": "RUNNABLE", "startedAt": 0})
    assert (detail.state, detail.exit_code, detail.started_at, detail.attempts) == ("RUNNABLE", None, None, ())
    assert not detail.is_terminal


def test_the_latest_attempt_tells_what_the_container_does_not() -> None:
    """Exit facts are read from the attempts where the job itself has none."""
    detail = parse_job(
        {
            "jobId": "j",
            "status": "FAILED",
            "attempts": [
                {"container": {}, "statusReason": "Host EC2 (instance i-1) terminated."},
                {"container": {"exitCode": 3, "logStreamName": "b"}, "statusReason": "Essential container exited"},
            ],
        }
    )
    assert (detail.exit_code, detail.log_stream, len(detail.attempts)) == (3, "b", 2)


def test_a_state_that_is_not_known_yet_counts_as_not_ended() -> None:
    """Should AWS add one."""
    assert not parse_job({"jobId": "j", "status": "THROTTLED"}).is_terminal
    assert [state for state in JobState if state.is_terminal] == [JobState.SUCCEEDED, JobState.FAILED]


@pytest.mark.parametrize(
    ("status", "reason", "ours"),
    [
        ("FAILED", "Cancelled in Covalent (dispatch d, node 3)", True),
        ("FAILED", "somebody else", False),
        ("SUCCEEDED", "Cancelled in Covalent (dispatch d, node 3)", False),
    ],
)
def test_our_own_cancel_is_told_from_that_of_others(status: str, reason: str, ours: bool) -> None:
    """A job that was done before the cancel came has its result."""
    assert was_cancelled_by_us(parse_job({"jobId": "j", "status": status, "statusReason": reason})) is ours
