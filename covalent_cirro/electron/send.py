"""Sends a task group to AWS Batch, and cancels it. What `CirroBatchExecutor.send` and `cancel` do.

A task group can be cancelled at every `await`, from the first byte that is uploaded to the end of its job.
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

from covalent_cirro.aws import container_model
from covalent_cirro.aws.batch import Submission, job_name, tag_value
from covalent_cirro.aws.image_labels import FRESH_S
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.contract.places import call_argument
from covalent_cirro.contract.protocol import ARGUMENTS_PARAMETER, CALL_PARAMETER
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.covalent_server.status_board import board
from covalent_cirro.electron import distributed, missing_modules
from covalent_cirro.electron.call_writer import ElectronSpec, Written, pickled_by, prepare_call, store_call
from covalent_cirro.electron.engine.definitions import Allowed, everything
from covalent_cirro.electron.engine.engine import Engine, engine_of, retire
from covalent_cirro.electron.engine.job_definition import build_definition
from covalent_cirro.electron.handover import (
    AdoptedJob,
    HostNodes,
    JobHandle,
    NoItems,
    OwnJob,
    ReusedResults,
    Sent,
    load_handle,
)
from covalent_cirro.electron.launches import Launch, find, is_expected
from covalent_cirro.electron.maps import inputs
from covalent_cirro.electron.maps.map_plans import MapPlan
from covalent_cirro.electron.patience import retry_until_fixed
from covalent_cirro.electron.resume import adoption
from covalent_cirro.electron.reuse import taking
from covalent_cirro.electron.reuse.taking import Taken
from covalent_cirro.errors import AccessDenied, CirroError, LocalFileError, NotFound
from covalent_cirro.jobs import arguments, fargate_texts, image_modules, reuse_texts, states
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.jobs.tags import DISPATCH_TAG, ELECTRON_TAG, LATTICE_TAG, NODE_TAG
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

KeepHandle = Callable[[str, int, JobHandle], Awaitable[None]]
"""``await keep_handle(dispatch_id, node_id, handle)`` has Covalent store the handle of a job."""


async def send(launch: Launch, settings: Settings, task_specs: Sequence[Any], keep_handle: KeepHandle) -> Sent:
    """Store what a task group needs and submit its job, once there is room for it on the server's disk.

    Args:
        launch: The task group.
        settings: Settings of its executor.
        task_specs: Its electrons, as Covalent's ``TaskSpec``.
        keep_handle: Stores the handle of the job.

    Returns:
        What `poll` is given.

    Raises:
        TaskCancelledError: The electrons were cancelled; no job is left.
        CirroError: The job was not submitted, and why.
    """

    def show_problem(words: str) -> None:
        for node_id in launch.node_ids:
            board().show_problem(launch.dispatch_id, node_id, words)

    return await retry_until_fixed(
        f"Dispatch {launch.dispatch_id}, nodes {launch.node_ids}",
        lambda: _send(launch, settings, task_specs, keep_handle),
        errors=LocalFileError,
        then="Nothing was submitted yet; it is as soon as this is put right.",
        on_problem=show_problem,
        on_fixed=lambda: show_problem(""),
        sleep=lambda seconds: launch.unless_cancelled(asyncio.sleep(seconds)),
    )


async def _send(launch: Launch, settings: Settings, task_specs: Sequence[Any], keep_handle: KeepHandle) -> Sent:
    """Do what `send` does, and raise `LocalFileError` where a disk is full. Can be repeated until there is a job."""
    specs = tuple(ElectronSpec(spec.electron_id, spec.args, spec.kwargs) for spec in task_specs)
    given = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(assets.load_group, launch.dispatch_id, launch.node_ids, given)
    if all(node.is_host_node for node in group.nodes.values()):
        return HostNodes(specs)
    return await send_job(launch, settings, group, specs, keep_handle)


async def send_job(
    launch: Launch, settings: Settings, group: Group, specs: Sequence[ElectronSpec], keep_handle: KeepHandle
) -> OwnJob | AdoptedJob | ReusedResults | NoItems:
    """Find the job or the results that the electrons of a task group have already; else submit a job. See `send`."""
    distributed.refuse(settings, specs[0].node_id, electrons=len(specs))
    async with engine_for(settings) as engine, contextlib.AsyncExitStack() as files:
        begun = await _begun(engine, launch, settings, group, keep_handle) if launch.again else None
        if isinstance(begun, (AdoptedJob, ReusedResults)):
            return begun
        if settings.job_properties:
            await definition_body(engine, settings)  # before anything is stored: what cannot work costs nothing then
        plan = None
        if begun is None:
            plan = await files.enter_async_context(inputs.planned(engine, launch, settings, group, specs))
        if plan is not None and not plan.length:
            return NoItems(specs[0].node_id)
        pickled, covalent = await asyncio.gather(pickled_by(group, specs), asyncio.to_thread(assets.check_version))
        allowed = job_check(engine, settings, pickled)

        async def prepare(max_age_s: float, plan: MapPlan | None) -> Written:
            return await prepare_call(
                engine.store,
                settings,
                launch.dispatch_id,
                group,
                specs,
                pickled,
                covalent=covalent,
                allowed=allowed,
                image=functools.partial(
                    engine.images.named, settings.container_image_uri, max_age_s, settings.architecture
                ),
                plan=plan,
                joined=engine.joined,
            )

        prepared = None
        earlier = None
        if begun is None:
            # Covalent itself reuses whole electrons of the dispatch that is repeated, but no items.
            repeated = launch.redispatch_of if plan is not None else None
            # Before anything is stored: an error in the id of the earlier dispatch costs nothing then.
            earlier = await launch.unless_cancelled(taking.earlier_of(engine, settings, repeated))
        if earlier is not None:
            reused = await launch.unless_cancelled(
                taking.reuse(engine, settings, earlier, plan, prepare, group.lattice)
            )
            if isinstance(reused, Taken):
                return _show_reused(launch, reused)
            prepared = reused

        async def store() -> Written:
            if begun is not None:
                return begun
            written = prepared or await prepare(FRESH_S, plan)
            await store_call(engine.store, written, allowed)
            in_image = engine.images.modules(settings.container_image_uri, settings.architecture)
            missing = await missing_modules.find(settings, group, written.call, in_image)
            return written._replace(missing_modules=missing)

        return await _submitted(
            engine, launch, settings, group, store, allowed, keep_handle, asked_before=begun is not None
        )


async def _begun(
    engine: Engine, launch: Launch, settings: Settings, group: Group, keep_handle: KeepHandle
) -> AdoptedJob | ReusedResults | Written | None:
    """What an earlier server did for the electrons before it died: the first step of `send_job`.

    Returns:
        The job, which is adopted; the results of earlier work; a call that is stored and has no job yet; `None`:
        nothing that can be used.
    """
    first = group.nodes[launch.node_ids[0]]
    taken = await launch.unless_cancelled(taking.begun(engine, settings, launch.dispatch_id, first))
    if taken is not None:
        return _show_reused(launch, taken)
    earlier = await launch.unless_cancelled(adoption.find(engine, settings, launch.dispatch_id, first))
    if earlier is None or earlier.job_id is None:
        return earlier.written if earlier is not None else None
    log.info("Job %s of %s is adopted", earlier.job_id or "(ended)", earlier.place.call_uri)
    tried = earlier.written.call.tried if earlier.written is not None else ()
    job = AdoptedJob(earlier.job_id or None, earlier.place.call_uri, tuple(earlier.keys), tried)
    if job.job_id is not None:  # of a job that AWS Batch has forgotten there is nothing to cancel
        await hold(engine, launch, job.job_id, job.call, keep_handle)
    return job


def _show_reused(launch: Launch, taken: Taken) -> ReusedResults:
    taking.show(launch.dispatch_id, launch.node_ids, taken.reused)
    return ReusedResults(taken.place.call_uri)


async def _submitted(
    engine: Engine,
    launch: Launch,
    settings: Settings,
    group: Group,
    store: Callable[[], Awaitable[Written]],
    allowed: Allowed,
    keep_handle: KeepHandle,
    *,
    asked_before: bool,
) -> OwnJob:
    """A job of the electrons' own: the last step of `send_job`.

    Args:
        store: Stores the call.
        allowed: Awaited before a job definition is registered; see `job_check`.
        asked_before: An earlier server may have sent SubmitJob for this call.
    """
    written, definition = await launch.unless_cancelled(
        asyncio.gather(store(), ensure_definition(engine, settings, allowed))
    )
    # From here a job may exist. `submit` is not interrupted; if a cancel came meanwhile, `hold` ends the job.
    job_id = await submit(engine, settings, written, definition, group, asked_before=asked_before)
    await hold(engine, launch, job_id, written.location.call_uri, keep_handle)
    return OwnJob(job_id, written.location.call_uri, written.keys, written.call.tried)


def job_check(engine: Engine, settings: Settings, pickled: Pickled) -> Allowed:
    """Start the check of the job's image, and of its secrets if it has any.

    The check runs while files are read and hashed. A job with a wrong image would be paid for, so that nothing is
    written before the check has ended.

    Returns:
        A function to await before anything is written to AWS; it raises `ImageError` if the image cannot run the job,
        and `SettingsError` if a secret is not there.
    """

    async def both() -> None:
        await asyncio.gather(
            engine.images.require(
                settings.container_image_uri, pickled, settings.architecture, settings.runner_options
            ),
            engine.secrets.require(settings),
        )

    check = asyncio.ensure_future(both())
    check.add_done_callback(
        lambda done: done.cancelled() or done.exception()
    )  # marks an error as seen: the caller may have stopped waiting

    async def allowed() -> None:
        await asyncio.shield(check)

    return allowed


async def ensure_definition(engine: Engine, settings: Settings, allowed: Allowed = everything) -> str:
    """Find or register the job definition for these settings.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        allowed: Awaited before one is registered.

    Returns:
        ``name:revision``.

    Raises:
        SettingsError: See `definition_body`.
    """
    body = await definition_body(engine, settings)
    try:
        return await engine.definitions.ensure(body, allowed)
    except AccessDenied as error:
        if not settings.job_properties.get("privileged"):
            raise
        raise AccessDenied(
            f"{error} The policy SubmitterPolicy of a deployment refuses privileged containers, which are root on "
            'their host (condition batch:Privileged): leave job_properties["privileged"] out, or have an administrator '
            "give the server's user a policy that allows batch:RegisterJobDefinition without that condition.",
            operation=error.operation,
            code=error.code,
        ) from error


async def definition_body(engine: Engine, settings: Settings) -> dict[str, Any]:
    """The body of RegisterJobDefinition for these settings.

    Raises:
        SettingsError: ``job_properties`` cannot work, or the job is for Fargate, and its queue is not.
    """
    container_model.require(settings.job_properties)
    job_role, execution_role = await asyncio.gather(
        engine.role_arn(settings.batch_job_role_name), engine.role_arn(settings.batch_execution_role_name)
    )
    queue = await engine.fargate_queues.of(settings.queue, settings.queue_option) if settings.on_fargate else None
    return build_definition(
        settings,
        region=engine.region,
        job_role_arn=job_role,
        execution_role_arn=execution_role,
        public_ip=queue is not None and queue.public_ip,
    )


async def submit(
    engine: Engine, settings: Settings, written: Written, definition: str, group: Group, *, asked_before: bool = False
) -> str:
    """Submit the job of a call that is stored.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        written: The call.
        definition: ``name:revision`` of the job definition.
        group: The task group.
        asked_before: SubmitJob may have been sent for this call before: then its job is looked for first.

    Returns:
        Batch job id.
    """
    call = written.call
    first = call.tasks[0]
    # DescribeJobs shows them: no command has to read the call for them (docs/decisions/0020).
    shown = {
        ARGUMENTS_PARAMETER: arguments.dump_parameter(first.arguments) if first.arguments else "",
        image_modules.PARAMETER: image_modules.dump_parameter(written.missing_modules),
        fargate_texts.PARAMETER: fargate_texts.raised(settings),
        reuse_texts.PARAMETER: call.not_reused[: reuse_texts.PARAMETER_CHARS],
    }

    for_the_bill: dict[str, str] = {}
    if settings.on_fargate:
        for_the_bill = (await engine.fargate_queues.of(settings.queue, settings.queue_option)).tags

    async def once(revision: str) -> str:
        return await engine.batch.submit(
            Submission(
                name=job_name(first.name, call.dispatch_id, first.node_id, call.call_id),
                queue=settings.queue,
                queue_option=settings.queue_option,
                platform=settings.platform,
                definition=revision,
                parameters={
                    CALL_PARAMETER: call_argument(written.location, secrets.token_hex(16)),
                    **{name: value for name, value in shown.items() if value},
                },
                attempts=settings.attempts,
                timeout_s=settings.time_limit,
                array_size=len(first.mapped.children) if first.mapped is not None else 1,
                share=settings.share_identifier or "",
                priority=settings.scheduling_priority,
                propagate_tags=settings.propagate_tags,
                tags={
                    **for_the_bill,
                    **settings.tags,
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
        # The revision was deregistered since it was looked up.
        engine.definitions.forget(definition)
        return await once(await ensure_definition(engine, settings))


async def hold(engine: Engine, launch: Launch, job_id: str, call: str, keep_handle: KeepHandle) -> None:
    """Store the handle of a job, so that a cancel finds the job; if a cancel came before, end the job.

    Raises:
        TaskCancelledError: A cancel came before.
    """
    launch.job_id = job_id
    await keep_handle(launch.dispatch_id, launch.node_ids[0], JobHandle(job_id, call, engine.region))
    if launch.cancelled:
        await terminate(engine, job_id, launch.dispatch_id)
        raise TaskCancelledError(f"AWS Batch job {job_id} was cancelled while it was submitted")


async def cancel(settings: Settings, task_metadata: dict[str, Any], job_handle: Any) -> bool:
    """Cancel an electron; see `CirroBatchExecutor.cancel`."""
    dispatch_id, node_id = task_metadata["dispatch_id"], task_metadata["node_id"]
    launch = find(dispatch_id, node_id)
    handle = load_handle(job_handle)
    job_id = handle.job_id if handle is not None else None
    if launch is not None:
        launch.cancel()
        if launch.job_id is None:
            return True
        job_id = launch.job_id
    elif is_expected(dispatch_id, node_id):
        return await _cancel_earlier(settings, dispatch_id, node_id)
    if job_id is None:
        return False
    async with engine_for(settings) as engine:
        await terminate(engine, job_id, dispatch_id)
    return True


async def _cancel_earlier(settings: Settings, dispatch_id: str, node_id: int) -> bool:
    """Cancel the job that an earlier server submitted, also if Covalent did not store its handle."""
    group = await asyncio.to_thread(assets.load_group, dispatch_id, [node_id], ())
    async with engine_for(settings) as engine:
        earlier = await adoption.find(engine, settings, dispatch_id, group.nodes[node_id])
        if earlier is None or not earlier.job_id:
            return False
        await terminate(engine, earlier.job_id, dispatch_id)
    return True


async def terminate(engine: Engine, job_id: str, dispatch_id: str) -> None:
    """Ask AWS Batch to end a job of a dispatch that is cancelled."""
    # All jobs of a dispatch have the same reason, so that the same calls can end them.
    await engine.stops.end(job_id, f"{states.CANCEL_REASON} (dispatch {dispatch_id})")


@contextlib.asynccontextmanager
async def engine_for(settings: Settings) -> AsyncIterator[Engine]:
    """The engine for these settings. An engine whose credentials AWS refused is not used again."""
    engine = await engine_of(access_of(settings))
    try:
        with engine.in_use():
            yield engine
    except CirroError as error:
        if isinstance(error, AccessDenied) or isinstance(error.__cause__, AccessDenied):
            retire(engine)
        raise
