"""The log of an attempt in CloudWatch: its events, which are whole lines, in their order. It must not know S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from covalent_cirro.errors import AccessDenied, NotFound
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record

EVENT_BYTES = 262_144 - 26
"""Bytes of an event, at most (CloudWatch Logs quotas); Docker's awslogs driver cuts longer lines there."""


def as_printed(message: str) -> str:
    """The text of an event: a line, or a piece of a line that was too long for one event."""
    return message if is_piece_of_a_line(message) else f"{message}\n"


def is_piece_of_a_line(message: str) -> bool:
    """Whether an event is as long as it can be, so that the next event belongs to the same line."""
    return len(message) > EVENT_BYTES // 4 and len(message.encode()) >= EVENT_BYTES


class LogEvents:
    """The events of one attempt's stream in CloudWatch, oldest first, each once.

    Attributes:
        is_blind: Whether the log cannot be read: a policy forbids it, or the log group does not exist.
        last: Message of the latest event.
        ingested_at: Epoch seconds when CloudWatch received the latest event.
    """

    def __init__(self, account: Account, record: Record, stream: str) -> None:
        self.is_blind = False
        self.last = ""
        self.ingested_at = 0.0
        self._account = account
        self._stream = stream
        self._group = record.detail.log_group or account.settings.batch_job_log_group_name
        self._client = account.clients("logs", record.log_region or None)
        self._token: dict[str, str] = {}
        self._is_at_end = False

    def rest(self) -> Iterator[list[str]]:
        """All messages that CloudWatch has now. Pages may be empty before the end, where the token stays the same."""
        self._is_at_end = False
        while not self._is_at_end:
            if messages := self.new():
                yield messages

    def new(self) -> list[str]:
        """Messages since the last call; takes one call."""
        if self.is_blind:
            self._is_at_end = True
            return []
        request: dict[str, Any] = {"logGroupName": self._group, "logStreamName": self._stream, "startFromHead": True}
        try:
            answer = self._account.ask(
                "logs:GetLogEvents",
                lambda: self._client.get_log_events(**request, **self._token),
                of=f"log group {self._group!r}, stream {self._stream!r}",
            )
        except AccessDenied:
            self.is_blind = self._is_at_end = True
            return []
        except NotFound as error:
            # CloudWatch has the stream from its first line on; without the log group it never will.
            self.is_blind, self._is_at_end = "log group does not exist" in str(error), True
            return []
        token = {"nextToken": answer["nextForwardToken"]}  # never null (GetLogEvents)
        self._is_at_end, self._token = token == self._token, token
        for event in answer["events"]:
            self.last = str(event["message"])
            self.ingested_at = max(self.ingested_at, event.get("ingestionTime", 0) / 1000)
        return [str(event["message"]) for event in answer["events"]]
