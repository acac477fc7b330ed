"""The plugin: `CirroBatchExecutor`, which Covalent knows as ``cirro`` (Covalent takes the name of this module).

`send` stores an electron and submits its job, `poll` waits for the job, `receive` fetches the result. An executor holds
settings only, since Covalent makes a new one for each electron; what all electrons share is in
`electron/engine/engine.py`.

The import of this module must not raise: Covalent imports plugins unguarded, and `import covalent` would fail for
everybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covalent._shared_files.config import get_config
from covalent._shared_files.util_classes import RESULT_STATUS
from covalent.executor.base import AsyncBaseExecutor

from covalent_cirro import settings as options_table
from covalent_cirro.covalent_server import redispatches
from covalent_cirro.electron.errors_for_covalent import as_cirro_error
from covalent_cirro.electron.stock_methods import StockMethods
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs import panel
from covalent_cirro.settings import SECTION, Settings

if TYPE_CHECKING:
    from covalent_cirro.electron.handover import JobHandle

log = logging.getLogger(__name__)

EXECUTOR_PLUGIN_NAME = "CirroBatchExecutor"

_EXECUTOR_PLUGIN_DEFAULTS: dict[str, Any] = {}
"""Empty, so that Covalent makes the section, but writes no default of this version into the user's config file."""

_COVALENT_ATTRIBUTES = ("log_stdout", "log_stderr", "retries")


def _stock_executor() -> Any:
    """The stock class; `None` where it is not installed, or only half imported (a script that imports it first)."""
    try:
        from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor
    except Exception:  # an error in the stock plugin must not break `import covalent`
        return None
    return AWSBatchExecutor


_Base: Any = _stock_executor() or AsyncBaseExecutor


