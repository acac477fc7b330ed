"""Records of the results that a job of a mapped electron has so far: names, which tell the progress, and content.

A job writes a record each time it has stored results of further items, under ``places.Location.chunk_key(name)``. A
further attempt of the job reads the records and goes on behind them. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from covalent_cirro.contract import documents, fields
from covalent_cirro.contract.limits import MAX_OUTCOME_BYTES
from covalent_cirro.contract.maps import ItemResults
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import FORMAT, ProtocolError
from covalent_cirro.contract.protocol import mac

MAX_NAMES = 40_000
"""Most names of records that a further attempt looks at."""


class ChunkName(NamedTuple):
    """The name of a record, parsed. A listing of the names is enough to tell how far a job is.

    Attributes:
        attempt: AWS_BATCH_JOB_ATTEMPT of the attempt that computed the items.
        before: Number of the job's items that were done before those of this record.
        done: Number of the job's items that are done with them: the record has those from ``before`` to ``done``.
        failed: Number of items that failed, of all that are done.
    """

    attempt: int
    before: int
    done: int
    failed: int

    @property
    def name(self) -> str:
        """The part of the key behind ``items/``. Names sort by attempt, then in the order of the items."""
        return f"{self.attempt:02d}-{self.before:06d}-{self.done:06d}-{self.failed:06d}.json"


_NAME = re.compile(r"([0-9]{2})-([0-9]{6})-([0-9]{6})-([0-9]{6})\.json")


def parse_name(name: str) -> ChunkName | None:
    """Parse a name; `None` if it is not the name of a record, which a job may have given to an object of its own."""
    match = _NAME.fullmatch(name)
    record = None if match is None else ChunkName(*(int(each) for each in match.groups()))
    return record if record is not None and record.before < record.done >= record.failed else None


def furthest(names: Iterable[str]) -> ChunkName | None:
    """The record with the most items among the names of a job's objects; `None` without one."""
    found = [record for record in map(parse_name, names) if record is not None]
    return max(found, key=lambda each: (each.done, each.attempt), default=None)


def chain(names: Iterable[ChunkName]) -> list[ChunkName]:
    """Records that follow one another from the first item on, as far as any reach."""
    following: dict[int, tuple[int, ChunkName]] = {}  # how far records reach that begin there, and the first of them
    for name in sorted(names, key=lambda each: each.before, reverse=True):
        reach = following[name.done][0] if name.done in following else name.done
        if name.before not in following or following[name.before][0] < reach:
            following[name.before] = reach, name
    found: list[ChunkName] = []
    while (after := following.get(found[-1].done if found else 0)) is not None:
        found.append(after[1])
    return found


def dump(place: Location, items: ItemResults, mac_key: str) -> bytes:
    """The content of a record.

    Args:
        place: The job's own place.
        items: Results of the items of the record: one chunk.
        mac_key: MAC key of the job.
    """
    document = {"format": FORMAT, **_whose(place), **documents.dump_items(items)}
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"{data}\n{mac(data.encode(), mac_key)}".encode()


def parse(data: bytes, place: Location, mac_key: str) -> ItemResults:
    """Read a record. Any job may have written it: it is refused if it is not that of a job of this call.

    Args:
        data: Its content.
        place: The job's own place. All jobs of a call have the same key: the content says of which it is.
        mac_key: MAC key of the job.

    Raises:
        ProtocolError: Malformed, or not written by this job.
    """
    content, _, code = data.rpartition(b"\n")
    if len(data) > MAX_OUTCOME_BYTES or code != mac(content, mac_key).encode():
        raise ProtocolError("a record of results was not written by a job of this call")
    found = fields.load(content, "a record of results", MAX_OUTCOME_BYTES)
    if any(found.get(name) != value for name, value in _whose(place).items()):
        raise ProtocolError("a record of results is that of another job of this call")
    items = documents.parse_items(found, "a record of results")
    if len(items.chunks) != 1:
        raise ProtocolError("a record of results has not one chunk")
    return items


def _whose(place: Location) -> dict[str, object]:
    return {"call_id": place.call_id, "child": place.child_index}
