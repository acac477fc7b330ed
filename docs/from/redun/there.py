"""A sweep over learning rates with redun."""

import random

from redun import task

redun_namespace = "sweep"


@task(executor="batch", vcpus=2, memory=4, gpus=1, retries=3, timeout=1800)
def train(rate: float) -> dict:
    """Fit a line to noisy points: stands for a training on a GPU."""
    draw = random.Random(1)
    xs = [draw.uniform(-1, 1) for _ in range(2000)]
    points = [(x, 3 * x + 1 + draw.gauss(0, 0.1)) for x in xs]
    slope = offset = error = 0.0
    for epoch in range(20):
        misses = [(slope * x + offset - y, x) for x, y in points]
        slope -= rate * sum(miss * x for miss, x in misses) / len(points)
        offset -= rate * sum(miss for miss, _ in misses) / len(points)
        error = sum(miss * miss for miss, _ in misses) / len(points)
        print(f"epoch {epoch}: error {error:.4f}")
    return {"rate": rate, "error": error}


@task(executor="batch", vcpus=1, memory=1)
def best(trained: list) -> dict:
    return min(trained, key=lambda each: each["error"])


@task()
def main(rates: tuple = (0.03, 0.1, 0.3, 1.0)) -> dict:
    return best([train(rate) for rate in rates])
