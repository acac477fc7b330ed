"""``python benchmarks/run.py``: the stock plugin and this one, side by side; writes ``RESULTS.md``.

The exit status is 0 if every figure reaches what is required of it, 1 if one does not, 2 if something did not run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import machine
from figures import Result, page, table
from lab import BenchmarkFailed, Lab
from measures import MEASURES, Measure

from covalent_cirro.errors import CirroError

RESULTS = Path(__file__).parent / "RESULTS.md"
TRIES = 2
"""A measurement that did not run, on a machine that was busy with something else, is tried again."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; gives the exit status."""
    parser = argparse.ArgumentParser(description="Measures the stock plugin and covalent-cirro side by side.")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(MEASURES), default=None, help="only these; RESULTS.md is left as it is"
    )
    asked = parser.parse_args(argv)
    results: list[Result] = []
    try:
        with tempfile.TemporaryDirectory(prefix="cirro-bench-", ignore_cleanup_errors=True) as folder:
            for name, measure in MEASURES.items():
                if asked.only is None or name in asked.only:
                    results.append(_measured(name, measure, Path(folder) / name))
    except (BenchmarkFailed, CirroError) as error:
        print(f"\nnot measured: {error}", file=sys.stderr)
        return 2
    print(f"\n{table([row for result in results for row in result.rows])}\n")
    if asked.only is None:
        RESULTS.write_text(page(results, machine.facts(), metadata.version("covalent-awsbatch-plugin")))
        print(f"written to {RESULTS.parent.name}/{RESULTS.name}")
    missed = [row.figure for result in results for row in result.rows if not row.reached]
    for figure in missed:
        print(f"not reached: {figure}", file=sys.stderr)
    return 1 if missed else 0


def _measured(name: str, measure: Measure, folder: Path) -> Result:
    print(f"{name}: {(measure.__doc__ or '').strip()}", flush=True)
    for tries_left in reversed(range(TRIES)):
        began = time.monotonic()
        try:
            with Lab(folder / str(tries_left)) as lab:
                result = measure(lab, _say)
        except (BenchmarkFailed, CirroError) as error:
            if not tries_left:
                raise
            _say(f"once more, because this did not run: {error}")
            continue
        _say(f"({time.monotonic() - began:.0f} s)")
        return result
    raise AssertionError("the last try returns or raises")


def _say(step: str) -> None:
    print(f"  {step}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
