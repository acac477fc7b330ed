"""Stores what electrons returned, and makes the results of the outcome of it. Imported while an electron runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from covalent_cirro.contract import limits
from covalent_cirro.contract.failure_kinds import RUN_AGAIN, Failure, Kind
from covalent_cirro.contract.protocol import Log, NodeResult, Output, Task
from covalent_cirro.contract.references import Inline, Ref
from covalent_cirro.runner import exits
from covalent_cirro.runner.s3 import answers, blob_transfer

if TYPE_CHECKING:
    from covalent_cirro.runner.mapped_job import MappedJob
    from covalent_cirro.runner.s3.job_bucket import JobBucket


class TaskResults:
    """Makes the results of a call's electrons, once all have ended.

    Args:
        bucket: The bucket of the call.
        say: Prints a line on the container's stderr.

    Attributes:
        not_stored: Whether a result could not be stored.
    """

    def __init__(self, bucket: JobBucket, say: Callable[[str], None]) -> None:
        self.not_stored = False
        self._bucket, self._say = bucket, say
        self._inlined = 0

    def of_electron(self, task: Task, answer: Mapping[str, Any] | Failure, logs: Mapping[str, Log]) -> NodeResult:
        """The result of an electron; stores its output.

        Args:
            task: The electron.
            answer: What it returned (`child.py`), or why it failed.
            logs: Its streams by their names.
        """
        output = None
        failure = answer if isinstance(answer, Failure) else None
        if not isinstance(answer, Failure) and self._bucket.where.compute_node is not None:
            output = Output(Inline(b""), Inline(b""))  # what this node returned is dropped
        elif not isinstance(answer, Failure):
            try:
                output = Output(
                    pickle=self._store(answer["pickle"]),
                    string=self._store(answer["string"]),
                    name=answer["name"],
                    doc=answer["doc"],
                )
            except answers.OutOfTime:
                failure = exits.terminated(task.name, None)
            except answers.S3Error as error:
                self.not_stored = True
                failure = Failure(Kind.RUNNER, f"the result of {task.name!r} could not be stored: {error}")
                self._say(failure.message)
        return NodeResult(task.node_id, output, failure, logs["stdout"], logs["stderr"])

    def of_items(
        self, items: MappedJob, task: Task, answer: Mapping[str, Any] | Failure, logs: Mapping[str, Log]
    ) -> NodeResult:
        """The result of a job of a mapped electron; stores the rest of the results of its items.

        Args:
            items: The job's items.
            task: The electron.
            answer: How it ended.
            logs: Its streams by their names.
        """
        failure = answer if isinstance(answer, Failure) and answer.kind != Kind.ITEMS else None
        try:
            items.finish(again=failure is not None and failure.kind in RUN_AGAIN)
        except answers.OutOfTime:
            failure = failure or exits.terminated(task.name, None)
        except (answers.S3Error, OSError) as error:
            self.not_stored = True
            failure = Failure(Kind.RUNNER, f"results of items of {task.name!r} could not be stored: {error}")
            self._say(failure.message)
        failure = failure or items.failure()
        return NodeResult(task.node_id, None, failure, logs["stdout"], logs["stderr"], items.results)

    def _store(self, path: str) -> Ref:
        size = os.path.getsize(path)
        if size <= limits.INLINE_BYTES and self._inlined + size <= limits.INLINE_TOTAL_BYTES:
            self._inlined += size
            with open(path, "rb") as file:
                return Inline(file.read())
        bucket, where = self._bucket, self._bucket.where
        return blob_transfer.store(bucket.client(), where.bucket, where.prefix, path, time.time(), bucket.wait)
