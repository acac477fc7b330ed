"""How an electron's job ended: names of the kinds of ends, and pure functions that find the kind from the evidence.

AWS's texts are matched by their beginnings or by words that occur in no other text, never for equality. An end that
matches nothing is named by its facts (the container ended, or never ran). `explanations.py` says what users read about
an end; the caller decides what is done about it.

Sources: AWS Batch User Guide (Job states, Automated job retries, Job timeouts, Troubleshooting), ECS Developer Guide
(Stopped task errors), the ECS agent's ``errors.go``, and what users of Batch quote in their issues.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import ExitCode, Usage
from covalent_cirro.jobs.states import JobDetail, JobState, was_cancelled_by_us, was_stopped_with_its_items


class End(str, enum.Enum):
    """Kinds of ends. The values are stable: they are stored and shown."""

    SUCCEEDED = "succeeded"

    # Caused by the electron, or by the content of its container.
    RAISED = "raised"
    HOOK_FAILED = "hook_failed"
    EXITED = "exited"
    KILLED = "killed"
    UNPICKLABLE = "unpicklable"
    UNREADABLE = "unreadable"
    MISSING_MODULE = "missing_module"
    VERSIONS = "versions"
    NOT_RUN = "not_run"

    # The electron needed more than it had.
    OUT_OF_MEMORY = "out_of_memory"
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    SHARED_MEMORY_FULL = "shared_memory_full"
    DISK_FULL = "disk_full"
    TIME_LIMIT = "time_limit"

    # Machines.
    HOST_LOST = "host_lost"
    AGENT_LOST = "agent_lost"
    DOCKER_TIMEOUT = "docker_timeout"

    # The image.
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_DENIED = "image_denied"
    IMAGE_UNREACHABLE = "image_unreachable"
    IMAGE_ARCHITECTURE = "image_architecture"
    IMAGE_PULL = "image_pull"
    IMAGE_WITHOUT_RUNNER = "image_without_runner"

    # The deployment's settings.
    LOG_GROUP = "log_group"
    ROLE = "role"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105
    VOLUME = "volume"
    START_FAILED = "start_failed"
    DEFINITION_GONE = "definition_gone"
    OVERRIDES_TOO_LONG = "overrides_too_long"
    TOO_MANY_TAGS = "too_many_tags"
    DEPENDENCY_FAILED = "dependency_failed"
    CHILD_FAILED = "array_child_failed"

    # Somebody terminated the job.
    CANCELLED = "cancelled"
    ITEMS_STOPPED = "items_stopped"
    STOPPED_BY_ANOTHER = "stopped_by_another"
    STOPPED_BY_QUEUE = "stopped_by_queue"
    STOPPED = "stopped"

    # Between S3, the runner and us.
    CALL_UNREADABLE = "call_unreadable"
    BLOB_LOST = "blob_lost"
    RESULT_UNREADABLE = "result_unreadable"
    OUTCOME_NOT_STORED = "outcome_not_stored"
    NO_OUTCOME = "no_outcome"
    NODES_APART = "nodes_apart"
    RUNNER_BROKE = "runner_broke"
    LOST = "lost"

    # AWS gave no reason that is known here.
    CONTAINER_ENDED = "container_ended"
    NEVER_RAN = "never_ran"


class Evidence(NamedTuple):
    """All that is known of how one electron ended.

    Attributes:
        detail: The job as AWS Batch describes it; `None` if AWS Batch does not know it any more.
        failure: The electron's failure in the outcome; `None` without an outcome, or if the electron returned.
        usage: The usage in the outcome; `None` without an outcome.
        attempt: The attempt that wrote the outcome, from 1; 0 without an outcome.
        log: The end of the log.
        problem: Why the electron's result could not be read; empty if it could.
        job_id: Id of a job that AWS Batch does not know any more.
    """

    detail: JobDetail | None
    failure: Failure | None = None
    usage: Usage | None = None
    attempt: int = 0
    log: str = ""
    problem: str = ""
    job_id: str = ""

    @property
    def is_outdated(self) -> bool:
        """Whether a later attempt failed without an outcome, so that ``failure`` is not how the job ended."""
        detail = self.detail
        return (
            self.failure is not None
            and detail is not None
            and detail.state == JobState.FAILED.value
            and self.attempt < len(detail.attempts)
        )

    @property
    def oom_kills(self) -> int:
        """Processes in the container that the kernel killed because memory was full; 0 where that is unknown."""
        return (self.usage.oom_kills or 0) if self.usage is not None else 0


def end_of(evidence: Evidence) -> End:
    """The kind of an end."""
    if evidence.problem:
        return End.RESULT_UNREADABLE
    if evidence.failure is not None and not evidence.is_outdated:
        return _of_failure(evidence.failure, evidence)
    if evidence.attempt and evidence.failure is None:
        return End.SUCCEEDED
    return end_of_job(evidence.detail, evidence.log)


# --- from the outcome -----------------------------------------------------------------------------------------------

_OF_KIND = {
    Kind.RAISED: End.RAISED,
    Kind.ITEMS: End.RAISED,
    Kind.HOOK: End.HOOK_FAILED,
    Kind.EXITED: End.EXITED,
    Kind.KILLED: End.KILLED,
    Kind.OUT_OF_MEMORY: End.OUT_OF_MEMORY,
    Kind.UNPICKLABLE: End.UNPICKLABLE,
    Kind.MISSING_MODULE: End.MISSING_MODULE,
    Kind.UNREADABLE: End.UNREADABLE,
    Kind.VERSIONS: End.VERSIONS,
    Kind.FETCH: End.BLOB_LOST,
    Kind.NOT_RUN: End.NOT_RUN,
    Kind.ITEMS: End.RAISED,
    Kind.NODES: End.NODES_APART,
    Kind.RUNNER: End.RUNNER_BROKE,
}

_DISK_FULL = re.compile(r"\[Errno 28\]|no space left on device", re.IGNORECASE)  # errno(3): ENOSPC
_SHARED_MEMORY = re.compile(r"/dev/shm|out of shared memory|insufficient shared memory", re.IGNORECASE)  # noqa: S108
_GPU_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|HIP out of memory"
    r"|RESOURCE_EXHAUSTED: Out of memory",
    re.IGNORECASE,
)  # PyTorch, Numba and CuPy, PyTorch on AMD, JAX and TensorFlow


def _of_failure(failure: Failure, evidence: Evidence) -> End:
    detail = evidence.detail
    if failure.kind == Kind.TERMINATED:
        by = end_of_job(detail, evidence.log) if detail is not None else End.STOPPED
        return by if by in _SENDS_SIGTERM else End.STOPPED
    if failure.kind == Kind.NOT_RUN:
        return End.NOT_RUN
    said = f"{failure.message}\n{failure.traceback}"
    if failure.signal == "SIGBUS" or _SHARED_MEMORY.search(said):
        return End.SHARED_MEMORY_FULL
    if _DISK_FULL.search(said):
        return End.DISK_FULL
    if _GPU_MEMORY.search(said):
        return End.GPU_OUT_OF_MEMORY
    # The kernel may have killed a process that the electron started: the electron saw a broken pipe only.
    out_of_memory = evidence.oom_kills or (detail is not None and detail.reason.startswith(OUT_OF_MEMORY))
    if out_of_memory and failure.kind in (Kind.RAISED, Kind.HOOK, Kind.EXITED, Kind.KILLED):
        return End.OUT_OF_MEMORY
    return _OF_KIND[failure.kind]


_SENDS_SIGTERM = frozenset(
    {
        *(End.TIME_LIMIT, End.HOST_LOST),
        *(End.CANCELLED, End.ITEMS_STOPPED, End.STOPPED_BY_ANOTHER, End.STOPPED_BY_QUEUE),
    }
)

# --- from AWS Batch -------------------------------------------------------------------------------------------------

HOST_LOST = {"EC2": "Host EC2", "FARGATE": "Your Spot Task was interrupted"}
"""By platform, how the statusReason of an attempt begins whose machine went away: ``Host EC2 (instance i-...)
terminated.``, ``Your Spot Task was interrupted.``"""

TIMEOUT = "Job attempt duration exceeded timeout"
OUT_OF_MEMORY = "OutOfMemoryError"
START_FAILED = "Task failed to start"
STOPPED_BY_QUEUE = "Canceled by JobStateTimeLimit action"

SECRET_NOT_READ = re.compile(
    # The ECS agent of an instance (amazon-ecs-agent, asmsecret.go and ssmsecret.go); and Fargate, whose first words are
    # also those of a registry that it does not reach.
    r"fetching secret data from (?:AWS Secrets Manager|SSM Parameter Store)"
    r"|trying to retrieve secret with value"
    r"|ResourceInitializationError: unable to pull secrets or registry auth: .*\bretrieve secrets? from (?:asm|ssm)",
    re.IGNORECASE | re.DOTALL,
)
"""Beginnings of what ECS says of a secret that it could not read."""

_VOLUME = re.compile(
    r"CannotCreateVolumeError|ResourceInitializationError: failed to invoke EFS utils|.*\bmounting volume failed\b",
    re.DOTALL,
)
"""What ECS says of a volume that it could not mount, on instances and on Fargate (ECS Developer Guide, Stopped task
errors)."""

_BY_STATUS_REASON = (
    (SECRET_NOT_READ, End.SECRET_UNREADABLE),
    (_VOLUME, End.VOLUME),
    (re.compile(re.escape(STOPPED_BY_QUEUE)), End.STOPPED_BY_QUEUE),
    (re.compile(re.escape(TIMEOUT)), End.TIME_LIMIT),
    *((re.compile(re.escape(words)), End.HOST_LOST) for words in HOST_LOST.values()),
    (re.compile("Container Overrides length must be at most"), End.OVERRIDES_TOO_LONG),
    (re.compile("Dependent Job failed", re.IGNORECASE), End.DEPENDENCY_FAILED),
    (re.compile("Array Child Job failed", re.IGNORECASE), End.CHILD_FAILED),
    (re.compile(r".*\bassume the role\b", re.DOTALL), End.ROLE),
    (re.compile(r".*\bjob ?definition\b", re.DOTALL | re.IGNORECASE), End.DEFINITION_GONE),
    (re.compile(r".*\btags?\b", re.DOTALL | re.IGNORECASE), End.TOO_MANY_TAGS),
)
"""Beginnings of a statusReason; the first match counts. The texts of the last three are not documented."""

_BY_REASON = (
    (SECRET_NOT_READ, End.SECRET_UNREADABLE),
    (_VOLUME, End.VOLUME),
    (re.compile("OutOfMemoryError"), End.OUT_OF_MEMORY),
    (re.compile("AGENT"), End.AGENT_LOST),
    (re.compile("DockerTimeoutError"), End.DOCKER_TIMEOUT),
    (re.compile(r".*\blogging driver\b", re.DOTALL), End.LOG_GROUP),
    (re.compile(r".*exec format error", re.DOTALL), End.IMAGE_ARCHITECTURE),
    (re.compile(r"CannotPull\w+", re.DOTALL), End.IMAGE_PULL),
    (re.compile(r".*executable file not found", re.DOTALL), End.IMAGE_WITHOUT_RUNNER),
    (re.compile(r".*no space left on device", re.DOTALL | re.IGNORECASE), End.DISK_FULL),
)
"""Beginnings of a container's reason; the first match counts."""

