"""Run in the image, by `python -m unittest`: what works here works in a job."""

import unittest

from diffusion import mean_squared_displacement


class Diffusion(unittest.TestCase):
    def test_distance_grows_with_the_root_of_the_steps(self):
        """Its square is the number of steps."""
        for steps in (10, 100):
            assert abs(mean_squared_displacement(20_000, steps, seed=1) / steps - 1) < 0.05

    def test_a_seed_gives_the_same_walks(self):
        """Twice."""
        assert mean_squared_displacement(10, 10, seed=1) == mean_squared_displacement(10, 10, seed=1)


if __name__ == "__main__":
    unittest.main()
