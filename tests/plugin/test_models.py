"""Models in the bucket of a deployment: register, list, point, from Python and from the terminal, on the emulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from covalent_cirro import CirroBatchExecutor, models
from covalent_cirro.cli import main
from covalent_cirro.errors import ModelError
from covalent_cirro.models import model_version
from tests.access import PROFILE
from tests.plugin.conftest import Account

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

Make = Callable[..., CirroBatchExecutor]
Command = Callable[..., Result]


@pytest.fixture
def cirro(account: Account, executor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Calls ``cirro`` with the deployment's settings in Covalent's config."""
    settings = executor().settings
    names = ("s3_bucket_name", "s3_prefix", "endpoint_url", "credentials", "profile", "region")
    lines = [f"{name} = {json.dumps(value)}" for name in names if (value := getattr(settings, name))]
    (tmp_path / "covalent.conf").write_text("\n".join(["[executors.cirro]", *lines]))
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(tmp_path))

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, words)

    return call


def layers(seed: int) -> dict[str, Any]:
    """Some weights."""
    return {"user": np.random.default_rng(seed).random((50, 4), dtype=np.float32)}


def test_weights_come_back(account: Account, executor: Make, tmp_path: Path) -> None:
    """As a safetensors file beside the other files, of bytes and of paths, under the deployment's prefix."""
    (tmp_path / "titles").write_bytes(b"x" * 3_000_000)
    files = {"titles.txt": tmp_path / "titles", "catalogue.json": b"{}"}
    made = models.register("back", layers(1), files=files, metrics={"rmse": 0.5}, executor=executor())
    assert made == models.current("back", executor=executor())
    assert made.uri.startswith(f"s3://{account.settings['s3_bucket_name']}/cirro/models/back/")
    stored = safetensors.load(models.read("back", made.version, executor=executor()))
    np.testing.assert_array_equal(stored["user"], layers(1)["user"])
    assert len(models.read("back", made.version, "titles.txt", executor=executor())) == 3_000_000
    assert made.versions.keys() >= {"python", "covalent-cirro"}
    assert account.keys("cirro/models/back/") == sorted(
        [
            "cirro/models/back/current.json",
            *(f"cirro/models/back/{made.version}/{file}" for file in (*made.files, "model.json")),
        ]
    )


def test_two_register_at_the_same_time(executor: Make) -> None:
    """Both versions are there, whole, and one of them is the current one; each call returns its own."""
    barrier = threading.Barrier(4)

    def register(seed: int) -> Any:
        barrier.wait()
        return models.register("twins", layers(seed), parameters={"seed": seed}, executor=executor())

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(register, range(4)))
    found = models.versions("twins", executor=executor())
    assert sorted(found) == sorted(made)
    assert models.current("twins", executor=executor()) in found
    for each in found:
        stored = safetensors.load(models.read("twins", each.version, executor=executor()))
        np.testing.assert_array_equal(stored["user"], layers(each.parameters["seed"])["user"])


def test_several_move_the_pointer_at_the_same_time(executor: Make) -> None:
    """It is where one of those that were not told otherwise has put it."""
    made = [models.register("race", layers(seed), executor=executor()) for seed in range(4)]
    barrier = threading.Barrier(4)

    def point(version: str) -> str | None:
        barrier.wait()
        try:
            models.point("race", version, executor=executor())
        except ModelError:  # somebody else was the first
            return None
        return version

    with ThreadPoolExecutor(4) as threads:
        moved = [each for each in threads.map(point, [each.version for each in made]) if each]
    assert models.current("race", executor=executor()).version in moved


KILLED = """
import os, signal, sys
import numpy as np
from covalent_cirro import models, CirroBatchExecutor
from covalent_cirro.models.model_objects import BucketObjects

put_new = BucketObjects.put_new
def until_the_document(self, key, *what):
    if key.endswith("/model.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    put_new(self, key, *what)
BucketObjects.put_new = until_the_document
bucket, endpoint, credentials, profile = sys.argv[1:]
executor = CirroBatchExecutor(
    s3_bucket_name=bucket, s3_prefix="cirro", endpoint_url=endpoint, credentials=credentials, profile=profile
)
models.register("killed", {"a": np.zeros(3)}, executor=executor)
"""


