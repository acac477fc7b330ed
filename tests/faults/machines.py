"""Faults of machines: hosts that go in every state, memory and disk that are full, an image that is gone, a queue."""

from __future__ import annotations

from tests.faults.lattices import ATTEMPTS
from tests.faults.scenarios import Scenario
from tests.faults.world import Run, World, until

EATS_MIB = 300
"""More than the 256 MiB that an electron has here, and less than twice that."""


def _lose_idle_hosts(world: World) -> None:
    """So that the next job needs one that boots."""
    for region in world.ask("status").values():
        for host in region["hosts"]:
            if not host["jobs"]:
                world.ask(f"hosts/{host['instance_id']}", method="DELETE")


def _clear_when_told(world: World, run: Run) -> None:
    """The queue is mended once its user could read in every panel why it is stuck."""
    reason = "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS"
    until(lambda: all(reason in node.panel for node in run.nodes()[: run.count]), "the reason to be told")
    run.hit = {job["node"] for job in run.jobs() if job["status"] == "RUNNABLE"}
    world.clear()


def _lose_other_machines(world: World, run: Run) -> None:
    """Take away the machines of the nodes that are not the main ones; wait until the main ones have begun again."""
    until(lambda: all(run.executions()[: run.count]), "electrons to begin")
    hosts = [host for region in world.ask("status").values() for host in region["hosts"]]
    for job in run.jobs():
        [lost] = [host["instance_id"] for host in hosts if f"{job['jobId']}#1" in host["jobs"]]
        world.ask(f"hosts/{lost}", method="DELETE")
        run.struck += 1
        run.hit.add(job["node"])
    until(lambda: all(len(each) == 2 for each in run.executions()[: run.count]), "electrons to begin again")


SCENARIOS = (
    Scenario(
        "host lost in RUNNABLE",
        "The instance that boots for a job goes before it is ready.",
        "The job waits for another machine.",
        ({"kind": "lose_host", "state": "RUNNABLE", "count": 2},),
        before=_lose_idle_hosts,
    ),
    Scenario(
        "host lost in STARTING",
        "The instance goes while the job's container is being started.",
        "The panel's `attempt` and `last_attempt`: Host EC2 (instance i-...) terminated.",
        ({"kind": "lose_host", "state": "STARTING", "count": 3},),
    ),
    Scenario(
        "host lost in RUNNING",
        "The instance goes while electrons compute.",
        "As before; the electron starts again on another machine.",
        ({"kind": "lose_host", "seconds": 1.0, "count": 3},),
        act=lambda world, run: until(lambda: world.hits() == 3, "hosts to go"),
    ),
    Scenario(
        "host lost after the outcome was written",
        "The instance goes between the runner's last call to S3 and its end.",
        "A second attempt, which finds the outcome and does not run the electron.",
        ({"kind": "lose_host", "operation": "PutObject", "key": "/outcome.json", "count": 3},),
    ),
    Scenario(
        "Spot hosts lost in all attempts",
        "The instance of one electron goes four times, which are all the attempts that its job has.",
        "A second job, in the on-demand queue, which completes; the server's log and the panel say why.",
        ({"kind": "lose_host", "seconds": 0.5, "count": ATTEMPTS, "job": "square"},),
        count=1,
        act=lambda world, run: until(lambda: run.all_ended(1), "the end of the attempts"),
        jobs_each=2,
    ),
    Scenario(
        "hosts lost in all attempts, on-demand ones too",
        "As before, and the four instances of the second job go too.",
        "The electron failed: how often its hosts went, in AWS's words, and what can be set.",
        ({"kind": "lose_host", "seconds": 0.5, "count": 2 * ATTEMPTS, "job": "square"},),
        count=1,
        act=lambda world, run: until(lambda: run.all_ended(2), "the end of the attempts"),
        fails=1,
        jobs_each=2,
        says=("lost its host",),
    ),
    Scenario(
        "one of several machines lost",
        "Electrons on two machines each: one that is not the main machine goes, and AWS Batch itself ends nothing.",
        "The panel's `attempt` and `last_attempt`; both machines begin again.",
        count=2,
        act=_lose_other_machines,
        machines=2,
    ),
    Scenario(
        "out of memory",
        "An electron needs more memory than its job has, and is killed with its whole container.",
        "The electron failed: its limit, and the figure to set.",
        eats_mib=EATS_MIB,
        fails=1,
        says=("ran out of memory: it was killed at its limit of 0.25 GB",),
        evidence="OutOfMemoryError",
    ),
    Scenario(
        "out of memory, with memory_max",
        "The same, with `memory_max=1`.",
        "A second job with twice the memory, which completes; the server's log and the panel say what it needed.",
        eats_mib=EATS_MIB,
        memory_max=1.0,
        jobs_each=2,
        evidence="OutOfMemoryError",
    ),
    Scenario(
        "disk full",
        "There is no space on the disk of two jobs: from the first moment of one, and after a second of the other.",
        "The electrons failed: their host's disk is full, and the parameter of the deployment that makes it larger.",
        ({"kind": "disk_full", "count": 1}, {"kind": "disk_full", "seconds": 1.0, "count": 1}),
        act=lambda world, run: until(lambda: run.all_ended(2), "the jobs without a disk to end"),
        fails=2,
        says=("found the disk of its host full", "found the disk of its host full"),
    ),
    Scenario(
        "image gone",
        "The image of a job was deleted from its repository: CannotPullContainerError, manifest unknown.",
        "The electron failed: there is no such image, and how to push one.",
        ({"kind": "image_pull", "count": 1},),
        fails=1,
        says=("there is no image",),
    ),
    Scenario(
        "stuck queue",
        "No job of the queue gets a machine, until the fault is cleared.",
        "After the deadline (10 minutes; here 3 s) the reason in AWS's words in each panel and in the server's log.",
        ({"kind": "stuck", "reason": "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS"},),
        act=_clear_when_told,
    ),
)
