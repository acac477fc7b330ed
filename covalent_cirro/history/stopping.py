"""Terminates jobs of electrons without a Covalent server: all that were named, in any state, and no others.

A Covalent server that still waits for such a job takes it for cancelled, by the reason given to TerminateJob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.history import archive, batch_jobs
from covalent_cirro.history import find as finding
from covalent_cirro.history.account import Account
from covalent_cirro.history.names import Wanted
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.states import CANCEL_REASON

ROUNDS = 5
"""How often new jobs are searched for: a server may submit some meanwhile."""


class Stopped(NamedTuple):
    """What became of the jobs.

    Attributes:
        stopped: Jobs that ended because they were terminated here.
        stopping: Jobs that were terminated and have not ended: a container has 30 s from SIGTERM to SIGKILL.
        ended: Jobs that had ended before, or ended by themselves meanwhile.
        refused: By job id, AWS's words for each job that it did not terminate.
        calls_without_job: Number of calls without job and outcome: AWS Batch does not know their jobs any more, or a
            server is about to submit them.
    """

    stopped: tuple[Record, ...]
    stopping: tuple[Record, ...]
    ended: tuple[Record, ...]
    refused: dict[str, str]
    calls_without_job: int = 0


NOTHING = Stopped((), (), (), {})
"""No job was named."""

Find = Callable[[], tuple[list[Record], int]]
"""Finds jobs, and counts the calls that have none."""


def targets(account: Account, wanted: Sequence[Wanted]) -> Find:
    """A function that finds the jobs of named dispatches and electrons. All names are checked before it is returned.

    Raises:
        NoSuchElectron: A name is that of no dispatch or electron, or of several.
    """
    named = [(finding.dispatch_named(account, each.dispatch), each) for each in wanted]
    groups: dict[str, set[int] | None] = {}
    for dispatch_id, each in named:
        if each.node_id is None:
            groups[dispatch_id] = None
        elif groups.get(dispatch_id, set()) is not None:
            found = finding.electron(account, Wanted(dispatch_id, each.node_id))
            # The job of a task group is named by the group's first node.
            nodes = {call.place.node_id for call in found.calls}
            groups[dispatch_id] = (groups.get(dispatch_id) or set()) | nodes

    def find() -> tuple[list[Record], int]:
        records: list[Record] = []
        without = 0
        for dispatch_id, nodes in groups.items():
            kept = [each for each in archive.calls(account, dispatch_id) if nodes is None or each.node_id in nodes]
            mine = [
                record
                for record in finding.jobs_of(account, dispatch_id, kept)
                if nodes is None or record.node_id in nodes
            ]
            called = {record.call for record in mine}
            without += sum(not each.has_outcome and each.place not in called for each in kept)
            records += mine
        return records, without

    return find


def everything(account: Account) -> Find:
    """A function that finds all jobs of electrons that have not ended."""
    return lambda: (finding.unfinished(account), 0)


def stop(account: Account, find: Find, by: str) -> Stopped:
    """Terminate the jobs that ``find`` finds, and search again until it finds no new ones.

    Args:
        account: The account.
        find: From `targets` or `everything`.
        by: User and host, for the reason that AWS Batch keeps.

    Raises:
        AccessDenied, AwsError: AWS did not list the jobs.
    """
    reason = f"{CANCEL_REASON} (cirro stop, by {by})"
    asked: dict[str, Record] = {}
    ended: dict[str, Record] = {}
    refused: dict[str, str] = {}
    without = 0
    for _ in range(ROUNDS):
        records, without = find()
        ended |= {each.job_id: each for each in records if each.has_ended and each.job_id not in asked}
        fresh = [each for each in records if not each.has_ended and each.job_id not in asked]
        if not fresh:
            break
        asked |= {each.job_id: each for each in fresh}
        refused |= batch_jobs.terminate(account, [each.job_id for each in fresh], reason)
    after = {each.job_id: each for each in batch_jobs.describe(account, asked)}
    return _sorted((after.get(job_id, record) for job_id, record in asked.items()), ended, refused, reason, without)


def _sorted(
    asked: Iterable[Record], ended: dict[str, Record], refused: dict[str, str], reason: str, without: int
) -> Stopped:
    stopped: list[Record] = []
    stopping: list[Record] = []
    before = list(ended.values())
    left = dict(refused)
    for record in asked:
        if record.has_ended:
            left.pop(record.job_id, None)
            (stopped if record.detail.status_reason == reason else before).append(record)
        elif record.job_id not in refused:
            stopping.append(record)
    return Stopped(tuple(stopped), tuple(stopping), tuple(before), left, without)
