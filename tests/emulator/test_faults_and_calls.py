"""Bad days on demand, each as a client sees it; and the counting of calls."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError, ResponseStreamingError

from tests.access import control


def _code(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_throttling_of_batch(aws: Any, faults: Any) -> None:
    """429 with AWS's code, as often as asked; other operations are not hit."""
    faults.add("throttle", service="batch", operation="DescribeJobs", count=2)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            aws.batch.describe_jobs(jobs=["x"])
        assert _code(error) == (429, "TooManyRequestsException")
    aws.batch.list_jobs(jobQueue=aws.queue())
    assert aws.batch.describe_jobs(jobs=["x"])["jobs"] == []


@pytest.mark.parametrize(
    ("service", "fault", "expected"),
    [
        ("s3", {"kind": "throttle"}, (503, "SlowDown")),
        ("s3", {"kind": "error"}, (500, "InternalError")),
        ("s3", {"kind": "error", "status": 503}, (503, "ServiceUnavailable")),
        ("s3", {"kind": "error", "status": 404}, (404, "NoSuchKey")),
        ("s3", {"kind": "error", "status": 403}, (403, "AccessDenied")),
        ("s3", {"kind": "conflict"}, (409, "ConditionalRequestConflict")),
        ("sts", {"kind": "throttle", "code": "Throttling"}, (400, "Throttling")),
        ("logs", {"kind": "throttle"}, (400, "ThrottlingException")),
        ("batch", {"kind": "error"}, (500, "ServerException")),
    ],
)
def test_errors_have_the_form_of_their_service(aws: Any, faults: Any, service: str, fault: Any, expected: Any) -> None:
    """boto3 reads them as it reads AWS's."""
    client = aws.emulator.client(service, config=Config(retries={"mode": "standard", "total_max_attempts": 1}))
    call = {
        "s3": lambda: client.put_object(Bucket="any", Key="k", Body=b"x"),
        "sts": lambda: client.get_caller_identity(),
        "logs": lambda: client.describe_log_groups(),
        "batch": lambda: client.describe_job_queues(),
    }[service]
    faults.add(service=service, count=1, **fault)
    with pytest.raises(ClientError) as error:
        call()
    assert _code(error) == expected


def test_a_cut_before_the_call_did_nothing(aws: Any, faults: Any) -> None:
    """The client sees a closed connection."""
    bucket = aws.bucket()
    faults.add("cut", service="s3", operation="PutObject", count=1)
    with pytest.raises(ConnectionClosedError):
        aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=bucket)


def test_a_cut_after_the_call_did_all_but_answer(aws: Any, faults: Any) -> None:
    """The case in which a retried SubmitJob makes a second job."""
    queue, definition = aws.queue(), aws.definition("true")
    faults.add("cut", service="batch", operation="SubmitJob", when="after", count=1)
    with pytest.raises(ConnectionClosedError):
        aws.submit(queue=queue, definition=definition, jobName="ambiguous")
    listed = aws.batch.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["ambiguous"]}])
    assert len(listed["jobSummaryList"]) == 1


def test_a_cut_during_the_answer(aws: Any, faults: Any) -> None:
    """Half an object, and a client that notices."""
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100_000)
    faults.add("cut", service="s3", operation="GetObject", when="during", count=1)
    with pytest.raises((ResponseStreamingError, ConnectionClosedError)):
        aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()


def test_slow_answers(aws: Any, faults: Any) -> None:
    """A wait before the call, or a slow body."""
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 10_000)
    faults.add("slow", service="s3", operation="GetObject", bytes_per_s=50_000, count=1)
    begin = time.monotonic()
    assert len(aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()) == 10_000
    assert time.monotonic() - begin >= 0.15
    impatient = aws.emulator.client("s3", config=Config(read_timeout=0.2, retries={"total_max_attempts": 1}))
    faults.add("slow", service="s3", seconds=0.6, count=1)
    with pytest.raises(ReadTimeoutError):
        impatient.head_object(Bucket=bucket, Key="k")


