"""Reuses the results of earlier work for an electron: stores its ``reused.json``, and finds the results by it.

An electron with reused results has this document in the place of a call and a job. `earlier.py` decides which work is
the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from covalent_cirro.aws.image_labels import REFUSED_FRESH_S
from covalent_cirro.contract.documents import dump_reused, parse_reused
from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call, Outcome, Reused, ReusedNode
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.covalent_server.status_board import board
from covalent_cirro.electron.call_writer import Written
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.maps.map_plans import MapPlan
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.electron.reuse import item_taking
from covalent_cirro.electron.reuse.earlier import EarlierDispatch, NotReused, earlier_dispatch
from covalent_cirro.electron.reuse.work import READ_BYTES
from covalent_cirro.errors import OutcomeError, SettingsError
from covalent_cirro.jobs import arguments
from covalent_cirro.jobs.formatting import moment_utc
from covalent_cirro.jobs.reuse_texts import REUSED, checked_origin, origin_text
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """A task group whose results are reused.

    Attributes:
        place: Place of its ``reused.json`` in S3.
        reused: Content of that document.
    """

    place: Location
    reused: Reused


async def earlier_of(engine: Engine, settings: Settings, redispatch_of: str | None) -> EarlierDispatch | None:
    """The dispatch whose results are reused, and its calls are read; `None`: nothing is reused.

    Args:
        engine: The account's.
        settings: Settings of the executor, with the option ``reuse_from``.
        redispatch_of: The dispatch that this one repeats. It comes before ``reuse_from`` if it has anything in S3.

    Raises:
        SettingsError: The bucket has nothing of the dispatch of ``reuse_from``.
        AccessDenied, AwsError: It cannot be read.
    """
    if redispatch_of:
        repeated = earlier_dispatch(engine, settings.s3_bucket_name, settings.key_prefix, redispatch_of)
        with contextlib.suppress(SettingsError):  # it failed before there was a job, or all of it has expired
            await repeated.load()
            return repeated
    if not settings.reuse_from:
        return None
    earlier = earlier_dispatch(engine, settings.s3_bucket_name, settings.key_prefix, settings.reuse_from)
    await earlier.load()
    return earlier


async def reuse(
    engine: Engine,
    settings: Settings,
    earlier: EarlierDispatch,
    plan: MapPlan | None,
    prepare: Callable[[float, MapPlan | None], Awaitable[Written]],
    lattice: str,
) -> Taken | Written:
    """Results of an earlier dispatch; or the call that is to be stored, of a map maybe for some of its items only.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        earlier: The earlier dispatch.
        plan: The map; `None`: no electron is mapped.
        prepare: Prepares the call, with an image that was looked up at most so many seconds ago.
        lattice: Name of the lattice.
    """
    items = None
    if plan is not None:
        named = await prepare(REFUSED_FRESH_S, plan._replace(names_only=True))
        items = await item_taking.find(engine, settings, earlier, named.location, named.call, plan)
    # Of a small list the content is compared, too, of which the bytes may differ.
    may_be_whole = plan is None or items is None or items.is_whole or plan.size <= READ_BYTES
    prepared = None
    if may_be_whole:
        prepared = await prepare(REFUSED_FRESH_S, plan)
        taken = await take(engine, earlier, prepared.location, prepared.call, lattice)
        if isinstance(taken, Taken):
            return taken
        prepared = prepared._replace(call=prepared.call._replace(not_reused=taken.why))
    if plan is None or items is None:
        assert prepared is not None
        return prepared
    if items.reuse.left:
        stored = {
            name: engine.joined.find(each.path, settings.s3_bucket_name, settings.key_prefix) is not None
            for name, each in plan.lists.items()
        }
        left = await asyncio.to_thread(item_taking.left_of, plan, items.reuse, stored)
        rest = await prepare(REFUSED_FRESH_S, left)
        return rest._replace(call=rest.call._replace(not_reused=items.why_not))
    every = await prepare(REFUSED_FRESH_S, plan._replace(names_only=True, reuse=items.reuse))
    return await take_items(engine, every, items.job_id, lattice)


async def take(
    engine: Engine, earlier: EarlierDispatch, place: Location, call: Call, lattice: str
) -> Taken | NotReused:
    """Reuse results of the same work for a call that is not stored.

    Args:
        engine: The account's.
        earlier: The earlier dispatch.
        place: Place that the call would have.
        call: Content that the call would have.
        lattice: Name of the lattice.

    Returns:
        The reused results; or why the earlier dispatch has none.
    """
    origin = await earlier.find(call)
    if isinstance(origin, NotReused):
        log.info("The work of %s is done: %s", place.call_uri, origin.why)
        return origin
    reused = Reused(
        dispatch_id=call.dispatch_id,
        lattice=lattice,
        origin=origin.place.call_uri,
        job_id=origin.outcome.job_id,
        at=time.time(),
        nodes=tuple(
            ReusedNode(task.node_id, task.name, node_id)
            for task, node_id in zip(call.tasks, origin.node_ids, strict=True)
        ),
        arguments=call.tasks[0].arguments,
    )
    await engine.store.put_document(place.bucket, place.reused_key, dump_reused(reused))
    return Taken(place, reused)


async def take_items(engine: Engine, prepared: Written, job_id: str, lattice: str) -> Taken:
    """Reuse the results of all items of a map, each from an earlier map that had it.

    Args:
        engine: The account's.
        prepared: The call that the map would have, with all that it reuses.
        job_id: Id of the job that most of the results are of.
        lattice: Name of the lattice.
    """
    place, call = prepared.location, prepared.call
    (task,) = call.tasks
    assert task.mapped is not None
    assert task.mapped.reused is not None
    origin = parse_call_uri(task.mapped.reused.origin)
    reused = Reused(
        dispatch_id=call.dispatch_id,
        lattice=lattice,
        origin=origin.call_uri,
        job_id=job_id,
        at=time.time(),
        nodes=(ReusedNode(task.node_id, task.name, origin.node_id),),
        arguments=task.arguments,
        items=task.mapped.reused,
        digests=task.mapped.digests,
    )
    await engine.store.put_document(place.bucket, place.reused_key, dump_reused(reused))
    return Taken(place, reused)


async def begun(engine: Engine, settings: Settings, dispatch_id: str, node: Node) -> Taken | None:
    """Results that an earlier server reused for an electron; `None` where there are none."""
    calls = await engine.store.list_calls(settings.s3_bucket_name, settings.key_prefix, dispatch_id, node.node_id)
    found = [place for place, names in calls.items() if "reused.json" in names]
    return Taken(found[-1], await document(engine, found[-1])) if found else None


def show(dispatch_id: str, node_ids: Sequence[int], reused: Reused) -> None:
    """Show in the server's log and in the UI that results were reused."""
    log.info("Electron %s of dispatch %s is %s", list(node_ids), dispatch_id, origin_text(reused))
    lines = {"job": origin_text(reused), "state": f"{REUSED} since {moment_utc(reused.at)}"}
    if reused.arguments:
        lines["called_with"] = arguments.line(reused.arguments)
    for node_id in node_ids:
        board().show_panel(dispatch_id, node_id, lines)


