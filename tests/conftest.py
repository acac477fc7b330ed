"""Keeps all tests away from the user's own Covalent, and from any AWS account.

Runs before any test module is imported, because ``import covalent`` reads its folders from the environment.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from covalent_cirro import covalent_server

CLOSED_PORT = 1
"""Nothing listens here: a dispatch without the fixture ``stack`` fails at once instead of finding somebody's server."""

# One folder a process: the processes of pytest-xdist inherit the environment, but must not share a config file.
_folder = Path(tempfile.mkdtemp(prefix="cirro-tests-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
for _name in list(os.environ):
    if _name.startswith("COVALENT_") or (_name.startswith("AWS_") and os.environ.get("CIRRO_LIVE") != "1"):
        del os.environ[_name]
covalent_server.write_config(_folder, port=CLOSED_PORT, executors={})
os.environ |= covalent_server.client_environment(_folder)
if os.environ.get("CIRRO_LIVE") != "1":
    os.environ |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(_folder / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(_folder / "aws-credentials"),
    }

# Covalent remembers where its config is when it is first imported: here, not in a test that has another one meanwhile.
import covalent  # noqa: E402, F401
