"""Electrons that we submit again, on the emulator: jobs that really run out of memory, hosts that really go away."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskCancelledError, TaskRuntimeError

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.aws.batch import BatchGateway
from covalent_cirro.aws.store import Store
from covalent_cirro.contract.documents import parse_call
from covalent_cirro.contract.protocol import Call, Tried
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import handover, send, without_server
from covalent_cirro.electron import poll as polling
from covalent_cirro.electron.engine.engine import close_engines
from covalent_cirro.electron.handover import AdoptedJob, EndedJob, JobHandle, OwnJob, Sent
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.resume import adoption
from covalent_cirro.jobs import further_tries
from covalent_cirro.local.emulator.faults import Faults
from tests.access import control
from tests.plugin.conftest import Account

Make = Callable[..., CirroBatchExecutor]

MIB = 1024 * 1024
DEADLINE_S = 60.0
NOISE = 200_000
"""Bytes of an input that is too large to travel inline."""

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def faults(account: Account) -> Iterator[Faults]:
    """The emulator's faults, cleared afterwards."""
    yield account.emulator.faults
    account.emulator.faults.clear()


@pytest.fixture
def executor(executor: Make) -> Make:
    """Executors with little memory, which look at their jobs often."""
    return lambda **options: executor(**{"memory": 0.25, "poll_freq": 1, **options})


def fill(mib: int, noise: bytes = b"") -> tuple[int, int]:
    """Hold so much memory for a while; says with how many bytes of noise it was called, and in which attempt."""
    from covalent_cirro import checkpoint

    held = b"x" * (mib * MIB)
    for _ in range(20):  # a busy emulator measures seldom
        time.sleep(0.1)
    assert len(held) == mib * MIB
    return len(noise), checkpoint.attempt()


def sleep() -> None:
    """Run until somebody ends it."""
    time.sleep(600)


def quick() -> str:
    """Return after a host that goes away would have gone."""
    time.sleep(0.7)
    return "done"


