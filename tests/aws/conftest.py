"""A real account and a deployment's name in it for each module here, and its end. Opt-in: see `test_walk.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro import CirroBatchExecutor
from tests.aws.walk import Account, clean_up

Make = Callable[..., CirroBatchExecutor]
"""Makes an executor; its options are those of `CirroBatchExecutor`, over the deployment's settings."""

WHY = "needs an AWS account, and costs some cents: set CIRRO_LIVE=1 (docs/deploy.md, Live tests)"
GPUS = 1 if os.environ.get("CIRRO_LIVE_GPU") == "1" else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing here runs without being asked for."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)
            item.add_marker(pytest.mark.timeout(5400))
            if os.environ.get("CIRRO_LIVE") != "1":
                item.add_marker(pytest.mark.skip(reason=WHY))


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The account of AWS's usual chain, and a name that no deployment has. What is made under it goes again."""
    import boto3

    session = boto3.Session()
    identity = session.client("sts").get_caller_identity()
    name = f"cirro-test-{uuid.uuid4().hex[:8]}"
    print(f"\nlive: deployment {name} in account {identity['Account']}, {session.region_name}")
    account = Account(name, dict(os.environ), tmp_path_factory.mktemp("covalent"), session.client)
    try:
        yield account
    finally:
        clean_up(account)


@pytest.fixture(scope="session")
def parameters() -> dict[str, object]:
    """Small enough for the quotas of a new account, which has none for GPUs."""
    return {
        "CpuSpotMaxVcpus": 4,
        "CpuOnDemandMaxVcpus": 4,
        "GpuSpotMaxVcpus": 4 * GPUS,
        "GpuOnDemandMaxVcpus": 4 * GPUS,
    }


def put_image(account: Account) -> None:
    """Build the runner's image on this machine's engine, and push it."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        device = "gpu" if GPUS else "cpu"
        account.cirro("image", "push", "--device", device)
    else:
        pytest.fail("the walk builds an image: it needs a Docker engine on this machine")


def deploy(account: Account, parameters: Mapping[str, object]) -> dict[str, Any]:
    """Deploy, or change the deployment; gives the executor's settings."""
    given = [part for name, value in parameters.items() for part in ("--parameter", f"{name}={value}")]
    settings: dict[str, Any] = account.cirro("deploy", "--yes", *given)["settings"]
    return settings


def executors(account: Account, settings: Mapping[str, Any], **own: Any) -> Make:
    """Push the image; gives what makes executors of small jobs with it."""
    put_image(account)
    (image,) = [each["uri"] for each in account.cirro("image", "list") if each["used"]]
    small = {**settings, "container_image_uri": image, "vcpu": 1, "memory": 1, **own}
    return lambda **options: CirroBatchExecutor(**{**small, **options})


def metadata() -> dict[str, Any]:
    """An electron's place in a dispatch of its own."""
    return {"dispatch_id": str(uuid.uuid4()), "node_id": 0}
