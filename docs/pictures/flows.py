"""The lattices that the pictures of the command line are taken of: one that trains, and one that wants too much."""

from __future__ import annotations

import math
import random
import time

import covalent as ct

from covalent_cirro import CirroBatchExecutor

EPOCH_S = 0.6
ROW_BYTES = 10_000


@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1))
def train(rate: float, epochs: int) -> float:
    """Fit a line to noisy points by gradient descent; one epoch takes a moment, so that there is something to see."""
    noise = random.Random(7)  # noqa: S311  (the same for everybody)
    points = [(x / 50, 3 * x / 50 + noise.gauss(0, 0.3)) for x in range(50)]
    slope, loss = 0.0, math.inf
    for epoch in range(1, epochs + 1):
        errors = [(slope * x - y, x) for x, y in points]
        loss = sum(error**2 for error, _ in errors) / len(errors)
        slope -= rate * 2 * sum(error * x for error, x in errors) / len(errors)
        print(f"epoch {epoch:>2} of {epochs}: slope {slope:.3f}, loss {loss:.4f}", flush=True)
        time.sleep(EPOCH_S)
    return loss


@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=0.5))
def load(rows: int) -> int:
    """Holds all rows of a data set in memory."""
    held = []
    for part in range(rows // 1000):
        held.append(bytearray(b"1") * ROW_BYTES * 1000)
        if part % 10 == 9:
            print(f"{(part + 1) * 1000:,} rows are loaded", flush=True)
    return sum(map(len, held))


@ct.lattice
def sweep(rates: int, epochs: int = 20) -> list[float]:
    """An electron for each of so many rates."""
    return [train((number + 1) / rates, epochs) for number in range(rates)]


@ct.lattice
def loading(rows: int = 200_000) -> int:
    """One electron, which runs out of memory."""
    result: int = load(rows)
    return result
