"""`search.ThompsonSampler`: what it proposes, from what, and that the same seed gives the same search."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from covalent_cirro.errors import SettingsError
from covalent_cirro.search import ThompsonSampler
from covalent_cirro.search.thompson_sampler import OUTLIER, _without_outliers

MIXED: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "channels": IntDistribution(8, 64, step=8),
    "layers": IntDistribution(1, 100, log=True),
    "optimizer": CategoricalDistribution(["adam", "sgd", None]),
    "always": CategoricalDistribution(["this"]),
}
LINE: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Optuna does not log each trial; PyTorch takes one thread, as the other tests need the processors too."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def study_of(trials: Sequence[FrozenTrial], direction: str = "maximize", **options: Any) -> Study:
    """A study with these trials, whose sampler proposes from the first value on."""
    options = {"seed": 1, "n_startup_trials": 1, **options}
    study = optuna.create_study(direction=direction, sampler=ThompsonSampler(**options))
    study.add_trials(list(trials))
    return study


def trial(x: float, value: float | None = None, pruned: Sequence[float] = (), failed: bool = False) -> FrozenTrial:
    """A finished trial on the line; `pruned` are the values that it reported before it was pruned."""
    state = TrialState.FAIL if failed else TrialState.PRUNED if pruned else TrialState.COMPLETE
    reported = dict(enumerate(pruned))
    return create_trial(state=state, params={"x": x}, distributions=LINE, value=value, intermediate_values=reported)


def points(count: int, value: Callable[[float], float]) -> list[FrozenTrial]:
    """Finished trials all along the line."""
    return [trial(x, value(x)) for x in (np.arange(count) + 0.5) / count]


def searched(space: dict[str, BaseDistribution], value: Callable[..., float], trials: int, **options: Any) -> Study:
    """A study after so many trials, one after the other."""
    study = study_of([], **options)
    for _ in range(trials):
        asked = study.ask(space)
        study.tell(asked, value(**asked.params))
    return study


# --- what is imported ---------------------------------------------------------------------------------------------


def python(code: str) -> str:
    """What a new process prints."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    ).stdout


def test_nothing_else_imports_optuna_or_botorch() -> None:
    """Neither the package nor its `search`, before a sampler is asked for; the sampler alone needs no BoTorch."""
    printed = python(
        """
        import sys
        from covalent_cirro import search
        print({"optuna", "botorch", "torch"} & sys.modules.keys())
        search.ThompsonSampler
        print("botorch" in sys.modules)
        """
    )
    assert printed.split("\n")[:2] == ["set()", "False"]


def test_without_optuna_the_error_says_what_to_install() -> None:
    """The name of the extra."""
    printed = python(
        """
        import sys
        sys.modules["optuna"] = None
        from covalent_cirro import search
        try:
            search.ThompsonSampler
        except ModuleNotFoundError as error:
            print(error)
        """
    )
    assert "pip install 'covalent-cirro[search]'" in printed


# --- what is refused ----------------------------------------------------------------------------------------------


def test_several_objectives_are_refused() -> None:
    """With the study's name, and what to do."""
    study = optuna.create_study(study_name="two", directions=["minimize", "maximize"], sampler=ThompsonSampler())
    with pytest.raises(SettingsError, match=r"'two' has 2 objectives.*NSGAIISampler"):
        study.ask()


def test_a_start_without_random_trials_is_refused() -> None:
    """A Gaussian process needs a value."""
    with pytest.raises(SettingsError, match="n_startup_trials=0"):
        ThompsonSampler(n_startup_trials=0)


# --- what is proposed ---------------------------------------------------------------------------------------------


def test_proposals_are_in_the_space() -> None:
    """Of every kind of parameter: Optuna takes each value as it is, and its type is right."""
    study = searched(
        MIXED, lambda rate, layers, **_: -abs(math.log(rate) + 5) - layers / 50, trials=7, n_startup_trials=4
    )
    for each in study.trials:
        assert each.params.keys() == MIXED.keys()
        for name, value in each.params.items():
            assert MIXED[name]._contains(MIXED[name].to_internal_repr(value)), (name, value)
        assert [type(each.params[name]) for name in ("rate", "dropout", "channels", "layers")] == [
            float,
            float,
            int,
            int,
        ]
        assert each.params["always"] == "this"


def test_it_finds_the_highest_point_better_than_chance() -> None:
    """Of a hill in three dimensions, with as many trials."""

    def hill(x: float, y: float, z: float) -> float:
        return -((x - 0.3) ** 2) - (y - 0.8) ** 2 - (z - 0.5) ** 2

    space: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in "xyz"}
    found = searched(space, hill, trials=18, n_startup_trials=8).best_value
    chance = [searched(space, hill, trials=18, seed=seed, n_startup_trials=99).best_value for seed in range(10)]
    assert found > -0.002
    assert found > max(chance)


def test_it_finds_the_best_choice_and_integer() -> None:
    """Parameters that have no gradient."""
    space: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution(["a", "b", "c", "d"]),
        "width": IntDistribution(0, 60),
    }
    study = searched(space, lambda kind, width: (kind == "c") - abs(width - 41) / 60, trials=18, n_startup_trials=8)
    assert study.best_params["kind"] == "c"
    assert abs(study.best_params["width"] - 41) <= 2


def test_a_space_of_one_categorical_parameter() -> None:
    """The best choice is proposed most."""
    space: dict[str, BaseDistribution] = {"kind": CategoricalDistribution(["a", "b", "c"])}
    study = searched(space, lambda kind: {"a": 0.0, "b": 1.0, "c": 0.4}[kind], trials=12, n_startup_trials=6)
    assert sum(each.params["kind"] == "b" for each in study.trials[-6:]) >= 3


