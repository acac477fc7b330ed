"""Variables and secrets of electrons, with the roles that a deployment gives, in an account that enforces IAM."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest
from click.testing import CliRunner
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.cli import main
from covalent_cirro.errors import SettingsError
from covalent_cirro.local.emulator import Emulator, Timing
from tests.access import control

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]
PROFILE = "submitter"
KEY, PASSWORD = "wandb-0123456789abcdef", "hunter2-correct-horse"
WRITES = {"s3:PutObject", "s3:CreateMultipartUpload", "batch:RegisterJobDefinition", "batch:SubmitJob"}


class Account(NamedTuple):
    """A deployment that gives jobs some secrets, and the key of a user with its `SubmitterPolicy`.

    Attributes:
        emulator: The emulator.
        settings: The deployment's outputs, as options of the executor.
        credentials: Path of a credentials file with the user's key.
        secrets: ARNs by name: ``key`` and ``db`` (JSON), and ``other``, which the deployment does not give.
    """

    emulator: Emulator
    settings: dict[str, str]
    credentials: str
    secrets: Mapping[str, str]

    def calls(self) -> dict[str, int]:
        """How often each operation was called, by this process."""
        return {name: each["count"] for name, each in control(self.emulator, "calls?caller=client").items()}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One account for all tests of the module."""
    folder = tmp_path_factory.mktemp("account")
    with Emulator(state_dir=folder / "emulator", timing=Timing(idle_s=5), iam=True) as emulator:
        manager, iam = emulator.client("secretsmanager"), emulator.client("iam")
        values = {"key": KEY, "db": json.dumps({"user": "ada", "password": PASSWORD}), "other": "of another team"}
        secrets = {
            name: str(manager.create_secret(Name=f"team/{name}", SecretString=value)["ARN"])
            for name, value in values.items()
        }
        emulator.client("ssm").put_parameter(Name="/team/db", Value=PASSWORD, Type="SecureString")
        parameters = f"arn:aws:ssm:{emulator.region}:{emulator.account}:parameter/team/*"
        missing = f"{secrets['key'].rpartition('team/')[0]}team/missing-??????"
        given = ",".join([secrets["key"], secrets["db"], missing, parameters])
        made = deployment.deploy(
            emulator.client("cloudformation"), parameters={"SecretArns": given}, sleep=lambda _: None
        )
        iam.create_user(UserName="ada")
        iam.attach_user_policy(UserName="ada", PolicyArn=made.outputs["SubmitterPolicy"])
        key = iam.create_access_key(UserName="ada")["AccessKey"]
        credentials = folder / "credentials"
        credentials.write_text(
            f"[{PROFILE}]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n"
        )
        yield Account(emulator, dict(made.settings), str(credentials), secrets)


@pytest.fixture
def options(account: Account, tmp_path: Path) -> dict[str, Any]:
    """Options of an executor with the submitter's key."""
    return {
        **account.settings,
        "endpoint_url": account.emulator.endpoint_url,
        "credentials": account.credentials,
        "profile": PROFILE,
        "container_image_uri": "cirro-runner",
        "vcpu": 1,
        "memory": 0.5,
        "cache_dir": str(tmp_path / "cache"),
    }


def place() -> dict[str, Any]:
    """An electron's place in a dispatch of its own."""
    return {"dispatch_id": str(uuid.uuid4()), "node_id": 3}


def use_them(fails: bool) -> list[str | int]:
    """An electron that prints its secrets, and returns variables and the lengths of secrets."""
    import os

    print("the key is", os.environ["WANDB_API_KEY"])
    print("the parameter is", os.environ["PARAMETER"], flush=True)
    if fails:
        raise ValueError(f"cannot log in with {os.environ['DB_PASSWORD']}")
    lengths = [len(os.environ[name]) for name in ("WANDB_API_KEY", "DB_PASSWORD", "PARAMETER")]
    return [os.environ["OMP_NUM_THREADS"], *lengths]


