"""The loop of a search: asks the study for trials, dispatches them, and tells the study how they end.

Knows two interfaces: `Trials`, which an Optuna study is behind, and `Dispatches`, which Covalent and AWS are behind.
What it does can be broken off at any point, and a loop that begins later goes on: each step is remembered in the study
before the next one is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from covalent_cirro.contract.reports import Point
from covalent_cirro.search.core import DispatchEnd, Search, Verdict

LOOK_S = 1.0
"""Seconds between two reads of the dispatches' states from the Covalent server, which is on this machine mostly."""

REPORTS_S = 1.0
"""Seconds between two listings of what the trials report, which are one call mostly: an hour of them costs $0.02 (S3
pricing, LIST requests), and each second less is a second of a machine saved for each trial that is ended early."""

COSTS_S = 60.0
"""Seconds between two estimates of what the trials in flight have cost so far."""

CANCEL_S = 20.0
"""Seconds after which a trial that was to end is cancelled again: the server may not have heard the first request."""

_PAUSE_S = 0.2


class Known(NamedTuple):
    """A trial of the study that is in flight.

    Attributes:
        number: Its number.
        dispatch_id: Its dispatch; empty if it has none yet.
        pruning: Whether it is to be ended early.
        points: What the study knows of its values.
    """

    number: int
    dispatch_id: str = ""
    pruning: bool = False
    points: tuple[Point, ...] = ()


class Trials(Protocol):
    """The trials of a study."""

    def in_flight(self) -> list[Known]:
        """Trials that an earlier run of this search has left in flight."""

    def ask(self) -> int:
        """Make a trial; returns its number."""

    def parameters(self, number: int) -> Mapping[str, Any]:
        """Its parameters; they are chosen now if they were not."""

    def set_dispatch(self, number: int, dispatch_id: str) -> None:
        """Remember its dispatch."""

    def set_state(self, number: int, *, runs: bool) -> None:
        """Remember whether its job runs, for those who watch."""

    def report(self, number: int, point: Point) -> None:
        """Tell what it has reported."""

    def should_prune(self, number: int) -> bool:
        """Whether the pruner ends it, by what it has reported."""

    def set_pruning(self, number: int) -> None:
        """Remember that it is to be ended early."""

    def set_cost(self, number: int, usd: float) -> None:
        """Remember what it has cost so far."""

    def cost(self) -> float:
        """What all trials have cost so far, in US dollars."""

    def tell(self, verdict: Verdict) -> None:
        """Tell how it ended."""

    def alive(self) -> None:
        """Say that this loop runs. Called often."""


class Dispatches(Protocol):
    """The dispatches of trials."""

    def register(self, number: int, parameters: Mapping[str, Any], earlier: str = "") -> str:
        """Hand the lattice of a trial to the server, which starts nothing yet; returns the dispatch's id.

        Args:
            number: Number of the trial.
            parameters: Its parameters.
            earlier: Its dispatch that the server has lost, and whose results are reused if there are any.
        """

    def start(self, dispatch_id: str) -> None:
        """Have it started."""

    def look(self, dispatch_id: str) -> Look:
        """How it is."""

    def result(self, dispatch_id: str) -> tuple[float | None, str]:
        """The number that a completed one returned, or `None` and why there is none."""

    def why_failed(self, dispatch_id: str) -> str:
        """Why it failed."""

    def cancel(self, dispatch_id: str) -> None:
        """End its job, as a host that goes away would."""

    def reported(self, first: int) -> Mapping[str, Sequence[Point]]:
        """What trials have reported, those from number ``first`` on, by dispatch: one listing."""

    def cost(self, dispatch_id: str) -> float | None:
        """What it has cost so far, in US dollars; `None` where that is not known."""


class Look(NamedTuple):
    """How a dispatch is.

    Attributes:
        ended: How it has ended; `None` while it is under way.
        started: Whether the server has started it.
        runs: Whether its job runs: it has a machine.
        known: Whether the server knows it.
    """

    ended: DispatchEnd | None = None
    started: bool = True
    runs: bool = False
    known: bool = True


