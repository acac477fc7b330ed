"""The outcome of a whole map: those of its jobs as one, which is stored where an electron's outcome is.

The jobs of an array store an outcome each. Commands, and later dispatches that reuse the results, read one document.
It is signed as the jobs sign theirs, since it is a statement about their results.
"""

from __future__ import annotations

import asyncio
import logging

from covalent_cirro.aws.store import Store
from covalent_cirro.contract.documents import dump_outcome
from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.limits import MAX_OUTCOME_BYTES
from covalent_cirro.contract.maps import MAX_CHUNKS, Chunk, ItemResults
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Usage
from covalent_cirro.errors import AwsError
from covalent_cirro.jobs.states import JobDetail

log = logging.getLogger(__name__)

MAX_SECONDS = 100_000
"""Items whose seconds are told; of more items, none are."""


class Whole:
    """What the outcomes of a map's jobs say together."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._of: Outcome | None = None
        self._times: dict[str, float] = {}
        self._seconds: list[float] = []

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a job."""
        self._of = self._of or outcome
        self._usage = _both(self._usage, outcome.usage)
        for name, at in outcome.times.items():
            earliest = min if name == "started" else max
            self._times[name] = earliest(self._times.get(name, at), at)
        items = outcome.results[0].items
        self._seconds += items.seconds if items is not None else ()

    def outcome(
        self,
        place: Location,
        parent: JobDetail,
        node_id: int,
        length: int,
        chunks: tuple[Chunk, ...],
        failure: Failure | None,
        logs: tuple[Log, Log],
    ) -> Outcome | None:
        """The outcome of the map; `None` if no job has one.

        Args:
            place: The call.
            parent: The array job.
            node_id: The electron's node.
            length: Number of items.
            chunks: All results, if the electron has a result.
            failure: Why it has none.
            logs: Its stdout and stderr.
        """
        if self._of is None:
            return None
        seconds = tuple(self._seconds) if len(self._seconds) == length <= MAX_SECONDS else ()
        items = ItemResults(chunks if failure is None else (), (), seconds)
        return self._of._replace(
            call_id=place.call_id,
            attempt=1,
            job_id=parent.job_id,
            results=(NodeResult(node_id, None, failure, *logs, items=items),),
            usage=self._usage,
            host={},
            times=self._times,
            mac="",
            digest=b"",
        )


def _both(one: Usage, other: Usage) -> Usage:
    """Seconds of CPU are added; of the others, the largest counts."""
    return Usage(
        wall_s=max(one.wall_s, other.wall_s),
        cpu_s=one.cpu_s + other.cpu_s,
        peak_memory_bytes=_largest(one.peak_memory_bytes, other.peak_memory_bytes),
        memory_limit_bytes=_largest(one.memory_limit_bytes, other.memory_limit_bytes),
        gpus=one.gpus or other.gpus,
        oom_kills=_largest(one.oom_kills, other.oom_kills),
    )


def _largest(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)


async def store(to: Store, place: Location, parent: JobDetail, outcome: Outcome) -> None:
    """Store the outcome of a map, unless there is one. That it cannot be stored fails nothing."""
    mac_key = parent.mac_key_of(place)
    items = outcome.results[0].items
    if mac_key is None or items is None or len(items.chunks) > MAX_CHUNKS:
        return
    data = await asyncio.to_thread(dump_outcome, outcome, mac_key)
    if len(data) > MAX_OUTCOME_BYTES:
        log.info("The outcome of %s is too large to be stored: its results will not be reused", place.call_uri)
        return
    try:
        await to.put_document(place.bucket, place.outcome_key, data, once=True)
    except AwsError as error:
        if error.code != "PreconditionFailed":  # else it is there already
            log.warning("The outcome of the map %s is not stored, and will not be reused: %s", place.call_uri, error)
