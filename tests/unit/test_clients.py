"""Clients for commands: each made once, all with one session, and with calls that can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from covalent_cirro.aws.capacity import Capacity, JobCount
from covalent_cirro.aws.clients import Awaited, Clients, run_blocking
from covalent_cirro.aws.sessions import Access
from covalent_cirro.errors import AwsError

ACCESS = Access(profile=None, credentials=None, region="eu-west-1", endpoint_url="http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def test_a_client_is_made_once() -> None:
    """For each service and region; all of them sign with the same credentials."""
    clients = Clients(ACCESS)
    sts = clients("sts")
    assert clients("sts") is sts
    assert clients("sts", "us-west-2") is not sts
    assert clients("sts", "us-west-2").meta.region_name == "us-west-2"
    assert clients("batch")._request_signer._credentials is sts._request_signer._credentials


def test_the_region_is_known_without_a_client() -> None:
    """From the access, or from AWS's chain."""
    clients = Clients(ACCESS)
    assert clients.region == "eu-west-1"
    assert clients._clients == {}


def test_calls_are_counted() -> None:
    """Those of all clients, pages included, whether or not they are awaited."""
    clients = Clients(ACCESS)
    batch = clients("batch")
    pages = iter([b'{"jobQueues": [], "nextToken": "more"}', b'{"jobQueues": []}'])
    batch.meta.events.register("before-send", lambda request, **_: _answer(request.url, next(pages)))
    list(batch.get_paginator("describe_job_queues").paginate())
    assert clients.calls == 2


def test_errors_become_ours() -> None:
    """Inside the block that asks, with the operation's name."""
    clients = Clients(ACCESS)
    refused = b'{"message": "no such thing"}'
    clients("batch").meta.events.register("before-send", lambda request, **_: _answer(request.url, refused, 400))
    said = pytest.raises(AwsError, match=r"batch:DescribeJobs for job 1: AWS said .*no such thing")
    with said, clients.asking("batch:DescribeJobs", of="job 1") as batch:
        batch.describe_jobs(jobs=["1"])


def _answer(url: str, body: bytes, status: int = 200) -> AWSResponse:
    class Raw:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield body

    return AWSResponse(url, status, {"content-type": "application/json"}, Raw())


# --- what stands behind queues, by clients whose calls are awaited ----------------------------------------------------


class Batch:
    """Two queues that share a compute environment, one page each; and a state with more jobs than are counted."""

    def get_paginator(self, operation: str) -> Any:
        """A paginator."""
        return self if operation == "describe_job_queues" else Environments()

    def paginate(self, jobQueues: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The queues."""
        yield {"jobQueues": [_queue("cpu", ["arn:on-demand", "arn:spot"])]}
        yield {"jobQueues": [_queue("gpu", ["arn:spot", "arn:gone"])]}

    def list_jobs(self, *, jobQueue: str, jobStatus: str, nextToken: str = "") -> dict[str, Any]:
        """A page of a thousand jobs, and more after it."""
        return {"jobSummaryList": [{}] * 1000, "nextToken": f"{nextToken}+"}


class Environments:
    """The two compute environments, in another order than any queue has them."""

    def paginate(self, computeEnvironments: list[str]) -> Iterator[dict[str, Any]]:
        """They."""
        for name in ("spot", "on-demand"):
            described = {"computeEnvironmentName": name, "computeEnvironmentArn": f"arn:{name}"}
            yield {"computeEnvironments": [described] if f"arn:{name}" in computeEnvironments else []}


def _queue(name: str, environments: list[str]) -> dict[str, Any]:
    order = [{"order": index, "computeEnvironment": arn} for index, arn in enumerate(environments)]
    return {"jobQueueName": name, "jobQueueArn": f"arn:{name}", "state": "ENABLED", "computeEnvironmentOrder": order}


@pytest.fixture
def capacity() -> Capacity:
    """Of `Batch`."""

    async def client(service: str) -> Any:
        return Awaited(Batch())

    return Capacity(client, ACCESS)


async def test_environments_are_in_the_order_of_their_queue(capacity: Capacity) -> None:
    """Also where two queues share one; those that are gone are left out."""
    found = await capacity.environments_of(["cpu", "gpu", ""])
    assert {name: [each.name for each in some] for name, some in found.items()} == {
        "cpu": ["on-demand", "spot"],
        "gpu": ["spot"],
    }
    assert [each.name for each in await capacity.environments(["arn:on-demand", "arn:spot"])] == ["on-demand", "spot"]


async def test_nothing_is_asked_for_no_queue(capacity: Capacity) -> None:
    """Without names AWS would describe all."""
    assert await capacity.environments_of([""]) == {}
    assert await capacity.environments([]) == []


@pytest.mark.parametrize(("state", "count"), [("RUNNABLE", JobCount(10_000, True)), ("FAILED", JobCount(1000, True))])
async def test_counting_ends(capacity: Capacity, state: str, count: JobCount) -> None:
    """After ten pages of jobs that have not ended, and one of those that have."""
    assert await capacity.count_jobs("cpu", state) == count
    assert str(count) == f"{count.number}+"


def test_a_coroutine_that_waits_for_something_else_is_refused() -> None:
    """It would need an event loop."""
    with pytest.raises(RuntimeError, match="waits for something else"):
        run_blocking(asyncio.sleep(0))


async def test_blocking_calls_need_no_event_loop(capacity: Capacity) -> None:
    """And do not mind one that runs."""
    assert [each.name for each in run_blocking(capacity.queues())] == ["cpu", "gpu"]


# --- access -----------------------------------------------------------------------------------------------------------


def test_an_access_is_completed_by_the_executors_settings() -> None:
    """What is given wins; a given profile also rules out the settings' credentials file, of another account."""
    section = {"profile": "lab", "credentials": "/keys", "region": "", "endpoint_url": 5, "vcpu": 2}
    assert Access(None, None, None, None).completed(section) == Access("lab", "/keys", None, None)
    assert Access("mine", None, "eu-west-1", None).completed(section) == Access("mine", None, "eu-west-1", None)
