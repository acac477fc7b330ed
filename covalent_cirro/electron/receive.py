"""Fetches the results of a task group into Covalent's files. What `CirroBatchExecutor.receive` does.

Needs nothing but its arguments and what lies in S3: it runs on another executor object than `send`, maybe in a server
that was started since.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.aws import job_logs
from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import NodeResult, Outcome
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Node, StatusChange
from covalent_cirro.covalent_server.status_board import board
from covalent_cirro.electron import host_nodes
from covalent_cirro.electron.call_writer import earlier_tries
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.handover import EndedHostNodes, EndedJob, Polled, ReusedResults
from covalent_cirro.electron.maps import recognition
from covalent_cirro.electron.maps.joined import StoredList
from covalent_cirro.electron.maps.map_results import write_map, write_reused
from covalent_cirro.electron.patience import retry_until_fixed
from covalent_cirro.electron.result_writer import Received, read_outcome, return_error, write_failure, write_results
from covalent_cirro.electron.reuse import taking
from covalent_cirro.electron.send import engine_for
from covalent_cirro.errors import CirroError, OutcomeError
from covalent_cirro.jobs import console_links, further_tries
from covalent_cirro.jobs.ends import End, Evidence
from covalent_cirro.jobs.explanations import Explanation, JobLinks, explain
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

MAX_NOTE = 4000
"""Characters of why an electron was not submitted again."""


async def receive(settings: Settings, dispatch_id: str, node_ids: Sequence[int], polled: Polled) -> list[Received]:
    """Write the results of a task group into its electrons' files, once what passes is no longer in the way.

    Args:
        settings: Settings of the executor.
        dispatch_id: The dispatch.
        node_ids: The electrons of the task group.
        polled: What `poll.poll` returned, or what somebody else sent to the server.

    Returns:
        The end of each electron.

    Raises:
        OutcomeError: The outcome, or ``polled``, is not of this task group, or the job goes on.
        LocalFileError: A file could not be written.
        AwsError: AWS could not be asked.
    """

    def show_problem(words: str) -> None:
        for node_id in node_ids:
            board().show_problem(dispatch_id, node_id, words)

    return await retry_until_fixed(
        f"Dispatch {dispatch_id}, nodes {list(node_ids)}",
        lambda: _receive(settings, dispatch_id, node_ids, polled),
        then="The job has ended; its result is kept in S3 and fetched as soon as this is put right.",
        on_problem=show_problem,
        on_fixed=lambda: show_problem(""),
    )


async def _receive(settings: Settings, dispatch_id: str, node_ids: Sequence[int], polled: Polled) -> list[Received]:
    """Do what `receive` does, and raise what is in the way. Can be repeated."""
    if isinstance(polled, EndedHostNodes):
        return host_nodes.received(polled.ends)
    place = _place(settings, dispatch_id, node_ids, polled.call)
    group = await asyncio.to_thread(assets.load_group, dispatch_id, node_ids, ())
    if isinstance(polled, EndedJob) and polled.detail is not None and polled.detail.started_at is not None:
        # Covalent's own figure is the time of `send`, and counts the time in the queue.
        started_at = polled.detail.started_at
        changes = [StatusChange(dispatch_id, node_id, "RUNNING", started_at) for node_id in node_ids]
        await asyncio.to_thread(assets.write_statuses, changes)
    async with engine_for(settings) as engine:
        if isinstance(polled, ReusedResults):
            return await _write_reused(engine, settings, place, group.nodes)
        function = group.nodes[node_ids[0]].paths.get("function")
        is_map = function is not None and bool(await asyncio.to_thread(recognition.names_of, function))
        received = await write_ends(engine, settings, place, group.nodes, polled, is_map=is_map)
    if settings.on_error == "return":
        received = [await asyncio.to_thread(return_error, one, group.nodes[one.node_id]) for one in received]
        returned = [one.node_id for one in received if one.end is not End.SUCCEEDED and one.completed]
        if returned:
            log.warning("Dispatch %s: nodes %s failed; their errors are their values (on_error)", dispatch_id, returned)
    return received


async def _write_reused(
    engine: Engine, settings: Settings, place: Location, nodes: Mapping[int, Node]
) -> list[Received]:
    """Write the results of earlier work. Where they are, the electron's own document says, not who sent the data."""
    reused = await taking.document(engine, place)
    if reused.items is not None:
        (node,) = nodes.values()
        return [await write_reused(engine, settings, place, node, reused.items)]
    origin, outcome = await taking.outcome_of(engine, reused)
    explainer = _Explainer(engine, settings, None, outcome)
    received = await write_results(engine.store, origin, outcome, nodes, explainer)
    for result in outcome.results:
        if result.items is not None:  # who needs the list need not upload it
            bodies = StoredList(tuple(chunk.body for chunk in result.items.chunks))
            engine.joined.remember(nodes[result.node_id].paths["output"], bodies, origin.bucket, origin.prefix)
    return received


