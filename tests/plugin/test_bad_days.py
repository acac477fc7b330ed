"""Bad days: every wrong setting is named with AWS's words, and a bad network or a busy AWS loses nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.errors import CirroError
from covalent_cirro.local.emulator.faults import Faults
from tests.access import credentials_file
from tests.plugin.conftest import PROFILE, Account

Make = Callable[..., CirroBatchExecutor]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def add(x: int, y: int) -> int:
    """An electron."""
    return x + y


def size(data: bytes) -> int:
    """An electron with a large input."""
    return len(data)


@pytest.fixture
def faults(account: Account) -> Iterator[Faults]:
    """The emulator's faults, cleared afterwards."""
    yield account.emulator.faults
    account.emulator.faults.clear()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"s3_bucket_name": "no-such-bucket-here"}, ["s3_bucket_name='no-such-bucket-here'", "NoSuchBucket"]),
        ({"batch_queue": "no-such-queue"}, ["batch_queue='no-such-queue'", "AWS said"]),
        ({"num_gpus": 1, "batch_gpu_queue": "no-gpu-queue"}, ["batch_gpu_queue='no-gpu-queue'", "AWS said"]),
        ({"profile": "nobody"}, ["profile='nobody'", "credentials='", "one that it has: 'emulated'"]),
        ({"profile": "nobody", "credentials": None}, ["profile='nobody'", "list-profiles"]),
        ({"credentials": "/no/such/file"}, ["credentials='/no/such/file' cannot be read: No such file"]),
        ({"profile": "", "credentials": None}, ["found no credentials"]),
        ({"endpoint_url": "http://127.0.0.1:9"}, ["endpoint_url='http://127.0.0.1:9'", "could not reach AWS"]),
    ],
)
async def test_a_wrong_setting_is_named_with_its_value_and_what_to_do(
    executor: Make, metadata: dict[str, Any], options: dict[str, Any], named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing was submitted."""
    monkeypatch.setattr("covalent_cirro.electron.engine.engine.STORE_PATIENCE_S", 1.0)
    with pytest.raises(CirroError) as caught:
        await executor(**options).run(add, [1, 2], {}, metadata)
    for words in named:
        assert words in str(caught.value)


async def test_a_role_that_does_not_exist_is_named(executor: Make, metadata: dict[str, Any]) -> None:
    """ECS finds out when it starts the task; AWS's words and both options are told."""
    with pytest.raises((TaskRuntimeError, CirroError), match="role"):
        await executor(batch_job_role_name="no-such-role").run(add, [1, 2], {}, metadata)


async def test_a_disabled_queue_is_named(executor: Make, metadata: dict[str, Any], account: Account) -> None:
    """With the state it has to be in."""
    batch = account.client("batch")
    queue = account.settings["batch_queue"]
    batch.update_job_queue(jobQueue=queue, state="DISABLED")
    try:
        with pytest.raises(CirroError, match="ENABLED"):
            await executor().run(add, [1, 2], {}, metadata)
    finally:
        batch.update_job_queue(jobQueue=queue, state="ENABLED")


async def test_a_missing_log_group_is_told_in_awss_words(executor: Make, metadata: dict[str, Any]) -> None:
    """The container cannot start without it."""
    with pytest.raises(TaskRuntimeError, match=r"(?s)batch_job_log_group_name=.no-such-group.*does not exist"):
        await executor(batch_job_log_group_name="no-such-group").run(add, [1, 2], {}, metadata)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "throttle", "service": "batch", "operation": "SubmitJob", "count": 3},
        {"kind": "throttle", "service": "batch", "operation": "RegisterJobDefinition", "count": 7},
        {"kind": "throttle", "service": "batch", "operation": "DescribeJobs", "count": 7},
        {"kind": "error", "service": "s3", "operation": "PutObject", "count": 7},
        {"kind": "error", "service": "s3", "operation": "PutObject", "status": 503, "count": 7},
        {"kind": "error", "service": "s3", "operation": "GetObject", "count": 7},
        {"kind": "error", "service": "s3", "operation": "HeadObject", "count": 7},
        {"kind": "cut", "service": "s3", "operation": "PutObject", "count": 3},
        {"kind": "cut", "service": "s3", "operation": "GetObject", "when": "during", "count": 2},
        {"kind": "conflict", "service": "s3", "operation": "PutObject", "count": 2},
        {"kind": "describe_omits", "seconds": 3.0, "count": 1},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
