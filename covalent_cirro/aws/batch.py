"""AWS Batch's API as typed calls: submit, describe and terminate jobs, find and register job definitions.

All calls are asynchronous and safe to repeat, `submit` included.
"""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from covalent_cirro.aws import sessions
from covalent_cirro.contract.limits import ELECTRON_CHARS
from covalent_cirro.contract.maps import MIN_CHILDREN
from covalent_cirro.contract.protocol import ExitCode
from covalent_cirro.errors import AccessDenied, AwsError, NotFound, SettingsError
from covalent_cirro.jobs import compute_nodes
from covalent_cirro.jobs.ends import HOST_LOST
from covalent_cirro.jobs.optional_actions import COSTS
from covalent_cirro.jobs.states import JobDetail, parse_job

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_NAME = 128
"""Characters of a job's name (SubmitJob)."""

MAX_TAG_VALUE = 256
"""Characters of a tag's value (Batch User Guide, Tag restrictions)."""

MAX_REASON = 1024
"""Characters of TerminateJob's reason."""

MAX_DESCRIBED = 100
"""Ids in a DescribeJobs request (Batch API Reference, DescribeJobs)."""

MAX_TERMINATED = 50
"""Ids in a TerminateJobs request (API model, TerminateJobsRequest)."""

SUBMITS_AT_ONCE = 16
"""SubmitJob calls under way; AWS takes 50 a second for an account (Batch User Guide, service quotas)."""

SETTLE_S = 5.0
"""Pause before the second search for a job whose SubmitJob call got no answer: ListJobs may show a new job seconds
late, since AWS promises no order between SubmitJob and ListJobs."""

LIST, TAG, DESCRIBE_DEFINITIONS = "batch:ListJobs", "batch:TagResource", "batch:DescribeJobDefinitions"
"""Actions that the executor does without where a policy refuses them (`optional_actions`)."""

PATIENCE_S = 600.0
"""How long a throttled or failing API is tried again, on top of botocore's own tries."""

_NOT_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_NOT_TAG = re.compile(r"[^\w +\-=._:/@]")

_SHARE_WORDS = re.compile(r"share ?identifier|scheduling ?policy", re.IGNORECASE)

REPLACED = "="
"""Replaces each character that AWS does not accept in a tag's value. The exact name is in the call in S3."""


def job_name(electron: str, dispatch_id: str, node_id: int, call_id: str) -> str:
    """A job name that people recognise and that no other job has: a job whose answer was lost is found by it."""
    tail = job_tail(dispatch_id, node_id, call_id)
    head = _NOT_NAME.sub("-", electron[:ELECTRON_CHARS]).strip("-_") or "electron"
    return head[: MAX_NAME - len(tail)] + tail


def job_tail(dispatch_id: str, node_id: int, call_id: str) -> str:
    """The end of a name from `job_name`: dispatch, node and call."""
    return f"-{dispatch_id[:8]}-{node_id}-{call_id}"


def tag_value(text: str) -> str:
    """A text as AWS takes it for the value of a tag: letters and digits of any script, spaces and ``+ - = . _ : / @``.

    So says the Batch User Guide (Tag restrictions), and the API model of ECS (TagValue), whose tasks get the same tags.
    The text is normalized (NFC) first: AWS accepts a letter with an accent as one character, not as two.
    """
    value = _NOT_TAG.sub(REPLACED, unicodedata.normalize("NFC", text))
    if value.lower().startswith("aws:"):  # reserved for AWS
        value = REPLACED + value[1:]
    return value if len(value) <= MAX_TAG_VALUE else value[: MAX_TAG_VALUE - 1] + REPLACED


