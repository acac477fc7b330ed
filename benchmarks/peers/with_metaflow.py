"""Metaflow: a flow with a foreach step on AWS Batch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.peer import Case, Place
from peers.works import WORKS

TITLE = "Metaflow 2.19.39"
PACKAGES = ("metaflow==2.19.39", "boto3")
SERVER = False
CASES = {
    "tasks": Case("tasks", "foreach with `@batch`", 20),
    "shared": Case("shared", "foreach with `@batch`, the value as an artifact", 10),
}
SET_UP = """\
Configured by environment variables alone: datastore S3, metadata local, the deployment's queue, bucket and role; all
else is at its defaults. The call is `python flow.py run`: the driver is that process with those that it starts.
Jobs have METAFLOW_SKIP_INSTALL_DEPENDENCIES=1: they would install packages, which are there."""
FLOW = "metaflow_flow.py"
IMAGE_VARIABLES = {"METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1"}


def entrypoint(case: Case, place: Place, python: Path) -> list[str]:
    """The command of the jobs says all."""
    return []


def prepare(case: Case, place: Place) -> Callable[[], Any]:
    """Configure Metaflow, in a folder that has the flow and nothing else: Metaflow uploads it."""
    home = place.folder / "flow"
    home.mkdir()
    shutil.copy(Path(__file__).with_name(FLOW), home / FLOW)
    settings = place.settings
    os.environ.update(
        METAFLOW_DEFAULT_DATASTORE="s3",
        METAFLOW_DEFAULT_METADATA="local",
        METAFLOW_DATASTORE_SYSROOT_S3=f"s3://{settings['s3_bucket_name']}/metaflow",
        METAFLOW_BATCH_JOB_QUEUE=settings["batch_queue"],
        METAFLOW_BATCH_CONTAINER_IMAGE=place.image,
        METAFLOW_ECS_S3_ACCESS_IAM_ROLE=settings["job_role_arn"],
        METAFLOW_USER="peers",
        METAFLOW_HOME=str(place.folder / "metaflow-home"),
        PEERS_SHARED=str(place.inputs / "shared.bin") if case.work == "shared" else "",
        PEERS_COUNT=str(WORKS[case.work].items),
        PEERS_RESULTS=str(place.folder / "results.json"),
    )

    def run() -> Any:
        subprocess.run([sys.executable, FLOW, "run"], cwd=home, check=True)
        return json.loads((place.folder / "results.json").read_text())

    return run
