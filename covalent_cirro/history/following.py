"""What an electron prints, as it comes, while its job runs: from CloudWatch, and from parts in S3 where that has less.

CloudWatch has whole lines only: a progress bar, which writes over its line again and again, is one line that takes
hours. The runner stores that line as it grows, with all else, at first every 10 s and later every minute.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from covalent_cirro import log_parts
from covalent_cirro.errors import AccessDenied, NotFound, TooLarge
from covalent_cirro.history import archive, finding
from covalent_cirro.history.account import Account
from covalent_cirro.history.finding import Electron
from covalent_cirro.history.output import (
    BOTH,
    Events,
    Piece,
    as_piece,
    as_printed,
    heading,
    is_piece_of_a_line,
    read,
    read_part,
    result_of,
)
from covalent_cirro.history.records import Record
from covalent_cirro.limits import MAX_PART_BYTES
from covalent_cirro.log_parts import STDERR, STDOUT
from covalent_cirro.log_text import LogText
from covalent_cirro.protocol import Location, Log

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

BEHIND_S = 8.0
"""A line reaches CloudWatch so long after it was printed, at most: Docker's awslogs driver sends every 5 s."""


def follow(
    account: Account,
    electron: Electron,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda state: None,
) -> Iterator[Piece]:
    """What an electron prints, as it comes, until its job has ended.

    Calls: one GetLogEvents every `NEWS_S` to `SILENCE_S`, two ListObjectsV2 after each without news and a GetObject for
    each new part that has an unfinished line, and one DescribeJobs every `STATE_S` to `SILENCE_S`.

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
        for piece in _new(account, record, electron.newest.place, tails, clock):
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


def _state(record: Record) -> str:
    reason = f": {record.detail.status_reason}" if record.detail.status_reason else ""
    again = f", attempt {record.attempt}" if record.attempt > 1 else ""
    return f"{record.state}{again}{reason}"


def _new(
    account: Account, record: Record, place: Location, tails: dict[str, _Tail], clock: Callable[[], float]
) -> Iterator[Piece]:
    for attempt, stream in enumerate(record.log_streams, 1):
        if not stream:
            continue
        if stream not in tails:
            if attempt > 1:
                yield Piece(attempt, BOTH, "", heading(attempt, record))
            tails[stream] = _Tail(account, record, stream, attempt, place, clock)
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
        result = result_of(electron._replace(calls=(electron.newest._replace(outcome=outcome),)))
        for stream, log in ((STDOUT, result.stdout), (STDERR, result.stderr)) if result is not None else ():
            if not log.parts and stream not in tail.stored and log.tail:
                yield Piece(electron.newest.outcome.attempt if electron.newest.outcome else 1, stream, log.tail)
        return
    sleep(LAG_S)
    yield from tail.rest()


@dataclass
class _Line:
    """The line that a stream is at, as far as stored parts have it.

    Attributes:
        newest: Key of the newest part that was seen.
        stored_at: When that was written, epoch seconds.
        seen_at: When it was seen, by the clock.
        text: What the parts have of the line.
        shown: So many characters of it were shown.
    """

    newest: str = ""
    stored_at: float = 0.0
    seen_at: float = 0.0
    text: str = ""
    shown: int = 0


class _Tail:
    """What is new of one attempt: from CloudWatch, and its unfinished lines, or all if need be, from stored parts."""

    def __init__(
        self, account: Account, record: Record, stream: str, attempt: int, place: Location, clock: Callable[[], float]
    ) -> None:
        self._account = account
        self._events = Events(account, record, stream)
        self._attempt = attempt
        self._place = place
        self._clock = clock
        self._lines = {stream: _Line() for stream in log_parts.STREAMS}
        self._awaited: list[str] = []
        self.stored: dict[str, LogText] = {}

    @property
    def is_blind(self) -> bool:
        """Whether CloudWatch may not be read, so that all comes from stored parts."""
        return self._events.is_blind

    def rest(self) -> Iterator[Piece]:
        """All that is there now."""
        for messages in self._events.rest():
            yield Piece(self._attempt, BOTH, self._printed(messages))
        yield from self._from_parts()

    def new(self) -> Iterator[Piece]:
        """What came since the last time."""
        if messages := self._events.new():
            yield Piece(self._attempt, BOTH, self._printed(messages))
        else:
            yield from self._from_parts()

    def _from_parts(self) -> Iterator[Piece]:
        if self.is_blind:
            for stream, line in self._lines.items():
                yield from self._all_of(stream, self._new_parts(stream, line))
            return
        # Who may read the log in CloudWatch need not be allowed to read the bucket.
        with contextlib.suppress(AccessDenied, NotFound, TooLarge):
            for stream, line in self._lines.items():
                yield from self._unfinished(line)
                if keys := self._new_parts(stream, line):
                    self._read_line(line, keys)

    def _new_parts(self, stream: str, line: _Line) -> list[str]:
        """Keys of the parts that were stored since the last time."""
        prefix = self._place.log_key(f"{self._attempt:02d}/{stream}.")
        found = archive.objects(self._account, self._place.bucket, prefix, line.newest)
        keys = [key for key in sorted(found) if log_parts.parse(key[len(self._place.log_key("")) :])]
        if keys:
            line.newest, line.seen_at = keys[-1], self._clock()
            line.stored_at = found[keys[-1]][1]
        return keys

    def _all_of(self, stream: str, keys: list[str]) -> Iterator[Piece]:
        for key in keys:
            text = self.stored.setdefault(stream, LogText(Log(), whole=False))
            for bit in read_part(self._account, self._place.bucket, key, text):
                yield as_piece(self._attempt, stream, bit)

    # --- lines that grow ---

    def _unfinished(self, line: _Line) -> Iterator[Piece]:
        """What was new of a line at an earlier look, once CloudWatch has all before it, and if it has nothing newer."""
        is_due = self._clock() - line.seen_at >= BEHIND_S and line.stored_at >= self._events.ingested_at
        if is_due and len(line.text) > line.shown:
            new, line.shown = line.text[line.shown :], len(line.text)
            yield Piece(self._attempt, BOTH, new)

    def _read_line(self, line: _Line, keys: list[str]) -> None:
        """Read new parts from the last one back to the begin of the line."""
        data = b""
        for key in reversed(keys):
            data = (archive.read(self._account, self._place.bucket, key, MAX_PART_BYTES) or b"") + data
            if b"\n" in data:
                break
        *ended, text = data.decode("utf-8", "replace").rsplit("\n", 1)
        if ended:
            # A line that was shown comes from CloudWatch yet, as a whole.
            self._awaited += [line.text[: line.shown]] if line.shown else []
            line.text, line.shown = "", 0
        line.text += text

    def _printed(self, messages: list[str]) -> str:
        """Events as text, without what was shown of their lines before."""
        return "".join(map(self._rest_of, messages))

    def _rest_of(self, message: str) -> str:
        is_piece = is_piece_of_a_line(message)
        for shown in self._awaited:
            if message.startswith(shown.rstrip("\r")):
                self._awaited.remove(shown)
                return as_printed(message[len(shown.rstrip("\r")) :])
        for line in self._lines.values():
            shown = line.text[: line.shown].rstrip("\r")
            if shown and is_piece and shown.startswith(message):
                line.text, line.shown = line.text[len(message) :], line.shown - len(message)
                return ""
            if shown and message.startswith(shown):
                line.text, line.shown = (line.text[len(message) :] if is_piece else ""), 0
                rest = message[len(shown) :]
                return rest if is_piece else f"{rest}\n"
        return as_printed(message)
