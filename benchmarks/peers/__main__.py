"""``make bench-peers``: measures tools side by side; writes ``PEERS.md``, and keeps what it measured in a file beside.

The exit status is 0 if every figure reaches what is required of it, 1 if one does not, 2 if a case did not run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import machine
from lab import BenchmarkFailed

from covalent_cirro.errors import CirroError
from peers.environments import NotInstalled
from peers.measurement import Measurement, merged, read, write
from peers.page import page, rows, table
from peers.peer import MODULES, load
from peers.rig import measure
from peers.works import SHARED_BYTES

PAGE = Path(__file__).resolve().parents[1] / "PEERS.md"
KEPT = Path(__file__).with_name("measured.json")
TRIES = 2
"""A case that did not run, on a machine that was busy with something else, is tried again."""


def main(argv: list[str] | None = None) -> int:
    """Measure, write, print; gives the exit status."""
    cases = [(tool, case) for tool in MODULES for case in load(tool).CASES]
    names = [f"{tool}/{case}" for tool, case in cases]
    parser = argparse.ArgumentParser(prog="python -m peers", description="Measures tools for AWS Batch side by side.")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="TOOL[/CASE]",
        default=None,
        help=f"only these, beside what was measured before: {' '.join(names)}",
    )
    asked = parser.parse_args(argv).only or list(MODULES)
    unknown = [each for each in asked if each not in (*MODULES, *names)]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join((*MODULES, *names))}")
    new: list[Measurement] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cirro-peers-", ignore_cleanup_errors=True) as scratch:
        inputs = Path(scratch) / "inputs"
        inputs.mkdir()
        (inputs / "shared.bin").write_bytes(os.urandom(SHARED_BYTES))
        for tool, case in cases:
            if not {tool, f"{tool}/{case}"} & set(asked):
                continue
            try:
                new.append(_measured(tool, case, Path(scratch) / tool / case, inputs))
            except (BenchmarkFailed, CirroError, NotInstalled) as error:
                print(f"not measured: {tool}/{case}: {error}", file=sys.stderr)
                failed.append(f"{tool}/{case}")
                continue
            write(KEPT, _all(new))
    found = _all(new)
    PAGE.write_text(page(found, machine.facts(), [load(tool) for tool in MODULES]))
    print(f"\n{table(found)}\n\nwritten to {PAGE.parent.name}/{PAGE.name}")
    missed = [row.figure for row in rows(found) if row.reached is not True]
    for figure in missed:
        print(f"not reached: {figure}", file=sys.stderr)
    return 2 if failed else 1 if missed else 0


def _all(new: list[Measurement]) -> list[Measurement]:
    order = [(tool, f"{case.work}: {case.way}") for tool in MODULES for case in load(tool).CASES.values()]
    return merged(read(KEPT), new, order)


def _measured(tool: str, case: str, folder: Path, inputs: Path) -> Measurement:
    _say(f"{tool}/{case}")
    for tries_left in reversed(range(TRIES)):
        began = time.monotonic()
        try:
            found = measure(tool, case, folder / str(tries_left), inputs, lambda step: _say(f"  {step}"))
        except (BenchmarkFailed, CirroError) as error:
            if not tries_left:
                raise
            _say(f"  once more, because this did not run: {error}")
            continue
        calls = " + ".join(str(found.of(caller)) for caller in ("client", "job"))
        _say(f"  {calls} calls, {found.seconds:.1f} s, {found.driver_mb:.0f} MB ({time.monotonic() - began:.0f} s)")
        return found
    raise AssertionError("the last try returns or raises")


def _say(step: str) -> None:
    print(step, flush=True)


if __name__ == "__main__":
    sys.exit(main())
