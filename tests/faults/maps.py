"""Faults of maps, one at a time: what is done to a map, and what must come of its items. The harness is `trial`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import covalent as ct

from covalent_cirro.errors import ElectronFailed
from covalent_cirro.local.emulator.batch.model import TERMINAL
from tests.faults.machines import EATS_MIB
from tests.faults.map_lattices import BEFORE, CHILD_ITEMS
from tests.faults.map_runs import MapRow, MapRun, dispatch, measure
from tests.faults.measures import Watch
from tests.faults.outcomes import outcome_that
from tests.faults.servers import SEEN, start_again
from tests.faults.soak import Storm
from tests.faults.world import ENDED, World, until

JOBS = 3
COUNT = JOBS * CHILD_ITEMS
"""Items of a map."""

IN_THE_MIDDLE = tuple(range(BEFORE, COUNT, CHILD_ITEMS))
"""An item of each job that two come before."""

IN_JOB_1 = tuple(range(CHILD_ITEMS, 2 * CHILD_ITEMS))
"""All items of the second job."""

FIRST_OF_OTHERS = (0, 2 * CHILD_ITEMS)
"""The first items of the two other jobs."""

SOAKED = 40
"""Items of the map that many faults hit together."""

STORM_S = 15.0
"""Seconds of them while its jobs are in the middle of their items."""

Act = Callable[[World, MapRun], None]


@dataclass(frozen=True)
class MapScenario:
    """A fault of a map, and what must come of it.

    Attributes:
        name: In the table.
        what: What is done.
        seen: What the user sees of it.
        faults: Set before the dispatch.
        count: Items.
        act: Done while items wait for the gate; they go on when it returns.
        waiting: Items that wait for the gate.
        eating: Items that eat more memory than a job has at first.
        options: Of the executor.
        fails: Items that fail, or of which some do; with ``on_error="return"`` they are errors in the list.
        twice: Most items that may be computed twice, where a host goes before results are stored.
        tries: Jobs that the map may have.
        says: What the error of each item in `fails` must say.
        ends: The status of the dispatch.
        evidence: Where no fault of the emulator counts it: what AWS says of a job that was hit.
        strikes: Whether there is a fault at all.
        in_make_test: Whether ``make test`` tries it too, and not only ``make faults``: it is fast, and rows of
            electrons do not show the same.
    """

    name: str
    what: str
    seen: str
    faults: tuple[dict[str, Any], ...] = ()
    count: int = COUNT
    act: Act = lambda world, run: None
    waiting: tuple[int, ...] = ()
    eating: tuple[int, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    fails: tuple[int, ...] = ()
    twice: int = 0
    tries: int = 1
    says: str = ""
    ends: str = "COMPLETED"
    evidence: str | None = None
    strikes: bool = True
    in_make_test: bool = True


def trial(world: World, scenario: MapScenario) -> MapRow:
    """Try a fault on a map, and check what must hold.

    Raises:
        AssertionError: An item was lost, a stored one computed again, a job run twice or left running, or an end is not
            what it must be.
    """
    world.start()
    world.forget()
    for fault in scenario.faults:
        world.fault(**fault)
    run = dispatch(
        world,
        scenario.count,
        waiting=scenario.waiting,
        eating=scenario.eating,
        eats_mib=EATS_MIB,
        options=dict(scenario.options),
    )
    try:
        with Watch(run) as watch:
            scenario.act(world, run)
            run.release()
            until(lambda: run.status in ENDED, f"the end of {scenario.name}")
        world.clear()
        row = measure(
            scenario.name,
            run,
            watch,
            fails=scenario.fails,
            tries=scenario.tries,
            ends=scenario.ends,
            evidence=scenario.evidence,
        )
        check(row, run, scenario)
    finally:
        run.release()
        world.forget()
    return row


def check(row: MapRow, run: MapRun, scenario: MapScenario) -> None:
    """What must hold after every fault of a map."""
    nodes = run.nodes()
    told = "\n".join(
        [
            str(row),
            *(f"{node.node_id} {node.name} {node.status} {node.told[:1500]}" for node in nodes),
            *(f"{job['jobId']} {job['status']} {job.get('statusReason')}" for job in [*run.tries(), *run.children()]),
            *(f"item {number} ran {each}" for number, each in enumerate(run.items()) if len(each) != 1),
            f"stored: {run.stored()}",
            *run.world.log()[-30:],
        ]
    )
    assert bool(row.injected) == scenario.strikes, f"{scenario.name} did not strike\n{told}"
    assert run.status == scenario.ends, told
    assert (row.lost, row.again, row.extra, row.left) == (0, 0, 0, 0), told
    assert row.twice <= scenario.twice, told
    assert bool(row.failed) == bool(scenario.fails), told
    if scenario.ends != "COMPLETED":
        return
    values = nodes[0].value
    failed = [i for i, value in enumerate(values) if isinstance(value, ElectronFailed)]
    assert set(failed) <= set(scenario.fails), told
    for item in failed:
        assert scenario.says in str(values[item]), f"item {item}: {values[item]}\n{told}"
    assert nodes[-1].value == sum(i * i for i in range(run.count) if i not in failed), told


# --- what is done -----------------------------------------------------------------------------------------------------


def _in_the_middle(run: MapRun) -> None:
    """Wait until the items before those that wait are stored, and those that wait have begun."""
    until(lambda: all(run.items()[i] for i in IN_THE_MIDDLE), "items to begin")
    done = [i for i in range(run.count) if i % CHILD_ITEMS < BEFORE]
    until(lambda: run.stored().keys() >= set(done), "results to be stored")


def _lose_hosts(world: World, run: MapRun, job_id: str) -> None:
    """Terminate the hosts that an array's jobs run on. One that boots has no attempt to lose."""
    for region in world.ask("status").values():
        for host in region["hosts"]:
            if host["ready"] and any(job.startswith(job_id) for job in host["jobs"]):
                world.ask(f"hosts/{host['instance_id']}", method="DELETE")
                run.struck += 1


