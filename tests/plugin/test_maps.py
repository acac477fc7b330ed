"""Mapped electrons as array jobs: the client's function, the plugin, the runner and the emulated account together."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, ElectronFailed, item, mapped
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.electron import poll
from covalent_cirro.electron.handover import AdoptedJob, OwnJob
from covalent_cirro.errors import SettingsError
from covalent_cirro.history import item_stops
from covalent_cirro.history.account import Account as History
from covalent_cirro.history.item_stops import ItemStop
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.states import parse_job
from covalent_cirro.local.emulator.faults import Faults
from tests.access import control
from tests.plugin.conftest import Account
from tests.plugin.dispatches import Dispatch, client, finish, keep

Make = Callable[..., CirroBatchExecutor]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@mapped("x")
def placed(x: int, factor: int = 1) -> tuple[int, int, int]:
    """An electron that knows the place of its item, and prints."""
    print("item", item().index)
    return (x * factor, *item())


@mapped("x")
def inverse(x: int) -> float:
    """An electron that fails for 0."""
    return 1 / x


async def test_items_are_shared_over_the_jobs_of_an_array(
    executor: Make, metadata: dict[str, Any], account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """One SubmitJob; the results are in the order of the items, and the logs too."""
    account.emulator.calls.reset()
    made = executor(array_size=3)
    result = await made.run(placed, [], {"x": list(range(7)), "factor": 10}, metadata)
    assert result == [(10 * i, i, 7) for i in range(7)]
    counts = account.emulator.calls.counts("client")
    assert counts["batch:SubmitJob"]["count"] == 1
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("item")] == [f"item {i}" for i in range(7)]
    assert "--- items 0-1 (job 0) ---" in printed


async def test_a_map_of_one_job_is_no_array(executor: Make, metadata: dict[str, Any]) -> None:
    """But an ordinary job that has all items."""
    assert await executor(array_size=1).run(placed, [], {"x": [1, 2]}, metadata) == [(1, 0, 2), (2, 1, 2)]


async def test_all_items_are_computed_before_the_electron_fails(executor: Make, metadata: dict[str, Any]) -> None:
    """The error has a table and the first traceback."""
    with pytest.raises(TaskRuntimeError) as caught:
        await executor(array_size=2).run(inverse, [], {"x": [1, 0, 2, 0]}, metadata)
    text = str(caught.value)
    assert "2 of 4 items failed; item 1 with ZeroDivisionError: division by zero" in text
    assert "1, 3" in text
    assert "in inverse" in text
    assert "an array of 2 jobs" in text


async def test_errors_are_values_if_the_executor_says_so(executor: Make, metadata: dict[str, Any]) -> None:
    """In the places of the items."""
    made = executor(array_size=2, on_error="return")
    first, second, third = await made.run(inverse, [], {"x": [1, 0, 2]}, metadata)
    assert (first, third) == (1, 0.5)
    assert isinstance(second, ElectronFailed)
    assert "ZeroDivisionError" in str(second)


# --- failures of machines ---------------------------------------------------------------------------------------------


@pytest.fixture
def faults(account: Account) -> Iterator[Faults]:
    """The emulator's faults, cleared afterwards."""
    yield account.emulator.faults
    account.emulator.faults.clear()


@mapped("mib")
def held(mib: int) -> int:
    """An electron that holds so much memory for a while."""
    import time

    data = b"x" * (mib * 1024 * 1024)
    for _ in range(20 if mib > 1 else 0):  # a busy emulator measures seldom
        time.sleep(0.1)
    return len(data) // 1024 // 1024


@mapped("x")
def slow(x: int) -> int:
    """An electron that lasts longer than the life of a host that goes away."""
    import time

    time.sleep(0.7)
    return x


@mapped("x")
def first_fails(x: int) -> int:
    """An electron whose first item fails, and whose others run until somebody ends them."""
    import time

    if x == 0:
        raise ValueError("no such luck")
    time.sleep(600)
    return x


