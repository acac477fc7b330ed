"""The Covalent server killed (SIGKILL) at each stage of an electron, and started again."""

from __future__ import annotations

import signal

from tests.faults.scenarios import Scenario
from tests.faults.world import Run, World, until

SEEN = "Nothing while it is down but `cirro jobs`; then its dispatches go on by themselves."


def start_again(world: World) -> None:
    """End all faults, and start the server that was killed."""
    world.clear()
    world.start()


def begun(run: Run) -> None:
    """Wait until all electrons compute."""
    until(lambda: all(run.executions()[: run.count]), "electrons to begin")


def _while_uploading(world: World, run: Run) -> None:
    until(lambda: world.hits() >= 2, "uploads")
    run.kill_server()
    assert len(run.jobs()) < run.count, "it was killed too late"
    start_again(world)


def _while_submitting(world: World, run: Run) -> None:
    until(lambda: world.hits() >= 2, "SubmitJob")
    run.kill_server()
    until(lambda: len(run.jobs()) >= 2, "jobs that arrive after the server's death")
    start_again(world)


def _while_queued(world: World, run: Run) -> None:
    until(lambda: run.states().count("RUNNABLE") == run.count, "jobs to wait")
    run.kill_server()
    start_again(world)


def _while_running(world: World, run: Run) -> None:
    begun(run)
    run.kill_server()
    start_again(world)


def _before_receiving(world: World, run: Run) -> None:
    begun(run)
    world.signal(signal.SIGSTOP)
    run.release()
    until(lambda: run.all_ended(run.count), "jobs to end behind the server's back")
    run.kill_server()
    start_again(world)


def _while_receiving(world: World, run: Run) -> None:
    begun(run)
    world.fault(kind="slow", service="s3", operation="GetObject", key="/outcome.json", caller="client", seconds=5.0)
    run.release()
    until(lambda: world.hits() >= 1, "outcomes to be read")
    run.kill_server()
    start_again(world)


SCENARIOS = (
    Scenario(
        "server killed while it uploads",
        "Some calls are in S3, none or some are submitted.",
        SEEN,
        ({"kind": "slow", "service": "s3", "operation": "PutObject", "caller": "client", "seconds": 2.0},),
        act=_while_uploading,
    ),
    Scenario(
        "server killed between SubmitJob and the handle",
        "SubmitJob is carried out after the server is dead: nobody has the ids of its jobs.",
        SEEN,
        ({"kind": "slow", "service": "batch", "operation": "SubmitJob", "seconds": 3.0},),
        act=_while_submitting,
    ),
    Scenario("server killed while jobs are queued", "No job has a machine.", SEEN, ({"kind": "stuck"},), _while_queued),
    Scenario("server killed while jobs run", "All electrons compute.", SEEN, act=_while_running),
    Scenario(
        "server killed while jobs on several machines run",
        "All electrons compute, on two machines each.",
        SEEN,
        count=2,
        act=_while_running,
        machines=2,
    ),
    Scenario(
        "server killed between the jobs' end and their results",
        "All jobs end while the server is stopped; then it is killed.",
        SEEN,
        act=_before_receiving,
    ),
    Scenario(
        "server killed while it receives results",
        "It has asked for outcomes, and dies before it has them.",
        SEEN,
        act=_while_receiving,
    ),
)
