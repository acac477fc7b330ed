"""``cirro show``: the whole story of one electron, while it waits or runs, after it, and long after."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from tests.cli.history.conftest import Lab

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Document = Callable[..., Any]
Cirro = Callable[..., Result]


def fill() -> int:
    """Uses a second of CPU and some memory."""
    held = bytearray(100_000_000)
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    return len(held)


def connect(host: str, password: str) -> str:
    """An electron that gets a credential."""
    return host


def boom() -> None:
    """Raises."""
    raise ValueError("no such luck")


def wait(seconds: float) -> None:
    """Runs on."""
    time.sleep(seconds)


def greet() -> None:
    """Prints."""
    print("hello")


def wait_for(path: str) -> None:
    """Runs until there is a file."""
    while not os.path.exists(path):
        time.sleep(0.05)


def wait_long() -> None:
    """Runs on."""
    time.sleep(600)


def save() -> None:
    """Saves a checkpoint and fails."""
    from covalent_cirro import checkpoint

    (checkpoint.folder() / "epoch").write_text("seven")
    checkpoint.save()
    raise RuntimeError("what has succeeded needs no checkpoint any more")


def report() -> None:
    """Reports two values."""
    from covalent_cirro import trial

    trial.report(0, 0.5)
    trial.report(1, 0.75)


def die() -> None:
    """Takes its runner with it, so that there is no outcome."""
    os.kill(os.getppid(), 9)


def test_an_electron_that_returned(lab: Lab, document: Document, cirro: Cirro) -> None:
    """What it asked for and used, when it did what, and where everything is."""
    sent = lab.send(fill, node_id=7, memory=1, vcpu=2, time_limit=600)
    lab.done(sent)
    told = document("show", sent.name)
    job = lab.job(sent.job_id)
    assert {key: told[key] for key in ("dispatch_id", "node_id", "electron", "state", "end", "why", "error")} == {
        "dispatch_id": sent.dispatch_id,
        "node_id": 7,
        "electron": "fill",
        "state": "SUCCEEDED",
        "end": "succeeded",
        "why": "",
        "error": "",
    }
    asked = ("vcpus", "memory_mib", "gpus", "time_limit_s", "attempts_allowed", "queue", "exit_code")
    assert [told[key] for key in asked] == [2.0, 1024, 0, 600, 3, "cirro-cpu", 0]
    assert told["usage"]["peak_memory_bytes"] > 100_000_000
    assert told["usage"]["cpu_s"] > 0.4
    assert told["job_id"] == sent.job_id
    assert told["call_uri"] == job["parameters"]["call"].partition("#")[0]  # what follows is the job's secret
    assert told["definition"] == job["jobDefinition"].rpartition("/")[2]
    assert told["image"] == "cirro-runner"
    whats = [period["what"] for period in told["periods"] if not period["part"]]
    assert whats == ["upload", "waiting", "attempt 1"]
    parts = [period for period in told["periods"] if period["part"]]
    assert [part["what"] for part in parts][-2:] == ["the electron itself", "storing the result"]
    assert all(period["ended_at"] >= period["began_at"] for period in told["periods"])
    assert [(each["number"], each["exit_code"]) for each in told["attempts"]] == [(1, 0)]
    assert told["links"] == {}
    assert told["checkpoint"] is None
    shown = " ".join(cirro("show", sent.name).stdout.split())
    assert f"fill, {sent.dispatch_id}:7" in shown
    assert "2 vCPU, 1 GiB, 10 min 0 s an attempt, up to 3 attempts" in shown
    assert "at the peak" in shown


def test_what_an_electron_was_called_with(lab: Lab, document: Document, cirro: Cirro) -> None:
    """Without the credential, which neither AWS Batch nor a terminal gets."""
    sent = lab.send(connect, "db-7", "hunter2", node_id=7)
    assert document("show", sent.name)["arguments"] == {"host": "db-7", "password": "(not shown)"}
    shown = " ".join(cirro("show", sent.name).stdout.split())
    assert "called with host=db-7, password=(not shown)" in shown
    assert "hunter2" not in str(lab.job(sent.job_id))


def test_an_electron_that_raised(lab: Lab, document: Document, cirro: Cirro) -> None:
    """Its traceback, without the runner's frames."""
    sent = lab.send(boom)
    lab.done(sent)
    told = document("show", sent.name)
    assert (told["state"], told["end"], told["exit_code"]) == ("FAILED", "raised", 1)
    assert "no such luck" in told["why"]
    assert "in boom" in told["error"]
    assert "in boom" in cirro("show", sent.name).stdout