async def test_an_electron_has_variables_and_secrets_and_nobody_else_sees_a_value(
    account: Account, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No object in S3, no definition, no job, no log, no command and no page has one; `cirro show` names them."""
    secrets = {
        "WANDB_API_KEY": account.secrets["key"],
        "DB_PASSWORD": f"{account.secrets['db']}:password",
        "PARAMETER": "ssm:/team/db",
    }
    environment = {"OMP_NUM_THREADS": "3"}
    made = CirroBatchExecutor(**options, environment=environment, secrets=secrets)
    runs, fails = place(), place()
    assert await made.run(use_them, [False], {}, runs) == ["3", len(KEY), len(PASSWORD), len(PASSWORD)]
    with pytest.raises(TaskRuntimeError) as failed:
        await made.run(use_them, [True], {}, fails)
    assert "cannot log in with ***" in str(failed.value)

    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items() if name != "cache_dir"]
    (tmp_path / "covalent.conf").write_text("\n".join(["[executors.cirro]", *lines]))
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(tmp_path))
    seen = [str(failed.value), json.dumps(made.to_dict())]

    async def cirro(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert result.exit_code == 0, result.output
        seen.append(result.output)
        return str(result.stdout)

    for where in (runs, fails):
        name = f"{where['dispatch_id']}:{where['node_id']}"
        assert "the key is ***" in await cirro("logs", name)
        told = await cirro("show", name)
        assert "OMP_NUM_THREADS=3" in told
        document = json.loads(await cirro("show", name, "--json"))
        assert document["environment"] == environment
        assert document["secrets"]["DB_PASSWORD"] == f"{account.secrets['db']}:password::"
        await cirro("report", where["dispatch_id"], "--output", str(tmp_path / "report.html"))
        seen.append((tmp_path / "report.html").read_text())
    s3, batch, logs = (account.emulator.client(service) for service in ("s3", "batch", "logs"))
    bucket = options["s3_bucket_name"]
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    seen += [s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode("latin-1") for key in keys]
    jobs = batch.list_jobs(jobQueue=options["batch_queue"], filters=[{"name": "AFTER_CREATED_AT", "values": ["1"]}])[
        "jobSummaryList"
    ]
    seen.append(json.dumps(batch.describe_jobs(jobs=[each["jobId"] for each in jobs]), default=str))
    seen.append(json.dumps(batch.describe_job_definitions(status="ACTIVE"), default=str))
    group = options["batch_job_log_group_name"]
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        seen.append(json.dumps(events))
    assert len(jobs) == 2
    assert sum(text.count("the key is ***") for text in seen) >= 6
    for value in (KEY, PASSWORD):
        assert [text for text in seen if value in text] == []


@pytest.mark.parametrize("name", ["arn", "ssm:/team/missing"])
async def test_a_missing_secret_is_told_before_anything_is_stored(
    account: Account, options: dict[str, Any], name: str
) -> None:
    """And found once it is there; one that was found is not asked for again."""
    if name == "arn":
        name = f"{account.secrets['key'].rpartition('team/')[0]}team/missing-AbCdEf"
    made = CirroBatchExecutor(**options, secrets={"TOKEN": name})
    account.emulator.calls.reset()
    with pytest.raises(SettingsError, match=r"secrets: 'TOKEN' names .* which is not there: .* nothing was submitted"):
        await made.run(len, ["abc"], {}, place())
    assert not WRITES & set(account.calls())
    if name.startswith("ssm:"):
        account.emulator.client("ssm").put_parameter(Name=name[4:], Value="abcd", Type="String")
        account.emulator.calls.reset()
        assert await made.run(len, ["abc"], {}, place()) == 3
        assert await made.run(len, ["abc"], {}, place()) == 3
        assert account.calls()["ssm:ListTagsForResource"] == 1


async def test_a_secret_that_the_deployment_does_not_give_is_explained(
    account: Account, options: dict[str, Any]
) -> None:
    """The submitter may not look, so that it is known only when ECS may not read it."""
    made = CirroBatchExecutor(**options, secrets={"TOKEN": account.secrets["other"]})
    with pytest.raises(TaskRuntimeError) as failed:
        await made.run(len, ["abc"], {}, place())
    assert "ECS could not read a secret of it" in str(failed.value)
    assert "--parameter SecretArns=" in str(failed.value)
    assert "AccessDeniedException" in str(failed.value)