class _Left(enum.Enum):
    """What a job left in S3."""

    ALL_RESULTS = "an outcome in which every electron has a result"
    FAILURE = "an outcome of the job's last attempt, in which an electron failed"
    EARLIER_RESULT = "an outcome of an earlier attempt, in which an electron has a result and another one failed"
    NO_RESULT = "no outcome, or one of an earlier attempt in which no electron has a result"


class _Rule(NamedTuple):
    """How the electrons of a job are written.

    Attributes:
        job_must_have_ended: A job that AWS Batch shows as not ended is an error, since its outcome is still to come. Of
            one that has ended the log is read, for the errors of electrons without a result.
        writes_outcome: The outcome is written to the electrons' files; else errors alone.
    """

    job_must_have_ended: bool
    writes_outcome: bool


_RULES: Mapping[_Left, _Rule] = {
    _Left.ALL_RESULTS: _Rule(job_must_have_ended=False, writes_outcome=True),
    _Left.FAILURE: _Rule(job_must_have_ended=False, writes_outcome=True),
    _Left.EARLIER_RESULT: _Rule(job_must_have_ended=True, writes_outcome=True),
    _Left.NO_RESULT: _Rule(job_must_have_ended=True, writes_outcome=False),
}


async def write_ends(
    engine: Engine,
    settings: Settings,
    place: Location,
    nodes: Mapping[int, Node],
    ended: EndedJob,
    *,
    is_map: bool = False,
) -> list[Received]:
    """Write how each electron of a call ended into its files: its result, or why there is none.

    Args:
        engine: The account's.
        settings: Settings of the executor.
        place: The call.
        nodes: The electrons of the call.
        ended: What is known of the job; AWS Batch is asked for what is missing, where it is needed.
        is_map: The only electron is mapped.

    Raises:
        OutcomeError: The outcome was refused, or there is none yet and the job goes on.
    """
    if is_map:
        (node,) = nodes.values()
        return [await write_map(engine, settings, place, node, ended, lambda of: links(engine, settings, of))]
    outcome = await read_outcome(engine.store, engine.batch.job, place, ended.detail)
    detail = ended.detail
    if detail is None and not ended.forgotten and (outcome is None or not outcome.succeeded):
        detail = await _ask_batch(engine, ended, outcome)
    rule = _RULES[_left(outcome, detail)]
    text, parts = "", list[str]()
    if rule.job_must_have_ended:
        if detail is not None and not detail.is_terminal:
            raise OutcomeError(
                f"AWS Batch job {detail.job_id} has not ended: it is {detail.state}, and {place.call_uri} has no "
                "outcome. The job goes on."
            )
        parts = await job_logs.parts_of(engine.store, place)
        # The log group of the settings: anybody can send data, and must not choose which log is read.
        group = settings.batch_job_log_group_name
        text = await job_logs.of_job(engine.store, engine.logs, engine.access, place, parts, detail, group)
    tried = further_tries.lines(await earlier_tries(engine.store, place)) if ended.tried else ""
    explainer = _Explainer(engine, settings, detail, outcome, text, ended.job_id, ended.not_again[:MAX_NOTE])
    if outcome is not None and rule.writes_outcome:
        return await write_results(engine.store, place, outcome, nodes, explainer, tried)
    return await write_failure(engine.store, place, nodes, parts, explainer, tried)


