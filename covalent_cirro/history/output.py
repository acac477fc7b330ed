"""What an electron has printed until now, attempt by attempt: from the outcome, from CloudWatch, from parts in S3.

An outcome has the streams apart and whole; CloudWatch has them mixed, as they come; parts are there when neither is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from covalent_cirro import log_parts
from covalent_cirro.errors import AccessDenied, NotFound, TooLarge
from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.finding import Attempted, Electron
from covalent_cirro.history.records import Record
from covalent_cirro.limits import MAX_PART_BYTES
from covalent_cirro.log_parts import STDERR, STDOUT
from covalent_cirro.log_text import Bit, LogText, without_parts
from covalent_cirro.protocol import Location, Log, NodeResult

BOTH = "log"
"""Stream of a `Piece` that has stdout and stderr mixed, as CloudWatch has them; others are `STDOUT` and `STDERR`."""

EVENT_BYTES = 262_144 - 26
"""CloudWatch takes no longer events (CloudWatch Logs quotas); Docker's awslogs driver cuts longer lines there."""


class Piece(NamedTuple):
    """Some of what an electron printed.

    Attributes:
        attempt: The job's attempt, from 1.
        stream: `STDOUT`, `STDERR` or `BOTH`.
        text: As it was printed.
        about: Something about the log, instead of a text: which attempt begins, what is missing; mostly empty.
    """

    attempt: int
    stream: str
    text: str
    about: str = ""


def read(account: Account, electron: Electron) -> Iterator[Piece]:
    """All that an electron has printed until now, attempt by attempt; of its newest call."""
    of, record = electron.newest, electron.record
    last = max(_last_attempt(of), 1)
    for attempt in range(1, last + 1):
        if last > 1:
            yield Piece(attempt, BOTH, "", heading(attempt, record))
        result = result_of(electron) if of.outcome is not None and of.outcome.attempt == attempt else None
        if result is not None:
            yield from _of_result(account, of.place, attempt, result)
        else:
            yield from _of_attempt(account, of, record, attempt)


def heading(attempt: int, record: Record | None) -> str:
    """What stands above an attempt's text."""
    if record is None or attempt > len(record.attempts):
        return f"attempt {attempt}"
    of = record.attempts[attempt - 1]
    why = of.reason or of.status_reason
    return f"attempt {attempt}" + (f", which ended: {why}" if why and attempt < record.attempt else "")


def result_of(electron: Electron) -> NodeResult | None:
    """What the newest outcome says of the electron itself."""
    outcome = electron.newest.outcome
    results = outcome.results if outcome is not None else ()
    return next((result for result in results if result.node_id == electron.node_id), None)


def _last_attempt(of: Attempted) -> int:
    record = of.records[-1] if of.records else None
    in_parts = max((part.attempt for name in of.parts if (part := log_parts.parse(name))), default=0)
    return max(0 if record is None else record.attempt, of.outcome.attempt if of.outcome else 0, in_parts)


def _of_result(account: Account, place: Location, attempt: int, result: NodeResult) -> Iterator[Piece]:
    for stream, log in ((STDOUT, result.stdout), (STDERR, result.stderr)):
        bits = _of_parts(account, place, log, whole=True) if log.parts else without_parts(log)
        yield from (as_piece(attempt, stream, bit) for bit in bits)


def _of_attempt(account: Account, of: Attempted, record: Record | None, attempt: int) -> Iterator[Piece]:
    """An attempt without an outcome: by CloudWatch, which has it to the last line; else by what it stored."""
    if record is not None and attempt <= len(record.log_streams) and record.log_streams[attempt - 1]:
        events = Events(account, record, record.log_streams[attempt - 1])
        seen = False
        for messages in events.rest():
            seen = True
            yield Piece(attempt, BOTH, "".join(map(as_printed, messages)))
        if seen and not events.is_blind:
            return
    for stream in log_parts.STREAMS:
        names = [name for name in of.parts if name.startswith(f"{attempt:02d}/{stream}.")]
        for bit in _of_parts(account, of.place, Log(parts=tuple(names)), whole=False):
            yield as_piece(attempt, stream, bit)


def _of_parts(account: Account, place: Location, log: Log, *, whole: bool) -> Iterator[Bit]:
    text = LogText(log, whole=whole)
    for part in log.parts:
        yield from read_part(account, place.bucket, place.log_key(part), text)
        if text.is_over:
            break
    yield from text.finish()


def read_part(account: Account, bucket: str, key: str, text: LogText) -> list[Bit]:
    """What a part adds to a log, or why it cannot be read."""
    uri = f"s3://{bucket}/{key}"
    try:
        data = archive.read(account, bucket, key, MAX_PART_BYTES)
    except (AccessDenied, TooLarge) as error:
        return text.lacks(uri, str(error))
    return text.lacks(uri, "there is no such object") if data is None else text.take(uri, data)


def as_piece(attempt: int, stream: str, bit: Bit) -> Piece:
    """A bit of a log as it is shown."""
    return Piece(attempt, stream, "", bit.text) if bit.is_note else Piece(attempt, stream, bit.text)


def as_printed(message: str) -> str:
    """The text of an event: a line, or a piece of one that was too long for an event."""
    return message if is_piece_of_a_line(message) else f"{message}\n"


def is_piece_of_a_line(message: str) -> bool:
    """Whether an event is as long as one can be: what follows it belongs to the same line."""
    return len(message) > EVENT_BYTES // 4 and len(message.encode()) >= EVENT_BYTES


class Events:
    """The events of one attempt's stream in CloudWatch, oldest first, each once.

    Attributes:
        is_blind: Whether it may not be read, or its group is gone.
        ingested_at: Epoch seconds when CloudWatch took in the latest one.
    """

    def __init__(self, account: Account, record: Record, stream: str) -> None:
        self.is_blind = False
        self.ingested_at = 0.0
        self._account = account
        self._stream = stream
        self._group = record.detail.log_group or account.settings.batch_job_log_group_name
        self._client = account.client("logs", record.log_region or None)
        self._token: dict[str, str] = {}
        self._is_at_end = False

    def rest(self) -> Iterator[list[str]]:
        """All messages that are there now. A page may be empty in the middle: at the end the token stays the same."""
        self._is_at_end = False
        while not self._is_at_end:
            if messages := self.new():
                yield messages

    def new(self) -> list[str]:
        """Messages that came since the last time; one call."""
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
            # The stream appears with its first line; without its group nothing will.
            self.is_blind, self._is_at_end = "log group does not exist" in str(error), True
            return []
        token = {"nextToken": answer["nextForwardToken"]}  # never null (GetLogEvents)
        self._is_at_end, self._token = token == self._token, token
        for event in answer["events"]:
            self.ingested_at = max(self.ingested_at, event.get("ingestionTime", 0) / 1000)
        return [str(event["message"]) for event in answer["events"]]
