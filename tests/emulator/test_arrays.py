"""Arrays and dependencies: children, the parent's state, N_TO_N, SEQUENTIAL, failures that spread."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from botocore.exceptions import ClientError


def test_an_array_runs_its_children_with_their_index(aws: Any) -> None:
    """Each child has an id of its own, its index, and the variable; the parent counts them."""
    parent_id = aws.submit("sh", "-c", "echo $AWS_BATCH_JOB_ARRAY_INDEX", arrayProperties={"size": 3})
    parent = aws.done(parent_id)
    assert parent["status"] == "SUCCEEDED"
    assert parent["arrayProperties"]["size"] == 3
    assert parent["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 3
    children = [aws.job(f"{parent_id}:{i}") for i in range(3)]
    assert [child["arrayProperties"]["index"] for child in children] == [0, 1, 2]
    assert [aws.log(child) for child in children] == [["0"], ["1"], ["2"]]


def test_a_parent_is_pending_while_its_children_run(aws: Any) -> None:
    """A parent is never RUNNABLE or RUNNING; its summary says how far it is."""
    parent_id = aws.submit("sleep", "30", arrayProperties={"size": 2})
    aws.reach(f"{parent_id}:1", "RUNNING")
    parent = aws.job(parent_id)
    assert parent["status"] == "PENDING"
    assert sum(parent["arrayProperties"]["statusSummary"].values()) == 2
    aws.batch.terminate_job(jobId=parent_id, reason="enough")
    assert aws.done(parent_id)["statusReason"] == "enough"


def test_one_failed_child_fails_the_parent_after_all_are_done(aws: Any) -> None:
    """The others run to their end."""
    parent_id = aws.submit("sh", "-c", "exit $AWS_BATCH_JOB_ARRAY_INDEX", arrayProperties={"size": 3})
    parent = aws.done(parent_id)
    assert parent["status"] == "FAILED"
    assert parent["statusReason"] == "Array Child Job failed"
    assert (
        parent["arrayProperties"]["statusSummary"] | {"SUCCEEDED": 1, "FAILED": 2}
        == (parent["arrayProperties"]["statusSummary"])
    )


def test_children_are_listed_by_their_parent_only(aws: Any) -> None:
    """The queue's list shows the parent."""
    queue = aws.queue()
    parent_id = aws.submit("true", queue=queue, arrayProperties={"size": 2})
    aws.done(parent_id)
    listed = aws.batch.list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert [job["jobId"] for job in listed] == [parent_id]
    children = aws.batch.list_jobs(arrayJobId=parent_id, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert [job["jobId"] for job in children] == [f"{parent_id}:0", f"{parent_id}:1"]
    assert aws.batch.list_jobs(arrayJobId=parent_id)["jobSummaryList"] == []


def test_a_child_can_be_terminated_alone(aws: Any) -> None:
    """Its sisters go on, and the parent fails."""
    parent_id = aws.submit(
        "sh", "-c", "test $AWS_BATCH_JOB_ARRAY_INDEX = 0 && exec sleep 30; true", arrayProperties={"size": 2}
    )
    aws.reach(f"{parent_id}:0", "RUNNING")
    aws.batch.terminate_job(jobId=f"{parent_id}:0", reason="not this one")
    assert aws.done(parent_id)["status"] == "FAILED"
    assert aws.job(f"{parent_id}:0")["statusReason"] == "not this one"
    assert aws.job(f"{parent_id}:1")["status"] == "SUCCEEDED"


def test_a_child_is_retried_alone(aws: Any) -> None:
    """With the same id and index, and the number of its own attempt; its sister has one attempt."""
    parent_id = aws.submit(
        "sh",
        "-c",
        "echo $AWS_BATCH_JOB_ID $AWS_BATCH_JOB_ATTEMPT; test $AWS_BATCH_JOB_ARRAY_INDEX$AWS_BATCH_JOB_ATTEMPT != 11",
        arrayProperties={"size": 2},
        retryStrategy={"attempts": 3},
    )
    assert aws.done(parent_id)["status"] == "SUCCEEDED"
    children = [aws.job(f"{parent_id}:{i}") for i in range(2)]
    assert [len(child["attempts"]) for child in children] == [1, 2]
    assert aws.log(children[1]) == [f"{parent_id}:1 2"]


def test_a_job_waits_for_another(aws: Any) -> None:
    """PENDING until it succeeded."""
    queue = aws.queue()
    first = aws.submit("sleep", "0.3", queue=queue)
    second = aws.submit("true", queue=queue, dependsOn=[{"jobId": first}])
    assert aws.job(second)["status"] == "PENDING"
    assert aws.done(second)["status"] == "SUCCEEDED"
    assert aws.job(second)["startedAt"] >= aws.job(first)["stoppedAt"]


def test_a_failed_dependency_fails_all_that_wait(aws: Any) -> None:
    """Along the whole chain, without a start."""
    queue = aws.queue()
    first = aws.submit("sh", "-c", "sleep 0.2; exit 1", queue=queue)
    second = aws.submit("true", queue=queue, dependsOn=[{"jobId": first}])
    third = aws.submit("true", queue=queue, dependsOn=[{"jobId": second}])
    job = aws.done(third)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "Dependent Job failed", [])