class Submission(NamedTuple):
    """What a SubmitJob request says. Its size does not depend on the electron's inputs.

    Attributes:
        name: Name of the job, from `job_name`.
        queue: Name or ARN of the job queue.
        queue_option: The executor's option that names the queue, for messages.
        definition: Job definition, ``name:revision``.
        parameters: Values for the placeholders in the definition's command.
        attempts: How often AWS Batch may start the job, 1 to 10.
        timeout_s: Seconds that an attempt may run, at least 60.
        tags: Tags of the job, at most 50. AWS Batch gives them to no child of an array job.
        array_size: Jobs of the array job; 1: an ordinary job.
        platform: ``"EC2"`` or ``"FARGATE"``.
        share: Share identifier, which a queue with a scheduling policy needs; empty for none.
        priority: Priority among the jobs of its share, 0 to 9999; `None`: AWS's default, 0.
        propagate_tags: Whether ECS tasks get the tags.
    """

    name: str
    queue: str
    queue_option: str
    definition: str
    parameters: Mapping[str, str]
    attempts: int
    timeout_s: int
    tags: Mapping[str, str]
    array_size: int = 1
    platform: str = "EC2"
    share: str = ""
    priority: int | None = None
    propagate_tags: bool = True


def build_submit(submission: Submission) -> dict[str, Any]:
    """The body of SubmitJob.

    AWS Batch retries an attempt that lost its host or that failed to start; every other failure ends the job. The last
    rule is needed, because AWS retries where no rule matches (EvaluateOnExit).
    """
    return {
        "jobName": submission.name,
        "jobQueue": submission.queue,
        "jobDefinition": submission.definition,
        "parameters": dict(submission.parameters),
        "retryStrategy": {
            "attempts": submission.attempts,
            "evaluateOnExit": [
                {"onStatusReason": f"{HOST_LOST[submission.platform]}*", "action": "RETRY"},
                {"onReason": "DockerTimeoutError*", "action": "RETRY"},
                {"onExitCode": str(ExitCode.HOST_GOING), "action": "RETRY"},
                {"onReason": "*", "action": "EXIT"},
            ],
        },
        "timeout": {"attemptDurationSeconds": submission.timeout_s},
        **({"arrayProperties": {"size": submission.array_size}} if submission.array_size >= MIN_CHILDREN else {}),
        "tags": dict(submission.tags),
        "propagateTags": submission.propagate_tags,
        **({"shareIdentifier": submission.share} if submission.share else {}),
        **({"schedulingPriorityOverride": submission.priority} if submission.priority is not None else {}),
    }


