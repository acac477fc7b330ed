"""A Gaussian process over a unit cube: fitted to what is known, a draw from its posterior, and the highest point.

Imports BoTorch, which takes seconds.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable

import numpy as np
import torch
from botorch.exceptions import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.generation import gen_candidates_scipy
from botorch.models import SingleTaskGP
from botorch.sampling.pathwise import SamplePath, draw_kernel_feature_paths, draw_matheron_paths
from botorch.settings import validate_input_scaling
from botorch.utils.sampling import manual_seed
from gpytorch.mlls import ExactMarginalLogLikelihood
from numpy.typing import NDArray

from covalent_cirro.search.unit_cube import Points, UnitCube

_logger = logging.getLogger(__name__)

Function = Callable[[torch.Tensor], torch.Tensor]
"""Takes points of shape (..., columns) and gives their values, shape (...)."""

RANDOM_POINTS = 1000
NEAR_POINTS = 200
"""Points at which a function is looked at before the best of them are improved: over the cube, near the best known."""
DEVIATIONS = (0.1, 0.01)
"""Of points near the best known, in parts of the cube's width: one half of the points each."""
STARTS = 6
STEPS = 60
"""How many points are improved, in how many iterations of L-BFGS-B or changes of an integer, step or choice."""
TOLERANCE = {"options": {"ftol": 1e-6}}
"""Hyperparameters are good enough if a step of L-BFGS-B changes the log likelihood of a value by a millionth."""

one_at_a_time = threading.RLock()
"""Held by a thread while it chooses a point. PyTorch has one random generator for the process, so that two threads that
choose at once would take each other's numbers."""


class Model:
    """A Gaussian process: its hyperparameters are those that are most probable given some values.

    BoTorch's `SingleTaskGP` with its own priors: a squared exponential kernel with a length scale for each column,
    whose prior grows with the number of columns (Hvarfner et al., ICML 2024), and Gaussian noise.

    Args:
        points: Where values are known, shape (points, columns).
        values: The values, shape (points,). All are finite.

    Attributes:
        gp: The model of BoTorch. Its values are standardised: those given here have mean 0 and standard deviation 1.
    """

    def __init__(self, points: Points, values: NDArray[np.float64]) -> None:
        self._mean, self._deviation = values.mean(), values.std() or 1.0
        with validate_input_scaling(False), manual_seed(0):  # constant values have no deviation of 1
            gp = SingleTaskGP(*self._data(points, values), outcome_transform=None)
            start = copy.deepcopy(gp.state_dict())
            try:
                fit_gpytorch_mll(ExactMarginalLogLikelihood(gp.likelihood, gp), optimizer_kwargs=dict(TOLERANCE))
            except ModelFittingError as error:
                _logger.warning(
                    "No hyperparameters fit %d values; those of the priors are used: %s", len(values), error
                )
                gp.load_state_dict(start)
        gp.eval()
        gp.requires_grad_(False)
        self.gp = gp

    def _data(self, points: Points, values: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(points), torch.from_numpy((values - self._mean) / self._deviation).unsqueeze(-1)

    def condition(self, points: Points, values: NDArray[np.float64]) -> None:
        """Condition the process on all these values and no others, with the hyperparameters that it has."""
        inputs, targets = self._data(points, values)
        self.gp.set_train_data(inputs, targets.squeeze(-1), strict=False)

    def draw(self, seed: int) -> Function:
        """One function drawn from the posterior, by Matheron's rule: the same for the same seed.

        Wilson et al., "Efficiently Sampling Functions from Gaussian Process Posteriors", ICML 2020: a draw from the
        prior by random Fourier features, corrected by what is known. It can be evaluated at any number of points.
        """
        with manual_seed(seed), torch.no_grad():
            paths = draw_matheron_paths(self.gp, sample_shape=torch.Size([1]), prior_sampler=_draw_prior)
        return lambda points: paths(points.reshape(-1, points.shape[-1])).reshape(points.shape[:-1])


def _draw_prior(model: SingleTaskGP, sample_shape: torch.Size) -> SamplePath:
    # Independent weights: a Sobol sequence of as many dimensions as features would take most of a draw's time.
    return draw_kernel_feature_paths(model, sample_shape, weight_generator=torch.randn)


def highest(function: Function, cube: UnitCube, known: Points, generator: np.random.Generator) -> NDArray[np.float64]:
    """The allowed point at which a function is highest, as far as a search from many points finds it.

    The best of random points and of points near known ones are improved: numbers by L-BFGS-B, integers and steps as if
    they were continuous and then rounded, and after that one integer, step or choice at a time while that helps.

    Args:
        function: What is maximised.
        cube: The space.
        known: Points that are worth a look, the best first, shape (points, columns). May be none.
        generator: Source of the random points.

    Returns:
        A point of shape (columns,).
    """
    looked_at = [cube.random(generator, RANDOM_POINTS)]
    if len(known):
        near = np.repeat(np.clip(known, 0.0, 1.0), -(-NEAR_POINTS // len(known)), axis=0)
        deviations = np.resize(DEVIATIONS, len(near))[:, None]
        looked_at += [known, near + cube.free * generator.normal(size=near.shape) * deviations]
    points = cube.nearest(np.vstack(looked_at))
    values = _values(function, points)
    starts = points[np.argsort(-values)[:STARTS]]
    best = points[np.argmax(values)]
    if cube.free.any():
        improved = cube.nearest(_climbed(function, starts, cube))
        starts = np.vstack([improved, best[None]])
        best = starts[np.argmax(_values(function, starts))]
    return _moved(function, best, cube)


def _values(function: Function, points: Points) -> NDArray[np.float64]:
    with torch.no_grad():
        return np.asarray(function(torch.from_numpy(points)).numpy())


def _climbed(function: Function, starts: Points, cube: UnitCube) -> Points:
    free = torch.from_numpy(cube.free)

    def values(points: torch.Tensor) -> torch.Tensor:
        # Columns of choices have no gradient, so that they stay as they are.
        return function(torch.where(free, points, points.detach())).squeeze(-1)

    found, _ = gen_candidates_scipy(
        torch.from_numpy(starts).unsqueeze(-2), values, lower_bounds=0.0, upper_bounds=1.0, options={"maxiter": STEPS}
    )
    return np.asarray(found.squeeze(-2).detach().numpy())


def _moved(function: Function, point: NDArray[np.float64], cube: UnitCube) -> NDArray[np.float64]:
    value = _values(function, point[None])[0]
    for _ in range(STEPS):
        moves = cube.moves(point)
        if not len(moves):
            break
        values = _values(function, moves)
        if values.max() <= value:
            break
        point, value = moves[np.argmax(values)], values.max()
    return point
