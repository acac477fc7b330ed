"""An electron that was submitted again, as the commands tell it: several jobs, one story."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro import CirroBatchExecutor
from tests.cli.history.conftest import Lab

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ENTRIES = ("number", "end", "attempts", "memory_mib", "queue", "then")


def fill(mib: int) -> int:
    """Hold so much memory for a while."""
    held = b"x" * (mib * 1024 * 1024)
    for _ in range(20):  # a busy emulator measures seldom
        time.sleep(0.1)
    return len(held)


def test_all_tries_of_an_electron_are_one_story(
    lab: Lab, executor: Callable[..., CirroBatchExecutor], document: Callable[..., Any], cirro: Callable[..., Result]
) -> None:
    """It loses its host, moves, runs out of memory, and returns: three jobs with ends, memory, queues and costs."""
    dispatch_id = str(uuid.uuid4())
    lab.faults.add("lose_host", operation="GetObject", key="/call.json", count=1)
    made = executor(memory=0.25, memory_max=2, retry_attempts=1, poll_freq=1)
    asyncio.run(made.run(fill, [300], {}, {"dispatch_id": dispatch_id, "node_id": 4}))

    told = document("show", f"{dispatch_id}:4")
    assert [tuple(each[key] for key in ENTRIES) for each in told["tried"]] == [
        (1, "host_lost", 1, 256, "cirro-cpu", "queue cirro-cpu-on-demand"),
        (2, "out_of_memory", 1, 256, "cirro-cpu-on-demand", "0.5 GB"),
    ]
    assert (told["state"], told["memory_mib"], told["queue"]) == ("SUCCEEDED", 512, "cirro-cpu-on-demand")
    assert told["earlier_jobs"] == []
    tried = [each["job_id"] for each in told["tried"]]
    assert [lab.job(job_id)["status"] for job_id in tried] == ["FAILED", "FAILED"]
    words = cirro("show", f"{dispatch_id}:4").output
    assert "earlier tries" in words
    assert all(job_id in words for job_id in tried)

    listed = document("jobs", "--dispatch", dispatch_id)
    (row,) = listed["jobs"]
    assert listed["counts"] == {"SUCCEEDED": 1}
    assert (row["job_id"], [each["job_id"] for each in row["tried"]]) == (told["job_id"], tried)
    assert row["why"].startswith(
        "This is try 3. Try 2, which had 256 MiB, failed in queue cirro-cpu-on-demand: 'fill' ran out"
    )

    report = document("report", dispatch_id)
    assert [(run["job_id"], run["try"], run["asked"]["memory_mib"]) for run in report["electrons"]] == [
        (tried[0], 1, 256),
        (tried[1], 2, 256),
        (told["job_id"], 3, 512),
    ]
    assert report["failed"] == 0
    assert (report["cost"]["attempts"], report["cost"]["lost"]) == (3, 1)
    paid = [attempt["usd"] for run in report["electrons"] for attempt in run["attempts"]]
    assert len(paid) == 3
    assert report["cost_by_node"]["4"]["usd"] == pytest.approx(sum(paid))
    # Waiting for the first try is not counted again with the next one.
    first, second, _ = (run["timeline"] for run in report["electrons"])
    assert second[0]["began_at"] >= first[-1]["ended_at"] - 1
