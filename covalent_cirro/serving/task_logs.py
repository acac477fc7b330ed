"""Reads what tasks printed, from CloudWatch Logs: the last lines of one, or all of a service's as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from covalent_cirro.aws.clients import Clients
from covalent_cirro.errors import AwsError, NotFound

TAIL_LINES = 20
"""Lines of a failed task that are shown."""

POLL_S = 2.0
"""Seconds between two reads while following: FilterLogEvents has 5 to 10 requests a second for an account and region
(CloudWatch Logs quotas)."""

LATE_MS = 30_000
"""Milliseconds by which an event may come later than one that is younger: while following, these are read again."""


class LogLine(NamedTuple):
    """A line that a task printed.

    Attributes:
        task: Id of the task.
        at_ms: When CloudWatch had it, in epoch milliseconds.
        text: The line.
    """

    task: str
    at_ms: int
    text: str


def tail(clients: Clients, group: str, stream: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a stream; empty where there is none, or where logs may not be read.

    Does not raise: the lines help to explain an error, and must not hide it.
    """
    try:
        with clients.asking("logs:GetLogEvents", of=f"log group {group!r}") as logs:
            answer = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=lines, startFromHead=False)
    except AwsError:
        return ""
    return "\n".join(str(each["message"]).rstrip("\n") for each in answer["events"])


def read(clients: Clients, group: str, since_ms: int) -> Iterator[LogLine]:
    """What all tasks of a service printed, oldest first.

    Args:
        clients: Clients of the account.
        group: Name of the service's log group.
        since_ms: Epoch milliseconds from which on.

    Raises:
        NotFound: The log group does not exist.
        AccessDenied, AwsError: CloudWatch Logs refused or could not be reached.
    """
    yield from (line for _, line in _events(clients, group, since_ms))


def follow(
    clients: Clients, group: str, since_ms: int, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[LogLine]:
    """What all tasks of a service printed, and what they go on to print; does not end by itself.

    The arguments are as for `read`.
    """
    seen: dict[str, int] = {}
    newest = since_ms
    while True:
        try:
            for event, line in _events(clients, group, max(since_ms, newest - LATE_MS)):
                if event not in seen:
                    seen[event] = line.at_ms
                    newest = max(newest, line.at_ms)
                    yield line
        except NotFound:
            if not seen:
                raise
            return  # the service was deleted meanwhile
        seen = {event: at_ms for event, at_ms in seen.items() if at_ms >= newest - LATE_MS}
        sleep(POLL_S)


def _events(clients: Clients, group: str, since_ms: int) -> Iterator[tuple[str, LogLine]]:
    token: dict[str, str] = {}
    while True:
        with clients.asking("logs:FilterLogEvents", of=f"log group {group!r}") as logs:
            page: dict[str, Any] = logs.filter_log_events(logGroupName=group, startTime=since_ms, **token)
        for each in page["events"]:
            task = str(each["logStreamName"]).rsplit("/", 1)[-1]
            yield str(each["eventId"]), LogLine(task, int(each["timestamp"]), str(each["message"]).rstrip("\n"))
        if not page.get("nextToken"):
            return
        token = {"nextToken": page["nextToken"]}
