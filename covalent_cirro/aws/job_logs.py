"""The end of a job's log, for explanations: from its outcome, from its parts in S3, else from CloudWatch.

No function here raises: the log helps to explain an error, and must not hide it. CloudWatch is asked last, because its
rate is low (CloudWatch Logs quotas: GetLogEvents 10 to 25 requests a second for an account and region).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from covalent_cirro.aws import sessions
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import log_parts
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import NodeResult
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs.log_end import last_lines
from covalent_cirro.jobs.states import JobDetail

TAIL_LINES = 50
"""Log events that are read from a stream."""

LATE_S = (0.0, 1.0, 3.0)
"""Pauses before the three reads of a stream: CloudWatch has the last lines some seconds after the container's end."""

log = logging.getLogger(__name__)


def of_outcome(result: NodeResult) -> str:
    """The last lines that an electron wrote, from its outcome."""
    return _both(result.stdout.tail, result.stderr.tail)


async def of_job(
    store: Store,
    client: Any,
    access: sessions.Access,
    place: Location,
    parts: list[str],
    detail: JobDetail | None,
    group: str,
) -> str:
    """The last lines of a job that left no outcome; empty where there are none.

    Args:
        store: For the parts in S3.
        client: Client of CloudWatch Logs.
        access: Named in messages.
        place: Location of the job's call.
        parts: Names of the parts of the log, from `parts_of`.
        detail: The job, if AWS Batch knows it.
        group: Name of the log group.
    """
    attempt = len(detail.attempts) if detail is not None else 0
    stored = await _of_parts(store, place, parts, attempt)
    if not stored and detail is not None:
        stored = await tail(client, access, group, detail.log_stream)
    if not stored and parts:
        # The log of an earlier attempt is better than none: that attempt ran the same electron.
        earlier = int(parts[-1].split("/", 1)[0])
        found = await _of_parts(store, place, parts, earlier)
        stored = f"(of attempt {earlier})\n{found}" if found and earlier != attempt else found
    return stored


async def parts_of(store: Store, place: Location) -> list[str]:
    """Names of the parts of a call's log in S3, for all attempts, in the order of the text."""
    prefix = place.log_key("")
    try:
        keys = await store.list_keys(place.bucket, prefix)
    except CirroError as error:
        log.warning("The log of %s cannot be listed: %s", place.call_uri, error)
        return []
    return list(log_parts.ordered(key[len(prefix) :] for key, _ in keys))


async def _of_parts(store: Store, place: Location, parts: list[str], attempt: int) -> str:
    texts = {}
    for stream in log_parts.STREAMS:
        names = [part for part in parts if part.startswith(f"{attempt:02d}/{stream}.")]
        texts[stream] = ""
        if names:
            try:
                data = await store.get_document(place.bucket, place.log_key(names[-1]), MAX_PART_BYTES)
            except CirroError as error:
                log.warning("A part of the log of %s cannot be read: %s", place.call_uri, error)
                continue
            texts[stream] = (data or b"").decode("utf-8", "replace")
    return _both(texts["stdout"], texts["stderr"])


def _both(stdout: str, stderr: str) -> str:
    out, err = last_lines(stdout), last_lines(stderr)
    if out and err:
        return f"(stdout)\n{out}\n(stderr)\n{err}"
    return out or err


async def tail(client: Any, access: sessions.Access, group: str, stream: str) -> str:
    """The last lines of a stream in CloudWatch; empty where there is none."""
    if not stream or not group:
        return ""
    for pause_s in LATE_S:
        await asyncio.sleep(pause_s)
        try:
            with sessions.translate("logs:GetLogEvents", access=access, of=f"batch_job_log_group_name={group!r}"):
                response = await client.get_log_events(
                    logGroupName=group, logStreamName=stream, limit=TAIL_LINES, startFromHead=False
                )
        except CirroError as error:
            log.warning("The log %s of %s cannot be read: %s", stream, group, error)
            return ""
        if response["events"]:
            return last_lines("\n".join(event["message"] for event in response["events"]))
    return ""
