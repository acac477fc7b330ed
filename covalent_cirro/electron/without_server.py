"""Runs an electron without a Covalent server: what `run` and the other methods of the stock class do.

The result is unpickled in the process of the caller. A Covalent server does not use this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle

from covalent_cirro.contract import tobj
from covalent_cirro.contract.documents import parse_call
from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.contract.places import Location, node_base, parse_call_uri
from covalent_cirro.contract.protocol import Call, Task
from covalent_cirro.covalent_server.assets import PARAMETER_PREFIX, Group, InputParameter, Node
from covalent_cirro.electron import cache_folder
from covalent_cirro.electron.call_writer import ElectronSpec, Written, pickled_by, prepare_call, store_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.handover import EndedJob, JobHandle, OwnJob
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.maps import inputs
from covalent_cirro.electron.patience import retry_until_fixed
from covalent_cirro.electron.poll import Job, until_ended
from covalent_cirro.electron.progress import explain_wait, since
from covalent_cirro.electron.receive import write_ends
from covalent_cirro.electron.result_writer import read_outcome
from covalent_cirro.electron.send import cancel as cancel_submitted
from covalent_cirro.electron.send import definition_body, engine_for, ensure_definition, job_check
from covalent_cirro.electron.send import submit as submit_call
from covalent_cirro.errors import NotFound, SettingsError
from covalent_cirro.jobs.arguments import TEXT_BYTES
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


class ElectronResult(NamedTuple):
    """What an electron left.

    Attributes:
        value: Its return value, unpickled; `None` where it has none.
        stdout: All that it printed.
        stderr: All that it printed as errors.
        error: Why it has no return value; empty if it has one.
    """

    value: Any
    stdout: str
    stderr: str
    error: str


async def upload(
    settings: Settings, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], metadata: dict[str, Any]
) -> Written:
    """Pickle a function and its arguments and store them as a call.

    Args:
        settings: Settings of the executor.
        function: The electron's function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        metadata: Has ``dispatch_id`` and ``node_id``, under which the call is stored.
    """
    dispatch_id, node_id = str(metadata["dispatch_id"]), int(metadata["node_id"])
    if settings.reuse_from:
        log.warning("reuse_from=%r is for dispatches; what is run directly is computed", settings.reuse_from)
    async with engine_for(settings) as engine, contextlib.AsyncExitStack() as files:
        if settings.job_properties:
            await definition_body(engine, settings)  # refuses what cannot work before anything is stored
        scratch = cache_folder.scratch(settings.cache_dir)
        folder = files.enter_context(tempfile.TemporaryDirectory(dir=scratch))
        paths = await asyncio.to_thread(_pickle, folder, function, [*args, *kwargs.values()])
        # Inputs have the numbers after the electron's, as if they were nodes of its dispatch.
        first = node_id + 1
        node = Node(0, node_id, getattr(function, "__name__", "function"), {"function": paths[0]})
        values = dict(enumerate(paths[1:], first))
        names = [*_parameter_names(function, len(args)), *kwargs]
        group = Group(
            nodes={node_id: node},
            inputs=values,
            lattice="",
            python=platform.python_version(),
            covalent="",
            parameters={
                node_id: [
                    InputParameter(name, each, PARAMETER_PREFIX) for name, each in zip(names, values, strict=True)
                ]
            },
        )
        spec = ElectronSpec(
            node_id,
            list(range(first, first + len(args))),
            dict(zip(kwargs, range(first + len(args), first + len(args) + len(kwargs)), strict=True)),
        )
        pickled = await pickled_by(group, [spec])
        allowed = job_check(engine, settings, pickled)
        with contextlib.closing(Launch(dispatch_id, [node_id])) as launch:
            plan = await files.enter_async_context(inputs.planned(engine, launch, settings, group, [spec]))
            if plan is not None and not plan.length:
                raise SettingsError(f"{node.name!r} is mapped over no items: there is nothing to run.")
            written = await prepare_call(
                engine.store,
                settings,
                dispatch_id,
                group,
                [spec],
                pickled,
                covalent="0.240.0",
                allowed=allowed,
                image=functools.partial(
                    engine.images.named, settings.container_image_uri, architecture=settings.architecture
                ),
                plan=plan,
            )
            await store_call(engine.store, written, allowed)
            return written


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    """Names of the first parameters of a function, with Covalent's names where it has no more."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        parameters = []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in positional][:count]
    return [*names, *(f"arg[{i}]" for i in range(len(names), count))]


def _text(value: Any) -> bytes:
    """The text that Covalent keeps of a value; empty if the value's own class fails to make one."""
    try:
        beginning = value[:TEXT_BYTES] if isinstance(value, (str, bytes, bytearray)) else value
        return str(beginning)[:TEXT_BYTES].encode("utf-8", "replace")
    except Exception:
        return b""


def _pickle(folder: str, function: Callable[..., Any], values: list[Any]) -> list[str]:
    paths = []
    fields = tobj.header_fields("", "", platform.python_version(), cloudpickle.__version__)
    for index, value in enumerate((function, *values)):
        path = os.path.join(folder, f"{index}.tobj")
        with open(path, "wb") as file:
            writer = tobj.Writer(file, fields, _text(value))
            cloudpickle.dump(value, writer)
            writer.close()
        paths.append(path)
    return paths


