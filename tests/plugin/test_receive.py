"""What Covalent is told of a job's end that its own `poll` has not seen: a job that another server submitted."""

from __future__ import annotations

import pickle
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files.util_classes import RESULT_STATUS
from covalent._workflow.transportable_object import TransportableObject
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro import CirroBatchExecutor, ElectronFailed
from covalent_cirro.contract.failed_pickle import pickle_of_failed
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.jobs.states import CANCEL_REASON, dump_detail, parse_job
from tests.plugin.conftest import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]
DEADLINE_S = 60.0


def sleep() -> None:
    """Runs on."""
    time.sleep(600)


@pytest.mark.parametrize(
    ("on_error", "reason", "status", "said"),
    [
        ("raise", f"{CANCEL_REASON} (cirro stop, by ada)", RESULT_STATUS.CANCELLED, "ada"),
        ("raise", "it cost too much", RESULT_STATUS.FAILED, "it cost too much"),
        ("return", f"{CANCEL_REASON} (cirro stop, by ada)", RESULT_STATUS.CANCELLED, "ada"),
        ("return", "it cost too much", RESULT_STATUS.COMPLETED, "it cost too much"),
    ],
)
async def test_who_ended_a_job_decides_whether_the_electron_is_cancelled(
    account: Account,
    executor: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_error: str,
    reason: str,
    status: str,
    said: str,
) -> None:
    """One that was cancelled by us is CANCELLED, one that somebody else ended FAILED; the error has AWS's reason.

    With ``on_error="return"``, the error of one that failed is its value.
    """
    place = {"dispatch_id": str(uuid.uuid4()), "node_id": 0}
    made = executor()
    await made._upload_task(sleep, [], {}, place)
    job_id = await made.submit_task(place, {})
    batch = account.client("batch")
    job = ended(batch, job_id, reason)
    # The server's database is all that is not there; the files are real ones.
    node = Node(0, 0, "sleep", {asset: str(tmp_path / asset) for asset in ("output", "stdout", "stderr", "error")})
    monkeypatch.setattr(assets, "load_group", lambda *_: Group({0: node}, {}, "", "", ""))
    monkeypatch.setattr(assets, "write_statuses", lambda _: None)
    group = {"dispatch_id": place["dispatch_id"], "node_ids": [0]}
    data = {"call": job["parameters"]["call"].partition("#")[0], "job_id": job_id, "job": dump_detail(parse_job(job))}
    (update,) = await executor(on_error=on_error).receive(group, data)
    assert update.status == status
    error = (tmp_path / "error").read_text()
    assert said in error
    assert (tmp_path / "output").exists() == (status == RESULT_STATUS.COMPLETED)
    if status == RESULT_STATUS.COMPLETED:
        stored = (tmp_path / "output").read_bytes()
        assert update.assets["output"].size == len(stored)
        value = TransportableObject.deserialize(stored).get_deserialized()
        assert type(value) is ElectronFailed
        assert str(value) == error.strip()


def ended(batch: Any, job_id: str, reason: str) -> Mapping[str, Any]:
    """The job, once it has been ended for a reason."""
    batch.terminate_job(jobId=job_id, reason=reason)
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        (job,) = batch.describe_jobs(jobs=[job_id])["jobs"]
        if job["status"] == "FAILED":
            return dict(job)
        time.sleep(0.05)
    raise AssertionError(f"{job_id} has not ended")


@given(st.text())
def test_the_pickle_of_an_error_is_read_as_one(text: str) -> None:
    """Whatever the error says."""
    value = pickle.loads(pickle_of_failed(text))
    assert type(value) is ElectronFailed
    assert value.args == (text,)
