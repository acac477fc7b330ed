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


BETA = 2.0
"""Of the upper confidence bound: the square of how many standard deviations it is above the mean."""


class ConfidenceBoundSampler(ThompsonSampler):
    """The same Gaussian process, with the upper confidence bound in place of a draw; trials in flight are left out.

    The bound is mean + sqrt(2) standard deviations, as in the code (github.com/Ben-Riegler/SAIS) of Riegler, Odgers and
    Fortuin, "Standard Acquisition Is Sufficient for Asynchronous Bayesian Optimization", arXiv 2603.13501.
    """

    def acquisition(self, model: Model, seed: int) -> Function:
        """The upper confidence bound of the posterior; it does not depend on the seed."""
        import torch

        gp, (inputs,) = model.gp, model.gp.train_inputs
        noisy = gp.covar_module(inputs).to_dense() + gp.likelihood.noise * torch.eye(len(inputs))
        factor = torch.linalg.cholesky(noisy)
        weights = torch.cholesky_solve((gp.train_targets - gp.mean_module(inputs)).unsqueeze(-1), factor).squeeze(-1)

        # The same as BoTorch's UpperConfidenceBound, whose batches of single points take several times as long.
        def bound(points: torch.Tensor) -> torch.Tensor:
            flat = points.reshape(-1, points.shape[-1])
            covariances = gp.covar_module(flat, inputs).to_dense()
            mean = gp.mean_module(flat) + covariances @ weights
            explained = torch.linalg.solve_triangular(factor, covariances.T, upper=False).square().sum(dim=0)
            deviation = (gp.covar_module(flat, diag=True) - explained).clamp_min(1e-10).sqrt()
            return (mean + BETA**0.5 * deviation).reshape(points.shape[:-1])

        return bound


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
