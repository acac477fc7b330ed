"""An electron without a Covalent server: what the stock class's own methods do, through the same engine.

The result is unpickled in the caller's process, which asked for it; Covalent's server never comes here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle

from covalent_cirro.contract import tobj
from covalent_cirro.contract.documents import parse_call
from covalent_cirro.contract.protocol import MAX_DOCUMENT_BYTES, Call, Location, node_base
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import cache_folder
from covalent_cirro.electron.call_writer import ElectronSpec, Written, pickled_by, write_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.patience import until_mended
from covalent_cirro.electron.poll import Submitted, ending, try_again
from covalent_cirro.electron.progress import explain_wait, since
from covalent_cirro.electron.receive import write_ends
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.electron.send import cancel as cancel_submitted
from covalent_cirro.electron.send import engine_for, ensure_definition, image_check
from covalent_cirro.electron.send import submit as submit_call
from covalent_cirro.errors import JobLost, NotFound
from covalent_cirro.jobs import states
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


class EndedJob(NamedTuple):
    """A job that has ended."""

    cancelled: bool
    data: dict[str, Any]
    detail: JobDetail | None = None


class Found(NamedTuple):
    """What an electron left. ``error`` is empty if it returned."""

    value: Any
    stdout: str
    stderr: str
    error: str


async def upload(
    settings: Settings, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """Pickle a function and its arguments and store them as a call."""
    dispatch_id, node_id = str(metadata["dispatch_id"]), int(metadata["node_id"])
    if settings.reuse_from:
        log.warning("reuse_from=%r is for dispatches; what is run directly is computed", settings.reuse_from)
    async with engine_for(settings) as engine:
        with tempfile.TemporaryDirectory(dir=cache_folder.scratch(settings.cache_dir)) as folder:
            paths = await asyncio.to_thread(_pickle, folder, function, [*args, *kwargs.values()])
            # Inputs are numbered from the one after the electron, as if they were nodes of its dispatch.
            first = node_id + 1
            node = Node(0, node_id, getattr(function, "__name__", "function"), {"function": paths[0]})
            group = Group(
                nodes={node_id: node},
                inputs=dict(enumerate(paths[1:], first)),
                lattice="",
                python=platform.python_version(),
                covalent="",
            )
            spec = ElectronSpec(
                node_id,
                list(range(first, first + len(args))),
                dict(zip(kwargs, range(first + len(args), first + len(args) + len(kwargs)), strict=True)),
            )
            pickled = await pickled_by(group, [spec])
            await write_call(
                engine.store,
                settings,
                dispatch_id,
                group,
                [spec],
                pickled,
                covalent="0.240.0",
                allowed=image_check(engine, settings, pickled),
                image=functools.partial(engine.images.named, settings.container_image_uri),
            )


def _pickle(folder: str, function: Callable[..., Any], values: list[Any]) -> list[str]:
    paths = []
    fields = tobj.header_fields("", "", platform.python_version(), cloudpickle.__version__)
    for index, value in enumerate((function, *values)):
        path = os.path.join(folder, f"{index}.tobj")
        with open(path, "wb") as file:
            writer = tobj.Writer(file, fields, b"")
            cloudpickle.dump(value, writer)
            writer.close()
        paths.append(path)
    return paths


async def submit(settings: Settings, metadata: dict[str, Any]) -> str:
    """Submit the newest call of an electron, and give the job's id."""
    async with engine_for(settings) as engine:
        place, definition = await asyncio.gather(
            _newest(engine, settings, metadata), ensure_definition(engine, settings)
        )
        call = await _call(engine, place)
        await engine.images.require(settings.container_image_uri, Pickled(call.python, call.cloudpickle))
        return await submit_call(engine, settings, Written(place, call, ()), definition, _no_group())


async def wait(settings: Settings, job_id: str, metadata: dict[str, Any] | None = None) -> EndedJob:
    """Wait for a job.

    Args:
        metadata: Of its electron, which is submitted again where that helps (`poll.try_again`); `None`: never.

    Raises:
        TaskCancelledError: It was cancelled between two tries.
    """
    if metadata is None:
        return await until_mended(f"Job {job_id}", lambda: _wait_for_one(settings, job_id))
    launch = Launch(str(metadata["dispatch_id"]), [metadata["node_id"]])
    launch.job_id = job_id
    try:
        return await until_mended(f"Job {job_id}", lambda: _wait_for_tries(launch, settings, metadata))
    except asyncio.CancelledError:
        # Who waits has ended the first job, and knows of no other.
        await cancel_submitted(settings, metadata, launch.job_id)
        raise
    finally:
        launch.close()


async def _wait_for_one(settings: Settings, job_id: str) -> EndedJob:
    async with engine_for(settings) as engine:
        return await _wait_for_job(engine, settings, job_id)