class CirroBatchExecutor(StockMethods, _Base):  # type: ignore[misc]
    """Runs electrons as AWS Batch jobs. Takes every option of the stock ``AWSBatchExecutor``, with the same meaning.

    An option that is not given has the value of ``[executors.cirro]`` in Covalent's config, else its default
    (docs/settings.md). 0, "" and False are values. The constructor calls no AWS service, and touches no environment
    variable and no file, except botocore's model of AWS Batch for the check of job_properties.

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
        vcpu: vCPUs of the job: a whole number from 1; with platform="FARGATE" also 0.25 or 0.5. Default: 2.
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
        on_error: What becomes of an electron that failed: "raise", and the dispatch fails; or "return", and its value
            is an ElectronFailed that says why, with which the dispatch goes on. Default: 'raise'.
        array_size: Most jobs that the items of a mapped electron are shared over: a whole number from 1 to 10,000,
            AWS's most.
        array_parallel: Items that a job of a mapped electron computes at a time, each in a process of its own: a whole
            number from 1 to 192. Default: 1.
        environment: Environment variables of the electron, which has them before anything is imported in it.
        secrets: Environment variables of the electron whose values ECS takes from Secrets Manager or from SSM
            parameters, by name: an ARN, with the key of its JSON where it has keys, or "ssm:/name of a parameter".
        job_properties: Further properties of the container, as ContainerProperties of RegisterJobDefinition has them:
            ulimits, volumes, mountPoints, linuxParameters and others.
        tags: Tags of the job, besides those of the executor: such as the keys by which costs are shared out.
        propagate_tags: Whether the ECS task of the job gets the job's tags. Default: True.
        scheduling_priority: Priority among the jobs of one share identifier in a queue with a scheduling policy; the
            highest first: a whole number from 0 to 9,999.
        share_identifier: Share of the job in a queue with a scheduling policy, which needs one.
        consumable_resources: Consumable resources, such as licences, that the job holds while it runs: how many of
            each, by name or ARN.
        shared_files: EFS file system and access point that jobs have at /shared. `cirro deploy --parameter
            SharedFileSystem=true` makes one and sets it.
        num_nodes: Machines on which the function runs at the same time, as nodes of one multi-node parallel job: a
            whole number from 1 to 1,000, AWS's most.
        processes_per_node: Processes that call the function on each node: a whole number from 1 to 192.
        batch_multi_node_queue: Job queue for electrons with num_nodes from 2, by name or ARN: without Spot.
        platform: What the job runs on: "EC2", instances that AWS Batch starts; or "FARGATE", a machine of its own that
            starts within about a minute, without GPUs. Default: 'EC2'.
        batch_fargate_queue: Job queue for electrons with platform="FARGATE", by name or ARN.
        cpu_architecture: Architecture of the machines that run electrons without GPUs, and so of their image. `cirro
            deploy` sets it. Default: 'x86_64'.

    Raises:
        SettingsError: An option is unknown, has a wrong type or an impossible value; the message has what is valid.

    Example:
        >>> @ct.electron(executor=CirroBatchExecutor(vcpu=4, memory=16, num_gpus=1))
        ... def train(config): ...
    """

    SUPPORTS_MANAGED_EXECUTION = True

    _redispatch_of: str | None = None

    # A plain attribute, since the stock class has a property that changes the process's environment.
    s3_bucket_name: str | None = None

    def __new__(cls, *args: object, **kwargs: object) -> CirroBatchExecutor:
        """Make the stock class the base, if it was only half imported when this module was imported."""
        stock = _stock_executor()
        if stock is not None and stock not in CirroBatchExecutor.__mro__:
            CirroBatchExecutor.__bases__ = (StockMethods, stock)
            # ABCMeta keeps earlier results of `isinstance` until a class is registered.
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
        vcpu: float | None = None,
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
        on_error: str | None = None,
        array_size: int | None = None,
        array_parallel: int | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        job_properties: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        propagate_tags: bool | None = None,
        scheduling_priority: int | None = None,
        share_identifier: str | None = None,
        consumable_resources: Mapping[str, int] | None = None,
        shared_files: str | None = None,
        num_nodes: int | None = None,
        processes_per_node: int | None = None,
        batch_multi_node_queue: str | None = None,
        platform: str | None = None,
        batch_fargate_queue: str | None = None,
        cpu_architecture: str | None = None,
        **unknown: object,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in options_table.BY_NAME}
        section = _section()
        # Covalent itself makes executors from the section. A wrong value there must not fail an electron that does not
        # use it: such values are checked when they are used.
        own = {n: v for n, v in {**given, **unknown}.items() if n not in section or section[n] != v}
        options_table.check(own)
        for name in unknown:
            log.warning("[%s] of Covalent's config has %r, which is no option of this version; ignored", SECTION, name)
        if any(value is not None for value in own.values()):
            _refuse_contradictions({name: value for name, value in own.items() if name not in unknown}, section)
        AsyncBaseExecutor.__init__(self)
        for name, value in given.items():
            self.__dict__[name] = section.get(name) if value is None else options_table.plain(value)
        if local_packages is not None:
            self.__dict__["local_packages"] = _absolute(self.__dict__["local_packages"])

    # --- settings ---

    @property
    def credentials_file(self) -> str | None:
        """The stock class's name for ``credentials``. Read only."""
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
        """All options with their values, from this executor, the config of this process, and the defaults.

        Raises:
            SettingsError: A value cannot work; the message says whether the executor or the config file has it.
        """
        return options_table.resolve(self.__dict__, _section())

    def to_dict(self) -> dict[str, Any]:
        """The settings, as Covalent stores them, shows them in its UI, and makes the server's executor from them."""
        kept = (*_COVALENT_ATTRIBUTES, *options_table.BY_NAME)
        return {
            "type": str(type(self)),
            "short_name": self.short_name(),
            "attributes": {name: options_table.plain(self.__dict__.get(name)) for name in kept},
        }

    def from_dict(self, object_dict: Mapping[str, Any]) -> CirroBatchExecutor:
        """Take over the options of a client's executor.

        An option that an older client does not have keeps the server's value. An option that only a newer client has is
        ignored with a warning.
        """
        for name, value in (object_dict.get("attributes") or {} if object_dict else {}).items():
            if name in panel.KEYS:
                continue  # what the UI shows of an electron's job is in the same JSON
            if name == redispatches.ATTRIBUTE:
                self._redispatch_of = value
                continue
            if name not in options_table.BY_NAME and name not in _COVALENT_ATTRIBUTES:
                log.warning("The client's executor has %r, which is no option of this version; ignored", name)
            elif value is not None:
                self.__dict__[name] = value
        return self

    # --- managed execution ---

    async def send(self, task_specs: list[Any], resources: Any, task_group_metadata: dict[str, Any]) -> Any:
        """Store what the electrons of a task group need and submit their job.

        Args:
            task_specs: The electrons, as Covalent's ``TaskSpec``.
            resources: Not used: the files are read where Covalent keeps them.
            task_group_metadata: ``dispatch_id`` and ``node_ids``.

        Returns:
            What `poll` is given, in JSON (`electron/handover.py`).

        Raises:
            CirroError: The job was not submitted, and why.
            TaskCancelledError: The electrons were cancelled.
        """
        from covalent_cirro.electron import handover
        from covalent_cirro.electron import send as submission
        from covalent_cirro.electron.launches import Launch

        self._launch = Launch(
            task_group_metadata["dispatch_id"], task_group_metadata["node_ids"], redispatch_of=self._redispatch_of
        )
        try:
            sent = await as_cirro_error(submission.send(self._launch, self.settings, task_specs, self._keep_handle))
            return handover.dump_sent(sent)
        except BaseException:
            self._launch.close()
            raise

    async def poll(self, task_group_metadata: dict[str, Any], data: Any) -> Any:
        """Wait for the job of a task group.

        Args:
            task_group_metadata: Not used: `send` has got the same.
            data: What `send` returned.

        Returns:
            What `receive` is given, in JSON (`electron/handover.py`).

        Raises:
            CirroError: The state of the job cannot be read; the job goes on.
            TaskCancelledError: The electrons were cancelled.
        """
        from covalent_cirro.electron import handover
        from covalent_cirro.electron import poll as polling

        try:
            sent = handover.load_sent(data)
            return handover.dump_polled(
                await as_cirro_error(polling.poll(self._launch, self.settings, sent, self._keep_handle))
            )
        finally:
            self._launch.close()

    async def receive(self, task_group_metadata: dict[str, Any], data: Any) -> list[Any]:
        """Write the results of a task group into Covalent's files. Runs on another executor object than `poll`.

        Args:
            task_group_metadata: ``dispatch_id`` and ``node_ids``.
            data: What `poll` returned; `None` if the electrons were cancelled; or what somebody sent to the server.

        Returns:
            Covalent's ``TaskUpdate`` of each electron.

        Raises:
            CirroError: The results cannot be fetched, and why.
        """
        from covalent.executor.schemas import TaskUpdate

        dispatch_id, node_ids = task_group_metadata["dispatch_id"], task_group_metadata["node_ids"]
        if data is None:  # cancelled, or refused before it was sent
            return [
                TaskUpdate(dispatch_id=dispatch_id, node_id=node_id, status=RESULT_STATUS.CANCELLED, assets={})
                for node_id in node_ids
            ]
        if isinstance(data, Mapping) and "cirro_resume" in data:  # a request of `cirro resume`, not the end of a job
            from covalent_cirro.electron.resume import server_life

            await server_life.answer(dispatch_id, data)
            return []
        from covalent._shared_files.schemas.asset import AssetUpdate

        from covalent_cirro.electron import handover
        from covalent_cirro.electron import receive as reception

        polled = handover.load_polled(data)
        received = await as_cirro_error(reception.receive(self.settings, dispatch_id, node_ids, polled))
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
        """End the job of an electron, in every state; before there is a job, end the work of `send`.

        Args:
            task_metadata: ``dispatch_id`` and ``node_id``.
            job_handle: The job handle that Covalent stores, or a job id, or `None` where there is no job yet.

        Returns:
            Whether AWS Batch, or the work that is under way here, was asked to end.
        """
        from covalent_cirro.electron import send as submission

        try:
            return await submission.cancel(self.settings, task_metadata, job_handle)
        except CirroError as error:
            log.error("Could not cancel electron %s: %s", task_metadata, error)
            return False

    async def _keep_handle(self, dispatch_id: str, node_id: int, job: JobHandle) -> None:
        """Have Covalent store the job's handle. The job exists already: nothing here may fail the electron."""
        from covalent_cirro.electron import handover

        handle = handover.dump_handle(job)
        try:
            await self.set_job_handle(handle)
        except Exception as error:  # 5 s without an answer, or a listener that died
            log.warning("Covalent did not take the handle of job %s (%r); writing it directly", handle, error)
            try:
                from covalent_cirro.covalent_server import assets

                await asyncio.to_thread(assets.write_handle, dispatch_id, node_id, json.dumps(handle))
            except Exception:
                log.exception("The handle of job %s is not stored", handle)