class BatchGateway:
    """AWS Batch for one account and region. Made by `engine.py`, which closes its clients."""

    def __init__(
        self, client: Any, submit_client: Any, access: sessions.Access, *, patience_s: float = PATIENCE_S
    ) -> None:
        """Wrap two clients: ``submit_client`` must not retry by itself, since SubmitJob knows no idempotency token."""
        self._client = client
        self._submit_client = submit_client
        self._access = access
        self._patience_s = patience_s
        self._submitting = asyncio.Semaphore(SUBMITS_AT_ONCE)
        self._without: set[str] = set()

    async def submit(self, submission: Submission, *, asked_before: bool = False) -> str:
        """Submit a job once, even where an answer is lost, and give its id.

        Args:
            asked_before: A server that died may have submitted the job already: search for it first.

        Raises:
            SettingsError: The queue or the definition cannot take it; names the setting.
            AwsError: Anything else, after `PATIENCE_S` of trying.
        """

        lost = False

        async def once() -> str:
            nonlocal asked_before, lost
            for wait_s in ((0.0, SETTLE_S) if lost else (0.0,)) if asked_before else ():
                await asyncio.sleep(wait_s)
                if found := await self._find(submission.queue, submission.queue_option, submission.name):
                    return found
            asked_before = lost = False
            try:
                with self._errors("batch:SubmitJob", f"{submission.queue_option}={submission.queue!r}"):
                    response = await self._tagged(self._submit_client.submit_job, build_submit(submission))
            except AwsError as error:
                # A throttled call makes no job. After other errors the job may exist: search before submitting again.
                asked_before = lost = error.retryable and not error.throttled
                raise _about_queue(error, submission) from error
            job_id: str = response["jobId"]
            return job_id

        async with self._submitting:
            return await self._patiently(once)

    async def find(self, queue: str, queue_option: str, name: str) -> str | None:
        """The id of the job with a name from `job_name`, ended or not; `None` where AWS knows none."""
        return await self._patiently(lambda: self._find(queue, queue_option, name))

    async def _tagged(self, call: Callable[..., Awaitable[Any]], body: Mapping[str, Any]) -> Any:
        """Call with the body's tags, or without tags where a policy refuses them."""
        bare = {key: value for key, value in body.items() if key not in ("tags", "propagateTags")}
        if TAG in self._without:
            return await call(**bare)
        from botocore.exceptions import ClientError

        try:
            return await call(**body)
        except ClientError as error:
            # AWS names this action when a policy refuses a call because of its tags.
            if f"perform: {TAG} " not in str(error):
                raise
            self._go_on_without(TAG, str(error))
            return await call(**bare)

    def _go_on_without(self, action: str, words: str) -> None:
        if action not in self._without:
            self._without.add(action)
            log.warning("Going on without %s, until the server is started again: %s. %s", action, COSTS[action], words)

    async def _find(self, queue: str, queue_option: str, name: str) -> str | None:
        if LIST in self._without:
            return None
        try:
            return await self._listed(queue, queue_option, name)
        except AccessDenied as error:
            self._go_on_without(LIST, str(error))
            return None

    async def _listed(self, queue: str, queue_option: str, name: str) -> str | None:
        named = [{"name": "JOB_NAME", "values": [name]}]
        token: dict[str, str] = {}
        while True:  # a page may be empty and not be the last: AWS filters after it has read (ListJobs, nextToken)
            with self._errors(LIST, f"{queue_option}={queue!r}"):
                page = await self._client.list_jobs(jobQueue=queue, filters=named, **token)
            found = next((job["jobId"] for job in page["jobSummaryList"] if job["jobName"] == name), None)
            if found is not None or not page.get("nextToken"):
                return found
            token = {"nextToken": page["nextToken"]}

    async def describe(self, job_ids: Iterable[str]) -> list[JobDetail]:
        """What AWS Batch says of up to `MAX_DESCRIBED` jobs; unknown ids are left out.

        One call, and for multi-node jobs that have begun one more for each 100 nodes.
        """
        details = await self._described(list(job_ids))
        ids = compute_nodes.ids_to_describe(details)
        nodes: dict[str, JobDetail] = {}
        for begin in range(0, len(ids), MAX_DESCRIBED):
            nodes |= {each.job_id: each for each in await self._described(ids[begin : begin + MAX_DESCRIBED])}
        return [compute_nodes.with_nodes(each, nodes) for each in details]

    async def _described(self, ids: list[str]) -> list[JobDetail]:
        with self._errors("batch:DescribeJobs", ""):
            response = await self._client.describe_jobs(jobs=ids)
        return [parse_job(job) for job in response["jobs"]]

    async def job(self, job_id: str) -> JobDetail | None:
        """What AWS Batch says of one job; `None` for an unknown id. Repeats the call while AWS throttles or fails."""
        found = await self._patiently(lambda: self.describe([job_id]))
        return found[0] if found else None

    async def terminate(self, job_ids: Sequence[str], reason: str) -> dict[str, AwsError]:
        """Terminate up to `MAX_TERMINATED` jobs in any state; a job that has ended stays as it is.

        Returns:
            By job id, the error for each job that AWS did not terminate.
        """
        left = list(job_ids)
        if len(left) > 1:
            try:
                left = await self._patiently(lambda: self._terminate_together(job_ids, reason))
            except AwsError as error:
                if error.retryable:
                    raise
                # The policy allows some of the jobs, or the endpoint does not know the call: terminate one at a time.
        answers = await asyncio.gather(*(self._terminate(job_id, reason) for job_id in left))
        return {job_id: error for job_id, error in zip(left, answers, strict=True) if error is not None}

    async def _terminate_together(self, job_ids: Sequence[str], reason: str) -> list[str]:
        """Call TerminateJobs once; return the ids of the jobs that it did not terminate."""
        with self._errors("batch:TerminateJobs", f"{len(job_ids)} jobs"):
            answer = await self._client.terminate_jobs(jobs=list(job_ids), reason=reason[:MAX_REASON])
        return [str(each["job"]) for each in answer["errors"]]

    async def _terminate(self, job_id: str, reason: str) -> AwsError | None:
        async def once() -> None:
            with self._errors("batch:TerminateJob", f"job {job_id}"):
                await self._client.terminate_job(jobId=job_id, reason=reason[:MAX_REASON])

        try:
            await self._patiently(once)
        except AwsError as error:
            return error
        return None

    async def find_definition(self, name: str) -> str | None:
        """``name:revision`` of the newest ACTIVE revision; `None` without one, or if a policy forbids the call."""
        if DESCRIBE_DEFINITIONS in self._without:
            return None

        async def once() -> str | None:
            with self._errors(DESCRIBE_DEFINITIONS, f"job definition {name}"):
                paginator = self._client.get_paginator("describe_job_definitions")
                revisions = [
                    int(item["revision"])
                    async for page in paginator.paginate(jobDefinitionName=name, status="ACTIVE")
                    for item in page["jobDefinitions"]
                ]
            return f"{name}:{max(revisions)}" if revisions else None

        try:
            return await self._patiently(once)
        except AccessDenied as error:
            self._go_on_without(DESCRIBE_DEFINITIONS, str(error))
            return None

    async def register_definition(self, body: Mapping[str, Any]) -> str:
        """Register a job definition and return its ``name:revision``."""

        async def once() -> str:
            try:
                with self._errors("batch:RegisterJobDefinition", f"job definition {body['jobDefinitionName']}"):
                    response = await self._tagged(self._client.register_job_definition, body)
            except AwsError as error:
                raise _about_consumables(error) from error
            return f"{response['jobDefinitionName']}:{response['revision']}"

        return await self._patiently(once)

    def _errors(self, operation: str, of: str) -> Any:
        return sessions.translate(operation, access=self._access, of=of)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        return await sessions.patiently(call, self._patience_s)


