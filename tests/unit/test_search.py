"""Searches: what is in flight, ended, adopted and told, with a simulated clock and dispatches that end as they like."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from covalent_cirro.contract.reports import Point
from covalent_cirro.errors import SearchError
from covalent_cirro.search import table
from covalent_cirro.search.core import Budget, DispatchEnd, Search, TrialEnd, Verdict
from covalent_cirro.search.loop import CANCEL_S, Look, Loop
from covalent_cirro.search.study import LOOP, PRUNING, SEARCHED, SILENT_S, WHY, StudyTrials
from covalent_cirro.search.trial_dispatches import lattice_name

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "width": IntDistribution(1, 9),
    "kind": CategoricalDistribution(["a", "b"]),
}
EPOCHS = 5
EPOCH_S = 4.0


class Killed(BaseException):
    """The process of the search is killed here."""


@dataclass
class Dispatch:
    """A dispatch of the simulated server."""

    number: int
    began: float | None = None
    cancelled_at: float | None = None
    ends_as: DispatchEnd = DispatchEnd.COMPLETED
    computed_s: float = 0.0


@dataclass
class World:
    """A Covalent server and an AWS that outlive the process of the search.

    Attributes:
        now: Seconds.
        kill_in: Calls until the process is killed; `None` for never.
    """

    chance: random.Random
    now: float = 0.0
    kill_in: int | None = None
    dispatches: dict[str, Dispatch] = field(default_factory=dict)
    most_at_once: int = 0
    cancels: list[float] = field(default_factory=list)
    fails: Callable[[int], bool] = lambda number: False
    forgotten: set[str] = field(default_factory=set)
    earlier: list[str] = field(default_factory=list)
    value: Callable[[int, int], float] = lambda number, epoch: number + epoch / 10

    def call(self) -> None:
        """Any call to the server: the process may be killed before it, or after it."""
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                self.kill_in = None
                raise Killed

    def sleep(self, seconds: float) -> None:
        self.now += seconds * self.chance.choice([1, 1, 5, 20])

    def ended(self, each: Dispatch) -> DispatchEnd | None:
        if each.began is None:
            return None
        if each.cancelled_at is not None and self.now >= each.cancelled_at + 3 and self.epoch(each, True) < EPOCHS:
            return DispatchEnd.CANCELLED
        if self.epoch(each, False) >= EPOCHS:
            return DispatchEnd.FAILED if self.fails(each.number) else DispatchEnd.COMPLETED
        return None

    def epoch(self, each: Dispatch, cancelled: bool) -> int:
        if each.began is None:
            return 0
        until = min(self.now, each.cancelled_at) if cancelled and each.cancelled_at is not None else self.now
        return min(EPOCHS, int((until - each.began) / EPOCH_S))

    # --- `loop.Dispatches` ---

    def register(self, number: int, parameters: Mapping[str, Any], earlier: str = "") -> str:
        self.call()
        assert set(parameters) == set(SPACE)
        dispatch_id = f"dispatch-{len(self.dispatches)}"
        self.dispatches[dispatch_id] = Dispatch(number)
        self.earlier += [earlier] if earlier else []
        self.call()
        return dispatch_id

    def start(self, dispatch_id: str) -> None:
        self.call()
        if self.dispatches[dispatch_id].began is None:  # Covalent starts a dispatch at most once
            self.dispatches[dispatch_id].began = self.now
        running = sum(each.began is not None and self.ended(each) is None for each in self.dispatches.values())
        self.most_at_once = max(self.most_at_once, running)
        self.call()

    def look(self, dispatch_id: str) -> Look:
        self.call()
        each = self.dispatches[dispatch_id]
        known = dispatch_id not in self.forgotten
        return Look(self.ended(each), started=each.began is not None, runs=True, known=known)

    def result(self, dispatch_id: str) -> tuple[float | None, str]:
        self.call()
        return self.value(self.dispatches[dispatch_id].number, EPOCHS), ""

    def why_failed(self, dispatch_id: str) -> str:
        return f"{dispatch_id} ran out of luck"

    def cancel(self, dispatch_id: str) -> None:
        self.call()
        self.cancels.append(self.now)
        if self.dispatches[dispatch_id].cancelled_at is None:
            self.dispatches[dispatch_id].cancelled_at = self.now
        self.call()

    def reported(self, first: int) -> Mapping[str, Sequence[Point]]:
        self.call()
        return {
            dispatch_id: [Point(epoch, self.value(each.number, epoch)) for epoch in range(self.epoch(each, True))]
            for dispatch_id, each in self.dispatches.items()
            if each.number >= first
        }

    def cost(self, dispatch_id: str) -> float | None:
        return self.epoch(self.dispatches[dispatch_id], True) * 0.5


def study_of(pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    """A study that is kept in memory, as one in a database outlives the process."""
    return optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=pruner or optuna.pruners.NopPruner(),
    )


class MortalTrials(StudyTrials):
    """The process may be killed before and after each write to the study, too."""

    world: World

    def ask(self) -> int:
        self.world.call()
        number = super().ask()
        self.world.call()
        return number

    def parameters(self, number: int) -> Mapping[str, Any]:
        self.world.call()
        return super().parameters(number)

    def set_dispatch(self, number: int, dispatch_id: str) -> None:
        self.world.call()
        super().set_dispatch(number, dispatch_id)
        self.world.call()

    def tell(self, verdict: Verdict) -> None:
        self.world.call()
        super().tell(verdict)
        self.world.call()


def search_in(study: optuna.Study, world: World, budget: Budget) -> Search:
    """Run a search in a process of its own, which may be killed."""
    trials = MortalTrials(study, SPACE)
    trials.world = world
    trials.begin()
    search = Search(budget, *trials.begun())
    Loop(search, trials, world, clock=lambda: world.now, sleep=world.sleep).run()
    trials.close()
    return search


# --- the loop ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    trials=st.integers(1, 12),
    at_once=st.integers(1, 5),
    kills=st.lists(st.integers(0, 120), max_size=6),
    prunes=st.booleans(),
)
def test_every_trial_is_dispatched_once_and_told_once(
    seed: int, trials: int, at_once: int, kills: list[int], prunes: bool
) -> None:
    """However often the process is killed, and wherever; and never more of them than ``at_once``."""
    world = World(random.Random(seed))
    study = study_of(optuna.pruners.MedianPruner(n_startup_trials=2) if prunes else None)
    world.value = lambda number, epoch: math.sin(number * 7.0 + seed) * epoch
    world.fails = lambda number: (number * 31 + seed) % 5 == 0
    budget = Budget(trials, at_once)
    for kill_in in [*kills, None]:
        world.kill_in = kill_in
        try:
            search_in(study, world, budget)
        except Killed:
            world.now += 5
    told = study.get_trials(deepcopy=False)
    assert len(told) == trials
    assert all(each.state.is_finished() for each in told)
    started = [each.number for each in world.dispatches.values() if each.began is not None]
    assert sorted(started) == list(range(trials))
    assert world.most_at_once <= at_once
    for each in told:
        if each.state == TrialState.COMPLETE:
            assert each.value == world.value(each.number, EPOCHS)
            assert not world.fails(each.number)
        elif each.state == TrialState.PRUNED:
            assert each.user_attrs[PRUNING]
            assert each.value == each.intermediate_values[each.last_step]
        else:
            assert "ran out of luck" in each.user_attrs[WHY]


def test_a_new_trial_is_asked_for_when_one_ends() -> None:
    """Not when all of them have ended: machines do not wait for one another."""
    world = World(random.Random(0))
    world.sleep = lambda seconds: setattr(world, "now", world.now + seconds)  # type: ignore[method-assign]
    search_in(study_of(), world, Budget(trials=9, at_once=3))
    starts = sorted(each.began or 0.0 for each in world.dispatches.values())
    assert starts[:3] == [0.0] * 3
    assert max(starts) < 3 * EPOCHS * EPOCH_S


def test_a_pruned_trial_stops_costing() -> None:
    """It is cancelled, its last value is told, and another one takes its place."""
    world = World(random.Random(0))
    world.value = lambda number, epoch: epoch * (1.0 if number == 0 else -1.0)
    study = study_of(optuna.pruners.PercentilePruner(50.0, n_startup_trials=1, n_warmup_steps=0))
    search_in(study, world, Budget(trials=4, at_once=1))
    states = [each.state for each in study.trials]
    assert states == [TrialState.COMPLETE, *[TrialState.PRUNED] * 3]
    for each in study.trials[1:]:
        assert each.value == each.intermediate_values[each.last_step]
        assert each.last_step is not None
        assert each.last_step < EPOCHS - 1


def test_a_cancel_that_was_not_heard_is_repeated_but_not_all_the_time() -> None:
    """The server may have been away for a moment."""
    world = World(random.Random(0))
    world.value = lambda number, epoch: float(-epoch if number else epoch)
    world.sleep = lambda seconds: setattr(world, "now", world.now + seconds)  # type: ignore[method-assign]
    heard, asked = world.cancel, []

    def cancel(dispatch_id: str) -> None:
        asked.append(world.now)
        if len(asked) > 1:
            heard(dispatch_id)

    world.cancel = cancel  # type: ignore[method-assign]
    global EPOCH_S
    pruner = optuna.pruners.PercentilePruner(50.0, n_startup_trials=1, n_warmup_steps=0)
    study = study_of(pruner)
    before, EPOCH_S = EPOCH_S, 60.0
    try:
        search_in(study, world, Budget(trials=2, at_once=1))
    finally:
        EPOCH_S = before
    assert len(asked) == 2
    assert CANCEL_S <= asked[1] - asked[0] <= CANCEL_S + 2


@pytest.mark.parametrize("kill_in", range(14))
def test_trials_are_stopped_wherever_the_loop_was_interrupted(kill_in: int) -> None:
    """Also between two trials, and in the middle of one: all are told, and none runs on."""
    world = World(random.Random(0), kill_in=kill_in)
    study = study_of()
    trials = MortalTrials(study, SPACE)
    trials.world = world
    loop = Loop(Search(Budget(4, 2)), trials, world, clock=lambda: world.now, sleep=world.sleep)
    with pytest.raises(Killed):
        loop.run()
    world.sleep = lambda seconds: setattr(world, "now", world.now + seconds)  # type: ignore[method-assign]
    loop.stop_trials()
    loop.run()
    assert not any(each.state == TrialState.COMPLETE for each in study.trials)
    assert all(each.state.is_finished() or each.state == TrialState.WAITING for each in study.trials)
    assert all(world.ended(each) is not None for each in world.dispatches.values() if each.began is not None)


def test_a_dispatch_that_the_server_has_lost_is_made_again() -> None:
    """Of the same work, and with its id: what it has computed is in S3, and is reused."""
    world = World(random.Random(0))
    world.kill_in = 12
    study = study_of()
    with pytest.raises(Killed):
        search_in(study, world, Budget(trials=1, at_once=1))
    world.forgotten = set(world.dispatches)
    search_in(study, world, Budget(trials=1, at_once=1))
    assert world.earlier == ["dispatch-0"]
    assert study.trials[0].state == TrialState.COMPLETE


def test_too_many_failures_end_a_search() -> None:
    """Those in flight go on, and are told; no further one is started."""
    world = World(random.Random(0))
    world.fails = lambda number: True
    study = study_of()
    search = search_in(study, world, Budget(trials=50, at_once=2, max_failures=3))
    assert "max_failures is 3" in search.stopped
    assert 4 <= len(study.trials) <= 5


def test_a_budget_in_dollars_ends_a_search() -> None:
    """Those in flight go on, and are told."""
    world = World(random.Random(0))
    study = study_of()
    search = search_in(study, world, Budget(trials=50, at_once=2, max_cost=10.0))
    assert "max_cost is $10.00" in search.stopped
    assert 10.0 <= table.cost(study) < 10.0 + 2 * EPOCHS
    assert all(each.state == TrialState.COMPLETE for each in study.trials)


def test_a_search_that_has_ended_does_nothing_again() -> None:
    """The same script, once more; with more trials it goes on."""
    world = World(random.Random(0))
    study = study_of()
    for _ in range(2):
        search_in(study, world, Budget(trials=3, at_once=2))
        assert len(world.dispatches) == 3
    search_in(study, world, Budget(trials=5, at_once=2))
    assert len(world.dispatches) == 5


def test_trials_of_others_in_the_study_are_left_alone() -> None:
    """Optuna's own loop may run in it, too; they count."""
    world = World(random.Random(0))
    study = study_of()
    theirs = study.ask()
    search_in(study, world, Budget(trials=3, at_once=2))
    assert study.trials[theirs.number].state == TrialState.RUNNING
    assert SEARCHED not in study.trials[theirs.number].user_attrs
    assert len(world.dispatches) == 2