def test_a_new_job_is_not_described_for_a_while(aws: Any, faults: Any, poll: Any) -> None:
    """Then it is there."""
    queue = aws.queue()
    faults.add("describe_omits", job="hidden", seconds=0.3, count=1)
    job_id = aws.submit("true", queue=queue, jobName="hidden-one")
    assert aws.batch.describe_jobs(jobs=[job_id])["jobs"] == []
    assert aws.batch.list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")["jobSummaryList"] == []
    shown = aws.submit("true", queue=queue, jobName="shown")
    assert len(aws.batch.describe_jobs(jobs=[shown])["jobs"]) == 1
    poll(lambda: aws.batch.describe_jobs(jobs=[job_id])["jobs"], "the job")


def test_a_lost_host_kills_its_jobs_without_an_exit_code(aws: Any, faults: Any) -> None:
    """The reason names the instance; the retry runs on another."""
    faults.add("lose_host", job="unlucky", count=1)
    job = aws.done(
        aws.submit(
            "sh",
            "-c",
            "test $AWS_BATCH_JOB_ATTEMPT = 2 || sleep 30",
            jobName="unlucky-one",
            retryStrategy={
                "attempts": 3,
                "evaluateOnExit": [
                    {"onStatusReason": "Host EC2*", "action": "RETRY"},
                    {"onReason": "*", "action": "EXIT"},
                ],
            },
        )
    )
    assert job["status"] == "SUCCEEDED"
    lost, good = job["attempts"]
    assert lost["statusReason"].startswith("Host EC2 (instance i-")
    assert lost["statusReason"].endswith(") terminated.")
    assert "exitCode" not in lost["container"]
    assert "reason" not in lost["container"]
    assert lost["container"]["containerInstanceArn"] != good["container"]["containerInstanceArn"]


def test_a_running_job_can_lose_its_host(aws: Any, faults: Any) -> None:
    """A fault that is asked for while it runs hits it; without a retry it is FAILED."""
    job_id = aws.submit("sleep", "30", jobName="doomed")
    aws.reach(job_id, "RUNNING")
    faults.add("lose_host", job="doomed", count=1)
    job = aws.done(job_id)
    assert job["statusReason"].startswith("Host EC2 (instance i-")
    assert "exitCode" not in job["container"]


def test_an_image_that_cannot_be_pulled(aws: Any, faults: Any) -> None:
    """The agent's words."""
    faults.add("image_pull", job="pull", count=1)
    job = aws.done(aws.submit("true", jobName="pull-one"))
    assert job["statusReason"] == "Task failed to start"
    assert job["container"]["reason"].startswith("CannotPullContainerError: ")
    assert aws.done(aws.submit("true", jobName="pull-two"))["status"] == "SUCCEEDED"


def test_a_stuck_job_waits_until_the_fault_is_cleared(aws: Any, faults: Any) -> None:
    """RUNNABLE with the reason that was asked for, with its queue behind it."""
    queue = aws.queue()
    fault = faults.add("stuck", job="stuck", count=1, reason="MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS")
    job_id = aws.submit("true", queue=queue, jobName="stuck-one")
    behind = aws.submit("true", queue=queue, jobName="stuck-two")
    assert aws.job(job_id)["statusReason"] == "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS"
    assert aws.job(behind)["status"] == "RUNNABLE"
    faults.clear(fault)
    assert aws.done(job_id)["status"] == aws.done(behind)["status"] == "SUCCEEDED"


def test_no_capacity_in_the_first_environment(aws: Any, faults: Any) -> None:
    """The second one takes the job; with none left it waits, with the reason, until there is some."""
    first, second = aws.environment(), aws.environment()
    faults.add("no_capacity", environment=first)
    job = aws.done(aws.submit("printenv", "AWS_BATCH_CE_NAME", queue=aws.queue(first, second)))
    assert aws.log(job) == [second]
    third = aws.environment()
    held = faults.add("no_capacity", environment=third)
    job_id = aws.submit("true", queue=aws.queue(third))
    assert aws.job(job_id)["statusReason"].startswith("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - ")
    faults.clear(held)
    assert aws.done(job_id)["status"] == "SUCCEEDED"
    fourth = aws.environment()
    faults.add("no_capacity", environment=fourth, duration_s=0.2)  # which ends without any call
    assert aws.done(aws.submit("true", queue=aws.queue(fourth)))["status"] == "SUCCEEDED"


