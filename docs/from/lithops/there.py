"""A sweep over learning rates with Lithops on AWS Batch."""

import random

from lithops import FunctionExecutor, RetryingFunctionExecutor


def train(rate):
    """Fit a line to noisy points: stands for a training."""
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


def best(trained):
    return min(trained, key=lambda each: each["error"])


if __name__ == "__main__":
    with RetryingFunctionExecutor(FunctionExecutor(backend="aws_batch", runtime_memory=4096)) as executor:
        futures = executor.map(train, [0.03, 0.1, 0.3, 1.0], timeout=1800, retries=2)
        executor.wait(futures)
        print(best([future.result() for future in futures]))
