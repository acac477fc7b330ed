"""The methods of the stock class ``AWSBatchExecutor`` that run an electron without a Covalent server.

This module is imported with the plugin. It imports `without_server.py`, which does the work, when a method is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from covalent._shared_files import TaskRuntimeError

from covalent_cirro.electron.errors_for_covalent import as_cirro_error
from covalent_cirro.errors import ElectronFailed
from covalent_cirro.settings import Settings

if TYPE_CHECKING:
    from typing import TextIO


class StockMethods:
    """The methods, which `CirroBatchExecutor` inherits."""

    if TYPE_CHECKING:
        task_stdout: TextIO
        task_stderr: TextIO

        @property
        def settings(self) -> Settings:
            """All options with their values."""

        async def cancel(self, task_metadata: dict[str, Any], job_handle: Any) -> bool:
            """End the job of an electron."""

    async def run(
        self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], task_metadata: dict[str, Any]
    ) -> Any:
        """Run a function as a job and return its result, without a Covalent server.

        The result is unpickled in the caller's process. Covalent's server never calls this method: it calls `send`. A
        caller that stops waiting (Ctrl-C, a timeout) ends the job: nobody is left who wants its result.

        Args:
            function: The function; it is pickled by value where cloudpickle does so.
            args: Positional arguments.
            kwargs: Keyword arguments.
            task_metadata: ``dispatch_id`` and ``node_id``, under which the call is stored in S3.

        Raises:
            TaskRuntimeError: The job failed; the message has the traceback, or why there is none.
            TaskCancelledError: The job was cancelled.
        """
        from covalent_cirro.electron import without_server

        settings = self.settings
        written = await as_cirro_error(without_server.upload(settings, function, args, kwargs, task_metadata))
        submitting = asyncio.ensure_future(as_cirro_error(without_server.submit(settings, written)))
        try:
            job = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            await self.cancel(task_metadata, (await submitting).job_id)
            raise
        ended = await as_cirro_error(without_server.wait(settings, written.call, job))
        found = await as_cirro_error(without_server.fetch(settings, written.call, ended))
        print(found.stdout, end="", file=self.task_stdout)
        print(found.stderr, end="", file=self.task_stderr)
        if found.error:
            print(found.error, end="", file=self.task_stderr)
            if settings.on_error == "return":
                return ElectronFailed(found.error.strip())
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

        await as_cirro_error(without_server.upload(self.settings, function, args, kwargs, task_metadata))

    async def submit_task(self, task_metadata: dict[str, Any], identity: dict[str, Any]) -> str:
        """Submit the job of the newest call of an electron, and return the Batch job id. ``identity`` is not used."""
        from covalent_cirro.electron import without_server

        return await as_cirro_error(without_server.submit_newest(self.settings, task_metadata))

    async def get_status(self, job_id: str) -> tuple[str, int]:
        """The status of a job, as AWS Batch names it, and the exit code; -1 where there is none."""
        from covalent_cirro.electron import without_server

        return await as_cirro_error(without_server.status(self.settings, job_id))

    async def query_result(self, task_metadata: dict[str, Any]) -> tuple[Any, str, str]:
        """Result, stdout and stderr of an electron whose job has ended.

        Raises:
            TaskRuntimeError: The electron failed, or its job has not ended.
        """
        from covalent_cirro.electron import without_server

        found = await as_cirro_error(without_server.fetch_newest(self.settings, task_metadata))
        if found.error:
            raise TaskRuntimeError(found.error)
        return found.value, found.stdout, found.stderr
