"""Ends jobs together: what is asked for within a moment goes into one call. Knows no electron and no dispatch.

Covalent cancels a dispatch electron by electron, all at once: a sweep of a thousand jobs is 20 calls, not a thousand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

GATHER_S = 0.05
"""How long the first one waits for others."""

Terminate = Callable[[Sequence[str], str], Awaitable[Mapping[str, Exception]]]
"""Ends up to `batch.MAX_TERMINATED` jobs for a reason, and gives the errors of those that it could not end."""


class Stops:
    """The ends that are asked for in one account."""

    def __init__(self, terminate: Terminate, at_once: int) -> None:
        """Make it over ``terminate``, which takes up to ``at_once`` jobs."""
        self._terminate = terminate
        self._at_once = at_once
        self._asked: dict[str, dict[str, asyncio.Future[None]]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def end(self, job_id: str, reason: str) -> None:
        """Ask for a job's end, in whatever state it is. A job that has ended stays as it is.

        Raises:
            AwsError: AWS did not take it. An error of other jobs that went with it is theirs.
        """
        asked = self._asked.setdefault(reason, {})
        if not asked:
            sending = asyncio.create_task(self._send(reason), name="cirro-stops")
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        if job_id not in asked:
            asked[job_id] = asyncio.get_running_loop().create_future()
        # Who asked may be cancelled; the job ends nevertheless.
        await asyncio.shield(asked[job_id])

    async def aclose(self) -> None:
        """Send what was asked for and not sent."""
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
                asked[job_id].exception()  # who asked may be gone: no "never retrieved"
            else:
                asked[job_id].set_result(None)