async def submit(settings: Settings, written: Written) -> OwnJob:
    """Submit the job of a call that is stored."""
    async with engine_for(settings) as engine:
        definition = await ensure_definition(engine, settings)
        call = written.call
        pickled = Pickled(call.python, call.cloudpickle)
        await engine.images.require(
            settings.container_image_uri, pickled, settings.architecture, settings.runner_options
        )
        job_id = await submit_call(engine, settings, written, definition, _no_group())
        return OwnJob(job_id, written.location.call_uri, written.keys, call.tried)


async def submit_newest(settings: Settings, metadata: dict[str, Any]) -> str:
    """Submit the newest call of an electron, and return the Batch job id."""
    async with engine_for(settings) as engine:
        place = await _newest(engine, settings, metadata)
        written = Written(place, await _call(engine, place), (place.call_key,))
    return (await submit(settings, written)).job_id


async def wait(settings: Settings, call: Call, job: OwnJob) -> EndedJob:
    """Wait for a job and for those of further tries.

    A caller that is cancelled ends the job: nobody is left who wants its result.

    Args:
        settings: Settings of the executor.
        call: What the job runs.
        job: The job.

    Raises:
        TaskCancelledError: The job was cancelled.
    """
    node_id = call.tasks[0].node_id
    launch = Launch(call.dispatch_id, [node_id])
    launch.job_id = job.job_id
    try:
        return await retry_until_fixed(f"Job {job.job_id}", lambda: _wait_for_all(launch, settings, job))
    except asyncio.CancelledError:
        await cancel_submitted(settings, {"dispatch_id": call.dispatch_id, "node_id": node_id}, launch.job_id)
        raise
    finally:
        launch.close()


async def _wait_for_all(launch: Launch, settings: Settings, job: OwnJob) -> EndedJob:
    async with engine_for(settings) as engine:

        @contextlib.asynccontextmanager
        async def logged(job: Job) -> AsyncIterator[Callable[[JobDetail], None]]:
            try:
                yield lambda detail: explain_wait(engine, detail, since(detail, time.time()))
            finally:
                if job.job_id is not None:
                    engine.waits.leave(job.job_id)

        return await until_ended(engine, launch, settings, job, logged, _no_group, _no_handle)


def _no_group() -> Group:
    return Group(nodes={}, inputs={}, lattice="", python="", covalent="")


async def _no_handle(dispatch_id: str, node_id: int, handle: JobHandle) -> None:
    """There is no Covalent server to store it."""


async def status(settings: Settings, job_id: str) -> tuple[str, int]:
    """The status of a job, as AWS Batch names it, and the exit code; -1 where there is none."""
    async with engine_for(settings) as engine:
        found = await engine.batch.describe([job_id])
    if not found:
        raise NotFound(
            f"AWS Batch does not know job {job_id}. It keeps ended jobs for at least 7 days.",
            operation="batch:DescribeJobs",
            code="missing",
        )
    return found[0].state, -1 if found[0].exit_code is None else found[0].exit_code


async def fetch(settings: Settings, call: Call, ended: EndedJob) -> ElectronResult:
    """Fetch and unpickle what the electron of a call left.

    Args:
        settings: Settings of the executor.
        call: The call.
        ended: Its job, or that of a further try.
    """
    return await retry_until_fixed(f"Job {ended.job_id}", lambda: _fetch(settings, call.tasks[0], ended))


async def fetch_newest(settings: Settings, metadata: dict[str, Any]) -> ElectronResult:
    """Fetch and unpickle what the newest call of an electron left."""
    async with engine_for(settings) as engine:
        place = await _newest(engine, settings, metadata)
        if await read_outcome(engine.store, engine.batch.job, place) is None:
            return ElectronResult(None, "", "", f"The job of {place.call_uri} has not ended, or left no outcome.")
        call = await _call(engine, place)
    return await _fetch(settings, call.tasks[0], EndedJob(place.call_uri, tried=len(call.tried)))


async def _fetch(settings: Settings, task: Task, ended: EndedJob) -> ElectronResult:
    async with engine_for(settings) as engine:
        with tempfile.TemporaryDirectory(dir=cache_folder.scratch(settings.cache_dir)) as folder:
            paths = {key: os.path.join(folder, key) for key in ("output", "stdout", "stderr", "error")}
            nodes = {task.node_id: Node(0, task.node_id, task.name, paths)}
            place, is_map = parse_call_uri(ended.call), task.mapped is not None
            await write_ends(engine, settings, place, nodes, ended, is_map=is_map)
            return await asyncio.to_thread(_read, paths)


def _read(paths: dict[str, str]) -> ElectronResult:
    texts = {
        key: Path(paths[key]).read_text(encoding="utf-8", errors="replace") for key in ("stdout", "stderr", "error")
    }
    value = None
    if not texts["error"]:
        with open(paths["output"], "rb") as file:
            value = cloudpickle.loads(b"".join(tobj.iter_pickle(file, tobj.read_header(file))))
    return ElectronResult(value, texts["stdout"], texts["stderr"], texts["error"])


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
