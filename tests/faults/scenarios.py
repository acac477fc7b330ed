"""The faults, one at a time: what is done to a dispatch, and what must come of it.

Data, but for the few that have to be done at a certain moment. The harness is `trial`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.measures import Row, Watch, measure
from tests.faults.world import ENDED, Run, World, until

Act = Callable[[World, Run], None]


@dataclass(frozen=True)
class Scenario:
    """A fault, and what must come of it.

    Attributes:
        name: In the table.
        what: What is done.
        seen: What the user sees of it.
        faults: Set before the dispatch.
        act: Done while electrons that have begun are held; they go on when it returns.
        count: Electrons, besides the one that needs them all.
        eats_mib: Memory that the first electron eats; it has 256 MiB.
        memory_max: Of the first electron's executor.
        prints: Characters that each electron prints.
        logs: What the stdout of each electron says, besides what it printed.
        fails: So many electrons cannot succeed.
        jobs_each: Jobs that an electron may have: one is submitted again on purpose after some ends.
        says: What their errors must say, one for each.
        before: Done before the dispatch, once the faults are set; gives its folder where that is an earlier one's
            (`World.dispatch`).
        platform, machines: What its electrons run on, and on how many each, but for the one that needs them all.
        strikes: Whether there is a fault at all.
        evidence: Where no fault of the emulator counts it: what AWS says of a job that was hit.
    """

    name: str
    what: str
    seen: str
    faults: tuple[dict[str, Any], ...] = ()
    act: Act | None = None
    count: int = 4
    eats_mib: int = 0
    memory_max: float | None = None
    prints: int = 0
    logs: str = ""
    fails: int = 0
    jobs_each: int = 1
    says: tuple[str, ...] = ()
    before: Callable[[World], Path | None] = lambda world: None
    evidence: str | None = None
    platform: str = "EC2"
    machines: int = 1
    strikes: bool = True


def trial(world: World, scenario: Scenario) -> Row:
    """Try a fault on a dispatch, and check what must hold whatever it is.

    Raises:
        AssertionError: A result was lost, a job ran twice or was left running, or an end is not what it must be.
    """
    world.start()  # a trial that went wrong may have left it without a server
    world.forget()
    for fault in scenario.faults:
        world.fault(**fault)
    folder = scenario.before(world)
    run = world.dispatch(
        scenario.count,
        held=scenario.act is not None,
        eats_mib=scenario.eats_mib,
        memory_max=scenario.memory_max,
        folder=folder,
        prints=scenario.prints,
        platform=scenario.platform,
        machines=scenario.machines,
    )
    try:
        with Watch(run) as watch:
            if scenario.act is not None:
                scenario.act(world, run)
                run.release()
            until(lambda: run.status in ENDED, f"the end of {scenario.name}")
        world.clear()
        row = measure(
            scenario.name, run, watch, fails=scenario.fails, jobs_each=scenario.jobs_each, evidence=scenario.evidence
        )
        check(row, run, scenario)
    finally:
        run.release()
        world.forget()
    return row


def check(row: Row, run: Run, scenario: Scenario) -> None:
    """What must hold after every fault."""
    nodes = run.nodes()
    told = "\n".join(
        [
            str(row),
            *(f"{node.node_id} {node.name} {node.status} {node.told[:1500]}" for node in nodes),
            *(f"{job['node']} {job['jobId']} {job['status']} {_ends(job)}" for job in run.jobs()),
            *(
                f"{node.node_id} ran {each}"
                for node, each in zip(nodes, run.executions(), strict=True)
                if len(each) != 1
            ),
            *(f"{outcome['job_id']} stored attempt {outcome['attempt']}" for outcome in run.outcomes()),
            *run.world.log()[-30:],
        ]
    )
    assert bool(row.injected) == scenario.strikes, f"{scenario.name} did not strike\n{told}"
    assert (row.lost, row.twice, row.left) == (0, 0, 0), told
    assert row.failed == scenario.fails, told
    errors = [node.told for node in nodes if node.status == "FAILED"]
    for words in scenario.says:
        found = next((error for error in errors if words in error), None)
        assert found is not None, f"no error says {words!r}\n{told}"
        errors.remove(found)
    assert not scenario.says or not errors, told
    for node in nodes[:-1] if scenario.logs else ():
        assert scenario.logs in node.stdout.read_text("utf-8"), f"{node.name} {node.stdout}\n{told}"
    assert run.status == ("FAILED" if scenario.fails else "COMPLETED"), told


def _ends(job: dict[str, Any]) -> list[str]:
    """How each attempt of a job ended."""
    return [f"{each.get('statusReason')} {each['container'].get('exitCode')}" for each in job["attempts"]]
