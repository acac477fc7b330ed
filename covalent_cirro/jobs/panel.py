"""What an electron's panel in the Covalent UI shows of its job, while the job goes on and after it. Pure.

While a ``problem`` prevents the server from seeing the job, there are no other lines. The lines are put before the
executor's attributes, of which the UI shows the first 200 characters, one attribute a line; `view.describe_jobs` makes
the UI show all of them as the electron's description.
"""

from __future__ import annotations

from covalent_cirro.contract import texts
from covalent_cirro.jobs import arguments, compute_nodes, console_links, image_modules, map_progress
from covalent_cirro.jobs.formatting import moment_utc
from covalent_cirro.jobs.states import JobDetail, JobState

PROBLEM = "problem"
"""Name of the line that says why the job cannot be seen."""

KEYS = (
    PROBLEM,
    "job",
    "state",
    "jobs",
    "nodes",
    "items",
    "reported",
    "warning",
    "attempt",
    "waits_for",
    "called_with",
    "not_reused",
    "raised",
    "tried",
    "last_attempt",
    "log",
    "log_link",
    "job_link",
)
"""Names of the lines, in their order. No option of the executor may have one of these names."""

_WAITS_FOR = {
    JobState.SUBMITTED.value: "AWS Batch to look at it",
    JobState.PENDING.value: "the jobs that it depends on",
    JobState.RUNNABLE.value: "a machine; one that has to be started takes 2 to 5 minutes",
    JobState.STARTING.value: "its machine to pull the image and start the container",
}


ON_FARGATE = "FARGATE"


def _usually(detail: JobDetail) -> str:
    """What a job in its state waits for, while nothing is known of its queue."""
    if detail.platform == ON_FARGATE and detail.state == JobState.RUNNABLE.value:
        return "Fargate; it takes about a minute"
    return _WAITS_FOR.get(detail.state, "")


def lines(
    detail: JobDetail,
    since: float,
    *,
    partition: str,
    region: str,
    waits_for: str = "",
    tried: str = "",
    items: str = "",
    reported: str = "",
) -> dict[str, str]:
    """The lines of a job by name; lines without a value are left out.

    Args:
        detail: What AWS says of the job.
        since: Epoch seconds since when the job is in its state.
        partition, region: For links; empty where the AWS console does not show the account.
        waits_for: What the job waits for; empty where only its state is known.
        tried: Summary of earlier tries (`further_tries.summary`).
        items: How far a map is (`map_progress.items_line`).
        reported: What the electron has reported (`learning_curves.line`).
    """
    ended = detail.is_terminal
    finished = len(detail.attempts)
    number = max(1, min(finished if ended else finished + 1, max(detail.max_attempts, finished)))
    attempt = f"{number} of at most {detail.max_attempts}" if detail.max_attempts else str(number)
    last = detail.attempts[-1] if detail.attempts and not ended else None
    log = f"{detail.log_group}: {detail.log_stream}" if detail.log_stream else ""
    partition = console_links.partition_of(region)
    found = {
        PROBLEM: "",
        "job": f"{detail.job_id} in queue {detail.queue}",
        "state": f"{detail.state} since {moment_utc(since)}",
        "jobs": map_progress.jobs_line(detail),
        "nodes": compute_nodes.nodes_line(detail),
        "items": items,
        "reported": reported,
        "warning": image_modules.warning(detail.missing_modules) if detail.missing_modules and not ended else "",
        "attempt": "" if detail.array_size else attempt,
        "waits_for": "" if ended or detail.has_begun else waits_for or _usually(detail),
        "called_with": arguments.line(detail.arguments),
        "not_reused": detail.not_reused,
        "raised": detail.raised,
        "tried": tried,
        "last_attempt": (last.reason or last.status_reason) if last else "",
        "log": log,
        "log_link": console_links.log_url(partition, region, detail.log_group, detail.log_stream),
        "job_link": console_links.job_url(partition, region, detail.job_id),
    }
    return {key: texts.valid(found[key]) for key in KEYS if found[key]}