def _lose_hosts_in_the_middle(world: World, run: MapRun) -> None:
    _in_the_middle(run)
    _lose_hosts(world, run, run.tries()[0]["jobId"])
    until(lambda: all(len(run.items()[i]) > 1 for i in IN_THE_MIDDLE), "jobs to start again")


def _lose_hosts_with_results_in_front(world: World, run: MapRun) -> None:
    """The last item of each job is computed while the one before it still computes."""
    until(lambda: all(run.items()[i + 1] and run.items()[i + 1][0].done for i in IN_THE_MIDDLE), "the last items")
    _lose_hosts_in_the_middle(world, run)


def _lose_hosts_before_results_are_stored(world: World, run: MapRun) -> None:
    """S3 takes no results, for as long as two items of each job have been computed; then the hosts go."""
    until(lambda: all(run.items()[i] for i in IN_THE_MIDDLE), "items to begin")
    _lose_hosts(world, run, run.tries()[0]["jobId"])
    world.clear()


def _refuse_results_for_a_while(world: World, run: MapRun) -> None:
    until(lambda: all(run.items()[i] for i in IN_THE_MIDDLE) and world.hits() > JOBS, "results to be refused")
    world.clear()


def _lose_hosts_in_all_attempts(world: World, run: MapRun) -> None:
    _in_the_middle(run)
    job_id = run.tries()[0]["jobId"]

    def lost() -> bool:
        _lose_hosts(world, run, job_id)
        return bool(run.tries()[0]["status"] == "FAILED")

    until(lost, "the end of all attempts")


def _kill(world: World, run: MapRun) -> None:
    run.kill_server()
    start_again(world)


def _kill_before_submitting(world: World, run: MapRun) -> None:
    until(lambda: world.hits() >= 1, "uploads")
    run.kill_server()
    assert not run.tries(), "it was killed too late"
    start_again(world)


def _kill_while_submitting(world: World, run: MapRun) -> None:
    until(lambda: world.hits() >= 1, "SubmitJob")
    run.kill_server()
    until(run.tries, "the array that arrives after the server's death")
    start_again(world)


def _kill_while_jobs_run(world: World, run: MapRun) -> None:
    _in_the_middle(run)
    _kill(world, run)


def _kill_before_the_next_try(world: World, run: MapRun) -> None:
    """The array has failed for want of memory while the server was stopped; then it is killed."""
    until(lambda: all(run.items()[i] for i in range(0, COUNT, CHILD_ITEMS)), "jobs to begin")
    world.signal(signal.SIGSTOP)
    until(lambda: run.tries()[0]["status"] == "FAILED", "the end of the array behind the server's back")
    _kill(world, run)


def _kill_while_joining(world: World, run: MapRun) -> None:
    _in_the_middle(run)
    world.fault(kind="slow", service="s3", operation="GetObject", key="/blobs/", caller="client", seconds=5.0)
    run.release()
    until(lambda: world.hits() >= 1, "results to be read")
    _kill(world, run)


def _end_one_job_first(world: World, run: MapRun) -> None:
    """The two others have not begun to store results."""
    until(lambda: world.hits() >= 1, "the result of a job to be damaged")


