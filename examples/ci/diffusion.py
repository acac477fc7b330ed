"""What this project computes. Electrons call it: it is installed in the image, so it need not travel with them."""

import numpy as np


def mean_squared_displacement(walks, steps, seed):
    """How far, squared and on average, random walks of unit steps on a square grid get from where they began."""
    directions = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
    taken = directions[np.random.default_rng(seed).integers(0, 4, size=(walks, steps))]
    return float((taken.sum(axis=1) ** 2).sum(axis=1).mean())
