"""The way back: from a job that has ended to Covalent's files. What `CirroBatchExecutor.receive` does.

Needs nothing but what it is given and what lies in S3: it runs on another executor object than `send`, maybe in a
server that was started since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from covalent_cirro import covalent_assets, host_nodes, logs
from covalent_cirro.covalent_assets import StatusChange
from covalent_cirro.engine import Engine
from covalent_cirro.errors import OutcomeError
from covalent_cirro.protocol import Location, ProtocolError, parse_call_uri
from covalent_cirro.results import Received, read_outcome, write_failure, write_results
from covalent_cirro.settings import Settings
from covalent_cirro.submission import engine_for

NO_OUTCOME = "The job succeeded in AWS Batch, but covalent-cirro's runner left no outcome: did its command run?"


async def receive(settings: Settings, dispatch_id: str, node_ids: Sequence[int], data: Any) -> list[Received]:
    """Write the results of a task group into its electrons' files.

    Args:
        data: What `submission.poll` gave.

    Raises:
        OutcomeError: The outcome, or ``data``, is not of this task group.
    """
    if isinstance(data, Mapping) and "host" in data:
        return host_nodes.received(data["host"])
    place = _place(settings, dispatch_id, node_ids, data)
    group = await asyncio.to_thread(covalent_assets.load_group, dispatch_id, node_ids, ())
    await asyncio.to_thread(covalent_assets.write_statuses, _started(dispatch_id, node_ids, data))
    async with engine_for(settings) as engine:
        footer = where(settings, data)
        outcome = await read_outcome(engine.store, place)
        if outcome is not None:
            return await write_results(engine.store, place, outcome, group.nodes, footer)
        return await write_failure(engine.store, place, group.nodes, await no_outcome(engine, settings, data, footer))


def _started(dispatch_id: str, node_ids: Sequence[int], data: Mapping[str, Any]) -> list[StatusChange]:
    """When the job began to run, for the UI: Covalent's own figure is when it was sent, and counts the queue."""
    started_at = data.get("started_at")
    if not isinstance(started_at, (int, float)):
        return []
    return [StatusChange(dispatch_id, node_id, "RUNNING", started_at) for node_id in node_ids]


async def no_outcome(engine: Engine, settings: Settings, data: Mapping[str, Any], footer: str) -> str:
    """What to tell of a job that ended without an outcome: why, where it is, and the end of its log."""
    tail = await logs.tail(
        engine.logs, engine.access, settings.batch_job_log_group_name, str(data.get("log_stream") or "")
    )
    log = f"\nThe log ends with:\n{tail}\n" if tail else ""
    return f"{data.get('why') or NO_OUTCOME}\n{footer}\n{log}"


def where(settings: Settings, data: Mapping[str, Any]) -> str:
    """One line that says where the job is to be found."""
    stream = f", log {settings.batch_job_log_group_name}: {data['log_stream']}" if data.get("log_stream") else ""
    return f"AWS Batch job {data.get('job_id') or '?'} in queue {settings.queue}{stream}"


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
