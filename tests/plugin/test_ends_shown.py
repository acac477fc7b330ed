"""Ends of electrons on the emulator: each really happens, and the user reads what it was, why, and what to do."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.contract.documents import dump_outcome
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.places import call_argument, location
from covalent_cirro.contract.protocol import Call, Log, NodeResult, Outcome, Output, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron import without_server
from covalent_cirro.electron.handover import EndedJob, OwnJob
from covalent_cirro.electron.receive import links, write_ends
from covalent_cirro.electron.send import engine_for
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs.ends import End
from covalent_cirro.jobs.explanations import JobLinks
from covalent_cirro.jobs.states import Attempt, JobDetail
from covalent_cirro.local.emulator import Timing
from covalent_cirro.local.emulator.faults import Faults
from tests import last_words
from tests.last_words import take_the_runner_along
from tests.plugin.conftest import Account, emulated

Make = Callable[..., CirroBatchExecutor]

SCALE = 0.01
"""A minute of AWS is 0.6 s here: time limits of jobs and of queues begin at minutes."""

DEADLINE_S = 60.0

cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(last_words)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An emulated account whose clock runs faster."""
    with emulated(tmp_path_factory.mktemp("account"), timing=Timing(scale=SCALE)) as made:
        yield made


@pytest.fixture
def faults(account: Account) -> Iterator[Faults]:
    """The emulator's faults, cleared afterwards."""
    yield account.emulator.faults
    account.emulator.faults.clear()


async def told(made: CirroBatchExecutor, function: Callable[..., Any], metadata: dict[str, Any], *args: Any) -> str:
    """What the user reads of an electron that fails: its first two lines have name and next step, its job is named."""
    with pytest.raises(TaskRuntimeError) as caught:
        await made.run(function, list(args), {}, metadata)
    text = str(caught.value)
    assert text.startswith(f"{function.__name__!r} (node 3)"), text
    assert re.search(r"AWS Batch job [0-9a-f-]{36} in queue cirro-cpu", text), text
    assert "AWS says: FAILED" in text
    assert "console" not in text  # an emulator has none
    return text


def speak(words: str) -> None:
    """Leave something in the log."""
    print(words, flush=True)


def eat() -> int:
    """Want more memory than there is."""
    speak("loading everything")
    held = b"x" * (900 * 1024 * 1024)
    time.sleep(60)  # until it is killed, however seldom a busy emulator measures
    return len(held)


def sleep() -> None:
    """Run for ever."""
    speak("going to sleep")
    time.sleep(600)


def shoot_itself() -> None:
    """Die by SIGKILL."""
    speak("last words")
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """Die in native code."""
    import ctypes

    ctypes.string_at(0)


def leave() -> None:
    """End the process by oneself."""
    speak("leaving")
    os._exit(3)


def fill_the_disk() -> None:
    """Write to where there is no space: the kernel's device for it."""
    with open("/dev/full", "w") as file:
        file.write("x")


async def test_out_of_memory_is_told_with_the_memory_to_set(executor: Make, metadata: dict[str, Any]) -> None:
    """The electron's process is really killed at its limit, and the runner tells how much it had reached."""
    text = await told(executor(), eat, metadata)
    assert "ran out of memory: it was killed at its limit of 0.5 GB (it had reached 0.50 GB)." in text
    assert "To do: Set memory=1 or more" in text
    assert "OutOfMemoryError: Container killed due to memory usage; exit code 1" in text
    assert "The log ends with:\nloading everything" in text