def jobs(account: Account, metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """All jobs of a dispatch, in whatever queue, oldest first."""
    batch = account.client("batch")
    found: dict[str, dict[str, Any]] = {}
    for name, queue in account.settings.items():
        if name.endswith("queue"):
            listed = batch.list_jobs(jobQueue=queue, filters=[{"name": "AFTER_CREATED_AT", "values": ["0"]}])
            ids = [
                job["jobId"]
                for job in listed["jobSummaryList"]
                if f"-{metadata['dispatch_id'][:8]}-{metadata['node_id']}-" in job["jobName"]
            ]
            found |= {job["jobId"]: job for job in batch.describe_jobs(jobs=ids)["jobs"]} if ids else {}
    return sorted(found.values(), key=lambda job: job["createdAt"])


def memory(job: dict[str, Any]) -> int:
    """What a job asked for, in MiB."""
    return next(int(each["value"]) for each in job["container"]["resourceRequirements"] if each["type"] == "MEMORY")


def queue(job: dict[str, Any]) -> str:
    """The name of a job's queue."""
    return str(job["jobQueue"]).rsplit("/", 1)[-1]


def calls(account: Account, metadata: dict[str, Any]) -> list[Call]:
    """The calls of an electron, oldest first."""
    s3, bucket = account.client("s3"), account.settings["s3_bucket_name"]
    keys = [key for key in account.keys() if metadata["dispatch_id"] in key and key.endswith("/call.json")]
    return [parse_call(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in sorted(keys)]


def counted(account: Account) -> dict[str, int]:
    """How often each call to AWS was made since this was asked for last."""
    counts = control(account.emulator, "calls")
    control(account.emulator, "calls", method="DELETE")
    return {name: each["count"] for name, each in counts.items()}


# --- out of memory --------------------------------------------------------------------------------------------------


async def test_an_electron_that_runs_out_of_memory_is_submitted_again_with_more(
    executor: Make, metadata: dict[str, Any], account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job for each try, inputs are not sent again, the attempts are counted on, and stderr tells of it first."""
    counted(account)
    noise = bytes(range(256)) * (NOISE // 256)
    assert await executor(memory_max=1).run(fill, [300, noise], {}, metadata) == (len(noise), 2)

    first, second = jobs(account, metadata)
    assert (memory(first), first["status"], memory(second), second["status"]) == (256, "FAILED", 512, "SUCCEEDED")
    one, two = calls(account, metadata)
    assert two.tasks == one.tasks
    (tried,) = two.tried
    # Of a process, the largest is measured; what the runner itself had belongs to the limit as well.
    reached = pytest.approx(2**28, rel=0.1)
    assert tried == Tried(one.call_id, first["jobId"], "out_of_memory", 1, 256, "cirro-cpu", reached, 512, "cirro-cpu")
    assert tried.reached_bytes is not None
    made = counted(account)
    assert made["batch:SubmitJob"] == 2
    blobs = {ref.sha256 for task in two.tasks for ref in (task.function, *task.args) if hasattr(ref, "sha256")}
    # Each blob once, two calls, and two outcomes.
    assert made["s3:PutObject"] == len(blobs) + 4
    assert capsys.readouterr().out.startswith(
        f"covalent-cirro: try 1 ran out of memory at 0.25 GB (it had reached {tried.reached_bytes / 2**30:.2f} GB) "
        f"in job {first['jobId']}. Try 2 has 0.5 GB. Next time, memory=0.5 on its executor saves this try."
    )


async def test_no_more_than_memory_max_is_asked_for(executor: Make, metadata: dict[str, Any], account: Account) -> None:
    """The last try has exactly that, and the user reads which figure to raise."""
    with pytest.raises(TaskRuntimeError) as caught:
        await executor(memory_max=0.4).run(fill, [900], {}, metadata)
    assert [memory(job) for job in jobs(account, metadata)] == [256, 409]
    text = str(caught.value)
    assert "ran out of memory: it was killed at its limit of 0.399 GB" in text
    assert "It had all that memory_max=0.4 allows: set memory_max=1 or more, or memory." in text


# --- hosts ----------------------------------------------------------------------------------------------------------


async def test_an_electron_that_lost_its_host_in_all_attempts_moves_to_the_on_demand_queue(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """As `cirro deploy` has set it; with the same memory."""
    faults.add("lose_host", seconds=0.3, count=2)
    assert await executor(retry_attempts=2).run(quick, [], {}, metadata) == "done"
    first, second = jobs(account, metadata)
    assert (queue(first), len(first["attempts"])) == ("cirro-cpu", 2)
    assert (queue(second), len(second["attempts"]), memory(second)) == ("cirro-cpu-on-demand", 1, 256)


async def test_who_loses_its_hosts_there_too_has_failed(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """There is no third queue."""
    faults.add("lose_host", seconds=0.3, count=2)
    with pytest.raises(TaskRuntimeError, match="cirro-cpu-on-demand is the queue without Spot"):
        await executor(retry_attempts=1).run(quick, [], {}, metadata)
    assert [queue(job) for job in jobs(account, metadata)] == ["cirro-cpu", "cirro-cpu-on-demand"]


async def test_a_lost_host_and_too_little_memory_together(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """What one try has gained the next one keeps."""
    faults.add("lose_host", operation="GetObject", key="/call.json", count=1)
    made = executor(retry_attempts=1, memory_max=2)
    assert await made.run(fill, [300], {}, metadata) == (0, 3)
    found = [(queue(job), memory(job)) for job in jobs(account, metadata)]
    assert found == [("cirro-cpu", 256), ("cirro-cpu-on-demand", 256), ("cirro-cpu-on-demand", 512)]


def train(mib: int) -> list[int]:
    """Note each attempt in the checkpoint, then hold so much memory."""
    from covalent_cirro import checkpoint

    place = checkpoint.folder() / "attempts"
    attempts = [*json.loads(place.read_text() if place.exists() else "[]"), checkpoint.attempt()]
    place.write_text(json.dumps(attempts))
    checkpoint.save()
    fill(mib)
    return attempts


async def test_a_checkpoint_goes_on_over_all_tries(executor: Make, metadata: dict[str, Any], account: Account) -> None:
    """The next job finds what the last one stored; in the end nothing of it is left."""
    assert await executor(memory_max=2).run(train, [600], {}, metadata) == [1, 2, 3]
    assert [key for key in account.keys() if metadata["dispatch_id"] in key and "/checkpoint/" in key] == []


# --- servers that die, and cancels ----------------------------------------------------------------------------------


class Died(BaseException):
    """The server is killed here."""


class Server:
    """A Covalent server as far as one electron goes: it keeps the job's handle, and nothing else outlives it."""

    def __init__(self, account: Account, made: CirroBatchExecutor, metadata: dict[str, Any]) -> None:
        self.account = account
        self.settings = made.settings
        self.dispatch_id, self.node_id = metadata["dispatch_id"], metadata["node_id"]
        self.node = Node(0, self.node_id, "quick", {})
        self.handle: dict[str, Any] | None = None
        self.made, self.metadata = made, metadata

    async def keep_handle(self, dispatch_id: str, node_id: int, handle: JobHandle) -> None:
        """What Covalent does with a handle."""
        assert (dispatch_id, node_id) == (self.dispatch_id, self.node_id)
        self.handle = handover.dump_handle(handle)

    async def begin(self, function: Callable[..., Any], *args: Any) -> OwnJob:
        """Submit the electron; gives what `poll` is given."""
        written = await without_server.upload(self.settings, function, list(args), {}, self.metadata)
        job = await without_server.submit(self.settings, written)
        self.handle = handover.dump_handle(JobHandle(job.job_id, job.call))
        return job

    async def poll(self, sent: Sent) -> EndedJob:
        """Wait for it, as a server does."""
        launch = Launch(self.dispatch_id, [self.node_id])
        try:
            ended = await polling.poll(launch, self.settings, sent, self.keep_handle)
        finally:
            launch.close()
        assert isinstance(ended, EndedJob)
        return ended

    async def resume(self) -> AdoptedJob:
        """What the next server finds, and `poll` is given there."""
        await close_engines()
        async with send.engine_for(self.settings) as engine:
            earlier = await adoption.find(engine, self.settings, self.dispatch_id, self.node)
        assert earlier is not None
        assert earlier.job_id is not None
        tried = earlier.written.call.tried if earlier.written is not None else ()
        return AdoptedJob(earlier.job_id, earlier.place.call_uri, tuple(earlier.keys), tried)


@pytest.fixture
def server(account: Account, executor: Make, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose electron may be started once for a queue."""
    made = Server(account, executor(retry_attempts=1), metadata)
    monkeypatch.setattr(assets, "read_handle", lambda dispatch_id, node_id: made.handle)
    group = Group(nodes={made.node_id: made.node}, inputs={}, lattice="sweep", python="", covalent="")
    monkeypatch.setattr(assets, "load_group", lambda *of: group)
    monkeypatch.setattr(adoption, "SETTLE_S", 0.2)
    return made


def dies(monkeypatch: pytest.MonkeyPatch, server: Server, when: str) -> None:
    """Have the server die at a point between two tries."""
    submit, keep = BatchGateway.submit, server.keep_handle

    async def die(*_: Any, **__: Any) -> Any:
        raise Died

    async def submit_and_die(*args: Any, **options: Any) -> Any:
        await submit(*args, **options)
        raise Died

    async def keep_and_die(*args: Any) -> None:
        await keep(*args)
        raise Died

    points: dict[str, tuple[Any, str, Any]] = {
        "decided": (Store, "put_document", die),
        "written": (BatchGateway, "submit", die),
        "submitted": (BatchGateway, "submit", submit_and_die),
        "kept": (server, "keep_handle", keep_and_die),
    }
    monkeypatch.setattr(*points[when])


@pytest.mark.parametrize("when", ["decided", "written", "submitted", "kept"])
async def test_a_server_that_dies_between_two_tries_neither_runs_one_twice_nor_loses_it(
    server: Server,
    faults: Faults,
    account: Account,
    metadata: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """The next server comes to the same call, and to the one job that it has."""
    faults.add("lose_host", seconds=0.3, count=1)
    data = await server.begin(quick)
    with monkeypatch.context() as patch:
        dies(patch, server, when)
        with pytest.raises(Died):
            await server.poll(data)
    ended = await server.poll(await server.resume())
    first, second = jobs(account, metadata)
    assert [queue(first), queue(second)] == ["cirro-cpu", "cirro-cpu-on-demand"]
    assert (second["status"], second["tags"]["covalent:lattice"]) == ("SUCCEEDED", "sweep")
    assert (ended.job_id, ended.tried) == (second["jobId"], 1)
    one, two = calls(account, metadata)
    assert two.call_id == further_tries.next_call_id(one.call_id)
    assert server.handle is not None
    assert server.handle["job_id"] == (first if when == "submitted" else second)["jobId"]  # `send` keeps an adopted one
    server.handle = None
    assert (await server.resume()).job_id == second["jobId"]


@pytest.mark.parametrize("when", ["deciding", "submitting"])
async def test_a_cancel_between_two_tries_leaves_no_job(
    server: Server,
    faults: Faults,
    account: Account,
    metadata: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """Whether the next one is not submitted yet, or is being submitted."""
    faults.add("lose_host", seconds=0.3, count=1)
    data = await server.begin(quick)
    submit = BatchGateway.submit
    asked: list[bool] = []

    async def cancel() -> None:
        asked.append(await server.made.cancel(metadata, server.handle))

    async def cancel_and_put(*args: Any) -> None:
        await cancel()

    async def submit_and_cancel(*args: Any, **options: Any) -> str:
        job_id = await submit(*args, **options)
        await cancel()
        return job_id

    if when == "deciding":
        monkeypatch.setattr(Store, "put_document", cancel_and_put)
    else:
        monkeypatch.setattr(BatchGateway, "submit", submit_and_cancel)
    with pytest.raises(TaskCancelledError):
        await server.poll(data)
    assert asked == [True]
    _, *further = jobs(account, metadata)
    if when == "deciding":
        assert further == []
    else:
        await ends(account, further[0]["jobId"], "Cancelled in Covalent")


async def ends(account: Account, job_id: str, reason: str) -> None:
    """Wait until a job has failed for this reason."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        (job,) = account.client("batch").describe_jobs(jobs=[job_id])["jobs"]
        if job["status"] == "FAILED":
            break
        assert time.monotonic() < deadline, job["status"]
        await asyncio.sleep(0.1)
    assert job["statusReason"].startswith(reason)


async def test_what_somebody_ended_is_not_submitted_again(
    server: Server, account: Account, metadata: dict[str, Any]
) -> None:
    """A job that was ended by `cirro stop` or in the AWS console, and whose host went away at once."""
    data = await server.begin(sleep)
    waiting = asyncio.ensure_future(server.poll(data))
    deadline = time.monotonic() + DEADLINE_S
    while jobs(account, metadata)[0]["status"] != "RUNNING":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    account.client("batch").terminate_job(jobId=data.job_id, reason="enough")
    batch = account.emulator.batch()
    for host in list(batch.fleet.hosts):
        batch.lose_host(host)
    ended = await waiting
    assert ended.job_id == data.job_id
    assert len(jobs(account, metadata)) == 1


async def test_what_cannot_be_submitted_again_is_told_with_why(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """The electron's own end stays the first thing that is read."""
    faults.add("lose_host", seconds=0.3, count=1)
    with pytest.raises(TaskRuntimeError) as caught:
        await executor(retry_attempts=1, batch_on_demand_queue="nowhere").run(quick, [], {}, metadata)
    text = str(caught.value)
    assert text.startswith("'quick' (node 3) lost its host 1 time")
    assert "It was to be submitted again with queue nowhere, but could not be: " in text
    assert "batch_on_demand_queue" in text
