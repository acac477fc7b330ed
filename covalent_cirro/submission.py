"""The way there: from a task group to a job that has ended. What `CirroBatchExecutor.send`, `poll` and `cancel` do.

Everything between the first byte up and the job's end can be cancelled, at every await.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from covalent._shared_files import TaskCancelledError

from covalent_cirro import covalent_assets, host_nodes, jobs
from covalent_cirro.aws import access_of
from covalent_cirro.batch import Submission, job_name, tag_value
from covalent_cirro.calls import Spec, Written, pickled_by, write_call
from covalent_cirro.covalent_assets import Group, StatusChange
from covalent_cirro.definitions import Allowed, build_definition, everything
from covalent_cirro.engine import Engine, engine_of, retire
from covalent_cirro.errors import AccessDenied, NotFound
from covalent_cirro.image_rules import Pickled
from covalent_cirro.jobs import JobDetail
from covalent_cirro.launches import Launch, find
from covalent_cirro.protocol import CALL_PARAMETER
from covalent_cirro.settings import Settings
from covalent_cirro.status_board import board, status_of
from covalent_cirro.store import REFRESH_AFTER_S

HANDLE_FORMAT = 1

KeepHandle = Callable[[str, int, dict[str, Any]], Awaitable[None]]


async def send(launch: Launch, settings: Settings, task_specs: Sequence[Any], keep_handle: KeepHandle) -> Any:
    """Store what a task group needs and submit its job.

    Returns:
        What `poll` is given: ``{"job_id", "call", "keys"}``, or ``{"host": [...]}`` for Covalent's own nodes.
    """
    specs = [Spec(spec.electron_id, spec.args, spec.kwargs) for spec in task_specs]
    inputs = [node_id for spec in specs for node_id in (*spec.args, *spec.kwargs.values())]
    group = await asyncio.to_thread(covalent_assets.load_group, launch.dispatch_id, launch.node_ids, inputs)
    if all(node.is_host_node for node in group.nodes.values()):
        return {"host": [[spec.node_id, list(spec.args), dict(spec.kwargs)] for spec in specs]}
    async with engine_for(settings) as engine:
        pickled, covalent = await asyncio.gather(
            pickled_by(group, specs), asyncio.to_thread(covalent_assets.check_version)
        )
        allowed = image_check(engine, settings, pickled)
        written, definition = await launch.unless_cancelled(
            asyncio.gather(
                write_call(
                    engine.store,
                    settings,
                    launch.dispatch_id,
                    group,
                    specs,
                    pickled,
                    covalent=covalent,
                    allowed=allowed,
                ),
                ensure_definition(engine, settings, allowed),
            )
        )
        # From here a job may exist: it is submitted whole, and ended if a cancel came meanwhile.
        job_id = await submit(engine, settings, written, definition, group)
        launch.job = (engine, job_id)
        await keep_handle(
            launch.dispatch_id,
            launch.node_ids[0],
            {"format": HANDLE_FORMAT, "job_id": job_id, "call": written.location.call_uri, "region": engine.region},
        )
        if launch.cancelled:
            await _terminate(engine, job_id, launch.dispatch_id, launch.node_ids[0])
            raise TaskCancelledError(f"AWS Batch job {job_id} was cancelled while it was submitted")
    return {"job_id": job_id, "call": written.location.call_uri, "keys": list(written.keys)}


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


async def submit(engine: Engine, settings: Settings, written: Written, definition: str, group: Group) -> str:
    """Submit the job of a call that is stored, and give its id."""
    call = written.call
    first = call.tasks[0]

    async def once(revision: str) -> str:
        return await engine.batch.submit(
            Submission(
                name=job_name(first.name, call.dispatch_id, first.node_id, call.call_id),
                queue=settings.queue,
                queue_option=settings.queue_option,
                definition=revision,
                parameters={CALL_PARAMETER: written.location.call_uri},
                attempts=settings.attempts,
                timeout_s=settings.time_limit,
                tags={
                    "covalent:dispatch": tag_value(call.dispatch_id),
                    "covalent:lattice": tag_value(group.lattice or "-"),
                    "covalent:electron": tag_value(first.name or "-"),
                    "covalent:node": str(first.node_id),
                },
            )
        )

    try:
        return await once(definition)
    except NotFound:
        # Somebody deregistered the revision since it was looked up.
        engine.definitions.forget(definition)
        return await once(await ensure_definition(engine, settings))


async def poll(launch: Launch, settings: Settings, data: Any) -> Any:
    """Wait for the job of a task group, showing whether it waits or runs.

    Returns:
        What `receive` is given: ``{"call", "job_id", "why", "log_stream", "started_at"}``, or what the host nodes gave.

    Raises:
        TaskCancelledError: It was cancelled.
    """
    if "host" in data:
        return await host_nodes.run(launch, [Spec(*spec) for spec in data["host"]], settings.cache_dir)
    async with engine_for(settings) as engine:
        _show(launch, "STARTING")
        async with _kept_alive(engine, settings.s3_bucket_name, data["keys"]):
            detail = await engine.watcher.wait(
                data["job_id"],
                ceiling_s=settings.poll_freq,
                on_state=lambda now: _show(launch, status_of(now), now.started_at),
            )
    board().drop(launch.dispatch_id, launch.node_ids)
    if jobs.was_cancelled_by_us(detail):
        raise TaskCancelledError(f"AWS Batch job {detail.job_id} was cancelled: {detail.status_reason}")
    return {"call": data["call"], **ending(detail, settings)}


def ending(detail: JobDetail, settings: Settings) -> dict[str, Any]:
    """What is worth knowing of a job that has ended, in plain JSON."""
    asked = jobs.Asked(
        memory_gb=settings.memory,
        time_limit_s=settings.time_limit,
        attempts=settings.attempts,
        image=settings.container_image_uri,
        log_group=settings.batch_job_log_group_name,
    )
    failed = detail.state == jobs.JobState.FAILED.value
    return {
        "job_id": detail.job_id,
        "why": jobs.explain_failure(detail, asked) if failed else "",
        "log_stream": detail.log_stream,
        "started_at": detail.started_at,
    }


async def cancel(settings: Settings, task_metadata: dict[str, Any], job_handle: Any) -> bool:
    """End what is under way for an electron; see `CirroBatchExecutor.cancel`."""
    dispatch_id, node_id = task_metadata["dispatch_id"], task_metadata["node_id"]
    launch = find(dispatch_id, node_id)
    job_id = job_handle.get("job_id") if isinstance(job_handle, dict) else job_handle
    if launch is not None:
        launch.cancel()
        if launch.job is not None:
            await _terminate(*launch.job, dispatch_id, node_id)
        return True
    if not isinstance(job_id, str) or not job_id:
        return False
    async with engine_for(settings) as engine:
        await _terminate(engine, job_id, dispatch_id, node_id)
    return True


async def _terminate(engine: Engine, job_id: str, dispatch_id: str, node_id: int) -> None:
    await engine.batch.terminate(job_id, f"{jobs.CANCEL_REASON} (dispatch {dispatch_id}, node {node_id})")


def _show(launch: Launch, status: str, started_at: float | None = None) -> None:
    for node_id in launch.node_ids:
        board().show(StatusChange(launch.dispatch_id, node_id, status, started_at))


@contextlib.asynccontextmanager
async def engine_for(settings: Settings) -> AsyncIterator[Engine]:
    """The engine for these settings. One whose credentials AWS refused is not used again."""
    engine = await engine_of(access_of(settings))
    try:
        yield engine
    except AccessDenied:
        retire(engine)
        raise


@contextlib.asynccontextmanager
async def _kept_alive(engine: Engine, bucket: str, keys: Sequence[str]) -> AsyncIterator[None]:
    """Renew what a job needs while it waits, should that take days: the bucket's lifecycle must not win."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(REFRESH_AFTER_S / 2)
            await asyncio.gather(*(engine.store.renew(bucket, key) for key in keys), return_exceptions=True)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