_BY_PULL = (
    (_DISK_FULL, End.DISK_FULL),
    (
        re.compile(r"no matching manifest|does not match the specified platform|on this platform"),
        End.IMAGE_ARCHITECTURE,
    ),
    (
        re.compile(
            r"pull rate limit|toomanyrequests|i/o timeout|Client\.Timeout|context deadline exceeded"
            r"|TLS handshake timeout|connection (?:reset|refused)|request canceled|unexpected EOF|no such host"
            r"|network is unreachable"
            r"|\b50[0234]\b|Internal Server Error|Service Unavailable|Bad Gateway",
            re.IGNORECASE,
        ),
        End.IMAGE_UNREACHABLE,
    ),
    # Docker Hub answers "pull access denied ... repository does not exist or may require 'docker login'" for both.
    (
        re.compile(
            r"access denied|AccessDenied|not authorized|unauthorized|no basic auth credentials|\b40[13]\b|forbidden"
            r"|authentication required|denied:",
            re.IGNORECASE,
        ),
        End.IMAGE_DENIED,
    ),
    (
        re.compile(r"not found|manifest unknown|name unknown|does not exist|invalid reference", re.I),
        End.IMAGE_NOT_FOUND,
    ),
)
"""Texts after ``CannotPull...Error:``; the first match counts."""

