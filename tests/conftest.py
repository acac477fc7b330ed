"""Keeps all tests away from the user's own Covalent, and from any AWS account.

Runs before any test module is imported, because ``import covalent`` reads its folders from the environment.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import botocore.session
import hypothesis
import pytest

from covalent_cirro.local import covalent_process

CLOSED_PORT = 1
"""Nothing listens here: a dispatch without the fixture ``stack`` fails at once instead of finding somebody's server."""

# One folder a process: the processes of pytest-xdist inherit the environment, but must not share a config file.
_folder = Path(tempfile.mkdtemp(prefix="cirro-tests-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
for _name in list(os.environ):
    if _name.startswith("COVALENT_") or (_name.startswith("AWS_") and os.environ.get("CIRRO_LIVE") != "1"):
        del os.environ[_name]
covalent_process.write_config(_folder, port=CLOSED_PORT, executors={})
os.environ |= covalent_process.client_environment(_folder)
# No local stack that runs in the folder of the tests is used by a command that they call.
os.environ["CIRRO_STATE_DIR"] = str(_folder / "no-local-stack")
# Thousands of machine images that an emulated account would have, and that nothing looks for: half a second each time.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
if os.environ.get("CIRRO_LIVE") != "1":
    os.environ |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(_folder / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(_folder / "aws-credentials"),
    }

# Covalent remembers where its config is when it is first imported: here, not in a test that has another one meanwhile.
import covalent  # noqa: E402, F401

# The models of AWS's services are read once a process, and not once for each of hundreds of sessions.
botocore.session.create_loader = functools.lru_cache(botocore.session.create_loader)

from tests.work_units import Scheduler  # noqa: E402

# What an example takes says nothing on a machine that is busy with other tests.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

ROOT = Path(__file__).parents[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """Share the tests out by `tests.work_units`, whatever ``--dist`` says."""
    return Scheduler(config, log)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This source tree as a wheel, alone in its folder."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("covalent_cirro", "infra", "docker"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    (made,) = folder.glob("*.whl")
    return made
