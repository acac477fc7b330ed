"""One training, as a script: prints its result as JSON."""

import json
import random
import sys


def train(rate):
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
        print(f"epoch {epoch}: error {error:.4f}", file=sys.stderr)
    return {"rate": rate, "error": error}


if __name__ == "__main__":
    print(json.dumps(train(float(sys.argv[1]))))
