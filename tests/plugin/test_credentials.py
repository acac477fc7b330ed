"""Credentials that expire while a job runs, on the emulator: nothing is lost once they are renewed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.aws.blobs import Source
from covalent_cirro.contract.references import Inline
from covalent_cirro.electron.engine import engine as engine_module
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.send import engine_for
from covalent_cirro.errors import AccessDenied, Unsigned
from tests.plugin.conftest import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]

PATIENCE_S = 120.0


def add_when(path: str, x: int, y: int) -> int:
    """An electron that returns once there is a file."""
    while not Path(path).exists():
        time.sleep(0.05)
    return x + y


@pytest.fixture(autouse=True)
def no_faults(account: Account) -> Iterator[None]:
    """Faults are shared by the module."""
    yield
    account.emulator.faults.clear()


async def seen(records: Callable[[], list[str]], words: str) -> None:
    """Wait for a line of the log."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(words in line for line in records()):
        assert time.monotonic() < deadline, records()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("ends", ["while they are expired", "after they were renewed"])
async def test_credentials_that_expire_while_a_job_runs_lose_no_result(
    executor: Make,
    metadata: dict[str, Any],
    account: Account,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    ends: str,
) -> None:
    """One job, its result, and one line that says what is wrong and what to do."""
    caplog.set_level(logging.INFO)
    may_end = tmp_path / "may end"
    made = executor()
    run = asyncio.create_task(made.run(add_when, [str(may_end), 20, 22], {}, metadata))
    batch, queue = account.client("batch"), account.settings["batch_queue"]

    def jobs(status: str) -> list[str]:
        listed = batch.list_jobs(jobQueue=queue, jobStatus=status)["jobSummaryList"]
        return [job["jobId"] for job in listed if f"-{metadata['dispatch_id'][:8]}-3-" in job["jobName"]]

    while not jobs("RUNNING"):
        await asyncio.sleep(0.05)
    account.emulator.faults.add("expired", caller="client")
    await seen(lambda: [record.getMessage() for record in caplog.records], "The job goes on")
    if ends == "while they are expired":
        may_end.touch()
        await asyncio.sleep(2)
    account.emulator.faults.clear()
    may_end.touch()
    assert await asyncio.wait_for(run, PATIENCE_S) == 42
    assert len(jobs("SUCCEEDED")) == 1
    (line,) = [record.getMessage() for record in caplog.records if "The job goes on" in record.getMessage()]
    assert "ExpiredToken" in line
    assert "aws sso login" in line


async def test_expired_credentials_refuse_a_new_electron_at_once(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """Nothing was paid for: there is nothing to wait for."""
    account.emulator.faults.add("expired", caller="client")
    with pytest.raises(Unsigned, match="have expired: renew them"):
        await asyncio.wait_for(executor().run(add_when, ["/", 20, 22], {}, metadata), PATIENCE_S)


async def test_a_refused_electron_closes_no_connection_that_another_one_uses(
    executor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine is retired: the next electron gets a new one, and the old one closes after its last electron."""
    monkeypatch.setattr(engine_module, "_IDLE_CHECK_S", 0.01)
    settings = executor().settings
    file = tmp_path / "file"
    file.write_bytes(b"some bytes")

    async def put(engine: Engine) -> Any:
        return await engine.store.put(
            Source(str(file), is_tobj=False), settings.s3_bucket_name, "test", str(tmp_path), inline=True
        )

    async with engine_for(settings) as engine:
        refusal = AccessDenied("refused", operation="sts:GetCallerIdentity", code="SignatureDoesNotMatch")
        with contextlib.suppress(AccessDenied):
            async with engine_for(settings) as refused:
                assert refused is engine
                raise refusal
        await asyncio.sleep(0.1)
        assert await put(engine) == Inline(b"some bytes")
        async with engine_for(settings) as renewed:
            assert renewed is not engine
    deadline = time.monotonic() + PATIENCE_S
    while sum(task.get_name() == "cirro-engine" for task in asyncio.all_tasks()) > 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
