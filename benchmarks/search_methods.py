"""The ways of choosing points that are compared, as samplers of Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
from optuna.samplers import BaseSampler

from covalent_cirro.search import ThompsonSampler

if TYPE_CHECKING:
    from covalent_cirro.search.gaussian_process import Function, Model


class ConfidenceBoundSampler(ThompsonSampler):
    """The same Gaussian process, with the upper confidence bound in place of a draw; trials in flight are left out.

    The bound is mean + sqrt(2) standard deviations, as in the code (github.com/Ben-Riegler/SAIS) of Riegler, Odgers and
    Fortuin, "Standard Acquisition Is Sufficient for Asynchronous Bayesian Optimization", arXiv 2603.13501.
    """

    def acquisition(self, model: Model, seed: int) -> Function:
        """The upper confidence bound of the posterior; it does not depend on the seed."""
        from botorch.acquisition import UpperConfidenceBound

        bound = UpperConfidenceBound(model.gp, beta=2.0)
        return lambda points: bound(points.unsqueeze(-2))


@dataclass(frozen=True)
class Method:
    """One way of choosing points.

    Attributes:
        title: As figures and tables call it.
        sampler: Makes its sampler from a seed.
        synchronous: Whether the next points are chosen only when all evaluations have ended.
        color: Of its curve.
    """

    title: str
    sampler: Callable[[int], BaseSampler]
    color: str
    synchronous: bool = False


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=10)


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, constant_liar=True)


METHODS = {
    "thompson": Method("asynchronous Thompson sampling", lambda seed: ThompsonSampler(seed=seed), "#1b6ca8"),
    "batches": Method("synchronous Thompson sampling", lambda seed: ThompsonSampler(seed=seed), "#7fb8e0", True),
    "random": Method("asynchronous random", lambda seed: optuna.samplers.RandomSampler(seed=seed), "#888888"),
    "tpe": Method("Optuna's TPE, constant liar", _tpe, "#d98c00"),
    "ucb": Method("asynchronous UCB", lambda seed: ConfidenceBoundSampler(seed=seed), "#2a8a4a"),
    "gp": Method("Optuna's GP sampler", _gp, "#b03a5b"),
}
"""In the order in which they are run."""
