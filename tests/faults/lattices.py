"""The lattice that faults are tried on, and the marks that its electrons leave of each of their executions.

A mark is a line in a file outside all that is tested: whatever is lost or done twice in AWS, it tells.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import covalent as ct

from covalent_cirro import CirroBatchExecutor

GATE = "closed"
"""While this file is in the folder, electrons that have begun do not end."""

GATE_S = 240.0
"""No electron waits for longer than this."""

TEXT = 20_000
"""Characters of each input and result: more than travels inline, so that each has objects of its own in S3."""

Given = tuple[int, str, str, int, int]
"""What an electron is given: its number, a text, the folder of marks, how much memory it eats in MiB, and how many
characters it prints."""

EATEN_S = 3.0
"""How long memory is held: the emulator looks at it several times a second, but not always."""

ATTEMPTS = 4
"""How often AWS Batch may start a job."""

small = CirroBatchExecutor(vcpu=1, memory=0.25, retry_attempts=ATTEMPTS)


def word(number: int, folder: str) -> str:
    """What only one electron of one dispatch is given, and gives back: a blob that is in S3 already is not sent."""
    one = f"{number} {folder} "
    return one * (TEXT // len(one) + 1)


def squared(number: int, text: str) -> tuple[int, str]:
    """What an electron computes: the test computes it too, without any AWS."""
    return number * number, text[::-1]


def mark(folder: str, number: int, what: str) -> None:
    """Leave a line: which electron, what it did, in which attempt of which job; of several processes the first does."""
    if os.environ.get("RANK", "0") != "0":
        return
    job, attempt = os.environ["AWS_BATCH_JOB_ID"].partition("#")[0], os.environ["AWS_BATCH_JOB_ATTEMPT"]
    with open(os.path.join(folder, str(number)), "a") as file:
        file.write(f"{what} {job} {attempt}\n")


def scratch() -> None:
    """Use the disk for a moment. Not by `tempfile`, which takes another folder where one is full."""
    path = os.path.join(os.environ.get("TMPDIR", "."), "scratch")
    with open(path, "w") as file:
        file.write("x")


def square(given: Given) -> tuple[int, str]:
    """An electron that waits for the gate, using the disk meanwhile; it may eat more memory than it has."""
    number, text, folder, eats_mib, prints = given
    mark(folder, number, "start")
    if prints:
        print(f"{number}" * prints)
    deadline = time.monotonic() + GATE_S
    while os.path.exists(os.path.join(folder, GATE)) and time.monotonic() < deadline:
        scratch()
        time.sleep(0.1)
    if eats_mib:
        eaten = bytearray(eats_mib * 1024 * 1024)
        time.sleep(EATEN_S)
        del eaten
    scratch()
    mark(folder, number, "done")
    return squared(number, text)


@ct.electron(executor=small)
def total(squares: list[tuple[int, str]], folder: str) -> int:
    """An electron that needs all others."""
    mark(folder, len(squares), "start")
    mark(folder, len(squares), "done")
    return sum(number for number, _ in squares)


@ct.lattice(executor="cirro")
def sweep(
    count: int,
    folder: str,
    eats_mib: int = 0,
    memory_max: float | None = None,
    prints: int = 0,
    platform: str = "EC2",
    machines: int = 1,
) -> int:
    """Some electrons, which may print, and one that needs them all. The first may eat, and get more memory then."""
    asked: dict[str, Any] = {"vcpu": 1, "memory": 0.25, "retry_attempts": ATTEMPTS, "platform": platform}
    if machines > 1:
        asked["num_nodes"] = machines
    first = ct.electron(square, executor=CirroBatchExecutor(**asked, memory_max=memory_max))
    other = ct.electron(square, executor=CirroBatchExecutor(**asked))
    squares = [first((0, word(0, folder), folder, eats_mib, prints))]
    squares += [other((i, word(i, folder), folder, 0, prints)) for i in range(1, count)]
    return total(squares, folder)


cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Execution(NamedTuple):
    """One execution of an electron: its job, the attempt, and whether it came to its end."""

    job_id: str
    attempt: int
    done: bool


def executions(folder: Path, number: int) -> list[Execution]:
    """How often an electron was executed."""
    path = folder / str(number)
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    done = [(job, attempt) for what, job, attempt in lines if what == "done"]
    return [Execution(job, int(attempt), (job, attempt) in done) for what, job, attempt in lines if what == "start"]
