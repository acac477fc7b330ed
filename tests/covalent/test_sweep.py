"""The example, run as a user runs it: a real sweep, as jobs of the emulated AWS, through a real Covalent server."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Stack

SWEEP = Path(__file__).parents[2] / "examples" / "sweep.py"
CONFIGURATIONS = 12

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def sweep(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompletedProcess[str], Path]:
    """The finished example, and the folder that it wrote to."""
    output = tmp_path_factory.mktemp("sweep")
    return stack.script(SWEEP, "--output", output), output


@pytest.mark.timeout(400)
def test_the_sweep_completes(sweep: tuple[CompletedProcess[str], Path]) -> None:
    """It says how it ended, ranks every configuration, and the best model is right on 98 % of the held-out digits."""
    process, _ = sweep
    assert process.returncode == 0, process.stdout + process.stderr
    assert "the dispatch is COMPLETED" in process.stdout
    assert re.findall(r"^ +(\d+) +\d+\.\d+%", process.stdout, re.MULTILINE) == [
        str(rank) for rank in range(1, CONFIGURATIONS + 1)
    ]
    accuracy = re.search(r"([\d.]+)% on the held-out test digits", process.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 98


def test_the_model_and_the_picture(sweep: tuple[CompletedProcess[str], Path]) -> None:
    """The model loads without trusting the file, and the picture is a PNG of a size one can read."""
    import torch

    process, output = sweep
    saved = torch.load(output / "model.pt", weights_only=True)
    assert saved["configuration"].keys() == {"channels", "learning_rate", "dropout"}
    assert all(tensor.device.type == "cpu" for tensor in saved["state_dict"].values())
    picture = (output / "learning_curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") >= 1000
    assert str(output / "model.pt") in process.stdout
    assert str(output / "learning_curves.png") in process.stdout


def test_every_training_is_a_job(stack: Stack, sweep: tuple[CompletedProcess[str], Path]) -> None:
    """Our fifteen electrons are fifteen succeeded jobs of the dispatch, and Covalent's own nodes are none."""
    process, _ = sweep
    dispatch_id = _dispatch_id(stack, process)
    batch = stack.client("batch")
    summaries = [
        summary
        for page in batch.get_paginator("list_jobs").paginate(
            jobQueue=stack.settings["batch_queue"], jobStatus="SUCCEEDED"
        )
        for summary in page["jobSummaryList"]
    ]
    ids = [summary["jobId"] for summary in summaries]
    jobs = [
        job for start in range(0, len(ids), 100) for job in batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
    ]
    ours = [job for job in jobs if dispatch_id in job["tags"].values()]
    assert len(ours) == CONFIGURATIONS + len(("load_data", "rank", "retrain"))


def test_the_page_of_the_dispatch(stack: Stack, sweep: tuple[CompletedProcess[str], Path]) -> None:
    """The page that is named is there, and its graph has every electron, completed."""
    process, _ = sweep
    dispatch_id = _dispatch_id(stack, process)
    with urllib.request.urlopen(f"{stack.server_url}/{dispatch_id}", timeout=30) as page:
        assert page.status == 200
    with urllib.request.urlopen(f"{stack.server_url}/api/v1/dispatches/{dispatch_id}/graph", timeout=30) as answer:
        nodes = json.load(answer)["graph"]["nodes"]
    ours = [node for node in nodes if not node["name"].startswith(":")]
    assert sorted({node["name"] for node in ours}) == ["load_data", "rank", "retrain", "train"]
    assert {node["status"] for node in ours} == {"COMPLETED"}


def test_a_sweep_that_fails(stack: Stack, tmp_path: Path) -> None:
    """A seed that scikit-learn refuses fails the first electron: exit code 1, the reason and the page, and no model."""
    process = stack.script(SWEEP, "--seed", "-1", "--output", tmp_path)
    assert process.returncode == 1
    assert "FAILED" in process.stdout
    assert "random_state" in process.stdout
    assert _dispatch_id(stack, process)
    assert not (tmp_path / "model.pt").exists()


def _dispatch_id(stack: Stack, process: CompletedProcess[str]) -> str:
    found = re.search(re.escape(stack.server_url) + r"/([0-9a-f-]{36})", process.stdout)
    assert found is not None, process.stdout + process.stderr
    return found[1]
