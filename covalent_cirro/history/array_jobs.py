"""Gives the parent of an array job the attempts of its jobs, which are what took machines and money."""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.history import batch_jobs
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.states import Attempt


class ArrayJobs:
    """The attempts of the jobs of arrays. Those of an array that has ended are read once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ended: dict[str, tuple[Attempt, ...]] = {}

    def with_attempts(self, records: Iterable[Record]) -> list[Record]:
        """The records, with the attempts of all jobs of each array: a DescribeJobs for a hundred jobs."""
        return [self._with_attempts(record) for record in records]

    def _with_attempts(self, record: Record) -> Record:
        if not record.detail.array_size:
            return record
        attempts = self._ended.get(record.job_id)
        if attempts is None:
            attempts = self._read(record)
            if record.has_ended:
                self._ended[record.job_id] = attempts
        return record._replace(detail=record.detail._replace(attempts=attempts))

    def _read(self, record: Record) -> tuple[Attempt, ...]:
        ids = (f"{record.job_id}:{index}" for index in range(record.detail.array_size))
        found: list[Attempt] = []
        for child in batch_jobs.describe(self._account, ids):
            found += child.attempts
            if child.has_machine and child.detail.started_at is not None:
                found.append(Attempt(began_at=child.detail.started_at, host=child.host, cluster=child.cluster))
        return tuple(sorted(found, key=lambda each: (each.ended_at is None, each.ended_at or 0.0)))
