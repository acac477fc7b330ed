"""Faults of Fargate: Spot that takes tasks back, and no capacity, on Spot alone and at all."""

from __future__ import annotations

from covalent_cirro.contract.protocol import ExitCode
from tests.faults.lattices import ATTEMPTS
from tests.faults.scenarios import Scenario
from tests.faults.world import Run, World, until

PLATFORM = "FARGATE"

NO_CAPACITY = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"


def _no_spot(world: World) -> None:
    """Fargate Spot has no capacity, and Fargate on demand has."""
    described = world.batch.describe_compute_environments()["computeEnvironments"]
    for each in described:
        if each["computeResources"]["type"] == "FARGATE_SPOT":
            world.fault(kind="no_capacity", environment=each["computeEnvironmentName"])


def _on_demand(world: World, run: Run) -> None:
    """All electrons run, on Fargate on demand."""
    until(lambda: run.states().count("RUNNING") == run.count, "all electrons to run")
    clusters = [job["container"]["taskArn"].split("/")[1] for job in run.jobs()]
    assert all("FargateEnvironment" in each for each in clusters), clusters


def _clear_when_told(world: World, run: Run) -> None:
    """There is capacity again once every panel says that there is none."""
    until(lambda: all(NO_CAPACITY in node.panel for node in run.nodes()[: run.count]), "the reason to be told")
    run.hit = {job["node"] for job in run.jobs() if job["status"] == "RUNNABLE"}
    world.clear()


def _until_stopped(world: World, run: Run) -> None:
    """The attempts of three tasks have ended with the exit code of SIGTERM."""

    def codes() -> list[int | None]:
        return [each["container"].get("exitCode") for job in run.jobs() for each in job["attempts"]]

    until(lambda: codes().count(ExitCode.TERMINATED) == 3, "tasks to be stopped")


SCENARIOS = (
    Scenario(
        "Fargate Spot task stopped in RUNNING",
        "Fargate takes tasks back while electrons compute: SIGTERM, and SIGKILL after the time to stop.",
        "The panel's `attempt` and `last_attempt`: Your Spot Task was interrupted; the electron starts again.",
        ({"kind": "lose_host", "seconds": 61.0, "notice_s": 60.0, "count": 3},),
        act=_until_stopped,
        platform=PLATFORM,
    ),
    Scenario(
        "Fargate Spot task stopped in all attempts",
        "The task of one electron is taken back four times, which are all the attempts that its job has.",
        "The electron failed: how often, in AWS's words, and what can be set. There is no second job: the queue has "
        "Spot and on demand.",
        ({"kind": "lose_host", "seconds": 0.5, "count": ATTEMPTS, "job": "square"},),
        count=1,
        act=lambda world, run: until(lambda: run.all_ended(1), "the end of the attempts"),
        fails=1,
        says=("Fargate without Spot",),
        platform=PLATFORM,
    ),
    Scenario(
        "no capacity on Fargate Spot",
        "Fargate Spot has no machine; the queue's second compute environment, Fargate on demand, has.",
        "Nothing: the electrons run on demand.",
        before=_no_spot,
        act=_on_demand,
        platform=PLATFORM,
    ),
    Scenario(
        "no capacity on Fargate",
        "Fargate has no machine at all, until the fault is cleared.",
        "After the deadline (10 minutes; here 3 s) the reason in AWS's words in each panel and in the server's log.",
        ({"kind": "no_capacity"},),
        act=_clear_when_told,
        platform=PLATFORM,
    ),
)
