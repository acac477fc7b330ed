"""Serving in a real account: a recommender is deployed, updated under load, goes back by itself, and is destroyed.

    CIRRO_LIVE=1 AWS_PROFILE=me AWS_REGION=us-east-1 make test-aws ARGS="-m live -k serving --numprocesses 0 -s"

Needs what `test_walk.py` needs. It takes about an hour, most of it waiting for tasks and load balancers, and costs less
than a dollar. Only this machine's address may reach the service. The same steps run on the emulator in every CI
(`tests/cli/test_serve_updates.py`).
"""

from __future__ import annotations

import base64
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from covalent_cirro.aws.sessions import Access
from covalent_cirro.models.model_objects import BucketObjects
from covalent_cirro.models.model_registry import ModelRegistry
from covalent_cirro.serving.service_values import MODEL_IMAGE_TAG
from tests import serving_steps
from tests.aws.walk import CIRRO, ROOT, Account
from tests.serving_steps import Cirro, Done

MY_ADDRESS = "https://checkip.amazonaws.com"
"""AWS's own answer to the question which address a machine has on the internet."""


@pytest.fixture(scope="module")
def called(account: Account) -> Cirro:
    """Calls ``cirro`` for the deployment of these tests."""

    def call(*arguments: object) -> Done:
        done = account.run(*CIRRO, *map(str, arguments), "--stack-name", account.name)
        return Done(done.returncode, done.stdout, done.stdout + done.stderr)

    return call


@pytest.fixture(scope="module")
def registry(account: Account, parameters: dict[str, object]) -> ModelRegistry:
    """The models of a deployment with the service's image in its repository."""
    given = [part for name, value in parameters.items() for part in ("--parameter", f"{name}={value}")]
    outputs = account.cirro("deploy", "--yes", *given)["outputs"]
    put_service_image(account, outputs["ImageRepository"])
    access = Access(profile=None, credentials=None, region=None, endpoint_url=None)
    bucket = outputs["S3BucketName"]
    return ModelRegistry(BucketObjects(access, bucket), bucket, f"{outputs['S3Prefix']}/")


def put_service_image(account: Account, repository: str) -> None:
    """Build the service's image on this machine's engine, and push it."""
    uri = f"{repository}:{MODEL_IMAGE_TAG}"
    [token] = account.client("ecr").get_authorization_token()["authorizationData"]
    logged_in = ["docker", "login", "--username", "AWS", "--password-stdin", repository.partition("/")[0]]
    password = base64.b64decode(token["authorizationToken"]).partition(b":")[2]
    subprocess.run(logged_in, input=password, check=True, capture_output=True)
    built = ["docker", "build", "--file", "docker/serve.Dockerfile", "--platform", "linux/amd64", "--tag", uri, "."]
    subprocess.run(built, cwd=ROOT, check=True)
    subprocess.run(["docker", "push", uri], check=True)


@pytest.fixture(scope="module")
def url(called: Cirro, registry: ModelRegistry) -> Iterator[str]:
    """Where the service answers. Whatever happens, it goes with its deployment's end."""
    with urllib.request.urlopen(MY_ADDRESS, timeout=30) as answer:
        address = answer.read().decode().strip()
    try:
        yield str(serving_steps.deploy(called, registry, f"{address}/32")["url"])
    finally:
        serving_steps.destroy(called)


def test_a_new_model_takes_over_without_a_failed_answer(called: Cirro, registry: ModelRegistry, url: str) -> None:
    """Both versions answer for a while, then only the new one."""
    serving_steps.take_over(called, registry, url)


def test_a_model_that_cannot_be_loaded_goes_back_by_itself(called: Cirro, registry: ModelRegistry, url: str) -> None:
    """What was served before answers all the time."""
    serving_steps.go_back(called, registry, url)


def test_the_version_before_can_be_served_again(called: Cirro, registry: ModelRegistry, url: str) -> None:
    """`rollback` is an update like any other."""
    serving_steps.roll_back(called, registry, url)
