"""The map that faults are tried on. Its items leave the marks that electrons leave (`lattices.mark`)."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import cloudpickle
import covalent as ct

from covalent_cirro import CirroBatchExecutor, mapped
from tests.faults.lattices import ATTEMPTS, EATEN_S, GATE, GATE_S, mark, small, squared, word

CHILD_ITEMS = 4
"""Items of a job."""

BEFORE = 2
"""Items of a job that are done before one of it may wait for the gate."""

ItemGiven = tuple[int, str, str, bool, int]
"""What an item is given: its number, a text, the folder of marks, whether it waits for the gate, and how much memory
it eats in MiB."""


def square_item(given: ItemGiven) -> tuple[int, str]:
    """The function of an item: it may wait for the gate, or eat more memory than its job has."""
    number, text, folder, waits, eats_mib = given
    mark(folder, number, "start")
    deadline = time.monotonic() + GATE_S
    while waits and os.path.exists(os.path.join(folder, GATE)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if eats_mib:
        eaten = bytearray(eats_mib * 1024 * 1024)
        time.sleep(EATEN_S)
        del eaten
    mark(folder, number, "done")
    return squared(number, text)


@ct.electron(executor=small)
def total_of_items(squares: list[Any]) -> int:
    """An electron that needs the list; errors in it count nothing."""
    return sum(each[0] for each in squares if isinstance(each, tuple))


@ct.lattice(executor="cirro")
def map_sweep(
    count: int, folder: str, waiting: tuple[int, ...], eating: tuple[int, ...], eats_mib: int, options: dict[str, Any]
) -> int:
    """A map over so many items, and an electron that needs its list."""
    executor = CirroBatchExecutor(
        vcpu=1, memory=0.25, retry_attempts=ATTEMPTS, array_size=count // CHILD_ITEMS, **options
    )
    squares = mapped("given")(ct.electron(square_item, executor=executor))
    items = [(i, word(i, folder), folder, i in waiting, eats_mib if i in eating else 0) for i in range(count)]
    return total_of_items(squares(items))


cloudpickle.register_pickle_by_value(sys.modules[__name__])
