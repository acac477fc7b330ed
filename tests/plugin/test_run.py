"""The stock class's own methods, called directly: the same engine, without a Covalent server."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskCancelledError, TaskRuntimeError
from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.electron import without_server
from covalent_cirro.electron.call_writer import Written
from covalent_cirro.electron.handover import OwnJob
from covalent_cirro.settings import Settings
from tests.plugin.conftest import Account

Make = Callable[..., CirroBatchExecutor]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def add(x: int, y: int = 0) -> int:
    """An electron that prints."""
    print("adding", x, y)
    return x + y


async def test_a_function_runs_as_a_job_and_its_result_comes_back(
    executor: Make, metadata: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it printed."""
    made = executor()
    assert isinstance(made, AWSBatchExecutor)
    assert await made.run(add, [20], {"y": 22}, metadata) == 42
    assert "adding 20 22" in capsys.readouterr().out


async def test_run_does_not_look_for_the_call_that_it_wrote(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """Submitting and fetching use its place, and list nothing in S3."""
    account.emulator.calls.reset()
    assert await executor().run(add, [1], {}, metadata) == 1
    counts = account.emulator.calls.counts("client")
    assert counts["s3:PutObject"]["count"] >= 1
    assert [name for name in counts if name.startswith("s3:List")] == []


async def test_an_exception_comes_back_with_its_traceback_and_its_job(executor: Make, metadata: dict[str, Any]) -> None:
    """And without the runner's own frames."""

    def boom() -> None:
        raise ValueError("no such luck")

    with pytest.raises(TaskRuntimeError) as caught:
        await executor().run(boom, [], {}, metadata)
    text = str(caught.value)
    assert "ValueError: no such luck" in text
    assert "in boom" in text
    assert "AWS Batch job" in text
    assert "covalent_cirro/runner" not in text


async def test_large_arguments_and_results_pass_whole(executor: Make, metadata: dict[str, Any]) -> None:
    """Several megabytes both ways, of noise and of text."""
    noise = random.Random(3).randbytes(5_000_000)

    def turn(data: bytes, text: str) -> tuple[bytes, str]:
        return data[::-1], text * 2

    assert await executor().run(turn, [noise, "ab" * 300_000], {}, metadata) == (noise[::-1], "ab" * 600_000)


async def test_the_steps_of_the_stock_class_work_one_by_one(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """submit_task, get_status, query_result."""
    made = executor()
    await made._upload_task(add, [1], {"y": 2}, metadata)
    job_id = await made.submit_task(metadata, {"Account": "123456789012"})
    status, exit_code = await made.get_status(job_id)
    assert (status, exit_code) != ("SUCCEEDED", -1)
    while status not in ("SUCCEEDED", "FAILED"):
        await asyncio.sleep(0.1)
        status, exit_code = await made.get_status(job_id)
    assert (status, exit_code) == ("SUCCEEDED", 0)
    assert await made.query_result(metadata) == (3, "adding 1 2\n", "")
    jobs = account.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    assert jobs[0]["tags"]["covalent:dispatch"] == metadata["dispatch_id"]
    assert jobs[0]["tags"]["covalent:node"] == "3"


async def test_a_job_that_is_cancelled_ends_as_cancelled(
    executor: Make, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the job's id, as the stock class takes it."""

    def sleep() -> None:
        import time

        time.sleep(600)

    made = executor()
    await made._upload_task(sleep, [], {}, metadata)
    job_id = await made.submit_task(metadata, {})
    assert await made.cancel(metadata, job_id) is True
    while (await made.get_status(job_id))[0] != "FAILED":
        await asyncio.sleep(0.1)

    async def cancel_when_running(job_of: asyncio.Task[Any]) -> None:
        while not job_of.done():
            await asyncio.sleep(1.5)
            await made.cancel(metadata, running["id"])

    running: dict[str, str] = {}
    submit = without_server.submit

    async def remember(settings: Settings, written: Written) -> OwnJob:
        job = await submit(settings, written)
        running["id"] = job.job_id
        return job

    monkeypatch.setattr(without_server, "submit", remember)
    run = asyncio.create_task(made.run(sleep, [], {}, metadata))
    with pytest.raises(TaskCancelledError):
        await asyncio.gather(run, cancel_when_running(run))


async def test_a_second_call_of_the_same_node_does_not_meet_the_first(executor: Make, metadata: dict[str, Any]) -> None:
    """Outcomes are written once; another call has a place of its own."""
    assert await executor().run(add, [1], {}, metadata) == 1
    assert await executor().run(add, [2], {}, metadata) == 2


async def test_query_result_of_what_has_not_ended_says_so(executor: Make, metadata: dict[str, Any]) -> None:
    """Instead of an S3 404."""
    made = executor()
    await made._upload_task(add, [1], {}, metadata)
    with pytest.raises(TaskRuntimeError, match="has not ended"):
        await made.query_result(metadata)


async def test_a_local_package_travels_with_the_electron(
    executor: Make, metadata: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the user's own package, pickled by reference, with a module that it imports later."""
    package = tmp_path / "src" / "mylab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from mylab.model import fit\n")
    (package / "model.py").write_text("def fit(x):\n    from mylab.late import factor\n    return x * factor\n")
    (package / "late.py").write_text("factor = 7\n")
    monkeypatch.syspath_prepend(str(package.parent))
    import mylab  # type: ignore[import-not-found]

    assert await executor(local_packages=["mylab"]).run(mylab.fit, [6], {}, metadata) == 42
    with pytest.raises(TaskRuntimeError) as caught:
        await executor().run(mylab.fit, [6], {}, metadata)
    assert "mylab" in str(caught.value)
    assert "local_packages" in str(caught.value)
