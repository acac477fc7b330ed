"""What an electron prints while its job runs: whole lines from CloudWatch, unfinished lines from parts in S3."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from covalent_cirro.contract import log_parts
from covalent_cirro.contract.log_parts import STDERR, STDOUT
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Log
from covalent_cirro.history import archive, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron
from covalent_cirro.history.growing_line import GrowingLine
from covalent_cirro.history.log_events import LogEvents, as_printed, is_piece_of_a_line
from covalent_cirro.history.output import BOTH, Piece, as_piece, heading, read, read_part, result_of
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.log_text import LogText

NEWS_S = 2.0
"""Seconds between two reads while there are new lines: GetLogEvents takes 10 to 25 calls a second for a whole account
and region (CloudWatch Logs quotas)."""

SILENCE_S = 10.0
"""Seconds between two reads of an electron that prints nothing, at most: each read without news doubles the pause. The
runner at first stores a part of the log as often."""

STATE_S = 5.0
"""Seconds between two reads of the job's state, at least."""

LAG_S = 3.0
"""Seconds to wait after the container's end: the last lines reach CloudWatch later than the end."""

BEHIND_S = 8.0
"""Seconds until a printed line is in CloudWatch, at most: Docker's awslogs driver sends every 5 s."""

AWAITED = 4
"""Lines of which a part was shown and whose rest is still expected from CloudWatch; mostly one for each stream."""


def follow(
    account: Account,
    electron: Electron,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda state: None,
) -> Iterator[Piece]:
    """What an electron prints, until its job has ended.

    Calls: one GetLogEvents every `NEWS_S` to `SILENCE_S`, two ListObjectsV2 after each without news and a GetObject for
    each new part that has an unfinished line, and one DescribeJobs every `STATE_S` to `SILENCE_S`.

    Args:
        account: The account.
        electron: The electron, with a job that AWS Batch knows.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.
        say: Called with the job's state when it changes.
    """
    if electron.record is None or electron.record.has_ended:
        yield from read(account, electron)
        return
    tails: dict[str, Tail] = {}
    state, pause_s, looked_at = "", NEWS_S, clock()
    while True:
        record = electron.record
        assert record is not None
        if record.state != state:
            state = record.state
            say(_state(record))
        news = False
        for piece in new_pieces(account, record, electron.newest.place, tails, clock):
            news = news or bool(piece.text)
            yield piece
        if record.has_ended:
            break
        pause_s = NEWS_S if news else min(2 * pause_s, SILENCE_S)
        sleep(pause_s)
        if clock() - looked_at >= STATE_S:
            looked_at = clock()
            electron = find.again(account, electron)
    yield from _rest(account, electron, tails, sleep)


def _state(record: Record) -> str:
    reason = f": {record.detail.status_reason}" if record.detail.status_reason else ""
    again = f", attempt {record.attempt}" if record.attempt > 1 else ""
    return f"{record.state}{again}{reason}"


def new_pieces(
    account: Account, record: Record, place: Location, tails: dict[str, Tail], clock: Callable[[], float]
) -> Iterator[Piece]:
    """What a job has printed since the last call: one GetLogEvents, and two ListObjectsV2 if there is nothing new.

    Args:
        account: The account.
        record: What AWS Batch says of the job now.
        place: Location of its call.
        tails: Which attempts were read how far, by stream; empty at first.
        clock: Seconds, monotonic.
    """
    for attempt, stream in enumerate(record.log_streams, 1):
        if not stream:
            continue
        if stream not in tails:
            if attempt > 1:
                yield Piece(attempt, BOTH, "", heading(attempt, record))
            tails[stream] = Tail(account, record, stream, attempt, place, clock)
            yield from tails[stream].rest()
        elif attempt == len(record.log_streams) or attempt >= record.attempt:
            yield from tails[stream].new()


