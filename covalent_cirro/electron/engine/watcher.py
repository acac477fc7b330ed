"""Waits for jobs: all waits of one engine share the same DescribeJobs calls.

`watchlist.py` chooses the ids of a call. What the end of a job means is decided in the package `jobs`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from covalent_cirro.electron.engine.watchlist import FLOOR_S, MISSING_GRACE_S, Watchlist
from covalent_cirro.errors import AwsError, JobLost, PollFailed
from covalent_cirro.jobs.formatting import sentences
from covalent_cirro.jobs.states import JobDetail, JobState

log = logging.getLogger(__name__)

WITH_MACHINE = (JobState.STARTING.value, JobState.RUNNING.value)
TERMINAL = (JobState.SUCCEEDED.value, JobState.FAILED.value)

MAX_BACKOFF_S = 30.0
"""Longest pause between two calls while AWS throttles or fails."""

MAX_BLIND_S = 900.0
"""Longest time without an answer of AWS; after that, every wait fails with an error."""


class Watcher:
    """Calls DescribeJobs for all jobs that are waited for, in one task, which runs only while there are any."""

    def __init__(
        self,
        describe: Callable[[Iterable[str]], Awaitable[list[JobDetail]]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make it.

        Args:
            describe: DescribeJobs for up to 100 ids; raises `AwsError`.
            clock: Time in seconds.
            sleep: Sleeps for seconds.
        """
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

        All waits share their calls: up to 100 ids in a call, at least 1 s between two calls, the most overdue job
        first. The end of a job is seen within a hundredth of the time that it ran, but not sooner than within 1 s, and
        within ``ceiling_s`` at the latest. While jobs of an array wait for a machine, the array is looked at less often
        (`watchlist`, rule 1). With n jobs that run at once, it is seen within ``ceil(n / 100)`` s.

        Args:
            job_id: Id from SubmitJob, or ``"<parent>:<index>"`` for a child of an array job.
            ceiling_s: Longest time between two looks at this job, in seconds.
            on_state: Called on the loop with the job as it is first seen, and with each later change of its state, its
                status reason, its log, its attempts or the states of its children, except for its end.

        Returns:
            The job after its end, SUCCEEDED or FAILED.

        Raises:
            JobLost: AWS has not known the id for `MISSING_GRACE_S`.
            PollFailed: AWS has not answered for `MAX_BLIND_S`, or refuses to answer (access denied).
            asyncio.CancelledError: This wait was cancelled; the job and all other waits go on.

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

    async def aclose(self) -> None:
        """Stop. Waits that are left fail with `PollFailed`."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._fail_all(PollFailed("The wait for the job was ended: the server is shutting down. The job goes on."))

    async def _look(self) -> None:
        try:
            await self._look_until_idle()
        except Exception as error:  # an error of this module must not leave waits without an end
            log.exception("The wait for AWS Batch jobs broke")
            self._fail_all(PollFailed(f"The wait for the job broke: {error!r}. The job goes on."))

    async def _look_until_idle(self) -> None:
        good = self._clock()
        failures = 0
        while self._waits:
            due = self._watchlist.next_due()
            now = self._clock()
            # At least FLOOR_S is between two calls, whatever waits come and go.
            pause = max(due if due is not None else now, self._last_call + FLOOR_S) - now
            if failures:
                pause = max(pause, min(MAX_BACKOFF_S, FLOOR_S * 2**failures))
            if pause > 0:
                # A long pause is made of short ones, since a new wait is due after FLOOR_S.
                await self._sleep(min(pause, FLOOR_S) if not failures else pause)
                if not failures and pause > FLOOR_S:
                    continue
            # A job that is added during the call is for the next call.
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
                        PollFailed(
                            sentences(f"The job's state cannot be learnt{tried}: {error}", "It goes on in AWS Batch.")
                        ),
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
                ended = detail.children_in(*TERMINAL)
                begun = ended + detail.children_in(*WITH_MACHINE)
                waiting = sum(count for _, count in detail.array_states) - begun
                self._watchlist.saw(job_id, detail.state, now, waiting=waiting, begun=begun, ended=ended)
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
        self._shown: tuple[object, ...] | None = None

    def tell(self, detail: JobDetail) -> None:
        if self.ended.done():
            return
        counts = (detail.array_states, detail.node_states)
        news = (detail.state, detail.status_reason, detail.log_stream, len(detail.attempts), counts)
        if detail.is_terminal:
            self.ended.set_result(detail)
        elif news != self._shown:
            self._shown = news
            if self._on_state is not None:
                self._on_state(detail)

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
