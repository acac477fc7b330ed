"""How the jobs of a map ended: their outcomes, in order, and of those that failed what AWS Batch says."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.aws.batch import MAX_DESCRIBED
from covalent_cirro.aws.sessions import patiently
from covalent_cirro.contract import chunk_records
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.limits import MAX_OUTCOME_BYTES
from covalent_cirro.contract.maps import ItemFailure, ItemResults, Mapped
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome
from covalent_cirro.contract.references import Blob
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps.list_writer import read_small
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.errors import CirroError, OutcomeError, TooLarge
from covalent_cirro.jobs.ends import Evidence
from covalent_cirro.jobs.states import JobDetail, JobState

log = logging.getLogger(__name__)

READ_AHEAD = 16
"""Jobs whose outcomes are read at the same time."""

SMALL_BYTES = 2 * 1024 * 1024
"""Bytes of the results of a job that are read ahead; larger ones are streamed."""

_ASKED_FOR_S = 60.0


class ChildJob(NamedTuple):
    """A job of a map. Of a map that needs one job only, that job.

    Attributes:
        number: Index in the array job.
        first, stop: Its items: ``first <= i < stop``.
        until: The item after the last one whose result is taken from it; the others are those of a further try.
        place: Where it writes its outcome.
        job_id: Its id; empty where the parent's is not known.
        parent: The array job, or the job itself, after its end; `None` where AWS Batch does not know it any more.
        mapped: What its call says of the map.
    """

    number: int
    first: int
    stop: int
    until: int
    place: Location
    job_id: str
    parent: JobDetail | None
    mapped: Mapped

    @property
    def items(self) -> str:
        """Its items, in words, by their indexes in the whole list."""
        places = self.mapped.places_of(range(self.first, self.stop))
        first, stop = places[0][0], places[-1][1]
        return f"item {first}" if stop == first + 1 else f"items {first}-{stop - 1}"


class ChildEnd(NamedTuple):
    """How a job of a map ended.

    Attributes:
        job: The job.
        outcome: Its outcome; `None` if there is none, or it was refused.
        result: The outcome's only result; without an outcome, what its records have; `None` without both.
        detail: The job as AWS Batch describes it, if it was asked.
        problem: Why the outcome was refused; empty if it was not.
        bodies: Bodies of its results that were read already.
    """

    job: ChildJob
    outcome: Outcome | None
    result: NodeResult | None
    detail: JobDetail | None
    problem: str
    bodies: Mapping[Blob, bytes]

    @property
    def done(self) -> int:
        """The item after the last one that has a result."""
        items = self.result.items if self.result is not None else None
        return items.stop or self.job.first if items is not None else self.job.first

    @property
    def failures(self) -> tuple[ItemFailure, ...]:
        """Its items that failed, the first ones if they are many."""
        items = self.result.items if self.result is not None else None
        return tuple(each for each in items.failures if each.item < self.job.until) if items is not None else ()

    @property
    def failures_not_told(self) -> list[range]:
        """Further items of it that failed, of which the outcome does not say why."""
        items = self.result.items if self.result is not None else None
        found = items.more_failures if items is not None else ()
        return [range(first, min(stop, self.job.until)) for first, stop in found if first < self.job.until]

    @property
    def evidence(self) -> Evidence:
        """What is known of why it did not compute all of its items."""
        failure = self.result.failure if self.result is not None else None
        outcome, problem = self.outcome, self.problem
        if outcome is not None and (failure is None or failure.kind == Kind.ITEMS):
            problem = f"the job ended without results of the items from {self.job.mapped.place_of(self.done)} on"
        return Evidence(
            self.detail,
            failure=failure,
            usage=outcome.usage if outcome is not None else None,
            attempt=outcome.attempt if outcome is not None else 0,
            problem=problem,
            job_id=self.job.job_id,
        )

    @property
    def is_complete(self) -> bool:
        """Whether it has a result for each item that is taken from it."""
        return self.done >= self.job.until


class MapTry(NamedTuple):
    """One of the calls of a map: the first try, or a further one for items that have no result yet.

    Attributes:
        place: The call.
        mapped: What the call says of the map.
        job_id: Id of the array job, or of the only job; empty where it is not known.
        parent: That job after its end; `None` where AWS Batch does not know it any more.
    """

    place: Location
    mapped: Mapped
    job_id: str
    parent: JobDetail | None


def jobs_of(tries: Sequence[MapTry]) -> list[ChildJob]:
    """The jobs of a map, in the order of the items.

    Args:
        tries: The first try and all further ones, oldest first.
    """
    found: list[tuple[int, int, ChildJob]] = []
    later: list[int] = []
    for number, each in reversed(list(enumerate(tries))):
        jobs = _of_try(each)
        for job in jobs:
            at = bisect.bisect_left(later, job.first)
            until = later[at] if at < len(later) and later[at] < job.stop else job.stop
            found.append((job.first, number, job._replace(until=until)))
        later = sorted({*later, *(job.first for job in jobs)})
    return [job for _, _, job in sorted(found, key=lambda one: one[:2])]


def _of_try(of: MapTry) -> list[ChildJob]:
    if len(of.mapped.children) == 1:
        ((first, stop),) = of.mapped.children
        return [ChildJob(0, first, stop, stop, of.place, of.job_id, of.parent, of.mapped)]
    return [
        ChildJob(
            index,
            first,
            stop,
            stop,
            of.place.child(index),
            f"{of.job_id}:{index}" if of.job_id else "",
            of.parent,
            of.mapped,
        )
        for index, (first, stop) in enumerate(of.mapped.children)
    ]


class ChildEnds:
    """Reads the ends of the jobs of a map.

    Args:
        engine: The account's.
        jobs: From `jobs_of`.
    """

    def __init__(self, engine: Engine, jobs: Sequence[ChildJob]) -> None:
        self._engine = engine
        self._jobs = jobs

    async def read(self, with_bodies: bool) -> AsyncIterator[ChildEnd]:
        """Yield the end of each job, in order; a few are read ahead.

        Args:
            with_bodies: Small bodies of results are read, too.
        """
        described = await self._describe_without_outcome()
        left = iter(self._jobs)
        ahead: deque[asyncio.Task[ChildEnd]] = deque()
        try:
            while True:
                for job in itertools.islice(left, READ_AHEAD - len(ahead)):
                    ahead.append(asyncio.create_task(self._end(job, described.get(job.job_id), with_bodies)))
                if not ahead:
                    return
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _describe_without_outcome(self) -> dict[str, JobDetail]:
        """What AWS Batch says of jobs of arrays that left no outcome, and of jobs that are no array, by id."""
        known = [job for job in self._jobs if job.parent is not None]
        details = [job.parent for job in known if job.parent is not None and job.place.child_index is None]
        children = [job for job in known if job.place.child_index is not None]
        present: set[str] = set()
        for bucket, base in {(job.place.bucket, job.place.array_base) for job in children}:
            keys = await self._engine.store.list_keys(bucket, base)
            present |= {key for key, _ in keys if key.endswith("/outcome.json")}
        lacking = [job.job_id for job in children if job.place.outcome_key not in present]
        for start in range(0, len(lacking), MAX_DESCRIBED):
            details += await self._describe(lacking[start : start + MAX_DESCRIBED])
        return {detail.job_id: detail for detail in details}

    async def _describe(self, ids: Sequence[str]) -> list[JobDetail]:
        return await patiently(lambda: self._engine.batch.describe(ids), _ASKED_FOR_S)

    async def _end(self, job: ChildJob, detail: JobDetail | None, with_bodies: bool) -> ChildEnd:
        outcome, problem = await self._outcome(job, detail)
        if detail is None and (problem or outcome is None or not outcome.is_final) and job.parent is not None:
            # Only now is it asked for: a later attempt may have stored an outcome of its own.
            detail = next(iter(await self._describe([job.job_id])), None)
            outcome, problem = await self._outcome(job, detail)
        result = outcome.results[0] if outcome is not None and len(outcome.results) == 1 else None
        if outcome is not None and (result is None or not _fits(result, job)):
            problem = f"The outcome of job {outcome.job_id} was refused: it is not about the items of that job."
            outcome = result = None
        if detail is None and job.parent is not None and outcome is not None and not _is_complete(result, job):
            detail = next(iter(await self._describe([job.job_id])), None)
        if outcome is None and not problem:
            result = await self._from_records(job, detail)
        bodies = await self._small_bodies(job, result) if with_bodies and result is not None else {}
        return ChildEnd(job, outcome, result, detail, problem, bodies)

    async def _from_records(self, job: ChildJob, detail: JobDetail | None) -> NodeResult | None:
        """What a job without an outcome had computed, from its records (`chunk_records`); `None` without any."""
        known = detail if detail is not None else job.parent
        mac_key = known.mac_key_of(job.place) if known is not None else None
        if mac_key is None:
            return None
        prefix = job.place.chunk_key("")
        keys = await self._engine.store.list_keys(job.place.bucket, prefix)
        names = map(chunk_records.parse_name, (key.removeprefix(prefix) for key, _ in keys))
        found = ItemResults(())
        for record_name in chunk_records.chain(each for each in names if each is not None):
            name = record_name.name
            try:
                data = await self._engine.store.get_document(job.place.bucket, prefix + name, MAX_OUTCOME_BYTES)
                if data is None:
                    break
                record = chunk_records.parse(data, job.place, mac_key)
            except (ProtocolError, TooLarge) as error:
                log.warning("What job %s had computed is taken up to %s only: %s", job.job_id, name, error)
                break
            (chunk,) = record.chunks
            if chunk.first != (found.stop or job.first) or chunk.stop > job.stop:
                break
            found = ItemResults(
                (*found.chunks, chunk),
                (*found.failures, *record.failures),
                (),
                (*found.more_failures, *record.more_failures),
            )
        return NodeResult(job.place.node_id, None, None, Log(), Log(), items=found) if found.chunks else None

    async def _outcome(self, job: ChildJob, detail: JobDetail | None) -> tuple[Outcome | None, str]:
        if detail is None and job.parent is not None:
            # The key with which it signs is the parent's. That it has one attempt is corrected in `_end`.
            detail = job.parent._replace(job_id=job.job_id, state=JobState.SUCCEEDED.value, attempts=())
        try:
            return await read_outcome(self._engine.store, self._engine.batch.job, job.place, detail), ""
        except OutcomeError as error:
            return None, str(error)

    async def _small_bodies(self, job: ChildJob, result: NodeResult) -> dict[Blob, bytes]:
        chunks = result.items.chunks if result.items is not None else ()
        blobs = [chunk.body for chunk in chunks if isinstance(chunk.body, Blob)]
        if sum(blob.raw_size for blob in blobs) > SMALL_BYTES:
            return {}
        try:
            found = await asyncio.gather(*(read_small(self._engine.store, job.place, blob) for blob in blobs))
        except CirroError as error:
            if error.passes:
                raise
            return {}  # who takes the results reads them one by one, and says which cannot be read
        return dict(zip(blobs, found, strict=True))


def _fits(result: NodeResult, job: ChildJob) -> bool:
    items = result.items
    if items is None:
        return result.failure is not None
    inside = all(job.first <= failure.item < job.stop for failure in items.failures)
    inside = inside and all(job.first <= first < stop <= job.stop for first, stop in items.more_failures)
    return inside and (not items.chunks or (items.chunks[0].first == job.first and items.chunks[-1].stop <= job.stop))


def _is_complete(result: NodeResult | None, job: ChildJob) -> bool:
    return result is not None and result.items is not None and result.items.stop == job.stop
