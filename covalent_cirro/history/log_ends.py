"""The last lines that electrons have printed: of those whose jobs run, a few logs are read at a time, in turn."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from covalent_cirro.contract.protocol import Outcome
from covalent_cirro.errors import CirroError
from covalent_cirro.history.account import Account
from covalent_cirro.history.following import BEHIND_S, Tail, new_pieces
from covalent_cirro.history.records import Record

LINES = 12
"""Lines of the end of a log."""

LINE_CHARS = 300
"""Characters of a line, at most: of a longer one, its end."""

KEPT_CHARS = 2 * LINES * LINE_CHARS
"""Characters of a log that are kept: escape sequences and overwritten lines are not shown."""

AT_A_TIME = 4
"""Logs that one look reads: each takes one to three calls, and GetLogEvents takes 10 to 25 calls a second for a whole
account and region (CloudWatch Logs quotas)."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")
"""What a progress bar wrote before its last state."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def end_of(text: str) -> str:
    """The last lines of a text, as a terminal would show them: overwritten ones as they were last, without colours."""
    lines = _ESCAPE.sub("", _OVERWRITTEN.sub("", text)).rstrip().split("\n")[-LINES:]
    return "\n".join(_CONTROL.sub("", line).rstrip()[-LINE_CHARS:] for line in lines).strip("\n")


def end_of_outcome(outcome: Outcome) -> str:
    """The last lines that the electrons of a job printed: of stdout, then of stderr."""
    stdout = end_of("\n".join(result.stdout.tail.rstrip("\n") for result in outcome.results if result.stdout.tail))
    stderr = end_of("\n".join(result.stderr.tail.rstrip("\n") for result in outcome.results if result.stderr.tail))
    return f"{stdout}\n--- stderr ---\n{stderr}" if stdout and stderr else stdout or stderr


@dataclass
class _Log:
    """One job's log.

    Attributes:
        text: Its end.
        tails: How far it was read.
        read_at: Seconds on the clock when it was read.
        is_final: Whether it will not grow any more.
    """

    text: str = ""
    tails: dict[str, Tail] = field(default_factory=dict)
    read_at: float = float("-inf")
    is_final: bool = False


class LogEnds:
    """The ends of the logs of jobs that have left no outcome, or none yet.

    Args:
        account: The account.
        clock: Seconds, monotonic.
        now: Epoch seconds.
    """

    def __init__(
        self, account: Account, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._clock = clock
        self._now = now
        self._logs: dict[str, _Log] = {}

    def read(self, records: Iterable[Record]) -> dict[str, str]:
        """By job id, the last lines. `AT_A_TIME` of the logs are read, those first that were not read for longest."""
        records = list(records)
        for record in records:
            self._logs.setdefault(record.job_id, _Log())
        growing = [each for each in records if any(each.log_streams) and not self._logs[each.job_id].is_final]
        growing.sort(key=lambda record: self._logs[record.job_id].read_at)
        self._account.each(self._grow, growing[:AT_A_TIME])
        ends = {record.job_id: end_of(self._logs[record.job_id].text) for record in records}
        return {job_id: end for job_id, end in ends.items() if end}

    def _grow(self, record: Record) -> None:
        log = self._logs[record.job_id]
        log.read_at = self._clock()
        if record.call is None:
            return
        try:
            for piece in new_pieces(self._account, record, record.call, log.tails, self._clock):
                text = f"--- {piece.about} ---\n" if piece.about else piece.text
                log.text = _OVERWRITTEN.sub("", log.text + text)[-KEPT_CHARS:]
        except CirroError:
            return  # the rest of the page does not wait for a log; the next look reads it again
        # The last lines reach CloudWatch later than the end.
        log.is_final = record.has_ended and self._now() - (record.since or 0.0) > BEHIND_S
