"""The jobs of arrays for a report: each is described until it has ended, 100 in a call."""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.history import batch_jobs
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record


class ArrayChildren:
    """The jobs of the arrays of a dispatch, and their updates: what has ended is read once.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ended: dict[str, Record] = {}

    def of(self, parents: Iterable[Record]) -> dict[str, list[Record]]:
        """The jobs of each array that has begun, by the id of the array's job; of other jobs nothing.

        Raises:
            AccessDenied, AwsError: AWS Batch did not describe them.
        """
        ids = {
            parent.job_id: [f"{parent.job_id}:{index}" for index in range(parent.detail.array_size)]
            for parent in parents
            if parent.detail.has_begun
        }
        asked = [each for some in ids.values() for each in some if each not in self._ended]
        found = {record.job_id: record for record in batch_jobs.describe(self._account, asked)}
        self._ended |= {job_id: record for job_id, record in found.items() if record.has_ended}
        known = self._ended | found
        return {parent: [known[each] for each in some if each in known] for parent, some in ids.items()}
