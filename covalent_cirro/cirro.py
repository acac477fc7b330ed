"""The plugin: `CirroBatchExecutor`, which Covalent knows as ``cirro`` (it takes the name from this module's).

Reads like the way of one electron: `send` stores and submits, `poll` waits, `receive` fetches. Everything shared lives
in `engine.py`; nothing but settings lives on an executor, which Covalent makes anew for each electron.

Nothing here may raise while it is imported: Covalent loads its plugins unguarded, and would break for everybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from covalent._shared_files import TaskCancelledError, TaskRuntimeError
from covalent._shared_files.config import get_config
from covalent._shared_files.util_classes import RESULT_STATUS
from covalent.executor.base import AsyncBaseExecutor

from covalent_cirro import settings as options_table
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs import panel
from covalent_cirro.settings import SECTION, Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

EXECUTOR_PLUGIN_NAME = "CirroBatchExecutor"

_EXECUTOR_PLUGIN_DEFAULTS: dict[str, Any] = {}
"""Empty, so that Covalent makes the section but pins no default of today in the user's file."""

_COVALENT_ATTRIBUTES = ("log_stdout", "log_stderr", "retries")


def _stock_executor() -> Any:
    """The stock class; `None` while it is only half imported (a script that imports the stock plugin first)."""
    try:
        from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor
    except Exception:  # whatever is wrong with it must not break Covalent
        return None
    return AWSBatchExecutor


_Base: Any = _stock_executor() or AsyncBaseExecutor


