"""What a fault did to a dispatch, by evidence: results, jobs, executions, and how long nobody could see anything.

A *result lost* is an electron that should have its result and has none or another one than the same function gives
without any AWS. A *job run twice* is a job more than an electron should have, or an execution that AWS Batch's own
retry does not account for: more executions than attempts, or one after an attempt that had stored its result. A *job
left running* is one that has not ended although its dispatch has. The *longest silence* is the longest time in which
nothing changed of what a user sees of an electron that could run and has not ended: its status and its panel in
Covalent, or the lines that the server prints of it or of AWS.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from covalent_cirro.local.emulator.batch.model import TERMINAL
from tests.faults import lattices
from tests.faults.world import ENDED, Node, Run

LOOK_S = 0.25
"""How often a `Watch` looks."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    fault: str
    injected: int
    affected: int
    failed: int
    lost: int
    twice: int
    left: int
    silence_s: float


class Watch:
    """Looks at a dispatch while it runs, as its user would; `silence_s` is the longest time without news."""

    def __init__(self, run: Run) -> None:
        self.silence_s = 0.0
        self._run = run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        seen: dict[int, tuple[str, str]] = {}
        since: dict[int, float] = {}
        printed = 0
        while not self._stop.is_set():
            nodes, log, now = self._run.nodes(), self._run.world.log(), time.monotonic()
            waits = any(node.status not in ENDED for node in nodes[:-1])
            for node in nodes:
                shown = (node.status, node.panel)
                if seen.get(node.node_id) != shown or len(log) > printed:
                    self._news(since, node.node_id, now)
                elif node is nodes[-1] and waits:
                    since[node.node_id] = now  # it has not begun
                if node.status in ENDED:
                    since.pop(node.node_id, None)
                seen[node.node_id] = shown
            self.silence_s = max([self.silence_s, *(now - begun for begun in since.values())])
            printed = len(log)
            self._stop.wait(LOOK_S)

    def _news(self, since: dict[int, float], node_id: int, now: float) -> None:
        if node_id in since:
            self.silence_s = max(self.silence_s, now - since[node_id])
        since[node_id] = now


def measure(fault: str, run: Run, watch: Watch, *, fails: int, jobs_each: int = 1, evidence: str | None = None) -> Row:
    """What became of a dispatch that has ended.

    Args:
        fault: Name of the row.
        run: The dispatch.
        watch: What looked at it.
        fails: So many electrons cannot succeed; all others, but the one that needs them all, must.
        jobs_each: Jobs that an electron may have.
        evidence: What AWS says of a job that was hit, where no fault of the emulator counts it.
    """
    faults = run.world.faults()
    nodes, jobs = run.nodes(), run.jobs()
    hit = [job["node"] for job in jobs if evidence is not None and evidence in str(job["attempts"])]
    failed = {node.node_id for node in nodes if node.status == "FAILED"}
    struck = {name for fault in faults for name in fault["struck"]}
    return Row(
        fault=fault,
        injected=run.struck or sum(fault["hits"] for fault in faults) + len(hit),
        affected=len(run.hit or _nodes_of(run, jobs, struck) | failed | set(hit)),
        failed=len(failed),
        lost=_lost(run, nodes, fails),
        twice=_twice(run, nodes, jobs, jobs_each),
        left=sum(job["status"] not in TERMINAL for job in jobs),
        silence_s=watch.silence_s,
    )


def _nodes_of(run: Run, jobs: list[dict[str, Any]], struck: Iterable[str]) -> set[int]:
    """The electrons that names of jobs, ids of jobs and paths of objects are about."""
    ids = {job["jobId"]: job["node"] for job in jobs}
    found = set()
    for name in struck:
        told = re.search(rf"jobs/{run.dispatch_id}/(\d+)/|-{run.dispatch_id[:8]}-(\d+)-", name)
        if told is not None:
            found.add(int(told[1] or told[2]))
        elif name in ids:
            found.add(ids[name])
    return found


def _lost(run: Run, nodes: list[Node], fails: int) -> int:
    """Electrons without their result, less those that cannot have one."""
    *squares, last = nodes
    wrong = [
        node
        for number, node in enumerate(squares)
        if node.status != "COMPLETED" or node.value != lattices.squared(number, lattices.word(number, str(run.folder)))
    ]
    whole = not fails
    expected = sum(number * number for number in range(run.count))
    last_is_lost = whole and (last.status != "COMPLETED" or last.value != expected)
    return max(0, len(wrong) - fails) + last_is_lost


def _twice(run: Run, nodes: list[Node], jobs: list[dict[str, Any]], jobs_each: int) -> int:
    """Jobs and executions more than there should be."""
    # By job: the attempt that stored its result.
    stored = {
        outcome["job_id"].partition("#")[0]: outcome["attempt"]
        for outcome in run.outcomes()
        if all(result.get("output") for result in outcome["results"])
    }
    extra = 0
    for node, executions in zip(nodes, run.executions(), strict=True):
        own = [job for job in jobs if job["node"] == node.node_id]
        attempts = sum(len(job.get("attempts", ())) for job in own)
        succeeded = sum(job["status"] == "SUCCEEDED" for job in own)
        late = sum(each.attempt > stored.get(each.job_id, each.attempt) for each in executions)
        extra += max(0, len(own) - jobs_each, succeeded - 1) + max(0, len(executions) - attempts) + late
    return extra
