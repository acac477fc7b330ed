"""How an electron can end: one row for each class and for each text of AWS, and what the user reads of it."""

# ruff: noqa: E501  (a table: one way to end a line)

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest

from covalent_cirro.contract.failure_kinds import KINDS, Failure, Kind
from covalent_cirro.contract.protocol import Usage
from covalent_cirro.jobs.console_links import is_aws, job_url, log_url, partition_of
from covalent_cirro.jobs.ends import End, Evidence, end_of, end_of_job, lost_hosts
from covalent_cirro.jobs.explanations import (
    Explanation,
    JobLinks,
    awss_words,
    explain,
    memory_to_ask_gb,
)
from covalent_cirro.jobs.states import parse_job
from covalent_cirro.settings import resolve

SETTINGS = resolve(
    {
        "memory": 4,
        "time_limit": 300,
        "retry_attempts": 3,
        "container_image_uri": "repo/img:1",
        "batch_job_log_group_name": "jobs",
        "batch_queue": "cpus",
        "batch_execution_role_name": "exec-role",
        "batch_job_role_name": "job-role",
        "s3_bucket_name": "bucket",
        "secrets": {"KEY": "ssm:/team/key"},
    },
    {},
)
GIB = 1024**3
EXITED = "Essential container in task exited"
SECRET_ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbC123"
NO_SUCH_VERSION = (
    "ResourceNotFoundException: Secrets Manager can't find the specified secret value for staging label: OLD"
)
NOT_STARTED = "Task failed to start"
SPOT_TASK = "Your Spot Task was interrupted."
HOST = "Host EC2 (instance i-0123456789abcdef0) terminated."
TIMEOUT = "Job attempt duration exceeded timeout"
PLACE = JobLinks("https://console/job", "https://console/log")


def job(
    status_reason: str = "", reason: str = "", exit_code: int | None = None, *, ran: bool | None = None, **more: Any
) -> dict[str, Any]:
    """A failed job of one attempt, as DescribeJobs gives it."""
    container: dict[str, Any] = {"reason": reason} if reason else {}
    if exit_code is not None:
        container["exitCode"] = exit_code
    if ran or (ran is None and exit_code is not None):
        container["logStreamName"] = "cirro/default/1"
    return {
        "jobId": "job-1",
        "status": "FAILED",
        "statusReason": status_reason,
        "container": container,
        "attempts": [{"container": container, "statusReason": status_reason}],
        **more,
    }


def queued(status_reason: str, **more: Any) -> dict[str, Any]:
    """A job that failed before anything of it was started: it has no attempt."""
    return {"jobId": "job-1", "status": "FAILED", "statusReason": status_reason, "attempts": [], **more}


def pull(words: str, error: str = "CannotPullContainerError") -> dict[str, Any]:
    """A job whose image could not be pulled."""
    return job(NOT_STARTED, f"{error}: {words}")


def failure(kind: str, message: str = "it happened", **more: Any) -> dict[str, Any]:
    """An outcome's failure of the first attempt, of a job that AWS says exited with 1."""
    return {"failure": Failure(kind, message, **more), "attempt": 1, "usage": Usage()}


class Row(NamedTuple):
    """One way to end: the job (`None`: forgotten), the rest of the evidence, the class, and words that must be told."""

    name: str
    job: dict[str, Any] | None
    end: End
    says: list[str]
    more: dict[str, Any] = {}


RAN_1 = job(EXITED, exit_code=1)

