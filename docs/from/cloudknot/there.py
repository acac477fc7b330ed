"""A sweep over learning rates with cloudknot."""

import cloudknot as ck


def train(rate):
    """Fit a line to noisy points: stands for a training on a GPU."""
    import random

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


if __name__ == "__main__":
    knot = ck.Knot(
        name="sweep",
        func=train,
        job_def_vcpus=2,
        memory=4096,
        n_gpus=1,
        volume_size=100,
        retries=3,
        bid_percentage=100,
    )
    trained = knot.map([0.03, 0.1, 0.3, 1.0]).result()
    print(min(trained, key=lambda each: each["error"]))
    knot.clobber(clobber_pars=True, clobber_image=True)
