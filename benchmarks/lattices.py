"""The lattices that are measured, dispatched by a process of their own as a user's script does it.

``python lattices.py '{"lattice": ..., "plugin": ..., "options": {...}, ...}'`` prints ``{"dispatch_id": ...}`` as its
last line. ``{"prepare": FOLDER, "megabytes": N}`` writes the files that the benchmark needs in Covalent's own formats.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import covalent as ct
from covalent._workflow.transportable_object import TransportableObject
from covalent.executor import _executor_manager

from covalent_cirro import mapped

PLUGINS = {"ours": "cirro", "stock": "awsbatch", "blank": "blank"}
"""Short names in Covalent."""

COVALENTS_OWN = {"executor": "blank", "workflow_executor": "blank"}
"""Covalent's own nodes (postprocessing) are no part of what is measured: they run nowhere."""


def many(executor: Any, count: int, seconds: float) -> Any:
    """``count`` like electrons with small inputs."""

    @ct.electron(executor=executor)
    def nap(index: int, seconds: float = seconds) -> int:
        time.sleep(seconds)
        return index

    @ct.lattice(**COVALENTS_OWN)
    def workflow(count: int) -> int:
        for index in range(count):
            nap(index)
        return count

    return workflow, (count,)


def mapped_over(executor: Any, count: int, size: int) -> Any:
    """One map of ``count`` items, whose results are the item, or so many random bytes."""

    @mapped("index")
    @ct.electron(executor=executor)
    def each(index: int, size: int) -> Any:
        return os.urandom(size) if size else index

    @ct.lattice(**COVALENTS_OWN)
    def workflow(count: int, size: int) -> int:
        each(list(range(count)), size)
        return count

    return workflow, (count, size)


def note(executor: Any, file: str) -> Any:
    """One electron, which adds the time of its first line to a file."""

    @ct.electron(executor=executor)
    def write(file: str) -> None:
        now = time.time()
        with open(file, "a") as notes:
            notes.write(f"{now}\n")

    @ct.lattice(**COVALENTS_OWN)
    def workflow(file: str) -> str:
        write(file)
        return file

    return workflow, (file,)


def shared(executor: Any, count: int, file: str) -> Any:
    """``count`` electrons that share one input: what lies in ``file`` as the output of an electron before them."""

    @ct.electron(executor=_executor("blank", {"output": file}))
    def load() -> bytes:
        return b""

    @ct.electron(executor=executor)
    def use(data: bytes, index: int) -> int:
        return len(data) + index

    @ct.lattice(**COVALENTS_OWN)
    def workflow(count: int) -> int:
        data = load()
        for index in range(count):
            use(data, index)
        return count

    return workflow, (count,)


def prepare(folder: Path, megabytes: float) -> None:
    """Write an input that cannot be compressed, and what the runner of the stock plugin makes of `None`."""
    data = TransportableObject(os.urandom(int(megabytes * 1_000_000)))
    (folder / "input.tobj").write_bytes(data.serialize())
    (folder / "none.pkl").write_bytes(cloudpickle.dumps(TransportableObject(None)))


def _executor(plugin: str, options: dict[str, Any]) -> Any:
    return _executor_manager.executor_plugins_map[PLUGINS[plugin]](**options)


def main(asked: dict[str, Any]) -> None:
    """Dispatch, and say how the dispatch is called."""
    if "prepare" in asked:
        prepare(Path(asked["prepare"]), asked["megabytes"])
        return
    build = {"many": many, "note": note, "shared": shared, "mapped": mapped_over}[asked["lattice"]]
    workflow, arguments = build(_executor(asked["plugin"], asked["options"]), **asked["parameters"])
    print(json.dumps({"dispatch_id": ct.dispatch(workflow)(*arguments)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
