"""Waits for the job of a task group, and for the jobs of further tries. What `CirroBatchExecutor.poll` does.

`jobs/further_tries.py` decides whether a further try is made. Results are fetched by `receive.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from covalent._shared_files import TaskCancelledError

from covalent_cirro.aws.blob_objects import REFRESH_AFTER_S
from covalent_cirro.contract.places import parse_call_uri
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group, StatusChange
from covalent_cirro.covalent_server.status_board import board
from covalent_cirro.electron import cache_folder, host_failures, host_jobs, host_nodes, stored_inputs
from covalent_cirro.electron.call_writer import ElectronSpec, Written, put_call, read_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.handover import (
    AdoptedJob,
    EndedHostNodes,
    EndedJob,
    HostNodes,
    NoItems,
    OwnJob,
    Polled,
    ReusedResults,
    Sent,
)
from covalent_cirro.electron.host_nodes import NeedsJob
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.maps import map_tries
from covalent_cirro.electron.patience import retry_until_fixed
from covalent_cirro.electron.progress import Progress
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.electron.send import KeepHandle, engine_for, ensure_definition, hold, submit, terminate
from covalent_cirro.errors import CirroError, JobLost, LocalFileError, NotFound, OutcomeError, Unsigned
from covalent_cirro.jobs import further_tries, states
from covalent_cirro.jobs.further_tries import NextTry
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


Job: TypeAlias = OwnJob | AdoptedJob

Watching: TypeAlias = Callable[[Job], AbstractAsyncContextManager[Callable[[JobDetail], None]]]
"""``async with watching(job) as saw``: ``saw(detail)`` is called with each change of the job until it has ended."""


async def poll(launch: Launch, settings: Settings, sent: Sent, keep_handle: KeepHandle) -> Polled:
    """Wait until a task group has ended: run Covalent's own nodes, or wait for the job and those of further tries.

    Args:
        launch: The task group.
        settings: Settings of its executor.
        sent: What `send.send` returned.
        keep_handle: Stores the handle of each further job.

    Returns:
        What `receive` is given.

    Raises:
        TaskCancelledError: The task group was cancelled.
    """
    what = f"Dispatch {launch.dispatch_id}, nodes {launch.node_ids}"
    if isinstance(sent, HostNodes):
        specs = sent.specs
        settings, done = await retry_until_fixed(
            what,
            lambda: _on_host(launch, settings, specs, keep_handle),
            errors=LocalFileError,
            then="It goes on as soon as this is put right.",
            sleep=lambda seconds: launch.unless_cancelled(asyncio.sleep(seconds)),
        )
        if isinstance(done, EndedHostNodes):
            await host_failures.keep(settings, launch.dispatch_id, done.ends)
            return done
        sent = done
    if isinstance(sent, NoItems):
        return await host_nodes.without_items(launch, sent.node_id)
    if isinstance(sent, ReusedResults):
        if launch.cancelled:
            raise TaskCancelledError(f"Cancelled before its results were reused (dispatch {launch.dispatch_id})")
        return sent
    job = sent

    def show_problem(words: str) -> None:
        for node_id in launch.node_ids:
            board().show_panel(launch.dispatch_id, node_id, {"problem": words})

    return await retry_until_fixed(
        what,
        lambda: _wait_for_all(launch, settings, job, keep_handle),
        on_problem=show_problem,
    )


async def _on_host(
    launch: Launch, settings: Settings, specs: Sequence[ElectronSpec], keep_handle: KeepHandle
) -> tuple[Settings, EndedHostNodes | Job | ReusedResults | NoItems]:
    """Run Covalent's own nodes on this host, or submit a job for what only a job can do.

    Returns:
        The settings of the executor that was used, and how the nodes ended or the job.
    """
    done = await host_nodes.run(launch, specs, await asyncio.to_thread(cache_folder.scratch, settings.cache_dir))
    if isinstance(done, NeedsJob):
        return await host_jobs.send(launch, settings, specs, done, keep_handle)
    return settings, done


async def _wait_for_all(launch: Launch, settings: Settings, job: Job, keep_handle: KeepHandle) -> EndedJob:
    """Wait for a job and for those of further tries, and show them in the UI. Can be repeated with the same job."""
    async with engine_for(settings) as engine:
        if launch.cancelled and launch.job_id:  # AWS did not take the cancel then
            await terminate(engine, launch.job_id, launch.dispatch_id)

        def group() -> Group:
            return assets.load_group(launch.dispatch_id, launch.node_ids, ())

        @contextlib.asynccontextmanager
        async def shown(job: Job) -> AsyncIterator[Callable[[JobDetail], None]]:
            for node_id in launch.node_ids:
                board().show(StatusChange(launch.dispatch_id, node_id, "STARTING", None))
            tried = further_tries.summary(job.tried)
            async with Progress(engine, launch.dispatch_id, launch.node_ids, job.call, tried) as progress:
                yield progress.saw

        async with stored_inputs.kept_for_dispatch(engine, settings, launch.dispatch_id):
            return await until_ended(engine, launch, settings, job, shown, group, keep_handle)


async def until_ended(
    engine: Engine,
    launch: Launch,
    settings: Settings,
    job: Job,
    watching: Watching,
    group: Callable[[], Group],
    keep_handle: KeepHandle,
) -> EndedJob:
    """Wait for a job; while it comes to nothing and a further try may help, submit one and wait for its job.

    Can be repeated with the same first job: it comes to the same further calls, and finds their jobs.

    Args:
        engine: The account's.
        launch: The task group.
        settings: Settings of its executor.
        job: The first job.
        watching: Shows how a job gets on.
        group: Loads the task group; called in a thread.
        keep_handle: Stores the handle of each further job.

    Raises:
        TaskCancelledError: A job was cancelled by us, or the task group was while its next job was submitted.
        asyncio.CancelledError: Nobody waits any more. A job that was being submitted is ended; the last one is not.
    """
    while True:
        detail = await _wait(engine, settings, job, watching)
        if detail is None:
            return EndedJob(job.call, job.job_id or "", tried=len(job.tried), forgotten=True)
        if states.was_cancelled_by_us(detail):
            raise TaskCancelledError(f"AWS Batch job {detail.job_id} was cancelled: {detail.status_reason}")
        trying = asyncio.ensure_future(try_again(engine, launch, settings, job, detail, group, keep_handle))
        try:
            again, refused = await asyncio.shield(trying)
        except asyncio.CancelledError:
            launch.cancel()  # `hold` ends a job that is being submitted
            await asyncio.gather(trying, return_exceptions=True)
            raise
        if again is None:
            return EndedJob(job.call, detail.job_id, detail, len(job.tried), not_again=refused)
        job = again


async def _wait(engine: Engine, settings: Settings, job: Job, watching: Watching) -> JobDetail | None:
    """Wait for one job; `None`: AWS Batch does not know it any more."""
    async with (
        watching(job) as saw,
        _kept_alive(engine, settings.s3_bucket_name, job.keys),
        _stopped_at_failure(engine, settings) as also_saw,
    ):
        if job.job_id is None:
            return None

        def changed(detail: JobDetail) -> None:
            saw(detail)
            also_saw(detail)

        try:
            detail = await engine.watcher.wait(job.job_id, ceiling_s=settings.poll_freq, on_state=changed)
        except JobLost:
            # A server that was away for longer than AWS Batch keeps jobs: what lies in S3 is the truth.
            return None
        saw(detail)
    return detail


async def try_again(
    engine: Engine,
    launch: Launch,
    settings: Settings,
    job: Job,
    detail: JobDetail,
    group: Callable[[], Group],
    keep_handle: KeepHandle,
) -> tuple[OwnJob | None, str]:
    """Submit the electrons of a failed job again, if more memory or another queue helps (`further_tries.next_try`).

    The server can end at any point of this: the next server decides the same, writes the same call, and finds the job
    by its name if there is one.

    Args:
        engine: The account's.
        launch: The task group.
        settings: Settings of its executor.
        job: The job that failed.
        detail: The job as DescribeJobs showed it after its end.
        group: Loads the task group; called in a thread.
        keep_handle: Stores the handle of the new job.

    Returns:
        The new job, or `None`; and why there is no new job although there should be one, mostly empty.

    Raises:
        TaskCancelledError: The task group was cancelled meanwhile; no job is left.
        Unsigned: AWS accepts no call of ours. Call this function again.
    """
    if not further_tries.may_help(detail, settings):
        return None, ""
    place = parse_call_uri(job.call)
    try:
        outcome = await read_outcome(engine.store, engine.batch.job, place, detail)
    except OutcomeError:  # `receive` raises it
        return None, ""
    further = further_tries.next_try(further_tries.evidence_of(detail, outcome), settings, place.call_id)
    try:
        earlier = await read_call(engine.store, place) if further is not None or detail.array_size else None
        if earlier is not None and earlier.call.tasks[0].mapped is not None:
            further, earlier = await _next_map(engine, settings, earlier, detail)
    except Unsigned:
        raise
    except CirroError as error:
        return None, f"It is not known whether a further try would help, since AWS could not be asked: {error}"
    if further is None:
        return None, ""
    of = f"dispatch {launch.dispatch_id}, node {launch.node_ids[0]}"
    happened, then = further_tries.what_happened(further.tried), further_tries.what_next(further.tried)
    try:
        if earlier is None:
            raise NotFound(f"{place.call_uri} cannot be read any more", operation="s3:GetObject", code="NoSuchKey")
        call = further_tries.next_call(earlier.call, further.tried)
        here = place.sibling(call.call_id)
        written = Written(here, call, (here.call_key, *earlier.keys[1:]))
        _, definition, electrons = await launch.unless_cancelled(
            asyncio.gather(
                put_call(engine.store, written),
                ensure_definition(engine, further.settings),
                asyncio.to_thread(group),
            )
        )
        job_id = await submit(engine, further.settings, written, definition, electrons, asked_before=True)
    except Unsigned:
        raise
    except CirroError as error:
        log.error("The electron of %s %s. It could not be submitted again with %s: %s", of, happened, then, error)
        return None, f"It was to be submitted again with {then}, but could not be: {error}"
    log.warning("The electron of %s %s. It was submitted again with %s as job %s.", of, happened, then, job_id)
    await hold(engine, launch, job_id, here.call_uri, keep_handle)
    return OwnJob(job_id, here.call_uri, written.keys, call.tried), ""


async def _next_map(
    engine: Engine, settings: Settings, written: Written, detail: JobDetail
) -> tuple[NextTry | None, Written]:
    """The next try of a map, and the call with what is left of it."""
    found = await map_tries.next_map(engine, settings, written.location, written.call, detail)
    if found is None:
        return None, written
    (task,) = written.call.tasks
    return found.further, written._replace(call=written.call._replace(tasks=(task._replace(mapped=found.mapped),)))


@contextlib.asynccontextmanager
async def _stopped_at_failure(engine: Engine, settings: Settings) -> AsyncIterator[Callable[[JobDetail], None]]:
    """End an array job as soon as one of its jobs has failed, if the option ``on_error`` says so.

    Yields:
        A function to be called with each change of the job.
    """
    ending: list[asyncio.Task[None]] = []

    def saw(detail: JobDetail) -> None:
        failed = detail.children_in(states.JobState.FAILED.value)
        if failed and not ending and settings.on_error == "stop" and not detail.is_terminal:
            ending.append(asyncio.create_task(engine.stops.end(detail.job_id, states.ITEM_FAILED_REASON)))

    yield saw
    for error in await asyncio.gather(*ending, return_exceptions=True):
        if isinstance(error, BaseException):
            log.warning("An item failed. The other jobs could not be ended, and ran to their end: %s", error)


@contextlib.asynccontextmanager
async def _kept_alive(engine: Engine, bucket: str, keys: Sequence[str]) -> AsyncIterator[None]:
    """Renew the objects that a job needs while it waits: after days, the bucket's lifecycle would delete them."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(REFRESH_AFTER_S / 2)
            await asyncio.gather(*(engine.store.renew(bucket, key) for key in keys), return_exceptions=True)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
