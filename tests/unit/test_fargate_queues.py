"""What a job on Fargate has to know of its queue, and a queue of the other platform."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro.aws.batch import Submission, _about_queue
from covalent_cirro.electron.engine.fargate_queues import FRESH_S, FargateQueue, FargateQueues
from covalent_cirro.errors import AccessDenied, AwsError, SettingsError
from covalent_cirro.jobs.queues import Environment, Queue


def environment(kind: str) -> Environment:
    """A compute environment of a type, with one subnet."""
    return Environment(f"e-{kind}", "arn", "ENABLED", "VALID", "", kind, 0, 8, (), ("subnet-1",), "", "")


class FakeCapacity:
    """What AWS says of queue ``q``.

    Attributes:
        calls: How often it was asked.
    """

    def __init__(self, kinds: tuple[str, ...], *, public: bool = True, denied: bool = False) -> None:
        self.calls = 0
        self._kinds, self._public, self._denied = kinds, public, denied

    async def queues(self, names: list[str]) -> list[Queue]:
        self.calls += 1
        return [Queue("q", "arn:q", "ENABLED", "VALID", "", self._kinds, "cirro")] if self._kinds else []

    async def environments(self, arns: tuple[str, ...]) -> list[Environment]:
        return [environment(kind) for kind in arns]

    async def are_public(self, subnets: set[str]) -> bool:
        if self._denied:
            raise AccessDenied("no", operation="ec2:DescribeSubnets", code="AccessDenied")
        return self._public and bool(subnets)


def queues(capacity: Any, clock: list[float]) -> FargateQueues:
    """The queues, with a clock."""
    return FargateQueues(capacity, clock=lambda: clock[0])


@pytest.mark.parametrize("public", [True, False])
async def test_a_job_has_a_public_address_in_public_subnets_only(public: bool) -> None:
    """As an instance there has; asked for once an hour."""
    capacity, clock = FakeCapacity(("FARGATE_SPOT", "FARGATE"), public=public), [0.0]
    found = queues(capacity, clock)
    assert [await found.of("q", "batch_fargate_queue") for _ in range(3)] == [FargateQueue(public, "cirro")] * 3
    assert capacity.calls == 1
    clock[0] += FRESH_S
    assert (await found.of("q", "batch_fargate_queue")).public_ip is public
    assert capacity.calls == 2


async def test_subnets_that_are_hidden_count_as_public(caplog: pytest.LogCaptureFixture) -> None:
    """Without an address a job in a public subnet could not pull its image. The log names what is missing."""
    found = await queues(FakeCapacity(("FARGATE",), denied=True), [0.0]).of("q", "batch_fargate_queue")
    assert found == FargateQueue(public_ip=True, deployment="cirro")
    assert found.tags == {"covalent-cirro": "cirro"}
    assert "public addresses" in caplog.text


async def test_a_queue_of_instances_is_refused() -> None:
    """Before a job definition is registered, with the setting and the way to a queue for Fargate."""
    with pytest.raises(SettingsError, match=r"batch_queue='q'.*e-SPOT.*FargateMaxVcpus"):
        await queues(FakeCapacity(("SPOT", "EC2")), [0.0]).of("q", "batch_queue")


async def test_a_queue_that_does_not_exist_is_left_to_submit_job() -> None:
    """Which says so, with the setting's name."""
    assert await queues(FakeCapacity(()), [0.0]).of("q", "batch_fargate_queue") == FargateQueue(public_ip=False)


def test_a_queue_of_the_other_platform_is_explained() -> None:
    """AWS's words, then the setting, and what to set instead."""
    words = "Job Queue is attached to Compute Environment that can not run Jobs with capability EC2."
    error = AwsError(words, operation="batch:SubmitJob", code="ClientException")
    submission = Submission("n", "cirro-fargate", "batch_queue", "d:1", {}, 1, 60, {})
    found = _about_queue(error, submission)
    assert isinstance(found, SettingsError)
    assert words in str(found)
    assert "batch_queue='cirro-fargate'" in str(found)
    assert 'set platform="FARGATE"' in str(found)