class CirroBatchExecutor(_Base):  # type: ignore[misc]
    """Runs electrons as AWS Batch jobs. Takes every option of the stock ``AWSBatchExecutor``, with the same meaning.

    Unset options come from ``[executors.cirro]`` of Covalent's config, then from their defaults (docs/settings.md).
    0, "" and False are values. Making one costs nothing and touches nothing: no AWS call, no file, no variable.

    Args:
        credentials: Path of an AWS credentials file on the Covalent server.
        profile: AWS profile whose credentials and region are used.
        region: AWS region.
        s3_bucket_name: Bucket for calls, outcomes, logs and blobs. Default: 'covalent-batch-job-resources'.
        batch_queue: Job queue, by name or ARN. Default: 'covalent-batch-queue'.
        batch_execution_role_name: Role of the ECS agent, by name or ARN; "" for none. Default: 'ecsTaskExecutionRole'.
        batch_job_role_name: Role of the container, by name or ARN: reads and writes the bucket. Default:
            'covalent-batch-job-role'.
        batch_job_log_group_name: CloudWatch log group of the jobs. Default: 'covalent-batch-job-logs'.
        vcpu: vCPUs of the job: a whole number from 1. Default: 2.
        memory: Memory of the job in GB (1024 MiB): a number from 0.125 GB (128 MiB), in which the runner just starts.
            Default: 3.75.
        num_gpus: GPUs of the job: a whole number from 0. Default: 0.
        retry_attempts: How often AWS Batch may start the job in all, when its host is lost or cannot start it: a whole
            number from 0 to 10. Default: 3.
        time_limit: Seconds after which an attempt is stopped (SIGTERM, 30 s, SIGKILL): a whole number of seconds from
            60, AWS's least. Default: 300.
        poll_freq: Seconds between two looks at a job, at most: a number of seconds from 0. Default: 10.
        cache_dir: Folder on the Covalent server for files that are sent to S3.
        container_image_uri: Image of the job: with Python, cloudpickle, awscrt and covalent-cirro. `cirro image push`
            makes one and sets it. Default: 'public.ecr.aws/covalent/covalent-executor-base:stable'.
        endpoint_url: Endpoint for all AWS services, such as an emulator's.
        s3_prefix: What keys in the bucket begin with; "" for nothing. Default: 'cirro'.
        batch_gpu_queue: Job queue for electrons with num_gpus from 1, by name or ARN.
        batch_job_definition_name: What the names of job definitions begin with. Default: 'cirro'.
        shared_memory_gb: Size of /dev/shm in GB, which PyTorch's DataLoader needs: a number of GB above 0.
        local_packages: Your own packages or modules, which are sent to the job with the electron: import names, or
            paths on the server.
        memory_max: Most GB with which an electron that ran out of memory is submitted again, each time with twice as
            much: a number from 0.125 GB, and not less than memory.
        batch_on_demand_queue: Job queue without Spot, by name or ARN: an electron that lost its host in all its
            attempts is submitted again, to it.
        batch_gpu_on_demand_queue: Job queue without Spot for electrons with num_gpus from 1, used like
            batch_on_demand_queue.
        reuse_from: Dispatch whose results are taken where they are of the same work: same function, inputs, hooks,
            packages and image.
        on_server_stop: What happens to a running job when the Covalent server is stopped: "keep", and the next server
            goes on with it; or "cancel", with the whole dispatch. Default: 'keep'.

    Raises:
        SettingsError: An unknown option, a wrong type or an impossible need, with the valid names or range.

    Example:
        >>> @ct.electron(executor=CirroBatchExecutor(vcpu=4, memory=16, num_gpus=1))
        ... def train(config): ...
    """

    SUPPORTS_MANAGED_EXECUTION = True

    # Plain attributes: the stock class has properties here, one of which changes the process's environment.
    s3_bucket_name: str | None = None

    def __new__(cls, *args: object, **kwargs: object) -> CirroBatchExecutor:
        """Complete the inheritance where the stock class was half imported when this module was loaded."""
        stock = _stock_executor()
        if stock is not None and stock not in CirroBatchExecutor.__mro__:
            CirroBatchExecutor.__bases__ = (stock,)
            # An answer of isinstance that was given before is remembered by ABCMeta until something is registered.
            stock.register(CirroBatchExecutor)
        made: CirroBatchExecutor = super().__new__(cls)
        return made

    def __init__(
        self,
        credentials: str | os.PathLike[str] | None = None,
        profile: str | None = None,
        region: str | None = None,
        s3_bucket_name: str | None = None,
        batch_queue: str | None = None,
        batch_execution_role_name: str | None = None,
        batch_job_role_name: str | None = None,
        batch_job_log_group_name: str | None = None,
        vcpu: int | None = None,
        memory: float | None = None,
        num_gpus: int | None = None,
        retry_attempts: int | None = None,
        time_limit: int | None = None,
        poll_freq: float | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        container_image_uri: str | None = None,
        *,
        endpoint_url: str | None = None,
        s3_prefix: str | None = None,
        batch_gpu_queue: str | None = None,
        batch_job_definition_name: str | None = None,
        shared_memory_gb: float | None = None,
        local_packages: Sequence[str | os.PathLike[str]] | None = None,
        memory_max: float | None = None,
        batch_on_demand_queue: str | None = None,
        batch_gpu_on_demand_queue: str | None = None,
        reuse_from: str | None = None,
        on_server_stop: str | None = None,
        **unknown: object,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in options_table.BY_NAME}
        section = _section()
        # Covalent itself makes executors from the section: what stands there must not kill an electron that does not
        # need it. It is checked when it is used.
        options_table.check({n: v for n, v in {**given, **unknown}.items() if n not in section or section[n] != v})
        for name in unknown:
            log.warning("[%s] of Covalent's config has %r, which is no option of this version; ignored", SECTION, name)
        AsyncBaseExecutor.__init__(self)
        for name, value in given.items():
            self.__dict__[name] = section.get(name) if value is None else options_table.plain(value)
        if local_packages is not None:
            self.__dict__["local_packages"] = _absolute(self.__dict__["local_packages"])

    # --- settings ---

    @property
    def credentials_file(self) -> str | None:
        """The stock class's name for ``credentials``. Reading it is all one can do."""
        value: str | None = self.__dict__.get("credentials")
        return value

    @property
    def execution_role(self) -> str | None:
        """The stock class's name for ``batch_execution_role_name``."""
        return self.settings.batch_execution_role_name

    @property
    def log_group_name(self) -> str | None:
        """The stock class's name for ``batch_job_log_group_name``."""
        return self.settings.batch_job_log_group_name

    @property
    def settings(self) -> Settings:
        """All options with their values, as they stand where this is asked.

        Raises:
            SettingsError: One that cannot work; it says whether the executor or the config file has it.
        """
        return options_table.resolve(self.__dict__, _section())

    def to_dict(self) -> dict[str, Any]:
        """What Covalent stores, shows in its UI, and makes the server's executor from: settings only."""
        kept = (*_COVALENT_ATTRIBUTES, *options_table.BY_NAME)
        return {
            "type": str(type(self)),
            "short_name": self.short_name(),
            "attributes": {name: options_table.plain(self.__dict__.get(name)) for name in kept},
        }

    def from_dict(self, object_dict: Mapping[str, Any]) -> CirroBatchExecutor:
        """Take over the options of a client's executor.

        What an older client did not know keeps the server's value; what a newer one knows in addition is warned about.
        """
        for name, value in (object_dict.get("attributes") or {} if object_dict else {}).items():
            if name in panel.KEYS:
                continue  # what the UI was told of an electron's job, in the same JSON
            if name not in options_table.BY_NAME and name not in _COVALENT_ATTRIBUTES:
                log.warning("The client's executor has %r, which is no option of this version; ignored", name)
            elif value is not None:
                self.__dict__[name] = value
        return self

    # --- managed execution ---

    async def send(self, task_specs: list[Any], resources: Any, task_group_metadata: dict[str, Any]) -> Any:
        """Store what the electrons need and submit their job. Returns what `poll` is given."""
        from covalent_cirro.electron import send as submission
        from covalent_cirro.electron.launches import Launch

        self._launch = Launch(task_group_metadata["dispatch_id"], task_group_metadata["node_ids"])
        try:
            return await _told(submission.send(self._launch, self.settings, task_specs, self._keep_handle))
        except BaseException:
            self._launch.close()
            raise

    async def poll(self, task_group_metadata: dict[str, Any], data: Any) -> Any:
        """Wait for the job. Returns what `receive` is given."""
        from covalent_cirro.electron import poll as polling

        try:
            return await _told(polling.poll(self._launch, self.settings, data, self._keep_handle))
        finally:
            self._launch.close()

    async def receive(self, task_group_metadata: dict[str, Any], data: Any) -> list[Any]:
        """Fetch the results into Covalent's own files. Runs on another executor object than `send` and `poll`."""
        from covalent.executor.schemas import TaskUpdate

        dispatch_id, node_ids = task_group_metadata["dispatch_id"], task_group_metadata["node_ids"]
        if data is None:  # cancelled, or refused before it was sent
            return [
                TaskUpdate(dispatch_id=dispatch_id, node_id=node_id, status=RESULT_STATUS.CANCELLED, assets={})
                for node_id in node_ids
            ]
        if isinstance(data, Mapping) and "cirro_resume" in data:  # not a job's end: `cirro resume` asks
            from covalent_cirro.electron.resume import server_life

            await server_life.answer(dispatch_id, data)
            return []
        from covalent._shared_files.schemas.asset import AssetUpdate

        from covalent_cirro.covalent_server.status_board import board
        from covalent_cirro.electron import patience
        from covalent_cirro.electron import receive as reception

        def tell(words: str) -> None:
            for node_id in node_ids:
                board().show_problem(dispatch_id, node_id, words)

        received = await _told(
            patience.until_mended(
                f"Dispatch {dispatch_id}, nodes {node_ids}",
                lambda: reception.receive(self.settings, dispatch_id, node_ids, data),
                then="The job has ended; its result is kept in S3 and fetched as soon as this is put right.",
                tell=tell,
                mended=lambda: tell(""),
            )
        )
        return [
            TaskUpdate(
                dispatch_id=dispatch_id,
                node_id=one.node_id,
                status=_status(one),
                # No remote_uri: Covalent would fetch it again at a redispatch.
                assets={
                    key: AssetUpdate(size=file.size, digest_alg="sha1", digest=file.sha1)
                    for key, file in one.files.items()
                },
            )
            for one in received
        ]

    async def cancel(self, task_metadata: dict[str, Any], job_handle: Any) -> bool:
        """End whatever is under way for an electron, in every state it can be in.

        Args:
            task_metadata: ``dispatch_id`` and ``node_id``.
            job_handle: What `send` left with Covalent, or a job id, or `None` where there is no job yet.

        Returns:
            Whether its end was asked for.
        """
        from covalent_cirro.electron import send as submission

        try:
            return await submission.cancel(self.settings, task_metadata, job_handle)
        except CirroError as error:
            log.error("Could not cancel electron %s: %s", task_metadata, error)
            return False

    async def _keep_handle(self, dispatch_id: str, node_id: int, handle: dict[str, Any]) -> None:
        """Leave the job's handle with Covalent. The job exists already: nothing here may fail the electron."""
        try:
            await self.set_job_handle(handle)
        except Exception as error:  # 5 s without an answer, or a listener that died
            log.warning("Covalent did not take the handle of job %s (%r); writing it directly", handle, error)
            try:
                from covalent_cirro.covalent_server import assets

                await asyncio.to_thread(assets.write_handle, dispatch_id, node_id, json.dumps(handle))
            except Exception:
                log.exception("The handle of job %s is not kept", handle)

    # --- the stock class's own methods ---

    async def run(
        self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], task_metadata: dict[str, Any]
    ) -> Any:
        """Run a function as a job and return its result, without a Covalent server.

        The result is unpickled here, in the caller's process. Covalent's server never calls this: it uses `send`.
        Who gives up waiting (Ctrl-C, a timeout) ends the job: nobody is left who wants its result.

        Raises:
            TaskRuntimeError: The job failed; the message is its traceback, or why it has none.
            TaskCancelledError: It was cancelled.
        """
        from covalent_cirro.electron import patience, without_server

        await self._upload_task(function, args, kwargs, task_metadata)
        submitting = asyncio.ensure_future(self.submit_task(task_metadata, {}))
        try:
            job_id = await asyncio.shield(submitting)
            ended = await _told(without_server.wait(self.settings, job_id, task_metadata))
        except asyncio.CancelledError:
            await self.cancel(task_metadata, await submitting)
            raise
        if ended.cancelled:
            raise TaskCancelledError(f"AWS Batch job {job_id} was cancelled")
        fetched = patience.until_mended(
            f"Job {job_id}", lambda: without_server.result(self.settings, task_metadata, ended)
        )
        found = await _told(fetched)
        print(found.stdout, end="", file=self.task_stdout)
        print(found.stderr, end="", file=self.task_stderr)
        if found.error:
            print(found.error, end="", file=self.task_stderr)
            raise TaskRuntimeError(found.error)
        return found.value

    async def _submit(
        self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], task_metadata: dict[str, Any]
    ) -> str:
        await self._upload_task(function, args, kwargs, task_metadata)
        return await self.submit_task(task_metadata, {})

    async def _upload_task(
        self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], task_metadata: dict[str, Any]
    ) -> None:
        from covalent_cirro.electron import without_server

        await _told(without_server.upload(self.settings, function, args, kwargs, task_metadata))

    async def submit_task(self, task_metadata: dict[str, Any], identity: dict[str, Any]) -> str:
        """Submit the job of an electron that was uploaded, and return its id. ``identity`` is not needed any more."""
        from covalent_cirro.electron import without_server

        return await _told(without_server.submit(self.settings, task_metadata))

    async def get_status(self, job_id: str) -> tuple[str, int]:
        """A job's status in AWS's words and its exit code, -1 without one."""
        from covalent_cirro.electron import without_server

        return await _told(without_server.status(self.settings, job_id))

    async def query_result(self, task_metadata: dict[str, Any]) -> tuple[Any, str, str]:
        """Result, stdout and stderr of an electron whose job has ended.

        Raises:
            TaskRuntimeError: It failed, or has not ended.
        """
        from covalent_cirro.electron import without_server

        found = await _told(without_server.result(self.settings, task_metadata, None))
        if found.error:
            raise TaskRuntimeError(found.error)
        return found.value, found.stdout, found.stderr