WRONG_PLATFORM = "can not run Jobs with capability"
"""In AWS's words about a queue of the other platform: ``Job Queue is attached to Compute Environment that can not run
Jobs with capability EC2.``"""


def _about_consumables(error: AwsError) -> Exception:
    """The error with the name of the setting, if AWS's words are about a consumable resource."""
    if error.retryable or error.code != "ClientException" or "onsumable" not in str(error):
        return error
    return SettingsError(
        f"{error} The option consumable_resources names it. `aws batch create-consumable-resource "
        "--consumable-resource-name NAME --total-quantity N` makes one."
    )


def _about_queue(error: AwsError, submission: Submission) -> Exception:
    """The error with the name of the setting: a ClientException names queue or definition in its text only."""
    if (about := _about_consumables(error)) is not error:
        return about
    if error.retryable or error.code != "ClientException":
        return error
    words = str(error)
    if WRONG_PLATFORM in words:
        other = "FARGATE" if submission.platform == "EC2" else "EC2"
        return SettingsError(
            f'{words} The electron has platform="{submission.platform}", and {submission.queue_option}='
            f'{submission.queue!r} is a queue of the other platform: set platform="{other}", or another queue.'
        )
    if _SHARE_WORDS.search(words):
        return SettingsError(
            f"{words} A queue with a scheduling policy takes only jobs with a share identifier, and another queue only "
            f"jobs without one: share_identifier is {submission.share or None!r}, and {submission.queue_option} is "
            f"{submission.queue!r}. "
            + (
                'Leave it out (share_identifier=""), or name a queue with such a policy.'
                if submission.share
                else 'Set it to the name of a share, such as share_identifier="common".'
            )
        )
    if "ob queue" in words or "jobQueue" in words or "JobQueue" in words:
        return SettingsError(
            f"{words} Check {submission.queue_option}, and that the queue is ENABLED and VALID in this account and "
            "region (AWS console: Batch, Job queues)."
        )
    if "ob definition" in words or "jobDefinition" in words or "JobDefinition" in words:
        return NotFound(words, operation=error.operation, code=error.code)
    return error
