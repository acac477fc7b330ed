"""The works that every tool is given, and their right results. Needs Python's own library only.

`driver.py` imports it in the environment of each tool.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED_BYTES = 50_000_000
"""Of the value that the tasks of ``shared`` have in common: random, so that nothing can be compressed."""


@dataclass(frozen=True)
class Work:
    """What is to be computed.

    Attributes:
        title: What it is, for people.
        items: How many results it has.
        result: Gives the right result of item ``index``, given the shared value.
    """

    title: str
    items: int
    result: Callable[[int, bytes], int]


def _square(index: int, data: bytes) -> int:
    return index * index


def _checked(index: int, data: bytes) -> int:
    return zlib.crc32(data) + index


WORKS = {
    "tasks": Work("20 trivial tasks", 20, _square),
    "map20": Work("map of 20 trivial items", 20, _square),
    "map400": Work("map of 400 trivial items", 400, _square),
    "shared": Work("10 tasks that share 50 MB", 10, _checked),
    "map10k": Work("map of 10,000 trivial items", 10_000, _square),
    "map100k": Work("map of 100,000 trivial items", 100_000, _square),
}
"""A trivial task gives the square of a whole number. One that shares the value gives its CRC-32, plus the task's index:
so a task that has not the whole value is found out."""


def mistakes(work: str, results: Any, folder: Path) -> list[str]:
    """What is wrong with the results of a work; none: all are right, and in their order."""
    data = shared_value(folder) if work == "shared" else b""
    expected = [WORKS[work].result(0, data) + (index if data else index * index) for index in range(WORKS[work].items)]
    return differences(expected, results)


def differences(expected: Sequence[int], results: Any) -> list[str]:
    """How results differ from the expected ones."""
    found = list(results)
    if len(found) != len(expected):
        return [f"{len(found)} results instead of {len(expected)}"]
    return [
        f"result {index} is {have!r}, not {want!r}"
        for index, (want, have) in enumerate(zip(expected, found, strict=True))
        if want != have
    ]


def shared_value(folder: Path) -> bytes:
    """The value that tasks share: what lies in this file of the rig's folder."""
    return (folder / "shared.bin").read_bytes()
