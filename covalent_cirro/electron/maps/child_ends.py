"""How the jobs of a map ended: their outcomes, in order, and of those that failed what AWS Batch says."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.aws.batch import MAX_DESCRIBED
from covalent_cirro.aws.sessions import patiently
from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import NodeResult, Outcome
from covalent_cirro.contract.references import Blob
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps.list_writer import read_small
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs.states import JobDetail, JobState

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
        place: Where it writes its outcome.
        job_id: Its id; empty where the parent's is not known.
    """

    number: int
    first: int
    stop: int
    place: Location
    job_id: str


class ChildEnd(NamedTuple):
    """How a job of a map ended.

    Attributes:
        job: The job.
        outcome: Its outcome; `None` if there is none, or it was refused.
        result: The outcome's only result; `None` without an outcome.
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


def jobs_of(place: Location, mapped: Mapped, job_id: str) -> list[ChildJob]:
    """The jobs of a map.

    Args:
        place: The call.
        mapped: What the call says of the map.
        job_id: Id of the array job, or of the only job; empty where it is not known.
    """
    if len(mapped.children) == 1:
        ((first, stop),) = mapped.children
        return [ChildJob(0, first, stop, place, job_id)]
    return [
        ChildJob(index, first, stop, place.child(index), f"{job_id}:{index}" if job_id else "")
        for index, (first, stop) in enumerate(mapped.children)
    ]


class ChildEnds:
    """Reads the ends of the jobs of a map."""

    def __init__(self, engine: Engine, place: Location, jobs: Sequence[ChildJob], parent: JobDetail | None) -> None:
        """Prepare to read.

        Args:
            engine: The account's.
            place: The call.
            jobs: From `jobs_of`.
            parent: The array job, or the only job, after its end; `None` where AWS Batch does not know it any more.
        """
        self._engine = engine
        self._place = place
        self._jobs = jobs
        self._parent = parent

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
        """What AWS Batch says of the jobs that left no outcome, by id."""
        parent = self._parent
        if parent is None:
            return {}
        if len(self._jobs) == 1:
            return {parent.job_id: parent}
        keys = await self._engine.store.list_keys(self._place.bucket, self._place.array_base)
        present = {key for key, _ in keys}
        lacking = [job.job_id for job in self._jobs if job.place.outcome_key not in present]
        details: list[JobDetail] = []
        for start in range(0, len(lacking), MAX_DESCRIBED):
            details += await self._describe(lacking[start : start + MAX_DESCRIBED])
        return {detail.job_id: detail for detail in details}

    async def _describe(self, ids: Sequence[str]) -> list[JobDetail]:
        return await patiently(lambda: self._engine.batch.describe(ids), _ASKED_FOR_S)

    async def _end(self, job: ChildJob, detail: JobDetail | None, with_bodies: bool) -> ChildEnd:
        outcome, problem = await self._outcome(job, detail)
        if detail is None and (problem or outcome is None or not outcome.is_final) and self._parent is not None:
            # Only now is it asked for: a later attempt may have stored an outcome of its own.
            detail = next(iter(await self._describe([job.job_id])), None)
            outcome, problem = await self._outcome(job, detail)
        result = outcome.results[0] if outcome is not None and len(outcome.results) == 1 else None
        if outcome is not None and (result is None or not _fits(result, job)):
            problem = f"The outcome of job {outcome.job_id} was refused: it is not about the items of that job."
            outcome = result = None
        if detail is None and self._parent is not None and outcome is not None and not _is_complete(result, job):
            detail = next(iter(await self._describe([job.job_id])), None)
        bodies = await self._small_bodies(job, result) if with_bodies and result is not None else {}
        return ChildEnd(job, outcome, result, detail, problem, bodies)

    async def _outcome(self, job: ChildJob, detail: JobDetail | None) -> tuple[Outcome | None, str]:
        if detail is None and self._parent is not None:
            # The key with which it signs is the parent's. That it has one attempt is corrected in `_end`.
            detail = self._parent._replace(job_id=job.job_id, state=JobState.SUCCEEDED.value, attempts=())
        try:
            return await read_outcome(self._engine.store, self._engine.batch.job, job.place, detail), ""
        except OutcomeError as error:
            return None, str(error)

    async def _small_bodies(self, job: ChildJob, result: NodeResult) -> dict[Blob, bytes]:
        chunks = result.items.chunks if result.items is not None else ()
        blobs = [chunk.body for chunk in chunks if isinstance(chunk.body, Blob)]
        if sum(blob.raw_size for blob in blobs) > SMALL_BYTES:
            return {}
        found = await asyncio.gather(*(read_small(self._engine.store, job.place, blob) for blob in blobs))
        return dict(zip(blobs, found, strict=True))


def _fits(result: NodeResult, job: ChildJob) -> bool:
    items = result.items
    if items is None:
        return result.failure is not None
    inside = all(job.first <= failure.item < job.stop for failure in items.failures)
    return inside and (not items.chunks or (items.chunks[0].first == job.first and items.chunks[-1].stop <= job.stop))


def _is_complete(result: NodeResult | None, job: ChildJob) -> bool:
    return result is not None and result.items is not None and result.items.stop == job.stop
