"""Finds what was begun for an electron before its server died: its call in S3, and the job of that call.

Looks where nothing depends on a server's memory: the handle that Covalent keeps, the calls under the electron's prefix,
and the job's name, which has the call's id. Knows nothing of dispatches and of how they go on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from covalent_cirro.aws.batch import job_name
from covalent_cirro.contract.documents import parse_call
from covalent_cirro.contract.protocol import MAX_DOCUMENT_BYTES, Blob, Call, Location, ProtocolError, parse_call_uri
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron.call_writer import Written
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.jobs import further_tries
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""A SubmitJob that the dead server had sent may still arrive: a job that is not there is looked for once more after
this. AWS's answers may also be seconds behind: it promises no order between SubmitJob and what is listed."""


class EarlierCall(NamedTuple):
    """What was begun for an electron.

    Attributes:
        place: Its call.
        job_id: The job of the call; `None`: it was never submitted; "": it ended so long ago that AWS Batch forgot it.
        written: The call, if it can still be read.
    """

    place: Location
    job_id: str | None
    written: Written | None

    @property
    def keys(self) -> list[str]:
        """What must not expire while the job waits."""
        return list(self.written.keys) if self.written is not None else [self.place.call_key]


async def find(engine: Engine, settings: Settings, dispatch_id: str, node: Node) -> EarlierCall | None:
    """What was begun for an electron before; `None`: nothing that can be used.

    Args:
        node: The first electron of its task group, which has given the job its name.
    """
    handle = await asyncio.to_thread(assets.read_handle, dispatch_id, node.node_id)
    kept = _from_handle(handle)
    if kept is not None:
        return await _newest_try(engine, settings, dispatch_id, node, *kept)
    calls = await engine.store.list_calls(settings.s3_bucket_name, settings.key_prefix, dispatch_id, node.node_id)
    places = [place for place, names in reversed(calls.items()) if "call.json" in names]
    if not places:
        return None
    further = {call_id for chain in further_tries.chains(place.call_id for place in places) for call_id in chain[1:]}
    for place in places:
        if "outcome.json" in calls[place]:
            found = await _job_of(engine, settings, dispatch_id, node, place, place.call_id in further)
            return await _newest_try(engine, settings, dispatch_id, node, place, found or "")
    for wait_s in (0.0, SETTLE_S):
        await asyncio.sleep(wait_s)
        for place in places:
            found = await _job_of(engine, settings, dispatch_id, node, place, place.call_id in further)
            if found is not None:
                return EarlierCall(place, found, await read(engine, place))
    written = await read(engine, places[0])
    return None if written is None else EarlierCall(places[0], None, written)


async def _newest_try(
    engine: Engine, settings: Settings, dispatch_id: str, node: Node, place: Location, job_id: str
) -> EarlierCall:
    """The last of the tries that follow a call whose job is there, as far as they have jobs.

    One without a job is left out: who waits for the job before it comes to submitting it again, under the same name.
    """
    calls = await engine.store.list_calls(place.bucket, place.prefix, dispatch_id, node.node_id)
    known = {each.call_id for each, names in calls.items() if "call.json" in names}
    after = [place.sibling(call_id) for call_id in further_tries.following(place.call_id, known)]
    for wait_s in (0.0, SETTLE_S) if after else ():
        await asyncio.sleep(wait_s)
        for each in reversed(after):
            found = await _job_of(engine, settings, dispatch_id, node, each, True)
            if found is None and "outcome.json" in calls[each]:
                found = ""
            if found is not None:
                return EarlierCall(each, found, await read(engine, each))
    return EarlierCall(place, job_id, await read(engine, place))


def _from_handle(handle: Any) -> tuple[Location, str] | None:
    if not isinstance(handle, dict) or not isinstance(handle.get("job_id"), str):
        return None
    try:
        return parse_call_uri(str(handle.get("call"))), handle["job_id"]
    except ProtocolError:
        return None


async def _job_of(
    engine: Engine, settings: Settings, dispatch_id: str, node: Node, place: Location, further: bool
) -> str | None:
    """The id of the job of a call, which for a further try may be in the on-demand queue."""
    name = job_name(node.name, dispatch_id, node.node_id, place.call_id)
    found = await engine.batch.find(settings.queue, settings.queue_option, name)
    if found is None and further and settings.on_demand_queue is not None:
        found = await engine.batch.find(settings.on_demand_queue, settings.on_demand_queue_option, name)
    return found


async def read(engine: Engine, place: Location) -> Written | None:
    """The call as it was written. One of another version, or a damaged one, is left alone."""
    data = await engine.store.get_document(place.bucket, place.call_key, MAX_DOCUMENT_BYTES)
    if data is None:
        return None
    try:
        call = parse_call(data)
    except ProtocolError as error:
        log.warning("The call %s cannot be used again: %s", place.call_uri, error)
        return None
    return Written(place, call, (place.call_key, *(place.blob_key(blob.sha256) for blob in _blobs(call))))


def _blobs(call: Call) -> list[Blob]:
    refs: list[object] = [package.archive for package in call.packages]
    for task in call.tasks:
        refs += [task.function, task.hooks, *task.args, *task.kwargs.values()]
    return [ref for ref in refs if isinstance(ref, Blob)]
