"""Who has the policy of infra/README.md for who serves, and no other right, can do all of ``cirro serve``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from covalent_cirro import deployment
from covalent_cirro.aws.sessions import Access
from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.models.model_objects import BucketObjects
from covalent_cirro.models.model_registry import ModelRegistry
from tests.cli.test_serve import image
from tests.unit.test_serving_rights import POLICY

Cirro = Callable[..., Result]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulated AWS that checks rights, with a deployment, as the AWS of a user who may serve."""
    images: dict[str, ImageConfig] = {"recommender": image("v1")}
    with Emulator(state_dir=tmp_path / "emulator", images=images, timing=Timing(scale=0.05), iam=True) as running:
        deployment.deploy(running.client("cloudformation"), "cirro")
        iam = running.client("iam")
        iam.create_user(UserName="ada")
        policy = json.dumps(POLICY).replace("123456789012", running.account)
        iam.create_policy(PolicyName="serve", PolicyDocument=policy)
        iam.attach_user_policy(UserName="ada", PolicyArn=f"arn:aws:iam::{running.account}:policy/serve")
        key = iam.create_access_key(UserName="ada")["AccessKey"]
        for name, value in {
            "AWS_ENDPOINT_URL": running.endpoint_url,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_DEFAULT_REGION": running.region,
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "COVALENT_CONFIG_DIR": str(tmp_path / "covalent"),
        }.items():
            monkeypatch.setenv(name, value)
        yield running


def register(outputs: dict[str, str], number: int) -> str:
    """A version of the model `books`, of bytes that no recommender could read: the image of these tests reads none."""
    bucket = outputs["S3BucketName"]
    registry = ModelRegistry(BucketObjects(Access(None, None, None, None), bucket), bucket, f"{outputs['S3Prefix']}/")
    facts: dict[str, Any] = dict.fromkeys(("dispatch", "node", "data_digest"))
    facts |= {"metrics": {}, "parameters": {"number": number}, "versions": {}}
    return registry.register("books", f"weights {number}".encode(), {}, **facts).version


def test_the_policy_is_enough(server: Emulator, cirro: Cirro, monkeypatch: pytest.MonkeyPatch) -> None:
    """From deploy to destroy, with a model; what it has no right for is refused."""
    outputs = deployment.outputs(server.client("cloudformation"), "cirro")
    with monkeypatch.context() as administrator:
        administrator.setenv("AWS_ACCESS_KEY_ID", server.key.id)
        administrator.setenv("AWS_SECRET_ACCESS_KEY", server.key.secret)
        versions = [register(outputs, number) for number in (1, 2)]
    for words in (
        ("deploy", "--model", f"books@{versions[0]}", "--allow-from", "127.0.0.1/32", "--yes"),
        ("update", "--yes"),
        ("rollback", "--yes"),
        ("status",),
        ("logs",),
        ("destroy", "--yes"),
    ):
        done = cirro("serve", *words)
        assert done.exit_code == 0, done.output
    refused = cirro("destroy", "--yes")
    assert refused.exit_code == 1
    assert "not authorized" in refused.stderr
