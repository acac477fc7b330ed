"""The wait: from a submitted job to how it ended, further tries included. What `CirroBatchExecutor.poll` does.

What a job's end means for another try is `jobs/further_tries.py`'s to say; results are not fetched here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from covalent._shared_files import TaskCancelledError

from covalent_cirro.aws.store import REFRESH_AFTER_S
from covalent_cirro.contract.documents import dump_call
from covalent_cirro.contract.protocol import Location, Tried, parse_call_uri
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group, StatusChange
from covalent_cirro.covalent_server.status_board import board
from covalent_cirro.electron import cache_folder, host_failures, host_jobs, host_nodes
from covalent_cirro.electron.call_writer import ElectronSpec, Written
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.host_nodes import Elsewhere
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.patience import until_mended
from covalent_cirro.electron.progress import Progress
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.electron.resume import adoption
from covalent_cirro.electron.send import KeepHandle, engine_for, ensure_definition, hold, submit, terminate
from covalent_cirro.errors import CirroError, JobLost, LocalFileError, NotFound, OutcomeError, Unsigned
from covalent_cirro.jobs import further_tries, states
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


class Submitted(NamedTuple):
    """A job that is waited for.

    Attributes:
        job_id: Its id; empty where AWS Batch has forgotten it.
        call: URI of its call.
        keys: What must not expire while it waits.
        tried: Earlier tries.
    """

    job_id: str
    call: str
    keys: tuple[str, ...]
    tried: tuple[Tried, ...] = ()


async def poll(launch: Launch, settings: Settings, data: Any, keep_handle: KeepHandle) -> Any:
    """Wait for the job of a task group, showing whether it waits or runs, and for those of further tries.

    Returns:
        What `receive` is given: the call and `ending`, or what the host nodes gave.

    Raises:
        TaskCancelledError: It was cancelled.
    """
    what = f"Dispatch {launch.dispatch_id}, nodes {launch.node_ids}"
    if "host" in data:
        settings, data = await until_mended(
            what,
            lambda: _on_host(launch, settings, [ElectronSpec(*spec) for spec in data["host"]], keep_handle),
            of=LocalFileError,
            then="It goes on as soon as this is put right.",
            sleep=lambda seconds: launch.unless_cancelled(asyncio.sleep(seconds)),
        )
        if "host" in data:
            await host_failures.keep(settings, launch.dispatch_id, data["host"])
            return data
    if data.get("reused"):
        if launch.cancelled:
            raise TaskCancelledError(f"Cancelled before its results were reused (dispatch {launch.dispatch_id})")
        return data

    def tell(words: str) -> None:
        for node_id in launch.node_ids:
            board().show_panel(launch.dispatch_id, node_id, {"problem": words})

    return await until_mended(
        what,
        lambda: _wait_for_all(launch, settings, data, keep_handle),
        tell=tell,
    )


async def _on_host(
    launch: Launch, settings: Settings, specs: Sequence[ElectronSpec], keep_handle: KeepHandle
) -> tuple[Settings, dict[str, Any]]:
    """Run host nodes, or submit a job for what only a job can do; gives the settings and the data of either."""
    done = await host_nodes.run(launch, specs, await asyncio.to_thread(cache_folder.scratch, settings.cache_dir))
    if isinstance(done, Elsewhere):
        return await host_jobs.send(launch, settings, specs, done, keep_handle)
    return settings, done


async def _wait_for_all(launch: Launch, settings: Settings, data: Any, keep_handle: KeepHandle) -> Any:
    """Wait for a job and for those of further tries. May be begun again from the same ``data`` at any time."""
    async with engine_for(settings) as engine:
        if launch.cancelled and launch.job_id:  # AWS did not take it then
            await terminate(engine, launch.job_id, launch.dispatch_id)
        job = Submitted(data["job_id"], data["call"], tuple(data["keys"]))
        if data.get("tried"):
            job = job._replace(tried=await tried_before(engine, parse_call_uri(job.call)))

        def group() -> Group:
            return assets.load_group(launch.dispatch_id, launch.node_ids, ())

        while True:
            detail = await _wait(engine, launch, settings, job)
            if detail is None:
                return {"call": job.call, "job_id": job.job_id, "tried": len(job.tried), "gone": True}
            if states.was_cancelled_by_us(detail):
                raise TaskCancelledError(f"AWS Batch job {detail.job_id} was cancelled: {detail.status_reason}")
            again, refused = await try_again(engine, launch, settings, job, detail, group, keep_handle)
            if again is None:
                return {"call": job.call, "tried": len(job.tried), "not_again": refused, **ending(detail, settings)}
            job = again


async def _wait(engine: Engine, launch: Launch, settings: Settings, job: Submitted) -> JobDetail | None:
    """Wait for a job, telling how it gets on; `None`: AWS Batch does not know it any more."""
    _show(launch, "STARTING")
    async with (
        Progress(engine, launch.dispatch_id, launch.node_ids, job.call, further_tries.summary(job.tried)) as progress,
        _kept_alive(engine, settings.s3_bucket_name, job.keys),
    ):
        try:
            if not job.job_id:
                raise JobLost(f"AWS Batch does not know the job of {job.call} any more")
            detail = await engine.watcher.wait(job.job_id, ceiling_s=settings.poll_freq, on_state=progress.saw)
            progress.saw(detail)
        except JobLost:
            # A server that was away for longer than AWS Batch keeps jobs: what lies in S3 is the truth.
            return None
    return detail


async def try_again(
    engine: Engine,
    launch: Launch,
    settings: Settings,
    job: Submitted,
    detail: JobDetail,
    group: Callable[[], Group],
    keep_handle: KeepHandle,
) -> tuple[Submitted | None, str]:
    """Submit once more what a job came to nothing with, if more memory or another queue helps.

    What helps is for `further_tries.next_try` to say.

    A server may die at any point of it: the next one decides the same, writes the same call, and finds the job by its
    name if there is one.

    Args:
        job: The job.
        detail: How it ended.
        group: Its electrons' task group; called in a thread.

    Returns:
        The next job, or `None`; and why there is none although there should be, mostly empty.

    Raises:
        TaskCancelledError: Its end was asked for meanwhile; no job is left.
        Unsigned: AWS takes no call of ours; to be begun again.
    """
    if not further_tries.may_help(detail, settings):
        return None, ""
    place = parse_call_uri(job.call)
    try:
        outcome = await read_outcome(engine.store, engine.batch.job, place, detail)
    except OutcomeError:  # `receive` tells of it
        return None, ""
    further = further_tries.next_try(further_tries.evidence_of(detail, outcome), settings, place.call_id)
    if further is None:
        return None, ""
    of = f"dispatch {launch.dispatch_id}, node {launch.node_ids[0]}"
    happened, then = further_tries.what_happened(further.tried), further_tries.what_next(further.tried)
    try:
        earlier = await adoption.read(engine, place)
        if earlier is None:
            raise NotFound(f"{place.call_uri} cannot be read any more", operation="s3:GetObject", code="NoSuchKey")
        call = further_tries.next_call(earlier.call, further.tried)
        here = place.sibling(call.call_id)
        written = Written(here, call, (here.call_key, *earlier.keys[1:]))
        _, definition, electrons = await launch.unless_cancelled(
            asyncio.gather(
                engine.store.put_document(here.bucket, here.call_key, dump_call(call)),
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
    log.warning("The electron of %s %s; submitted again with %s as job %s", of, happened, then, job_id)
    await hold(engine, launch, job_id, here.call_uri, keep_handle)
    return Submitted(job_id, here.call_uri, written.keys, call.tried), ""


async def tried_before(engine: Engine, place: Location) -> tuple[Tried, ...]:
    """The earlier tries of a call; none where it cannot be read any more."""
    written = await adoption.read(engine, place)
    return written.call.tried if written is not None else ()


def ending(detail: JobDetail, settings: Settings) -> dict[str, Any]:
    """What is worth knowing of a job that has ended, in plain JSON."""
    return {"job_id": detail.job_id, "started_at": detail.started_at, "job": states.dump_detail(detail)}


def _show(launch: Launch, status: str, started_at: float | None = None) -> None:
    for node_id in launch.node_ids:
        board().show(StatusChange(launch.dispatch_id, node_id, status, started_at))


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
