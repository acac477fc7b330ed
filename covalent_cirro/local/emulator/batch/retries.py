"""What the end of an attempt means for its job: AWS Batch's retry strategies. Pure.

Only the end of the attempt, a stop of the job and its strategy decide. It must not know hosts or time.
"""

from __future__ import annotations

from covalent_cirro.local.emulator.batch.model import FAILED, RUNNABLE, SUCCEEDED, Attempt, Job, Json

TIMED_OUT = "Job attempt duration exceeded timeout"


def outcome(job: Job, attempt: Attempt) -> tuple[str, str | None]:
    """The state of a job after an attempt, RUNNABLE where another one follows, and the reason.

    The job has several nodes where ``attempt`` is that of its main node; it may have been terminated after that ended.
    """
    if attempt.stopping == "terminate" or (job.nodes and job.stop_reason is not None):
        return FAILED, job.stop_reason
    if attempt.stopping == "timeout":
        return FAILED, TIMED_OUT
    if attempt.exit_code == 0:
        return SUCCEEDED, attempt.status_reason
    return RUNNABLE if wants_retry(job.retry, attempt) else FAILED, attempt.status_reason


def matches(pattern: str, value: str | None) -> bool:
    """Whether a pattern of ``evaluateOnExit`` matches: the whole value, or its beginning before a final ``*``.

    An absent value is matched by ``*`` only.
    """
    if pattern.endswith("*"):
        return (value or "").startswith(pattern[:-1]) if pattern != "*" else True
    return pattern == value


def wants_retry(retry: Json, attempt: Attempt) -> bool:
    """Whether the job's retry strategy gives it another attempt.

    The first entry of ``evaluateOnExit`` whose every condition matches decides; with no match the job is retried
    (API model, RetryStrategy).
    """
    if attempt.number >= int(retry.get("attempts", 1)):
        return False
    exit_code = None if attempt.exit_code is None else str(attempt.exit_code)
    for entry in retry.get("evaluateOnExit", []):
        conditions = (
            ("onStatusReason", attempt.status_reason),
            ("onReason", attempt.reason),
            ("onExitCode", exit_code),
        )
        if all(key not in entry or matches(entry[key], value) for key, value in conditions):
            return str(entry["action"]).upper() == "RETRY"
    return True
