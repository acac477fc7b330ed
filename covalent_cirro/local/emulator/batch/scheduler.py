"""Decides what happens to jobs: states, dependencies, placement, retries, stops. No threads, no clock, no I/O.

Every method takes the time and returns nothing; what has to be done is appended to `Scheduler.actions`, which the
caller carries out after the method has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from covalent_cirro.local.emulator.batch import consumables, dependencies, fair_shares, multi_node, retries
from covalent_cirro.local.emulator.batch.actions import Action, Changed, Kill, Launch, Stop
from covalent_cirro.local.emulator.batch.fleet import Fleet
from covalent_cirro.local.emulator.batch.model import (
    ACTIVE,
    FAILED,
    PENDING,
    RUNNABLE,
    RUNNING,
    SPOT_STOP,
    STARTING,
    SUBMITTED,
    SUCCEEDED,
    Attempt,
    Host,
    Job,
    JobQueue,
    Timing,
)

ESSENTIAL_EXITED = "Essential container in task exited"
"""``statusReason`` of an attempt whose container exited (ECS Developer Guide, stopped task errors)."""
DEPENDENCY_FAILED = "Dependent Job failed"
CHILD_FAILED = "Array Child Job failed"
OVERRIDES_LIMIT = 8192
"""Characters of the overrides' JSON (ECS API Reference, RunTask.overrides)."""
OVERRIDES_TOO_LONG = f"Container Overrides length must be at most {OVERRIDES_LIMIT}"


def _forever() -> float:
    return float("inf")


