"""Maps in the terminal: ``cirro jobs`` and ``show`` count their items, ``cirro stop`` ends the job of an item."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro import mapped
from covalent_cirro.aws.sessions import Access
from covalent_cirro.history.account import open_account
from covalent_cirro.history.board import Board
from covalent_cirro.history.map_items import COUNT_S
from tests.cli.history.conftest import Lab, poll

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Document = Callable[..., Any]
Cirro = Callable[..., Result]


@mapped("x")
def wait_at(x: int, folder: str) -> int:
    """An electron that ends at once for even items, and runs on for odd ones."""
    (Path(folder) / str(x)).touch()
    time.sleep(600 if x % 2 else 0)
    return x


@mapped("x")
def square(x: int) -> int:
    """An electron that ends at once."""
    return x * x


@mapped("x")
def inverse(x: int) -> float:
    """An electron that fails for 0."""
    return 1 / x


@mapped("x")
def dies(x: int) -> int:
    """An electron whose process and runner die for 0."""
    if x == 0:
        os.kill(os.getppid(), 9)
        time.sleep(600)
    return x


def plain(folder: str) -> None:
    """No map."""


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A folder with a file for each item that has begun."""
    folder = tmp_path / "seen"
    folder.mkdir()
    return folder


def test_items_are_counted_while_a_map_runs(lab: Lab, document: Document, cirro: Cirro, seen: Path) -> None:
    """By one listing for all jobs; the slowest ones are listed, by one call as well."""
    sent = lab.send(wait_at, kwargs={"x": [1, 3, 5, 7], "folder": str(seen)}, array_size=2)
    poll(lambda: len(os.listdir(seen)) == 2, "both jobs have begun")
    poll(lambda: lab.job(sent.job_id)["arrayProperties"]["statusSummary"]["RUNNING"] == 2, "both run")
    [row] = document("jobs", "--dispatch", sent.dispatch_id)["jobs"]
    assert (row["jobs"], row["state"]) == ("2: 2 RUNNING", "RUNNING")
    assert {key: row["items"][key] for key in ("length", "done", "failed")} == {"length": 4, "done": 0, "failed": 0}
    assert "items: 0 of 4 done; jobs: 2: 2 RUNNING" in cirro("jobs", "--dispatch", sent.dispatch_id).stdout
    lab.account.emulator.calls.reset()
    told = document("show", sent.name)
    calls = lab.account.emulator.calls.counts("client")
    listed = sorted((each["job_id"], each["state"], each["first"], each["stop"]) for each in told["map_jobs"])
    assert listed == [(f"{sent.job_id}:0", "RUNNING", 0, 2), (f"{sent.job_id}:1", "RUNNING", 2, 4)]
    assert calls["batch:ListJobs"]["count"] <= 4 + 2, "one for each queue, and two for the jobs of the array"
    assert "jobs that failed, and the slowest that run" in cirro("show", sent.name).stdout


def test_a_map_is_listed_at_most_every_few_seconds(lab: Lab, seen: Path, terminal: Path) -> None:
    """By one call for all of its jobs, however often the list is updated; its call is read once."""
    sent = lab.send(wait_at, kwargs={"x": [1, 3, 5], "folder": str(seen)}, array_size=3)
    poll(lambda: len(os.listdir(seen)) == 3, "all jobs have begun")
    begun = now = time.time()
    with open_account(Access(None, None, None, None), "cirro") as account:
        looked = Board(account, sent.dispatch_id, clock=lambda: now)
        looked.look()
        counted = lab.account.emulator.calls
        for later_s, listings in ((COUNT_S - 1, 0), (COUNT_S, 1), (2 * COUNT_S - 1, 0)):
            counted.reset()
            now = begun + later_s
            [row] = looked.look()
            calls = {key: each["count"] for key, each in counted.counts("client").items()}
            assert row.items is not None
            assert (calls.get("s3:ListObjectsV2", 0), calls.get("s3:GetObject", 0)) == (listings, 0)