def _fill_disk(world: World, run: MapRun) -> None:
    """The disk is full when results are joined, and until its user could read it in the panel."""
    _in_the_middle(run)
    world.disk_is_full.touch()
    try:
        run.strike()
        run.release()
        until(lambda: run.all_ended(1), "the array to end")
        until(lambda: "No space left on device" in run.nodes()[0].panel, "the full disk to be told")
    finally:
        world.disk_is_full.unlink()


def _cancel(world: World, run: MapRun) -> None:
    _in_the_middle(run)
    world.ask("calls", method="DELETE")
    run.strike()
    ct.cancel(run.dispatch_id, dispatcher_addr=world.url)
    until(lambda: all(job["status"] in TERMINAL for job in run.children()), "the jobs to end")
    calls = world.ask("calls?caller=client")
    asked = {name: calls.get(f"batch:{name}", {}).get("count", 0) for name in ("TerminateJob", "TerminateJobs")}
    assert sum(asked.values()) == 1, f"one call ends all jobs of a map, and there were {asked}"


def _reach_the_time_limit(world: World, run: MapRun) -> None:
    until(lambda: run.tries() and run.tries()[0]["status"] == "FAILED", "the time limit of a job")


def _storm(world: World, run: MapRun) -> None:
    """A random fault a second, from the beginning to the end."""
    with Storm(world, seed=0):
        until(lambda: any(run.items()[i] for i in IN_THE_MIDDLE), "items to begin")
        time.sleep(STORM_S)
        run.release()
        until(lambda: run.status in ENDED, "the end of a map under many faults")


