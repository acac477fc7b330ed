"""States of an AWS Batch job, and what its end means.

Rule 1: everything that says how a job ended is decided here, from what DescribeJobs said, by pure functions.
Rule 2: AWS's texts are matched by prefix, never for equality, and always passed on verbatim.
Rule 3: a state or a text that is not known here is not an error: it is passed on as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple


class JobState(str, enum.Enum):
    """AWS Batch's seven states (User Guide, Job states). States may be skipped between two looks."""

    SUBMITTED = "SUBMITTED"
    """In the queue, not yet seen by the scheduler."""
    PENDING = "PENDING"
    """Waits for a job it depends on; the parent of an array stays here while its children run."""
    RUNNABLE = "RUNNABLE"
    """Ready, waits for a machine. Can last for ever."""
    STARTING = "STARTING"
    """Has a machine; the image is pulled and the container made."""
    RUNNING = "RUNNING"
    """The container runs."""
    SUCCEEDED = "SUCCEEDED"
    """The container ended with exit code 0."""
    FAILED = "FAILED"
    """All attempts failed, or the job was cancelled or terminated."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job will not change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


CANCEL_REASON = "Cancelled in Covalent"
"""How the reason begins that we give to TerminateJob; DescribeJobs gives it back as the status reason."""

HOST_LOST = "Host EC2"
"""statusReason of an attempt whose instance went away: ``Host EC2 (instance i-...) terminated.``"""

TIMEOUT = "Job attempt duration exceeded timeout"
OUT_OF_MEMORY = "OutOfMemoryError"
START_FAILED = "Task failed to start"
OVERRIDES_TOO_LONG = "Container Overrides length must be at most"


class Attempt(NamedTuple):
    """One finished attempt. `None`: AWS did not say."""

    exit_code: int | None
    reason: str
    status_reason: str
    log_stream: str


class JobDetail(NamedTuple):
    """What DescribeJobs says of one job.

    Attributes:
        state: AWS's word; not always a `JobState`, should AWS add one.
        status_reason: Why it is in this state; empty where AWS gives none.
        exit_code: That of the latest container; `None` if none ended.
        reason: The latest container's reason, ``"OutOfMemoryError: ..."``.
        log_stream: CloudWatch stream of the latest container; empty before RUNNING.
        created_at, started_at, stopped_at: Epoch seconds; `None` where not reached.
        attempts: Finished attempts, oldest first.
        terminated: Somebody asked for its end.
    """

    job_id: str
    name: str
    state: str
    status_reason: str
    exit_code: int | None
    reason: str
    log_stream: str
    created_at: float | None
    started_at: float | None
    stopped_at: float | None
    attempts: tuple[Attempt, ...]
    terminated: bool

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended. An unknown state counts as not ended."""
        return self.state in (JobState.SUCCEEDED.value, JobState.FAILED.value)


def _seconds(milliseconds: object) -> float | None:
    # AWS sends 0 or nothing for a time that has not come.
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) and milliseconds else None


def parse_job(job: Mapping[str, Any]) -> JobDetail:
    """One entry of DescribeJobs' ``jobs``. Every member but the id may be missing."""
    container = job.get("container") or {}
    attempts = []
    for attempt in job.get("attempts") or ():
        of = attempt.get("container") or {}
        attempts.append(
            Attempt(
                exit_code=of.get("exitCode"),
                reason=of.get("reason") or "",
                status_reason=attempt.get("statusReason") or "",
                log_stream=of.get("logStreamName") or "",
            )
        )
    last = attempts[-1] if attempts else None
    return JobDetail(
        job_id=job["jobId"],
        name=job.get("jobName") or "",
        state=str(job.get("status") or ""),
        status_reason=job.get("statusReason") or "",
        exit_code=container.get("exitCode", last.exit_code if last else None),
        reason=container.get("reason") or (last.reason if last else ""),
        log_stream=container.get("logStreamName") or (last.log_stream if last else ""),
        created_at=_seconds(job.get("createdAt")),
        started_at=_seconds(job.get("startedAt")),
        stopped_at=_seconds(job.get("stoppedAt")),
        attempts=tuple(attempts),
        terminated=bool(job.get("isTerminated") or job.get("isCancelled")),
    )


