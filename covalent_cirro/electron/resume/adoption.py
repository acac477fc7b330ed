"""Finds what an earlier server did for an electron: its call in S3, and the job of that call.

Uses what does not depend on the memory of a server: the job handle that Covalent stores, the calls under the electron's
prefix in S3, and the name of the job, which has the call id in it. Knows nothing of dispatches.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from covalent_cirro.aws.batch import job_name
from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron.call_writer import Written, read_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.handover import load_handle
from covalent_cirro.jobs import further_tries
from covalent_cirro.settings import Settings

SETTLE_S = 5.0
"""Pause before a job that was not found is looked for again: a SubmitJob of the earlier server may still arrive, and
AWS guarantees no order between SubmitJob and ListJobs."""


class EarlierCall(NamedTuple):
    """A call that an earlier server stored.

    Attributes:
        place: Place of the call in S3.
        job_id: Batch job id of the call's job; `None`: no job was submitted; "": the job ended so long ago that AWS
            Batch has forgotten it.
        written: The call; `None` if it cannot be read any more.
    """

    place: Location
    job_id: str | None
    written: Written | None

    @property
    def keys(self) -> list[str]:
        """S3 keys that must not expire while the job waits."""
        return list(self.written.keys) if self.written is not None else [self.place.call_key]


async def find(engine: Engine, settings: Settings, dispatch_id: str, node: Node) -> EarlierCall | None:
    """Find what an earlier server did for an electron.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        dispatch_id: The dispatch.
        node: The first electron of the task group, whose name is in the name of the job.

    Returns:
        The call; `None` if there is none that can be used.
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
                return EarlierCall(place, found, await read_call(engine.store, place))
    written = await read_call(engine.store, places[0])
    return None if written is None else EarlierCall(places[0], None, written)


async def _newest_try(
    engine: Engine, settings: Settings, dispatch_id: str, node: Node, place: Location, job_id: str
) -> EarlierCall:
    """The last further try of a call that has a job; the call itself, if there is none.

    A further try without a job is left out: `poll` submits it again, under the same name, after the job before it.
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
                return EarlierCall(each, found, await read_call(engine.store, each))
    return EarlierCall(place, job_id, await read_call(engine.store, place))


def _from_handle(value: object) -> tuple[Location, str] | None:
    """The place of the call and the job id; `None` where the handle does not name both."""
    handle = load_handle(value)
    if handle is None:
        return None
    try:
        return parse_call_uri(handle.call), handle.job_id
    except ProtocolError:
        return None


async def _job_of(
    engine: Engine, settings: Settings, dispatch_id: str, node: Node, place: Location, further: bool
) -> str | None:
    """The id of a call's job, which for a further try may be in the on-demand queue; `None` if there is none."""
    name = job_name(node.name, dispatch_id, node.node_id, place.call_id)
    found = await engine.batch.find(settings.queue, settings.queue_option, name)
    if found is None and further and settings.on_demand_queue is not None:
        found = await engine.batch.find(settings.on_demand_queue, settings.on_demand_queue_option, name)
    return found
