"""docs/emulator.md: its program runs, and its tables say what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from covalent_cirro.local.emulator import faults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "emulator.md").read_text()


def test_the_program_runs() -> None:
    """Each block of Python on the page, as it is there."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    for block in blocks:
        subprocess.run([sys.executable, "-c", block], check=True, cwd=ROOT, timeout=120)


def test_every_kind_of_fault_is_described() -> None:
    """In the first column of the table, and no other kind."""
    section = PAGE.partition("## Faults")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(faults.KINDS)
