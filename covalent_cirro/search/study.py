"""The trials of an Optuna study, for the loop of a search. Their attributes have what a later loop needs to go on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from covalent_cirro.contract.reports import Point
from covalent_cirro.errors import SearchError
from covalent_cirro.search.core import TrialEnd, Verdict
from covalent_cirro.search.loop import Known

SEARCHED, DISPATCH, PRUNING = "cirro:search", "cirro:dispatch", "cirro:pruning"
COST, WHY, RUNS = "cirro:cost", "cirro:why", "cirro:runs"
"""Attributes of a trial: that a search made it, its dispatch, whether it is to be ended early, what it has cost in US
dollars, why it failed, and whether its job runs."""

LOOP = "cirro:loop"
"""Attribute of the study: the process that searches, and when it last said so."""

ALIVE_S = 10.0
"""Seconds between two notes of the process that it searches."""

SILENT_S = 60.0
"""Seconds after which a process that has made no note is taken for ended."""

_STATES = {TrialEnd.COMPLETE: TrialState.COMPLETE, TrialEnd.PRUNED: TrialState.PRUNED, TrialEnd.FAILED: TrialState.FAIL}


class StudyTrials:
    """Implements `loop.Trials`. One process at a time searches in a study.

    Args:
        study: The study, with one objective.
        space: The distributions of the parameters.
    """

    def __init__(self, study: optuna.Study, space: Mapping[str, BaseDistribution]) -> None:
        self._study, self._space = study, space
        self._trials: dict[int, Trial] = {}
        self._costs: dict[int, float] = {}
        self._runs: dict[int, bool] = {}
        self._me = {"host": socket.gethostname(), "pid": os.getpid()}
        self._noted_at = -float("inf")

    def begun(self) -> tuple[int, int]:
        """Number of the trials that are not in flight here, and of those that failed among them."""
        others = [each for each in self._study.get_trials(deepcopy=False) if not _is_in_flight(each)]
        return (
            sum(each.state != TrialState.WAITING for each in others),
            sum(each.state == TrialState.FAIL for each in others),
        )

    def in_flight(self) -> list[Known]:
        """See `loop.Trials`."""
        found = []
        for each in self._study.get_trials(deepcopy=False):
            if each.user_attrs.get(COST) is not None:
                self._costs[each.number] = float(each.user_attrs[COST])
            if _is_in_flight(each):
                self._trials[each.number] = Trial(self._study, each._trial_id)
                points = tuple(Point(step, value) for step, value in sorted(each.intermediate_values.items()))
                attrs = each.user_attrs
                found.append(Known(each.number, attrs.get(DISPATCH, ""), bool(attrs.get(PRUNING)), points))
        return found

    def ask(self) -> int:
        """See `loop.Trials`."""
        # Through the queue, where it is ours from the first moment, and without distributions: choosing parameters
        # takes a while, and a trial that is nobody's would be lost if this process were killed meanwhile.
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.enqueue_trial({}, user_attrs={SEARCHED: True})
        trial = self._study.ask()
        trial.set_user_attr(SEARCHED, True)
        self._trials[trial.number] = trial
        return trial.number

    def parameters(self, number: int) -> Mapping[str, Any]:
        """See `loop.Trials`."""
        return {name: _suggested(self._trials[number], name, each) for name, each in self._space.items()}

    def set_dispatch(self, number: int, dispatch_id: str) -> None:
        """See `loop.Trials`."""
        self._trials[number].set_user_attr(DISPATCH, dispatch_id)

    def set_state(self, number: int, *, runs: bool) -> None:
        """See `loop.Trials`."""
        if self._runs.get(number) is not runs:
            self._runs[number] = runs
            self._trials[number].set_user_attr(RUNS, runs)

    def report(self, number: int, point: Point) -> None:
        """See `loop.Trials`."""
        self._trials[number].report(point.value, point.step)

    def should_prune(self, number: int) -> bool:
        """See `loop.Trials`."""
        return self._trials[number].should_prune()

    def set_pruning(self, number: int) -> None:
        """See `loop.Trials`."""
        self._trials[number].set_user_attr(PRUNING, True)

    def set_cost(self, number: int, usd: float) -> None:
        """See `loop.Trials`."""
        if self._costs.get(number) != usd:
            self._costs[number] = usd
            self._trials[number].set_user_attr(COST, usd)

    def cost(self) -> float:
        """See `loop.Trials`."""
        return sum(self._costs.values())

    def tell(self, verdict: Verdict) -> None:
        """See `loop.Trials`."""
        trial = self._trials[verdict.number]
        if verdict.why:
            trial.set_user_attr(WHY, verdict.why)
        values = verdict.value if verdict.state is TrialEnd.COMPLETE else None  # of a pruned one Optuna takes the last
        self._study.tell(trial, values, _STATES[verdict.state], skip_if_finished=True)

    # --- one process at a time ---

    def begin(self) -> None:
        """Note that this process searches.

        Raises:
            SearchError: Another one does.
        """
        other = self._study.user_attrs.get(LOOP)
        if other and not _has_ended(other, self._me):
            raise SearchError(
                f"process {other['pid']} on {other['host']} searches in the study {self._study.study_name!r}: two "
                f"would dispatch each other's trials. End that one first; if it has ended, try again in {SILENT_S:.0f} "
                "s. `cirro search` shows the study meanwhile."
            )
        self.alive()

    def alive(self) -> None:
        """See `loop.Trials`."""
        if time.monotonic() >= self._noted_at + ALIVE_S:
            self._noted_at = time.monotonic()
            self._study.set_user_attr(LOOP, {**self._me, "at": time.time()})

    def close(self) -> None:
        """Note that this process searches no longer."""
        self._study.set_user_attr(LOOP, None)


def _is_in_flight(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING and SEARCHED in trial.user_attrs


def _has_ended(other: Mapping[str, Any], me: Mapping[str, Any]) -> bool:
    if (other["host"], other["pid"]) == (me["host"], me["pid"]):
        return True
    if other["host"] == me["host"]:
        try:
            os.kill(other["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # that of another user
    return bool(time.time() > other["at"] + SILENT_S)  # another program may have the number now


def _suggested(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)