async def outcome_of(engine: Engine, reused: Reused) -> tuple[Location, Outcome]:
    """Read the outcome of the work whose results were reused.

    Args:
        engine: The account's.
        reused: Content of its ``reused.json``.

    Returns:
        Place of the earlier call, and its outcome with the node ids of this dispatch.

    Raises:
        OutcomeError: The outcome is not there any more, or was refused.
    """
    origin = parse_call_uri(reused.origin)
    outcome = await read_outcome(engine.store, engine.batch.job, origin)
    if outcome is None:
        raise OutcomeError(
            f"The results of {reused.origin}, which were to be reused, have expired meanwhile. Dispatch again: what is "
            "gone is computed."
        )
    own = {origin_id: node_id for node_id, _, origin_id in reused.nodes}
    if {each.node_id for each in outcome.results} != own.keys() or not outcome.succeeded:
        raise OutcomeError(f"The outcome of {reused.origin} is not the one that was to be reused; it was refused.")
    results = tuple(each._replace(node_id=own[each.node_id]) for each in outcome.results)
    return origin, outcome._replace(results=results)


async def document(engine: Engine, place: Location) -> Reused:
    """Read an electron's ``reused.json``, which a server wrote and which names the earlier call.

    Raises:
        OutcomeError: It is not there any more, or was refused.
    """
    where = f"s3://{place.bucket}/{place.reused_key}"
    data = await engine.store.get_document(place.bucket, place.reused_key, MAX_DOCUMENT_BYTES)
    if data is None:
        raise OutcomeError(f"{where} is not there: no results were taken for this electron, or it has expired.")
    try:
        reused = parse_reused(data)
        checked_origin(place, reused)
    except ProtocolError as error:
        raise OutcomeError(f"{where} was refused: {error}") from error
    return reused
