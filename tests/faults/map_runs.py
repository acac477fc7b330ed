"""A dispatch of a map under faults, and what became of its items, by evidence.

An *item lost* has no result in the list although it should have one, or another result than the same function gives
without any AWS, or that of another item in its place. An item was *computed twice* if its function came to its end in
more than one attempt or try, as where a host went before the result was stored. A *stored item computed again* is one
whose function began in an attempt or try after the one that had stored its result: there must be none.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import covalent as ct

from covalent_cirro.contract import documents
from covalent_cirro.contract.chunk_records import parse_name
from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.errors import ElectronFailed
from covalent_cirro.local.emulator.batch.model import TERMINAL
from tests.faults import lattices, map_lattices
from tests.faults.lattices import GATE, Execution
from tests.faults.measures import Watch
from tests.faults.world import Run, World

_OF_A_JOB = re.compile(
    r"/(?P<call>[^/]+)/(?:array/(?P<child>\d+)/)?(?P<kind>items|attempts|outcome\.json)(?P<name>.*)$"
)

Turn = tuple[int, int]
"""Number of a try, and an attempt: what is later is larger."""


@dataclass(frozen=True)
class MapRow:
    """A line of the table of maps."""

    fault: str
    injected: int
    items: int
    failed: int
    lost: int
    twice: int
    again: int
    extra: int
    left: int
    silence_s: float


class MapRun(Run):
    """A dispatch of `map_lattices.map_sweep`."""

    def items(self) -> list[list[Execution]]:
        """How often each item was executed."""
        return [lattices.executions(self.folder, number) for number in range(self.count)]

    def tries(self) -> list[dict[str, Any]]:
        """The jobs of the map, oldest first: one for each try, an array or a single job."""
        found = [job for job in self.jobs() if job["jobName"].startswith(map_lattices.square_item.__name__)]
        return sorted(found, key=lambda job: int(job["createdAt"]))

    def children(self) -> list[dict[str, Any]]:
        """The jobs of all arrays, and single jobs, as AWS Batch describes them."""
        ids: list[str] = []
        for job in self.tries():
            size = job.get("arrayProperties", {}).get("size", 0)
            ids += [f"{job['jobId']}:{index}" for index in range(size)] or [job["jobId"]]
        return list(self.world.batch.describe_jobs(jobs=ids)["jobs"]) if ids else []

    def stored(self) -> dict[int, Turn]:
        """For each item whose result is stored: the try and the attempt that stored it first."""
        calls = self._calls()
        found: dict[int, Turn] = {}
        for key in self.keys():
            told = _OF_A_JOB.search(key)
            if told is None or told["call"] not in calls:
                continue
            number, mapped = calls[told["call"]]
            if told["child"] is None and len(mapped.children) > 1:
                continue  # the outcome that the server stores for the whole map
            first, _ = mapped.children[int(told["child"] or 0)]
            attempt, begin, end = self._stored_by(key, told["kind"], told["name"].removeprefix("/"), first)
            for item in range(begin, end):
                found[item] = min(found.get(item, (number, attempt)), (number, attempt))
        return found

    def _stored_by(self, key: str, kind: str, name: str, first: int) -> tuple[int, int, int]:
        """The attempt that a record or an outcome is of, and the items that it has: from the first to the last."""
        record = parse_name(name) if kind == "items" else None
        if record is not None:
            return record.attempt, first + record.before, first + record.done
        if kind == "items":
            return 0, 0, 0
        try:
            outcome = documents.parse_outcome(self.read(key))
        except ProtocolError:
            return 0, 0, 0
        items = outcome.results[0].items
        # The items of earlier attempts are in it too, and these have records.
        return outcome.attempt, first, items.stop or first if items is not None else first

    def _calls(self) -> dict[str, tuple[int, Mapped]]:
        """The calls of the map by their ids, each with its number among the tries."""
        read = [documents.parse_call(self.read(key)) for key in self.keys() if key.endswith("/call.json")]
        mapped = {call.call_id: call.tasks[0].mapped for call in read if call.tasks[0].mapped is not None}
        return {call_id: (number, mapped[call_id]) for number, call_id in enumerate(sorted(mapped))}


def dispatch(world: World, count: int, *, waiting: tuple[int, ...], **given: Any) -> MapRun:
    """Dispatch `map_lattices.map_sweep`.

    Args:
        world: Where.
        count: Items; a job has `map_lattices.CHILD_ITEMS` of them.
        waiting: Items that end when `Run.release` is called.
        given: Further arguments of the lattice.
    """
    folder = world.folder / f"run-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / GATE).touch()
    begun_ms = int(time.time() * 1000)
    dispatched = ct.dispatch(map_lattices.map_sweep, dispatcher_addr=world.url)
    return MapRun(world, dispatched(count, str(folder), waiting=waiting, **given), folder, count, begun_ms)


def measure(
    fault: str,
    run: MapRun,
    watch: Watch,
    *,
    fails: tuple[int, ...],
    tries: int,
    ends: str,
    evidence: str | None = None,
) -> MapRow:
    """What became of a map whose dispatch has ended.

    Args:
        fault: Name of the row.
        run: The dispatch.
        watch: What looked at it.
        fails: Items that cannot succeed.
        tries: Jobs that the map may have: it is submitted again on purpose after some ends.
        ends: The status that the dispatch should have.
        evidence: What AWS says of a job that was hit, where no fault of the emulator counts it.
    """
    values = run.nodes()[0].value if ends == "COMPLETED" and run.nodes()[0].status == ends else []
    executions, stored, own = run.items(), run.stored(), run.tries()
    order = {job["jobId"]: number for number, job in enumerate(own)}

    def turn(of: Execution) -> Turn:
        return order[of.job_id.partition(":")[0]], of.attempt

    children = run.children()
    jobs = [*run.jobs(), *children]
    hit = [
        job for job in children if evidence is not None and evidence in f"{job.get('statusReason')} {job['attempts']}"
    ]
    return MapRow(
        fault=fault,
        injected=run.struck + len(hit) or sum(each["hits"] for each in run.world.faults()),
        items=run.count,
        failed=sum(isinstance(each, ElectronFailed) for each in values),
        lost=_lost(run, values, fails) if ends == "COMPLETED" else 0,
        twice=sum(sum(each.done for each in of) > 1 for of in executions),
        again=sum(any(turn(each) > stored.get(i, turn(each)) for each in of) for i, of in enumerate(executions)),
        extra=max(0, len(own) - tries) + _unaccounted(run),
        left=sum(job["status"] not in TERMINAL for job in jobs),
        silence_s=watch.silence_s,
    )


def _lost(run: MapRun, values: list[Any], fails: tuple[int, ...]) -> int:
    """Items without their own result, less those that cannot have one."""
    if len(values) != run.count:
        return run.count
    expected = [lattices.squared(i, lattices.word(i, str(run.folder))) for i in range(run.count)]
    return sum(value != expected[i] for i, value in enumerate(values) if i not in fails)


def _unaccounted(run: MapRun) -> int:
    """Executions of jobs beyond the attempts that AWS Batch says they had."""
    attempts = {job["jobId"]: len(job.get("attempts", ())) for job in run.children()}
    seen: dict[str, set[int]] = {}
    for each in (one for of in run.items() for one in of):
        seen.setdefault(each.job_id, set()).add(each.attempt)
    return sum(max(0, len(numbers) - attempts.get(job_id, 0)) for job_id, numbers in seen.items())
