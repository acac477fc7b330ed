"""The example of data-parallel training as a user runs it: two nodes of two processes, and one process."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from tests.covalent.conftest import Stack

EXAMPLE = Path(__file__).parents[2] / "examples" / "data_parallel.py"

# Only looked for: whoever collects the tests would import torch.
MISSING = [name for name in ("torch", "sklearn") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def test_loss_is_that_of_one_process_with_the_whole_batch(stack: Stack) -> None:
    """Within the example's tolerance; the nodes' output can be read, and the cost is that of both nodes."""
    process = stack.script(EXAMPLE, "--epochs", "2", timeout_s=500)
    assert process.returncode == 0, process.stdout + process.stderr
    apart = re.search(r"largest difference (\S+), of 1e-04", process.stdout)
    assert apart is not None, process.stdout
    assert float(apart[1]) <= 1e-4
    rows = re.findall(r"^ *\d +(\d\.\d{7}) +(\d\.\d{7})", process.stdout, re.MULTILINE)
    assert len(rows) == 2
    assert float(rows[1][0]) < float(rows[0][0]) / 2
    found = re.search(r"/([0-9a-f-]{36})", process.stdout)
    assert found is not None

    jobs = json.loads(stack.cirro("jobs", "--dispatch", found[1], "--json"))["jobs"]
    (several,) = (each for each in jobs if each["queue"].endswith("-multi-node"))
    name = f"{found[1]}:{several['node_id']}"
    told = json.loads(stack.cirro("show", name, "--json"))
    assert [each["end"] for each in told["nodes"]] == ["done", "done"]
    assert len(told["cost"]["attempts"]) == 2
    assert told["reported"][-1]["step"] == 2
    printed = stack.cirro("logs", name, "--node", "1").splitlines()
    assert sorted(printed) == ["rank 2 of 4 trains on cpu", "rank 3 of 4 trains on cpu"]
