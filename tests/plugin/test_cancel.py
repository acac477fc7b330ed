"""Cancelling many electrons at once, on the emulator: few calls, all jobs in whatever state they are, and no others."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from covalent_cirro import CirroBatchExecutor
from tests.access import control
from tests.plugin.conftest import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]

PATIENCE_S = 60.0


def sleep() -> None:
    """An electron that holds its machine."""
    time.sleep(600)


@pytest.fixture(autouse=True)
def no_faults(account: Account) -> Iterator[None]:
    """Faults are shared by the module."""
    yield
    account.emulator.faults.clear()


async def submitted(made: CirroBatchExecutor, where: dict[str, Any], count: int) -> dict[int, str]:
    """Jobs of as many electrons of a dispatch, by node."""
    jobs = {}
    for node_id in range(count):
        of = {**where, "node_id": node_id}
        await made._upload_task(sleep, [], {}, of)
        jobs[node_id] = await made.submit_task(of, {})
    return jobs


async def cancel(made: CirroBatchExecutor, where: dict[str, Any], jobs: dict[int, str]) -> list[bool]:
    """As Covalent does it: each electron for itself, all at once."""
    asked = ({**where, "node_id": node_id} for node_id in jobs)
    return await asyncio.gather(*(made.cancel(of, job) for of, job in zip(asked, jobs.values(), strict=True)))


async def described(account: Account, jobs: dict[int, str], state: str, least: int) -> list[dict[str, Any]]:
    """The jobs, once at least so many are in a state."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found: list[dict[str, Any]] = account.client("batch").describe_jobs(jobs=list(jobs.values()))["jobs"]
        if sum(job["status"] == state for job in found) >= least:
            return found
        assert time.monotonic() < deadline, [job["status"] for job in found]
        await asyncio.sleep(0.1)


def calls(account: Account) -> dict[str, int]:
    """How often each way to end jobs was called, and counted from zero after this."""
    counts = control(account.emulator, "calls")
    control(account.emulator, "calls", method="DELETE")
    return {name: each["count"] for name, each in counts.items() if "Terminate" in name}


async def test_a_cancelled_dispatch_ends_in_one_call(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """Jobs that run and jobs that wait for a machine; a job of another dispatch goes on."""
    runs, waits = executor(), executor(memory=4000)  # more than any instance type has
    other = await submitted(runs, {**metadata, "dispatch_id": "another"}, 1)
    running = await submitted(runs, metadata, 3)
    waiting = {3 + node_id: job for node_id, job in (await submitted(waits, metadata, 2)).items()}
    await described(account, running, "RUNNING", 1)
    calls(account)
    assert await cancel(runs, metadata, running | waiting) == [True] * 5
    assert calls(account) == {"batch:TerminateJobs": 1}
    ended = await described(account, running | waiting, "FAILED", 5)
    assert {job["statusReason"] for job in ended} == {f"Cancelled in Covalent (dispatch {metadata['dispatch_id']})"}
    (left,) = account.client("batch").describe_jobs(jobs=list(other.values()))["jobs"]
    assert left["status"] != "FAILED"
    await cancel(runs, {**metadata, "dispatch_id": "another"}, other)


async def test_a_throttled_cancel_comes_through(executor: Make, metadata: dict[str, Any], account: Account) -> None:
    """It is asked for until AWS takes it."""
    made = executor()
    jobs = await submitted(made, metadata, 2)
    fault = account.emulator.faults.add("throttle", service="batch", operation="TerminateJobs", count=5)
    assert await cancel(made, metadata, jobs) == [True, True]
    await described(account, jobs, "FAILED", 2)
    account.emulator.faults.clear(fault)


async def test_where_aws_does_not_take_them_together_each_is_ended_by_itself(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """As with an endpoint that does not know the call, or a policy that allows only some of the jobs."""
    made = executor()
    jobs = await submitted(made, metadata, 3)
    account.emulator.faults.add("conflict", service="batch", operation="TerminateJobs")
    calls(account)
    assert await cancel(made, metadata, jobs) == [True] * 3
    assert calls(account) == {"batch:TerminateJob": 3, "batch:TerminateJobs": 1}
    await described(account, jobs, "FAILED", 3)


async def test_who_gives_up_while_it_is_submitted_leaves_no_job(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """`run` without a server: the job of a SubmitJob that was under way is ended as soon as its id is known."""
    account.emulator.faults.add("slow", service="batch", operation="SubmitJob", seconds=1.0)
    run = asyncio.create_task(executor().run(sleep, [], {}, metadata))
    while not account.keys(f"{executor().settings.key_prefix}jobs/{metadata['dispatch_id']}/"):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # what follows the call is the submission: it is not known yet, or under way
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    listed = account.client("batch").list_jobs(
        jobQueue=account.settings["batch_queue"],
        filters=[{"name": "JOB_NAME", "values": [f"sleep-{metadata['dispatch_id'][:8]}-*"]}],
    )["jobSummaryList"]
    assert len(listed) == 1
    await described(account, {3: listed[0]["jobId"]}, "FAILED", 1)


SCRIPT = """
import asyncio, json, signal, sys, time
from covalent_cirro import CirroBatchExecutor

def sleep():
    time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
metadata = {"dispatch_id": "interrupted", "node_id": 0}
asyncio.run(CirroBatchExecutor(**json.loads(sys.argv[1])).run(sleep, [], {}, metadata))
"""


def test_ctrl_c_ends_the_job_that_a_script_waits_for(account: Account, executor: Make) -> None:
    """And the script says no more than Python does."""
    options = {name: value for name, value in executor().to_dict()["attributes"].items() if value is not None}
    options = {name: value for name, value in options.items() if name not in ("log_stdout", "log_stderr", "retries")}
    script = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(options)], stderr=subprocess.PIPE, text=True)
    batch = account.client("batch")

    def jobs(status: str) -> list[str]:
        listed = batch.list_jobs(jobQueue=account.settings["batch_queue"], jobStatus=status)["jobSummaryList"]
        return [job["jobId"] for job in listed if "-interrup-0-" in job["jobName"]]

    deadline = time.monotonic() + PATIENCE_S
    while not (running := jobs("RUNNING")):
        assert script.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    script.send_signal(signal.SIGINT)
    _, said = script.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in said
    while jobs("FAILED") != running:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (job,) = batch.describe_jobs(jobs=running)["jobs"]
    assert job["statusReason"] == "Cancelled in Covalent (dispatch interrupted)"