async def test_a_fault_that_passes_slows_us_down_and_loses_nothing(
    executor: Make, metadata: dict[str, Any], faults: Faults, fault: dict[str, Any]
) -> None:
    """On the server's side and on the job's."""
    fault = dict(fault)
    faults.add(fault.pop("kind"), **fault)
    data = bytes(range(256)) * 400
    made = executor(batch_job_definition_name=f"d{metadata['dispatch_id'][:8]}")
    assert await made.run(size, [data], {}, metadata) == len(data)
    assert any(fault["hits"] for fault in faults.all())


@pytest.mark.parametrize(("when", "not_listed_s"), [("after", 0.0), ("during", 0.0), ("after", 2.0)])
async def test_a_lost_answer_to_submit_job_does_not_run_the_electron_twice(
    executor: Make, metadata: dict[str, Any], faults: Faults, account: Account, when: str, not_listed_s: float
) -> None:
    """SubmitJob has no token: the job is looked for by its name before it is submitted again, until it is listed."""
    faults.add("cut", service="batch", operation="SubmitJob", when=when, count=1)
    faults.add("describe_omits", seconds=not_listed_s)
    assert await executor().run(add, [1, 2], {}, metadata) == 3
    batch = account.client("batch")
    names = [
        job["jobName"]
        for status in ("SUCCEEDED", "FAILED", "RUNNING", "RUNNABLE")
        for job in batch.list_jobs(jobQueue=account.settings["batch_queue"], jobStatus=status)["jobSummaryList"]
    ]
    assert sum(metadata["dispatch_id"][:8] in name for name in names) == 1


@pytest.mark.parametrize("call", [("s3", "HeadObject"), ("s3", "PutObject"), ("batch", "SubmitJob")])
async def test_a_clock_that_is_wrong_is_told_as_that(
    executor: Make, metadata: dict[str, Any], faults: Faults, call: tuple[str, str]
) -> None:
    """Also where AWS's answer has no body and says nothing."""
    faults.add("clock", service=call[0], operation=call[1], seconds=3600.0)
    with pytest.raises(CirroError, match="clock"):
        await executor().run(size, [bytes(100_000)], {}, metadata)


def overwrite(account: Account, key: str, change: Callable[[bytes], bytes]) -> None:
    """Change an object behind everybody's back."""
    found = account.client("s3").get_object(Bucket=account.settings["s3_bucket_name"], Key=key)
    account.replace(key, change(found["Body"].read()))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"X" + data[1:]], ids=["cut short", "changed"])
async def test_an_input_that_was_tampered_with_is_refused_by_the_runner(
    executor: Make, metadata: dict[str, Any], account: Account, change: Callable[[bytes], bytes]
) -> None:
    """By its digest, before anything is unpickled."""
    made = executor()
    before = set(account.keys())
    await made._upload_task(size, [b"%s" % metadata["dispatch_id"].encode() * 4000], {}, metadata)
    (blob,) = [key for key in set(account.keys()) - before if "/blobs/" in key]
    overwrite(account, blob, change)
    job_id = await made.submit_task(metadata, {})
    await _ended(made, job_id)
    with pytest.raises(TaskRuntimeError, match=blob.rsplit("/", 1)[1]):
        await made.query_result(metadata)


