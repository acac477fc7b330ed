"""What an electron has printed until now, by attempt: from the outcome, from CloudWatch, or from parts in S3.

An outcome has whole, separate streams; CloudWatch has both in one, in their order; parts exist where neither does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from covalent_cirro.contract import log_parts
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.log_parts import STDERR, STDOUT
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Log, NodeResult
from covalent_cirro.errors import AccessDenied, TooLarge
from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.growing_line import GrowingLine
from covalent_cirro.history.log_events import LogEvents, as_printed
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.log_text import Bit, LogText, without_parts

BOTH = "log"
"""Stream of a `Piece` with stdout and stderr in one, as in CloudWatch; others are `STDOUT` and `STDERR`."""


class Piece(NamedTuple):
    """A piece of what an electron printed, or a note about the log.

    Attributes:
        attempt: Number of the job's attempt, from 1.
        stream: `STDOUT`, `STDERR` or `BOTH`.
        text: The printed text; empty in a note.
        about: The note: which attempt begins, what is missing; mostly empty.
    """

    attempt: int
    stream: str
    text: str
    about: str = ""


def read(account: Account, electron: Electron) -> Iterator[Piece]:
    """All that the newest call of an electron has printed until now, by attempt."""
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
    """The line above an attempt's text."""
    if record is None or attempt > len(record.attempts):
        return f"attempt {attempt}"
    of = record.attempts[attempt - 1]
    why = of.reason or of.status_reason
    return f"attempt {attempt}" + (f", which ended: {why}" if why and attempt < record.attempt else "")


def result_of(electron: Electron) -> NodeResult | None:
    """The electron's result in the newest outcome."""
    outcome = electron.newest.outcome
    results = outcome.results if outcome is not None else ()
    return next((result for result in results if result.node_id == electron.node_id), None)


def _last_attempt(of: CallHistory) -> int:
    record = of.records[-1] if of.records else None
    in_parts = max((part.attempt for name in of.parts if (part := log_parts.parse(name))), default=0)
    return max(0 if record is None else record.attempt, of.outcome.attempt if of.outcome else 0, in_parts)


def _of_result(account: Account, place: Location, attempt: int, result: NodeResult) -> Iterator[Piece]:
    for stream, log in ((STDOUT, result.stdout), (STDERR, result.stderr)):
        bits = _of_parts(account, place, log, whole=True) if log.parts else without_parts(log)
        yield from (as_piece(attempt, stream, bit) for bit in bits)


def _of_attempt(account: Account, of: CallHistory, record: Record | None, attempt: int) -> Iterator[Piece]:
    """The log of an attempt without an outcome: from CloudWatch, which has all lines; else from stored parts."""
    if record is not None and attempt <= len(record.log_streams) and record.log_streams[attempt - 1]:
        events = LogEvents(account, record, record.log_streams[attempt - 1])
        seen = False
        for messages in events.rest():
            seen = True
            yield Piece(attempt, BOTH, "".join(map(as_printed, messages)))
        if not record.has_ended and attempt == record.attempt and not events.is_blind:
            for stream in log_parts.STREAMS:
                line = GrowingLine(account, of.place, attempt, stream)
                line.look(events.last)
                if line.is_newer_than(events):
                    seen = True
                    yield Piece(attempt, BOTH, line.text)
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
    """Read a part of a log: its text, or a note on why it cannot be read."""
    uri = f"s3://{bucket}/{key}"
    try:
        data = archive.read(account, bucket, key, MAX_PART_BYTES)
    except (AccessDenied, TooLarge) as error:
        return text.lacks(uri, str(error))
    return text.lacks(uri, "there is no such object") if data is None else text.take(uri, data)


def as_piece(attempt: int, stream: str, bit: Bit) -> Piece:
    """A bit of a log as a `Piece`."""
    return Piece(attempt, stream, "", bit.text) if bit.is_note else Piece(attempt, stream, bit.text)
