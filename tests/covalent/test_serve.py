"""``make serve``: a recommender is trained, registered, served, and asked, by the recipe of the Makefile."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MISSING = [name for name in ("torch", "safetensors", "fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
SMALL = "--users 60 --items 40 --ratings 1500 --k 2 --c-vector 1e-6 --c-bias 1e-6 --learning-rate 0.03"
"""Ratings and configurations that take seconds."""

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.timeout(600),
]


def recipe(target: str, **variables: str) -> str:
    """The commands of a target of the Makefile, as a script for bash."""
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    script = str(found).replace("\t@", "").replace("$$", "$")
    for name, value in variables.items():
        script = script.replace(f"$({name})", value)
    assert "$(" not in script
    return f"set -e\n{script}"


def test_from_ratings_to_answers(stack: Any) -> None:
    """The model is trained as jobs, its service answers questions, and what runs and how to stop it is said."""
    state = shlex.quote(str(stack.playground.state_dir))
    script = recipe("serve", BIN=str(Path(sys.executable).parent), STATE=state, ARGS=SMALL)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    told = done.stdout
    version = re.findall(r"models/recommender/(\d{8}T\d{6}Z-[0-9a-f]{8})", told)[0]
    assert re.search(rf"http://localhost:\d+ serves recommender {version}", told)
    assert "GET /users/1/recommendations?n=5   200" in told
    assert "user nobody, popular: Film" in told
    assert "GET /users/nobody/recommendations   404" in told
    assert "make down" in told
    [served] = json.loads(stack.cirro("serve", "status", "--json"))
    assert served["model"] == f"recommender/{version}"
    assert served["running"] == served["desired"]
    stack.cirro("serve", "destroy", "recommender", "--yes")
