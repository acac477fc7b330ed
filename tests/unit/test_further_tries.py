"""Which electrons are submitted again by us, and with what: decided by the evidence alone, the same whoever asks."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.contract.documents import dump_call, parse_call
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call, ExitCode, Task, Tried, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.electron.call_writer import new_call_id
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs import further_tries, panel
from covalent_cirro.jobs.ends import Evidence
from covalent_cirro.jobs.explanations import JobLinks, explain
from covalent_cirro.jobs.states import CANCEL_REASON, ITEMS_STOPPED_REASON, Attempt, JobDetail
from covalent_cirro.settings import resolve

GIB = 1024**3
CALL = "0199c0ffee00deadbeef"
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
LOST = Attempt(None, "", "Host EC2 (instance i-0123456789abcdef0) terminated.")
QUEUES = {"batch_queue": "cpu", "batch_on_demand_queue": "cpu-od"}
GPU_QUEUES = {
    **QUEUES,
    "batch_gpu_queue": "gpu",
    "batch_gpu_on_demand_queue": "arn:aws:batch:eu-west-1:1:job-queue/gpu-od",
}


def job(reason: str = "", memory_mib: int = 4096, queue: str = "cpu", **fields: Any) -> JobDetail:
    """A job that failed."""
    base: dict[str, Any] = {"state": "FAILED", "exit_code": 137, "attempts": (Attempt(137, reason),), "max_attempts": 3}
    return JobDetail("job-1", reason=reason, memory_mib=memory_mib, queue=queue, **{**base, **fields})


def lost(queue: str = "cpu", attempts: int = 3, **fields: Any) -> JobDetail:
    """A job whose attempts are used up, its last host lost."""
    return job(queue=queue, exit_code=None, attempts=(LOST,) * attempts, status_reason=LOST.status_reason, **fields)


def killed(
    kind: str, oom_kills: int = 0, message: str = "", signal: str = "SIGKILL", peak: int | None = None
) -> Evidence:
    """A job whose runner lived to tell how the electron ended."""
    usage = Usage(oom_kills=oom_kills, peak_memory_bytes=peak)
    return Evidence(job(exit_code=1), Failure(kind, message, signal=signal), usage, attempt=1)


class Row(NamedTuple):
    """What ended, with which settings, and the next try: memory in GB and queue, or `None`."""

    what: str
    evidence: Evidence
    settings: dict[str, Any]
    next: tuple[float, str] | None


ROWS = [
    Row("AWS says so", Evidence(job(OUT_OF_MEMORY)), {"memory_max": 64}, (8, "cpu")),
    Row("the runner says so", killed(Kind.OUT_OF_MEMORY, 1), {"memory_max": 64}, (8, "cpu")),
    Row("a process of it was killed", killed(Kind.RAISED, 1, "broken pool"), {"memory_max": 64}, (8, "cpu")),
    Row("what it reached counts", killed(Kind.OUT_OF_MEMORY, 1, peak=5 * GIB), {"memory_max": 64}, (10, "cpu")),
    Row("up to the cap", Evidence(job(OUT_OF_MEMORY)), {"memory_max": 6}, (6, "cpu")),
    Row("in whole MiB", Evidence(job(OUT_OF_MEMORY, 1331)), {"memory": 1, "memory_max": 1.3}, None),
    Row("no further than the cap", Evidence(job(OUT_OF_MEMORY)), {"memory_max": 4}, None),
    Row("over the cap already", killed(Kind.OUT_OF_MEMORY, 1, peak=7 * GIB), {"memory_max": 6}, None),
    Row("no cap", Evidence(job(OUT_OF_MEMORY)), {}, None),
    Row("not by the executor's memory", Evidence(job(OUT_OF_MEMORY, 8192)), {"memory_max": 64}, (16, "cpu")),
    Row("stays where it is", Evidence(job(OUT_OF_MEMORY, queue="cpu-od")), {"memory_max": 64}, (8, "cpu-od")),
    Row("a bare SIGKILL", killed(Kind.KILLED), {"memory_max": 64}, None),
    Row("memory of the GPU", killed(Kind.RAISED, 0, "CUDA out of memory. Tried to", ""), {"memory_max": 64}, None),
    Row("shared memory", killed(Kind.KILLED, 0, "", "SIGBUS"), {"memory_max": 64}, None),
    Row("raised", killed(Kind.RAISED, 0, "ValueError: no", ""), {"memory_max": 64}, None),
    Row("exit code 137 and no reason", Evidence(job()), {"memory_max": 64}, None),
    Row("hosts lost", Evidence(lost()), {}, (4, "cpu-od")),
    Row("notices", Evidence(job(exit_code=75, attempts=(Attempt(ExitCode.HOST_GOING),) * 3)), {}, (4, "cpu-od")),
    Row("keeps its memory", Evidence(lost(memory_mib=8192)), {"memory_max": 64}, (8, "cpu-od")),
    Row("hosts lost there too", Evidence(lost("cpu-od")), {}, None),
    Row("nowhere to go", Evidence(lost()), {"batch_on_demand_queue": None}, None),
    Row("a GPU's", Evidence(lost("gpu")), {**GPU_QUEUES, "num_gpus": 1}, (4, GPU_QUEUES["batch_gpu_on_demand_queue"])),
    Row("a GPU's, there too", Evidence(lost("gpu-od")), {**GPU_QUEUES, "num_gpus": 1}, None),
    Row("a GPU's without a queue", Evidence(lost("gpu")), {"batch_gpu_queue": "gpu", "num_gpus": 1}, None),
    Row("GPUs in the only queue", Evidence(lost()), {"num_gpus": 1}, (4, "cpu-od")),
    Row("the on-demand queue from the start", Evidence(lost("cpu-od")), {"batch_queue": "cpu-od"}, None),
    Row(
        "stopped with its items",
        Evidence(job(OUT_OF_MEMORY, status_reason=ITEMS_STOPPED_REASON, terminated=True)),
        {"memory_max": 64},
        None,
    ),
    Row("ended by us", Evidence(job(OUT_OF_MEMORY, status_reason=CANCEL_REASON)), {"memory_max": 64}, None),
    Row("ended by somebody", Evidence(job(OUT_OF_MEMORY, terminated=True)), {"memory_max": 64}, None),
    Row("lost while it was ended", Evidence(lost(terminated=True)), {}, None),
    Row("time limit", Evidence(job(status_reason="Job attempt duration exceeded timeout")), {"memory_max": 64}, None),
    Row("agent", Evidence(job("AGENT is disconnected", exit_code=None)), {"memory_max": 64}, None),
    Row("forgotten", Evidence(None), {"memory_max": 64}, None),
    Row("succeeded", Evidence(job(state="SUCCEEDED")), {"memory_max": 64}, None),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_what_is_submitted_again(row: Row) -> None:
    """Only what ran out of memory, and what lost its hosts; nothing that somebody ended."""
    settings = resolve({"memory": 4, **QUEUES, **row.settings}, {})
    found = further_tries.next_try(row.evidence, settings, CALL)
    assert (None if found is None else (found.settings.memory, found.settings.queue)) == row.next
    assert further_tries.next_try(row.evidence, settings, CALL) == found
    if found is not None:
        assert (found.tried.call_id, found.tried.job_id) == (CALL, "job-1")
        assert found.tried.next_memory_mib == found.settings.memory_mib


@given(st.floats(0.125, 64), st.floats(0.125, 4096))
def test_tries_for_memory_come_to_an_end_at_the_cap(memory: float, memory_max: float) -> None:
    """Each has more than the one before, the last one as much as was allowed."""
    if memory_max < memory:
        return
    settings = resolve({"memory": memory, "memory_max": memory_max}, {})
    asked = [settings.memory_mib]
    while (found := further_tries.next_try(Evidence(job(OUT_OF_MEMORY, asked[-1])), settings, CALL)) is not None:
        asked.append(found.settings.memory_mib)
        assert len(asked) < 20
    assert asked == sorted(set(asked))
    assert asked[-1] == settings.__class__.memory_mib.fget(resolve({"memory": memory_max}, {}))  # type: ignore[attr-defined]


def test_memory_max_below_memory_is_refused() -> None:
    """The first try would have more than the last one may."""
    with pytest.raises(SettingsError, match=r"memory_max=2 is less than memory=4"):
        resolve({"memory": 4, "memory_max": 2}, {})
    assert resolve({"memory": 4, "memory_max": 4}, {}).memory_max == 4


# --- calls ----------------------------------------------------------------------------------------------------------


def test_the_next_call_is_named_by_the_one_before_it() -> None:
    """Always the same, of the same form, after it and before any that is made later."""
    first = new_call_id()
    second = further_tries.next_call_id(first)
    assert second == further_tries.next_call_id(first) != further_tries.next_call_id(second)
    assert len(second) == len(first) == 20
    assert first < second < further_tries.next_call_id(second) < f"{int(first[:12], 16) + 3:012x}" + "0" * 8


def test_calls_that_try_one_another_again_belong_together() -> None:
    """Among others of the same node, in whatever order they are given."""
    first, other = "0199c0ffee00deadbeef", "0199c0ffee0000000000"
    second = further_tries.next_call_id(first)
    third = further_tries.next_call_id(second)
    assert further_tries.chains([third, other, first, second, "call-of-another-form"]) == [
        [other],
        [first, second, third],
        ["call-of-another-form"],
    ]
    assert further_tries.following(first, {first, third}) == []
    assert further_tries.following(first, {first, second, third}) == [second, third]


CALL_OF_ONE = Call(
    CALL, "d", "3.11.7", "3.1.0", "0.240.0", (Task(3, "train", Inline(b"f"), None, (Inline(b"x"),), {}),)
)
TRIED = Tried(CALL, "job-1", "out_of_memory", 2, 4096, "cpu", 4 * GIB, 8192, "cpu")
MOVED = Tried("c2", "job-2", "host_lost", 3, 8192, "cpu", None, 8192, "cpu-od")


def test_the_next_call_is_the_same_work_with_what_was_tried() -> None:
    """It can be read back, and a document without the field, or with a bad one, is what it always was."""
    again = further_tries.next_call(CALL_OF_ONE, TRIED)
    assert again.tasks == CALL_OF_ONE.tasks
    assert again.attempts_before == 2
    assert parse_call(dump_call(again)) == again
    document = json.loads(dump_call(CALL_OF_ONE))
    del document["tried"]
    assert parse_call(json.dumps(document).encode()) == CALL_OF_ONE
    document["tried"] = [{**TRIED._asdict(), "call_id": "../../other"}]
    with pytest.raises(ProtocolError, match=r"tried\[0\]\.call_id"):
        parse_call(json.dumps(document).encode())


def test_calls_of_a_node_lie_side_by_side() -> None:
    """One's place gives the other's."""
    place = Location("bucket", "p/jobs/d/3/one/")
    assert place.node_base == "p/jobs/d/3/"
    assert place.sibling("two") == Location("bucket", "p/jobs/d/3/two/")


# --- what is told ---------------------------------------------------------------------------------------------------


def test_each_try_is_told_with_what_would_have_saved_it() -> None:
    """One line each, for stderr."""
    assert further_tries.lines([TRIED, MOVED]).splitlines() == [
        "covalent-cirro: try 1 ran out of memory at 4 GB (it had reached 4.00 GB) in job job-1. Try 2 has 8 GB. Next "
        "time, memory=8 on its executor saves this try.",
        "covalent-cirro: try 2 lost its host 3 times in job job-2 in queue cpu. Try 3 is in queue cpu-od. Next time, "
        "batch_queue='cpu-od' (with GPUs: batch_gpu_queue) on its executor saves this try.",
    ]
    assert further_tries.lines([]) == ""


def test_the_panel_says_what_came_of_earlier_tries() -> None:
    """While the next one waits or runs."""
    detail = JobDetail("job-3", state="RUNNABLE", queue="cpu-od")
    shown = panel.lines(detail, 0.0, partition="aws", region="", tried=further_tries.summary([TRIED, MOVED]))
    assert shown["tried"] == (
        "Try 1 ran out of memory at 4 GB (it had reached 4.00 GB) in job job-1. Try 2 has 8 GB. "
        "Try 2 lost its host 3 times in job job-2 in queue cpu. Try 3 is in queue cpu-od."
    )
    assert "tried" not in panel.lines(detail, 0.0, partition="aws", region="")


@pytest.mark.parametrize(
    ("evidence", "settings", "words"),
    [
        (
            Evidence(job(OUT_OF_MEMORY)),
            {},
            "Set memory=8 or more on its executor; with memory_max=8 it is submitted again",
        ),
        (Evidence(job(OUT_OF_MEMORY)), {"memory_max": 4}, "all that memory_max=4 allows: set memory_max=8 or more"),
        (
            killed(Kind.OUT_OF_MEMORY, 1, peak=7 * GIB),
            {"memory_max": 6},
            "It had reached more than memory_max=6 allows, so that it was not submitted again: set memory_max=14 or",
        ),
        (Evidence(lost()), {"batch_on_demand_queue": None}, "with batch_on_demand_queue=... it goes there by itself"),
        (
            Evidence(lost("gpu")),
            {"batch_gpu_queue": "gpu", "num_gpus": 1},
            "with batch_gpu_on_demand_queue=... it goes there by itself",
        ),
        (Evidence(lost("cpu-od")), {}, "cpu-od is the queue without Spot"),
    ],
)
def test_what_to_do_names_the_setting_and_its_figure(evidence: Evidence, settings: dict[str, Any], words: str) -> None:
    """Where nothing was submitted again, or not once more."""
    told = explain(evidence, resolve({"memory": 4, **QUEUES, **settings}, {}), "train", 3, JobLinks())
    assert words in told.next_step
