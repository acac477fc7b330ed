"""What a user reads about an electron without a result: what happened, what to do, and where to look. Pure.

The most important line comes first. AWS's words are passed on verbatim. `ends.py` finds the kind of an end.
"""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.jobs import ends, secret_remedies
from covalent_cirro.jobs.ends import End, Evidence
from covalent_cirro.jobs.explanation_texts import TEXTS
from covalent_cirro.jobs.formatting import GIB, MIB, memory
from covalent_cirro.jobs.panel import ON_FARGATE
from covalent_cirro.jobs.states import JobDetail, cancelled_how
from covalent_cirro.settings import MAX_ATTEMPTS, MIB_PER_GB, Settings

ATTEMPTS_TOLD = 4
"""Attempts, the last ones, whose reasons are quoted."""


class Explanation(NamedTuple):
    """What a user reads about an end.

    Attributes:
        end: Kind of the end.
        what: What happened, with the electron's name.
        next_step: What to do, with the figure to set; empty where the traceback says all.
        text: The whole explanation.
    """

    end: End
    what: str
    next_step: str
    text: str


class JobLinks(NamedTuple):
    """Pages of the AWS console about a job.

    Attributes:
        job_url: URL of the job; empty where there is none.
        log_url: URL of the job's log; empty where there is none.
    """

    job_url: str = ""
    log_url: str = ""


def explain(evidence: Evidence, settings: Settings, name: str, node_id: int, place: JobLinks) -> Explanation:
    """Explain why an electron has no result.

    Args:
        evidence: What is known of the end.
        settings: The executor's settings, for what AWS does not say.
        name: Name of the electron; may be empty.
        node_id: Id of its node.
        place: Links to the AWS console.
    """
    end = ends.end_of(evidence)
    facts = _facts(evidence, settings, f"{name!r} (node {node_id})" if name else f"The electron of node {node_id}")
    what, next_step = (part.format(**facts).strip() for part in TEXTS[end])
    # What an electron raised when it was cancelled is not why it ended.
    cancelled = end in (End.CANCELLED, End.ITEMS_STOPPED)
    failure = evidence.failure if not evidence.is_outdated and not cancelled else None
    sections = [
        what if not next_step else f"{what}\nTo do: {next_step}",
        failure.traceback.rstrip() if failure is not None else "",
        f"The log ends with:\n{evidence.log.rstrip()}" if evidence.log.strip() else "",
        _where(evidence, settings, place),
    ]
    return Explanation(end, what, next_step, "\n\n".join(section for section in sections if section) + "\n")


def reached(evidence: Evidence) -> str:
    """How much memory a job had reached that ran out of memory: ``it had reached 508 MiB of 512 MiB``; else empty."""
    usage = evidence.usage
    if usage is None or not usage.peak_memory_bytes or ends.end_of(evidence) is not End.OUT_OF_MEMORY:
        return ""
    asked_mib = evidence.detail.memory_mib if evidence.detail is not None else 0
    limit_mib = asked_mib or (usage.memory_limit_bytes or 0) / MIB
    return f"it had reached {memory(usage.peak_memory_bytes / MIB)}" + (f" of {memory(limit_mib)}" if limit_mib else "")


def failure_words(evidence: Evidence) -> str:
    """What the runner says of a failure in the outcome; of one that ran out of memory, also what it had reached."""
    failure, said = evidence.failure, reached(evidence)
    if failure is None or not said:
        return "" if failure is None else failure.message
    # The runner does not always see who sent SIGKILL; AWS does.
    aws = evidence.detail.reason if evidence.detail is not None and failure.kind == Kind.KILLED else ""
    return f"{aws or failure.message} ({said})"


def memory_to_ask_gb(asked_gb: float, reached_bytes: int | None = None) -> float:
    """``memory`` in GB for the next try of an electron that ran out of memory: twice what it had or reached."""
    needed = max(asked_gb, (reached_bytes or 0) / GIB)
    return _half_gb_up(needed * 2)


def memory_left_to_ask_gb(asked_gb: float, reached_bytes: int | None, memory_max_gb: float | None) -> float | None:
    """As `memory_to_ask_gb`, up to ``memory_max``; `None` where that is reached already, or is unset."""
    if memory_max_gb is None or _has_all(asked_gb, memory_max_gb) or (reached_bytes or 0) / GIB >= memory_max_gb:
        return None
    return min(memory_max_gb, memory_to_ask_gb(asked_gb, reached_bytes))


def _has_all(memory_gb: float, memory_max_gb: float) -> bool:
    # In whole MiB, the unit of SubmitJob.
    return int(memory_gb * MIB_PER_GB) >= int(memory_max_gb * MIB_PER_GB)


