"""Fetches the results of a map: the list of all results, or an error that says which items failed and why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from covalent_cirro.aws import job_logs
from covalent_cirro.aws.batch import job_name
from covalent_cirro.contract import nested
from covalent_cirro.contract.failed_pickle import pickle_of_failed
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import LOG_TAIL_BYTES
from covalent_cirro.contract.maps import MAX_FAILURES_TOLD, Mapped
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Log, Outcome
from covalent_cirro.contract.references import Blob, Inline
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron.call_writer import read_call
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.handover import EndedJob
from covalent_cirro.electron.maps import map_outcomes, map_tries
from covalent_cirro.electron.maps.child_ends import ChildEnd, ChildEnds, MapTry, jobs_of
from covalent_cirro.electron.maps.list_writer import ListWriter
from covalent_cirro.electron.maps.map_logs import MapLog
from covalent_cirro.electron.maps.map_outcomes import Whole
from covalent_cirro.electron.result_writer import Received, measure, replacing, write_text
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs import states
from covalent_cirro.jobs.ends import End
from covalent_cirro.jobs.explanations import Explanation, JobLinks, awss_words, explain
from covalent_cirro.jobs.further_tries import lines
from covalent_cirro.jobs.item_failures import ItemFailures
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

_NOT_TOLD = f"(of more than {MAX_FAILURES_TOLD:,} failures of a job, only the first messages are kept)"

Link = Callable[[JobDetail | None], JobLinks]


async def write_map(
    engine: Engine, settings: Settings, place: Location, node: Node, ended: EndedJob, link: Link
) -> Received:
    """Write how a mapped electron ended into its files.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        place: The call.
        node: The electron.
        ended: What is known of the job; AWS Batch is asked for what is missing.
        link: Links to a job in the AWS console.

    Raises:
        OutcomeError: The job has not ended, its call has expired, or what its jobs stored was refused.
        AwsError: AWS cannot be asked.
        LocalFileError: A file could not be written.
    """
    written = await read_call(engine.store, place)
    mapped = written.call.tasks[0].mapped if written is not None else None
    if written is None or mapped is None:
        raise OutcomeError(f"{place.call_uri}, which says how the items were shared, is not there any more.")
    parent = await _parent(engine, settings, place, node, ended)
    if parent is not None and not parent.is_terminal:
        raise OutcomeError(f"AWS Batch job {parent.job_id} has not ended: it is {parent.state}. The job goes on.")
    job_id = parent.job_id if parent is not None else ended.job_id
    tries = [*await map_tries.earlier(engine, place, written.call), MapTry(place, mapped, job_id, parent)]
    jobs = ChildEnds(engine, jobs_of(tries))
    results = _Results(engine, settings, place, node, mapped, parent, link)
    path = node.paths["output"]
    try:
        with replacing(path) as file:
            await results.take(jobs, ListWriter(file, mapped.length))
    except _NoListError:
        pass
    files = {}
    if results.list is not None:
        await asyncio.to_thread(results.list.check, path, mapped.length)
        if results.list.chunks is not None and not results.list.names_stored_values:
            bodies = tuple(chunk.body for chunk in results.list.chunks)
            engine.joined.remember(path, bodies, place.bucket, place.prefix)
        files["output"] = await asyncio.to_thread(measure, path)
    where = f"{place.dispatch_id}:{node.node_id}"
    before = lines(written.call.tried)
    error = "" if results.list is not None else results.error(parent, job_id, ended.not_again)
    texts = {
        "stdout": results.logs["stdout"].text(where),
        "stderr": before + results.logs["stderr"].text(where),
        "error": error,
    }
    if parent is not None and (len(mapped.children) > 1 or len(tries) > 1):
        whole = results.outcome(parent, {key: texts[key] for key in results.logs}, error)
        if whole is not None:
            await map_outcomes.store(engine.store, place, parent, whole)
    for key, text in texts.items():
        files[key] = await asyncio.to_thread(write_text, node.paths[key], text)
    return Received(node.node_id, not error, files, results.end if error else End.SUCCEEDED)


async def _parent(engine: Engine, settings: Settings, place: Location, node: Node, ended: EndedJob) -> JobDetail | None:
    """The array job, or the only job, after its end; `None` where AWS Batch does not know it any more."""
    if ended.detail is not None or ended.forgotten:
        return ended.detail
    job_id = ended.job_id or await engine.batch.find(
        settings.queue, settings.queue_option, job_name(node.name, place.dispatch_id, node.node_id, place.call_id)
    )
    return await engine.batch.job(job_id) if job_id else None


class _NoListError(Exception):
    """Items failed, so that there is no list of results."""


class _Unfinished(NamedTuple):
    """Why a job did not compute all of its items.

    Attributes:
        explanation: What users read.
        not_run: The items were not computed because another item had failed.
    """

    explanation: Explanation | None
    not_run: bool = False


class _Results:
    """Takes the results of the jobs of a map, one after the other.

    Attributes:
        list: The list that was written; `None`: there is none, since items failed.
        logs: The logs by stream.
        end: Kind of the end of the first item that failed.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        place: Location,
        node: Node,
        mapped: Mapped,
        parent: JobDetail | None,
        link: Link,
    ) -> None:
        self.list: ListWriter | None = None
        self.logs = {stream: MapLog(stream) for stream in ("stdout", "stderr")}
        self.end = End.STOPPED
        self._engine = engine
        self._settings = settings
        self._place = place
        self._node = node
        self._mapped = mapped
        self._link = link
        self._failed = ItemFailures()
        self._not_run = 0
        self._whole = Whole()
        self._log_was_read = False
        self._stopped = parent is not None and parent.status_reason.startswith(states.ITEM_FAILED_REASON)

    @property
    def _returns(self) -> bool:
        return self._mapped.on_error == "return"

    async def take(self, jobs: ChildEnds, to: ListWriter) -> None:
        """Write the list.

        Raises:
            _NoListError: Items failed, and their errors are not their results.
        """
        async for child in jobs.read(with_bodies=True):
            failures = child.failures
            for each in failures:
                self._fail([each.item], each.failure.message, each.failure.traceback, End.RAISED)
            for items in child.failures_not_told:
                self._fail(items, _NOT_TOLD, "", End.RAISED)
            unfinished = None if child.is_complete else await self._unfinished(child)
            if unfinished is not None:
                self._add_unfinished(child, unfinished)
            if child.outcome is not None:
                self._whole.add(child.outcome)
            if child.result is not None:
                for log_of in self.logs.values():
                    log_of.add(child.job, child.result, failed=bool(failures or unfinished))
            if self._returns or not (self._failed.count or self._not_run):
                await self._write(child, unfinished, to)
        if not self._returns and (self._failed.count or self._not_run):
            raise _NoListError
        to.close()
        self.list = to

    def _fail(self, items: range | list[int], error: str, details: str, end: End) -> None:
        if not self._failed.count:
            self.end = end
        self._failed.add(items, error, details)

    def _add_unfinished(self, child: ChildEnd, unfinished: _Unfinished) -> None:
        items = range(child.done, child.job.until)
        if unfinished.explanation is None:
            self._not_run += len(items)
        else:
            told = unfinished.explanation
            self._fail(items, told.what, told.text, told.end)

    async def _write(self, child: ChildEnd, unfinished: _Unfinished | None, to: ListWriter) -> None:
        store = self._engine.store
        chunks = child.result.items.chunks if child.result is not None and child.result.items is not None else ()
        for chunk in chunks:
            if chunk.stop > child.job.until:  # a further try has computed these items
                break
            data = child.bodies.get(chunk.body) if isinstance(chunk.body, Blob) else None
            await to.add(store, self._place, chunk.stop, chunk.body, data)
        if unfinished is not None:
            why = unfinished.explanation
            text = why.text.strip() if why is not None else "It was not computed, since another item had failed."
            one = nested.item_of(pickle_of_failed(text))
            for item in range(child.done, child.job.until):
                await to.add(store, self._place, item + 1, Inline(one))

    async def _unfinished(self, child: ChildEnd) -> _Unfinished:
        """Why a job did not compute all of its items."""
        failure = child.result.failure if child.result is not None else None
        detail = child.detail
        stopped = self._stopped and detail is not None and detail.terminated
        stopped = stopped and not (detail is not None and states.was_stopped_with_its_items(detail))
        if self._mapped.on_error == "stop" and (stopped or (failure is not None and failure.kind == Kind.ITEMS)):
            return _Unfinished(None, not_run=True)
        evidence = child.evidence._replace(log=await self._log_of(child))
        return _Unfinished(
            explain(evidence, self._settings, self._node.name, self._node.node_id, self._link(child.detail))
        )

    async def _log_of(self, child: ChildEnd) -> str:
        """The end of the log of a job, for an explanation: of the first job without an outcome it is looked for."""
        if child.outcome is not None and child.result is not None:
            return job_logs.of_outcome(child.result)
        if self._log_was_read or child.detail is None:
            return ""
        self._log_was_read = True
        engine, group = self._engine, self._settings.batch_job_log_group_name
        parts = await job_logs.parts_of(engine.store, child.job.place)
        return await job_logs.of_job(
            engine.store, engine.logs, engine.access, child.job.place, parts, child.detail, group
        )

    def outcome(self, parent: JobDetail, logs: Mapping[str, str], error: str) -> Outcome | None:
        """The outcome of the whole map; `None` where it is not to be stored.

        Args:
            parent: The array job.
            logs: What the jobs printed, by stream.
            error: The electron's error; empty if it has a result.
        """
        chunks = self.list.chunks if self.list is not None else []
        if chunks is None or (self._failed.count and not error):
            return None  # too much, or results that are errors, which nobody reuses
        if self.list is not None and self.list.names_stored_values:
            return None  # who reuses the list must not hand it on unread
        said = self._failed.told(self._mapped.length) if self._failed.count else error
        failure = Failure(Kind.ITEMS, said, error) if error else None
        stdout, stderr = (_end_of(logs[stream]) for stream in ("stdout", "stderr"))
        return self._whole.outcome(
            self._place, parent, self._node.node_id, self._mapped.length, tuple(chunks), failure, (stdout, stderr)
        )

    def error(self, parent: JobDetail | None, job_id: str, note: str) -> str:
        """The error of the electron: which items failed and why.

        Args:
            parent: The array job, or the only job.
            job_id: Its id; empty where it is not known.
            note: Why it was not submitted again although it should have been.
        """
        mapped = self._mapped
        electron = f"{self._node.name!r} (node {self._node.node_id})"
        size = len(mapped.children)
        jobs = f" (an array of {size:,} jobs)" if size > 1 else ""
        sections = [f"{electron}: {self._failed.whole(mapped.length)}" if self._failed.count else f"{electron}:"]
        if self._not_run:
            sections.append(f"{self._not_run:,} items were not computed, since an item had failed (on_error='stop').")
        if note:
            sections.append(note)
        sections.append(
            f"AWS Batch job {job_id or '(id not kept)'}{jobs} in queue "
            f"{(parent.queue if parent is not None else '') or self._settings.queue}\n"
            f"AWS says: {awss_words(parent) or 'nothing of its end'}"
        )
        return "\n\n".join(sections) + "\n"


def _end_of(text: str) -> Log:
    """The end of a text as a log: the whole text is in Covalent's file, and in the logs of the jobs."""
    tail = text.encode("utf-8", "replace")[-LOG_TAIL_BYTES:].decode("utf-8", "ignore")
    return Log(len(tail.encode()), (), tail)
