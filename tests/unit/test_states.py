"""What DescribeJobs says of a job, read and passed on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from covalent_cirro.electron.engine import shared_files
from covalent_cirro.jobs.states import JobDetail, JobState, dump_detail, load_detail, parse_job, was_cancelled_by_us


def test_a_job_with_next_to_nothing_in_it_is_read() -> None:
    """AWS leaves out what has not come yet; 0 is a time that has not."""
    detail = parse_job({"jobId": "j", "status": "RUNNABLE", "startedAt": 0})
    assert (detail.state, detail.exit_code, detail.started_at, detail.attempts) == ("RUNNABLE", None, None, ())
    assert not detail.is_terminal


def test_the_latest_attempt_tells_what_the_container_does_not() -> None:
    """Exit facts are read from the attempts where the job itself has none."""
    detail = parse_job(
        {
            "jobId": "j",
            "status": "FAILED",
            "attempts": [
                {"container": {}, "statusReason": "Host EC2 (instance i-1) terminated."},
                {"container": {"exitCode": 3, "logStreamName": "b"}, "statusReason": "Essential container exited"},
            ],
        }
    )
    assert (detail.exit_code, detail.log_stream, len(detail.attempts)) == (3, "b", 2)


def test_a_state_that_is_not_known_yet_counts_as_not_ended() -> None:
    """Should AWS add one."""
    assert not parse_job({"jobId": "j", "status": "THROTTLED"}).is_terminal
    assert [state for state in JobState if state.is_terminal] == [JobState.SUCCEEDED, JobState.FAILED]


@pytest.mark.parametrize(
    ("status", "reason", "ours"),
    [
        ("FAILED", "Cancelled in Covalent (dispatch d)", True),
        ("FAILED", "somebody else", False),
        ("SUCCEEDED", "Cancelled in Covalent (dispatch d)", False),
    ],
)
def test_our_own_cancel_is_told_from_that_of_others(status: str, reason: str, ours: bool) -> None:
    """A job that was done before the cancel came has its result."""
    assert was_cancelled_by_us(parse_job({"jobId": "j", "status": status, "statusReason": reason})) is ours


DESCRIBED = {
    "jobId": "j",
    "jobName": "covalent-train",
    "jobQueue": "arn:aws:batch:us-east-1:123456789012:job-queue/gpus",
    "status": "FAILED",
    "statusReason": "Host EC2 (instance i-1) terminated.",
    "createdAt": 1000,
    "startedAt": 2000,
    "stoppedAt": 5500,
    "timeout": {"attemptDurationSeconds": 300},
    "retryStrategy": {"attempts": 3},
    "isTerminated": True,
    "container": {
        "image": "repo/img:1",
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "jobs"}},
        "resourceRequirements": [
            {"type": "VCPU", "value": "4"},
            {"type": "MEMORY", "value": "2048"},
            {"type": "GPU", "value": "1"},
        ],
    },
    "attempts": [{"container": {"exitCode": 137, "reason": "r", "logStreamName": "s"}, "statusReason": "x"}],
}


def test_a_job_tells_what_it_asked_for() -> None:
    """Image, queue, log group, resources, time limit and attempts: what an explanation names."""
    detail = parse_job(DESCRIBED)
    assert (detail.queue, detail.image, detail.log_group) == ("gpus", "repo/img:1", "jobs")
    assert (detail.vcpus, detail.memory_mib, detail.gpus) == (4, 2048, 1)
    assert (detail.time_limit_s, detail.max_attempts) == (300, 3)


def test_what_is_passed_on_of_a_job_is_the_same_when_it_is_read() -> None:
    """Through JSON, as Covalent passes it from poll to receive."""
    detail = parse_job(DESCRIBED)
    assert load_detail(json.loads(json.dumps(dump_detail(detail)))) == detail


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"job_id": 3}, {"job_id": ""}, {"state": "FAILED"}])
def test_what_is_not_a_job_is_none(value: object) -> None:
    """Whoever sent it."""
    assert load_detail(value) is None


def test_fields_of_a_wrong_type_are_left_out() -> None:
    """They come from outside, and must not break the telling."""
    sent = {
        "job_id": "j",
        "state": 3,
        "attempts": [{"reason": "r", "exit_code": "no"}, 7],
        "exit_code": True,
        "started_at": "soon",
        "memory_mib": "many",
        "terminated": 1,
        "log_stream": None,
        "no_such_field": 1,
    }
    detail = load_detail(sent)
    assert detail is not None
    assert detail._replace(attempts=()) == JobDetail("j")
    assert [attempt.reason for attempt in detail.attempts] == ["r", ""]


def test_what_a_job_has_besides_is_told() -> None:
    """Share, tags, consumable resources and properties of its own; nothing of what every electron's job has."""
    usual = {
        "jobId": "j",
        "tags": {"covalent:dispatch": "d", "covalent:node": "0"},
        "container": {
            "image": "i",
            "volumes": [],
            "linuxParameters": {"sharedMemorySize": 64, "initProcessEnabled": True},
            "environment": [{"name": "A", "value": "b"}],
        },
    }
    assert parse_job(usual).extras == ()
    more = {
        **usual,
        "tags": {**usual["tags"], "team": "a"},  # type: ignore[dict-item]
        "shareIdentifier": "physics",
        "schedulingPriority": 3,
        "consumableResourceProperties": {"consumableResourceList": [{"consumableResource": "l", "quantity": 2}]},
        "container": {**usual["container"], "user": "1000", "privileged": False},  # type: ignore[dict-item]
    }
    assert parse_job(more).extras == (
        ("share", "physics, priority 3"),
        ("holds", "2 of l"),
        ("tags", "team=a"),
        ("properties", 'user="1000"'),
    )
    assert parse_job(more).consumables == (("l", 2),)


