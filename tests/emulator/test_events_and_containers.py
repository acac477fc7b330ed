"""Events to EventBridge; and jobs as containers of their images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from covalent_cirro.emulator import Emulator
from covalent_cirro.emulator.attempts import Spec
from covalent_cirro.emulator.containers import Containers, options
from covalent_cirro.errors import EmulatorError


def test_each_change_of_state_is_an_event(aws: Any, poll: Any) -> None:
    """In a queue that a rule feeds: in order, with the job's detail, and none for SUBMITTED."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName=aws.name("events"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    queue = aws.queue()
    queue_arn = aws.batch.describe_job_queues(jobQueues=[queue])["jobQueues"][0]["jobQueueArn"]
    rule = aws.name("rule")
    pattern = {"source": ["aws.batch"], "detail": {"jobQueue": [queue_arn]}}
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    job = aws.done(aws.submit("sh", "-c", "exit 4", queue=queue))
    aws.done(aws.submit("true"))  # of another queue: no event
    got: list[dict[str, Any]] = []

    def received() -> bool:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        got.extend(json.loads(message["Body"]) for message in messages)
        return len(got) >= 4

    poll(received, "four events")
    assert [event["detail"]["status"] for event in got] == ["RUNNABLE", "STARTING", "RUNNING", "FAILED"]
    assert {event["detail"]["jobId"] for event in got} == {job["jobId"]}
    last = got[-1]
    assert last["detail-type"] == "Batch Job State Change"
    assert last["account"] == aws.emulator.account
    assert last["resources"] == [job["jobArn"]]
    assert last["detail"]["container"]["exitCode"] == 4


def test_what_a_container_is_asked_for() -> None:
    """Memory, shared memory, host network, user, limits, GPUs."""
    spec = Spec(
        task_id="t",
        image="image",
        command=["a", "b"],
        environment={"A": "b"},
        memory_mib=512,
        shm_mib=128,
        gpus=(0, 2),
        options={
            "user": "nobody",
            "privileged": False,
            "linuxParameters": {"initProcessEnabled": True},
            "ulimits": [{"name": "memlock", "softLimit": -1, "hardLimit": -1}],
        },
    )
    asked = options(spec)
    (gpus,) = asked.pop("device_requests")
    (limit,) = asked.pop("ulimits")
    assert gpus["DeviceIDs"] == ["0", "2"]
    assert (limit["Name"], limit["Soft"]) == ("memlock", -1)
    assert asked == {
        "command": ["a", "b"],
        "environment": {"A": "b"},
        "network_mode": "host",
        "mem_limit": "512m",
        "shm_size": "128m",
        "labels": {"covalent-cirro-emulator": "t"},
        "init": True,
        "privileged": False,
        "read_only": False,
        "user": "nobody",
        "detach": True,
    }


def test_no_engine_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(EmulatorError, match="no Docker engine answers"):
        Containers.connect()


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """An emulator that runs containers, where an engine answers."""
    from tests.emulator.conftest import Aws

    try:
        emulator = Emulator(docker=True).start()
    except EmulatorError as error:
        pytest.skip(str(error))
    try:
        yield Aws(emulator)
    finally:
        emulator.close()


@pytest.mark.container
def test_a_job_runs_in_its_image(engine: Any) -> None:
    """Its output, its exit code, and the emulated AWS at the same address."""
    definition = engine.definition("sh", "-c", "cat /etc/alpine-release; exit 5", image="alpine:3")
    job = engine.done(engine.submit(definition=definition))
    assert job["container"]["exitCode"] == 5
    assert engine.log(job)[0].startswith("3.")


@pytest.mark.container
def test_an_image_that_does_not_exist(engine: Any) -> None:
    """Cannot be pulled."""
    definition = engine.definition("true", image="127.0.0.1:1/nothing:1")
    job = engine.done(engine.submit(definition=definition))
    assert job["container"]["reason"].startswith("CannotPullContainerError: ")
