"""``cirro jobs``: what runs, waits and has ended, from AWS Batch and S3, without a Covalent server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro import trial
from covalent_cirro.aws.sessions import Access
from covalent_cirro.history import batch_jobs, board, find
from covalent_cirro.history.account import open_account
from covalent_cirro.history.instances import AGAIN_S, Instances
from tests.cli.history.conftest import Lab, poll

cloudpickle.register_pickle_by_value(sys.modules[__name__])

# A process that a shell has put into the background ignores SIGINT, and so do its children unless they say otherwise.
CIRRO = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from covalent_cirro.cli import main; main()",
)

Document = Callable[..., Any]
Cirro = Callable[..., Result]


def add(x: int, y: int) -> int:
    """An electron that ends at once."""
    return x + y


ECS_MAY_TAKE_S = 30.0
"""Several times the few seconds that a command waits for it, and half of what it waits for other services."""

HOST_IS_KNOWN_S = 2.0
"""The runner asks what its host is while the electron runs, and does not wait for the answer."""


def last(seconds: float) -> None:
    """An electron that runs for a while."""
    time.sleep(seconds)


def report_two() -> None:
    """An electron that reports two values."""
    trial.report(0, 0.5)
    trial.report(1, 0.75)


def report_and_wait() -> None:
    """An electron that reports a value, and runs for a while."""
    trial.report(7, 0.25)
    time.sleep(600)


def boom() -> None:
    """An electron that raises."""
    raise ValueError("no such luck")


def wait() -> None:
    """An electron that runs on."""
    time.sleep(600)


def rows(document: Any, dispatch_id: str) -> list[dict[str, Any]]:
    """The rows of a dispatch, in their order."""
    return [row for row in document["jobs"] if row["dispatch_id"] == dispatch_id]


def test_what_runs_comes_first_then_what_waits_then_what_has_ended(lab: Lab, document: Document, cirro: Cirro) -> None:
    """Each with its state since when, its attempt, queue, memory and job."""
    ended = lab.send(add, 1, 2, node_id=3)
    lab.done(ended)
    dispatch = ended.dispatch_id
    failed = lab.send(boom, dispatch_id=dispatch, node_id=4)
    lab.done(failed)
    running = lab.send(wait, dispatch_id=dispatch, node_id=5)
    lab.reach(running, "RUNNING")
    lab.faults.add("stuck", job="wait", reason="MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - no instance is that large")
    waiting = lab.send(wait, dispatch_id=dispatch, node_id=6)
    lab.reach(waiting, "RUNNABLE")
    found = rows(document("jobs"), dispatch)
    assert [(row["node_id"], row["state"]) for row in found] == [
        (5, "RUNNING"),
        (6, "RUNNABLE"),
        (4, "FAILED"),
        (3, "SUCCEEDED"),
    ]
    assert [row["job_id"] for row in found] == [each.job_id for each in (running, waiting, failed, ended)]
    assert [row["electron"] for row in found] == ["wait", "wait", "boom", "add"]
    assert {row["queue"] for row in found} == {"cirro-cpu"}
    assert {row["memory_mib"] for row in found} == {512}
    assert [row["attempt"] for row in found] == [1, 0, 1, 1]
    assert {row["attempts_allowed"] for row in found} == {3}
    assert all(abs(time.time() - row["since"]) < 120 for row in found)
    assert [row["used_bytes"] is not None for row in found] == [False, False, True, True]
    assert "no instance is that large" in found[1]["why"]
    assert "no such luck" in found[2]["why"]
    shown = cirro("jobs", "--dispatch", dispatch[:9])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[1].split()[:3] == ["wait", f"{dispatch[:8]}:5", "RUNNING"]
    assert " ago" in lines[4]
    assert "MiB of 512 MiB" in lines[4]
    assert lines[-2] == "1 RUNNABLE, 1 RUNNING, 1 SUCCEEDED, 1 FAILED"
    assert lines[-1].startswith("1 waits: ")
    assert "no instance is that large" in lines[-1]


def test_those_that_wait_say_their_place_and_why(lab: Lab, document: Document, cirro: Cirro) -> None:
    """The place in the row, the reason once below for all that have the same, with what to change."""
    lab.faults.add("stuck")
    first = lab.send(wait, node_id=1)
    dispatch = first.dispatch_id
    lab.reach(first, "RUNNABLE")
    others = [lab.send(wait, dispatch_id=dispatch, node_id=node) for node in (2, 3)]
    for each in others:
        lab.reach(each, "RUNNABLE")
    found = rows(document("jobs"), dispatch)
    assert [(row["node_id"], row["position"]) for row in found] == [(1, 1), (2, 2), (3, 3)]
    # Instances of the tests before may be there, or none.
    assert {row["reason"] for row in found} <= {"scaling_up", "behind_others"}
    assert all("cirro-cpu" in row["why"] for row in found)
    shown = cirro("jobs", "--dispatch", dispatch).stdout
    assert "number 2" in shown
    told = [line for line in shown.splitlines() if re.match(r"\d waits?: ", line)]
    assert sum(int(line[0]) for line in told) == 3
    assert len(told) == len({row["reason"] for row in found})


def test_where_a_job_runs_is_told(lab: Lab, document: Document, cirro: Cirro, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type and zone of its instance: while it runs as ECS has it, after it as its outcome does; else its queue."""
    ended = lab.send(last, HOST_IS_KNOWN_S, node_id=1)
    lab.done(ended)
    running = lab.send(wait, dispatch_id=ended.dispatch_id, node_id=2)
    lab.reach(running, "RUNNING")
    by_node = {row["node_id"]: row["where"] for row in rows(document("jobs"), ended.dispatch_id)}
    (kind, zone) = by_node[2].split()
    assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", kind)
    assert zone == "us-east-1a"
    assert by_node[1] == by_node[2]
    assert by_node[2] in cirro("jobs", "--dispatch", ended.dispatch_id).stdout
    lab.faults.add("error", service="ecs", operation="DescribeContainerInstances", status=403)
    shown = cirro("jobs", "--dispatch", ended.dispatch_id).stdout.splitlines()
    assert "cirro-cpu" in shown[1]


