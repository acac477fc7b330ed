"""Faults of clocks: AWS refuses what is signed more than five minutes too early or too late."""

from __future__ import annotations

from tests.faults.scenarios import Scenario
from tests.faults.world import Run, World, until

HOUR_S = 3600.0


def _wrong_for_a_while(world: World, run: Run) -> None:
    until(lambda: all(run.executions()[: run.count]), "electrons to begin")
    world.fault(kind="clock", seconds=HOUR_S, caller="client")
    until(lambda: world.hits() >= 2, "calls to be refused")
    run.release()
    until(lambda: run.all_ended(run.count), "jobs to end")
    world.clear()


SCENARIOS = (
    Scenario(
        "server's clock an hour off",
        "AWS refuses every call of the server.",
        "The electrons failed before anything was submitted: AWS's words, and to set the clock (NTP).",
        ({"kind": "clock", "seconds": HOUR_S, "caller": "client"},),
        count=2,
        fails=2,
        says=("NTP", "NTP"),
    ),
    Scenario(
        "hosts' clocks an hour off",
        "AWS refuses every call of the jobs.",
        "The electrons failed: their jobs could not read their calls.",
        ({"kind": "clock", "seconds": HOUR_S, "caller": "job"},),
        count=2,
        fails=2,
        says=("could not read its call", "could not read its call"),
    ),
    Scenario(
        "server's clock an hour off for a while",
        "As above, while jobs run and end; then the clock is set.",
        "The server's log says what AWS says; the results come once the clock is right.",
        act=_wrong_for_a_while,
    ),
)
