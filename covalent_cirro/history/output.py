"""What an electron printed: read whole, or followed while its job runs, from CloudWatch, log parts and the outcome.

An outcome has the streams apart and whole; CloudWatch has them mixed, as they come; parts are there when neither is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from covalent_cirro.errors import AccessDenied, NotFound
from covalent_cirro.history import archive, finding
from covalent_cirro.history.account import Account
from covalent_cirro.history.finding import Attempted, Electron
from covalent_cirro.history.records import Record
from covalent_cirro.protocol import Location, Log, NodeResult

NEWS_S = 2.0
"""Between two looks for new lines, while there are some: GetLogEvents takes 10 to 25 calls a second for a whole account
and region (CloudWatch Logs quotas)."""

SILENCE_S = 10.0
"""Between two looks at an electron that prints nothing: each look without news doubles the time up to this. The runner
stores a part of the log as often at first."""

STATE_S = 5.0
"""Between two looks at the job's state."""

LAG_S = 3.0
"""The last lines reach CloudWatch a moment after the container's end: it is looked for them this long."""

STDOUT, STDERR, BOTH = "stdout", "stderr", "log"
"""Streams of a `Piece`; `BOTH`: mixed, as CloudWatch has them."""


class Piece(NamedTuple):
    """Some of what an electron printed.

    Attributes:
        attempt: The job's attempt, from 1.
        stream: `STDOUT`, `STDERR` or `BOTH`.
        text: As it was printed.
        about: Which attempt begins, instead of a text; mostly empty.
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
            yield Piece(attempt, BOTH, "", _heading(attempt, record))
        result = _result(electron) if of.outcome is not None and of.outcome.attempt == attempt else None
        if result is not None:
            yield from _of_result(account, of.place, attempt, result)
        else:
            yield from _of_attempt(account, of, record, attempt)


def follow(
    account: Account,
    electron: Electron,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda state: None,
) -> Iterator[Piece]:
    """What an electron prints, as it comes, until its job has ended.

    Calls: one GetLogEvents every `NEWS_S` to `SILENCE_S`, and one DescribeJobs every `STATE_S` to `SILENCE_S`.

    Args:
        account: Where.
        electron: From `finding`; with a job that AWS Batch knows.
        sleep: Waits for seconds.
        clock: Seconds, monotonic.
        say: Told the job's state when it changes.
    """
    if electron.record is None or electron.record.has_ended:
        yield from read(account, electron)
        return
    tails: dict[str, _Tail] = {}
    state, pause_s, looked_at = "", NEWS_S, clock()
    while True:
        record = electron.record
        assert record is not None
        if record.state != state:
            state = record.state
            say(_state(record))
        news = False
        for piece in _new(account, record, electron.newest.place, tails):
            news = news or bool(piece.text)
            yield piece
        if record.has_ended:
            break
        pause_s = NEWS_S if news else min(2 * pause_s, SILENCE_S)
        sleep(pause_s)
        if clock() - looked_at >= STATE_S:
            looked_at = clock()
            electron = finding.again(account, electron)
    yield from _rest(account, electron, tails, sleep)


# --- whole ------------------------------------------------------------------------------------------------------------


def _last_attempt(of: Attempted) -> int:
    record = of.records[-1] if of.records else None
    in_parts = max((int(part.partition("/")[0]) for part in of.parts), default=0)
    return max(0 if record is None else record.attempt, of.outcome.attempt if of.outcome else 0, in_parts)


def _heading(attempt: int, record: Record | None) -> str:
    if record is None or attempt > len(record.attempts):
        return f"attempt {attempt}"
    of = record.attempts[attempt - 1]
    why = of.reason or of.status_reason
    return f"attempt {attempt}" + (f", which ended: {why}" if why and attempt < record.attempt else "")


def _result(electron: Electron) -> NodeResult | None:
    outcome = electron.newest.outcome
    results = outcome.results if outcome is not None else ()
    return next((result for result in results if result.node_id == electron.node_id), None)


def _of_result(account: Account, place: Location, attempt: int, result: NodeResult) -> Iterator[Piece]:
    for stream, log in ((STDOUT, result.stdout), (STDERR, result.stderr)):
        for text in _texts(account, place, log):
            yield Piece(attempt, stream, text)


def _texts(account: Account, place: Location, log: Log) -> Iterator[str]:
    if not log.parts:
        # Of a text whose parts were lost, the tail is what is left.
        if log.tail:
            yield log.tail
        return
    for part in log.parts:
        yield _part(account, place, part)


def _part(account: Account, place: Location, part: str) -> str:
    data = archive.read(account, place.bucket, place.log_key(part))
    return "" if data is None else data.decode("utf-8", "replace")


def _of_attempt(account: Account, of: Attempted, record: Record | None, attempt: int) -> Iterator[Piece]:
    """An attempt without an outcome: by CloudWatch, which has it to the last line; else by what it stored."""
    if record is not None and attempt <= len(record.log_streams) and record.log_streams[attempt - 1]:
        tail = _Tail(account, record, record.log_streams[attempt - 1], attempt, of.place)
        yield from tail.rest()
        if not tail.is_blind and tail.has_lines:
            return
    for part in of.parts:
        if int(part.partition("/")[0]) == attempt:
            yield Piece(attempt, _stream_of(part), _part(account, of.place, part))


def _stream_of(part: str) -> str:
    return part.partition("/")[2].partition(".")[0]


# --- as it comes ------------------------------------------------------------------------------------------------------


class _Tail:
    """The new lines of one attempt: from CloudWatch; from the stored parts where that may not be read."""

    def __init__(self, account: Account, record: Record, stream: str, attempt: int, place: Location) -> None:
        self._account = account
        self._stream = stream
        self._attempt = attempt
        self._place = place
        self._group = record.detail.log_group or account.settings.batch_job_log_group_name
        self._client = account.client("logs", record.log_region or None)
        self._token: dict[str, str] = {}
        self._parts: set[str] = set()
        self.is_blind = False
        self.has_lines = False
        self._is_at_end = False
        self.stored = {STDOUT: 0, STDERR: 0}

    def rest(self) -> Iterator[Piece]:
        """All that is there now. A page may be empty in the middle: the end is where the token stays the same."""
        self._is_at_end = False
        while not self._is_at_end:
            yield from self.new()

    def new(self) -> list[Piece]:
        """What came since the last time; one call, or a list and a read for each new part."""
        if not self.is_blind:
            try:
                return self._events()
            except AccessDenied:
                self.is_blind = True
            except NotFound as error:
                # The stream appears with its first line; without its group nothing will.
                if "log group does not exist" not in str(error):
                    self._is_at_end = True
                    return []
                self.is_blind = True
        self._is_at_end = True
        return self._stored_parts()

    def _events(self) -> list[Piece]:
        request: dict[str, Any] = {"logGroupName": self._group, "logStreamName": self._stream, "startFromHead": True}
        answer = self._account.ask(
            "logs:GetLogEvents",
            lambda: self._client.get_log_events(**request, **self._token),
            of=f"log group {self._group!r}, stream {self._stream!r}",
        )
        token = {"nextToken": answer["nextForwardToken"]}  # never null (GetLogEvents)
        self._is_at_end, self._token = token == self._token, token
        text = "".join(f"{event['message']}\n" for event in answer["events"])
        self.has_lines = self.has_lines or bool(text)
        return [Piece(self._attempt, BOTH, text)] if text else []

    def _stored_parts(self) -> list[Piece]:
        pieces = []
        for part in archive.parts(self._account, self._place):
            if part not in self._parts and int(part.partition("/")[0]) == self._attempt:
                self._parts.add(part)
                data = archive.read(self._account, self._place.bucket, self._place.log_key(part)) or b""
                self.stored[_stream_of(part)] += len(data)
                pieces.append(Piece(self._attempt, _stream_of(part), data.decode("utf-8", "replace")))
        return pieces


def _new(account: Account, record: Record, place: Location, tails: dict[str, _Tail]) -> Iterator[Piece]:
    for attempt, stream in enumerate(record.log_streams, 1):
        if not stream:
            continue
        if stream not in tails:
            if attempt > 1:
                yield Piece(attempt, BOTH, "", _heading(attempt, record))
            tails[stream] = _Tail(account, record, stream, attempt, place)
            yield from tails[stream].rest()
        elif attempt == len(record.log_streams) or attempt >= record.attempt:
            yield from tails[stream].new()


def _rest(
    account: Account, electron: Electron, tails: dict[str, _Tail], sleep: Callable[[float], None]
) -> Iterator[Piece]:
    """The last lines, which come a moment after the end."""
    if not tails:
        # It ended between two looks at its state, or its container never ran.
        fresh = electron.newest
        outcome, problem = finding.outcome_or_problem(account, fresh.place)
        whole = fresh._replace(outcome=outcome, problem=problem, parts=archive.parts(account, fresh.place))
        yield from read(account, electron._replace(calls=(*electron.calls[:-1], whole)))
        return
    tail = list(tails.values())[-1]
    if tail.is_blind:
        yield from tail.new()
        outcome, _ = finding.outcome_or_problem(account, electron.newest.place)
        result = _result(electron._replace(calls=(electron.newest._replace(outcome=outcome),)))
        for stream, log in ((STDOUT, result.stdout), (STDERR, result.stderr)) if result is not None else ():
            if not log.parts and not tail.stored[stream] and log.tail:
                yield Piece(electron.newest.outcome.attempt if electron.newest.outcome else 1, stream, log.tail)
        return
    sleep(LAG_S)
    yield from tail.rest()


def _state(record: Record) -> str:
    reason = f": {record.detail.status_reason}" if record.detail.status_reason else ""
    again = f", attempt {record.attempt}" if record.attempt > 1 else ""
    return f"{record.state}{again}{reason}"