def test_one_process_at_a_time_searches_in_a_study() -> None:
    """Two would dispatch each other's trials. A killed one is noticed at once on this host, else after a while."""
    study = study_of()
    StudyTrials(study, SPACE).begin()
    noted = study.user_attrs[LOOP]
    StudyTrials(study, SPACE).begin()  # of this process itself
    study.set_user_attr(LOOP, {**noted, "host": "elsewhere"})
    with pytest.raises(SearchError, match=r"on elsewhere searches in the study"):
        StudyTrials(study, SPACE).begin()
    study.set_user_attr(LOOP, {**noted, "host": "elsewhere", "at": noted["at"] - SILENT_S - 1})
    StudyTrials(study, SPACE).begin()
    study.set_user_attr(LOOP, {**noted, "pid": 2**22 + 1})  # Linux gives no process this number
    StudyTrials(study, SPACE).begin()
    study.set_user_attr(LOOP, {**noted, "pid": 1})
    with pytest.raises(SearchError, match="process 1 on"):
        StudyTrials(study, SPACE).begin()


def test_parameters_are_chosen_once() -> None:
    """A trial that was asked for and not dispatched keeps those that it has."""
    study = study_of()
    trials = StudyTrials(study, SPACE)
    number = trials.ask()
    chosen = dict(trials.parameters(number))
    again = StudyTrials(study, SPACE)
    assert [known.number for known in again.in_flight()] == [number]
    assert dict(again.parameters(number)) == chosen == study.trials[0].params