SCENARIOS = (
    MapScenario(
        "map: no fault",
        "Nothing, to compare with.",
        "Jobs by state; items done, a second, and time left.",
        strikes=False,
        in_make_test=False,
    ),
    MapScenario(
        "map: hosts lost in the middle of the items",
        "Two of four items of each job are computed and stored, and the third computes, when the hosts go.",
        "The jobs start again, and go on with the third item.",
        act=_lose_hosts_in_the_middle,
        waiting=IN_THE_MIDDLE,
    ),
    MapScenario(
        "map: hosts lost, with array_parallel=2",
        "As before, and the fourth item is computed while the third computes.",
        "As before; the fourth item is computed again, since results are stored in the order of the items.",
        act=_lose_hosts_with_results_in_front,
        waiting=IN_THE_MIDDLE,
        options=(("array_parallel", 2),),
        twice=JOBS,
    ),
    MapScenario(
        "map: hosts lost before results are stored",
        "S3 refuses the results of two items of each job until the hosts go.",
        "The jobs start again; what was computed and not stored is computed again.",
        ({"kind": "error", "service": "s3", "operation": "PutObject", "caller": "job"},),
        act=_lose_hosts_before_results_are_stored,
        waiting=IN_THE_MIDDLE,
        twice=COUNT,
    ),
    MapScenario(
        "map: hosts lost right after results were stored",
        "The instance goes when the record of a result is in S3, before the runner knows it; twice.",
        "As above.",
        ({"kind": "lose_host", "operation": "PutObject", "key": "/items/", "count": 2},),
        waiting=IN_THE_MIDDLE,
        act=lambda world, run: until(lambda: world.hits() == 2, "hosts to go"),
        twice=COUNT,
    ),
    MapScenario(
        "map: Spot hosts lost in all attempts",
        "Two of four items of each job are stored; then the hosts go as often as jobs have attempts.",
        "A second array, in the on-demand queue, for the items without a result; the panel says why.",
        act=_lose_hosts_in_all_attempts,
        waiting=IN_THE_MIDDLE,
        tries=2,
    ),
    MapScenario(
        "map: out of memory, with memory_max",
        "An item of each of two jobs needs more memory than the jobs have; two items come before it.",
        "A second, smaller array with twice the memory, for the items of these two jobs that have no result.",
        evidence="OutOfMemoryError",
        eating=IN_THE_MIDDLE[:2],
        options=(("memory_max", 1.0),),
        tries=2,
    ),
    MapScenario(
        "map: a job reaches its time limit",
        'An item of one job takes longer than `time_limit`, with `on_error="return"`.',
        "The list has an error for that item and those of its job that follow: the limit, and what to set.",
        act=_reach_the_time_limit,
        waiting=IN_THE_MIDDLE[1:2],
        options=(("time_limit", 60), ("on_error", "return")),
        fails=(6, 7),
        says="time_limit",
        evidence="timeout",
        in_make_test=False,
    ),
    MapScenario(
        "map: S3 throttled",
        "Half of all calls to S3 are answered by 503 SlowDown, for server and jobs.",
        "Nothing but the time it takes.",
        ({"kind": "throttle", "service": "s3", "probability": 0.5},),
        in_make_test=False,
    ),
    MapScenario(
        "map: S3 refuses results for a while",
        "PutObject of the jobs is answered by 500 until all jobs are in the middle of their items.",
        "A line in the job's log in CloudWatch; the results are stored with the next chunk.",
        ({"kind": "error", "service": "s3", "operation": "PutObject", "caller": "job"},),
        act=_refuse_results_for_a_while,
        waiting=IN_THE_MIDDLE,
    ),
    MapScenario(
        "map: connections to S3 cut",
        "Every fourth call to S3 is cut: before, during, or after it was carried out.",
        "Nothing but the time it takes.",
        (
            {"kind": "cut", "service": "s3", "when": "before", "probability": 0.1},
            {"kind": "cut", "service": "s3", "when": "after", "probability": 0.1},
            {"kind": "cut", "service": "s3", "operation": "GetObject", "when": "during", "probability": 0.2},
        ),
        in_make_test=False,
    ),
    MapScenario(
        "map: malformed outcome",
        'The outcome of one job is cut off, with `on_error="return"`.',
        "The list has errors for the items of that job: the outcome was refused, why, and where it lies.",
        (outcome_that(size=200, key="/array/00001/outcome.json"),),
        options=(("on_error", "return"),),
        fails=IN_JOB_1,
        says="is not JSON",
        in_make_test=False,
    ),
    MapScenario(
        "map: result with a wrong digest",
        'The bytes of the results of one job in S3 are not those that it stored, with `on_error="return"`.',
        "The list has errors for the items of these results: they returned, but their results could not be read.",
        ({"kind": "damage", "caller": "job", "operation": "PutObject", "key": "/blobs/", "size": 100, "count": 1},),
        act=_end_one_job_first,
        waiting=FIRST_OF_OTHERS,
        options=(("on_error", "return"),),
        fails=IN_JOB_1,
        says="returned, but its result could not be read",
    ),
    MapScenario(
        "map: disk full and mended",
        "The disk that the server keeps results on is full when results are joined; then somebody makes room.",
        "The panel and the server's log say which file needs how much; the list comes once there is room.",
        act=_fill_disk,
        waiting=IN_THE_MIDDLE,
        in_make_test=False,
    ),
    MapScenario(
        "map: answer of SubmitJob lost",
        "SubmitJob of the array is carried out, and its answer is lost.",
        "Nothing: the array is found by its name.",
        ({"kind": "cut", "service": "batch", "operation": "SubmitJob", "when": "after", "count": 1},),
        in_make_test=False,
    ),
    MapScenario(
        "map: server killed before SubmitJob",
        "The items are on their way to S3.",
        SEEN,
        ({"kind": "slow", "service": "s3", "operation": "PutObject", "caller": "client", "seconds": 2.0},),
        act=_kill_before_submitting,
        in_make_test=False,
    ),
    MapScenario(
        "map: server killed between SubmitJob and the handle",
        "SubmitJob is carried out after the server is dead: nobody has the id of the array.",
        SEEN,
        ({"kind": "slow", "service": "batch", "operation": "SubmitJob", "seconds": 3.0},),
        act=_kill_while_submitting,
        in_make_test=False,
    ),
    MapScenario(
        "map: server killed while jobs run",
        "Two of four items of each job are stored, and the third computes.",
        SEEN,
        act=_kill_while_jobs_run,
        waiting=IN_THE_MIDDLE,
    ),
    MapScenario(
        "map: server killed before the next try",
        "Jobs ran out of memory while the server was stopped; then it is killed.",
        SEEN,
        act=_kill_before_the_next_try,
        eating=IN_THE_MIDDLE[:1],
        options=(("memory_max", 1.0),),
        tries=2,
    ),
    MapScenario(
        "map: server killed while it joins results",
        "It has asked for results of items, and dies before it has them.",
        SEEN,
        act=_kill_while_joining,
        waiting=IN_THE_MIDDLE,
    ),
    MapScenario(
        "map: many faults together",
        "Every second a random one of the faults of the soak, while ten jobs compute.",
        "Nothing but the time it takes.",
        act=_storm,
        count=SOAKED,
        waiting=tuple(range(BEFORE, SOAKED, CHILD_ITEMS)),
        twice=SOAKED,
        tries=2,
        in_make_test=False,
    ),
    MapScenario(
        "map: cancelled",
        "The dispatch is cancelled while all jobs compute.",
        "The dispatch is CANCELLED; one call of TerminateJob has ended all jobs.",
        act=_cancel,
        waiting=IN_THE_MIDDLE,
        ends="CANCELLED",
    ),
)
