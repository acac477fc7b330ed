"""The shared wait: which jobs are looked at, how often, and what happens when AWS does not answer well."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.aws.batch import MAX_DESCRIBED
from covalent_cirro.electron.engine.watcher import MAX_BLIND_S, Watcher
from covalent_cirro.electron.engine.watchlist import FLOOR_S, MISSING_GRACE_S, Watchlist
from covalent_cirro.errors import AwsError, JobLost, PollFailed
from covalent_cirro.jobs.states import JobDetail, parse_job


class FakeBatch:
    """AWS Batch as far as DescribeJobs goes: jobs with a state, an hour of our own, and bad days on demand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.states: dict[str, str] = {}
        self.ends: dict[str, float] = {}
        self.errors: list[AwsError] = []
        self.calls: list[tuple[float, list[str]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def describe(self, ids: Iterable[str]) -> list[JobDetail]:
        asked = list(ids)
        self.calls.append((self.now, asked))
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return [
            parse_job(
                {
                    "jobId": job_id,
                    "status": "SUCCEEDED" if self.ends.get(job_id, 1e9) <= self.now else self.states[job_id],
                }
            )
            for job_id in asked
            if job_id in self.states
        ]

    def watcher(self) -> Watcher:
        return Watcher(self.describe, clock=self.clock, sleep=self.sleep)

    def run(self, job_id: str, ends: float, state: str = "RUNNING") -> str:
        self.states[job_id] = state
        self.ends[job_id] = ends
        return job_id


def throttled() -> AwsError:
    """What aws/sessions.py makes of a 429."""
    return AwsError(
        "Too Many Requests", operation="batch:DescribeJobs", code="TooManyRequestsException", throttled=True
    )


def denied() -> AwsError:
    """What does not get better by waiting."""
    return AwsError("not authorized", operation="batch:DescribeJobs", code="AccessDeniedException")


async def test_all_waits_share_their_calls() -> None:
    """Fifty jobs cost as many calls as one, at most one a second."""
    batch = FakeBatch()
    watcher = batch.watcher()
    waits = [watcher.wait(batch.run(f"j{i}", ends=10.0)) for i in range(50)]
    assert {detail.state for detail in await asyncio.gather(*waits)} == {"SUCCEEDED"}
    assert len(batch.calls) <= 11
    assert len(batch.calls[0][1]) == 50


async def test_calls_are_a_second_apart_and_have_at_most_a_hundred_ids() -> None:
    """However many jobs there are, and however they come and go."""
    batch = FakeBatch()
    watcher = batch.watcher()
    await asyncio.gather(*(watcher.wait(batch.run(f"j{i}", ends=3 + i / 20)) for i in range(250)))
    times = [time for time, _ in batch.calls]
    assert all(later - earlier >= FLOOR_S - 1e-9 for earlier, later in pairwise(times))
    assert max(len(ids) for _, ids in batch.calls) == MAX_DESCRIBED


async def test_the_end_of_200_running_jobs_is_seen_within_two_looks() -> None:
    """Two hundred jobs are two calls: an end is seen after two seconds at the latest."""
    batch = FakeBatch()
    watcher = batch.watcher()
    await asyncio.gather(*(watcher.wait(batch.run(f"j{i}", ends=20 + i / 7)) for i in range(200)))
    seen = {
        job_id: next(time for time, ids in batch.calls if job_id in ids and time >= end)
        for job_id, end in batch.ends.items()
    }
    assert max(seen[job_id] - batch.ends[job_id] for job_id in seen) <= 2 * FLOOR_S


async def test_running_jobs_go_before_those_that_wait_for_a_machine() -> None:
    """Only a job that runs can end: with 300 waiting, the 20 that run are in every call."""
    batch = FakeBatch()
    watcher = batch.watcher()
    waiting = [asyncio.ensure_future(watcher.wait(batch.run(f"w{i}", 1e8, "RUNNABLE"))) for i in range(300)]
    await asyncio.gather(*(watcher.wait(batch.run(f"r{i}", ends=30.0)) for i in range(20)))
    late = [ids for time, ids in batch.calls if 10 < time < 29]
    assert all(sum(job_id.startswith("r") for job_id in ids) == 20 for ids in late)
    assert {job_id for ids in late for job_id in ids} >= set(batch.states)
    for wait in waiting:
        wait.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_long_job_is_looked_at_ever_less_often_up_to_its_ceiling() -> None:
    """A look costs at most a hundredth of what the state has lasted; poll_freq is the ceiling."""
    batch = FakeBatch()
    await batch.watcher().wait(batch.run("j", ends=7200.0), ceiling_s=10)
    assert len(batch.calls) < 1200
    assert batch.now - 7200 <= 10


async def test_a_job_that_describe_does_not_know_yet_is_waited_for() -> None:
    """DescribeJobs may return nothing right after SubmitJob."""
    batch = FakeBatch()
    wait = asyncio.ensure_future(batch.watcher().wait("new"))
    while batch.now < MISSING_GRACE_S / 2:
        await asyncio.sleep(0)
    batch.run("new", ends=0)
    assert (await wait).state == "SUCCEEDED"


async def test_a_job_that_stays_unknown_is_lost_and_the_others_go_on() -> None:
    """It fails with its id; nobody waits for ever."""
    batch = FakeBatch()
    watcher = batch.watcher()
    other = asyncio.ensure_future(watcher.wait(batch.run("there", ends=200.0)))
    with pytest.raises(JobLost, match="gone"):
        await watcher.wait("gone")
    assert batch.now >= MISSING_GRACE_S
    assert (await other).state == "SUCCEEDED"


async def test_throttling_slows_us_down_and_loses_nothing() -> None:
    """Pauses double while AWS says 429; then the wait goes on."""
    batch = FakeBatch()
    batch.errors = [throttled() for _ in range(6)]
    assert (await batch.watcher().wait(batch.run("j", ends=1.0))).state == "SUCCEEDED"
    times = [time for time, _ in batch.calls]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:5] == [2.0, 4.0, 8.0, 16.0, 30.0]


async def test_being_blind_for_too_long_fails_every_wait_loudly() -> None:
    """With AWS's last words."""
    batch = FakeBatch()
    batch.errors = [throttled() for _ in range(1000)]
    watcher = batch.watcher()
    waits = [asyncio.ensure_future(watcher.wait(batch.run(f"j{i}", 1e9))) for i in range(3)]
    for wait in waits:
        with pytest.raises(PollFailed, match="Too Many Requests"):
            await wait
    assert MAX_BLIND_S < batch.now < MAX_BLIND_S + 60


async def test_access_denied_fails_at_once() -> None:
    """What cannot get better is not tried again."""
    batch = FakeBatch()
    batch.errors = [denied()]
    with pytest.raises(PollFailed, match="not authorized"):
        await batch.watcher().wait(batch.run("j", 1e9))
    assert len(batch.calls) == 1


async def test_a_wait_after_a_failure_starts_afresh() -> None:
    """The watcher does not stay broken."""
    batch = FakeBatch()
    batch.errors = [denied()]
    watcher = batch.watcher()
    with pytest.raises(PollFailed):
        await watcher.wait(batch.run("a", 1e9))
    assert (await watcher.wait(batch.run("b", ends=0))).state == "SUCCEEDED"


async def test_cancelling_one_wait_leaves_the_others_alone() -> None:
    """Also another wait for the same job."""
    batch = FakeBatch()
    watcher = batch.watcher()
    batch.run("j", ends=50.0)
    first, second = (asyncio.ensure_future(watcher.wait("j")) for _ in range(2))
    while batch.now < 10:
        await asyncio.sleep(0)
    first.cancel()
    assert (await second).state == "SUCCEEDED"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_watcher_without_waits_makes_no_calls() -> None:
    """It ends when the last wait does."""
    batch = FakeBatch()
    watcher = batch.watcher()
    await watcher.wait(batch.run("j", ends=0))
    calls = len(batch.calls)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(batch.calls) == calls


async def test_changes_of_state_are_told_once_each() -> None:
    """For the UI: STARTING, then RUNNING."""
    batch = FakeBatch()
    told: list[str] = []
    wait = asyncio.ensure_future(
        batch.watcher().wait(batch.run("j", 20.0, "RUNNABLE"), on_state=lambda detail: told.append(detail.state))
    )
    while batch.now < 10:
        await asyncio.sleep(0)
    batch.states["j"] = "RUNNING"
    await wait
    assert told == ["RUNNABLE", "RUNNING"]


async def test_closing_fails_what_is_left() -> None:
    """A server that stops leaves no wait hanging."""
    batch = FakeBatch()
    watcher = batch.watcher()
    wait = asyncio.ensure_future(watcher.wait(batch.run("j", 1e9)))
    await asyncio.sleep(0)
    await watcher.aclose()
    with pytest.raises(PollFailed, match="goes on"):
        await wait


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["RUNNABLE", "RUNNING", "STARTING", "PENDING"]), min_size=1, max_size=400))
def test_no_job_starves(states: list[str]) -> None:
    """With one look a second, every job is looked at within a bounded time, however many there are."""
    watchlist = Watchlist()
    for index, _ in enumerate(states):
        watchlist.add(f"j{index}", 0.0, 10.0)
    last = dict.fromkeys((f"j{index}" for index in range(len(states))), 0.0)
    bound = 30 + 10 * (len(states) / MAX_DESCRIBED)
    for second in range(1, 200):
        for job_id in watchlist.pick(float(second)):
            watchlist.saw(job_id, states[int(job_id[1:])], float(second))
            assert second - last[job_id] <= bound
            last[job_id] = second
    assert min(last.values()) > 199 - bound