async def _wait_for_job(engine: Engine, settings: Settings, job_id: str) -> EndedJob:
    try:
        detail = await engine.watcher.wait(
            job_id,
            ceiling_s=settings.poll_freq,
            on_state=lambda now: explain_wait(engine, now, since(now, time.time())),
        )
    except JobLost:
        return EndedJob(False, {"job_id": job_id, "gone": True})
    finally:
        engine.waits.leave(job_id)
    return EndedJob(states.was_cancelled_by_us(detail), ending(detail, settings), detail)


async def _wait_for_tries(launch: Launch, settings: Settings, metadata: dict[str, Any]) -> EndedJob:
    """Wait for the job of a launch and those of further tries. May be begun again at any time."""
    async with engine_for(settings) as engine:
        place = await _newest(engine, settings, metadata)
        job = Submitted(launch.job_id or "", place.call_uri, ())
        while True:
            ended = await _wait_for_job(engine, settings, job.job_id)
            ended.data["tried"] = len(job.tried)
            if ended.cancelled or ended.detail is None:
                return ended
            trying = asyncio.ensure_future(
                try_again(engine, launch, settings, job, ended.detail, _no_group, _no_handle)
            )
            try:
                again, ended.data["not_again"] = await asyncio.shield(trying)
            except asyncio.CancelledError:
                launch.cancel()  # a job that is being submitted is ended as soon as it is known
                await asyncio.gather(trying, return_exceptions=True)
                raise
            if again is None:
                return ended
            job = again


def _no_group() -> Group:
    return Group(nodes={}, inputs={}, lattice="", python="", covalent="")


async def _no_handle(dispatch_id: str, node_id: int, handle: dict[str, Any]) -> None:
    """Nobody keeps one."""


async def status(settings: Settings, job_id: str) -> tuple[str, int]:
    """A job's status in AWS's words, and its exit code or -1."""
    async with engine_for(settings) as engine:
        found = await engine.batch.describe([job_id])
    if not found:
        raise NotFound(
            f"AWS Batch does not know job {job_id}. It keeps ended jobs for at least 7 days.",
            operation="batch:DescribeJobs",
            code="missing",
        )
    return found[0].state, -1 if found[0].exit_code is None else found[0].exit_code


async def result(settings: Settings, metadata: dict[str, Any], ended: EndedJob | None) -> Found:
    """Fetch and unpickle what the newest call of an electron left."""
    node_id = int(metadata["node_id"])
    async with engine_for(settings) as engine:
        place = await _newest(engine, settings, metadata)
        if ended is None and await read_outcome(engine.store, engine.batch.job, place) is None:
            return Found(None, "", "", f"The job of {place.call_uri} has not ended, or left no outcome.")
        call = await _call(engine, place)
        data = {**(ended.data if ended is not None else {}), "tried": len(call.tried)}
        name = call.tasks[0].name
        with tempfile.TemporaryDirectory(dir=cache_folder.scratch(settings.cache_dir)) as folder:
            paths = {key: os.path.join(folder, key) for key in ("output", "stdout", "stderr", "error")}
            await write_ends(engine, settings, place, {node_id: Node(0, node_id, name, paths)}, data)
            return await asyncio.to_thread(_read, paths)


def _read(paths: dict[str, str]) -> Found:
    texts = {
        key: Path(paths[key]).read_text(encoding="utf-8", errors="replace") for key in ("stdout", "stderr", "error")
    }
    value = None
    if not texts["error"]:
        with open(paths["output"], "rb") as file:
            value = cloudpickle.loads(b"".join(tobj.iter_pickle(file, tobj.read_header(file))))
    return Found(value, texts["stdout"], texts["stderr"], texts["error"])


async def _newest(engine: Engine, settings: Settings, metadata: dict[str, Any]) -> Location:
    bucket, dispatch_id, node_id = settings.s3_bucket_name, str(metadata["dispatch_id"]), int(metadata["node_id"])
    found = await engine.store.list_calls(bucket, settings.key_prefix, dispatch_id, node_id)
    calls = [place for place, names in found.items() if "call.json" in names]
    if not calls:
        raise NotFound(
            f"Nothing was uploaded for {metadata}: there is no call under "
            f"s3://{bucket}/{node_base(settings.key_prefix, dispatch_id, node_id)}.",
            operation="s3:ListBucket",
            code="NoSuchKey",
        )
    return calls[-1]


async def _call(engine: Engine, place: Location) -> Call:
    data = await engine.store.get_document(place.bucket, place.call_key, MAX_DOCUMENT_BYTES)
    if data is None:
        raise NotFound(f"{place.call_uri} is gone.", operation="s3:GetObject", code="NoSuchKey")
    return parse_call(data)
