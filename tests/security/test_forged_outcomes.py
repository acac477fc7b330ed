"""What a job may write in the place of another job's outcome, and what comes of it.

All jobs of a deployment have the same role: each may write outcomes, logs and checkpoints below any call. Electrons
here run on the emulator, whose bucket has the template's policy.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from botocore.exceptions import ClientError

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.contract.documents import dump_outcome
from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Output, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.electron import without_server
from covalent_cirro.electron.call_writer import Written
from covalent_cirro.electron.handover import EndedJob, OwnJob
from covalent_cirro.errors import CirroError
from tests.plugin.conftest import Account, account, executor, metadata

__all__ = ["account", "executor", "metadata"]

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]


def answer() -> int:
    """An electron."""
    return 42


def forged(place: Location, job_id: str = "", mac_key: str = "") -> bytes:
    """An outcome of the attacker's making: the electron returned 666."""
    result = NodeResult(3, Output(Inline(cloudpickle.dumps(666)), Inline(b"666")), None, Log(), Log())
    return dump_outcome(Outcome(place.call_id, 1, job_id, (result,), Usage(), "3", "3", {}, {}), mac_key)


def place_of(account: Account, where: dict[str, Any]) -> Location:
    """Where an electron's call is."""
    (key,) = [key for key in account.keys() if where["dispatch_id"] in key and key.endswith("/call.json")]
    return parse_call_uri(f"s3://{account.settings['s3_bucket_name']}/{key}")


async def ended(made: CirroBatchExecutor, written: Written) -> tuple[OwnJob, EndedJob]:
    """The job of a call, and how it ended."""
    job = await without_server.submit(made.settings, written)
    return job, await without_server.wait(made.settings, written.call, job)


async def result(made: CirroBatchExecutor, written: Written) -> without_server.ElectronResult:
    """What the server makes of an electron once its job has ended."""
    _, end = await ended(made, written)
    return await without_server.fetch(made.settings, written.call, end)


@pytest.mark.parametrize("mac_key", ["", "f" * 32], ids=["without a code", "with another key"])
async def test_an_outcome_that_is_there_before_the_job_wrote_its_own_loses_no_result(
    account: Account, executor: Make, metadata: dict[str, Any], mac_key: str
) -> None:
    """The job's own is found where only it could write, and the forged one is never read as a result."""
    made = executor()
    written = await without_server.upload(made.settings, answer, [], {}, metadata)
    place = place_of(account, metadata)
    account.client("s3").put_object(
        Bucket=place.bucket, Key=place.outcome_key, Body=forged(place, mac_key=mac_key), IfNoneMatch="*"
    )
    found = await result(made, written)
    assert (found.value, found.error) == (42, "")


async def test_bytes_that_are_no_outcome_lose_no_result_either(
    account: Account, executor: Make, metadata: dict[str, Any]
) -> None:
    """Whatever lies there first."""
    made = executor()
    written = await without_server.upload(made.settings, answer, [], {}, metadata)
    place = place_of(account, metadata)
    account.client("s3").put_object(Bucket=place.bucket, Key=place.outcome_key, Body=b"{", IfNoneMatch="*")
    found = await result(made, written)
    assert (found.value, found.error) == (42, "")


async def test_an_outcome_is_written_once(account: Account, executor: Make, metadata: dict[str, Any]) -> None:
    """Not even the account's administrator writes over it, with If-Match or without."""
    made = executor()
    written = await without_server.upload(made.settings, answer, [], {}, metadata)
    await ended(made, written)
    s3, place = account.client("s3"), place_of(account, metadata)
    etag = s3.head_object(Bucket=place.bucket, Key=place.outcome_key)["ETag"]
    for condition in ({}, {"IfMatch": etag}):
        with pytest.raises(ClientError, match="explicit deny in a resource-based policy"):
            s3.put_object(Bucket=place.bucket, Key=place.outcome_key, Body=forged(place), **condition)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=place.bucket, Key=place.outcome_key, Body=forged(place), IfNoneMatch="*")


async def test_a_forged_outcome_of_a_job_that_left_none_is_refused(
    account: Account, executor: Make, metadata: dict[str, Any]
) -> None:
    """With the job's own id in it, and in a bucket without the policy: its code tells."""
    made = executor()
    written = await without_server.upload(made.settings, answer, [], {}, metadata)
    job, end = await ended(made, written)
    place = place_of(account, metadata)
    account.replace(place.outcome_key, forged(place, job.job_id))
    with pytest.raises(CirroError, match=r"outcome\.json was refused: it names job .* not written with that job's key"):
        await without_server.fetch(made.settings, written.call, end)


async def test_a_forged_outcome_is_not_reused(account: Account, executor: Make, metadata: dict[str, Any]) -> None:
    """A job of another call, or one that never was, cannot have left an earlier dispatch's results."""
    made = executor()
    written = await without_server.upload(made.settings, answer, [], {}, metadata)
    job, _ = await ended(made, written)
    place = place_of(account, metadata)
    for named in (job.job_id, "00000000-0000-0000-0000-000000000000", ""):
        account.replace(place.outcome_key, forged(place, named))
        with pytest.raises(CirroError, match="was refused"):
            await made.query_result(metadata)


async def test_a_call_that_a_job_wrote_below_a_log_is_no_call(
    account: Account, executor: Make, metadata: dict[str, Any]
) -> None:
    """In a bucket whose policy would allow it, and of a name that sorts last."""
    made = executor()
    await made._upload_task(answer, [], {}, metadata)
    place = place_of(account, metadata)
    for name in ("log", "zz", "checkpoint"):
        account.client("s3").put_object(Bucket=place.bucket, Key=f"{place.node_base}{name}/call.json", Body=b"{}")
    job_id = await made.submit_task(metadata, {})
    while (await made.get_status(job_id))[0] not in ("SUCCEEDED", "FAILED"):
        await asyncio.sleep(0.1)
    assert (await made.query_result(metadata))[0] == 42


async def test_the_key_is_in_no_object_and_no_log(account: Account, executor: Make, metadata: dict[str, Any]) -> None:
    """AWS Batch alone tells it, which no job may ask."""
    made = executor()
    written = await without_server.upload(made.settings, answer, [], {}, metadata)
    job, _ = await ended(made, written)
    mac_key, s3, place = account.mac_key(job.job_id), account.client("s3"), place_of(account, metadata)
    assert len(mac_key) == 32
    for key in account.keys(place.base):
        assert mac_key.encode() not in s3.get_object(Bucket=place.bucket, Key=key)["Body"].read()
    logs = account.client("logs")
    events = await asyncio.to_thread(logs.filter_log_events, logGroupName=account.settings["batch_job_log_group_name"])
    assert not any(mac_key in event["message"] for event in events["events"])
