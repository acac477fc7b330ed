"""The example, run as a user runs it: a real sweep, as jobs of the emulated AWS, through a real Covalent server.

IAM is enforced: the server has the submitter's key and no more, and the jobs have the job role.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from covalent_cirro import deployment
from covalent_cirro.local import covalent_process
from covalent_cirro.local.emulator import Emulator
from tests import servers
from tests.pushed_images import Pushes

SWEEP = Path(__file__).parents[2] / "examples" / "sweep.py"
CONFIGURATIONS = 12
ELECTRONS = CONFIGURATIONS + len(("load_data", "rank", "retrain"))

# Only looked for: whoever collects the tests would import torch.
MISSING = [name for name in ("torch", "sklearn", "matplotlib") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.covalent,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


class Place(NamedTuple):
    """A deployment with a Covalent server of its own.

    Attributes:
        emulator: The emulated AWS, which enforces IAM.
        outputs: Of the deployment; ``SubmitterPolicy`` is the policy of the server's user.
        server_url: Of the Covalent server.
        environment: Of the client: it knows the server, and nothing of AWS.
    """

    emulator: Emulator
    outputs: Mapping[str, str]
    server_url: str
    environment: dict[str, str]

    def sweep(self, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the example."""
        return subprocess.run(
            [sys.executable, str(SWEEP), "--output", str(output), *options],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def dispatch_id(self, process: subprocess.CompletedProcess[str]) -> str:
        """The dispatch, by the address of its page, which the example prints."""
        found = re.search(re.escape(self.server_url) + r"/([0-9a-f-]{36})", process.stdout)
        assert found is not None, process.stdout + process.stderr
        return found[1]


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
        repository = made.outputs["ImageRepository"]
        Pushes(emulator).image(repository.partition("/")[2], "sweep")
        settings = {
            **made.settings,
            "endpoint_url": emulator.endpoint_url,
            "container_image_uri": f"{repository}:sweep",
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COVALENT_"))}
        environment = {
            **clean,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(folder / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws-credentials"),
        }
        with servers.covalent(folder, {"cirro": settings}, environment) as url:
            yield Place(emulator, made.outputs, url, {**clean, **covalent_process.client_environment(folder)})


class Sweep(NamedTuple):
    """The finished example.

    Attributes:
        process: With what it printed.
        output: The folder that it wrote to.
        jobs: Calls to AWS that its jobs made meanwhile, by operation.
        server: Those that the Covalent server made.
    """

    process: subprocess.CompletedProcess[str]
    output: Path
    jobs: Mapping[str, Mapping[str, Any]]
    server: Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def sweep(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The example, run once for all tests here."""
    output = tmp_path_factory.mktemp("sweep")
    place.emulator.calls.reset()
    process = place.sweep(output)
    return Sweep(process, output, place.emulator.calls.counts("job"), place.emulator.calls.counts("client"))


def test_the_sweep_completes(sweep: Sweep) -> None:
    """It says how it ended, ranks every configuration, and the best model is right on 98 % of the held-out digits."""
    process = sweep.process
    assert process.returncode == 0, process.stdout + process.stderr
    assert "the dispatch is COMPLETED" in process.stdout
    assert re.findall(r"^ +(\d+) +\d+\.\d+%", process.stdout, re.MULTILINE) == [
        str(rank) for rank in range(1, CONFIGURATIONS + 1)
    ]
    accuracy = re.search(r"([\d.]+)% on the held-out test digits", process.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 98


def test_the_sweep_needs_no_more_than_the_policies_allow(sweep: Sweep) -> None:
    """It completed, and no call was made with a key that may do all, but to make the deployment."""
    assert sweep.process.returncode == 0
    # What is deleted are checkpoints: nobody needs them once the electron has returned.
    assert set(sweep.jobs) <= {
        f"s3:{name}" for name in ("GetObject", "HeadObject", "PutObject", "DeleteObject", *PARTS)
    }
    assert sweep.jobs["s3:PutObject"]["count"] >= ELECTRONS
    assert sweep.server["batch:SubmitJob"]["count"] == ELECTRONS


PARTS = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload")


def test_the_model_and_the_picture(sweep: Sweep) -> None:
    """The model loads without trusting the file, and the picture is a PNG of a size one can read."""
    import torch

    saved = torch.load(sweep.output / "model.pt", weights_only=True)
    assert saved["configuration"].keys() == {"channels", "learning_rate", "dropout"}
    assert all(tensor.device.type == "cpu" for tensor in saved["state_dict"].values())
    picture = (sweep.output / "learning_curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") >= 1000
    assert str(sweep.output / "model.pt") in sweep.process.stdout
    assert str(sweep.output / "learning_curves.png") in sweep.process.stdout


def test_every_training_is_a_job(place: Place, sweep: Sweep) -> None:
    """Our fifteen electrons are fifteen succeeded jobs of the dispatch, and Covalent's own nodes are none."""
    dispatch_id = place.dispatch_id(sweep.process)
    batch = place.emulator.client("batch")
    summaries = [
        summary
        for page in batch.get_paginator("list_jobs").paginate(
            jobQueue=place.outputs["BatchQueue"], jobStatus="SUCCEEDED"
        )
        for summary in page["jobSummaryList"]
    ]
    ids = [summary["jobId"] for summary in summaries]
    jobs = [
        job for start in range(0, len(ids), 100) for job in batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
    ]
    ours = [job for job in jobs if dispatch_id in job["tags"].values()]
    assert len(ours) == ELECTRONS


def test_the_page_of_the_dispatch(place: Place, sweep: Sweep) -> None:
    """The page that is named is there, and its graph has every electron, completed."""
    page_url = f"{place.server_url}/{place.dispatch_id(sweep.process)}"
    with urllib.request.urlopen(page_url, timeout=30) as page:
        assert page.status == 200
    graph_url = f"{place.server_url}/api/v1/dispatches/{place.dispatch_id(sweep.process)}/graph"
    with urllib.request.urlopen(graph_url, timeout=30) as answer:
        nodes = json.load(answer)["graph"]["nodes"]
    ours = [node for node in nodes if not node["name"].startswith(":")]
    assert sorted({node["name"] for node in ours}) == ["load_data", "rank", "retrain", "train"]
    assert {node["status"] for node in ours} == {"COMPLETED"}


def test_a_sweep_that_fails(place: Place, tmp_path: Path) -> None:
    """A seed that scikit-learn refuses fails the first electron: exit code 1, the reason and the page, and no model."""
    process = place.sweep(tmp_path, "--seed", "-1")
    assert process.returncode == 1
    assert "FAILED" in process.stdout
    assert "random_state" in process.stdout
    assert place.dispatch_id(process)
    assert not (tmp_path / "model.pt").exists()


def test_the_sweep_fails_without_one_of_its_statements(place: Place, tmp_path: Path) -> None:
    """In AWS's words, with the action that is missing."""
    iam, policy = place.emulator.client("iam"), place.outputs["SubmitterPolicy"]
    document = iam.get_policy_version(PolicyArn=policy, VersionId="v1")["PolicyVersion"]["Document"]
    document["Statement"] = [each for each in document["Statement"] if each["Sid"] != "SubmitJobs"]
    made = iam.create_policy_version(PolicyArn=policy, PolicyDocument=json.dumps(document), SetAsDefault=True)
    try:
        process = place.sweep(tmp_path)
    finally:
        iam.set_default_policy_version(PolicyArn=policy, VersionId="v1")
        iam.delete_policy_version(PolicyArn=policy, VersionId=made["PolicyVersion"]["VersionId"])
    assert process.returncode == 1
    assert "user/ada is not authorized to perform: batch:SubmitJob on resource" in process.stdout
    assert not (tmp_path / "model.pt").exists()