async def test_a_host_that_is_lost_at_each_attempt_is_told_with_how_often(
    executor: Make, metadata: dict[str, Any], faults: Faults
) -> None:
    """With the instances that went, in AWS's words, and the two ways out."""
    faults.add("lose_host", seconds=2, count=2)
    text = await told(executor(retry_attempts=2, batch_on_demand_queue="", time_limit=6000), sleep, metadata)
    assert "lost its host 2 times" in text
    assert "retry_attempts=4" in text
    assert "with batch_on_demand_queue=... it goes there by itself" in text
    assert re.search(
        r"attempt 1: Host EC2 \(instance i-\w+\) terminated; attempt 2: Host EC2 \(instance i-\w+\) terminated", text
    )
    assert "attempt 2 of 2" in text
    assert "going to sleep" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("Error response from daemon: manifest for x:1 not found: manifest unknown", "there is no image cirro-runner"),
        ("Error response from daemon: pull access denied for x", "may not be read"),
        ("Error response from daemon: Get https://x/v2/: net/http: TLS handshake timeout", "did not answer in time"),
        ("write /var/lib/docker/x: no space left on device", "disk of its host full"),
    ],
)
async def test_an_image_that_cannot_be_pulled_is_told_by_its_cause(
    executor: Make, metadata: dict[str, Any], faults: Faults, words: str, says: str
) -> None:
    """Missing, forbidden, not reachable, or too large: four things to do."""
    faults.add("image_pull", reason=words)
    text = await told(executor(retry_attempts=1), sleep, metadata)
    assert says in text.split("\n")[0]
    assert f"CannotPullContainerError: {words}" in text


async def test_the_time_limit_is_told_with_how_long_it_ran_and_where_it_stood(
    executor: Make, metadata: dict[str, Any]
) -> None:
    """SIGTERM, and SIGKILL before the runner could write what it knew."""
    text = await told(executor(time_limit=200), sleep, metadata)
    assert "was stopped at its time limit of 200 s" in text
    assert "time_limit=400" in text
    assert "Job attempt duration exceeded timeout" in text
    assert "going to sleep" in text


