"""The recommender as a user runs it: a small sweep as jobs of the emulated AWS, registered, and listed by `cirro`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.covalent.conftest import Stack

SWEEP = Path(__file__).parents[2] / "examples" / "recommender" / "sweep.py"
ARGUMENTS = (
    *("--users", "300", "--items", "200", "--ratings", "24000", "--name", "small"),
    *("--k", "3", "--c-vector", "1e-5", "--c-bias", "1e-5", "--learning-rate", "0.03", "0.0001"),
)
CONFIGURATIONS = 2

# Only looked for: whoever collects the tests would import torch.
MISSING = [name for name in ("torch", "numpy", "safetensors") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def sweep(stack: Stack) -> subprocess.CompletedProcess[str]:
    """The example, run once for all tests here."""
    process = stack.script(SWEEP, *ARGUMENTS, timeout_s=400)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module")
def registered(stack: Stack, sweep: subprocess.CompletedProcess[str]) -> Any:
    """What `cirro models small` says."""
    return json.loads(stack.cirro("models", "small", "--json"))


def test_the_best_is_registered_with_what_made_it(registered: Any, sweep: subprocess.CompletedProcess[str]) -> None:
    """Dispatch, node, digest of the data, errors, parameters and versions; it is the current version."""
    (version,) = registered["versions"]
    assert registered["current"] == version["version"]
    assert version["uri"] in sweep.stdout
    assert version["parameters"] == {"k": 3, "c_vector": 1e-5, "c_bias": 1e-5, "learning_rate": 0.03}
    errors = version["metrics"]
    assert errors["rmse"] < errors["rmse_biases"] < errors["rmse_mean"]
    assert version["versions"].keys() == {"python", "torch", "covalent-cirro"}
    assert len(version["data_digest"]) == 64
    assert set(version["files"]) == {"weights.safetensors", "catalogue.json", "rated.safetensors"}


def test_the_weights_are_those_of_all_users_and_items(stack: Stack, registered: Any) -> None:
    """As safetensors, which run nothing when they are read."""
    import safetensors.numpy

    (version,) = registered["versions"]
    s3, (bucket, _, base) = stack.client("s3"), version["uri"].removeprefix("s3://").partition("/")
    files = {name: s3.get_object(Bucket=bucket, Key=f"{base}/{name}")["Body"].read() for name in version["files"]}
    weights = safetensors.numpy.load(files["weights.safetensors"])
    assert {name: each.shape for name, each in weights.items()} == {
        "user": (300, 3),
        "item": (200, 3),
        "bias_user": (300,),
        "bias_item": (200,),
        "bias": (1,),
    }
    rated = safetensors.numpy.load(files["rated.safetensors"])
    assert rated["indptr"][-1] == 24_000
    catalogue = json.loads(files["catalogue.json"])
    assert [len(catalogue[name]) for name in ("users", "items", "titles", "popular")] == [300, 200, 200, 200]


def test_the_sweep_is_a_map_that_reports_its_epochs(stack: Stack, registered: Any) -> None:
    """Two nodes of jobs, the ratings stored once, and curves in the bucket for every configuration."""
    (version,) = registered["versions"]
    report = json.loads(stack.cirro("report", version["dispatch"], "--json"))
    assert [(step["name"], step["nodes"]) for step in report["steps"]] == [("train", 1), ("retrain", 1)]
    s3, bucket = stack.client("s3"), stack.settings["s3_bucket_name"]
    prefix = f"{stack.settings['s3_prefix']}/reports/recommender/{version['dispatch']}/"
    assert s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["KeyCount"] >= CONFIGURATIONS
