"""`make serve`, by the recipe of the Makefile: a small sweep as jobs of the emulated AWS, registered, served, asked."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.covalent.conftest import Stack

ROOT = Path(__file__).parents[2]
ARGUMENTS = "--users 300 --items 200 --ratings 24000 --k 3 --c-vector 1e-5 --c-bias 1e-5 --learning-rate 0.03 0.0001"
CONFIGURATIONS = 2

# Only looked for: whoever collects the tests would import torch.
MISSING = [
    name
    for name in ("torch", "numpy", "safetensors", "fastapi_offline", "uvicorn")
    if importlib.util.find_spec(name) is None
]
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def recipe(target: str, **variables: str) -> str:
    """The commands of a target of the Makefile, as a script for bash."""
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    script = str(found).replace("\t@", "")
    for name, value in variables.items():
        script = script.replace(f"$({name})", value)
    assert "$(" not in script
    return f"set -e\n{script}"


@pytest.fixture(scope="module")
def shown(stack: Stack) -> Iterator[str]:
    """What `make serve` shows, run once for all tests here. Nothing of the service is left in the end."""
    state = shlex.quote(str(stack.playground.state_dir))
    script = recipe("serve", BIN=str(Path(sys.executable).parent), STATE=state, ARGS=ARGUMENTS)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield done.stdout
    stack.cirro("serve", "destroy", "recommender", "--yes")


@pytest.fixture(scope="module")
def registered(stack: Stack, shown: str) -> Any:
    """What `cirro models recommender` says."""
    return json.loads(stack.cirro("models", "recommender", "--json"))


def test_the_best_is_registered_with_what_made_it(registered: Any, shown: str) -> None:
    """Dispatch, node, digest of the data, errors, parameters and versions; it is the current version."""
    (version,) = registered["versions"]
    assert registered["current"] == version["version"]
    assert version["uri"] in shown
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


def test_its_service_answers(stack: Stack, registered: Any, shown: str) -> None:
    """A few questions, with the version that was registered; and how to stop all of it is said."""
    version = registered["current"]
    assert re.search(rf"http://localhost:\d+ serves recommender {version}", shown)
    assert "GET /users/1/recommendations?n=5   200" in shown
    assert "user nobody, popular: Film" in shown
    assert "GET /users/nobody/recommendations   404" in shown
    assert "make down" in shown
    [served] = json.loads(stack.cirro("serve", "status", "--json"))
    assert served["model"] == f"recommender/{version}"
    assert (served["running"], served["desired"]) == (2, 2)