def test_trials_in_flight_are_at_different_points() -> None:
    """Without anything done about them: each has a draw of its own."""
    study = study_of(points(6, lambda x: -((x - 0.4) ** 2)))
    proposed = {study.ask(LINE).params["x"] for _ in range(4)}
    assert len(proposed) == 4


def test_a_parameter_that_not_all_trials_have_is_random() -> None:
    """The others are chosen; the study goes on."""
    study = study_of([], n_startup_trials=3)
    for _ in range(6):
        asked = study.ask()
        value = asked.suggest_float("x", 0, 1)
        if asked.suggest_categorical("kind", ["tree", "linear"]) == "tree":
            value += asked.suggest_int("depth", 1, 9) / 100
        study.tell(asked, value)
    assert {"x", "kind"} <= study.sampler.infer_relative_search_space(study, study.trials[-1]).keys()
    assert study.best_trial.params["x"] > 0.7


# --- from what ----------------------------------------------------------------------------------------------------

STRANGE = {
    "constant values": [trial(x, 1.0) for x in (0.1, 0.5, 0.7)],
    "the same point again and again": [trial(0.5, 1.0), trial(0.5, 1.1), trial(0.5, 0.9)],
    "one value": [trial(0.5, 1.0)],
    "infinite values": [trial(0.1, math.inf), trial(0.4, 1.0), trial(0.6, 0.5), trial(0.9, -math.inf)],
    "infinite values alone": [trial(0.1, -math.inf), trial(0.4, -math.inf)],
}


@pytest.mark.parametrize("known", STRANGE.values(), ids=STRANGE.keys())
def test_strange_values(known: list[FrozenTrial]) -> None:
    """Whatever is known, there is a proposal."""
    assert 0 <= study_of(known).ask(LINE).params["x"] <= 1


def test_a_value_far_below_the_others_is_moved_up() -> None:
    """Or a training that diverged would make all others equal; the limit is that of the first values."""
    values = np.array([1.0, 0.0, 2.0, -1e12, -np.inf, np.inf, -1e9])
    assert _without_outliers(values, 5).tolist() == [
        1.0,
        0.0,
        2.0,
        *[0.5 - OUTLIER * 1.5] * 2,
        2.0,
        0.5 - OUTLIER * 1.5,
    ]
    assert _without_outliers(np.array([3.0, 3.0]), 2).tolist() == [3.0, 3.0]


def test_minimising_is_maximising_the_negative() -> None:
    """The same points are proposed."""
    up = study_of(points(5, lambda x: math.sin(5 * x)), direction="maximize").ask(LINE)
    down = study_of(points(5, lambda x: -math.sin(5 * x)), direction="minimize").ask(LINE)
    assert up.params == down.params


def test_pruned_trials_count_with_their_last_report() -> None:
    """As if they had ended with it, unless they are left out; then as if they had failed."""
    known = points(5, lambda x: 0.1 * x)
    pruned = [*known, trial(0.9, pruned=[0.1, -3.0])]
    ended = [*known, trial(0.9, -3.0)]
    failed = [*known, trial(0.9, failed=True)]
    assert study_of(pruned).ask(LINE).params == study_of(ended).ask(LINE).params
    assert study_of(pruned, use_pruned=False).ask(LINE).params == study_of(failed).ask(LINE).params
    assert study_of(pruned).ask(LINE).params != study_of(failed).ask(LINE).params


def test_a_pruned_trial_without_a_number_is_left_out() -> None:
    """Its last report was NaN."""
    known = points(5, lambda x: 0.1 * x)
    nan = study_of([*known, trial(0.9, pruned=[0.1, math.nan])])
    assert nan.ask(LINE).params == study_of([*known, trial(0.9, failed=True)]).ask(LINE).params


# --- the same again -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_search() -> None:
    """And another seed another one; from the first trial on."""

    def proposed(seed: int) -> list[float]:
        study = searched(LINE, lambda x: math.sin(9 * x), trials=6, seed=seed, n_startup_trials=3)
        return [each.params["x"] for each in study.trials]

    first, again, other = proposed(7), proposed(7), proposed(8)
    assert first == again
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_a_study_that_is_continued_gets_the_same_proposals() -> None:
    """By a new sampler, which has seen none of it; also where hyperparameters are older than the last value."""
    study = searched(LINE, lambda x: math.sin(9 * x), trials=18, n_startup_trials=15)
    continued = study_of(study.trials[:-1], n_startup_trials=15)
    assert continued.ask(LINE).params == study.trials[-1].params


def test_threads_that_ask_at_once_get_what_one_gets() -> None:
    """PyTorch's random numbers are shared by threads; a proposal depends on its trial alone."""
    known = points(6, lambda x: -((x - 0.4) ** 2))
    study = study_of(known)
    one_by_one = {each.number: each.params for each in [study.ask(LINE) for _ in range(6)]}
    shared = study_of(known)
    with ThreadPoolExecutor(3) as pool:
        asked = list(pool.map(lambda _: shared.ask(LINE), range(6)))
    assert {each.number: each.params for each in asked} == one_by_one


def test_the_programs_own_random_numbers_stay() -> None:
    """The user's training is seeded by the user."""
    study = study_of(points(4, lambda x: x))
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    study.ask(LINE)
    assert torch.equal(torch.random.get_rng_state(), expected[0])
    assert np.random.get_state()[1].tolist() == expected[1]
