"""Writes an attempt's output, line by line, to its stream in CloudWatch Logs. It must not know how the attempt runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from covalent_cirro.local.emulator.attempts.runtime import StartFailed
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals import moto_logs

EVENT_BYTES = 262_144 - 26
"""A longer line becomes several events (CloudWatch Logs quotas; docker's awslogs driver cuts at the same size)."""
NO_STREAM = (
    "CannotStartContainerError: Error response from daemon: failed to create task for container: failed to initialize "
    "logging driver: failed to create Cloudwatch log stream: "
)
"""Text before the reason of CloudWatch Logs when a container's log driver cannot start."""
EVENTS_PER_PUT = 10_000
"""API model, PutLogEvents."""


def stream_name(container: Json, definition: str, task_id: str) -> str | None:
    """The log stream of an attempt, or `None` if its log driver is not ``awslogs``."""
    configuration = container.get("logConfiguration") or {}
    if configuration.get("logDriver", "awslogs") != "awslogs":
        return None
    prefix = (configuration.get("options") or {}).get("awslogs-stream-prefix")
    return f"{prefix or definition[:200]}/default/{task_id}"


def target(container: Json) -> tuple[str, str | None, bool]:
    """Group, region and whether the group is to be made, from a container's ``logConfiguration``."""
    options = (container.get("logConfiguration") or {}).get("options") or {}
    create = str(options.get("awslogs-create-group", "false")).lower() == "true"
    return options.get("awslogs-group", moto_logs.DEFAULT_LOG_GROUP), options.get("awslogs-region"), create


class LogStream:
    """Takes bytes, writes events. Without the group it cannot be opened, as the log driver then fails.

    Args:
        account: Account of the group.
        region: Region of the group.
        group: Name of the group.
        stream: Name of the stream, which is made.
        create_group: Make the group if there is none.
        clock: Gives epoch seconds.

    Raises:
        StartFailed: The group does not exist.
    """

    def __init__(
        self,
        account: str,
        region: str,
        group: str,
        stream: str,
        *,
        create_group: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._where = (account, region, group, stream)
        self._clock = clock
        self._rest = b""
        try:
            moto_logs.open_log_stream(account, region, group, stream, create_group=create_group)
        except moto_logs.NoSuchLogGroup:
            text = "ResourceNotFoundException: The specified log group does not exist."
            raise StartFailed(f"{NO_STREAM}{text}") from None

    def write(self, data: bytes) -> None:
        """Take output; each whole line becomes an event at once."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > EVENT_BYTES:
            lines.append(self._rest[:EVENT_BYTES])
            self._rest = self._rest[EVENT_BYTES:]
        self._put(lines)

    def close(self) -> None:
        """Write the last line, which may have no line end."""
        if self._rest:
            self._put([self._rest])
            self._rest = b""

    def _put(self, lines: list[bytes]) -> None:
        now = int(self._clock() * 1000)
        events: list[Json] = []
        for line in lines:
            whole = line.rstrip(b"\r")
            # CloudWatch Logs has no empty messages: the driver drops such lines.
            for start in range(0, len(whole), EVENT_BYTES):
                text = whole[start : start + EVENT_BYTES].decode("utf-8", "replace")
                events.append({"timestamp": now, "message": text})
        for start in range(0, len(events), EVENTS_PER_PUT):
            moto_logs.put_log_events(*self._where, events[start : start + EVENTS_PER_PUT])