def test_faults_over_http(aws: Any, faults: Any) -> None:
    """The same, for other processes: PUT adds one or many, GET lists with hits, DELETE clears."""

    def ask(method: str, body: Any = None) -> Any:
        return control(aws.emulator, "faults", body, method)

    made = ask("PUT", {"faults": [{"kind": "error", "service": "iam"}, {"kind": "slow", "service": "iam"}]})
    assert len(made["ids"]) == 2
    ask("PUT", {"kind": "throttle", "service": "batch", "count": 1})
    with pytest.raises(ClientError):
        aws.batch.describe_jobs(jobs=["x"])
    assert [(each["kind"], each["hits"]) for each in ask("GET")["faults"]] == [
        ("error", 0),
        ("slow", 0),
        ("throttle", 1),
    ]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask("PUT", {"kind": "earthquake"})
    ask("DELETE")
    assert ask("GET") == {"faults": []}


@pytest.mark.parametrize(
    "wrong", [{"kind": "earthquake"}, {"kind": "error", "colour": "red"}, {"kind": "cut", "when": "never"}]
)
def test_an_unknown_fault_is_refused(faults: Any, wrong: Any) -> None:
    """With what is known."""
    with pytest.raises(ValueError, match="known are"):
        faults.add(**wrong)


def test_a_probability_draws_the_same_each_time() -> None:
    """Two runs of a test see the same faults."""
    from covalent_cirro.local.emulator.faults import Faults

    def draws() -> list[bool]:
        faults = Faults(seed=7)
        faults.add("error", probability=0.5)
        return [bool(faults.take_request("s3", "GetObject", "client")) for _ in range(50)]

    first = draws()
    assert first == draws()
    assert 10 < sum(first) < 40


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(aws: Any) -> Iterator[Any]:
    """The emulator's counts, from zero."""
    aws.emulator.calls.reset()
    yield aws.emulator.calls
    aws.emulator.calls.reset()


def test_calls_and_bytes_are_counted(aws: Any, calls: Any) -> None:
    """By service and operation, with the bytes of the bodies."""
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 1000)
    aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    aws.s3.head_object(Bucket=bucket, Key="k")
    aws.s3.list_objects_v2(Bucket=bucket)
    aws.batch.describe_jobs(jobs=["x"])
    counts = calls.counts()
    assert set(counts) == {
        "s3:CreateBucket",
        "s3:PutObject",
        "s3:GetObject",
        "s3:HeadObject",
        "s3:ListObjectsV2",
        "batch:DescribeJobs",
    }
    assert counts["s3:PutObject"]["count"] == 1
    assert 1000 <= counts["s3:PutObject"]["bytes_in"] < 1200
    assert counts["s3:GetObject"]["bytes_out"] == 1000
    assert counts["s3:HeadObject"]["bytes_out"] == 0


def test_calls_of_jobs_are_told_apart(aws: Any, calls: Any) -> None:
    """By the key of the job's role, over HTTP too."""
    bucket = aws.bucket()
    script = f"import boto3; boto3.client('s3').put_object(Bucket={bucket!r}, Key='k', Body=b'12345')"
    aws.done(aws.submit(definition=aws.definition("python", "-c", script, jobRoleArn=aws.role())))
    of_jobs = control(aws.emulator, "calls?caller=job")
    assert {name: each["count"] for name, each in of_jobs.items()} == {"s3:PutObject": 1}
    assert "s3:PutObject" not in calls.counts("client")
    assert "batch:SubmitJob" in calls.counts("client")
    control(aws.emulator, "calls", method="DELETE")
    assert calls.counts() == {}


def test_multipart_uploads_are_named(aws: Any, calls: Any) -> None:
    """Each of their calls."""
    bucket = aws.bucket()
    upload = aws.s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = aws.s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    aws.s3.complete_multipart_upload(
        Bucket=bucket,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    names = {"s3:CreateMultipartUpload", "s3:UploadPart", "s3:CompleteMultipartUpload"}
    assert names < set(calls.counts())


def test_status_shows_queues_jobs_and_hosts(aws: Any) -> None:
    """For people, and for a command line."""
    queue = aws.queue()
    job_id = aws.submit("sleep", "30", queue=queue)
    aws.reach(job_id, "RUNNING")
    status = control(aws.emulator, "status")["us-east-1"]
    assert queue in [each["name"] for each in status["queues"]]
    assert status["jobs"]["RUNNING"] >= 1
    assert [host for host in status["hosts"] if job_id in host["jobs"]]
    aws.batch.terminate_job(jobId=job_id, reason="enough")