def test_an_electron_that_waits_says_for_what(lab: Lab, document: Document, cirro: Cirro) -> None:
    """In AWS's words, and since when."""
    lab.faults.add("stuck", reason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - none of type [m6i]")
    sent = lab.send(wait, 600)
    lab.reach(sent, "RUNNABLE")
    told = document("show", sent.name)
    assert (told["state"], told["end"]) == ("RUNNABLE", "")
    assert "INSUFFICIENT_INSTANCE_CAPACITY" in told["why"]
    assert [(period["what"], period["ended_at"] is None) for period in told["periods"]] == [
        ("upload", False),
        ("waiting", True),
    ]
    assert "Give it more instance types" in told["why"]
    shown = cirro("show", sent.name).stdout
    assert "so far" in shown
    assert "nothing: no container of it has run" in shown


def test_an_electron_that_runs(lab: Lab, document: Document) -> None:
    """Since when, in which attempt, with which log."""
    sent = lab.send(wait, 600)
    lab.reach(sent, "RUNNING")
    told = document("show", sent.name)
    assert told["state"] == "RUNNING"
    assert [(period["what"], period["ended_at"] is None) for period in told["periods"]] == [
        ("upload", False),
        ("waiting", False),
        ("attempt 1", True),
    ]
    (attempt,) = told["attempts"]
    assert (attempt["number"], attempt["state"]) == (1, "RUNNING")
    assert re.fullmatch(r"\w+\.\w+, us-east-1a, i-[0-9a-f]{17}", attempt["host"])
    assert attempt["log_stream"] == lab.job(sent.job_id)["container"]["logStreamName"]


def test_lost_hosts_are_part_of_the_story(lab: Lab, document: Document, cirro: Cirro) -> None:
    """Each attempt with its reason and its instance, and the times between them."""
    sent = lab.send(wait, 1)
    lab.reach(sent, "RUNNING")
    lab.faults.add("lose_host", count=1)
    lab.done(sent)
    told = document("show", sent.name)
    assert told["end"] == "succeeded"
    first, second = told["attempts"]
    assert first["reason"].startswith("Host EC2 (instance i-")
    assert first["host"] in first["reason"]
    assert first["host"].startswith("i-")
    assert (first["exit_code"], second["exit_code"]) == (None, 0)
    whats = [period["what"] for period in told["periods"] if not period["part"]]
    assert whats == ["upload", "waiting", "attempt 1", "waiting", "attempt 2"]
    assert "Host EC2" in cirro("show", sent.name).stdout


def test_what_an_electron_cost(lab: Lab, document: Document, cirro: Cirro, tmp_path: Path) -> None:
    """Its share of the instance for as long as it ran, with price, day and source; an estimate while it runs."""
    seen = tmp_path / "seen"
    sent = lab.send(wait_for, str(seen))
    lab.reach(sent, "RUNNING")
    so_far = document("show", sent.name)["cost"]
    assert not so_far["is_final"]
    assert "an estimate while it runs" in cirro("show", sent.name).stdout
    seen.touch()
    lab.done(sent)
    cost = document("show", sent.name)["cost"]
    (attempt,) = cost["attempts"]
    assert cost["is_final"]
    assert cost["currency"] == "USD"
    assert cost["usd"] > so_far["usd"] > 0
    price = attempt["price"]
    assert cost["usd"] == pytest.approx(price["usd_per_hour"] * attempt["share"] * attempt["seconds"] / 3600)
    shown = cirro("show", sent.name).stdout
    assert f"{price['source']}, {price['date']}" in shown
    assert "estimate" not in shown


def test_a_price_that_is_not_to_be_learnt_is_said_to_be_assumed(lab: Lab, document: Document, cirro: Cirro) -> None:
    """From the table that comes with the package, with a note; the story is told all the same."""
    sent = lab.send(greet)
    lab.done(sent)
    lab.faults.add("error", service="ec2", operation="DescribeSpotPriceHistory", count=100)
    told = document("show", sent.name)
    assert not told["cost"]["exact"]
    assert "DescribeSpotPriceHistory" in " ".join(told["cost"]["notes"])
    assert "cost        ≈ $" in cirro("show", sent.name).stdout


def test_a_checkpoint_is_part_of_the_story(lab: Lab, document: Document, cirro: Cirro) -> None:
    """When it was saved, how much it is, and where."""
    sent = lab.send(save)
    lab.done(sent)
    saved = document("show", sent.name)["checkpoint"]
    assert (saved["files"], saved["stored_bytes"]) == (1, 5)
    assert abs(saved["saved_at"] - time.time()) < 120
    assert saved["uri"].endswith("/checkpoint/0/index.json")
    assert "1 file, 0 MiB" in cirro("show", sent.name).stdout


def test_what_an_electron_reported_is_part_of_the_story(lab: Lab, document: Document, cirro: Cirro) -> None:
    """All values for programs, the last one and the extremes for people."""
    sent = lab.send(report)
    lab.done(sent)
    assert [(each["step"], each["value"]) for each in document("show", sent.name)["reported"]] == [(0, 0.5), (1, 0.75)]
    shown = " ".join(cirro("show", sent.name).stdout.split())
    assert "reported 0.75 at step 1; least 0.5 at 0, most 0.75 at 1" in shown


def test_a_job_that_left_no_outcome(lab: Lab, document: Document) -> None:
    """What AWS Batch says is all there is."""
    sent = lab.send(die)
    lab.done(sent)
    told = document("show", sent.name)
    assert told["state"] == "FAILED"
    assert told["usage"] is None
    assert "Essential container in task exited" in told["why"]
    assert told["attempts"][0]["exit_code"] == 137


def test_what_aws_batch_has_forgotten_is_told_from_s3(lab: Lab, document: Document, cirro: Cirro) -> None:
    """Weeks later: how it ended, what it used, when."""
    sent = lab.send(fill)
    lab.done(sent)
    lab.forget(sent)
    told = document("show", sent.name)
    assert (told["state"], told["end"], told["job_id"]) == ("SUCCEEDED", "succeeded", sent.job_id)
    assert told["usage"]["peak_memory_bytes"] > 100_000_000
    assert told["periods"][0]["what"] == "attempt 1"
    assert cirro("show", sent.name).exit_code == 0


def test_earlier_calls_of_an_electron_are_named(lab: Lab, document: Document) -> None:
    """One that was sent again: the newest counts."""
    first = lab.send(boom, node_id=2)
    lab.done(first)
    second = lab.send(fill, dispatch_id=first.dispatch_id, node_id=2)
    lab.done(second)
    told = document("show", second.name)
    assert (told["job_id"], told["end"]) == (second.job_id, "succeeded")
    assert told["earlier_jobs"] == [{"job_id": first.job_id, "state": "FAILED"}]


def test_an_outcome_that_cannot_be_read_is_told(lab: Lab, document: Document) -> None:
    """Its place and why, and the rest of the story."""
    sent = lab.send(fill)
    lab.done(sent)
    (key,) = [key for key in lab.account.keys() if sent.dispatch_id in key and key.endswith("outcome.json")]
    lab.account.replace(key, b"[]")
    told = document("show", sent.name)
    assert "outcome.json" in told["why"]
    assert told["job_id"] == sent.job_id


def test_a_dispatch_is_no_electron(cirro: Cirro, lab: Lab) -> None:
    """Exit code 2, and how to write it."""
    result = cirro("show", "abcdef")
    assert result.exit_code == 2
    assert "abcdef:NODE" in result.stderr


def test_an_electron_of_a_task_group_is_found_by_its_own_node(lab: Lab, document: Document, cirro: Cirro) -> None:
    """The group's job has the first one's: each has its own story, and its own log."""
    sent = lab.send_group(greet, boom)
    lab.done(sent)
    first, second = (document("show", f"{sent.dispatch_id}:{node}") for node in (0, 1))
    assert (first["electron"], first["end"]) == ("greet", "succeeded")
    assert (second["electron"], second["end"]) == ("boom", "raised")
    assert first["job_id"] == second["job_id"] == sent.job_id
    assert "no such luck" in second["error"]
    assert [cirro("logs", f"{sent.dispatch_id}:{node}").stdout for node in (0, 1)] == ["hello\n", ""]
    assert cirro("show", f"{sent.dispatch_id}:2").exit_code == 1


def test_stopping_an_electron_of_a_task_group_stops_its_job(lab: Lab, document: Document) -> None:
    """They share it."""
    sent = lab.send_group(greet, wait_long)
    lab.reach(sent, "RUNNING")
    told = document("stop", f"{sent.dispatch_id}:1")
    assert [each["job_id"] for each in told["stopped"] + told["stopping"]] == [sent.job_id]
    assert lab.done(sent)["status"] == "FAILED"
