"""The way back: from a job that has ended to Covalent's files. What `CirroBatchExecutor.receive` does.

Needs nothing but what it is given and what lies in S3: it runs on another executor object than `send`, maybe in a
server that was started since.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from covalent_cirro.aws import job_logs
from covalent_cirro.contract.protocol import Location, NodeResult, Outcome, ProtocolError, parse_call_uri
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Node, StatusChange
from covalent_cirro.electron import host_nodes
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.poll import tried_before
from covalent_cirro.electron.result_writer import Received, read_outcome, write_failure, write_results
from covalent_cirro.electron.reuse import taking
from covalent_cirro.electron.send import engine_for
from covalent_cirro.errors import CirroError, OutcomeError
from covalent_cirro.jobs import console_links, further_tries
from covalent_cirro.jobs.ends import Evidence
from covalent_cirro.jobs.explanations import Explanation, JobLinks, explain
from covalent_cirro.jobs.states import JobDetail, load_detail
from covalent_cirro.settings import Settings

MAX_NOTE = 4000
"""Characters of why an electron was not submitted again."""


async def receive(settings: Settings, dispatch_id: str, node_ids: Sequence[int], data: Any) -> list[Received]:
    """Write the results of a task group into its electrons' files.

    Args:
        data: What `poll.poll` gave.

    Raises:
        OutcomeError: The outcome, or ``data``, is not of this task group, or the job goes on.
    """
    if isinstance(data, Mapping) and "host" in data:
        return host_nodes.received(data["host"])
    place = _place(settings, dispatch_id, node_ids, data)
    group = await asyncio.to_thread(assets.load_group, dispatch_id, node_ids, ())
    await asyncio.to_thread(assets.write_statuses, _started(dispatch_id, node_ids, data))
    async with engine_for(settings) as engine:
        if data.get("reused"):
            return await _write_reused(engine, settings, place, group.nodes)
        return await write_ends(engine, settings, place, group.nodes, data)


async def _write_reused(
    engine: Engine, settings: Settings, place: Location, nodes: Mapping[int, Node]
) -> list[Received]:
    """Write the results of earlier work. Where they are, the electron's own place says, not who sent the data."""
    origin, outcome = await taking.outcome_of(engine, place)
    return await write_results(engine.store, origin, outcome, nodes, _Explainer(engine, settings, None, outcome))


async def write_ends(
    engine: Engine, settings: Settings, place: Location, nodes: Mapping[int, Node], data: Mapping[str, Any]
) -> list[Received]:
    """Write how each electron of a call ended into its files: its result, or why there is none.

    Args:
        nodes: The electrons of the call.
        data: What is known of the job (`poll.ending`); what it lacks is asked of AWS Batch where it is needed.
    """
    detail = load_detail(data.get("job"))
    outcome = await read_outcome(engine.store, engine.batch.job, place, detail)
    tried = further_tries.lines(await tried_before(engine, place)) if data.get("tried") else ""
    if outcome is not None and outcome.succeeded:
        explainer = _Explainer(engine, settings, detail, outcome)
        return await write_results(engine.store, place, outcome, nodes, explainer, tried)
    if detail is None and not data.get("gone"):
        job_id = str(data.get("job_id") or (outcome.job_id if outcome is not None else ""))
        with contextlib.suppress(CirroError) if outcome is not None else contextlib.nullcontext():
            detail = await engine.batch.job(job_id) if job_id else None
    note = str(data.get("not_again") or "")[:MAX_NOTE]
    if outcome is not None and not _is_outdated(outcome, detail):
        explainer = _Explainer(engine, settings, detail, outcome, note=note)
        return await write_results(engine.store, place, outcome, nodes, explainer, tried)
    if detail is not None and not detail.is_terminal:
        raise OutcomeError(
            f"AWS Batch job {detail.job_id} has not ended: it is {detail.state}, and {place.call_uri} has no outcome. "
            "The job goes on."
        )
    parts = await job_logs.parts_of(engine.store, place)
    # The group of the settings: the data may come from anybody, and must not choose what is read to them.
    group = settings.batch_job_log_group_name
    log = await job_logs.of_job(engine.store, engine.logs, engine.access, place, parts, detail, group)
    explainer = _Explainer(engine, settings, detail, outcome, log, str(data.get("job_id") or ""), note)
    if outcome is not None and any(result.output is not None for result in outcome.results):
        # Another electron of the group had returned in an earlier attempt: its result is kept.
        return await write_results(engine.store, place, outcome, nodes, explainer, tried)
    return await write_failure(engine.store, place, nodes, parts, explainer, tried)


class _Explainer:
    """Explains the ends of the electrons of one call."""

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
        told = explain(evidence, self._settings, node.name, node.node_id, self._place)
        return told._replace(text=f"{told.text}\n{self._note}\n") if self._note else told


def links(engine: Engine, settings: Settings, detail: JobDetail | None) -> JobLinks:
    """Where a job is looked at in the AWS console; nowhere if it is an emulator's."""
    if detail is None or not console_links.is_aws(str(engine.logs.meta.endpoint_url)):
        return JobLinks()
    group = detail.log_group or settings.batch_job_log_group_name
    return JobLinks(
        console_links.job_url(engine.partition, engine.region, detail.job_id),
        console_links.log_url(engine.partition, engine.region, group, detail.log_stream),
    )


def _is_outdated(outcome: Outcome, detail: JobDetail | None) -> bool:
    """Whether a later attempt ended without an outcome of its own, so that this one is not how the job ended."""
    failures = [result.failure for result in outcome.results if result.failure is not None]
    return bool(failures) and Evidence(detail, failures[0], attempt=outcome.attempt).is_outdated


def _started(dispatch_id: str, node_ids: Sequence[int], data: Mapping[str, Any]) -> list[StatusChange]:
    """When the job began to run, for the UI: Covalent's own figure is when it was sent, and counts the queue."""
    started_at = data.get("started_at")
    if not isinstance(started_at, (int, float)):
        return []
    return [StatusChange(dispatch_id, node_id, "RUNNING", started_at) for node_id in node_ids]


def _place(settings: Settings, dispatch_id: str, node_ids: Sequence[int], data: Any) -> Location:
    """The call that the data names.

    Anybody who reaches the server can send data (Covalent's route for job updates asks for no credentials): it must
    name a call of this group, in the executor's own bucket, where only the circle of its roles can write.
    """
    uri = data.get("call") if isinstance(data, Mapping) else None
    if not isinstance(uri, str):
        raise OutcomeError(
            f"Covalent was told that dispatch {dispatch_id}, nodes {list(node_ids)} ended, but not where."
        )
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