# --- the core ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.floats(0, 1)), max_size=40))
def test_a_step_is_new_once(reports: list[tuple[int, int, float]]) -> None:
    """Whatever is reported again, in whatever order: the study keeps the first value of a step."""
    search = Search(Budget(4, 4))
    for number in range(4):
        search.begin(number)
    told = [
        (number, point.step)
        for number, step, value in reports
        for point in search.reported(number, [Point(step, value)])
    ]
    assert len(told) == len(set(told))
    assert set(told) == {(number, step) for number, step, _ in reports}


@pytest.mark.parametrize(
    ("pruning", "ended", "value", "verdict"),
    [
        (False, DispatchEnd.COMPLETED, 0.9, Verdict(0, TrialEnd.COMPLETE, 0.9)),
        (True, DispatchEnd.COMPLETED, 0.9, Verdict(0, TrialEnd.COMPLETE, 0.9)),
        (True, DispatchEnd.CANCELLED, None, Verdict(0, TrialEnd.PRUNED, 0.5)),
        (True, DispatchEnd.FAILED, None, Verdict(0, TrialEnd.PRUNED, 0.5)),
        (False, DispatchEnd.CANCELLED, None, Verdict(0, TrialEnd.FAILED, why="it was cancelled")),
        (False, DispatchEnd.COMPLETED, float("nan"), Verdict(0, TrialEnd.FAILED, why="no value")),
        (False, DispatchEnd.COMPLETED, None, Verdict(0, TrialEnd.FAILED, why="no value")),
        (False, DispatchEnd.FAILED, None, Verdict(0, TrialEnd.FAILED, why="no value")),
    ],
)
def test_what_the_study_is_told(pruning: bool, ended: DispatchEnd, value: float | None, verdict: Verdict) -> None:
    """A trial that was to end early and was faster has its value; one that somebody else cancelled has failed."""
    search = Search(Budget(1, 1))
    search.begin(0)
    search.reported(0, [Point(3, 0.5), Point(1, 0.1)])
    if pruning:
        assert search.prune(0)
        assert not search.prune(0)
    assert search.verdict(0, ended, value) == verdict
    assert not search.is_over
    search.told(verdict)
    assert search.is_over


def test_the_name_of_a_trials_dispatch() -> None:
    """As the Covalent UI lists it; a long name of a study leaves room for the number."""
    assert lattice_name("digits", 12) == "digits.00012"
    assert lattice_name("x" * 300, 7).endswith("x.00007")


# --- what a person sees -----------------------------------------------------------------------------------------------


def test_the_table_of_a_search() -> None:
    """The states, the best, and the counts."""
    study = study_of()
    world = World(random.Random(0))
    world.fails = lambda number: number == 1
    search_in(study, world, Budget(trials=3, at_once=1))
    found = table.rows(study)
    assert [each.state for each in found] == ["complete", "failed", "complete"]
    assert [each.best for each in found] == [False, False, True]
    assert found[2].dispatch_id == "dispatch-2"
    assert table.summary(study, found) == "2 complete, 1 failed; best 2.5 (trial 2); ≈ $7.50 so far"