def _section() -> Mapping[str, Any]:
    """``[executors.cirro]`` of Covalent's config here; empty where there is none."""
    try:
        section = get_config(SECTION)
    except KeyError:
        return {}
    return section if isinstance(section, Mapping) else {}


def _absolute(items: list[str]) -> list[str]:
    from covalent_cirro.electron import local_packages as packages

    return [str(packages.locate(item)) for item in items]


def _status(one: Any) -> Any:
    """Covalent's word for how an electron ended (`result_writer.Received`)."""
    if one.completed:
        return RESULT_STATUS.COMPLETED
    return RESULT_STATUS.CANCELLED if one.cancelled else RESULT_STATUS.FAILED


async def _told(work: Awaitable[T]) -> T:
    """The error edge to Covalent, which shows ``str(error)`` and nothing else."""
    try:
        return await work
    except (CirroError, TaskCancelledError):
        raise
    except Exception as error:
        log.exception("Unexpected error")
        raise CirroError(f"Unexpected {type(error).__name__} in covalent-cirro: {error or 'no message'}") from error


def _register() -> None:
    """Make the class known where this module was imported before Covalent had a complete one to register."""
    try:
        from covalent import executor

        manager = getattr(executor, "_executor_manager", None)  # None: Covalent is loading us, and registers us itself
        if manager is not None and manager.executor_plugins_map.get("cirro") is not CirroBatchExecutor:
            manager._populate_executor_map_from_module(sys.modules[__name__])
            executor.CirroBatchExecutor = CirroBatchExecutor
    except Exception:
        log.exception("Covalent does not know CirroBatchExecutor by its name")


def _take_part() -> None:
    """Where a Covalent server loads this plugin, go on with what an earlier one left unfinished."""
    program = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    if program.endswith("app.py"):  # Covalent's server is this file of its web application
        try:
            from covalent_cirro.electron.resume import server_life

            server_life.arm_in_server()
        except Exception:
            log.exception("Unfinished dispatches of this server are not looked for")


_register()
_take_part()
