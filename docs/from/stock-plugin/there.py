"""A sweep over learning rates: each training is a job, and one more job takes the best."""

import random

import covalent as ct
from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor

on_gpu = AWSBatchExecutor(
    vcpu=2,
    memory=4,
    num_gpus=1,
    retry_attempts=3,
    time_limit=1800,
)
small = AWSBatchExecutor(vcpu=1, memory=1)


@ct.electron(executor=on_gpu)
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
        print(f"epoch {epoch}: error {error:.4f}")
    return {"rate": rate, "error": error}


@ct.electron(executor=small)
def best(trained):
    return min(trained, key=lambda each: each["error"])


@ct.lattice
def sweep(rates):
    return best([train(rate) for rate in rates])


if __name__ == "__main__":
    dispatch_id = ct.dispatch(sweep)([0.03, 0.1, 0.3, 1.0])
    result = ct.get_result(dispatch_id, wait=True)
    print(result.status, result.result)