def arrays(account: Account, metadata: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Queue, number of jobs (0: no array) and memory of each job of a dispatch, oldest first."""
    batch, found = account.client("batch"), []
    for name, queue in account.settings.items():
        if name.endswith("queue"):
            listed = batch.list_jobs(jobQueue=queue, filters=[{"name": "AFTER_CREATED_AT", "values": ["0"]}])
            ids = [job["jobId"] for job in listed["jobSummaryList"] if metadata["dispatch_id"][:8] in job["jobName"]]
            found += batch.describe_jobs(jobs=ids)["jobs"] if ids else []
    details = [parse_job(job) for job in sorted(found, key=lambda job: job["createdAt"])]
    return [(each.queue, each.array_size, each.memory_mib) for each in details]


async def test_items_that_ran_out_of_memory_run_again_with_more(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """Only the jobs that did, and of these only the items without a result; the list has all results."""
    made = executor(array_size=3, memory=0.25, memory_max=1, poll_freq=1)
    assert await made.run(held, [], {"mib": [1, 1, 1, 300, 1, 1]}, metadata) == [1, 1, 1, 300, 1, 1]
    assert arrays(account, metadata) == [("cirro-cpu", 3, 256), ("cirro-cpu", 0, 512)]
    calls = [json.loads(account.document(key)) for key in account.keys() if is_call(key, metadata)]
    shares = [call["tasks"][0]["mapped"]["children"] for call in sorted(calls, key=lambda call: call["call_id"])]
    assert shares == [[[0, 2], [2, 4], [4, 6]], [[3, 4]]]


def is_call(key: str, metadata: dict[str, Any]) -> bool:
    """Whether it is the key of a call of a dispatch."""
    return metadata["dispatch_id"] in key and key.endswith("/call.json")


async def test_items_whose_hosts_were_lost_run_in_the_on_demand_queue(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """As a smaller array."""
    faults.add("lose_host", seconds=0.3, count=2)
    made = executor(array_size=4, retry_attempts=1, poll_freq=1)
    assert await made.run(slow, [], {"x": list(range(4))}, metadata) == [0, 1, 2, 3]
    (first, size, _), (second, left, _) = arrays(account, metadata)
    assert (first, size, second) == ("cirro-cpu", 4, "cirro-cpu-on-demand")
    assert left in (2, 0, 3, 4)  # jobs that share a host go with it


async def test_items_of_a_lost_job_have_its_explanation(
    executor: Make, metadata: dict[str, Any], faults: Faults
) -> None:
    """Where there is no queue to go to; the other items have results."""
    faults.add("lose_host", seconds=0.3, count=1)
    made = executor(array_size=2, retry_attempts=1, batch_on_demand_queue="", on_error="return", poll_freq=1, vcpu=2)
    results = await made.run(slow, [], {"x": list(range(4))}, metadata)
    lost = [each for each in results if isinstance(each, ElectronFailed)]
    assert lost
    assert len(results) == 4
    assert [each for i, each in enumerate(results) if not isinstance(each, ElectronFailed) and each != i] == []
    assert "lost its host" in str(lost[0])


async def test_the_first_failure_ends_the_others_if_the_executor_says_so(
    executor: Make, metadata: dict[str, Any]
) -> None:
    """The error says how many items were not computed."""
    made = executor(array_size=3, on_error="stop", poll_freq=1)
    with pytest.raises(TaskRuntimeError) as caught:
        await made.run(first_fails, [], {"x": [0, 1, 2]}, metadata)
    text = str(caught.value)
    assert "1 of 3 items failed; item 0 with ValueError: no such luck" in text
    assert "2 items were not computed" in text


async def test_what_is_no_list_is_refused_before_anything_is_paid_for(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """A value that only the server's host could open."""
    before = len(account.keys())
    with pytest.raises(SettingsError, match=r"mapped over 'x'.*it is of type dict"):
        await executor().run(slow, [], {"x": {"a": 1}}, metadata)
    with pytest.raises(SettingsError, match="x has 2, factor has 1"):
        await executor().run(mapped("x", "factor")(lambda x, factor: x), [], {"x": [1, 2], "factor": [1]}, metadata)
    assert len(account.keys()) == before


# --- dispatches -------------------------------------------------------------------------------------------------------

SCRIPT = """
import covalent as ct
from covalent_cirro import mapped

class Config:
    def __init__(self, factor):
        self.factor = factor

@mapped("config")
@ct.electron
def train(config, data):
    print("training", config.factor)
    return config.factor * len(data)

@mapped("x")
@ct.electron
def double(x):
    return [2 * x] * 5000

@ct.electron
def total(xs):
    return sum(x[0] for x in xs)

@mapped("x")
@ct.electron
def nothing(x):
    return x

@ct.lattice
def flow():
    trained = train((Config(i) for i in range(20)), b"data")
    nothing([])
    return total(double(trained))
"""


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same script as two processes build it."""
    folder = tmp_path_factory.mktemp("clients")
    file = folder / "flow.py"
    file.write_text(SCRIPT)
    made = [client(file, "flow", folder / str(seed), seed) for seed in range(2)]
    for process in made:
        finish(process)
    return [folder / str(seed) for seed in range(2)]


async def test_a_map_of_a_map_uploads_nothing_again(
    executor: Make, account: Account, staged: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another dispatch of the same script takes the results of whole maps."""
    made, dispatch = executor(array_size=4), Dispatch(staged[0], tmp_path, monkeypatch)
    ended = await dispatch.run(made, "double")
    assert ended["train"].value == [4 * i for i in range(20)]
    assert ended["double"].value == [[8 * i] * 5000 for i in range(20)]
    control(account.emulator, "calls", method="DELETE")
    ended = await dispatch.run(made, "total", "nothing")
    assert ended["total"].value == sum(8 * i for i in range(20))
    assert ended["nothing"].value == []
    calls = account.emulator.calls.counts("client")
    assert calls["s3:PutObject"]["count"] == 1, "the call of the only job; the list is in S3"
    assert calls["batch:SubmitJob"]["count"] == 1

    control(account.emulator, "calls", method="DELETE")
    again = Dispatch(staged[1], tmp_path, monkeypatch)
    ended = await again.run(executor(array_size=2, reuse_from=dispatch.id), "total")
    assert {name: each.is_reused for name, each in ended.items()} == {"train": True, "double": True, "total": True}
    assert ended["double"].value == [[8 * i] * 5000 for i in range(20)]
    assert "batch:SubmitJob" not in account.emulator.calls.counts("client")


async def test_the_next_server_takes_over_an_array_job(
    executor: Make, account: Account, staged: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, as any job, with all results that are there."""
    made, dispatch = executor(array_size=4), Dispatch(staged[0], tmp_path, monkeypatch)
    launch, sent = await dispatch.send(made, "train")
    launch.close()
    control(account.emulator, "calls", method="DELETE")
    launch, adopted = await dispatch.send(made, "train", again=True)
    assert isinstance(sent, OwnJob)
    assert isinstance(adopted, AdoptedJob)
    assert adopted.job_id == sent.job_id
    received = await dispatch.receive(made, "train", await poll.poll(launch, made.settings, adopted, keep))
    launch.close()
    assert received.completed
    assert "batch:SubmitJob" not in account.emulator.calls.counts("client")
    while "SUCCEEDED" not in dispatch.panels.get(dispatch.node_id("train"), {}).get("jobs", ""):
        await asyncio.sleep(0.1)  # it is written soon
    assert dispatch.panels[dispatch.node_id("train")]["jobs"] == "4: 4 SUCCEEDED"


async def test_one_call_cancels_all_jobs_of_a_map(executor: Make, account: Account, metadata: dict[str, Any]) -> None:
    """That for the parent."""
    made = executor(array_size=3, poll_freq=1)
    control(account.emulator, "calls", method="DELETE")
    running = asyncio.ensure_future(made.run(waits, [], {"x": list(range(3))}, metadata))
    while not [each for each in arrays(account, metadata) if each[1] == 3]:
        await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    calls = account.emulator.calls.counts("client")
    assert calls["batch:TerminateJob"]["count"] == 1


# --- one job is stopped -----------------------------------------------------------------------------------------------


@mapped("x")
def until(x: int, folder: str) -> int:
    """An electron whose item 3 runs until somebody ends it; the others until the test says so."""
    import os
    import time

    open(f"{folder}/{x}", "w").close()
    while x == 3 or (x > 3 and not os.path.exists(f"{folder}/go on")):
        time.sleep(0.05)
    return x


def stop_item(made: CirroBatchExecutor, metadata: dict[str, Any], number: int) -> ItemStop:
    """What ``cirro stop`` does about an item."""
    with History(access_of(made.settings), "cirro", made.settings) as history:
        wanted = Wanted(metadata["dispatch_id"], metadata["node_id"], number)
        return item_stops.stop(history, wanted, "ada on lab")


async def reached(path: Path) -> None:
    """Wait until an item has begun."""
    while not path.exists():
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("on_error", "size"), [("return", 3), ("raise", 3), ("stop", 3), ("return", 1)])
async def test_an_items_job_is_stopped_and_the_map_goes_on(
    executor: Make, account: Account, metadata: dict[str, Any], tmp_path: Path, on_error: str, size: int
) -> None:
    """What the job had computed stays, its other items fail, and no further try is made for them."""
    made = executor(array_size=size, on_error=on_error, poll_freq=1, memory=0.25, memory_max=1)
    running = asyncio.ensure_future(made.run(until, [], {"x": list(range(6)), "folder": str(tmp_path)}, metadata))
    await reached(tmp_path / "3")
    stopped = await asyncio.to_thread(stop_item, made, metadata, 3)
    assert (stopped.end, stopped.first, stopped.stop) == (item_stops.STOPPED, *((2, 4) if size == 3 else (0, 6)))
    if on_error != "stop":
        (tmp_path / "go on").touch()
    if on_error != "return":
        with pytest.raises(TaskRuntimeError) as caught:
            await running
        text = str(caught.value)
        assert ("were not computed, since an item had failed" in text) == (on_error == "stop")
        assert (
            "1 of 6 items failed; item 3 with The job that computed these items of 'until' (node 3) was stopped" in text
        )
    else:
        results = await running
        failed = [number for number, each in enumerate(results) if isinstance(each, ElectronFailed)]
        assert failed == ([3] if size == 3 else [3, 4, 5])
        assert [each for each in results if not isinstance(each, ElectronFailed)] == [
            i for i in range(6) if i not in failed
        ]
        assert "was stopped with `cirro stop`, by ada on lab" in str(results[3])
    assert len(arrays(account, metadata)) == 1, "no further try"
    assert (await asyncio.to_thread(stop_item, made, metadata, 3)).end == item_stops.ENDED


@mapped("x")
def waits(x: int) -> None:
    """An electron that runs until somebody ends it."""
    import time

    time.sleep(600)
