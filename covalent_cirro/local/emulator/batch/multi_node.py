"""What AWS Batch does with the nodes of a multi-node parallel job: the main node decides. No threads, no clock, no I/O.

The main node starts first, and once it runs the others start. A job is over when its main node has ended: the others
are stopped then, and only the main node's end decides whether all of them are run again. Another node that fails
changes nothing (User Guide, Multi-node parallel jobs; Job lifecycle for MNP jobs). The User Guide does not say, and so
it is unverified: that another attempt waits until all nodes of the last one have stopped, what the reason of a node is
that was stopped or not started, and that a node which was stopped has the state of its exit code.

`scheduler` calls this for jobs with nodes; it must not know queues.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from covalent_cirro.local.emulator.batch import retries
from covalent_cirro.local.emulator.batch.model import FAILED, RUNNABLE, RUNNING, STARTING, SUCCEEDED, Attempt, Job


class Jobs(Protocol):
    """What `scheduler.Scheduler` does with any job."""

    def begin(self, job: Job, now: float) -> None:
        """Begin an attempt on the host that is kept for the job."""

    def decide(self, job: Job, attempt: Attempt, now: float) -> None:
        """What the end of an attempt means for the job."""

    def stop(self, jobs: Iterable[Job], why: str) -> None:
        """Stop the attempts of these jobs."""

    def set_status(self, job: Job, status: str, now: float) -> None:
        """Set the state."""


def start(jobs: Jobs, job: Job, now: float) -> None:
    """All hosts of a job have booted: start its main node; the others keep theirs."""
    main = job.main_node
    jobs.begin(main, now)
    job.attempt, job.status_reason = main.attempt, None
    jobs.set_status(job, STARTING, now)


def main_node_started(jobs: Jobs, main: Job, now: float) -> None:
    """The main node runs: so does its job, and the other nodes start."""
    job = main.parent
    assert job is not None
    job.started_at = now
    jobs.set_status(job, RUNNING, now)
    if main.attempt is not None and main.attempt.stopping is None:
        for node in job.nodes:
            if node.place is not None:
                jobs.begin(node, now)


def node_stopped(jobs: Jobs, node: Job, attempt: Attempt, now: float) -> None:
    """The attempt of a node ended."""
    job = node.parent
    assert job is not None
    _end_node(jobs, node, SUCCEEDED if attempt.exit_code == 0 else FAILED, attempt.status_reason, now)
    if node.is_main_node:
        job.attempt = None
        job.attempts.append(attempt)
        for other in job.nodes:
            if other.place is not None:
                end_unstarted(jobs, other, attempt.status_reason, now)
        jobs.stop(job.nodes, "main node")
    if job.attempt is not None or job.terminal:
        return
    # Nodes of two attempts must not run at the same time: another attempt begins when all have stopped.
    last = job.attempts[-1]
    if all(each.attempt is None for each in job.nodes) or retries.outcome(job, last)[0] != RUNNABLE:
        jobs.decide(job, last, now)


def end_unstarted(jobs: Jobs, node: Job, reason: str | None, now: float) -> None:
    """End a node that has no attempt: its host was lost, or its job ended before."""
    give_back_place(node, now)
    _end_node(jobs, node, FAILED, reason, now)


def give_back_place(node: Job, now: float) -> None:
    """Free what is kept for a node, or for a job, on the host that boots for it."""
    if node.place is not None:
        host, gpus = node.place
        node.place = None
        host.give_back(node, gpus, now)


def _end_node(jobs: Jobs, node: Job, status: str, reason: str | None, now: float) -> None:
    node.status_reason, node.stopped_at = reason, now
    jobs.set_status(node, status, now)
