"""The example sweep with IAM enforced: the server has the submitter's key and no more, the jobs have the job role."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from covalent_cirro import covalent_server, deployment, processes
from covalent_cirro.emulator import Emulator
from covalent_cirro.errors import HostError
from tests.pushed_images import Pushes

SWEEP = Path(__file__).parents[2] / "examples" / "sweep.py"
START_S = 60.0

pytestmark = pytest.mark.covalent
pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


class Place(NamedTuple):
    """A deployment with a Covalent server of its own.

    Attributes:
        emulator: The emulated AWS, which enforces IAM.
        policy: The ARN of the submitter's policy.
        environment: Of the client: it knows the server, and nothing of AWS.
    """

    emulator: Emulator
    policy: str
    environment: dict[str, str]

    def sweep(self, output: Path) -> subprocess.CompletedProcess[str]:
        """Run the example."""
        return subprocess.run(
            [sys.executable, str(SWEEP), "--output", str(output)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An administrator deploys and makes a user; the server is started with that user's key."""
    folder = tmp_path_factory.mktemp("place")
    with Emulator(state_dir=folder / "emulator", iam=True) as emulator:
        parameters = {"CpuSpotMaxVcpus": os.cpu_count() or 1}
        made = deployment.deploy(emulator.client("cloudformation"), parameters=parameters, sleep=lambda _: None)
        iam = emulator.client("iam")
        iam.create_user(UserName="ada")
        iam.attach_user_policy(UserName="ada", PolicyArn=made.outputs["SubmitterPolicy"])
        key = iam.create_access_key(UserName="ada")["AccessKey"]
        port = processes.free_port()
        repository = made.outputs["ImageRepository"]
        Pushes(emulator).image(repository.partition("/")[2], "sweep")
        settings = {
            **made.settings,
            "endpoint_url": emulator.endpoint_url,
            "container_image_uri": f"{repository}:sweep",
        }
        covalent_server.write_config(folder, port=port, executors={"cirro": settings})
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COVALENT_"))}
        log = folder / "server.log"
        server = processes.start(
            [sys.executable, "-m", "covalent_cirro.covalent_server", str(port)],
            log=log,
            environment={
                **clean,
                **covalent_server.server_environment(folder),
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": str(folder / "aws-config"),
                "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws-credentials"),
            },
            folder=folder,
        )
        try:
            url = f"http://{covalent_server.ADDRESS}:{port}/api/v1/dispatches/list?count=1"
            processes.wait_for(functools.partial(_answers, url), server, log, START_S, HostError)
            yield Place(
                emulator, made.outputs["SubmitterPolicy"], {**clean, **covalent_server.client_environment(folder)}
            )
        finally:
            processes.end(server, patience_s=10)


def _answers(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return None


@pytest.mark.timeout(400)
def test_the_sweep_needs_no_more_than_the_policies_allow(place: Place, tmp_path: Path) -> None:
    """It completes, and no call was made with a key that may do all, but to make the deployment."""
    place.emulator.calls.reset()
    process = place.sweep(tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "the dispatch is COMPLETED" in process.stdout
    accuracy = re.search(r"([\d.]+)% on the held-out test digits", process.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 98
    jobs, server = place.emulator.calls.counts("job"), place.emulator.calls.counts("client")
    # What is deleted are checkpoints: nobody needs them once the electron has returned.
    assert set(jobs) <= {f"s3:{name}" for name in ("GetObject", "HeadObject", "PutObject", "DeleteObject", *PARTS)}
    assert jobs["s3:PutObject"]["count"] >= 15
    assert server["batch:SubmitJob"]["count"] == 15


PARTS = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload")


def test_the_sweep_fails_without_one_of_its_statements(place: Place, tmp_path: Path) -> None:
    """In AWS's words, with the action that is missing."""
    iam = place.emulator.client("iam")
    document = iam.get_policy_version(PolicyArn=place.policy, VersionId="v1")["PolicyVersion"]["Document"]
    document["Statement"] = [each for each in document["Statement"] if each["Sid"] != "SubmitJobs"]
    made = iam.create_policy_version(PolicyArn=place.policy, PolicyDocument=json.dumps(document), SetAsDefault=True)
    try:
        process = place.sweep(tmp_path)
    finally:
        iam.set_default_policy_version(PolicyArn=place.policy, VersionId="v1")
        iam.delete_policy_version(PolicyArn=place.policy, VersionId=made["PolicyVersion"]["VersionId"])
    assert process.returncode == 1
    assert "user/ada is not authorized to perform: batch:SubmitJob on resource" in process.stdout
    assert not (tmp_path / "model.pt").exists()
