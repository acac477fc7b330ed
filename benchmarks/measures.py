"""The measurements: each runs lattices in a `Lab`, and gives its lines of the table and how it was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from arrays import arrays
from commands import commands
from figures import MB, Result, at_most, count, excess, median, prose, share_of
from lab import LIGHT, NAP_LIMIT_S, NAPPING, VCPUS, BenchmarkFailed, Ended, Lab, Load

Say = Callable[[str], None]
Measure = Callable[[Lab, Say], Result]

DESCRIBE_JOBS = "batch:DescribeJobs"
REGISTER = "batch:RegisterJobDefinition"
PUTS = ("s3:PutObject", "s3:UploadPart")

SHARED_MB = 50.0
FEW, MANY = 10, 40
"""Electrons that share the input."""
SHARED_FACTOR = 1.05
PER_ELECTRON_BYTES = 20_000
PEAK_LIMIT_MB = 64.0

CALLED = 20
CALLS_LIMIT = 8.0

STARTS = 7
START_SHARE = 1 / 8

WAITING = 200
ENDING = 60
SPARE = 40
"""More than `WAITING` jobs that still wait when the last of the `ENDING` is seen."""
NAP_S = 4.0
OF_STOCK = 20
SETTLE_S = 5.0
LAG_S = 20.0
"""An electron that is not completed this long after its job's end is not going to be."""
DELAY_LIMIT_S = 1.5
RATE_LIMIT = 1.0

BUSY = 100
REPEATS = 2
SERVER_SHARE = 0.1


def calls(lab: Lab, say: Say) -> Result:
    """AWS calls and job definitions of like electrons with small inputs."""
    found: dict[str, Mapping[str, Mapping[str, int]]] = {}
    for plugin in ("ours", "stock"):
        say(f"{CALLED} small electrons, {plugin}")
        lab.reset_calls()
        lab.run("many", plugin, count=CALLED, seconds=1.0)
        found[plugin] = lab.calls()
        say(f"  {by_operation(found[plugin])}")
    return Result(
        rows=[
            at_most(
                f"AWS calls an electron, small inputs, {CALLED} electrons",
                stock=count(found["stock"]) / CALLED,
                ours=count(found["ours"]) / CALLED,
                limit=CALLS_LIMIT,
                digits=1,
                required=f"at most {CALLS_LIMIT:.0f}",
            ),
            at_most(
                f"job definitions registered for {CALLED} like electrons",
                stock=count(found["stock"], REGISTER),
                ours=count(found["ours"], REGISTER),
                limit=1,
                required="1",
            ),
        ],
        how=prose(
            f"""
            - **AWS calls, job definitions**: the emulator's counters over one dispatch of {CALLED}
            independent electrons that sleep 1 s, on a server that was just started and an account
            without any job definition. All calls of all services count: those of the server and of
            the jobs, waiting, look-ups and retries included. By operation: ours
            {by_operation(found["ours"])}; stock {by_operation(found["stock"])}.
            """
        ),
    )


def start(lab: Lab, say: Say) -> Result:
    """From the runner's start to the electron's first line."""
    notes = {plugin: lab.folder / f"{plugin}.txt" for plugin in ("ours", "stock")}
    dispatches = {plugin: lab.run("note", plugin, file=str(file)) for plugin, file in notes.items()}
    taken: dict[str, list[float]] = {plugin: [] for plugin in notes}
    for plugin in (*notes,) * STARTS:
        started = lab.again(dispatches[plugin])
        taken[plugin].append(float(notes[plugin].read_text().split()[-1]) - started)
        say(f"{plugin}: {taken[plugin][-1]:.3f} s")
    return Result(
        rows=[
            share_of(
                "from the runner's start to the electron's first line, median",
                stock=median(taken["stock"]),
                ours=median(taken["ours"]),
                share=START_SHARE,
                unit="s",
                digits=3,
                required="at most an eighth of it",
            )
        ],
        how=prose(
            f"""
            - **Runner's start**: the job of an electron is run {STARTS} times more, in turns with that of
            the other plugin, each by itself and with the Covalent server at rest. From `startedAt` of the
            job, which the emulator takes when it has started the container's process, to `time.time()` in
            the electron's first line; medians. Ours is `python -m covalent_cirro.runner`; the stock's is
            its `exec.py`, with its folder `/covalent` replaced, and with Covalent seeing no plugins but
            its own, as in the stock image.
            """
        ),
    )


