"""Reads the end of a job's log from CloudWatch. Only for jobs that left no outcome: the API's rate is low.

Source: CloudWatch Logs quotas: GetLogEvents 10 to 25 requests a second for an account and region.
"""

from __future__ import annotations

import contextlib
from typing import Any

from covalent_cirro import aws
from covalent_cirro.errors import CirroError

TAIL_LINES = 50


async def tail(client: Any, access: aws.Access, group: str, stream: str) -> str:
    """The last `TAIL_LINES` lines of a stream; empty where there is none. Never fails: it helps to explain an error."""
    if not stream:
        return ""
    with contextlib.suppress(CirroError):
        with aws.translate("logs:GetLogEvents", access=access, of=f"batch_job_log_group_name={group!r}"):
            response = await client.get_log_events(
                logGroupName=group, logStreamName=stream, limit=TAIL_LINES, startFromHead=False
            )
        return "\n".join(event["message"] for event in response["events"])
    return ""
