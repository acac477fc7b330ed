"""Waits for jobs, together: all waits of one engine share the same DescribeJobs calls.

Which ids go into a call is `watchlist.py`'s matter; what an end means is `jobs.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from covalent_cirro.electron.engine.watchlist import FLOOR_S, MISSING_GRACE_S, Watchlist
from covalent_cirro.errors import AwsError, JobLost, PollFailed
from covalent_cirro.jobs.states import JobDetail

log = logging.getLogger(__name__)

MAX_BACKOFF_S = 30.0
"""Longest pause between two calls while AWS throttles or fails."""

MAX_BLIND_S = 900.0
"""After this long without one good answer, every wait fails: better loud than silent."""


class Watcher:
    """One task that looks at all watched jobs. It runs only while somebody waits."""

    def __init__(
        self,
        describe: Callable[[Iterable[str]], Awaitable[list[JobDetail]]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make a watcher over ``describe``, which asks AWS once for up to 100 ids and raises `AwsError`."""
        self._describe = describe
        self._clock = clock
        self._sleep = sleep
        self._watchlist = Watchlist()
        self._waits: dict[str, list[_JobWait]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._last_call = float("-inf")

    async def wait(
        self, job_id: str, *, ceiling_s: float = 10.0, on_state: Callable[[JobDetail], None] | None = None
    ) -> JobDetail:
        """Wait until a job has ended.

        All waits share their calls: up to 100 ids a call, calls at least 1 s apart, the most overdue job first. A job's
        end is seen within a hundredth of the time it ran, at least 1 s and at most ``ceiling_s``; with more than 100
        jobs running at once, within ``ceil(n / 100)`` s.

        Args:
            job_id: Id given by SubmitJob, or ``"<parent>:<index>"`` for an array child.
            ceiling_s: Seconds between two looks at this job, at most.
            on_state: Called, on the loop, with the first sight of the job and each change but the last: of its state,
                its status reason, its log or its attempts.

        Returns:
            The job as it ended, SUCCEEDED or FAILED.

        Raises:
            JobLost: AWS did not know the id for `MISSING_GRACE_S`.
            PollFailed: No good answer for `MAX_BLIND_S`, or one that cannot get better (access denied).
            asyncio.CancelledError: Only this wait ends; the job and all other waits go on.

        Source:
            AWS Batch API Reference, DescribeJobs: "A list of up to 100 job IDs."
        """
        wait = _JobWait(asyncio.get_running_loop().create_future(), on_state)
        self._waits.setdefault(job_id, []).append(wait)
        if job_id not in self._watchlist:
            self._watchlist.add(job_id, self._clock(), ceiling_s)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="cirro-watcher")
        try:
            return await wait.ended
        finally:
            self._waits[job_id].remove(wait)
            if not self._waits[job_id]:
                del self._waits[job_id]
                self._watchlist.remove(job_id)

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waits)

    async def aclose(self) -> None:
        """Stop looking. Waits that are left fail with `PollFailed`."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._fail_all(PollFailed("The wait for the job was ended: the server is shutting down. The job goes on."))

    async def _look(self) -> None:
        try:
            await self._look_until_idle()
        except Exception as error:  # a fault of ours must not leave everybody waiting for ever
            log.exception("The wait for AWS Batch jobs broke")
            self._fail_all(PollFailed(f"The wait for the job broke: {error!r}. The job goes on."))

    async def _look_until_idle(self) -> None:
        good = self._clock()
        failures = 0
        while self._waits:
            due = self._watchlist.next_due()
            now = self._clock()
            # Calls are FLOOR_S apart whoever comes and goes: the rate is one a second at most.
            pause = max(due if due is not None else now, self._last_call + FLOOR_S) - now
            if failures:
                pause = max(pause, min(MAX_BACKOFF_S, FLOOR_S * 2**failures))
            if pause > 0:
                # New waits must not sleep through a long pause; nothing is due sooner than FLOOR_S anyway.
                await self._sleep(min(pause, FLOOR_S) if not failures else pause)
                if not failures and pause > FLOOR_S:
                    continue
            # Frozen here: a job that joins during the call is for the next one.
            ids = self._watchlist.pick(self._clock())
            if not ids:
                continue
            self._last_call = self._clock()
            try:
                details = await self._describe(ids)
            except AwsError as error:
                failures += 1
                blind_s = self._clock() - good
                if not error.retryable or blind_s > MAX_BLIND_S:
                    tried = f" for {blind_s:.0f} s" if error.retryable else ""
                    self._fail_all(
                        PollFailed(f"The job's state cannot be learnt{tried}: {error} The job goes on in AWS Batch."),
                        error,
                    )
                    good, failures = self._clock(), 0
                else:
                    log.warning("DescribeJobs failed %d times, next try in %.0f s: %s", failures, 2.0**failures, error)
                continue
            good, failures = self._clock(), 0
            self._take(ids, details)

    def _take(self, ids: list[str], details: list[JobDetail]) -> None:
        now = self._clock()
        found = {detail.job_id: detail for detail in details}
        for job_id in ids:
            detail = found.get(job_id)
            if detail is not None:
                self._watchlist.saw(job_id, detail.state, now)
                for wait in self._waits.get(job_id, ()):
                    wait.tell(detail)
            elif self._watchlist.missed(job_id, now):
                lost = JobLost(
                    f"AWS Batch has not known job {job_id} for {MISSING_GRACE_S:.0f} s. It keeps ended jobs for at "
                    "least 7 days; check that account, region and endpoint are still the same."
                )
                for wait in self._waits.get(job_id, ()):
                    wait.fail(lost)

    def _fail_all(self, error: Exception, cause: Exception | None = None) -> None:
        error.__cause__ = cause
        for waits in self._waits.values():
            for wait in waits:
                wait.fail(error)


class _JobWait:
    """One caller of `Watcher.wait`."""

    def __init__(self, ended: asyncio.Future[JobDetail], on_state: Callable[[JobDetail], None] | None) -> None:
        self.ended = ended
        self._on_state = on_state
        self._told: tuple[object, ...] | None = None

    def tell(self, detail: JobDetail) -> None:
        if self.ended.done():
            return
        news = (detail.state, detail.status_reason, detail.log_stream, len(detail.attempts))
        if detail.is_terminal:
            self.ended.set_result(detail)
        elif news != self._told:
            self._told = news
            if self._on_state is not None:
                self._on_state(detail)

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