def test_what_a_multi_node_job_has_besides_is_told() -> None:
    """Its container and its consumable resources are in the properties of its nodes, each of which holds its own."""
    held = {"consumableResourceList": [{"consumableResource": "l", "quantity": 2}]}
    ranges = [{"targetNodes": "0:", "container": {"user": "1000"}, "consumableResourceProperties": held}]
    job = {"jobId": "j", "nodeProperties": {"numNodes": 3, "nodeRangeProperties": ranges}}
    assert parse_job(job).extras == (("holds", "6 of l"), ("properties", 'user="1000"'))
    assert parse_job(job).consumables == (("l", 6),)


@pytest.mark.parametrize(("target", "nodes"), [("0:", 5), ("1:", 4), (":2", 3), ("1:3", 3), ("0:4", 5)])
def test_nodes_of_a_range_are_counted(target: str, nodes: int) -> None:
    held = {"consumableResourceList": [{"consumableResource": "l", "quantity": 1}]}
    ranges = [{"targetNodes": target, "consumableResourceProperties": held}]
    job = {"jobId": "j", "nodeProperties": {"numNodes": 5, "nodeRangeProperties": ranges}}
    assert parse_job(job).consumables == (("l", nodes),)


def test_shared_files_are_told_as_such_and_not_as_properties() -> None:
    """All jobs of a deployment have them; a volume of one's own is a property."""
    container: dict[str, Any] = {"environment": []}
    shared_files.mount(container, "fs-0123abcd/fsap-4567abcd")
    assert parse_job({"jobId": "1", "container": container}).extras == (
        ("shared files", "fs-0123abcd/fsap-4567abcd at /shared"),
    )
    container["volumes"].append({"name": "own"})
    container["mountPoints"].append({"sourceVolume": "own", "containerPath": "/own"})
    assert parse_job({"jobId": "1", "container": container}).extras[1] == (
        "properties",
        'mountPoints=[{"sourceVolume": "own", "containerPath": "/own"}], volumes=[{"name": "own"}]',
    )
    assert len(container["volumes"]) == 2