def _half_gb_up(gb: float) -> float:
    return -(-gb * 2 // 1) / 2


def awss_words(detail: JobDetail | None) -> str:
    """State, reasons and exit code of a job in AWS's words; if there were several attempts, for each of them."""
    if detail is None:
        return "nothing: it keeps jobs that have ended for 7 days or a little longer"
    parts = [detail.state, detail.status_reason]
    if len(detail.attempts) > 1:
        first = max(0, len(detail.attempts) - ATTEMPTS_TOLD)
        for number, attempt in enumerate(detail.attempts[first:], first + 1):
            said = _joined([attempt.status_reason, attempt.reason, _exit_code(attempt.exit_code)])
            parts.append(f"attempt {number}: {said or 'no reason'}")
    else:
        parts += [attempt.status_reason for attempt in detail.attempts]
        parts += [detail.reason, _exit_code(detail.exit_code)]
    return _joined(parts)


def _joined(parts: list[str]) -> str:
    return "; ".join(dict.fromkeys(part.strip().rstrip(".") for part in parts if part.strip()))


def _exit_code(code: int | None) -> str:
    return "" if code is None else f"exit code {code}"


def _where(evidence: Evidence, settings: Settings, place: JobLinks) -> str:
    detail = evidence.detail
    group = (detail.log_group if detail is not None else "") or settings.batch_job_log_group_name
    stream = detail.log_stream if detail is not None else ""
    attempts = (
        f", attempt {len(detail.attempts)} of {detail.max_attempts}" if detail and detail.max_attempts > 1 else ""
    )
    lines = [
        f"AWS Batch job {detail.job_id if detail is not None else evidence.job_id or '(id not kept)'} in queue "
        f"{(detail.queue if detail is not None else '') or settings.queue}{attempts}"
        + (f", log {group}: {stream}" if stream else ""),
        f"AWS says: {awss_words(detail) or 'nothing of its end'}",
        f"Job: {place.job_url}" if place.job_url else "",
        f"Log: {place.log_url}" if place.log_url else "",
    ]
    if evidence.is_outdated and evidence.failure is not None:
        lines.append(f"Attempt {evidence.attempt} had ended with: {evidence.failure.message.rstrip('.')}")
    return "\n".join(line for line in lines if line)


def _facts(evidence: Evidence, settings: Settings, electron: str) -> dict[str, str]:
    """Values for the placeholders in `explanation_texts.TEXTS`."""
    detail = evidence.detail if evidence.detail is not None else JobDetail("")
    failure, usage = evidence.failure, evidence.usage
    memory_gb = detail.memory_mib / MIB_PER_GB if detail.memory_mib else settings.memory
    peak = usage.peak_memory_bytes if usage is not None else None
    next_memory = f"{memory_to_ask_gb(memory_gb, peak):g}"
    time_limit_s = detail.time_limit_s or settings.time_limit
    attempts = detail.max_attempts or settings.attempts
    lost = ends.lost_hosts(detail)
    ran_s = detail.stopped_at - detail.started_at if detail.stopped_at and detail.started_at else None
    signal = (failure.signal if failure is not None else "") or _signal(detail.exit_code)
    message = (failure.message if failure is not None else "") or evidence.problem
    exit_code = failure.exit_code if failure is not None and failure.exit_code is not None else detail.exit_code
    secret_words = secret_remedies.words(detail)
    gpu = next((gpu for gpu in usage.gpus if gpu.get("memory_bytes")), None) if usage is not None else None
    on_fargate = _on_fargate(detail, settings)
    return {
        "electron": electron,
        "memory": f"{round(memory_gb, 3):g} GB",
        "reached": f" (it had reached {peak / GIB:.2f} GB)" if peak else "",
        "next_memory": next_memory,
        "more_memory": _more_memory(memory_gb, peak, settings.memory_max, next_memory),
        "larger_disk": (
            'Set job_properties={"ephemeralStorage": {"sizeInGiB": 100}} on its executor (Fargate gives 20)'
            if on_fargate
            else "Deploy larger disks (cirro deploy --parameter DiskSizeGib=200; the default is 100)"
        ),
        "after_lost_hosts": _after_lost_hosts(detail, settings, attempts),
        "of_shared_memory": "" if on_fargate else f" of {settings.shared_memory_mib / MIB_PER_GB:g} GB",
        "larger_shared_memory": _larger_shared_memory(settings, next_memory, on_fargate=on_fargate),
        "gpu": f" of {gpu['name']} ({gpu['memory_bytes'] / GIB:.0f} GB)" if gpu else "",
        "time_limit": str(time_limit_s),
        "next_time_limit": str(time_limit_s * 2),
        "ran": f", after {ran_s:.0f} s" if ran_s else "",
        "cancelled": cancelled_how(detail),
        "lost": f"{lost} time{'s' if lost != 1 else ''}",
        "retry": _retry(attempts),
        "image": detail.image or settings.container_image_uri,
        "log_group": detail.log_group or settings.batch_job_log_group_name,
        "queue": detail.queue or settings.queue,
        "queue_option": settings.queue_option,
        "job_role": settings.batch_job_role_name,
        "execution_role": settings.batch_execution_role_name,
        "agent_role": _agent_role(settings.batch_execution_role_name),
        "bucket": settings.s3_bucket_name,
        "job": detail.job_id,
        "with_exit_code": "" if exit_code is None else f" with exit code {exit_code}",
        "signal": signal or "a signal",
        "after_signal": (
            f"If nobody killed it, memory was full: it had {memory_gb:g} GB; set memory={next_memory}."
            if signal == "SIGKILL"
            else "The log's end has the stack of the native code that crashed: try another version of its package."
        ),
        "killed_why": f" ({why})" if (why := message.partition(f"was killed by {signal}: ")[2]) else "",
        "message": message.strip().rstrip("."),
        "message_after": f": {message.strip().rstrip('.')}" if message.strip() else "",
        "shared_files": f" (shared_files={settings.shared_files!r})" if settings.shared_files else "",
        "secret_words": secret_remedies.short(secret_words),
        "secret_remedy": secret_remedies.remedy(secret_words, settings),
        "words": (detail.status_reason or "no reason").strip().rstrip("."),
    }


def _larger_shared_memory(settings: Settings, next_memory: str, *, on_fargate: bool) -> str:
    if on_fargate:
        return 'Use instances (platform="EC2"), where shared_memory_gb sets its size'
    asked = f"{_half_gb_up(settings.shared_memory_mib / MIB_PER_GB * 2):g}"
    return f"Set shared_memory_gb={asked} and memory={next_memory} on its executor"


def _more_memory(had_gb: float, reached: int | None, memory_max: float | None, next_memory: str) -> str:
    if memory_max is None:
        return (
            f"Set memory={next_memory} or more on its executor; with memory_max={next_memory} it is submitted again by "
            "itself."
        )
    if _has_all(had_gb, memory_max):
        return f"It had all that memory_max={memory_max:g} allows: set memory_max={next_memory} or more, or memory."
    if (reached or 0) / GIB >= memory_max:
        return (
            f"It had reached more than memory_max={memory_max:g} allows, so that it was not submitted again: set "
            f"memory_max={next_memory} or more, or memory."
        )
    return f"Set memory={next_memory} or more on its executor."


def _agent_role(execution_role: str) -> str:
    """The role with which the ECS agent pulls images and writes logs."""
    if execution_role:
        return f"the execution role {execution_role} (with one, the instances' role counts for nothing)"
    return "the instances' role (no batch_execution_role_name is set)"


def _retry(attempts: int) -> str:
    return f"Set retry_attempts={min(MAX_ATTEMPTS, attempts * 2)}, or use" if attempts < MAX_ATTEMPTS else "Use"


def _on_fargate(detail: JobDetail, settings: Settings) -> bool:
    """Whether a job runs on Fargate: commands that read what AWS Batch knows do not have its electron's settings."""
    return detail.platform == ON_FARGATE if detail.platform else settings.on_fargate


def _after_lost_hosts(detail: JobDetail, settings: Settings, attempts: int) -> str:
    if _on_fargate(detail, settings):
        return (
            f'{_retry(attempts)} instances (platform="EC2"), or Fargate without Spot (`cirro deploy --parameter '
            "FargateSpotMaxVcpus=0 --parameter FargateMaxVcpus=64`)"
        )
    # A node has the job's id and its number. Its machine is on demand already, and there is no further try.
    if max(detail.num_nodes, settings.nodes) > 1 or "#" in detail.job_id:
        more = (
            f"Set retry_attempts={min(MAX_ATTEMPTS, attempts * 2)}" if attempts < MAX_ATTEMPTS else "Dispatch it again"
        )
        return f"{more}: each lost machine costs an attempt of all machines of the job; checkpoints are kept"
    option, queue = settings.on_demand_queue_option, settings.on_demand_queue
    if queue is not None and detail.queue == queue.rsplit("/", 1)[-1]:
        return f"Dispatch it again. {queue} is the queue without Spot: if it happens again, check its instances"
    if queue is not None:
        return f"{_retry(attempts)} a queue of on-demand instances from the start ({settings.queue_option}={queue!r})"
    return (
        f"{_retry(attempts)} a queue of on-demand instances, which `cirro status` names: with {option}=... it goes "
        f"there by itself when its attempts are used up, with {settings.queue_option}=... from the start"
    )


def _signal(exit_code: int | None) -> str:
    names = {129: "SIGHUP", 130: "SIGINT", 132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE"}
    names |= {137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
    return names.get(exit_code or 0, "")
