"""What Covalent makes of ``a + b`` is one of its own nodes, and an electron of a strange name is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import covalent as ct
import pytest
from covalent._dispatcher_plugins.local import LocalDispatcher

from covalent_cirro.covalent_server.assets import Node


@ct.electron
def make(x: float) -> Any:
    """Any electron."""
    return x


def _strange() -> Any:
    """An electron of a name that no ``def`` gives."""

    def sweep(x: float) -> float:
        """Intermediate results, by the user."""
        return x

    sweep.__name__ = "sweep_-_lr_/_2"
    return ct.electron(sweep)


strange = _strange()

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "power": lambda a, b: a**b,
    "reversed add": lambda a, b: 2.5 + a,
    "reversed subtract": lambda a, b: 2 - a,
    "reversed multiply": lambda a, b: 2 * a,
    "reversed divide": lambda a, b: 2 / a,
    "with a text": lambda a, b: a + "a_b\n:c",
    "with a list": lambda a, b: a + list("_+_"),
    "nested": lambda a, b: (a + b) * (a - 1) ** 2,
    "with an item": lambda a, b: a[0] + b.real,
    "with a strange one": lambda a, b: strange(a) + b,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_on_electrons_is_covalents_own_node(operation: str, tmp_path: Path) -> None:
    """By its name and its docstring; the electrons that it is about are jobs, whatever they are called."""
    lattice = ct.lattice(lambda: OPERATIONS[operation](make(1), make(2)))
    lattice.build_graph()
    manifest = LocalDispatcher.prepare_manifest(lattice, str(tmp_path))
    jobs = []
    for number, node in enumerate(manifest.lattice.transport_graph.nodes):
        path = node.assets.function.uri.removeprefix("file://")
        if not Node(0, number, node.metadata.name, {"function": path}).is_host_node:
            jobs.append(node.metadata.name)
    assert sorted(jobs) == ["make"] * 2 + (["sweep_-_lr_/_2"] if "strange" in operation else [])
