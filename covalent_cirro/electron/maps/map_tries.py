"""Further tries of a map: only the items without a result, as a smaller array with more memory or in another queue.

What the next try is follows from the outcomes and from AWS Batch alone: a server that was restarted decides the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.maps import Mapped, MappedArgument, Span
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Call
from covalent_cirro.contract.references import Inline, Ref
from covalent_cirro.electron.call_writer import read_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps.child_ends import ChildEnd, ChildEnds, MapTry, jobs_of
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs import further_tries
from covalent_cirro.jobs.further_tries import NextTry
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

CUT_BYTES = 64 * 1024 * 1024
"""Most bytes of a job's items that are read to find those that are left. Of a job with more, all items run again."""


class NextMap(NamedTuple):
    """A further try of a map.

    Attributes:
        further: The try that failed, and the settings of the next one.
        mapped: What the next call says of the map.
    """

    further: NextTry
    mapped: Mapped


async def earlier(engine: Engine, place: Location, call: Call) -> list[MapTry]:
    """The earlier tries of a map, oldest first.

    Raises:
        OutcomeError: The call of one has expired.
    """
    found = []
    for each in call.tried:
        where = place.sibling(each.call_id)
        written = await read_call(engine.store, where)
        mapped = written.call.tasks[0].mapped if written is not None else None
        if mapped is None:
            raise OutcomeError(f"{where.call_uri}, an earlier try of the map, is not there any more.")
        found.append(MapTry(where, mapped, each.job_id, await engine.batch.job(each.job_id)))
    return found


async def next_map(
    engine: Engine, settings: Settings, place: Location, call: Call, parent: JobDetail
) -> NextMap | None:
    """The next try of a map; `None` if it is not submitted again.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        place: The call whose job failed.
        call: Its content.
        parent: The array job, or the only job, after its end.
    """
    mapped = call.tasks[0].mapped
    if mapped is None:
        return None
    left: list[ChildEnd] = []
    tries: list[NextTry] = []
    jobs = jobs_of([MapTry(place, mapped, parent.job_id, parent)])
    async for child in ChildEnds(engine, jobs).read(with_bodies=False):
        further = None if child.is_complete else further_tries.next_try(child.evidence, settings, place.call_id)
        if further is not None:
            left.append(child._replace(outcome=None))
            tries.append(further)
        elif mapped.on_error != "return" and (child.failures or not child.is_complete):
            return None  # the electron fails, whatever the others do
    if not tries:
        return None
    chosen = max(tries, key=lambda each: (each.settings.memory, each.settings.on_demand))
    then = chosen.settings
    if any(each.settings.on_demand for each in tries):
        then = further_tries.on_demand(then)
    tried = chosen.tried._replace(job_id=parent.job_id, next_queue=then.queue.rsplit("/", 1)[-1])
    return NextMap(NextTry(then, tried), await _left(engine, place, mapped, left))


async def _left(engine: Engine, place: Location, mapped: Mapped, children: Sequence[ChildEnd]) -> Mapped:
    """What is left of a map: for each of these jobs, the items without a result."""
    ranges: list[tuple[int, int]] = []
    spans: list[list[tuple[Span, ...]]] = [[] for _ in mapped.arguments]
    for child in children:
        job = child.job
        cut = [
            await _cut(engine, place, argument, argument.spans[job.number], child.done - job.first)
            for argument in mapped.arguments
        ]
        whole = any(each is None for each in cut)
        ranges.append((job.first if whole else child.done, job.stop))
        for number, each in enumerate(cut):
            own = mapped.arguments[number].spans[job.number]
            spans[number].append(own if whole or each is None else each)
    arguments = [argument._replace(spans=tuple(of)) for argument, of in zip(mapped.arguments, spans, strict=True)]
    return mapped._replace(children=tuple(ranges), arguments=tuple(arguments))


async def _cut(
    engine: Engine, place: Location, argument: MappedArgument, spans: tuple[Span, ...], done: int
) -> tuple[Span, ...] | None:
    """The spans without the first items; `None` where those are too large to be read."""
    if not done:
        return spans
    if sum(span.size for span in spans) > CUT_BYTES:
        return None
    body = b"".join([await _bytes(engine, place, argument.sources[span.source], span) for span in spans])
    ends = nested.item_ends(io.BytesIO(nested.LIST_HEAD + body + nested.LIST_TAIL))
    if ends is None or len(ends) <= done:
        return None
    drop, found = ends[done - 1], list[Span]()
    for span in spans:
        gone = min(drop, span.size)
        drop -= gone
        if gone < span.size:
            found.append(Span(span.source, span.offset + gone, span.size - gone))
    return tuple(found)


async def _bytes(engine: Engine, place: Location, source: Ref, span: Span) -> bytes:
    if isinstance(source, Inline):
        return source.data[span.offset : span.offset + span.size]
    return await engine.store.read_range(source, place.bucket, place.prefix, span.offset, span.size)