@pytest.mark.parametrize("change", ["deleted", "changed"])
async def test_a_blob_that_is_not_what_it_was_fails_one_electron_and_is_sent_again_for_the_next(
    executor: Make, metadata: dict[str, Any], account: Account, change: str
) -> None:
    """What was once seen in S3 is asked for again after a job did not find it, or other bytes of the same length."""
    made, data = executor(), metadata["dispatch_id"].encode() * 4000
    before = set(account.keys())
    assert await made.run(size, [data], {}, metadata) == len(data)
    (blob,) = [key for key in set(account.keys()) - before if "/blobs/" in key]
    if change == "deleted":
        account.client("s3").delete_object(Bucket=account.settings["s3_bucket_name"], Key=blob)
    else:
        overwrite(account, blob, lambda data: b"X" + data[1:])
    with pytest.raises(TaskRuntimeError, match=blob.rsplit("/", 1)[1]):
        await made.run(size, [data], {}, metadata)
    assert await made.run(size, [data], {}, metadata) == len(data)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"X" + data[1:]], ids=["cut short", "changed"])
async def test_a_result_that_was_tampered_with_is_refused_by_the_server(
    executor: Make, metadata: dict[str, Any], account: Account, change: Callable[[bytes], bytes]
) -> None:
    """By its digest; no file is left half written."""
    made = executor()
    text = metadata["dispatch_id"]
    await made._upload_task(lambda: text * 4000, [], {}, metadata)
    before = set(account.keys())
    await _ended(made, await made.submit_task(metadata, {}))
    for blob in [key for key in set(account.keys()) - before if "/blobs/" in key]:
        overwrite(account, blob, change)
    with pytest.raises(TaskRuntimeError, match=r"changed or cut short|decodes to|damaged"):
        await made.query_result(metadata)


async def test_a_result_that_was_changed_is_stored_again_by_the_next_job_that_has_it(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """Its blob has the same name, and other bytes of the same length."""
    made, text = executor(), metadata["dispatch_id"]
    before = set(account.keys())
    result = await made.run(lambda: text * 4000, [], {}, metadata)
    blobs = [key for key in set(account.keys()) - before if "/blobs/" in key]
    assert blobs
    for blob in blobs:
        overwrite(account, blob, lambda data: b"X" + data[1:])
    assert await made.run(lambda: text * 4000, [], {}, {**metadata, "node_id": 4}) == result


@pytest.mark.parametrize(
    "outcome",
    [b"", b"not json", b"[]", b'{"format": 1}', b'{"format": 99}', b'{"format":1,"call_id":"another"}', b"\x80\x04N."],
)
async def test_a_malformed_outcome_is_refused_by_its_form(
    executor: Make, metadata: dict[str, Any], account: Account, outcome: bytes
) -> None:
    """Whatever a job wrote there: it is never unpickled, and the object is named."""
    made = executor()
    await made._upload_task(add, [1, 2], {}, metadata)
    await _ended(made, await made.submit_task(metadata, {}))
    (key,) = [key for key in account.keys("") if metadata["dispatch_id"] in key and key.endswith("outcome.json")]
    overwrite(account, key, lambda _: outcome)
    with pytest.raises(CirroError, match=r"outcome.json"):
        await made.query_result(metadata)


async def test_a_cache_that_others_may_write_to_is_refused(
    executor: Make, metadata: dict[str, Any], tmp_path: Any, account: Account
) -> None:
    """Before anything is sent: what lies there could be another user's, such as an archive of our package."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CirroError, match=r"cache_dir='.*open' cannot be used: other users may write .*chmod go-w"):
        await executor(cache_dir=str(tmp_path / "open")).run(add, [1, 2], {}, metadata)
    assert not [key for key in account.keys() if metadata["dispatch_id"] in key]


async def test_credentials_that_are_mended_are_used_by_the_next_electron(
    executor: Make, metadata: dict[str, Any], tmp_path: Any, account: Account
) -> None:
    """Without restarting the server."""
    path = tmp_path / "credentials"
    path.write_text(f"[{PROFILE}]\n")
    made = executor(credentials=str(path))
    with pytest.raises(CirroError, match="found no credentials"):
        await made.run(add, [1, 2], {}, metadata)
    credentials_file(path, account.emulator.key)
    assert await made.run(add, [1, 2], {}, metadata) == 3


async def _ended(made: CirroBatchExecutor, job_id: str) -> None:
    while (await made.get_status(job_id))[0] not in ("SUCCEEDED", "FAILED"):
        await asyncio.sleep(0.1)
