"""The way there: from a task group to a submitted job, and its end on demand. `CirroBatchExecutor.send` and `cancel`.

Everything between the first byte up and the job's end can be cancelled, at every await.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from covalent._shared_files import TaskCancelledError

from covalent_cirro.aws.batch import Submission, job_name, tag_value
from covalent_cirro.aws.image_labels import FRESH_S, REFUSED_FRESH_S
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.contract.protocol import CALL_PARAMETER, call_argument
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.covalent_server.status_board import board
from covalent_cirro.electron.call_writer import ElectronSpec, Written, pickled_by, prepare_call, store_call
from covalent_cirro.electron.engine.definitions import Allowed, build_definition, everything
from covalent_cirro.electron.engine.engine import Engine, engine_of, retire
from covalent_cirro.electron.launches import Launch, find, is_expected
from covalent_cirro.electron.patience import until_mended
from covalent_cirro.electron.resume import adoption
from covalent_cirro.electron.reuse import taking
from covalent_cirro.electron.reuse.taking import Taken
from covalent_cirro.errors import AccessDenied, CirroError, LocalFileError, NotFound
from covalent_cirro.jobs import states
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.jobs.tags import DISPATCH_TAG, ELECTRON_TAG, LATTICE_TAG, NODE_TAG
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

HANDLE_FORMAT = 1

KeepHandle = Callable[[str, int, dict[str, Any]], Awaitable[None]]


async def send(launch: Launch, settings: Settings, task_specs: Sequence[Any], keep_handle: KeepHandle) -> Any:
    """Store what a task group needs and submit its job, once there is room for it on the server's disk.

    Returns:
        What `poll` is given: ``{"job_id", "call", "keys", "tried"}``, ``{"call", "reused"}`` where earlier results are
        taken, or ``{"host": [...]}`` for Covalent's own nodes.
    """

    def tell(words: str) -> None:
        for node_id in launch.node_ids:
            board().show_problem(launch.dispatch_id, node_id, words)

    return await until_mended(
        f"Dispatch {launch.dispatch_id}, nodes {launch.node_ids}",
        lambda: _send(launch, settings, task_specs, keep_handle),
        of=LocalFileError,
        then="Nothing was submitted yet; it is as soon as this is put right.",
        tell=tell,
        mended=lambda: tell(""),
        sleep=lambda seconds: launch.unless_cancelled(asyncio.sleep(seconds)),
    )


async def _send(launch: Launch, settings: Settings, task_specs: Sequence[Any], keep_handle: KeepHandle) -> Any:
    """`send`, which raises where there is no room. May be begun again until the job is submitted."""
    specs = [ElectronSpec(spec.electron_id, spec.args, spec.kwargs) for spec in task_specs]
    inputs = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(assets.load_group, launch.dispatch_id, launch.node_ids, inputs)
    if all(node.is_host_node for node in group.nodes.values()):
        return {"host": [[spec.node_id, list(spec.args), dict(spec.kwargs)] for spec in specs]}
    return await send_job(launch, settings, group, specs, keep_handle)


async def send_job(
    launch: Launch, settings: Settings, group: Group, specs: Sequence[ElectronSpec], keep_handle: KeepHandle
) -> dict[str, Any]:
    """Store what a task group needs and submit its job, whatever its nodes are; see `send`."""
    async with engine_for(settings) as engine:
        pickled, covalent = await asyncio.gather(pickled_by(group, specs), asyncio.to_thread(assets.check_version))
        earlier = None
        if launch.again:
            first = group.nodes[launch.node_ids[0]]
            taken = await launch.unless_cancelled(taking.begun(engine, settings, launch.dispatch_id, first))
            if taken is not None:
                return _reused(launch, taken)
            earlier = await launch.unless_cancelled(adoption.find(engine, settings, launch.dispatch_id, first))
        if earlier is not None and earlier.job_id is not None:
            log.info("Job %s of %s is adopted", earlier.job_id or "(ended)", earlier.place.call_uri)
            job_id, call, keys = earlier.job_id, earlier.place.call_uri, earlier.keys
            tried = len(earlier.written.call.tried) if earlier.written is not None else 0
            if not job_id:  # AWS Batch has forgotten it: there is nothing to wait for, and nothing to cancel
                return {"job_id": job_id, "call": call, "keys": keys, "tried": tried}
        else:
            allowed = image_check(engine, settings, pickled)
            begun = earlier.written if earlier is not None else None

            async def prepare(max_age_s: float) -> Written:
                return await prepare_call(
                    engine.store,
                    settings,
                    launch.dispatch_id,
                    group,
                    specs,
                    pickled,
                    covalent=covalent,
                    allowed=allowed,
                    image=functools.partial(engine.images.named, settings.container_image_uri, max_age_s),
                )

            prepared = None
            reusable = None if begun is not None else taking.earlier_of(engine, settings)
            if reusable is not None:
                await launch.unless_cancelled(reusable.load())  # a wrong dispatch is told before anything is sent
                prepared = await launch.unless_cancelled(prepare(REFUSED_FRESH_S))
                taken = await launch.unless_cancelled(
                    taking.take(engine, reusable, prepared.location, prepared.call, group.lattice)
                )
                if taken is not None:
                    return _reused(launch, taken)

            async def write() -> Written:
                if begun is not None:
                    return begun
                ready = prepared or await prepare(FRESH_S)
                await store_call(engine.store, ready, allowed)
                return ready

            written, definition = await launch.unless_cancelled(
                asyncio.gather(write(), ensure_definition(engine, settings, allowed))
            )
            # From here a job may exist: it is submitted whole, and ended if a cancel came meanwhile.
            job_id = await submit(engine, settings, written, definition, group, asked_before=begun is not None)
            call, keys, tried = written.location.call_uri, list(written.keys), len(written.call.tried)
        await hold(engine, launch, job_id, call, keep_handle)
    return {"job_id": job_id, "call": call, "keys": keys, "tried": tried}


def _reused(launch: Launch, taken: Taken) -> dict[str, Any]:
    """What `poll` is given of an electron that needs no job."""
    taking.show(launch.dispatch_id, launch.node_ids, taken.reused)
    return {"call": taken.place.call_uri, "reused": True}


def image_check(engine: Engine, settings: Settings, pickled: Pickled) -> Allowed:
    """Begin to look at the job's image, and give what waits for the answer: once AWS knows of the job, it is paid for.

    All who write wait for the same answer, and read meanwhile. It raises `ImageError`.
    """
    check = asyncio.ensure_future(engine.images.require(settings.container_image_uri, pickled))
    check.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may be gone

    async def allowed() -> None:
        await asyncio.shield(check)

    return allowed


async def ensure_definition(engine: Engine, settings: Settings, allowed: Allowed = everything) -> str:
    """``name:revision`` of the job definition for these settings; ``allowed`` is awaited before one is registered."""
    job_role, execution_role = await asyncio.gather(
        engine.role_arn(settings.batch_job_role_name), engine.role_arn(settings.batch_execution_role_name)
    )
    body = build_definition(settings, region=engine.region, job_role_arn=job_role, execution_role_arn=execution_role)
    return await engine.definitions.ensure(body, allowed)


async def submit(
    engine: Engine, settings: Settings, written: Written, definition: str, group: Group, *, asked_before: bool = False
) -> str:
    """Submit the job of a call that is stored, and give its id. ``asked_before``: it may be submitted already."""
    call = written.call
    first = call.tasks[0]

    async def once(revision: str) -> str:
        return await engine.batch.submit(
            Submission(
                name=job_name(first.name, call.dispatch_id, first.node_id, call.call_id),
                queue=settings.queue,
                queue_option=settings.queue_option,
                definition=revision,
                parameters={CALL_PARAMETER: call_argument(written.location, secrets.token_hex(16))},
                attempts=settings.attempts,
                timeout_s=settings.time_limit,
                tags={
                    DISPATCH_TAG: tag_value(call.dispatch_id),
                    LATTICE_TAG: tag_value(group.lattice or "-"),
                    ELECTRON_TAG: tag_value(first.name or "-"),
                    NODE_TAG: str(first.node_id),
                },
            ),
            asked_before=asked_before,
        )

    try:
        return await once(definition)
    except NotFound:
        # Somebody deregistered the revision since it was looked up.
        engine.definitions.forget(definition)
        return await once(await ensure_definition(engine, settings))


async def hold(engine: Engine, launch: Launch, job_id: str, call: str, keep_handle: KeepHandle) -> None:
    """From here on a cancel finds the job; if one came before, it is ended."""
    launch.job_id = job_id
    await keep_handle(
        launch.dispatch_id,
        launch.node_ids[0],
        {"format": HANDLE_FORMAT, "job_id": job_id, "call": call, "region": engine.region},
    )
    if launch.cancelled:
        await terminate(engine, job_id, launch.dispatch_id)
        raise TaskCancelledError(f"AWS Batch job {job_id} was cancelled while it was submitted")


async def cancel(settings: Settings, task_metadata: dict[str, Any], job_handle: Any) -> bool:
    """End what is under way for an electron; see `CirroBatchExecutor.cancel`."""
    dispatch_id, node_id = task_metadata["dispatch_id"], task_metadata["node_id"]
    launch = find(dispatch_id, node_id)
    job_id = job_handle.get("job_id") if isinstance(job_handle, dict) else job_handle
    if launch is not None:
        launch.cancel()
        if launch.job_id is None:
            return True
        job_id = launch.job_id
    elif is_expected(dispatch_id, node_id):
        return await _cancel_earlier(settings, dispatch_id, node_id)
    if not isinstance(job_id, str) or not job_id:
        return False
    async with engine_for(settings) as engine:
        await terminate(engine, job_id, dispatch_id)
    return True


async def _cancel_earlier(settings: Settings, dispatch_id: str, node_id: int) -> bool:
    """End the job that a server which died has submitted, its handle kept or not."""
    group = await asyncio.to_thread(assets.load_group, dispatch_id, [node_id], ())
    async with engine_for(settings) as engine:
        earlier = await adoption.find(engine, settings, dispatch_id, group.nodes[node_id])
        if earlier is None or not earlier.job_id:
            return False
        await terminate(engine, earlier.job_id, dispatch_id)
    return True


async def terminate(engine: Engine, job_id: str, dispatch_id: str) -> None:
    """Ask for the end of a job of a dispatch that is cancelled."""
    # Of a dispatch that is cancelled, all have the same reason: they end in the same calls.
    await engine.stops.end(job_id, f"{states.CANCEL_REASON} (dispatch {dispatch_id})")


@contextlib.asynccontextmanager
async def engine_for(settings: Settings) -> AsyncIterator[Engine]:
    """The engine for these settings. One whose credentials AWS refused is not used again."""
    engine = await engine_of(access_of(settings))
    try:
        yield engine
    except CirroError as error:
        if isinstance(error, AccessDenied) or isinstance(error.__cause__, AccessDenied):
            retire(engine)
        raise
