"""The last lines of logs: as a terminal would show them, a few logs at a time, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.cli.report import LONGEST_PAUSE_S, pause_s
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Usage
from covalent_cirro.errors import AwsError
from covalent_cirro.history import log_ends
from covalent_cirro.history.log_ends import AT_A_TIME, LINES, LogEnds, end_of, end_of_outcome
from covalent_cirro.history.output import BOTH, Piece


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", ""),
        ("one\ntwo\n", "one\ntwo"),
        ("\n\none\n\n\n", "one"),
        ("".join(f"{number}\n" for number in range(100)), "\n".join(map(str, range(100 - LINES, 100)))),
        ("begun\n 10 %\r 20 %\r 30 %", "begun\n 30 %"),
        (" 99 %\r100 %\ndone\n", "100 %\ndone"),
        ("a\r\nb\r\n", "a\nb"),
        ("half a line\r", "half a line"),
        ("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("a\x00b\x07c\u202ed", "abcd"),
        ("tab\tkept", "tab\tkept"),
        ("x" * 1000 + "end", "x" * 297 + "end"),
    ],
)
def test_the_end_of_a_log(text: str, end: str) -> None:
    """Its last lines; of a line that was overwritten, what it said last; no colours, no control characters."""
    assert end_of(text) == end


def outcome(*streams: tuple[str, str]) -> Outcome:
    """The outcome of electrons that printed this on stdout and stderr."""
    results = tuple(
        NodeResult(node_id=node_id, output=None, failure=None, stdout=Log(tail=stdout), stderr=Log(tail=stderr))
        for node_id, (stdout, stderr) in enumerate(streams)
    )
    return Outcome("call", 1, "job", results, Usage(), python="", cloudpickle="", host={}, times={})


def test_an_outcome_has_both_streams() -> None:
    """With a heading where there are two; of a group of electrons, all of them."""
    assert end_of_outcome(outcome(("out\n", ""))) == "out"
    assert end_of_outcome(outcome(("", "err\n"))) == "err"
    assert end_of_outcome(outcome(("out\n", "err\n"))) == "out\n--- stderr ---\nerr"
    assert end_of_outcome(outcome(("one\n", ""), ("", ""), ("two\n", ""))) == "one\ntwo"
    assert end_of_outcome(outcome()) == ""


class Printer:
    """Stands for `following.new_pieces`: each job prints its id and how often it was read."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.fails = False

    def __call__(self, account: Any, record: Any, *_: Any) -> Iterator[Piece]:
        self.read.append(record.job_id)
        yield Piece(1, BOTH, f"{record.job_id}: {self.read.count(record.job_id)}\n")
        if self.fails:
            raise AwsError("too many", operation="logs:GetLogEvents", code="ThrottlingException", throttled=True)


@pytest.fixture
def printer(monkeypatch: pytest.MonkeyPatch) -> Printer:
    """In the place of CloudWatch."""
    made = Printer()
    monkeypatch.setattr(log_ends, "new_pieces", made)
    return made


def job(number: int, *, has_ended: bool = False, streams: tuple[str, ...] = ("stream",)) -> Any:
    """A job with what is asked of it."""
    return SimpleNamespace(job_id=f"job-{number}", log_streams=streams, has_ended=has_ended, since=100.0, call="place")


def reader(clock: Callable[[], float], now: float = 1000.0) -> LogEnds:
    """A reader that makes its calls one after the other."""
    account: Any = SimpleNamespace(each=lambda call, of: [call(each) for each in of])
    return LogEnds(account, clock=clock, now=lambda: now)


def test_logs_are_read_in_turn(printer: Printer) -> None:
    """However many jobs run, a look reads so many logs; each gets its turn, and what was read is kept."""
    seconds = iter(range(10_000))
    ends = reader(lambda: float(next(seconds)))
    jobs = [job(number) for number in range(3 * AT_A_TIME)]
    shown: dict[str, str] = {}
    for look in range(1, 4):
        shown = ends.read(jobs)
        assert len(printer.read) == look * AT_A_TIME
        assert len(shown) == look * AT_A_TIME
    assert sorted(printer.read) == sorted(each.job_id for each in jobs)
    ends.read(jobs)
    assert printer.read[-AT_A_TIME:] == printer.read[:AT_A_TIME]
    assert ends.read(jobs)["job-0"] == "job-0: 1\njob-0: 2"


def test_a_log_that_cannot_grow_is_not_read_again(printer: Printer) -> None:
    """A job without a container has none; one that ended a while ago has all; the last lines come late."""
    ends = reader(lambda: 0.0)
    for _ in range(3):
        assert ends.read([job(1, streams=()), job(2, has_ended=True)]) == {"job-2": "job-2: 1"}
    soon = reader(lambda: 0.0, now=101.0)
    for _ in range(3):
        soon.read([job(3, has_ended=True)])
    assert printer.read == ["job-2", "job-3", "job-3", "job-3"]


def test_a_log_that_cannot_be_read_stops_nothing(printer: Printer) -> None:
    """What was read before stays, and the next look tries again."""
    printer.fails = True
    ends = reader(lambda: 0.0)
    assert ends.read([job(1)]) == {"job-1": "job-1: 1"}
    assert ends.read([job(1)]) == {"job-1": "job-1: 1\njob-1: 2"}


def test_a_dispatch_that_sends_nothing_more_is_looked_at_less_and_less() -> None:
    """Never more often than calls to AWS allow, and at last once a minute, however long it goes on."""
    assert [pause_s(4.0, looks) for looks in (0, 1, 2, 3, 4, 5, 6)] == [4, 4, 8, 16, 32, 60, 60]
    assert pause_s(4.0, 10**9) == LONGEST_PAUSE_S
    assert pause_s(200.0, 10**9) == 200