async def _ask_batch(engine: Engine, ended: EndedJob, outcome: Outcome | None) -> JobDetail | None:
    """The job as AWS Batch shows it now. Where there is an outcome, an error of AWS is as good as no answer."""
    job_id = ended.job_id or (outcome.job_id if outcome is not None else "")
    if not job_id:
        return None
    try:
        return await engine.batch.job(job_id)
    except CirroError as error:
        if outcome is None:
            raise
        log.info("The error of job %s has nothing that AWS Batch knows of the job: %s", job_id, error)
        return None


def _left(outcome: Outcome | None, detail: JobDetail | None) -> _Left:
    if outcome is None:
        return _Left.NO_RESULT
    if outcome.succeeded:
        return _Left.ALL_RESULTS
    failures = [result.failure for result in outcome.results if result.failure is not None]
    # A later attempt ended without an outcome of its own: then this outcome is not how the job ended.
    if not failures or not Evidence(detail, failures[0], attempt=outcome.attempt).is_outdated:
        return _Left.FAILURE
    has_result = any(result.output is not None for result in outcome.results)
    return _Left.EARLIER_RESULT if has_result else _Left.NO_RESULT


class _Explainer:
    """Writes the error texts of the electrons of one call."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        detail: JobDetail | None,
        outcome: Outcome | None,
        log: str = "",
        job_id: str = "",
        note: str = "",
    ) -> None:
        self._settings = settings
        self._detail = detail if detail is not None or outcome is None else JobDetail(outcome.job_id)
        self._job_id = job_id
        self._outcome = outcome
        self._log = log
        self._note = note
        self._place = links(engine, settings, detail)

    def __call__(self, node: Node, result: NodeResult | None, problem: str = "") -> Explanation:
        outcome = self._outcome
        if result is None and outcome is not None:
            result = next((one for one in outcome.results if one.node_id == node.node_id), None)
        evidence = Evidence(
            self._detail,
            failure=result.failure if result is not None else None,
            usage=outcome.usage if outcome is not None else None,
            attempt=outcome.attempt if outcome is not None else 0,
            log=self._log or (job_logs.of_outcome(result) if result is not None else ""),
            problem=problem,
            job_id=self._job_id,
        )
        explanation = explain(evidence, self._settings, node.name, node.node_id, self._place)
        if not self._note:
            return explanation
        return explanation._replace(text=f"{explanation.text}\n{self._note}\n")


def links(engine: Engine, settings: Settings, detail: JobDetail | None) -> JobLinks:
    """Links to a job and its log in the AWS console; empty for an emulator, which has no console."""
    if detail is None or not console_links.is_aws(str(engine.logs.meta.endpoint_url)):
        return JobLinks()
    group = detail.log_group or settings.batch_job_log_group_name
    return JobLinks(
        console_links.job_url(engine.partition, engine.region, detail.job_id),
        console_links.log_url(engine.partition, engine.region, group, detail.log_stream),
    )


def _place(settings: Settings, dispatch_id: str, node_ids: Sequence[int], uri: str) -> Location:
    """The call that a URI names.

    Anybody who reaches the server can send one (Covalent's route for job updates asks for no credentials): it must
    name a call of this task group, in the executor's own bucket, where the executor's roles alone can write.

    Raises:
        OutcomeError: It does not.
    """
    try:
        place = parse_call_uri(uri)
    except ProtocolError as error:
        raise OutcomeError(str(error)) from error
    if f"{settings.key_prefix}jobs/{dispatch_id}/{node_ids[0]}/{place.call_id}/" != place.base:
        raise OutcomeError(f"{uri} is not a call of dispatch {dispatch_id}, node {node_ids[0]}; it was refused.")
    if place.bucket != settings.s3_bucket_name:
        raise OutcomeError(
            f"{uri} is not in s3_bucket_name={settings.s3_bucket_name!r}; it was refused. If that setting was changed "
            "while the job ran, set it back: the result is still there."
        )
    return place
