"""A sweep over learning rates with Metaflow."""

import random

from metaflow import FlowSpec, batch, retry, step, timeout


def fit(rate):
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


class Sweep(FlowSpec):
    @step
    def start(self):
        self.rates = [0.03, 0.1, 0.3, 1.0]
        self.next(self.train, foreach="rates")

    @retry(times=2)
    @timeout(minutes=30)
    @batch(cpu=2, memory=4096, gpu=1)
    @step
    def train(self):
        self.trained = fit(self.input)
        self.next(self.join)

    @batch(cpu=1, memory=1024)
    @step
    def join(self, inputs):
        self.best = min((each.trained for each in inputs), key=lambda each: each["error"])
        self.next(self.end)

    @step
    def end(self):
        print(self.best)


if __name__ == "__main__":
    Sweep()
