"""`ThompsonSampler`: Optuna's trials chosen by Thompson sampling on a Gaussian process, any number in flight."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from covalent_cirro.errors import SettingsError
from covalent_cirro.search.unit_cube import UnitCube

if TYPE_CHECKING:
    from covalent_cirro.search.gaussian_process import Function, Model

BEST_KNOWN = 5
"""Near how many of the best known points a function is looked at more closely."""
OUTLIER = 50
"""A value that lies further below the median than so many times the distance from the median to the best is moved to
there. A training that diverged has a loss of 1e9 or infinity, beside which all others would be one number."""


class ThompsonSampler(BaseSampler):
    """A sampler for Optuna that chooses trials by Thompson sampling; made for many trials in flight at once.

    A Gaussian process is fitted to the values that are known. One function is drawn from its posterior, and the point
    at which that function is highest is the next trial. Draws differ, so trials that are asked for at the same time do:
    trials in flight need no other treatment, which is the result of Kandasamy, Krishnamurthy, Schneider and Póczos,
    "Parallelised Bayesian Optimisation via Thompson Sampling", AISTATS 2018. The function is drawn whole, by pathwise
    conditioning (Wilson et al., ICML 2020), so that it can be maximised anywhere.

    Takes float, integer and categorical parameters, with steps and logarithmic scales. Parameters that not every trial
    has (conditional spaces) are drawn at random, as the first trials are. All random numbers come from the seed and the
    trial's number: a study that is continued in another process, with the same seed and the same finished trials,
    gets the same proposals.

    Args:
        seed: Seed of the search. Default: another one for each object.
        n_startup_trials: Trials are random until so many have values. Default: 10.
        use_pruned: Whether the last value that a pruned trial reported counts as its value; if not, the search knows
            nothing of pruned trials. The value of a training that was ended early is mostly worse than what it would
            have come to. Default: True.

    Raises:
        SettingsError: `n_startup_trials` is less than 1; or, from `study.ask()`, the study has several objectives.

    Example:
        >>> study = optuna.create_study(direction="maximize", sampler=search.ThompsonSampler(seed=1))
    """

    def __init__(self, *, seed: int | None = None, n_startup_trials: int = 10, use_pruned: bool = True) -> None:
        if n_startup_trials < 1:
            raise SettingsError(
                f"n_startup_trials={n_startup_trials}: a Gaussian process needs at least 1 value. Give 1 or more."
            )
        self._seed = seed
        self._entropy = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._n_startup_trials = n_startup_trials
        self._use_pruned = use_pruned
        self._last: tuple[bytes, Model] | None = None

    def acquisition(self, model: Model, seed: int) -> Function:
        """The function whose highest point is the next trial: a draw from the posterior.

        Args:
            model: The Gaussian process, conditioned on all that is known. Values are to be maximised.
            seed: A seed of this trial alone.
        """
        return model.draw(seed)

    # What Optuna calls.

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Refuse a study with several objectives."""
        if len(study.directions) > 1:
            raise SettingsError(
                f"Study {study.study_name!r} has {len(study.directions)} objectives, and ThompsonSampler maximises or "
                "minimises one. Return one value, or take a sampler for several: optuna.samplers.NSGAIISampler()."
            )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that every finished trial has, without those of a single value."""
        space = intersection_search_space(study.get_trials(deepcopy=False), include_pruned=self._use_pruned)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The configuration at which a draw from the posterior is highest; nothing while too few values are known."""
        if not search_space:
            return {}
        configurations, values = self._known(study, search_space)
        if len(values) < self._n_startup_trials:
            return {}
        from covalent_cirro.search.gaussian_process import highest, one_at_a_time

        cube = UnitCube(search_space)
        points = cube.encode(configurations)
        best = points[np.argsort(-values, kind="stable")[:BEST_KNOWN]]
        generator = self._generator(trial, "relative")
        with one_at_a_time:
            function = self.acquisition(self._model(points, values), int(generator.integers(2**31)))
            return cube.decode(highest(function, cube, best, generator))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value: of the first trials, and of parameters that not every trial has."""
        seed = int(self._generator(trial, param_name).integers(2**31))
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing: Optuna calls this where threads share a sampler. The numbers of two trials differ anyway."""

    # What is known, and the model of it.

    def _generator(self, trial: FrozenTrial, use: str) -> np.random.Generator:
        return np.random.default_rng([self._entropy, trial.number, zlib.crc32(use.encode())])

    def _known(
        self, study: Study, space: Mapping[str, BaseDistribution]
    ) -> tuple[Sequence[Mapping[str, Any]], NDArray[np.float64]]:
        """Configurations and their values, in the order in which they became known; the highest value is the best."""
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        states = (TrialState.COMPLETE, TrialState.PRUNED) if self._use_pruned else (TrialState.COMPLETE,)
        found = [
            (trial, sign * value)
            for trial in study.get_trials(deepcopy=False, states=states)
            if (value := _value(trial)) is not None and space.keys() <= trial.params.keys()
        ]
        found.sort(key=lambda each: (each[0].datetime_complete, each[0].number))
        return [trial.params for trial, _ in found], np.asarray([value for _, value in found])

    def _model(self, points: NDArray[np.float64], values: NDArray[np.float64]) -> Model:
        """The Gaussian process, conditioned on all values.

        Its hyperparameters are fitted to the values that became known first, as many as `_fitted` says. So most
        proposals take the ones of the proposal before, and a process that starts now finds the same.
        """
        from covalent_cirro.search.gaussian_process import Model

        fitted = _fitted(len(values))
        values = _without_outliers(values, fitted)
        key = points[:fitted].tobytes() + values[:fitted].tobytes()
        if self._last is None or self._last[0] != key:
            self._last = (key, Model(points[:fitted], values[:fitted]))
        model = self._last[1]
        model.condition(points, values)
        return model


def _value(trial: FrozenTrial) -> float | None:
    """The value of a finished trial, that of a pruned one is the last that it reported; None if it has none."""
    if trial.state == TrialState.COMPLETE:
        value = trial.value
    elif trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    else:
        return None
    return None if value is None or np.isnan(value) else float(value)


def _fitted(count: int) -> int:
    """To how many of the values that are known hyperparameters are fitted: all of few, at least 7 of 8 of many."""
    step = max(1, 1 << max(0, count.bit_length() - 4))
    return count - count % step


def _without_outliers(values: NDArray[np.float64], fitted: int) -> NDArray[np.float64]:
    """Values with infinite ones replaced by finite ones, and those far below the others moved up.

    The limits are those of the first `fitted` values, so that these stay the same while further values come.
    """
    finite = values[:fitted][np.isfinite(values[:fitted])]
    if not len(finite):
        return np.zeros_like(values)
    best, median = finite.max(), np.median(finite)
    lowest = max(finite.min(), median - OUTLIER * (best - median)) if best > median else finite.min()
    return np.asarray(np.where(values == np.inf, best, np.maximum(values, lowest)))
