"""The pipeline of four steps as a user runs it: a small scan, as array jobs of the emulated AWS."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.covalent.conftest import Stack

PIPELINE = Path(__file__).parents[2] / "examples" / "pipeline.py"
ARGUMENTS = ("--slices", "4", "--pixels", "48", "--angles", "60", "--gpus", "1")
STEPS = ["scan", "preprocess", "reconstruct", "calibrate", "refine", "compare"]

# Only looked for: whoever collects the tests would import torch.
MISSING = [name for name in ("torch", "numpy", "matplotlib") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def cirro(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `cirro` with the stack."""
    command = [str(Path(sys.executable).parent / "cirro"), *arguments]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def dispatch_id(stack: Stack) -> str:
    """The pipeline, run once for all tests here."""
    process = cirro(stack, "run", f"{PIPELINE}:tomography", *ARGUMENTS)
    assert process.returncode == 0, process.stdout + process.stderr
    found = re.search(r"^dispatch ([0-9a-f-]{36}):", process.stdout, re.MULTILINE)
    assert found is not None, process.stdout
    return found[1]


def test_the_errors_of_the_last_dispatch_fall_from_step_to_step(stack: Stack, dispatch_id: str, tmp_path: Path) -> None:
    """They are printed, with a picture for each step and one of all."""
    process = stack.script(PIPELINE, "--output", tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"dispatch {dispatch_id}" in process.stdout
    errors = [float(error) for error in re.findall(r"([\d.]+) %$", process.stdout, re.MULTILINE)]
    assert len(errors) == 5
    assert errors == sorted(set(errors), reverse=True)
    assert len(list(tmp_path.glob("*.png"))) == 5


@pytest.fixture(scope="module")
def report(stack: Stack, dispatch_id: str) -> dict[str, Any]:
    """The report on the dispatch."""
    process = cirro(stack, "report", dispatch_id, "--json")
    assert process.returncode == 0, process.stdout + process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_the_report_has_machines_time_and_cost_of_each_step(report: dict[str, Any]) -> None:
    """A map is one node; each of its jobs is an attempt that costs."""
    steps = report["steps"]
    assert [step["name"] for step in steps] == STEPS
    assert [step["nodes"] for step in steps] == [1] * len(STEPS)
    jobs = {step["name"]: step["attempts"] for step in steps}
    assert jobs == {name: 1 if name in ("calibrate", "compare") else 4 for name in STEPS}
    assert all(step["usd"] > 0 and step["instances"] for step in steps)


def test_only_the_step_that_asks_for_gpus_is_in_their_queue(report: dict[str, Any]) -> None:
    """By what it asks for, and by nothing else."""
    queues = {each["name"]: each["queue"].endswith("-gpu") for each in report["electrons"]}
    assert queues == {name: name == "refine" for name in STEPS}