def test_what_electrons_report_is_listed(lab: Lab, document: Document, cirro: Cirro) -> None:
    """While they run and afterwards, for the list of one dispatch."""
    ended = lab.send(report_two)
    lab.done(ended)
    running = lab.send(report_and_wait, dispatch_id=ended.dispatch_id, node_id=2)
    lab.reach(running, "RUNNING")

    def told() -> dict[int, str]:
        found = document("jobs", "--dispatch", ended.dispatch_id)["jobs"]
        return {row["node_id"]: row["reported"] for row in found}

    poll(lambda: told()[2], "the value of the electron that runs is there")
    assert told() == {ended.node_id: "0.75 at step 1; least 0.5 at 0, most 0.75 at 1", 2: "0.25 at step 7"}
    shown = cirro("jobs", "--dispatch", ended.dispatch_id).stdout
    assert "reported" in shown.splitlines()[0]
    assert "0.25 at step 7" in shown


def test_the_list_does_not_wait_for_an_ecs_that_fails(lab: Lab, cirro: Cirro) -> None:
    """Rows are there without their instance, and stderr says why; so does the list of one electron."""
    running = lab.send(wait)
    lab.reach(running, "RUNNING")
    lab.faults.add("error", service="ecs", status=500)
    began = time.monotonic()
    shown = cirro("jobs", "--dispatch", running.dispatch_id)
    assert time.monotonic() - began < ECS_MAY_TAKE_S
    assert shown.exit_code == 0, shown.output
    row = shown.stdout.splitlines()[1]
    assert "RUNNING" in row
    assert "cirro-cpu" in row
    assert "where jobs run is not shown: ecs:DescribeContainerInstances" in shown.stderr
    of_one = cirro("show", running.name)
    assert of_one.exit_code == 0, of_one.output
    assert "where jobs run is not shown" in of_one.stderr