_BY_LOG = (
    (re.compile(r"exec format error", re.IGNORECASE), End.IMAGE_ARCHITECTURE),
    (re.compile(r"No module named '?(?:covalent_cirro|awscrt|cloudpickle)"), End.IMAGE_WITHOUT_RUNNER),
    (_DISK_FULL, End.DISK_FULL),
)
"""Texts at the end of the log of a container that left no outcome."""

_BY_EXIT_CODE = {
    ExitCode.BAD_CALL: End.CALL_UNREADABLE,
    ExitCode.STORE: End.OUTCOME_NOT_STORED,
    ExitCode.TERMINATED: End.STOPPED,
    ExitCode.HOST_GOING: End.HOST_LOST,
    126: End.IMAGE_WITHOUT_RUNNER,  # docker-run(1): the command cannot be invoked
    127: End.IMAGE_WITHOUT_RUNNER,  # docker-run(1): the command cannot be found
}

_SIGNALLED = 128
"""A process that signal n killed has exit code 128 + n (bash(1), docker-run(1))."""


def end_of_job(detail: JobDetail | None, log: str = "") -> End:
    """The kind of an end, by what AWS Batch says of a job that left no outcome.

    Args:
        detail: The job, which has ended; `None` if AWS Batch does not know it.
        log: The end of its log; some ends show only there.
    """
    if detail is None:
        return End.LOST
    if detail.state == JobState.SUCCEEDED.value:
        return End.NO_OUTCOME
    if was_cancelled_by_us(detail):
        return End.CANCELLED
    if was_stopped_with_its_items(detail):
        return End.ITEMS_STOPPED
    if detail.terminated and not detail.status_reason.startswith((TIMEOUT, STOPPED_BY_QUEUE)):
        return End.STOPPED_BY_ANOTHER
    last = detail.attempts[-1] if detail.attempts else None
    reason = (last.reason if last is not None else "") or detail.reason
    found = _first(_BY_REASON, reason)
    if found == End.IMAGE_PULL:
        return next((end for pattern, end in _BY_PULL if pattern.search(reason)), End.IMAGE_PULL)
    if found is not None:
        return found
    for status_reason in (detail.status_reason, last.status_reason if last is not None else ""):
        found = _first(_BY_STATUS_REASON, status_reason)
        if found is not None:
            return found
    if reason.startswith("Cannot") or detail.status_reason.startswith(START_FAILED):
        return End.START_FAILED
    return _of_exit(detail, log)


def _of_exit(detail: JobDetail, log: str) -> End:
    code = detail.exit_code
    if code is None:
        return End.CONTAINER_ENDED if detail.log_stream else End.NEVER_RAN
    in_log = next((end for pattern, end in _BY_LOG if pattern.search(log)), None)
    if in_log is not None and code not in (ExitCode.BAD_CALL, ExitCode.STORE, ExitCode.TERMINATED, ExitCode.HOST_GOING):
        return in_log
    if code in _BY_EXIT_CODE:
        return _BY_EXIT_CODE[code]
    return End.KILLED if code > _SIGNALLED else End.CONTAINER_ENDED


def _first(table: tuple[tuple[re.Pattern[str], End], ...], text: str) -> End | None:
    return next((end for pattern, end in table if pattern.match(text)), None)


def is_host_lost(status_reason: str) -> bool:
    """Whether an attempt with this statusReason ended because its machine went away."""
    return status_reason.startswith(tuple(HOST_LOST.values()))


def lost_hosts(detail: JobDetail) -> int:
    """How many attempts of a job ended because their host went away or was about to go away."""
    return sum(
        is_host_lost(attempt.status_reason) or attempt.exit_code == ExitCode.HOST_GOING for attempt in detail.attempts
    )