ROWS = [
    # --- the outcome says it ---
    Row("raised", RAN_1, End.RAISED, ["raised ValueError: no", "Traceback"], failure(Kind.RAISED, "ValueError: no", traceback="Traceback (most recent call last):\n")),
    Row("items of a map", RAN_1, End.RAISED, ["3 of 5 items failed; item 1: ValueError: no"], failure(Kind.ITEMS, "3 of 5 items failed; item 1: ValueError: no", traceback="Traceback (most recent call last):\n")),
    Row("hook", RAN_1, End.HOOK_FAILED, ["pip install nothing"], failure(Kind.HOOK, "pip install nothing failed")),
    Row("os._exit", RAN_1, End.EXITED, ["exit code 3", "return or raise"], failure(Kind.EXITED, "the process of 'train' ended with exit code 3", exit_code=3)),
    Row("segfault", RAN_1, End.KILLED, ["SIGSEGV", "stack of the native code"], failure(Kind.KILLED, "the process of 'train' was killed by SIGSEGV: native code", signal="SIGSEGV")),
    Row("sigkill of the child", RAN_1, End.KILLED, ["SIGKILL", "by another", "memory=8"], failure(Kind.KILLED, "the process of 'train' was killed by SIGKILL: by another", signal="SIGKILL")),
    Row("bus error", RAN_1, End.SHARED_MEMORY_FULL, ["/dev/shm", "2 GB", "shared_memory_gb=4"], failure(Kind.KILLED, "was killed by SIGBUS", signal="SIGBUS")),
    Row("shm of a DataLoader", RAN_1, End.SHARED_MEMORY_FULL, ["shared_memory_gb=4"], failure(Kind.RAISED, "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.")),
    Row("result not picklable", RAN_1, End.UNPICKLABLE, ["cannot pickle"], failure(Kind.UNPICKLABLE, "cannot pickle a socket")),
    Row("input not readable", RAN_1, End.UNREADABLE, ["unpickling"], failure(Kind.UNREADABLE, "unpickling argument 1 failed")),
    Row("missing module", RAN_1, End.MISSING_MODULE, ["mylab", "Ship the module"], failure(Kind.MISSING_MODULE, "it needs the module 'mylab'", module="mylab")),
    Row("versions", RAN_1, End.VERSIONS, ["3.10", "3.12"], failure(Kind.VERSIONS, "pickled by Python 3.10, the container has 3.12")),
    Row("blob gone", RAN_1, End.BLOB_LOST, ["blobs/abc", "sent again"], failure(Kind.FETCH, "blobs/abc is missing")),
    Row("task group", RAN_1, End.NOT_RUN, ["earlier electron"], failure(Kind.NOT_RUN, "an earlier electron failed")),
    Row("runner broke", RAN_1, End.RUNNER_BROKE, ["KeyError", "report"], failure(Kind.RUNNER, "the runner broke: KeyError")),
    Row("nodes that did not meet", RAN_1, End.NODES_APART, ["node 2 of 4", "security group"], failure(Kind.NODES, "node 2 of 4 did not connect")),
    Row("cgroup count", RAN_1, End.OUT_OF_MEMORY, ["4 GB", "3.98 GB", "memory=8"], {**failure(Kind.OUT_OF_MEMORY, signal="SIGKILL"), "usage": Usage(peak_memory_bytes=int(3.98 * GIB), oom_kills=1)}),
    Row("a child of the electron was killed for memory", RAN_1, End.OUT_OF_MEMORY, ["memory=8", "BrokenProcessPool"], {**failure(Kind.RAISED, "BrokenProcessPool", traceback="BrokenProcessPool"), "usage": Usage(oom_kills=2)}),
    Row("the engine saw it, the runner did not", job(EXITED, "OutOfMemoryError: Container killed due to memory usage", 1), End.OUT_OF_MEMORY, ["memory=8"], failure(Kind.KILLED, "was killed by SIGKILL", signal="SIGKILL")),
    Row("GPU memory", RAN_1, End.GPU_OUT_OF_MEMORY, ["Tesla T4", "15 GB", "smaller batches"], {**failure(Kind.RAISED, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB"), "usage": Usage(gpus=({"name": "Tesla T4", "memory_bytes": 15 * GIB, "peak_memory_bytes": GIB},))}),
    Row("disk full in the electron", RAN_1, End.DISK_FULL, ["DiskSizeGib", "Errno 28"], failure(Kind.RAISED, "OSError: [Errno 28] No space left on device: 'x'")),
    Row("disk full while fetching", RAN_1, End.DISK_FULL, ["DiskSizeGib"], failure(Kind.FETCH, "[Errno 28] No space left on device")),
    Row("sigterm by the time limit", job(TIMEOUT, exit_code=143), End.TIME_LIMIT, ["300 s", "time_limit=600"], failure(Kind.TERMINATED)),
    Row("sigterm by another", job("cleaning up", exit_code=143, isTerminated=True), End.STOPPED_BY_ANOTHER, ["somebody else", "cleaning up", "CloudTrail"], failure(Kind.TERMINATED)),
    Row("sigterm by us", job("Cancelled in Covalent (dispatch d)", exit_code=143, isTerminated=True), End.CANCELLED, [], failure(Kind.TERMINATED)),
    Row("sigterm with its items", job("Stopped with its items (cirro stop, by ada on lab)", exit_code=143, isTerminated=True), End.ITEMS_STOPPED, ["with `cirro stop`, by ada on lab", "Dispatch again"], failure(Kind.TERMINATED)),
    Row("sigterm by a host that goes", job(HOST), End.HOST_LOST, ["Spot"], failure(Kind.TERMINATED)),
    Row("sigterm by Fargate Spot", job(SPOT_TASK, exit_code=143), End.HOST_LOST, ["1 time", "Spot"], failure(Kind.TERMINATED)),
    Row("Fargate Spot, killed before its outcome", job(SPOT_TASK, exit_code=137), End.HOST_LOST, ["1 time", "Spot"]),
    Row("sigterm after the Spot notice", job(EXITED, exit_code=75), End.HOST_LOST, ["1 time", "Spot"], failure(Kind.TERMINATED)),
    Row("sigterm by nobody", job(EXITED, exit_code=143), End.STOPPED, ["SIGTERM", "Dispatch it again"], failure(Kind.TERMINATED)),
    Row("result changed in S3", job("", exit_code=0, status="SUCCEEDED"), End.RESULT_UNREADABLE, ["digest"], {"attempt": 1, "usage": Usage(), "problem": "the digest is another"}),
    Row("returned", job("", exit_code=0, status="SUCCEEDED"), End.SUCCEEDED, [], {"attempt": 1, "usage": Usage()}),
    # --- AWS says it: every row of section 1.3 of the facts, and more ---
    Row("container exited", job(EXITED, exit_code=5), End.CONTAINER_ENDED, ["exit code 5", "docker run"]),
    Row("container ended, nobody says how", job("What nobody has seen yet", ran=True), End.CONTAINER_ENDED, ["What nobody has seen yet"]),
    Row("exited 0 without an outcome", job(EXITED, exit_code=0, status="SUCCEEDED"), End.NO_OUTCOME, ["ENTRYPOINT"]),
    Row("cgroup OOM", job(EXITED, "OutOfMemoryError: Container killed due to memory usage", 137), End.OUT_OF_MEMORY, ["4 GB", "memory=8"]),
    Row("SIGKILL without OOM", job(EXITED, exit_code=137), End.KILLED, ["SIGKILL", "memory=8"]),
    Row("segfault of the container", job(EXITED, exit_code=139), End.KILLED, ["SIGSEGV"]),
    Row("image not found", pull("Error response from daemon: manifest for repo/img:1 not found: manifest unknown: Requested image not found"), End.IMAGE_NOT_FOUND, ["repo/img:1", "cirro image push"]),
    Row("repository not found", pull("Error response from daemon: name unknown: The repository with name 'img' does not exist in the registry with id '1'"), End.IMAGE_NOT_FOUND, ["repo/img:1"]),
    Row("manifest error", pull("failed to resolve ref repo/img:1: not found", "CannotPullImageManifestError"), End.IMAGE_NOT_FOUND, ["repo/img:1"]),
    Row("pull denied", pull("Error response from daemon: pull access denied for img, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"), End.IMAGE_DENIED, ["exec-role", "ecr:BatchGetImage"]),
    Row("pull unauthorized", pull("Error response from daemon: unauthorized: authentication required"), End.IMAGE_DENIED, ["exec-role"]),
    Row("ECR denied", pull("AccessDeniedException: User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ecr:GetAuthorizationToken", "CannotPullECRContainerError"), End.IMAGE_DENIED, ["exec-role"]),
    Row("no credentials", pull("Error response from daemon: Head https://1.dkr.ecr.us-east-1.amazonaws.com/v2/x: no basic auth credentials"), End.IMAGE_DENIED, ["exec-role"]),
    Row("pull timeout", pull("Error response from daemon: Get https://registry/v2/: net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"), End.IMAGE_UNREACHABLE, ["Dispatch it again"]),
    Row("pull rate", pull("Error response from daemon: toomanyrequests: You have reached your pull rate limit."), End.IMAGE_UNREACHABLE, ["ECR"]),
    Row("registry broken", pull("Error response from daemon: received unexpected HTTP status: 503 Service Unavailable"), End.IMAGE_UNREACHABLE, ["registry"]),
    Row("no route", pull("Error response from daemon: Get https://x/v2/: dial tcp: lookup x: no such host"), End.IMAGE_UNREACHABLE, ["subnets"]),
    Row("disk full in the pull", pull("write /var/lib/docker/tmp/GetImageBlob1: no space left on device"), End.DISK_FULL, ["DiskSizeGib"]),
    Row("no manifest for the processor", pull("no matching manifest for linux/arm64/v8 in the manifest list entries"), End.IMAGE_ARCHITECTURE, ["--platform"]),
    Row("pull, nobody says why", pull("something new"), End.IMAGE_PULL, ["repo/img:1", "something new"]),
    Row("exec format", job(NOT_STARTED, "CannotStartContainerError: Error response from daemon: OCI runtime create failed: exec: exec format error"), End.IMAGE_ARCHITECTURE, ["--platform"]),
    Row("exec format, in the log only", job(EXITED, exit_code=255), End.IMAGE_ARCHITECTURE, ["--platform"], {"log": "exec /usr/local/bin/python: exec format error"}),
    Row("docker slow", job(NOT_STARTED, "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s"), End.DOCKER_TIMEOUT, ["too slow"]),
    Row("cannot create", job(NOT_STARTED, "CannotCreateContainerError: Error response from daemon: no command specified"), End.START_FAILED, ["no command specified"]),
    Row("cannot start", job(NOT_STARTED, "CannotStartContainerError: Error response from daemon: mount denied", 128), End.START_FAILED, ["mount denied"]),
    Row("cannot inspect", job(NOT_STARTED, "CannotInspectContainerError: Could not transition to inspecting"), End.START_FAILED, ["Cannot"]),
    Row("failed to start, no more", job(NOT_STARTED), End.START_FAILED, [NOT_STARTED]),
    Row("volume on an instance", job(NOT_STARTED, "CannotCreateVolumeError: Error response from daemon: create ecs-cirro-1-shared-a1b2: VolumeDriver.Create: mounting volume failed: Mount attempt 1/3 failed due to timeout"), End.VOLUME, ["a volume of it could not be mounted.", "cirro doctor", "mounting volume failed"]),
    Row("volume on Fargate", job("ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes: stderr: Failed to resolve fs-1.efs.eu-west-1.amazonaws.com"), End.VOLUME, ["security groups"]),
    Row("no python", job(NOT_STARTED, 'CannotStartContainerError: exec: "python": executable file not found in $PATH'), End.IMAGE_WITHOUT_RUNNER, ["pip install"]),
    Row("no python, by exit code", job(EXITED, exit_code=127), End.IMAGE_WITHOUT_RUNNER, ["pip install"]),
    Row("no runner", job(EXITED, exit_code=1), End.IMAGE_WITHOUT_RUNNER, ["pip install"], {"log": "/usr/local/bin/python: Error while finding module specification for 'covalent_cirro.runner' (ModuleNotFoundError: No module named 'covalent_cirro')"}),
    Row("no disk for the container", job(NOT_STARTED, "CannotCreateContainerError: mkdir /var/lib/docker/overlay2/x: no space left on device"), End.DISK_FULL, ["DiskSizeGib"]),
    Row("disk full, in the log only", job(EXITED, exit_code=1), End.DISK_FULL, ["DiskSizeGib"], {"log": "OSError: [Errno 28] No space left on device: '/tmp/cirro'"}),
    Row("log group", job(NOT_STARTED, "CannotStartContainerError: failed to initialize logging driver: failed to create Cloudwatch log stream: ResourceNotFoundException"), End.LOG_GROUP, ["batch_job_log_group_name='jobs'", "exec-role"]),
    Row("role", job("ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task."), End.ROLE, ["batch_job_role_name='job-role'", "ecs-tasks"]),
    Row("secret not there", job("Fetching secret data from AWS Secrets Manager in region eu-west-1: secret arn:aws:secretsmanager:eu-west-1:1:secret:x: ResourceNotFoundException: Secrets Manager can't find the specified secret."), End.SECRET_UNREADABLE, ["secret:x", "create-secret", "can't find"]),
    Row("parameter not there", job(NOT_STARTED, "Fetching secret data from SSM Parameter Store in eu-west-1: invalid parameters: /team/key"), End.SECRET_UNREADABLE, ["put-parameter", "invalid parameters: /team/key"]),
    Row("secret denied", job("Fetching secret data from SSM Parameter Store in eu-west-1: AccessDeniedException: User: x is not authorized to perform: ssm:GetParameters"), End.SECRET_UNREADABLE, ["exec-role", "--parameter SecretArns="]),
    Row("secret denied on Fargate", job("ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret arn from secrets manager: AccessDeniedException: x"), End.SECRET_UNREADABLE, ["SecretArns"]),
    Row("secret's KMS key denied", job("Fetching secret data from AWS Secrets Manager in region x: secret y: AccessDeniedException: Access to KMS is not allowed status code: 400"), End.SECRET_UNREADABLE, ["KMS key"]),
    Row("secret without its key", job("Fetching secret data from AWS Secrets Manager in region x: retrieved secret from Secrets Manager did not contain json key pasword"), End.SECRET_UNREADABLE, ["Name a key", "json key pasword"]),
    Row("secret without its version", job(f"Fetching secret data from AWS Secrets Manager in region eu-west-1: secret {SECRET_ARN}: {NO_SUCH_VERSION}"), End.SECRET_UNREADABLE, [f"a secret of it: secret {SECRET_ARN}: {NO_SUCH_VERSION}.", "Name a version that the secret has"]),
    Row("secret with a long name", job(f"Fetching secret data from AWS Secrets Manager in region eu-west-1: secret {SECRET_ARN.replace('db', 15 * 'data/')}: {NO_SUCH_VERSION}"), End.SECRET_UNREADABLE, [f"a secret of it: secret team/{15 * 'data/'}-AbC123: ResourceNotFound"]),
    Row("secret denied in whole", job(f"Fetching secret data from AWS Secrets Manager in region eu-west-1: secret {SECRET_ARN}: AccessDeniedException: User: arn:aws:sts::123456789012:assumed-role/cirro-roles-ExecutionRole-1A2B3C4D5E6F/0123456789abcdef is not authorized to perform: secretsmanager:GetSecretValue on resource: {SECRET_ARN} because no identity-based policy allows the secretsmanager:GetSecretValue action status code: 400, request id: 01234567-89ab"), End.SECRET_UNREADABLE, [f"secret {SECRET_ARN}: AccessDeniedException: not authorized to perform: secretsmanager:GetSecretValue.", "SecretArns"]),
    Row("secrets out of reach", job("ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secrets from ssm: service call has been retried 5 time(s): RequestCanceled: request context canceled caused by: context deadline exceeded"), End.SECRET_UNREADABLE, ["interface endpoints"]),
    Row("registry out of reach on Fargate", job("ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve ecr registry auth: service call has been retried 3 time(s)"), End.NEVER_RAN, ["ecr registry auth"]),
    Row("host lost", job(HOST), End.HOST_LOST, ["1 time", "retry_attempts=6", "on-demand", "batch_queue="]),
    Row("agent lost", job("", "AGENT"), End.AGENT_LOST, ["ECS agent"]),
    Row("timeout", job(TIMEOUT, exit_code=137), End.TIME_LIMIT, ["300 s", "time_limit=600"]),
    Row("timeout without an exit code", job(TIMEOUT, ran=True), End.TIME_LIMIT, ["time_limit=600"]),
    Row("TerminateJob by another", job("operator: stop it", exit_code=143, isTerminated=True), End.STOPPED_BY_ANOTHER, ["operator: stop it"]),
    Row("CancelJob by another", queued("not needed", isCancelled=True), End.STOPPED_BY_ANOTHER, ["not needed"]),
    Row("stopped with its items before it ran", queued("Stopped with its items (cirro stop, by ada on lab)", isTerminated=True), End.ITEMS_STOPPED, ["by ada on lab"]),
    Row("cancel by us", queued("Cancelled in Covalent (dispatch d)", isTerminated=True), End.CANCELLED, []),
    Row("queue's time limit", queued("Canceled by JobStateTimeLimit action due to reason: CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", isCancelled=True), End.STOPPED_BY_QUEUE, ["CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", "RunnableTimeLimitMinutes"]),
    Row("overrides", queued("Container Overrides length must be at most 8192"), End.OVERRIDES_TOO_LONG, ["s3_prefix"]),
    Row("dependency", queued("Dependent Job failed"), End.DEPENDENCY_FAILED, ["depends on"]),
    Row("array child", queued("Array Child Job failed"), End.CHILD_FAILED, ["cirro show", "jobs that failed"]),
    Row("tags", queued("InvalidParameterException: Tags can not have more than 50 elements"), End.TOO_MANY_TAGS, ["50"]),
    Row("definition deregistered", queued("JobDefinition arn:aws:batch:us-east-1:1:job-definition/x:1 is not ACTIVE"), End.DEFINITION_GONE, ["registered"]),
    Row("stopped before it could tell", job(EXITED, exit_code=143), End.STOPPED, ["SIGTERM"]),
    Row("call not readable", job(EXITED, exit_code=64), End.CALL_UNREADABLE, ["job-role", "bucket"]),
    Row("outcome not stored", job(EXITED, exit_code=67), End.OUTCOME_NOT_STORED, ["job-role", "bucket"]),
    Row("forgotten after days", None, End.LOST, ["7 days", "account, region and endpoint"]),
    Row("never ran, in words that nobody has seen", queued("Something that AWS says since yesterday"), End.NEVER_RAN, ["Something that AWS says since yesterday", "cirro doctor"]),
    Row("never ran, in no words", queued(""), End.NEVER_RAN, ["no reason"]),
]  # fmt: skip


def evidence_of(row: Row) -> Evidence:
    """The evidence of a row."""
    return Evidence(None if row.job is None else parse_job(row.job), **row.more)


def told(row: Row) -> Explanation:
    """What is told of a row."""
    return explain(evidence_of(row), SETTINGS, "train", 3, PLACE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_end_has_its_class_and_is_told_with_what_to_do(row: Row) -> None:
    """By its evidence; with AWS's words verbatim, electron, job, links, and the figure to set."""
    seen = told(row)
    assert (end_of(evidence_of(row)), seen.end) == (row.end, row.end)
    first, _, rest = seen.text.partition("\n")
    assert "'train' (node 3)" in first
    if row.end not in (End.RAISED, End.SUCCEEDED, End.CANCELLED):
        assert rest.startswith("To do: ")
    for words in (*row.says, "https://console/job", "https://console/log"):
        assert words in seen.text
    if row.job is not None:
        for words in ("job-1", row.job["statusReason"], row.job.get("container", {}).get("reason", "")):
            assert words.rstrip(".") in seen.text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_explanation_is_short_and_has_no_loose_ends(row: Row) -> None:
    """It is read in a narrow panel: its first line says it, no place is left open, no sentence ends twice."""
    seen = told(row)
    assert len(seen.what) <= 320
    assert len(seen.next_step) <= 320
    said = f"{seen.what}\n{seen.next_step}\n"
    for broken in ("{", "}", "None", "unknown", ". .", "..\n", ":.", "  "):
        assert broken not in said.replace("=...", ""), seen.text


@pytest.mark.parametrize("name", ["pull denied", "pull, nobody says why", "log group"])
def test_the_role_that_counts_is_named(name: str) -> None:
    """With an execution role the instances' role may do what it likes: it is never asked."""
    [row] = [row for row in ROWS if row.name == name]
    with_one = explain(evidence_of(row), SETTINGS, "train", 3, PLACE).next_step
    assert "the execution role exec-role" in with_one
    assert "or the instances' role" not in with_one
    without = explain(
        evidence_of(row), dataclasses.replace(SETTINGS, batch_execution_role_name=""), "train", 3, PLACE
    ).next_step
    assert "the instances' role (no batch_execution_role_name is set)" in without
    assert "the execution role" not in without


def test_every_class_has_a_row() -> None:
    """No class is named that nothing leads to, and no kind of failure is without a class."""
    assert {row.end for row in ROWS} == set(End)
    kinds = {row.more["failure"].kind for row in ROWS if "failure" in row.more}
    assert kinds == KINDS


def test_the_later_attempt_counts_which_left_no_outcome() -> None:
    """The first attempt was stopped and wrote so; the second lost its host: that is how the job ended."""
    detail = parse_job(job(HOST, attempts=[job(EXITED, exit_code=143)["attempts"][0], job(HOST)["attempts"][0]]))
    evidence = Evidence(detail, Failure(Kind.TERMINATED, "stopped by SIGTERM"), Usage(), attempt=1)
    assert evidence.is_outdated
    seen = explain(evidence, SETTINGS, "train", 3, PLACE)
    assert seen.end == End.HOST_LOST
    assert "Attempt 1 had ended with: stopped by SIGTERM" in seen.text
    assert f"attempt 1: {EXITED}; exit code 143; attempt 2: {HOST.rstrip('.')}" in seen.text


def test_lost_hosts_are_counted_and_told() -> None:
    """Three of three attempts."""
    detail = parse_job(job(HOST, attempts=job(HOST)["attempts"] * 3, retryStrategy={"attempts": 3}))
    assert lost_hosts(detail) == 3
    text = explain(Evidence(detail), SETTINGS, "train", 3, PLACE).text
    assert "lost its host 3 times" in text
    assert "attempt 3 of 3" in text


def test_who_has_all_attempts_that_aws_gives_is_not_told_to_ask_for_more() -> None:
    """Ten is the most."""
    detail = parse_job(job(HOST, retryStrategy={"attempts": 10}))
    assert "Use a queue of on-demand" in explain(Evidence(detail), SETTINGS, "train", 3, PLACE).next_step


@pytest.mark.parametrize(("attempts", "advice"), [(3, "Set retry_attempts=6: each"), (10, "Dispatch it again: each")])
@pytest.mark.parametrize("by", ["settings", "job", "node"])
def test_who_lost_machines_of_several_is_not_sent_to_an_on_demand_queue(attempts: int, advice: str, by: str) -> None:
    """Machines of a multi-node job are on demand already. Commands know that by what AWS Batch says of the job."""
    several = dataclasses.replace(SETTINGS, num_nodes=4) if by == "settings" else SETTINGS
    more = {"job": {"nodeProperties": {"numNodes": 4}}, "node": {"jobId": "j1#3"}}.get(by, {})
    detail = parse_job(job(HOST, retryStrategy={"attempts": attempts}, **more))
    step = explain(Evidence(detail), several, "train", 3, PLACE).next_step
    assert step == f"{advice} lost machine costs an attempt of all machines of the job; checkpoints are kept."


def test_advice_for_fargate_is_for_jobs_that_ran_there() -> None:
    """Also in commands, which know no more of the electron's settings than AWS Batch does."""
    there = parse_job(job(HOST, platformCapabilities=["FARGATE"]))
    step = explain(Evidence(there), SETTINGS, "train", 3, PLACE).next_step
    assert (
        "Fargate without Spot (`cirro deploy --parameter FargateSpotMaxVcpus=0 --parameter FargateMaxVcpus=64`)" in step
    )
    elsewhere = dataclasses.replace(SETTINGS, platform="FARGATE")
    here = parse_job(job(HOST, platformCapabilities=["EC2"]))
    assert "Fargate" not in explain(Evidence(here), elsewhere, "train", 3, PLACE).next_step


def test_of_many_attempts_the_last_ones_are_told() -> None:
    """The text stays short."""
    words = awss_words(parse_job(job(HOST, attempts=job(HOST)["attempts"] * 10)))
    assert "attempt 10" in words
    assert "attempt 6" not in words


def test_what_the_job_was_given_counts_before_what_the_executor_says() -> None:
    """A job that was submitted again with more memory is told with what it had."""
    more = {"container": {**RAN_1["container"], "resourceRequirements": [{"type": "MEMORY", "value": "16384"}]}}
    evidence = Evidence(parse_job({**RAN_1, **more}), Failure(Kind.OUT_OF_MEMORY, ""), Usage(), attempt=1)
    seen = explain(evidence, SETTINGS, "train", 3, PLACE)
    assert "16 GB" in seen.what
    assert "memory=32" in seen.next_step


def test_an_end_is_stored_by_its_name() -> None:
    """The value is the name in small letters, and gives the class back."""
    assert [End(end.value) for end in End] == list(End)
    assert end_of_job(None).value == "lost"


@pytest.mark.parametrize(
    ("asked", "reached", "next_gb"),
    [(4, None, 8), (0.5, int(0.49 * GIB), 1), (1.1, None, 2.5), (4, 6 * GIB, 12), (0.125, None, 0.5)],
)
def test_the_memory_to_ask_for_is_twice_what_was_reached(asked: float, reached: int | None, next_gb: float) -> None:
    """In steps of half a GB, upwards."""
    assert memory_to_ask_gb(asked, reached) == next_gb


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "eu-west-1", "eu-west-1.console.aws.amazon.com"),
        ("aws-cn", "cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("aws-us-gov", "us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
        ("aws-eusc", "eusc-de-east-1", "eusc-de-east-1.console.amazonaws-eusc.eu"),
    ],
)
def test_links_lead_to_the_console_of_the_regions_partition(partition: str, region: str, host: str) -> None:
    """The job's page, and the stream's, whose names are encoded twice."""
    assert partition_of(region) == partition
    assert job_url(partition, region, "1234-ab") == f"https://{host}/batch/home?region={region}#jobs/detail/1234-ab"
    assert log_url(partition, region, "/aws/batch/job", "cirro/default/0f [$é") == (
        f"https://{host}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/$252Faws$252Fbatch$252Fjob"
        "/log-events/cirro$252Fdefault$252F0f$2520$255B$2524$25C3$25A9"
    )


def test_the_link_of_an_arrays_child_is_its_parents() -> None:
    """The console lists the children there."""
    assert job_url("aws", "us-east-1", "1234:7").endswith("#jobs/detail/1234")


def test_there_is_no_link_where_there_is_no_console() -> None:
    """In an isolated partition, and of a job that never had a log."""
    assert job_url(partition_of("us-iso-east-1"), "us-iso-east-1", "1234") == ""
    assert log_url("aws-iso", "us-iso-east-1", "group", "stream") == ""
    assert log_url("aws", "us-east-1", "group", "") == ""


@pytest.mark.parametrize(
    ("endpoint", "ours"),
    [
        ("https://batch.us-east-1.amazonaws.com", True),
        ("https://logs.cn-north-1.amazonaws.com.cn", True),
        ("https://batch.us-east-1.api.aws/", True),
        ("https://vpce-1-2.logs.us-east-1.vpce.amazonaws.com:443", True),
        ("https://batch.eusc-de-east-1.amazonaws.eu", True),
        ("http://127.0.0.1:5000", False),
        ("http://localhost:4566", False),
        ("https://amazonaws.com.example.org", False),
        ("https://example.org/amazonaws.com", False),
        ("", False),
    ],
)
def test_an_emulator_is_told_from_aws_by_its_endpoint(endpoint: str, ours: bool) -> None:
    """It has no console."""
    assert is_aws(endpoint) is ours


def test_an_electron_whose_job_aws_forgot_still_has_its_outcome_told() -> None:
    """A server that was away for longer than AWS Batch keeps jobs."""
    row = Row("", {"jobId": "job-1"}, End.RAISED, [], failure(Kind.RAISED, "ValueError: no"))
    assert told(row).end == End.RAISED
    assert "AWS Batch job job-1 in queue cpus\nAWS says: nothing of its end" in told(row).text
    stopped = Row("", {"jobId": "job-1"}, End.STOPPED, [], failure(Kind.TERMINATED))
    assert told(stopped).end == End.STOPPED