def shared(lab: Lab, say: Say) -> Result:
    """Bytes to S3 and memory of the server for electrons that share a big input."""
    say(f"writing an input of {SHARED_MB:.0f} MB")
    file = str(lab.prepare(SHARED_MB))
    put: dict[tuple[str, int], float] = {}
    peak: dict[tuple[str, int], float] = {}
    for plugin, electrons in (("ours", FEW), ("ours", MANY), ("stock", FEW)):
        lab.restart_server()
        say(f"{electrons} electrons that share {SHARED_MB:.0f} MB, {plugin}")
        lab.forget_objects()
        lab.reset_calls()
        loads: list[Load] = []
        with lab.measured(loads):
            lab.run("shared", plugin, {"memory": 4.0}, count=electrons, file=file)
        put[plugin, electrons] = sum(count(lab.calls(), name, field="bytes_in") for name in PUTS) / MB
        peak[plugin, electrons] = loads[0].peak_bytes / MB
        say(f"  {put[plugin, electrons]:.1f} MB put, peak {peak[plugin, electrons]:.1f} MB higher")
    limit = SHARED_FACTOR * SHARED_MB + FEW * PER_ELECTRON_BYTES / MB
    return Result(
        rows=[
            at_most(
                f"bytes put to S3 for {FEW} electrons that share {SHARED_MB:.0f} MB",
                stock=put["stock", FEW],
                ours=put["ours", FEW],
                limit=limit,
                unit="MB",
                digits=1,
                required=f"at most {SHARED_FACTOR} times the input and {PER_ELECTRON_BYTES // 1000} kB an electron: "
                f"{limit:.1f} MB",
            ),
            at_most(
                f"growth of the server's peak memory, {FEW} electrons",
                stock=peak["stock", FEW],
                ours=peak["ours", FEW],
                limit=PEAK_LIMIT_MB,
                unit="MB",
                digits=1,
            ),
            at_most(
                f"growth of the server's peak memory, {MANY} electrons",
                stock=None,
                ours=peak["ours", MANY],
                limit=PEAK_LIMIT_MB,
                unit="MB",
                digits=1,
            ),
        ],
        how=prose(
            f"""
            - **Bytes to S3, memory**: {SHARED_MB:.0f} MB of random `bytes`, the output of an
            electron that ran elsewhere, is the input of every other electron. Bytes are those of
            all PutObject and UploadPart bodies, of the server and of the jobs, from an empty
            bucket. Memory is the growth from the server's resident memory before the dispatch to
            the kernel's peak (`VmHWM`) after it, in a server that has run nothing since it was
            started: what is imported for the first electron counts too. The stock plugin is not
            asked for {MANY} electrons.
            """
        ),
    )


def waiting(lab: Lab, say: Say) -> Result:
    """From a job's end to its electron being completed, while many jobs wait. Leaves jobs behind: run it last."""
    say(f"{OF_STOCK} electrons, stock")
    stock = _ends_of_stock(lab)
    say(f"  median {median(stock):.2f} s, longest {max(stock):.2f} s")
    total = WAITING + ENDING + SPARE
    say(f"{total} electrons, ours, of which {ENDING} end while the others wait")
    dispatch_id = _all_runnable(lab, "ours", {}, total, NAP_S)
    completions = Completions(lab, dispatch_id)
    lab.reset_calls()
    began = time.monotonic()
    _until(lambda: completions() >= ENDING, 240, f"{ENDING} electrons to be completed")
    describes = count(lab.calls(), DESCRIBE_JOBS)
    rate = per_second(describes, time.monotonic() - began)
    ended = sorted(lab.ended(dispatch_id), key=lambda job: job.stopped)
    first, left = ended[:ENDING], total - len(ended)
    _until(
        lambda: completions() >= ENDING and all(job.node_id in completions.at for job in first),
        LAG_S,
        "the last to be completed",
    )
    ours = delays(first, completions)
    say(f"  median {median(ours):.2f} s, longest {max(ours):.2f} s, {rate:.2f} DescribeJobs a second, {left} jobs left")
    if left < WAITING:
        raise BenchmarkFailed(f"only {left} jobs were left to wait: the figure would be of fewer than it says")
    return Result(
        rows=[
            at_most(
                f"from a job's end to its electron being completed, median, {WAITING} jobs waiting",
                stock=median(stock),
                ours=median(ours),
                limit=DELAY_LIMIT_S,
                unit="s",
                digits=2,
            ),
            at_most(
                f"DescribeJobs a second, {WAITING} jobs waiting",
                stock=None,
                ours=rate,
                limit=RATE_LIMIT,
                digits=2,
            ),
        ],
        how=prose(
            f"""
            - **Waiting**: {total} electrons that sleep {NAP_S:.0f} s, on {VCPUS} vCPUs. No job
            starts before all are RUNNABLE; then the first {ENDING} that end are timed, and {left} others
            had not ended when the last of them was seen. From `stoppedAt` of the job to the moment the
            server's database first shows the electron as completed, looked at ten times a second:
            Covalent's own part is in it. Longest: {max(ours):.2f} s. DescribeJobs are those of that
            time. The stock plugin in the same way, with its default `poll_freq` of 10 s, but with only
            {OF_STOCK} electrons, whose jobs take 0 to {NAP_LIMIT_S:.0f} s (200 that wait would make 20
            DescribeJobs a second).
            """
        ),
    )