def was_cancelled_by_us(detail: JobDetail) -> bool:
    """Whether the job ended because Covalent asked for it."""
    return detail.state == JobState.FAILED.value and detail.status_reason.startswith(CANCEL_REASON)


class Asked(NamedTuple):
    """What the job was given, for the figure to set next."""

    memory_gb: float
    time_limit_s: int
    attempts: int
    image: str
    log_group: str


def explain_failure(detail: JobDetail, asked: Asked) -> str:
    """Why a job failed that left no outcome, in AWS's words, and what to do. One paragraph, no log.

    The job's own outcome, where there is one, says more and goes first.
    """
    last = detail.attempts[-1] if detail.attempts else None
    status_reason = (last.status_reason if last else "") or detail.status_reason
    said = [part for part in (detail.status_reason, last.status_reason if last else "", detail.reason) if part]
    words = "; ".join(dict.fromkeys(part.rstrip(".") for part in said)) or "no reason"
    exit_code = "" if detail.exit_code is None else f", exit code {detail.exit_code}"
    what = _cause(detail, status_reason, asked)
    return f"{what} AWS Batch says: {words}{exit_code}."


def _cause(detail: JobDetail, status_reason: str, asked: Asked) -> str:
    attempts = f"{len(detail.attempts) or 1} attempt{'s' if len(detail.attempts) > 1 else ''}"
    if detail.reason.startswith(OUT_OF_MEMORY):
        return (
            f"Out of memory: the container used more than the {asked.memory_gb:g} GB it asked for. "
            f"Set memory={asked.memory_gb * 2:g} or more."
        )
    if detail.status_reason.startswith(TIMEOUT) or status_reason.startswith(TIMEOUT):
        return f"Time limit: the attempt ran longer than time_limit={asked.time_limit_s} s. Set a larger time_limit."
    if status_reason.startswith(HOST_LOST):
        return (
            f"The host was lost (a Spot instance reclaimed, or a machine that failed), {attempts}. "
            f"Set retry_attempts above {asked.attempts} (at most 10), or use a queue of on-demand instances."
        )
    if detail.reason.startswith(("CannotPull", "CannotInspect")) or "pull" in detail.reason.lower():
        return (
            f"The image could not be pulled: container_image_uri={asked.image!r}. Check that repository and tag exist, "
            "that the execution role may read them, and that the instances reach the registry."
        )
    if "exec format error" in detail.reason:
        return (
            f"The image is built for another processor: container_image_uri={asked.image!r}. Build it for the queue's "
            "architecture (docker build --platform)."
        )
    if detail.status_reason.startswith(OVERRIDES_TOO_LONG):
        return "The job's overrides are too long for ECS; this is a fault of covalent-cirro, please report it."
    if "logging driver" in detail.reason:
        return (
            f"The container was not started, because of its log: batch_job_log_group_name={asked.log_group!r}. It must "
            "exist in this region, and the execution role (or the instance's role) must be allowed to write to it."
        )
    if "assume the role" in detail.status_reason or "assume the role" in status_reason:
        return (
            "The container was not started, because of its role. Check batch_job_role_name and "
            "batch_execution_role_name: both must exist and trust ecs-tasks.amazonaws.com."
        )
    if status_reason.startswith(START_FAILED):
        return f"The container could not be started from container_image_uri={asked.image!r}."
    if detail.terminated and not detail.status_reason.startswith(CANCEL_REASON):
        return "The job was cancelled or terminated by somebody else, not from Covalent."
    if detail.exit_code is None and not detail.log_stream:
        return "The job ended before its container ran."
    if detail.exit_code == 137:
        return (
            f"The container was killed (SIGKILL) before it could tell why; running out of its {asked.memory_gb:g} GB "
            "of memory is the usual cause."
        )
    if detail.exit_code in (1, 2, 126, 127):
        return (
            f"The container ended before covalent-cirro's runner could tell why. Does the image "
            f"container_image_uri={asked.image!r} have `python`, covalent-cirro, cloudpickle and awscrt? "
            "To add them: RUN pip install --no-deps covalent-cirro && pip install cloudpickle awscrt."
        )
    return "The container ended before covalent-cirro's runner could tell why."