class Loop:
    """Runs a search.

    Args:
        search: What is in flight.
        trials: The study.
        dispatches: Covalent and AWS.
        show: Called after each round, for a table.
        clock: Seconds, monotonic.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        search: Search,
        trials: Trials,
        dispatches: Dispatches,
        *,
        show: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._search, self._trials, self._dispatches = search, trials, dispatches
        self._show, self._clock, self._sleep = show, clock, sleep
        self._ids: dict[int, str] = {}
        self._cancelled_at: dict[int, float] = {}
        self._stopping = False
        self._look_at = self._reports_at = self._costs_at = -float("inf")

    def run(self) -> None:
        """Run until the search is over. Can be called again after an exception, such as KeyboardInterrupt."""
        for known in self._trials.in_flight():
            self._search.begin(known.number)
            self._search.reported(known.number, known.points)
            self._ids[known.number] = known.dispatch_id
            if known.pruning:
                self._search.prune(known.number)
        while not self._search.is_over:
            self._round()
            self._show()
            if not self._search.is_over:
                self._sleep(_PAUSE_S)

    def stop_trials(self) -> None:
        """Cancel all trials in flight; `run` then waits for their ends. They are told as failed."""
        self._stopping = True
        self._search.stop("it was interrupted")
        for number in self._search.in_flight:
            self._cancel(number)

    def _round(self) -> None:
        self._trials.alive()
        now = self._clock()
        if now >= self._look_at + LOOK_S:
            self._look_at = now
            for number in self._search.in_flight:
                self._look(number)
        if now >= self._reports_at + REPORTS_S and self._search.in_flight:
            self._reports_at = now
            self._read_reports()
        if now >= self._costs_at + COSTS_S:
            self._costs_at = now
            for number in self._search.in_flight:
                self._estimate(number)
            self._search.spent(self._trials.cost())
        for _ in range(self._search.to_start):
            number = self._trials.ask()
            self._search.begin(number)
            self._ids[number] = ""
            self._dispatch(number)

    def _dispatch(self, number: int, earlier: str = "") -> None:
        dispatch_id = self._dispatches.register(number, self._trials.parameters(number), earlier)
        # Before it is started: whoever finds this trial later finds its dispatch, whatever happens from here.
        self._trials.set_dispatch(number, dispatch_id)
        self._ids[number] = dispatch_id
        self._dispatches.start(dispatch_id)

    def _look(self, number: int) -> None:
        dispatch_id = self._ids[number]
        if not dispatch_id:  # the loop was broken off between the two
            self._dispatch(number)
            return
        look = self._dispatches.look(dispatch_id)
        if not look.known:
            self._dispatch(number, dispatch_id)
            return
        if not look.started:
            self._dispatches.start(dispatch_id)
            return
        self._trials.set_state(number, runs=look.runs)
        if look.ended is not None:
            self._end(number, dispatch_id, look.ended)
        elif self._stopping or self._search.is_pruning(number):
            self._cancel(number)

    def _end(self, number: int, dispatch_id: str, ended: DispatchEnd) -> None:
        # The last values first: they decide what a pruned trial is told as, and the pruner learns from all of them.
        self._report(number, self._dispatches.reported(number).get(dispatch_id, ()))
        value, why = self._dispatches.result(dispatch_id) if ended is DispatchEnd.COMPLETED else (None, "")
        if ended is DispatchEnd.FAILED and not self._search.is_pruning(number):
            why = self._dispatches.why_failed(dispatch_id)
        self._estimate(number)
        verdict = self._search.verdict(number, ended, value, why)
        self._trials.tell(verdict)
        self._search.told(verdict)
        self._search.spent(self._trials.cost())

    def _read_reports(self) -> None:
        numbers = self._search.in_flight
        reported = self._dispatches.reported(numbers[0])
        for number in numbers:
            has_news = self._report(number, reported.get(self._ids[number], ()))
            if has_news and not self._search.is_pruning(number) and self._trials.should_prune(number):
                self._trials.set_pruning(number)
                self._search.prune(number)
                self._cancel(number)

    def _report(self, number: int, points: Sequence[Point]) -> bool:
        news = self._search.reported(number, points)
        for point in news:
            self._trials.report(number, point)
        return bool(news)

    def _cancel(self, number: int) -> None:
        now = self._clock()
        dispatch_id = self._ids.get(number, "")  # none, where Ctrl-C came just after the trial was asked for
        if dispatch_id and now >= self._cancelled_at.get(number, -float("inf")) + CANCEL_S:
            self._cancelled_at[number] = now
            self._dispatches.cancel(dispatch_id)

    def _estimate(self, number: int) -> None:
        usd = self._dispatches.cost(self._ids[number]) if self._ids[number] else None
        if usd is not None:
            self._trials.set_cost(number, usd)