def test_a_registration_that_is_killed_leaves_no_version(account: Account, executor: Make, cirro: Command) -> None:
    """What it has written is told of, and is not in the way of the next one."""
    where = (account.settings["s3_bucket_name"], account.emulator.endpoint_url, account.credentials, PROFILE)
    process = subprocess.run([sys.executable, "-c", KILLED, *where], env=os.environ, check=False)
    assert process.returncode == -signal.SIGKILL
    assert [key.rpartition("/")[2] for key in account.keys("cirro/models/killed/")] == ["weights.safetensors"]
    assert models.versions("killed", executor=executor()) == []
    with pytest.raises(ModelError, match="no such model"):
        models.current("killed", executor=executor())
    assert "killed" not in cirro("models").stdout
    made = models.register("killed", {"a": np.zeros(3)}, executor=executor())
    assert models.versions("killed", executor=executor()) == [made]
    shown = cirro("models", "killed")
    assert "not complete, and not listed: 2" in shown.stderr
    assert len(json.loads(cirro("models", "killed", "--json").stdout)["unfinished"]) == 1


def test_nobody_writes_over_a_version(account: Account, executor: Make) -> None:
    """Not even an administrator, by the bucket's policy; and nobody moves a pointer that they have not read."""
    made = models.register("kept", layers(1), executor=executor())
    s3, bucket = account.client("s3"), account.settings["s3_bucket_name"]
    for file in (*made.files, "model.json"):
        key = model_version.file_key("cirro/", "kept", made.version, file)
        with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"other")
        with pytest.raises(s3.exceptions.ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"other", IfNoneMatch="*")
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.put_object(Bucket=bucket, Key="cirro/models/kept/current.json", Body=b"{}")
    assert models.current("kept", executor=executor()) == made


def test_a_lost_answer_is_no_second_version(account: Account, executor: Make) -> None:
    """S3 has done what it was asked for, and the connection broke: the call is made again, and finds its own object."""
    account.emulator.faults.add("cut", service="s3", operation="PutObject", when="after", count=2)
    try:
        made = models.register("lost", layers(1), executor=executor())
    finally:
        account.emulator.faults.clear()
    assert models.versions("lost", executor=executor()) == [made]
    assert models.current("lost", executor=executor()) == made


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_points_and_says_what_is_current(executor: Make, cirro: Command) -> None:
    """For people and for programs."""
    first = models.register("shown", layers(1), metrics={"rmse": 0.91234567}, parameters={"k": 4}, executor=executor())
    second = models.register("shown", layers(2), dispatch="3f2a91bc-aaaa", executor=executor())
    listed = next(line for line in cirro("models").stdout.splitlines() if line.startswith("shown"))
    assert listed.split()[:3] == ["shown", "2", second.version]

    lines = {line.split()[0]: line for line in cirro("models", "shown").stdout.splitlines()}
    assert "current" in lines[second.version]
    assert "3f2a91bc" in lines[second.version]
    assert "current" not in lines[first.version]
    assert "k 4 " in lines[first.version]
    assert lines[first.version].endswith("rmse 0.9123")

    assert cirro("models", "shown", "--point", first.version).exit_code == 0
    document = json.loads(cirro("models", "shown", "--json").stdout)
    assert (document["name"], document["current"], document["unfinished"]) == ("shown", first.version, [])
    versions = {each["version"]: each for each in document["versions"]}
    assert list(versions) == sorted([first.version, second.version], reverse=True)
    assert versions[first.version] == json.loads(json.dumps(first._asdict())) | {
        "files": {"weights.safetensors": first.files["weights.safetensors"]._asdict()}
    }
    (entry,) = [each for each in json.loads(cirro("models", "--json").stdout)["models"] if each["name"] == "shown"]
    assert (entry["versions"], entry["current"]["version"]) == (2, first.version)


def test_the_command_says_what_is_wrong(cirro: Command) -> None:
    """An unknown model or version, and --point without a model."""
    for words in (("models", "nobody"), ("models", "nobody", "--point", "20200101T000000Z-00000000")):
        failed = cirro(*words)
        assert failed.exit_code == 1
        assert "nobody" in failed.stderr or "no such model" in failed.stderr
    assert cirro("models", "--point", "20200101T000000Z-00000000").exit_code == 2
