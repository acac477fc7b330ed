"""An emulated account with a deployment that is well, for the tests of ``cirro doctor``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from covalent_cirro import __version__, deployment
from covalent_cirro.aws.sessions import Access
from covalent_cirro.contract.problems import CALL_FORMAT
from covalent_cirro.contract.protocol import LABEL_CLOUDPICKLE, LABEL_FORMAT, LABEL_PYTHON, LABEL_RUNNER
from covalent_cirro.covalent_server import config as covalent_config
from covalent_cirro.deployment.doctor import RequestedResources, examine, server_facts
from covalent_cirro.deployment.doctor.check import Check
from covalent_cirro.deployment.doctor.checks import CHECKS
from covalent_cirro.deployment.plans import TAG
from covalent_cirro.jobs.findings import Finding
from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.processes import free_port
from tests.access import variables

REGION = "us-east-1"
SERVER_CHECKS = {"server", "server_plugin", "server_versions", "server_config", "server_environment"}


class World:
    """An emulated account with a deployment and an image, and a Covalent config that goes with them."""

    def __init__(self, emulator: Emulator, config_dir: Path, patch: pytest.MonkeyPatch) -> None:
        self.emulator = emulator
        self.config_dir = config_dir
        self.patch = patch
        self.deployed = deployment.deploy(
            self.client("cloudformation"), "cirro", {"MonthlyBudgetUsd": 100, "BudgetEmail": "a@example.org"}
        )
        self.outputs, self.settings = self.deployed.outputs, self.deployed.settings
        emulator.account_settings.cost_tags[TAG] = "Active"
        suggested = {"time_limit": deployment.TIME_LIMIT_S}
        covalent_config.record(self.settings, stack_name="cirro", region=REGION, profile="", suggested=suggested)
        covalent_config.set_image(self.image())
        self.queue = self.client("batch").describe_job_queues(jobQueues=["cirro-cpu"])["jobQueues"][0]
        arn = self.queue["computeEnvironmentOrder"][0]["computeEnvironment"]
        found = self.client("batch").describe_compute_environments(computeEnvironments=[arn])
        self.environment = found["computeEnvironments"][0]

    def client(self, service: str, region: str = REGION) -> Any:
        """A client of the administrator."""
        return self.emulator.client(service, region_name=region)

    def image(self, architecture: str = "amd64", **labels: str) -> str:
        """The URI of an image with these labels, or those of this side, in the deployment's repository."""
        here = server_facts.here()
        told = {
            LABEL_PYTHON: here.python,
            LABEL_CLOUDPICKLE: str(here.cloudpickle),
            LABEL_RUNNER: __version__,
            LABEL_FORMAT: CALL_FORMAT,
            **labels,
        }
        name = self.outputs["ImageRepository"].partition("/")[2]
        config = json.dumps({"architecture": architecture, "os": "linux", "config": {"Labels": told}}).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        images = self.emulator.images
        upload = images.begin(REGION, name)
        upload.append(io.BytesIO(config).read)
        images.finish(REGION, name, upload.id, digest)
        media = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest,
                "size": len(config),
            },
            "layers": [],
        }
        pushed, _ = images.put(REGION, name, json.dumps(manifest).encode(), media, tag=digest[-8:], digest=None)
        return f"{self.outputs['ImageRepository']}@{pushed.digest}"

    def look(self, *ids: str, region: str | None = None, name: str = "cirro", **asked: Any) -> list[Finding]:
        """What these checks find, and those that they need; without ids, all."""
        access = Access(profile=None, credentials=None, region=region, endpoint_url=None)
        return examine(access, name, RequestedResources(**asked), checks=needed(ids) if ids else CHECKS)

    @contextlib.contextmanager
    def configured(self, **changes: Any) -> Iterator[None]:
        """Another ``[executors.cirro]``; `None` takes a key out."""
        path = covalent_config.config_path()
        before = path.read_text()
        document = tomlkit.parse(before)
        section: Any = document["executors"]["cirro"]  # type: ignore[index]
        for key, value in changes.items():
            if value is None:
                del section[key]
            else:
                section[key] = value
        path.write_text(tomlkit.dumps(document))
        try:
            yield
        finally:
            path.write_text(before)

    @contextlib.contextmanager
    def environ(self, **variables: str | None) -> Iterator[None]:
        """Other environment variables; `None` takes one away."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            yield

    @contextlib.contextmanager
    def fault(self, kind: str, **fields: Any) -> Iterator[None]:
        """A fault of the emulator."""
        number = self.emulator.faults.add(kind, **fields)
        try:
            yield
        finally:
            self.emulator.faults.clear(number)

    @contextlib.contextmanager
    def user(self, *statements: dict[str, Any]) -> Iterator[None]:
        """Be a user who may do this, and nothing else."""
        iam = self.client("iam")
        iam.create_user(UserName="somebody")
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_user_policy(UserName="somebody", PolicyName="all", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="somebody")["AccessKey"]
        try:
            with self.environ(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"]):
                yield
        finally:
            self.empty_bucket()  # who may not delete leaves the probe behind
            iam.delete_access_key(UserName="somebody", AccessKeyId=key["AccessKeyId"])
            iam.delete_user_policy(UserName="somebody", PolicyName="all")
            iam.delete_user(UserName="somebody")

    def empty_bucket(self) -> None:
        """Delete everything in the deployment's bucket."""
        s3, name = self.client("s3"), self.settings["s3_bucket_name"]
        for each in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=each["Key"])

    @contextlib.contextmanager
    def trust(self, role: str, **statement: Any) -> Iterator[None]:
        """Another trust policy of a role."""
        iam = self.client("iam")
        before = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        changed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", **statement}]}
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(changed))
        try:
            yield
        finally:
            iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(before))

    @contextlib.contextmanager
    def account_settings(self, **changes: Any) -> Iterator[None]:
        """Other quotas, cost tags or instance types of the account."""
        account_settings = self.emulator.account_settings
        before = {key: dict(getattr(account_settings, key)) for key in changes}
        account_settings.update(changes)
        try:
            yield
        finally:
            account_settings.update(before)


def needed(ids: tuple[str, ...]) -> list[Check]:
    """The checks with these ids and all that they need, in their order."""
    by_id = {check.id: check for check in CHECKS}
    wanted = set(ids)
    for check in reversed(CHECKS):
        if check.id in wanted:
            wanted |= set(by_id[check.id].needs)
    return [check for check in CHECKS if check.id in wanted]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that is well; each test repairs what it breaks."""
    config_dir = tmp_path_factory.mktemp("covalent")
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(state_dir=tmp_path_factory.mktemp("emulator"), iam=True) as emulator,
    ):
        patch.setenv("COVALENT_CONFIG_DIR", str(config_dir))
        for name, value in variables(emulator.key).items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
        (config_dir / "covalent.conf").write_text(f'[dispatcher]\naddress = "localhost"\nport = {free_port()}\n')
        yield World(emulator, config_dir, patch)