def test_n_to_n_waits_for_the_same_index(aws: Any) -> None:
    """The second child starts while the first still waits for its own."""
    queue = aws.queue()
    first = aws.submit(
        "sh", "-c", "test $AWS_BATCH_JOB_ARRAY_INDEX = 1 || sleep 30", queue=queue, arrayProperties={"size": 2}
    )
    second = aws.submit(
        "true", queue=queue, arrayProperties={"size": 2}, dependsOn=[{"jobId": first, "type": "N_TO_N"}]
    )
    assert aws.done(f"{second}:1")["status"] == "SUCCEEDED"
    assert aws.job(f"{second}:0")["status"] == "PENDING"
    aws.batch.terminate_job(jobId=first, reason="enough")
    assert aws.done(second)["status"] == "FAILED"


def test_sequential_runs_one_after_another(aws: Any) -> None:
    """Each child starts after the one before it."""
    parent_id = aws.submit("sleep", "0.05", arrayProperties={"size": 3}, dependsOn=[{"type": "SEQUENTIAL"}])
    assert aws.done(parent_id)["status"] == "SUCCEEDED"
    children = [aws.job(f"{parent_id}:{i}") for i in range(3)]
    for before, after in itertools.pairwise(children):
        assert after["startedAt"] >= before["stoppedAt"]


def test_a_job_can_wait_for_a_whole_array(aws: Any) -> None:
    """A plain dependency on a parent is one on all of its children."""
    queue = aws.queue()
    array = aws.submit("sleep", "0.2", queue=queue, arrayProperties={"size": 2})
    after = aws.submit("true", queue=queue, dependsOn=[{"jobId": array}])
    assert aws.done(after)["startedAt"] >= aws.job(array)["stoppedAt"]


def test_an_array_of_ten_thousand_is_taken_and_cancelled(aws: Any) -> None:
    """One call, and no recursion when all of them end."""
    queue = aws.queue(aws.environment(maxvCpus=2, instanceTypes=["m6i.large"]))
    blocker = aws.submit(queue=queue, definition=aws.definition("sleep", "30", vcpus=2))
    aws.reach(blocker, "RUNNING")
    parent_id = aws.submit("true", queue=queue, arrayProperties={"size": 10_000})
    chained = aws.submit("true", queue=queue, arrayProperties={"size": 10_000}, dependsOn=[{"type": "SEQUENTIAL"}])
    summary = aws.job(parent_id)["arrayProperties"]["statusSummary"]
    assert summary["RUNNABLE"] == 10_000
    aws.batch.cancel_jobs(jobs=[parent_id, chained], reason="enough")
    assert aws.done(parent_id)["arrayProperties"]["statusSummary"]["FAILED"] == 10_000
    assert aws.done(chained)["status"] == "FAILED"
    aws.batch.terminate_job(jobId=blocker, reason="enough")


def test_an_unknown_dependency_is_refused(aws: Any) -> None:
    """At once."""
    with pytest.raises(ClientError, match="Dependency job nobody does not exist"):
        aws.submit("true", dependsOn=[{"jobId": "nobody"}])


def test_n_to_n_needs_arrays_of_one_size(aws: Any) -> None:
    """Otherwise some children would wait for nothing."""
    queue = aws.queue()
    first = aws.submit("true", queue=queue, arrayProperties={"size": 2})
    with pytest.raises(ClientError, match="arrays of one size"):
        aws.submit("true", queue=queue, arrayProperties={"size": 3}, dependsOn=[{"jobId": first, "type": "N_TO_N"}])