def server(lab: Lab, say: Say) -> Result:
    """Processor time of the server beyond what Covalent needs for empty electrons."""
    lab.prepare(0)
    options = {"ours": {}, "stock": {"container_image_uri": LIGHT}, "blank": {}}
    say("one electron of each, so that all is imported")
    for plugin in options:
        lab.run("many", plugin, options[plugin], count=2, seconds=0.0)
    taken: dict[str, list[float]] = {plugin: [] for plugin in options}
    for plugin in (*("blank", "ours") * REPEATS, "stock"):
        loads: list[Load] = []
        with lab.measured(loads):
            lab.run("many", plugin, options[plugin], count=BUSY, seconds=0.0)
        taken[plugin].append(loads[0].cpu_s)
        say(f"{BUSY} small electrons, {plugin}: {loads[0].cpu_s:.1f} s of the server's processor time")
    stock, ours = excess(**taken)
    return Result(
        rows=[
            share_of(
                f"server's processor time for {BUSY} electrons, beyond that for empty ones",
                stock=stock,
                ours=ours,
                share=SERVER_SHARE,
                unit="s",
                digits=1,
                required="at most a tenth of the stock's",
            )
        ],
        how=prose(
            f"""
            - **Server's time**: user and system time of the server's process with all its threads
            and ended children, from idle to idle, over a dispatch of {BUSY} independent electrons;
            less that of the same dispatch on an executor of the benchmark that does nothing
            (`benchmarks/blank.py`). Medians of {REPEATS} (stock: 1) on a server that has run some
            of each before: empty {_list(taken["blank"])} s, ours {_list(taken["ours"])} s, stock
            {_list(taken["stock"])} s. The jobs of the stock plugin run `benchmarks/stock_job.py`
            here, which leaves in S3 what its `exec.py` would: a hundred of those would take the
            processor away from the server.
            """
        ),
    )


MEASURES: dict[str, Measure] = {
    "commands": commands,
    "calls": calls,
    "start": start,
    "shared": shared,
    "server": server,
    "arrays": arrays,
    "waiting": waiting,
}
"""In the order they run in."""


class Completions:
    """When electrons of a dispatch were first seen as completed. Calling it looks, and gives how many there are."""

    def __init__(self, lab: Lab, dispatch_id: str) -> None:
        self._lab = lab
        self._dispatch_id = dispatch_id
        self._before = lab.completed(dispatch_id)
        self.at: dict[int, float] = {}

    def __call__(self) -> int:
        """Look now."""
        found = self._lab.completed(self._dispatch_id)
        now = time.time()
        for node_id in found - self._before:
            self.at.setdefault(node_id, now)
        return len(self.at)


def delays(jobs: Sequence[Ended], completions: Completions) -> list[float]:
    """From each job's end to its electron's, in seconds."""
    return [completions.at[job.node_id] - job.stopped for job in jobs]


def per_second(calls: int, seconds: float) -> float:
    """Rate of calls over a time that begins anywhere: n calls are n - 1 pauses between them."""
    return max(0, calls - 1) / seconds


def by_operation(calls: Mapping[str, Mapping[str, int]]) -> str:
    """``batch:SubmitJob 20, s3:PutObject 41``, the most frequent first."""
    ordered = sorted(calls.items(), key=lambda item: (-item[1]["count"], item[0]))
    return ", ".join(f"{name.partition(':')[2]} {entry['count']}" for name, entry in ordered)


def _ends_of_stock(lab: Lab) -> list[float]:
    lab.prepare(0)
    dispatch_id = _all_runnable(lab, "stock", {"container_image_uri": NAPPING}, OF_STOCK, 0.0)
    completions = Completions(lab, dispatch_id)

    def look() -> None:
        completions()

    lab.wait(dispatch_id, look)
    completions()
    return delays([job for job in lab.ended(dispatch_id) if job.node_id in completions.at], completions)


def _all_runnable(lab: Lab, plugin: str, options: Mapping[str, object], count: int, seconds: float) -> str:
    """A dispatch whose jobs were all let start a moment ago, and not before all of them were RUNNABLE."""
    with lab.held():
        dispatch_id = lab.dispatch("many", plugin, options, count=count, seconds=seconds)
        _until(lambda: lab.counts().get("RUNNABLE", 0) >= count, 240, f"{count} jobs to be RUNNABLE")
        time.sleep(SETTLE_S)
    return dispatch_id


def _until(true: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"waited {limit_s:.0f} s in vain for {what}")
        time.sleep(0.1)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
