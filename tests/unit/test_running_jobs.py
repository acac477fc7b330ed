"""Jobs that a change of a deployment would end: which changes do, and what is said of them."""

from __future__ import annotations

from collections import Counter

import pytest

from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.running_jobs import deleted_queues
from covalent_cirro.jobs.affected_jobs import AffectedJobs

QUEUE = Change("Modify", "CpuQueue", "AWS::Batch::JobQueue", "arn:cpu", "False")


@pytest.mark.parametrize(
    ("change", "is_deleted"),
    [
        (QUEUE, False),
        (QUEUE._replace(replacement="True"), True),
        (QUEUE._replace(replacement="Conditional"), True),
        (QUEUE._replace(action="Remove", replacement=""), True),
        (QUEUE._replace(action="Add", replacement="", physical_id=""), False),
        (QUEUE._replace(resource_type="AWS::Batch::SchedulingPolicy", replacement="True"), False),
    ],
)
def test_changes_that_delete_a_queue(change: Change, is_deleted: bool) -> None:
    """With or without a new one in its place."""
    assert deleted_queues([change]) == [change] * is_deleted


def test_what_is_said_of_affected_jobs() -> None:
    """How many, in which states, where, and what becomes of them."""
    on_instances = AffectedJobs(Counter(RUNNING=2), ("CpuSpotEnvironment",), 60)
    assert f"{on_instances} {on_instances.where}" == (
        "2 jobs run (2 RUNNING) on instances that this change replaces (CpuSpotEnvironment)"
    )
    assert on_instances.ended_how == "they get 60 minutes, then AWS Batch terminates them"
    in_queues = AffectedJobs(Counter(RUNNABLE=1), (), 60, ("CpuQueue", "GpuQueue"))
    assert f"{in_queues} {in_queues.where}" == (
        "1 job has not ended (1 RUNNABLE) in queues that this change deletes (CpuQueue, GpuQueue)"
    )
    assert in_queues.ended_how == "AWS Batch terminates those in the queues at once"
    both = in_queues._replace(environments=("GpuEnvironment",))
    assert both.where.count(" or ") == 1
