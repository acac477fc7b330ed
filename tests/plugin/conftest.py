"""An emulated account, and executors that use it without a Covalent server."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.contract.places import parse_call_argument
from covalent_cirro.local.emulator import Emulator
from tests.access import PROFILE, client, credentials_file


class Account(NamedTuple):
    """An emulator with a deployment in it.

    Attributes:
        emulator: The emulator; its faults are shared by all tests of a module, so a test that sets one clears it.
        settings: The deployment's outputs, as options of the executor.
        credentials: Path of a credentials file with the profile `PROFILE`.
    """

    emulator: Emulator
    settings: dict[str, str]
    credentials: str

    def client(self, service: str) -> Any:
        """A boto3 client of the account."""
        return client(self.emulator, service)

    def keys(self, prefix: str = "") -> list[str]:
        """Keys in the bucket."""
        pages = self.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.settings["s3_bucket_name"], Prefix=prefix)
        return [item["Key"] for page in found for item in page.get("Contents", ())]

    def document(self, key: str) -> bytes:
        """The content of an object in the bucket."""
        data: bytes = self.client("s3").get_object(Bucket=self.settings["s3_bucket_name"], Key=key)["Body"].read()
        return data

    def replace(self, key: str, data: bytes) -> None:
        """Put an object in the place of another. The bucket's policy lets nobody write over an outcome."""
        s3, bucket = self.client("s3"), self.settings["s3_bucket_name"]
        s3.delete_object(Bucket=bucket, Key=key)
        s3.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")

    def mac_key(self, job_id: str) -> str:
        """The key with which a job authenticates its outcomes."""
        (job,) = self.client("batch").describe_jobs(jobs=[job_id])["jobs"]
        return parse_call_argument(job["parameters"]["call"])[1]


@contextlib.contextmanager
def emulated(folder: Path, **options: Any) -> Iterator[Account]:
    """An account with a deployment; ``options`` are the emulator's."""
    with Emulator(state_dir=folder / "emulator", **options) as emulator:
        made = Account(emulator, {}, credentials_file(folder / "credentials", emulator.key))
        yield made._replace(settings=deployment.deploy(made.client("cloudformation")).settings)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One emulated account for the tests of a module."""
    with emulated(tmp_path_factory.mktemp("account")) as made:
        yield made


@pytest.fixture
def executor(account: Account, tmp_path: Path) -> Callable[..., CirroBatchExecutor]:
    """Makes executors for the account; options may be overridden."""

    def make(**options: Any) -> CirroBatchExecutor:
        return CirroBatchExecutor(
            **{
                **account.settings,
                "endpoint_url": account.emulator.endpoint_url,
                "credentials": account.credentials,
                "profile": PROFILE,
                "container_image_uri": "cirro-runner",  # jobs are processes: any name but the default's
                "vcpu": 1,
                "memory": 0.5,
                "cache_dir": str(tmp_path / "cache"),
                **options,
            }
        )

    return make


@pytest.fixture
def metadata() -> dict[str, Any]:
    """An electron's place in a dispatch of its own."""
    return {"dispatch_id": str(uuid.uuid4()), "node_id": 3}