def test_items_that_failed_are_counted_where_errors_are_results(
    lab: Lab, document: Document, cirro: Cirro, seen: Path
) -> None:
    """AWS Batch says SUCCEEDED of the job; the job in which they are is listed first."""
    sent = lab.send(inverse, kwargs={"x": [1, 2, 3, 0, 5, 6]}, array_size=3, on_error="return")
    lab.done(sent)
    [row] = document("jobs", "--dispatch", sent.dispatch_id)["jobs"]
    assert (row["state"], row["why"]) == ("SUCCEEDED", "1 of 6 items failed")
    told = document("show", sent.name)
    assert told["items"].startswith("6 of 6 done, 1 failed")
    [job] = told["map_jobs"]
    assert (job["first"], job["stop"], job["done"], job["failed"], job["state"]) == (2, 4, 2, 1, "SUCCEEDED")
    [spread] = document("report", sent.dispatch_id)["maps"]
    assert (spread["items"], spread["known"], spread["failed"], spread["jobs"]) == (6, 6, 1, 3)
    assert spread["next_jobs"] == 1, "jobs that last no time"
    assert spread["usd_per_item"] > 0
    written = cirro("report", sent.dispatch_id, "--output", seen / "report.html").stdout
    written = " ".join(written.split())
    assert "map inverse" in written
    assert "next time array_size=1: a job computed for " in written
    alone = lab.send(inverse, kwargs={"x": [1, 0]}, array_size=1, on_error="return")
    lab.done(alone)
    [row] = document("jobs", "--dispatch", alone.dispatch_id)["jobs"]
    assert row["why"] == "1 of 2 items failed"


def test_a_job_that_failed_as_a_whole_has_no_results(lab: Lab, document: Document) -> None:
    """Before its first record: it is not taken for one that has computed all of its items."""
    sent = lab.send(dies, kwargs={"x": [1, 2, 0, 3]}, array_size=2, on_error="return", retry_attempts=1)
    lab.done(sent)
    [row] = document("jobs", "--dispatch", sent.dispatch_id)["jobs"]
    assert row["why"] == "2 of 4 items failed"
    told = document("show", sent.name)
    assert "2 without a result" in told["items"]
    assert [(each["state"], each["done"]) for each in told["map_jobs"]] == [("FAILED", 0)]


def test_the_job_of_an_item_is_stopped_and_the_others_go_on(
    lab: Lab, document: Document, cirro: Cirro, seen: Path
) -> None:
    """It is told which job, what stays and what becomes of the rest; a second time it is told that it had ended."""
    sent = lab.send(wait_at, kwargs={"x": list(range(6)), "folder": str(seen)}, array_size=3, on_error="return")
    poll(lambda: len(os.listdir(seen)) == 6, "all items have begun")
    shown = " ".join(cirro("stop", f"{sent.name}[3]").stdout.split())
    assert (
        f"stopping job 1 of 3 of wait_at {sent.dispatch_id[:8]}:0, which computes item 3 (job {sent.job_id}:1)" in shown
    )
    assert "The other jobs go on; in the places of these items the list has an ElectronFailed" in shown
    stopped = lab.done(f"{sent.job_id}:1")
    assert "cirro stop, by " in stopped["statusReason"]
    assert lab.job(f"{sent.job_id}:0")["status"] == "RUNNING"
    [told] = document("stop", f"{sent.name}[2]")["items"]
    assert (told["end"], told["first"], told["stop"]) == ("DONE", 2, 4), "what the job had computed is stored"
    assert "its job had already ended: FAILED" in cirro("stop", f"{sent.name}[3]").stdout


def test_a_map_of_one_job_is_not_cancelled(lab: Lab, document: Document, seen: Path) -> None:
    """A Covalent server takes its items for failed."""
    sent = lab.send(wait_at, kwargs={"x": [0, 1], "folder": str(seen)}, array_size=1)
    poll(lambda: len(os.listdir(seen)) == 2, "all items have begun")
    [told] = document("stop", f"{sent.name}[1]")["items"]
    assert (told["end"], told["jobs"], told["job_id"]) == ("STOPPED", 1, sent.job_id)
    assert lab.done(sent)["statusReason"].startswith("Stopped with its items (cirro stop, by ")


def test_an_item_that_there_is_not_is_refused(lab: Lab, cirro: Cirro, tmp_path: Path) -> None:
    """And so is an item of an electron that is no map."""
    sent, other = lab.send(square, kwargs={"x": [1, 2]}, array_size=2), lab.send(plain, str(tmp_path))
    beyond = cirro("stop", f"{sent.name}[2]")
    assert beyond.exit_code == 1
    assert "has no item 2: its items are 0 to 1" in beyond.output
    none = cirro("stop", f"{other.name}[0]")
    assert none.exit_code == 1
    assert "is no map, and has no items" in none.output