def test_an_ecs_that_failed_is_asked_again_later(lab: Lab) -> None:
    """Not at each update, of which each would be waited for."""
    running = lab.send(wait)
    lab.reach(running, "RUNNING")
    now = 1000.0
    with open_account(Access(None, None, None, None), "cirro") as opened:
        hosts = Instances(opened, clock=lambda: now)
        (record,) = batch_jobs.describe(opened, [running.job_id])
        lab.faults.add("error", service="ecs", status=500)
        assert hosts.of([record]) == {}
        assert hosts.problem
        calls = opened.clients.calls
        assert hosts.of([record]) == {}
        assert opened.clients.calls == calls
        lab.faults.clear()
        now += AGAIN_S
        assert hosts.of([record])[running.job_id].instance_type
        assert not hosts.problem


@pytest.mark.parametrize(
    "words", [("jobs",), ("jobs", "--all"), ("stop", "--all", "--yes"), ("estimate", "--minutes", "1")]
)
def test_a_region_without_our_queues_is_no_empty_list(lab: Lab, cirro: Cirro, words: tuple[str, ...]) -> None:
    """It is mostly the wrong one: exit code 1, with what was looked for, where, and what to give."""
    result = cirro(*words, "--region", "eu-west-3")
    assert result.exit_code == 1
    assert "region eu-west-3 has no job queue" in result.stderr
    assert "--stack-name" in result.stderr


def test_jobs_of_others_are_not_electrons(lab: Lab, document: Document) -> None:
    """Not even one that has an electron's name: the tags tell."""
    mine = lab.send(wait)
    name = lab.job(mine.job_id)["jobName"]
    strangers = {lab.others(), lab.others(name)}
    listed = {row["job_id"] for row in document("jobs", "--all")["jobs"]}
    assert mine.job_id in listed
    assert not strangers & listed


def test_one_dispatch_is_named_by_the_beginning_of_its_id(lab: Lab, document: Document, cirro: Cirro) -> None:
    """An unknown beginning, or that of several, is told with the ids that there are; exit code 1."""
    one = lab.send(add, 1, 2, dispatch_id="aaaa1111-0000-4000-8000-000000000001")
    other = lab.send(add, 1, 2, dispatch_id="aaaa2222-0000-4000-8000-000000000002")
    lab.done(one), lab.done(other)
    assert [row["job_id"] for row in document("jobs", "--dispatch", "aaaa1")["jobs"]] == [one.job_id]
    assert [row["job_id"] for row in document("jobs", "--dispatch", other.dispatch_id)["jobs"]] == [other.job_id]
    ambiguous = cirro("jobs", "--dispatch", "aaaa")
    assert ambiguous.exit_code == 1
    assert one.dispatch_id in ambiguous.stderr
    assert other.dispatch_id in ambiguous.stderr
    unknown = cirro("jobs", "--dispatch", "ffffffff")
    assert unknown.exit_code == 1
    assert "no dispatch has an id that begins with 'ffffffff'" in unknown.stderr
    assert other.dispatch_id in unknown.stderr


def test_electrons_are_told_apart_by_their_arguments(lab: Lab, document: Document, cirro: Cirro) -> None:
    """By those that differ, from the jobs, and from the calls once AWS Batch has forgotten the jobs."""
    one = lab.send(add, 1, 40, node_id=1)
    other = lab.send(add, 2, 40, dispatch_id=one.dispatch_id, node_id=2)
    alone = lab.send(last, 0, dispatch_id=one.dispatch_id, node_id=3)
    for each in (one, other, alone):
        lab.done(each)
    for is_known in (True, False):
        found = {row["node_id"]: row["arguments"] for row in document("jobs", "--dispatch", one.dispatch_id)["jobs"]}
        assert found == {1: {"x": "1", "y": "40"}, 2: {"x": "2", "y": "40"}, 3: {"seconds": "0"}}
        table = cirro("jobs", "--dispatch", one.dispatch_id).stdout
        assert "arguments" in table
        assert "x=1 " in table
        assert "x=2 " in table
        assert "y=40" not in table
        assert "seconds" not in table
        for each in (one, other, alone):
            if is_known:
                lab.forget(each)


