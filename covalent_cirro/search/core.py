"""What a search has in flight: how many trials to start, what to tell the study, and when the search is over. Pure.

Knows numbers of trials, steps and values; it must not know Optuna, Covalent or AWS. `loop.py` brings it the events, in
whatever order they come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from covalent_cirro.contract.reports import Point


class DispatchEnd(Enum):
    """How the dispatch of a trial has ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrialEnd(Enum):
    """What the study is told of a trial."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


class Verdict(NamedTuple):
    """What the study is told of a trial that has ended.

    Attributes:
        number: Number of the trial.
        state: Its state.
        value: Its value; `None` where it failed, or was pruned before it reported any.
        why: Why it failed; empty otherwise.
    """

    number: int
    state: TrialEnd
    value: float | None = None
    why: str = ""


class Budget(NamedTuple):
    """How much a search may do.

    Attributes:
        trials: Trials of the study in all, those of earlier runs of the search included.
        at_once: Trials in flight, at most.
        max_failures: Failed trials after which no further one is started; `None` for no limit.
        max_cost: US dollars after which no further one is started; `None` for no limit.
    """

    trials: int
    at_once: int
    max_failures: int | None = None
    max_cost: float | None = None


class _Flight(NamedTuple):
    steps: frozenset[int] = frozenset()
    last: Point | None = None
    pruning: bool = False


class Search:
    """The trials of a search, from the start of each to its verdict.

    Args:
        budget: How much the search may do.
        begun: Number of trials that the study has already, in any state but in flight here.
        failed: How many of them failed.

    Attributes:
        stopped: Why no further trial is started; empty while some may be.
    """

    def __init__(self, budget: Budget, begun: int = 0, failed: int = 0) -> None:
        self._budget = budget
        self._begun, self._failed = begun, failed
        self._flights: dict[int, _Flight] = {}
        self.stopped = ""
        self._check()

    @property
    def in_flight(self) -> list[int]:
        """Numbers of the trials that were started or adopted and have no verdict yet."""
        return sorted(self._flights)

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight and nothing will be."""
        return not self._flights and not self.to_start

    @property
    def to_start(self) -> int:
        """How many trials to start now."""
        if self.stopped:
            return 0
        return max(0, min(self._budget.at_once - len(self._flights), self._budget.trials - self._begun))

    def begin(self, number: int) -> None:
        """A trial is in flight: it was started now, or was found in flight."""
        if number not in self._flights:
            self._begun += 1
            self._flights[number] = _Flight()

    def reported(self, number: int, points: Iterable[Point]) -> list[Point]:
        """The points of a trial that were not seen before, in the order of their steps.

        Of a step that a later attempt reports again, the first value stands, since the study keeps it.
        """
        flight = self._flights.get(number)
        if flight is None:
            return []
        news = sorted({point.step: point for point in points if point.step not in flight.steps}.values())
        if news:
            steps = flight.steps | {point.step for point in news}
            known = [news[-1], *([flight.last] if flight.last is not None else [])]
            self._flights[number] = flight._replace(steps=steps, last=max(known))
        return news

    def prune(self, number: int) -> bool:
        """Note that a trial is to be ended early; false if it was noted before, or the trial is not in flight."""
        flight = self._flights.get(number)
        if flight is None or flight.pruning:
            return False
        self._flights[number] = flight._replace(pruning=True)
        return True

    def is_pruning(self, number: int) -> bool:
        """Whether a trial in flight is to be ended early."""
        return number in self._flights and self._flights[number].pruning

    def verdict(self, number: int, ended: DispatchEnd, value: float | None = None, why: str = "") -> Verdict:
        """What to tell the study of a trial in flight whose dispatch has ended. Call `told` when that is done.

        Args:
            number: Number of the trial.
            ended: How its dispatch ended.
            value: What it returned, if it completed; `None` where that is no number.
            why: Why it failed or has no value.
        """
        flight = self._flights[number]
        if ended is DispatchEnd.COMPLETED and value is not None and not math.isnan(value):
            # Also of a trial that was to be ended early and was faster.
            return Verdict(number, TrialEnd.COMPLETE, value)
        if flight.pruning and ended is not DispatchEnd.COMPLETED:
            return Verdict(number, TrialEnd.PRUNED, None if flight.last is None else flight.last.value)
        return Verdict(
            number, TrialEnd.FAILED, why=why or ("it was cancelled" if ended is DispatchEnd.CANCELLED else "no value")
        )

    def told(self, verdict: Verdict) -> None:
        """The study was told of a trial, which is not in flight any more."""
        if self._flights.pop(verdict.number, None) is not None and verdict.state is TrialEnd.FAILED:
            self._failed += 1
            self._check()

    def spent(self, usd: float) -> None:
        """Note what all trials have cost so far."""
        if self._budget.max_cost is not None and usd >= self._budget.max_cost:
            self.stop(f"the trials have cost ${usd:.2f}, and max_cost is ${self._budget.max_cost:.2f}")

    def stop(self, why: str) -> None:
        """Start no further trial; those in flight go on."""
        self.stopped = self.stopped or why

    def _check(self) -> None:
        most = self._budget.max_failures
        if most is not None and self._failed > most:
            self.stop(f"{self._failed} trials failed, and max_failures is {most}")
