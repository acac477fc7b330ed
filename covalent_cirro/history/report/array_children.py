"""The jobs of arrays, and the nodes of multi-node jobs, for a report: each is described until it has ended."""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.history import batch_jobs
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.compute_nodes import node_id


class ArrayChildren:
    """The jobs of the arrays of a dispatch, and their updates: what has ended is read once.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ended: dict[str, Record] = {}

    def of(self, parents: Iterable[Record]) -> dict[str, list[Record]]:
        """The jobs of each array that has begun, by the id of the array's job, and so the nodes of multi-node jobs.

        Raises:
            AccessDenied, AwsError: AWS Batch did not describe them.
        """
        parents = list(parents)
        ids = {
            parent.job_id: [f"{parent.job_id}:{index}" for index in range(parent.detail.array_size)]
            for parent in parents
            if parent.detail.has_begun
        }
        asked = [each for some in ids.values() for each in some if each not in self._ended]
        found = {record.job_id: record for record in batch_jobs.describe(self._account, asked)}
        self._ended |= {job_id: record for job_id, record in found.items() if record.has_ended}
        known = self._ended | found
        children = {parent: [known[each] for each in some if each in known] for parent, some in ids.items()}
        several = [each for each in parents if each.detail.num_nodes > 1 and (each.has_machine or each.attempts)]
        return children | {parent.job_id: self._nodes(parent) for parent in several}

    def _nodes(self, parent: Record) -> list[Record]:
        """The nodes of a multi-node job but the main one, whose attempts are those of the job."""
        ids = {number: node_id(parent.job_id, number) for number in range(1, parent.detail.num_nodes)}
        asked = [number for number, each in ids.items() if each not in self._ended]
        found = {each.job_id: each for each in batch_jobs.nodes_of(self._account, parent, asked).values()}
        if parent.has_ended:  # until then a node may begin again
            self._ended |= {job_id: record for job_id, record in found.items() if record.has_ended}
        known = self._ended | found
        return [known[each] for each in ids.values() if each in known]