def test_a_dispatch_is_listed_after_aws_batch_has_forgotten_it(lab: Lab, document: Document) -> None:
    """From the outcomes in S3; a call without an outcome has nobody who knows."""
    good = lab.send(add, 1, 2, node_id=1)
    bad = lab.send(boom, dispatch_id=good.dispatch_id, node_id=2)
    killed = lab.send(wait, dispatch_id=good.dispatch_id, node_id=3)
    lab.batch.terminate_job(jobId=killed.job_id, reason="before it runs")
    for each in (good, bad, killed):
        lab.done(each)
        lab.forget(each)
    found = {row["node_id"]: row for row in document("jobs", "--dispatch", good.dispatch_id)["jobs"]}
    assert {node: row["state"] for node, row in found.items()}.items() >= {1: "SUCCEEDED", 2: "FAILED"}.items()
    assert found[1]["job_id"] == good.job_id
    assert found[1]["electron"] == "add"
    assert "no such luck" in found[2]["why"]
    assert 3 in found


def test_a_call_that_was_never_submitted_is_told(lab: Lab, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and no job of it; a young one may be on its way."""
    dispatch_id = lab.upload(add, 1, 2, node_id=7)
    assert rows(document("jobs", "--dispatch", dispatch_id), dispatch_id)[0]["why"] == "It is being submitted"
    monkeypatch.setattr("covalent_cirro.history.electron_list.SUBMITTED_WITHIN_S", 0.0)
    (row,) = document("jobs", "--dispatch", dispatch_id)["jobs"]
    assert (row["node_id"], row["electron"], row["state"], row["job_id"]) == (7, "add", "-", "")
    assert "not submitted" in row["why"]


def test_what_ended_days_ago_is_listed_with_all_only(
    lab: Lab, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has not ended is always listed, however old it is."""
    ended, running = lab.send(add, 1, 2), lab.send(wait)
    lab.done(ended), lab.reach(running, "RUNNING")
    monkeypatch.setattr(find.recent, "__defaults__", (-60.0,))  # a day that has not begun
    assert {row["job_id"] for row in document("jobs")["jobs"]} == {running.job_id}
    assert {row["job_id"] for row in document("jobs", "--all")["jobs"]} >= {ended.job_id, running.job_id}


def test_an_electron_in_a_queue_of_its_own_is_found(lab: Lab, document: Document) -> None:
    """It has another queue than the config's and the deployment's: all queues are looked into for what is missing."""
    (environment,) = lab.batch.describe_job_queues(jobQueues=["cirro-cpu"])["jobQueues"][0]["computeEnvironmentOrder"][
        :1
    ]
    lab.batch.create_job_queue(jobQueueName="apart", priority=1, computeEnvironmentOrder=[environment])
    sent = lab.send(wait, batch_queue="apart")
    lab.reach(sent, "RUNNING")
    (row,) = document("jobs", "--dispatch", sent.dispatch_id)["jobs"]
    assert (row["job_id"], row["queue"]) == (sent.job_id, "apart")


def test_an_electron_in_a_bucket_of_its_own_is_found(lab: Lab, document: Document) -> None:
    """AWS Batch knows it, where the config's bucket does not."""
    lab.account.client("s3").create_bucket(Bucket="another-bucket")
    sent = lab.send(add, 1, 2, s3_bucket_name="another-bucket", node_id=2)
    lab.done(sent)
    (row,) = document("jobs", "--dispatch", sent.dispatch_id)["jobs"]
    assert row["job_id"] == sent.job_id
    assert row["used_bytes"] > 0
    assert document("show", sent.name)["end"] == "succeeded"


def test_a_throttled_api_is_asked_again(lab: Lab, document: Document) -> None:
    """More slowly, and nothing is left out."""
    sent = lab.send(wait)
    lab.faults.add("throttle", service="batch", count=12)
    assert sent.job_id in {row["job_id"] for row in document("jobs")["jobs"]}


def test_a_look_asks_for_100_jobs_at_a_time_and_the_next_one_costs_little(lab: Lab, terminal: Path) -> None:
    """The first searches all queues; later ones ask for what has not ended, and for what is new."""
    first = lab.send(wait)
    name, definition = (lab.job(first.job_id)[key] for key in ("jobName", "jobDefinition"))
    tags = lab.job(first.job_id)["tags"]
    lab.faults.add("stuck")
    lab.reach(first, "RUNNING")
    many = [
        lab.batch.submit_job(jobName=name, jobQueue="cirro-cpu", jobDefinition=definition, tags=tags)["jobId"]
        for _ in range(150)
    ]
    lab._sent.extend(many)
    with open_account(Access(None, None, None, None), "cirro") as account:
        looked = board.Board(account, None)
        counted = lab.account.emulator.calls
        counted.reset()
        assert {row.job_id for row in looked.look()} >= {first.job_id, *many}
        calls = {key: each["count"] for key, each in counted.counts("client").items()}
        assert calls["batch:DescribeJobs"] <= 3
        counted.reset()
        new = lab.send(wait)
        before = counted.counts("client").get("batch:ListJobs", {"count": 0})["count"]
        assert new.job_id in {row.job_id for row in looked.look()}
        calls = {key: each["count"] for key, each in counted.counts("client").items()}
        assert calls["batch:ListJobs"] - before <= 4 + 1
        assert calls["batch:DescribeJobs"] <= 3
        assert looked.pause_s >= board.EVERY_S
        assert len(account.queues.ours) == 4
        assert batch_jobs.MAX_DESCRIBED == 100


def test_watch_shows_what_changes_until_it_is_interrupted(lab: Lab, terminal: Path, tmp_path: Path) -> None:
    """As a process of its own; Ctrl-C ends it with exit code 0."""
    sent = lab.send(wait, node_id=9)
    lab.reach(sent, "RUNNING")
    shown = tmp_path / "shown"
    with shown.open("w") as file:
        process = subprocess.Popen(
            [*CIRRO, "jobs", "--watch"],
            env={**os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            name = f"{sent.dispatch_id[:8]}:9"
            poll(lambda: f"{name}  RUNNING" in shown.read_text(), "the running electron is shown")
            lab.batch.terminate_job(jobId=sent.job_id, reason="enough")
            poll(lambda: f"{name}  FAILED" in shown.read_text(), "its end is shown")
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 0, shown.read_text()
        finally:
            process.kill()
    assert "Traceback" not in shown.read_text()


def test_watch_and_json_are_wrong_usage(lab: Lab, cirro: Cirro) -> None:
    """Exit code 2; so is a node where a dispatch is wanted."""
    assert cirro("jobs", "--watch", "--json").exit_code == 2
    assert cirro("jobs", "--dispatch", "abc:3").exit_code == 2


def test_a_refusal_is_told_in_awss_words(lab: Lab, cirro: Cirro, terminal: Path) -> None:
    """Exit code 1, no traceback."""
    config = terminal / "covalent.conf"
    config.write_text(config.read_text().replace(lab.account.settings["s3_bucket_name"], "a-bucket-that-is-not-there"))
    result = cirro("jobs", "--dispatch", "abc")
    assert result.exit_code == 1
    assert "NoSuchBucket" in result.stderr
