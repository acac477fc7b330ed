"""Faults that show in jobs and objects: damaged bytes, answers that repeat or lag, full disks, hosts lost anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

RETRIED = {
    "attempts": 3,
    "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}],
}


def _stored(aws: Any, bucket: str, key: str) -> bytes:
    body: bytes = aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def test_objects_are_stored_damaged(aws: Any, faults: Any) -> None:
    """Cut off, filled up, or changed; S3 finds nothing wrong, and other keys are as they were put."""
    bucket = aws.bucket()
    faults.add("damage", key="/cut", size=3)
    faults.add("damage", key="/long", size=10)
    faults.add("damage", key="/changed", pattern="w.r", replacement="WAR")
    for key in ("cut", "long", "changed", "whole"):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"the word", ChecksumAlgorithm="CRC32")
    assert _stored(aws, bucket, "cut") == b"the"
    assert _stored(aws, bucket, "long") == b"the word  "
    assert _stored(aws, bucket, "changed") == b"the WARd"
    assert _stored(aws, bucket, "whole") == b"the word"
    assert [sorted(each["struck"]) for each in faults.all()] == [
        [f"/{bucket}/{key}"] for key in ("cut", "long", "changed")
    ]


def test_answers_repeat_jobs_in_any_order(aws: Any, faults: Any) -> None:
    """DescribeJobs and ListJobs name each job twice; other answers are as always."""
    queue = aws.queue()
    ids = [aws.submit("true", queue=queue, jobName=f"repeated-{number}") for number in range(4)]
    for job_id in ids:
        aws.done(job_id)
    faults.add("repeat", service="batch")
    described = [job["jobId"] for job in aws.batch.describe_jobs(jobs=ids)["jobs"]]
    assert sorted(described) == sorted(ids * 2)
    assert described != ids * 2
    listed = aws.batch.list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert sorted(job["jobId"] for job in listed) == sorted(ids * 2)
    assert len(aws.batch.describe_job_queues(jobQueues=[queue])["jobQueues"]) == 1


def test_an_answer_lags_behind(aws: Any, faults: Any, poll: Any) -> None:
    """A job is shown as it was when the fault last hit a question about it."""
    job_id = aws.submit("sleep", "30")
    aws.reach(job_id, "RUNNING")
    faults.add("stale", service="batch", operation="DescribeJobs", count=3)
    seen = [aws.job(job_id)["status"]]
    aws.batch.terminate_job(jobId=job_id, reason="enough")
    poll(lambda: aws.emulator.batch().scheduler.jobs[job_id].terminal, "the job to end")
    seen += [aws.job(job_id)["status"] for _ in range(3)]
    assert seen == ["RUNNING", "RUNNING", "FAILED", "FAILED"]


def test_a_full_disk(aws: Any, faults: Any) -> None:
    """Python cannot write in the job's folder and for temporary files, at once or after a while; others can."""
    write = "open('file', 'w').close()"
    keep_writing = (
        f"import tempfile, time\nwhile True:\n    {write}\n    tempfile.mkstemp(dir='.')\n    time.sleep(0.05)"
    )
    faults.add("disk_full", job="full", count=1)
    faults.add("disk_full", job="filling", seconds=0.5, count=1)
    at_once = aws.done(aws.submit("python", "-c", write, jobName="full"))
    later = aws.done(aws.submit("python", "-c", keep_writing, jobName="filling"))
    for job in (at_once, later):
        assert job["container"]["exitCode"] == 1
        assert any("[Errno 28] No space left on device" in line for line in aws.log(job))
    assert aws.done(aws.submit("python", "-c", write, jobName="full-no-more"))["status"] == "SUCCEEDED"


@pytest.mark.parametrize("state", ["STARTING", "RUNNING"])
def test_a_host_is_lost_in_a_state(aws: Any, faults: Any, state: str) -> None:
    """The first attempt ends with it, the second runs on another host."""
    faults.add("lose_host", job=f"lost-{state}", state=state, count=1)
    job = aws.done(
        aws.submit(
            "sh",
            "-c",
            "test $AWS_BATCH_JOB_ATTEMPT = 2 || sleep 30",
            jobName=f"lost-{state}",
            retryStrategy=RETRIED,
        )
    )
    lost, _ = job["attempts"]
    assert job["status"] == "SUCCEEDED"
    assert lost["statusReason"].startswith("Host EC2 (instance i-")
    assert ("startedAt" in lost) == (state == "RUNNING")


def test_the_host_that_boots_for_a_job_is_lost(aws: Any, faults: Any) -> None:
    """The job never had an attempt there, and waits for the next."""
    fault = faults.add("lose_host", job="booting", state="RUNNABLE", count=1)
    job = aws.done(aws.submit("true", jobName="booting", queue=aws.queue(aws.environment())))
    assert len(job["attempts"]) == 1
    assert [each["hits"] for each in faults.all() if each["id"] == fault] == [1]


def test_a_host_is_lost_right_after_a_call_of_its_job(aws: Any, faults: Any) -> None:
    """The call was carried out, but its answer was not received."""
    bucket = aws.bucket()
    faults.add("lose_host", service="s3", operation="PutObject", key="/last", count=1)
    script = (
        f"import boto3; s3 = boto3.client('s3'); s3.put_object(Bucket={bucket!r}, Key='last', Body=b'x'); "
        f"s3.put_object(Bucket={bucket!r}, Key='after', Body=b'x')"
    )
    definition = aws.definition("python", "-c", script, jobRoleArn=aws.role())
    job = aws.done(aws.submit(definition=definition, jobName="gone-after-put"))
    assert job["statusReason"].startswith("Host EC2 (instance i-")
    assert [each["Key"] for each in aws.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["last"]
    assert faults.all()[-1]["struck"] == ["gone-after-put"]


def test_only_what_comes_too_fast_is_throttled(aws: Any, faults: Any) -> None:
    """One call in an hour passes."""
    faults.add("throttle", service="batch", operation="DescribeJobs", above_per_s=1 / 3600)
    assert aws.batch.describe_jobs(jobs=["x"])["jobs"] == []
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        aws.batch.describe_jobs(jobs=["x"])


def test_what_a_fault_struck_is_told(aws: Any, faults: Any) -> None:
    """By the names and ids that the call has."""
    faults.add("error", service="batch", count=2)
    with pytest.raises(ClientError):
        aws.batch.describe_jobs(jobs=["one", "two"])
    with pytest.raises(ClientError):
        aws.batch.terminate_job(jobId="three", reason="-")
    assert faults.all()[-1]["struck"] == ["one", "three", "two"]