async def test_who_stops_a_job_from_outside_is_quoted(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """It is no cancel of ours: the electron failed, in the words of whoever it was."""
    made, batch = executor(), account.client("batch")
    call, job = await submitted(made, sleep, metadata)
    await reaches(made, job.job_id, "RUNNING")
    batch.terminate_job(jobId=job.job_id, reason="night shift: cleaning up")
    found = await without_server.fetch(made.settings, call, await without_server.wait(made.settings, call, job))
    assert "'sleep' (node 3) was stopped by somebody else, not from Covalent" in found.error
    assert "night shift: cleaning up" in found.error


async def test_a_queue_that_gives_up_is_told_with_its_reason(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """JobStateTimeLimit: the job never had a machine."""
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    batch, queue = account.client("batch"), account.settings["batch_queue"]
    action = {"reason": reason, "state": "RUNNABLE", "maxTimeSeconds": 600, "action": "CANCEL"}
    batch.update_job_queue(jobQueue=queue, jobStateTimeLimitActions=[action])
    faults.add("stuck", reason=f"{reason} - no instance type fits")
    try:
        text = await told(executor(), sleep, metadata)
    finally:
        batch.update_job_queue(jobQueue=queue, jobStateTimeLimitActions=[])
    assert "waited too long: its queue cirro-cpu cancels what finds no machine" in text
    assert f"Canceled by JobStateTimeLimit action due to reason: {reason}" in text


async def test_a_child_that_was_killed_leaves_its_signal_and_its_last_words(
    executor: Make, metadata: dict[str, Any]
) -> None:
    """The runner outlives it, and writes the outcome."""
    text = await told(executor(), shoot_itself, metadata)
    assert "was killed by SIGKILL" in text.split("\n")[0]
    assert "The log ends with:\nlast words" in text


async def test_a_crash_in_native_code_is_told_by_its_signal(executor: Make, metadata: dict[str, Any]) -> None:
    """With Python's stack, which faulthandler prints."""
    text = await told(executor(), crash, metadata)
    assert "was killed by SIGSEGV" in text.split("\n")[0]
    assert "Segmentation fault" in text


async def test_an_electron_that_ends_its_process_is_told_its_exit_code(
    executor: Make, metadata: dict[str, Any]
) -> None:
    """os._exit(3)."""
    text = await told(executor(), leave, metadata)
    assert "exit code 3" in text.split("\n")[0]
    assert "The log ends with:\nleaving" in text


async def test_a_full_disk_is_told_with_the_parameter_to_deploy(executor: Make, metadata: dict[str, Any]) -> None:
    """ENOSPC, from the kernel; with the traceback."""
    text = await told(executor(), fill_the_disk, metadata)
    assert "found the disk of its host full: OSError: [Errno 28] No space left on device" in text
    assert "DiskSizeGib" in text
    assert "in fill_the_disk" in text


async def test_a_container_that_was_killed_with_its_runner_has_its_log_from_cloudwatch(
    executor: Make, metadata: dict[str, Any]
) -> None:
    """There is no outcome and nothing in S3."""
    text = await told(executor(), take_the_runner_along, metadata, "epoch 7 of 10")
    assert "was killed by SIGKILL" in text.split("\n")[0]
    assert "exit code 137" in text
    assert "The log ends with:\nepoch 7 of 10" in text


async def test_the_parts_of_the_log_in_s3_are_shown_where_there_is_no_outcome(
    executor: Make, metadata: dict[str, Any], account: Account
) -> None:
    """They are the electron's own, without what the container says; CloudWatch is not asked."""
    made = executor()
    written = await without_server.upload(made.settings, take_the_runner_along, ["epoch 7 of 10"], {}, metadata)
    (call,) = [key for key in account.keys() if metadata["dispatch_id"] in key and key.endswith("/call.json")]
    for attempt, words in (("01", "from the part\n"), ("00", "too old\n")):
        account.client("s3").put_object(
            Bucket=account.settings["s3_bucket_name"],
            Key=f"{call.removesuffix('call.json')}log/{attempt}/stdout.000000",
            Body=words.encode(),
        )
    job = await without_server.submit(made.settings, written)
    ended = await without_server.wait(made.settings, written.call, job)
    account.emulator.calls.reset()
    found = await without_server.fetch(made.settings, written.call, ended)
    assert "The log ends with:\nfrom the part\n" in found.error
    assert "logs:GetLogEvents" not in account.emulator.calls.counts("client")


async def test_an_outcome_of_an_earlier_attempt_is_not_taken_for_the_jobs_end(
    executor: Make, metadata: dict[str, Any], account: Account, faults: Faults
) -> None:
    """The first attempt wrote that it was stopped; the last one lost its host and wrote nothing."""
    made = executor(retry_attempts=2, batch_on_demand_queue="")  # no further try
    written = await without_server.upload(made.settings, sleep, [], {}, metadata)
    place = written.location
    stopped = NodeResult(3, None, Failure(Kind.TERMINATED, "stopped by SIGTERM"), Log(), Log())
    outcome = Outcome(place.call_id, 1, "", (stopped,), Usage(), "3", "3", {}, {})
    faults.add("lose_host", seconds=2, count=2)
    job = await without_server.submit(made.settings, written)
    account.replace(place.outcome_key, dump_outcome(outcome, account.mac_key(job.job_id)))
    ended = await without_server.wait(made.settings, written.call, job)
    found = await without_server.fetch(made.settings, written.call, ended)
    assert "lost its host 2 times" in found.error.split("\n")[0]
    assert "Attempt 1 had ended with: stopped by SIGTERM" in found.error


async def test_a_result_of_an_earlier_attempt_is_kept_when_the_job_ends_badly(
    executor: Make, metadata: dict[str, Any], account: Account, tmp_path: Path
) -> None:
    """Two electrons in one job: one had returned when the first host went, the other never did."""
    settings = executor().settings
    place = location(settings.s3_bucket_name, settings.key_prefix, metadata["dispatch_id"], 3, "018f5e2b7c00c0ffee01")
    done = NodeResult(3, Output(Inline(b"pickled"), Inline(b"7")), None, Log(), Log())
    stopped = NodeResult(4, None, Failure(Kind.TERMINATED, "stopped by SIGTERM"), Log(), Log())
    outcome = Outcome("018f5e2b7c00c0ffee01", 1, "job-1", (done, stopped), Usage(), "3", "3", {}, {})
    account.replace(place.outcome_key, dump_outcome(outcome, "f" * 32))
    lost = Attempt(status_reason="Host EC2 (instance i-1) terminated.")
    job = JobDetail("job-1", state="FAILED", status_reason=lost.status_reason, attempts=(lost, lost))
    job = job._replace(argument=call_argument(place, "f" * 32))
    nodes = {
        number: Node(
            0, number, name, {key: str(tmp_path / name / key) for key in ("output", "stdout", "stderr", "error")}
        )
        for number, name in ((3, "quick"), (4, "slow"))
    }
    async with engine_for(settings) as engine:
        quick, slow = await write_ends(engine, settings, place, nodes, EndedJob(place.call_uri, "job-1", job))
    assert (quick.completed, quick.end, quick.files["output"].size > 0) == (True, End.SUCCEEDED, True)
    assert (slow.completed, slow.end) == (False, End.HOST_LOST)
    assert "'slow' (node 4) lost its host 2 times" in (tmp_path / "slow" / "error").read_text()


def test_job_and_log_are_linked_on_aws_and_not_on_an_emulator(executor: Make) -> None:
    """By the endpoint that the clients really speak to."""
    settings = executor().settings
    job = JobDetail("1234", log_stream="cirro/default/1")

    def linked(endpoint_url: str) -> JobLinks:
        meta = SimpleNamespace(endpoint_url=endpoint_url)
        engine: Any = SimpleNamespace(partition="aws", region="eu-west-1", logs=SimpleNamespace(meta=meta))
        return links(engine, settings, job)

    found = linked("https://logs.eu-west-1.amazonaws.com")
    assert found.job_url.endswith("#jobs/detail/1234")
    assert found.log_url.endswith(f"{settings.batch_job_log_group_name}/log-events/cirro$252Fdefault$252F1")
    assert linked("http://127.0.0.1:5000") == JobLinks()


async def test_what_is_not_told_of_a_job_is_asked_of_aws(executor: Make, metadata: dict[str, Any]) -> None:
    """An end that came by another way than by our wait has no more than the job's id with it."""
    made = executor()
    call, job = await submitted(made, leave, metadata)
    await reaches(made, job.job_id, "FAILED")
    found = await without_server.fetch(made.settings, call, EndedJob(job.call, job.job_id))
    assert "'leave' (node 3) ended without a result" in found.error
    assert "AWS says: FAILED; Essential container in task exited; exit code 1" in found.error


async def test_a_job_that_goes_on_is_not_told_as_ended(executor: Make, metadata: dict[str, Any]) -> None:
    """Whoever says so: its outcome is still to come."""
    made = executor()
    call, job = await submitted(made, sleep, metadata)
    await reaches(made, job.job_id, "RUNNING")
    with pytest.raises(OutcomeError, match="has not ended: it is RUNNING"):
        await without_server.fetch(made.settings, call, EndedJob(job.call, job.job_id))
    await made.cancel(metadata, job.job_id)


async def test_a_job_that_aws_forgot_is_told_as_lost_and_by_its_id(executor: Make, metadata: dict[str, Any]) -> None:
    """Days later, without an outcome: not as a missing object of S3."""
    made = executor()
    written = await without_server.upload(made.settings, sleep, [], {}, metadata)
    forgotten = EndedJob(written.location.call_uri, "job-of-old", forgotten=True)
    found = await without_server.fetch(made.settings, written.call, forgotten)
    assert "'sleep' (node 3) is lost" in found.error
    assert "AWS Batch job job-of-old" in found.error
    assert "NoSuchKey" not in found.error


async def test_an_electron_that_raised_is_told_by_what_it_raised_and_its_traceback(
    executor: Make, metadata: dict[str, Any]
) -> None:
    """The first line says it; the traceback follows, then what it had printed."""

    def boom() -> None:
        print("before")
        raise ValueError("no such luck")

    text = await told(executor(), boom, metadata)
    assert text.startswith("'boom' (node 3) raised ValueError: no such luck\n\nTraceback (most recent call last):\n")
    assert text.index("Traceback") < text.index("The log ends with:\nbefore") < text.index("AWS Batch job")


async def submitted(
    made: CirroBatchExecutor, function: Callable[[], object], metadata: dict[str, Any]
) -> tuple[Call, OwnJob]:
    """The call and the job of an electron without arguments."""
    written = await without_server.upload(made.settings, function, [], {}, metadata)
    return written.call, await without_server.submit(made.settings, written)


async def reaches(made: CirroBatchExecutor, job_id: str, status: str) -> None:
    """Wait until a job is in a state."""
    until = time.monotonic() + DEADLINE_S
    while (await made.get_status(job_id))[0] != status:
        assert time.monotonic() < until, f"{job_id} does not become {status}"
        await asyncio.sleep(0.1)
