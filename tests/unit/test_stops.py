"""The end of jobs: many that are cancelled at once go together, and one that cannot be ended harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from covalent_cirro.electron.engine.stops import Stops
from covalent_cirro.errors import AccessDenied, AwsError

AT_ONCE = 50


class FakeBatch:
    """AWS Batch as far as TerminateJobs goes."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str]] = []
        self.refused: dict[str, AwsError] = {}
        self.down: AwsError | None = None

    async def terminate(self, job_ids: Sequence[str], reason: str) -> Mapping[str, AwsError]:
        self.calls.append((list(job_ids), reason))
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down
        return {job_id: self.refused[job_id] for job_id in job_ids if job_id in self.refused}


def denied() -> AccessDenied:
    """A policy that does not allow it."""
    return AccessDenied("not authorized", operation="batch:TerminateJob", code="AccessDeniedException")


async def test_a_cancelled_dispatch_is_some_calls() -> None:
    """All that are asked for in a moment go together, in as few calls as AWS allows, each once."""
    batch = FakeBatch()
    stops = Stops(batch.terminate, AT_ONCE)
    ids = [f"job-{number}" for number in range(120)]
    await asyncio.gather(*(stops.end(job_id, "cancelled") for job_id in [*ids, ids[0]]))
    assert sorted(len(asked) for asked, _ in batch.calls) == [20, 50, 50]
    assert sorted(job_id for asked, _ in batch.calls for job_id in asked) == sorted(ids)


async def test_each_reason_is_told() -> None:
    """AWS takes one reason for a call: two dispatches are two calls. What comes later is one more."""
    batch = FakeBatch()
    stops = Stops(batch.terminate, AT_ONCE)
    await asyncio.gather(stops.end("a", "one"), stops.end("b", "two"), stops.end("c", "one"))
    await stops.end("d", "one")
    assert sorted(batch.calls) == [(["a", "c"], "one"), (["b"], "two"), (["d"], "one")]


async def test_a_job_that_cannot_be_ended_harms_no_other() -> None:
    """Its error is told to who asked for it; the others have ended."""
    batch = FakeBatch()
    batch.refused["b"] = denied()
    stops = Stops(batch.terminate, AT_ONCE)
    answers = await asyncio.gather(*(stops.end(job_id, "why") for job_id in "abc"), return_exceptions=True)
    assert answers == [None, batch.refused["b"], None]


async def test_without_aws_all_are_told() -> None:
    """And the next ones are asked for again."""
    batch = FakeBatch()
    batch.down = AwsError("no answer", operation="batch:TerminateJobs", code="EndpointConnectionError", retryable=True)
    stops = Stops(batch.terminate, AT_ONCE)
    with pytest.raises(AwsError, match="no answer"):
        await stops.end("a", "why")
    batch.down = None
    await stops.end("a", "why")
    assert len(batch.calls) == 2


async def test_who_asked_may_go_away() -> None:
    """The job ends nevertheless, also when the engine closes meanwhile."""
    batch = FakeBatch()
    stops = Stops(batch.terminate, AT_ONCE)
    asking = asyncio.create_task(stops.end("a", "why"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await stops.aclose()
    assert batch.calls == [(["a"], "why")]
