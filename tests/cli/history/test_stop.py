"""``cirro stop``: ends the jobs that were named in every state, and no others, without a Covalent server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro.jobs import states
from covalent_cirro.jobs.states import parse_job
from covalent_cirro.local.emulator.batch import batch_api
from tests.cli.history.conftest import Lab

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Document = Callable[..., Any]
Cirro = Callable[..., Result]


def add(x: int, y: int) -> int:
    """An electron that ends at once."""
    return x + y


def wait() -> None:
    """An electron that runs on."""
    time.sleep(600)


@pytest.fixture
def starting(lab: Lab) -> Iterator[None]:
    """Jobs stay in STARTING for a while: their image is large."""
    timing = lab.account.emulator.batch(lab.account.emulator.region).scheduler.timing
    object.__setattr__(timing, "starting_s", 4.0)
    yield
    object.__setattr__(timing, "starting_s", 0.0)


def ids(entries: list[dict[str, Any]]) -> set[str]:
    """Their jobs."""
    return {entry["job_id"] for entry in entries}


def test_a_running_electron_is_stopped_and_a_server_takes_it_for_cancelled(lab: Lab, document: Document) -> None:
    """By its reason, which says who it was."""
    sent = lab.send(wait)
    lab.reach(sent, "RUNNING")
    told = document("stop", sent.name)
    assert ids(told["stopped"] + told["stopping"]) == {sent.job_id}
    ended = lab.done(sent)
    assert states.was_cancelled_by_us(parse_job(ended))
    assert "cirro stop, by " in ended["statusReason"]


def test_a_job_that_waits_for_a_machine_is_stopped(lab: Lab, document: Document, cirro: Cirro) -> None:
    """At once, and it never runs."""
    lab.faults.add("stuck")
    sent = lab.send(wait)
    lab.reach(sent, "RUNNABLE")
    result = cirro("stop", sent.name)
    assert result.exit_code == 0
    assert f"stopped wait {sent.dispatch_id[:8]}:0 (job {sent.job_id})" in result.stdout
    lab.faults.clear()
    assert lab.done(sent)["attempts"] == []


@pytest.mark.usefixtures("starting")
def test_a_job_whose_image_is_pulled_is_stopped(lab: Lab, document: Document) -> None:
    """STARTING: it has a machine and no container."""
    sent = lab.send(wait)
    lab.reach(sent, "STARTING")
    told = document("stop", sent.name)
    assert ids(told["stopped"] + told["stopping"]) == {sent.job_id}
    assert lab.done(sent)["status"] == "FAILED"


def test_a_job_that_waits_for_another_is_stopped(lab: Lab, document: Document) -> None:
    """PENDING: it depends on a job that runs, and that goes on."""
    first = lab.send(wait)
    lab.reach(first, "RUNNING")
    job = lab.job(first.job_id)
    second = lab.batch.submit_job(
        jobName=job["jobName"].replace("-0-", "-1-"),
        jobQueue="cirro-cpu",
        jobDefinition=job["jobDefinition"],
        parameters=job["parameters"],
        tags={**job["tags"], "covalent:node": "1"},
        dependsOn=[{"jobId": first.job_id}],
    )["jobId"]
    lab._sent.append(second)
    lab.reach(second, "PENDING")
    told = document("stop", first.dispatch_id)
    assert ids(told["stopped"] + told["stopping"]) == {first.job_id, second}
    lab.done(second)


def test_what_has_ended_is_told_and_stays_as_it_is(lab: Lab, document: Document, cirro: Cirro) -> None:
    """Its result is not touched."""
    sent = lab.send(add, 1, 2)
    lab.done(sent)
    told = document("stop", sent.name)
    assert (told["stopped"], told["stopping"]) == ([], [])
    assert ids(told["ended"]) == {sent.job_id}
    assert lab.job(sent.job_id)["status"] == "SUCCEEDED"
    assert "had already ended: add" in cirro("stop", sent.name).stdout


def test_one_electron_of_a_dispatch_and_nothing_else(lab: Lab, document: Document) -> None:
    """Its neighbours, other dispatches and jobs of others run on."""
    one = lab.send(wait, node_id=1)
    neighbour = lab.send(wait, dispatch_id=one.dispatch_id, node_id=11)
    stranger, other = lab.send(wait, node_id=1), lab.others(lab.job(one.job_id)["jobName"])
    for each in (one, neighbour, stranger):
        lab.reach(each, "RUNNING")
    document("stop", one.name)
    assert lab.done(one)["status"] == "FAILED"
    for job_id in (neighbour.job_id, stranger.job_id, other):
        assert not lab.job(job_id).get("isTerminated"), job_id
    told = document("stop", one.dispatch_id)
    assert ids(told["stopped"] + told["stopping"]) == {neighbour.job_id}
    assert ids(told["ended"]) == {one.job_id}
    assert not lab.job(stranger.job_id).get("isTerminated")


def test_several_at_once(lab: Lab, document: Document) -> None:
    """Dispatches and electrons, in one call; one that is named twice is stopped once."""
    lab.faults.add("stuck")
    one, two = lab.send(wait, node_id=1), lab.send(wait, node_id=2)
    three = lab.send(wait, dispatch_id=two.dispatch_id, node_id=3)
    told = document("stop", one.name, two.dispatch_id, three.name)
    assert sorted(ids(told["stopped"])) == sorted({one.job_id, two.job_id, three.job_id})
    assert len(told["stopped"]) == 3


def test_nothing_is_stopped_where_a_name_is_wrong(lab: Lab, cirro: Cirro) -> None:
    """All names are looked at first; exit code 1."""
    sent = lab.send(wait)
    result = cirro("stop", sent.dispatch_id, "ffffffff")
    assert result.exit_code == 1
    assert "ffffffff" in result.stderr
    assert not lab.job(sent.job_id).get("isTerminated")


def test_all_asks_first(lab: Lab, cirro: Cirro, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without somebody to ask it is wrong usage; no is no; --yes does not ask. Jobs of others run on."""
    lab.faults.add("stuck")
    sent, more, other = lab.send(wait), lab.send(wait), lab.others()
    assert cirro("stop", "--all").exit_code == 2
    monkeypatch.setattr("covalent_cirro.cli.render.interactive", lambda: True)
    answers = iter([False, True])
    asked: list[str] = []
    monkeypatch.setattr(
        "covalent_cirro.cli.render.confirm", lambda question: bool(asked.append(question) or next(answers))
    )
    declined = cirro("stop", "--all")
    assert declined.exit_code == 1
    assert "you said no" in declined.stderr
    assert "2 jobs of 2 dispatches" in declined.stdout
    assert not lab.job(sent.job_id).get("isTerminated")
    assert cirro("stop", "--all").exit_code == 0
    assert {lab.done(each)["status"] for each in (sent, more)} == {"FAILED"}
    assert not lab.job(other).get("isTerminated")
    assert len(asked) == 2
    assert document("stop", "--all", "--yes") == {
        "stopped": [],
        "stopping": [],
        "ended": [],
        "refused": {},
        "calls_without_job": 0,
        "items": [],
    }
    assert cirro("stop", "--all", "--yes").stdout.splitlines()[-1] == "nothing to stop"


