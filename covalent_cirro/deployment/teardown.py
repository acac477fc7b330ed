"""Deletes a deployment: terminates its jobs, empties and deletes its stacks, and checks that nothing is left.

It can be repeated after a failure. This module must not know the terminal or Covalent's config.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from covalent_cirro.aws.batch import MAX_TERMINATED
from covalent_cirro.deployment import emptying, stacks
from covalent_cirro.deployment.holdings import (
    STORAGE,
    Client,
    Holdings,
    Proof,
    chunks,
    existing_queues,
    jobs,
    prove,
    translated,
)
from covalent_cirro.deployment.plans import stack_name
from covalent_cirro.deployment.stack_events import FIRST_POLL_S, LONGEST_POLL_S, TIMEOUT_S, StackEvent, Watch
from covalent_cirro.deployment.stacks import Stack

JOBS_TIMEOUT_S = 300.0
"""Seconds that terminated jobs may take: each has 30 s after SIGTERM. The deletion of their queue waits longer."""

EMPTYING_TRIES = 3
"""How often a bucket is emptied: somebody may write into it meanwhile."""

REASON = "cirro destroy"
"""Reason given to TerminateJobs."""


def destroy(
    client: Client,
    holdings: Holdings,
    *,
    say: Callable[[str], None] = lambda step: None,
    on_event: Callable[[StackEvent], None] | None = None,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Proof:
    """Terminate the jobs of a deployment, delete its data and its stacks, and check whether anything is left.

    Args:
        client: Makes boto3 clients.
        holdings: From `holdings.survey`.
        say: Called with each step, in a few words.
        on_event: Called with each event of a stack, in order, while waiting.
        timeout_s: Seconds for the deletion of all stacks. After that AWS goes on by itself.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.

    Raises:
        StackError: Something could not be deleted, with AWS's reason; the next call goes on from there.
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    queues = existing_queues(client, holdings.of_type("AWS::Batch::JobQueue"))
    if queues:
        _stop_jobs(client, queues, say, sleep, clock)
    if holdings.definitions:
        say(f"deregistering {len(holdings.definitions)} job definitions")
    for definition in holdings.definitions:
        with translated(client("batch"), "batch:DeregisterJobDefinition", definition):
            client("batch").deregister_job_definition(jobDefinition=definition)
    watch = Watch(client("cloudformation"), on_event, timeout_s=timeout_s, sleep=sleep, clock=clock)
    for stack in holdings.stacks:
        _delete(client, watch, holdings, stack, say)
    say("looking for anything that is left")
    return prove(client, holdings, sleep=sleep, clock=clock)


def _stop_jobs(
    client: Client,
    queues: list[str],
    say: Callable[[str], None],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    """Disable the queues, terminate their jobs, and wait: a running job could write into a bucket that was emptied."""
    batch = client("batch")
    for queue in queues:
        with translated(batch, "batch:UpdateJobQueue", queue):
            batch.update_job_queue(jobQueue=queue, state="DISABLED")
    asked: set[str] = set()
    deadline, pause_s = clock() + JOBS_TIMEOUT_S, FIRST_POLL_S
    while left := [job.job_id for job in jobs(client, queues)]:
        fresh = [job for job in left if job not in asked]
        if fresh:
            say(f"terminating {len(fresh)} jobs")
        for some in chunks(fresh, MAX_TERMINATED):
            with translated(batch, "batch:TerminateJobs"):
                answer = batch.terminate_jobs(jobs=some, reason=REASON)
            # A job that could not be terminated is tried again in the next round.
            refused = {str(each["job"]): f"{each['code']}: {each['message']}" for each in answer["errors"]}
            asked |= set(some) - refused.keys()
            for job, words in list(refused.items())[:1]:
                say(f"{len(refused)} of {len(some)} jobs could not be terminated yet: job {job}: {words}")
        if clock() >= deadline:
            say(f"{len(left)} jobs have not ended yet: their queue's deletion waits for them")
            return
        sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_POLL_S)


def _delete(client: Client, watch: Watch, holdings: Holdings, stack: Stack, say: Callable[[str], None]) -> None:
    formation = client("cloudformation")
    for tries_left in reversed(range(EMPTYING_TRIES)):
        now = stacks.find(formation, stack.stack_id)
        if now is not None:
            now = watch.settled(now)
        if now is None or now.is_gone:
            return
        if stack.name == stack_name(holdings.name, STORAGE):
            _empty(client, holdings, say)
        say(f"deleting the stack {stack.name}")
        watch.begin(now)
        stacks.begin_delete(formation, now)
        done = watch.ended(stack.stack_id)
        if done.is_gone:
            return
        if not tries_left or "not empty" not in (reason := str(watch.failure(done, "deleted"))).lower():
            raise watch.failure(done, "deleted")
        say(f"once more, something was written meanwhile: {reason}")


def _empty(client: Client, holdings: Holdings, say: Callable[[str], None]) -> None:
    for bucket in holdings.of_type("AWS::S3::Bucket"):
        say(f"emptying the bucket {bucket}")
        emptying.empty_bucket(client("s3"), bucket, lambda count: say(f"emptying the bucket: {count:,} objects so far"))
    for repository in holdings.of_type("AWS::ECR::Repository"):
        say(f"emptying the image repository {repository}")
        emptying.empty_repository(client("ecr"), repository)