def _rest(
    account: Account, electron: Electron, tails: dict[str, Tail], sleep: Callable[[float], None]
) -> Iterator[Piece]:
    """The last lines, which CloudWatch has a few seconds after the end."""
    if not tails:
        # It ended between two reads of its state, or its container never ran.
        fresh = electron.newest
        outcome, problem = find.outcome_or_problem(account, fresh.place)
        whole = fresh._replace(outcome=outcome, problem=problem, parts=archive.parts(account, fresh.place))
        yield from read(account, electron._replace(calls=(*electron.calls[:-1], whole)))
        return
    tail = list(tails.values())[-1]
    if tail.is_blind:
        yield from tail.new()
        outcome, _ = find.outcome_or_problem(account, electron.newest.place)
        result = result_of(electron._replace(calls=(electron.newest._replace(outcome=outcome),)))
        for stream, log in ((STDOUT, result.stdout), (STDERR, result.stderr)) if result is not None else ():
            if not log.parts and stream not in tail.stored and log.tail:
                yield Piece(electron.newest.outcome.attempt if electron.newest.outcome else 1, stream, log.tail)
        return
    sleep(LAG_S)
    yield from tail.rest()


@dataclass
class _Shown:
    """The part of an unfinished line that was shown.

    Attributes:
        line: The line.
        count: How many of its characters were shown.
        seen_at: Seconds on the clock when the line last grew.
    """

    line: GrowingLine
    count: int = 0
    seen_at: float = 0.0

    @property
    def text(self) -> str:
        """The characters that were shown. CloudWatch cuts carriage returns at the end of a message."""
        return self.line.text[: self.count].rstrip("\r")


class Tail:
    """New text of an attempt: lines from CloudWatch; from stored parts unfinished lines, or all that there is."""

    def __init__(
        self, account: Account, record: Record, stream: str, attempt: int, place: Location, clock: Callable[[], float]
    ) -> None:
        self._account = account
        self._events = LogEvents(account, record, stream)
        self._attempt = attempt
        self._place = place
        self._clock = clock
        self._growing = {name: _Shown(GrowingLine(account, place, attempt, name)) for name in log_parts.STREAMS}
        self._awaited: list[str] = []
        self.stored: dict[str, LogText] = {}

    @property
    def is_blind(self) -> bool:
        """Whether CloudWatch cannot be read, so that all text comes from stored parts."""
        return self._events.is_blind

    def rest(self) -> Iterator[Piece]:
        """All text that exists now."""
        for messages in self._events.rest():
            yield self._printed(messages)
        yield from self._from_parts()

    def new(self) -> Iterator[Piece]:
        """The text since the last call."""
        if messages := self._events.new():
            yield self._printed(messages)
        else:
            yield from self._from_parts()

    def _from_parts(self) -> Iterator[Piece]:
        for stream, shown in self._growing.items():
            if not self.is_blind:
                yield from self._grown(shown)
                continue
            for key in shown.line.new_parts():
                text = self.stored.setdefault(stream, LogText(Log(), whole=False))
                for bit in read_part(self._account, self._place.bucket, key, text):
                    yield as_piece(self._attempt, stream, bit)

    def _grown(self, shown: _Shown) -> Iterator[Piece]:
        """What an earlier read found of a line, once CloudWatch has all lines before it and nothing newer."""
        line = shown.line
        is_due = self._clock() - shown.seen_at >= BEHIND_S and line.is_newer_than(self._events)
        if is_due and len(line.text) > shown.count:
            new, shown.count = line.text[shown.count :], len(line.text)
            yield Piece(self._attempt, BOTH, new)
        before = shown.text
        is_news, is_another = line.look(self._events.last)
        if is_news:
            shown.seen_at = self._clock()
        if is_another:
            # CloudWatch will have what was shown, with the rest of its line.
            self._awaited = [*self._awaited, before][-AWAITED:] if before else self._awaited
            shown.count = 0

    def _printed(self, messages: list[str]) -> Piece:
        """Events as text, without the part of their lines that was shown before."""
        return Piece(self._attempt, BOTH, "".join(map(self._rest_of, messages)))

    def _rest_of(self, message: str) -> str:
        for before in self._awaited:
            if message.startswith(before):
                self._awaited.remove(before)
                return as_printed(message[len(before) :])
        for shown in self._growing.values():
            before = shown.text
            if before and is_piece_of_a_line(message) and before.startswith(message):
                shown.line.text, shown.count = shown.line.text[len(message) :], shown.count - len(message)
                return ""
            if before and message.startswith(before):
                shown.line.text = shown.line.text[len(message) :] if is_piece_of_a_line(message) else ""
                shown.count = 0
                return message[len(before) :] + ("" if is_piece_of_a_line(message) else "\n")
        return as_printed(message)
