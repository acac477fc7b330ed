"""covalent-awsbatch-plugin, the stock plugin, on the Covalent server of the local stack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.peer import Case, Place
from peers.with_covalent_cirro import electrons, output_file, result_of, sharing_output

TITLE = "covalent-awsbatch-plugin 0.42.0"
PACKAGES: tuple[str, ...] = ()
"""A requirement of covalent-cirro: it is in the same environment."""
SERVER = True
CASES = {
    "tasks": Case("tasks", "20 electrons", 20),
    "shared": Case("shared", "10 electrons, the value from an electron before", 10),
}
SET_UP = """\
On the same server and deployment as covalent-cirro, with the same size of job; the server has run one electron
before. The jobs run the plugin's own `exec.py`, with its folder `/covalent` replaced by the job's folder, in a
Python in which Covalent sees no plugins, as in the stock image. `poll_freq` is at its default of 10 s. It has no maps,
and 400 electrons are not measured here (`make bench` has 50)."""


def entrypoint(case: Case, place: Place, python: Path) -> list[str]:
    """`lab.Lab` makes the stock image."""
    return []


def prepare(case: Case, place: Place) -> Callable[[], Any]:
    """Build the lattice; the settings have the plugin's options."""
    options = dict(place.settings["stock_options"])
    result_of(*electrons("awsbatch", options, 1))
    if case.work == "tasks":
        return lambda: result_of(*electrons("awsbatch", options))
    return lambda: result_of(*sharing_output("awsbatch", options, output_file(place)))