@dataclass
class Scheduler:
    """The state of all jobs of one account and region.

    Attributes:
        fleet: Hosts and how to get more.
        timing: Durations.
        new_attempt: Makes an attempt of a job on a host, with ids and the log stream's name.
        stuck: The reason why a fault keeps a job RUNNABLE; `None`: no fault does.
        queues: By ARN.
        jobs: By id, children and nodes included.
        actions: What has to be carried out, oldest first.
        next_due: When `advance` must be called again if nothing else happens.
    """

    fleet: Fleet
    timing: Timing
    new_attempt: Callable[[Job, Host, list[str]], Attempt]
    stuck: Callable[[Job], str | None] = lambda job: None
    queues: dict[str, JobQueue] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    next_due: float = field(default_factory=_forever)
    _dependents: dict[str, list[Job]] = field(default_factory=dict)
    _fresh: list[Job] = field(default_factory=list)
    _booked: dict[str, Job] = field(default_factory=dict)
    _active: dict[str, Job] = field(default_factory=dict)
    _ended: dict[str, Job] = field(default_factory=dict)
    _newly_ended: list[Job] = field(default_factory=list)

    # --- what happens to jobs ---------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job, with its children if it is an array's parent, with its nodes if it has several."""
        for each in (job, *job.children, *job.nodes):
            self.jobs[each.id] = each
        job.summary.update(child.status for child in job.children)
        self._fresh.append(job)

    def started(self, job: Job, attempt: Attempt, now: float) -> None:
        """The attempt's process runs."""
        if job.attempt is not attempt or job.status != STARTING:
            return
        attempt.started_at = now
        job.started_at = now
        self.set_status(job, RUNNING, now)
        if job.is_main_node:
            multi_node.main_node_started(self, job, now)

    def stopped(self, job: Job, attempt: Attempt, now: float) -> None:
        """The attempt ended; it has its exit code and reasons already."""
        if job.attempt is not attempt:
            return
        attempt.stopped_at = now
        attempt.host.give_back(job, attempt.gpus, now)
        if attempt.host.single_use:
            self.fleet.release(attempt.host)
        job.attempt = None
        job.attempts.append(attempt)
        self._active.pop(job.id, None)
        if job.node_index is None:
            self.decide(job, attempt, now)
        else:
            multi_node.node_stopped(self, job, attempt, now)

    def decide(self, job: Job, attempt: Attempt, now: float) -> None:
        """What the end of an attempt means for the job: its end, or another attempt."""
        status, reason = retries.outcome(job, attempt)
        if status == RUNNABLE:
            job.status_reason = reason
            job.runnable_at = now
            job.queue.runnable.insert(0, job)
            self.set_status(job, RUNNABLE, now)
        else:
            self.end(job, status, reason, now)

    def cancel(self, job: Job, reason: str, now: float) -> None:
        """CancelJob: jobs that are not STARTING yet end; others go on."""
        self._ask_to_stop(job, reason, now, terminate=False)

    def terminate(self, job: Job, reason: str, now: float) -> None:
        """TerminateJob: running jobs are stopped too."""
        self._ask_to_stop(job, reason, now, terminate=True)

    def lose(self, host: Host, now: float) -> None:
        """Terminate an instance, with the attempts on it."""
        for job in list(host.jobs.values()):
            attempt = job.attempt
            booked = job if job.node_index is None else job.parent
            reason = host.loss_reason
            if booked is not None and booked.id in self._booked:
                self._unbook(booked, now)
                if not booked.attempts:
                    consumables.give_back(booked, self.fleet.consumables, used=False)
            elif job.place is not None:
                multi_node.end_unstarted(self, job, reason, now)
            elif attempt is not None and attempt.host is host:
                attempt.lost = True
                attempt.exit_code = None
                attempt.reason = None
                attempt.status_reason = reason
                self.actions.append(Kill(job, attempt))
                self.stopped(job, attempt, now)
        self.fleet.release(host)

    def interrupt(self, host: Host) -> None:
        """Stop the task on a host of Fargate Spot: SIGTERM is the notice, SIGKILL follows after the grace period."""
        for job in host.jobs.values():
            attempt = job.attempt
            if attempt is not None and attempt.host is host and attempt.stopping is None:
                attempt.stopping = SPOT_STOP
                self.actions.append(Stop(job, attempt))

    # --- time -------------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Do all that is due and set `next_due`."""
        self.next_due = float("inf")
        self._time_out(now)
        self._update_environments(now)
        self._evaluate(now)
        for queue in sorted(self.queues.values(), key=lambda queue: -queue.priority):
            self._place(queue, now)
        self._due(self.fleet.settle(now, self.timing.scaled(self.timing.idle_s)))
        self._expire(now)

    def _due(self, at: float) -> None:
        self.next_due = min(self.next_due, at)

    def _time_out(self, now: float) -> None:
        for job in list(self._active.values()):
            attempt = job.attempt
            if attempt is None or attempt.started_at is None or job.timeout_s is None or attempt.stopping:
                continue
            at = attempt.started_at + self.timing.scaled(job.timeout_s)
            if at <= now:
                self.stop([job] if job.parent is None else job.parent.nodes or [job], "timeout")
            else:
                self._due(at)

    def _update_environments(self, now: float) -> None:
        """End jobs that an infrastructure update let run on old instances, once their time is over."""
        for environment in self.fleet.environments.values():
            if environment.jobs_end_at is None:
                continue
            if environment.jobs_end_at > now:
                self._due(environment.jobs_end_at)
                continue
            for host in [host for host in self.fleet.of(environment) if host.outdated]:
                self.lose(host, now)
        self.fleet.end_updates()

    def _evaluate(self, now: float) -> None:
        fresh, self._fresh = self._fresh, []
        for job in fresh:
            at = job.created_at + self.timing.scaled(self.timing.submitted_s)
            if at > now:
                self._fresh.append(job)
                self._due(at)
            elif job.status == SUBMITTED:
                dependencies.wait(job, self.jobs, self._dependents)
                if job.children:
                    self.set_status(job, PENDING, now)
                for each in job.children or [job]:
                    self._ready_or_pending(each, now)

    def _ready_or_pending(self, job: Job, now: float) -> None:
        if job.terminal:
            return
        if "failed" in job.waits_for:
            self.end(job, FAILED, job.stop_reason or DEPENDENCY_FAILED, now)
        elif job.waits_for:
            if job.status != PENDING:
                self.set_status(job, PENDING, now)
        elif job.stop_reason is not None:
            self.end(job, FAILED, job.stop_reason, now)
        elif job.overrides_size > OVERRIDES_LIMIT:
            self.end(job, FAILED, OVERRIDES_TOO_LONG, now)
        else:
            job.runnable_at = now
            job.queue.runnable.append(job)
            self.set_status(job, RUNNABLE, now)

    def _place(self, queue: JobQueue, now: float) -> None:
        """Start the jobs that can start, in order. The first one that gets no host blocks all after it (FIFO)."""
        policy = self.fleet.policies.get(queue.policy_arn or "")
        for job in [each for each in self._booked.values() if each.queue is queue]:
            self._start_when_ready(job, now)
        while True:
            # A generator: of 10,000 jobs that wait, only the first is looked at.
            waiting = (each for each in queue.runnable if each.id not in self._booked)
            first = next(waiting, None)
            if first is None:
                return
            job = (
                first
                if policy is None
                else fair_shares.first([first, *waiting], self._active.values(), policy.fairshare)
            )
            reason = self.stuck(job)
            hosts: list[Host] = []
            if reason is None and not consumables.take(job, self.fleet.consumables):
                self._block(job, None, now)
                return
            if reason is None:
                hosts, reason = self.fleet.place(job, queue, now)
            if not hosts:
                if not job.attempts:
                    consumables.give_back(job, self.fleet.consumables, used=False)
                self._block(job, reason, now)
                return
            for each, host in zip(job.placed, hosts, strict=True):
                each.place = (host, host.take(each))
            self._booked[job.id] = job
            if not self._start_when_ready(job, now):
                self._block(job, None, now)

    def _start_when_ready(self, job: Job, now: float) -> bool:
        """Start a job that has its hosts, once all of them have booted; returns whether it was started."""
        ready_at = max(each.place[0].ready_at for each in job.placed if each.place is not None)
        if ready_at > now:
            self._due(ready_at)
            return False
        del self._booked[job.id]
        job.queue.runnable.remove(job)
        if job.nodes:
            multi_node.start(self, job, now)
        else:
            self.begin(job, now)
        return True

    def begin(self, job: Job, now: float) -> None:
        """Begin an attempt of a job, or of a node, on the host that is kept for it."""
        assert job.place is not None
        host, gpus = job.place
        job.place = None
        job.attempt = self.new_attempt(job, host, gpus)
        job.status_reason = None
        self._active[job.id] = job
        self.set_status(job, STARTING, now)
        self.actions.append(Launch(job, job.attempt))

    def _leave_queue(self, job: Job, now: float) -> None:
        job.queue.runnable.remove(job)
        if job.id in self._booked:
            self._unbook(job, now)

    def _unbook(self, job: Job, now: float) -> None:
        del self._booked[job.id]
        for each in job.placed:
            multi_node.give_back_place(each, now)

    def stop(self, jobs: Iterable[Job], why: str) -> None:
        """Stop the attempts of these jobs that run and are not being stopped; ``why`` is an `Attempt.stopping`."""
        for job in jobs:
            if job.attempt is not None and job.attempt.stopping is None:
                job.attempt.stopping = why
                self.actions.append(Stop(job, job.attempt))

    def _block(self, job: Job, reason: str | None, now: float) -> None:
        if reason != job.status_reason and (reason is not None or job.attempts == []):
            job.status_reason = reason
            if reason is not None:
                self.actions.append(Changed(job, job.status, blocked=True))
        if reason is None or job.runnable_at is None:
            return
        for action in job.queue.body.get("jobStateTimeLimitActions", []):
            if not reason.startswith(action["reason"]):
                continue
            at = job.runnable_at + self.timing.scaled(action["maxTimeSeconds"])
            if at > now:
                self._due(at)
                continue
            self._leave_queue(job, now)
            text = f"Canceled by JobStateTimeLimit action due to reason: {action['reason']}"
            self.end(job, FAILED, text, now)
            self._due(now)
            return

    def _expire(self, now: float) -> None:
        expiry = self.timing.scaled(self.timing.expiry_s)
        while self._ended:
            job = next(iter(self._ended.values()))  # the one that ended first
            at = (job.stopped_at or now) + expiry
            if at > now:
                self._due(at)
                return
            del self._ended[job.id]
            if job.parent is None:
                for each in (job, *job.children, *job.nodes):
                    self.jobs.pop(each.id, None)

    # --- states -----------------------------------------------------------------------------------------------------

    def set_status(self, job: Job, status: str, now: float) -> None:
        """Set the state of a job; its nodes have it too until they start."""
        before, job.status = job.status, status
        parent = job.parent
        if parent is not None and parent.children:
            parent.summary[before] -= 1
            parent.summary[status] += 1
            parent.summary_at = now
        self.actions.append(Changed(job, status))
        if status in (PENDING, RUNNABLE):
            for node in job.nodes:
                node.stopped_at = None
                self.set_status(node, status, now)

    def end(self, job: Job, status: str, reason: str | None, now: float) -> None:
        """End a job, and go on with the jobs that wait for it."""
        consumables.give_back(job, self.fleet.consumables, used=bool(job.attempts))
        job.status_reason = reason
        job.stopped_at = now
        self.set_status(job, status, now)
        for node in job.nodes:
            if node.attempt is None and not node.terminal:
                multi_node.end_unstarted(self, node, reason, now)
        self._ended[job.id] = job
        self._newly_ended.append(job)
        if len(self._newly_ended) > 1:
            return  # the loop below, in a caller of this call, gets to it: a chain of 10,000 jobs must not recurse
        while self._newly_ended:
            self._notify_dependents(self._newly_ended[0], now)
            self._newly_ended.pop(0)

    def _notify_dependents(self, job: Job, now: float) -> None:
        """A job ended: go on with the jobs that wait for it, and with its array."""
        for waiting in self._dependents.pop(job.id, []):
            waiting.waits_for.discard(job.id)
            if job.status == FAILED:
                waiting.waits_for.add("failed")
            # The children of an array are in the list of those that wait, too.
            if not waiting.children and waiting.status in (SUBMITTED, PENDING):
                self._ready_or_pending(waiting, now)
        parent = job.parent
        if parent is None or parent.terminal:
            return
        if parent.summary[SUCCEEDED] + parent.summary[FAILED] == len(parent.children):
            failed = parent.summary[FAILED] > 0
            reason = (parent.stop_reason or CHILD_FAILED) if failed else None
            self.end(parent, FAILED if failed else SUCCEEDED, reason, now)

    def _ask_to_stop(self, job: Job, reason: str, now: float, *, terminate: bool) -> None:
        if job.terminal:
            return
        if not terminate and job.status in ACTIVE:
            return  # CancelJob does nothing to these, and says 200 all the same
        if job.stop_reason is None:
            job.stop_reason = reason
        if terminate:
            job.terminated = True
        else:
            job.cancelled = True
        for node in job.nodes:
            node.stop_reason, node.terminated, node.cancelled = job.stop_reason, job.terminated, job.cancelled
        if job.children:
            for child in job.children:
                self._ask_to_stop(child, reason, now, terminate=terminate)
        elif job.status == RUNNABLE:
            self._leave_queue(job, now)
            self.end(job, FAILED, job.stop_reason, now)
        elif job.status in ACTIVE:
            self.stop(job.placed, "terminate")
        # SUBMITTED: when it is evaluated; PENDING: once its dependencies are done (API model, CancelJob).
