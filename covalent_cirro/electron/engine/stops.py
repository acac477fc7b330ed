"""Ends jobs together: jobs that are to be ended within a moment share one call. Knows no electrons and no dispatches.

Covalent cancels all electrons of a dispatch one by one: for a thousand jobs, 20 calls are made instead of a thousand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

GATHER_S = 0.05
"""How long the first job waits for others."""

Terminate = Callable[[Sequence[str], str], Awaitable[Mapping[str, Exception]]]
"""Ends up to `batch.MAX_TERMINATED` jobs for a reason, and returns the errors of those that it could not end."""


class Stops:
    """Jobs of one account that are to be ended."""

    def __init__(self, terminate: Terminate, at_once: int) -> None:
        """Make it.

        Args:
            terminate: Ends jobs.
            at_once: Most jobs in one call of ``terminate``.
        """
        self._terminate = terminate
        self._at_once = at_once
        self._asked: dict[str, dict[str, asyncio.Future[None]]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def end(self, job_id: str, reason: str) -> None:
        """End a job, in every state. A job that has ended stays as it is.

        Raises:
            AwsError: AWS did not end this job. Errors of other jobs in the same call are not raised.
        """
        asked = self._asked.setdefault(reason, {})
        if not asked:
            sending = asyncio.create_task(self._send(reason), name="cirro-stops")
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        if job_id not in asked:
            asked[job_id] = asyncio.get_running_loop().create_future()
        # The job is ended also if the caller is cancelled.
        await asyncio.shield(asked[job_id])

    async def aclose(self) -> None:
        """End the jobs that are left."""
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send(self, reason: str) -> None:
        await asyncio.sleep(GATHER_S)
        asked = self._asked.pop(reason)
        ids = list(asked)
        chunks = [ids[start : start + self._at_once] for start in range(0, len(ids), self._at_once)]
        await asyncio.gather(*(self._end(chunk, reason, asked) for chunk in chunks))

    async def _end(self, ids: list[str], reason: str, asked: Mapping[str, asyncio.Future[None]]) -> None:
        try:
            refused = await self._terminate(ids, reason)
        except Exception as error:
            refused = dict.fromkeys(ids, error)
        for job_id in ids:
            if job_id in refused:
                asked[job_id].set_exception(refused[job_id])
                asked[job_id].exception()  # marks the error as seen: the caller may have stopped waiting
            else:
                asked[job_id].set_result(None)