def looks_at_an_array(jobs: int, at_once: int, each_s: float) -> tuple[int, float]:
    """Looks at an array of jobs of one length, and how late its end is seen."""
    watchlist = Watchlist()
    watchlist.add("array", 0.0, 10.0)
    last = math.ceil(jobs / at_once) * each_s
    looks = 0
    while True:
        now = watchlist.next_due()
        assert now is not None
        looks += 1
        if now >= last:
            return looks, now - last
        ended = int(now / each_s) * at_once
        begun = min(jobs, ended + at_once)
        watchlist.saw("array", "PENDING", now, waiting=jobs - begun, begun=begun, ended=ended)


@pytest.mark.parametrize(("jobs", "at_once", "each_s", "most"), [(400, 8, 1.0, 20), (10_000, 100, 5.0, 120)])
def test_an_array_is_looked_at_less_often_while_jobs_wait(jobs: int, at_once: int, each_s: float, most: int) -> None:
    """Its end is seen as soon as that of any other job all the same: within a hundredth of its time, or 1 s."""
    looks, late_s = looks_at_an_array(jobs, at_once, each_s)
    assert looks <= most
    assert late_s <= max(1.0, 0.01 * each_s * jobs / at_once)


def test_an_array_without_waiting_jobs_is_looked_at_every_second() -> None:
    """All of its jobs run, and can end at any time."""
    looks, late_s = looks_at_an_array(jobs=400, at_once=400, each_s=20.0)
    assert looks == 20
    assert late_s <= 1.0