@pytest.mark.parametrize("words", [(), ("abc", "--all")])
def test_wrong_usage(cirro: Cirro, words: tuple[str, ...]) -> None:
    """Something has to be named, and not everything besides; exit code 2."""
    assert cirro("stop", *words).exit_code == 2


def _many(lab: Lab, number: int) -> tuple[str, list[str]]:
    lab.faults.add("stuck")
    first = lab.send(wait)
    job = lab.job(first.job_id)
    made = [
        lab.batch.submit_job(
            jobName=job["jobName"], jobQueue="cirro-cpu", jobDefinition=job["jobDefinition"], tags=job["tags"]
        )["jobId"]
        for _ in range(number - 1)
    ]
    lab._sent.extend(made)
    return first.dispatch_id, [first.job_id, *made]


def test_many_are_stopped_50_in_a_call(lab: Lab, document: Document) -> None:
    """TerminateJobs takes no more."""
    dispatch_id, made = _many(lab, 120)
    lab.account.emulator.calls.reset()
    told = document("stop", dispatch_id)
    counts = lab.account.emulator.calls.counts("client")
    assert ids(told["stopped"]) == set(made)
    assert counts["batch:TerminateJobs"]["count"] == 3
    assert "batch:TerminateJob" not in counts


def test_an_endpoint_without_bulk_calls_is_asked_one_by_one(
    lab: Lab, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TerminateJobs is younger than AWS Batch."""
    dispatch_id, made = _many(lab, 3)
    monkeypatch.delitem(batch_api.OPERATIONS, "TerminateJobs")
    assert ids(document("stop", dispatch_id)["stopped"]) == set(made)


def test_what_the_bulk_call_refuses_is_asked_for_again(
    lab: Lab, document: Document, cirro: Cirro, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself; what is refused then too is told in AWS's words, with exit code 1."""
    dispatch_id, made = _many(lab, 3)
    whole = batch_api.OPERATIONS["TerminateJobs"]

    def partly(batch: Any, request: Any, size: int) -> Any:
        first, *rest = request["jobs"]
        whole(batch, {**request, "jobs": rest}, size)
        return {"successful": rest, "errors": [{"job": first, "code": "ServerException", "message": "not now"}]}

    monkeypatch.setitem(batch_api.OPERATIONS, "TerminateJobs", partly)
    single = batch_api.OPERATIONS["TerminateJob"]

    def never(batch: Any, request: Any, size: int) -> Any:
        raise batch_api.ServiceError("this one is sacred")

    monkeypatch.setitem(batch_api.OPERATIONS, "TerminateJob", never)
    result = cirro("stop", dispatch_id, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert len(told["stopped"]) == 2
    ((job_id, words),) = told["refused"].items()
    assert "this one is sacred" in words
    monkeypatch.setitem(batch_api.OPERATIONS, "TerminateJob", single)
    assert ids(document("stop", dispatch_id)["stopped"]) == {job_id}
    assert {job_id, *ids(told["stopped"])} == set(made)


def test_throttled_calls_are_made_again(lab: Lab, document: Document) -> None:
    """Until all are stopped."""
    dispatch_id, made = _many(lab, 60)
    lab.faults.add("throttle", service="batch", count=12)
    assert ids(document("stop", dispatch_id)["stopped"]) == set(made)


def test_jobs_that_come_meanwhile_are_stopped_too(
    lab: Lab, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is still submitting does not slip one through."""
    dispatch_id, made = _many(lab, 2)
    whole = batch_api.OPERATIONS["TerminateJobs"]
    late: list[str] = []

    def and_one_more(batch: Any, request: Any, size: int) -> Any:
        if not late:
            job = lab.job(made[0])
            late.append(
                lab.batch.submit_job(
                    jobName=job["jobName"], jobQueue="cirro-cpu", jobDefinition=job["jobDefinition"], tags=job["tags"]
                )["jobId"]
            )
        return whole(batch, request, size)

    monkeypatch.setitem(batch_api.OPERATIONS, "TerminateJobs", and_one_more)
    assert ids(document("stop", dispatch_id)["stopped"]) == {*made, *late}
    assert late


def test_a_call_that_is_about_to_be_submitted_is_told(lab: Lab, cirro: Cirro) -> None:
    """Nothing can stop it from here: the server is named, which can."""
    dispatch_id = lab.upload(wait)
    result = cirro("stop", dispatch_id)
    assert result.exit_code == 0
    assert "1 electrons have no job" in result.stderr
    assert "cancel the dispatch there" in result.stderr