def _section() -> Mapping[str, Any]:
    """``[executors.cirro]`` of the config of this process; empty where there is none."""
    try:
        section = get_config(SECTION)
    except KeyError:
        return {}
    return section if isinstance(section, Mapping) else {}


def _refuse_contradictions(own: Mapping[str, Any], section: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other, as far as that is known where the executor is made."""
    settings, known = options_table.resolve_known(own, section)
    if own.get("job_properties"):
        from covalent_cirro.aws import container_model
        from covalent_cirro.electron.engine import job_definition

        container_model.require(settings.job_properties)
        job_definition.refuse(settings, known)


def _absolute(items: list[str]) -> list[str]:
    from covalent_cirro.electron import local_packages as packages

    return [str(packages.locate(item)) for item in items]


def _status(one: Any) -> Any:
    """Covalent's status for how an electron ended (`result_writer.Received`)."""
    if one.completed:
        return RESULT_STATUS.COMPLETED
    return RESULT_STATUS.CANCELLED if one.cancelled else RESULT_STATUS.FAILED


def _register() -> None:
    """Register the class with Covalent, where this module was imported before Covalent could do that itself."""
    try:
        from covalent import executor

        manager = getattr(executor, "_executor_manager", None)  # None: Covalent is importing its plugins
        if manager is not None and manager.executor_plugins_map.get("cirro") is not CirroBatchExecutor:
            manager._populate_executor_map_from_module(sys.modules[__name__])
            executor.CirroBatchExecutor = CirroBatchExecutor
    except Exception:
        log.exception("Covalent does not know CirroBatchExecutor by its name")


def _resume_in_server() -> None:
    """In the process of a Covalent server, resume what an earlier server left unfinished."""
    program = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    if program.endswith("app.py"):  # Covalent's server is this file of its web application
        try:
            from covalent_cirro.electron.resume import server_life

            server_life.install_in_server()
        except Exception:
            log.exception("Unfinished dispatches of this server are not looked for")


_register()
_resume_in_server()
