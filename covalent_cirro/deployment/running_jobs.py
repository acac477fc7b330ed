"""Jobs that a change of a deployment would end: found, and handled as the user decides.

They are on instances that an update of a compute environment replaces, or in queues that the change deletes.

CloudFormation waits for the update of a compute environment, and AWS Batch for the jobs on its old instances. A job
that runs longer than CloudFormation waits makes the update and its rollback fail: AWS Batch accepts no other update.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from covalent_cirro.deployment import holdings
from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.holdings import Client, translated
from covalent_cirro.deployment.plans import QUEUE
from covalent_cirro.deployment.stack_events import Watch
from covalent_cirro.errors import StackError
from covalent_cirro.jobs.affected_jobs import END, REFUSE, WAIT, AffectedJobs
from covalent_cirro.jobs.states import ACTIVE_STATES

CLOUDFORMATION_HOURS = 2
"""Hours that CloudFormation waits for one resource (CloudFormation CLI User Guide, resource type schema,
``handlers.timeoutInMinutes``: 120 where a type says nothing)."""

STATES = ("STARTING", "RUNNING")
"""States of a job that has an instance."""

POLL_S = 30.0

ENVIRONMENT = "AWS::Batch::ComputeEnvironment"

KEEPS_INSTANCES = (
    *("ComputeResources/DesiredvCpus", "ComputeResources/MaxvCpus", "ComputeResources/MinvCpus"),
    *("ReplaceComputeEnvironment", "ServiceRole", "State", "UnmanagedvCpus", "UpdatePolicy"),
)
"""Properties whose change keeps a compute environment's instances (AWS Batch User Guide, Updating compute
environments: all others are infrastructure updates)."""


Choose = Callable[[AffectedJobs], str]
"""Returns what is to be done about running jobs, one of `affected_jobs.CHOICES`."""


def replaced(changes: Iterable[Change]) -> list[Change]:
    """The changes of compute environments that replace or delete the instances of their jobs."""
    return [
        change
        for change in changes
        if change.resource_type == ENVIRONMENT
        and (change.action == "Remove" or (change.action != "Add" and not _keeps_instances(change)))
    ]


def deleted_queues(changes: Iterable[Change]) -> list[Change]:
    """The changes that delete a job queue, with or without a new one in its place: AWS Batch terminates its jobs."""
    return [
        change
        for change in changes
        if change.resource_type == QUEUE
        and (change.action == "Remove" or change.replacement in ("True", "Conditional"))
    ]


def _keeps_instances(change: Change) -> bool:
    return bool(change.paths) and all(f"{path}/".startswith(_KEPT) for path in change.paths)


_KEPT = tuple(f"{path}/" for path in KEEPS_INSTANCES)


class RunningJobs:
    """Handles jobs that run while a deployment is changed.

    Args:
        client: Makes boto3 clients; `None`: jobs are ignored.
        choose: Called once, if jobs are affected.
        watch: Its deadline is moved while jobs are waited for.
        say: Called with each step, in a few words.
    """

    def __init__(self, client: Client | None, choose: Choose, watch: Watch, say: Callable[[str], None]) -> None:
        self._client = client
        self._choose = choose
        self._watch = watch
        self._say = say
        self._choice = ""

    def ask(self, changes: Sequence[Change], minutes: int) -> AffectedJobs | None:
        """Find jobs that changes affect, and ask what is to be done about them; `None` if there are none.

        Args:
            changes: Changes of a change set.
            minutes: ``JobExecutionTimeoutMinutes`` of the compute environments.

        Raises:
            StackError: The answer was to change nothing.
            AccessDenied, AwsError: AWS refused or could not be reached.
        """
        found = self._look(changes, minutes)
        if found is None:
            return None
        self._choice = self._choice or self._choose(found)
        if self._choice == REFUSE:
            raise StackError(_refusal(found))
        return found

    def before(self, changes: Sequence[Change], minutes: int) -> None:
        """Before changes are made: wait for the jobs they affect, if that was the answer.

        Args:
            changes: Changes of a change set.
            minutes: See `ask`.

        Raises:
            StackError: See `ask`.
            AccessDenied, AwsError: AWS refused or could not be reached.
        """
        found = self.ask(changes, minutes)
        if found is not None and self._choice == END:
            self._watch.postpone(60.0 * minutes)
        told = ""
        while found is not None and self._choice == WAIT:
            if str(found) != told:
                told = str(found)
                where = "is in queues that are deleted" if found.queues else "runs on instances that are replaced"
                self._say(f"waiting until no job {where}: {told}")
            self._watch.rest(POLL_S)
            found = self._look(changes, minutes)

    def _look(self, changes: Sequence[Change], minutes: int) -> AffectedJobs | None:
        if self._client is None:
            return None
        environments, queues = replaced(changes), deleted_queues(changes)
        on_instances: dict[str, str] = {}  # by id: one may have moved on to another state meanwhile
        in_queues: dict[str, str] = {}
        if environments:
            behind = _queues_on(self._client, {each.physical_id for each in environments})
            on_instances = {job.job_id: job.state for job in holdings.jobs(self._client, behind, STATES)}
        if queues:
            there = holdings.existing_queues(self._client, [each.physical_id for each in queues])
            in_queues = {job.job_id: job.state for job in holdings.jobs(self._client, there, ACTIVE_STATES)}
        if not on_instances and not in_queues:
            return None
        return AffectedJobs(
            Counter({**on_instances, **in_queues}.values()),
            tuple(each.logical_id for each in environments) if on_instances else (),
            minutes,
            tuple(each.logical_id for each in queues) if in_queues else (),
        )


def _refusal(found: AffectedJobs) -> str:
    why = f", and CloudFormation waits {CLOUDFORMATION_HOURS} hours for them at most" if not found.queues else ""
    end = (
        f"which does not wait: {found.ended_how}"
        if found.queues
        else f"which gives them {found.minutes} minutes (--parameter JobExecutionTimeoutMinutes=...) and then has AWS "
        "Batch terminate them"
    )
    return (
        f"{'the queues' if found.queues else 'the compute environments'} are as they were: {found} {found.where}{why}. "
        "Deploy again when they have ended; or with `--running-jobs wait`, which waits until none runs; or with "
        f"`--running-jobs end`, {end}."
    )


def _queues_on(client: Client, environments: set[str]) -> list[str]:
    """ARNs of the job queues that place jobs on any of the compute environments."""
    batch = client("batch")
    with translated(batch, "batch:DescribeJobQueues"):
        return [
            each["jobQueueArn"]
            for page in batch.get_paginator("describe_job_queues").paginate()
            for each in page["jobQueues"]
            if any(placed["computeEnvironment"] in environments for placed in each["computeEnvironmentOrder"])
        ]
