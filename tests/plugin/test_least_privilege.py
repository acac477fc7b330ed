"""The roles of a deployment, with IAM enforced: enough for all that an executor does, and no statement is idle.

An administrator deploys; the executor has the key of a user with nothing but `SubmitterPolicy`; jobs have the job role.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, deployment, models
from covalent_cirro.aws.clients import Clients
from covalent_cirro.aws.prices import Prices
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.cli import main
from covalent_cirro.contract.places import blob_key
from covalent_cirro.contract.protocol import LABEL_PYTHON
from covalent_cirro.deployment.doctor.account_facts import write_probe
from covalent_cirro.deployment.stacks import settings_from_outputs
from covalent_cirro.electron.engine.engine import engine_of, retire
from covalent_cirro.errors import AccessDenied, ImageError, ModelError, PollFailed
from covalent_cirro.history import find
from covalent_cirro.history.account import Account as History
from covalent_cirro.history.instances import Instances
from covalent_cirro.history.records import parse_record
from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.models import model_version
from tests import last_words
from tests.last_words import take_the_runner_along
from tests.pushed_images import Pushes

cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(last_words)

PROFILE = "submitter"
ROLES = Path(__file__).parents[2] / "infra" / "roles.yaml"
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1}, signature_version="v4")
LARGE_BYTES = 40_000_000
"""Above the threshold of multipart uploads on both sides (aws/store.py, runner/s3/client.py)."""


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms of functions, whose arguments are kept as they are."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def statements_of(resource: str) -> list[str]:
    """The Sids of a role's or policy's statements in the template."""
    properties = yaml.load(ROLES.read_text(), Loader)["Resources"][resource]["Properties"]
    document = properties.get("PolicyDocument") or properties["Policies"][0]["PolicyDocument"]
    # One that depends on a parameter is the text of a function here (tests/plugin/test_secrets.py has it).
    return [statement["Sid"] for statement in document["Statement"] if isinstance(statement, dict)]


class Account(NamedTuple):
    """A deployment in an emulated account that enforces IAM.

    Attributes:
        emulator: The emulator.
        outputs: Of the deployment.
        credentials: A credentials file with the submitter's profile.
        key: The submitter's access key.
    """

    emulator: Emulator
    outputs: Mapping[str, str]
    credentials: str
    key: Mapping[str, str]

    def admin(self, service: str) -> Any:
        """A client that may do all."""
        return self.emulator.client(service)

    def submitter(self, service: str) -> Any:
        """A client with the submitter's key."""
        return self.emulator.client(
            service,
            config=ONCE,
            aws_access_key_id=self.key["AccessKeyId"],
            aws_secret_access_key=self.key["SecretAccessKey"],
        )

    def arn(self, service: str, resource: str) -> str:
        """An ARN of the account."""
        return f"arn:aws:{service}:{self.emulator.region}:{self.emulator.account}:{resource}"

    def role(self, output: str) -> str:
        """The ARN of a role of the deployment."""
        return f"arn:aws:iam::{self.emulator.account}:role/{self.outputs[output]}"

    @contextlib.contextmanager
    def without(self, sid: str, output: str) -> Iterator[None]:
        """The policy that an output names, without one of its statements, or (``"Sid action"``) one of its actions."""
        change = self._managed if output == "SubmitterPolicy" else self._inline
        with change(output, sid):
            yield

    @contextlib.contextmanager
    def _managed(self, output: str, sid: str) -> Iterator[None]:
        iam, arn = self.admin("iam"), self.outputs[output]
        whole = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=whole)["PolicyVersion"]["Document"]
        rest = json.dumps(_without(document, sid))
        made = iam.create_policy_version(PolicyArn=arn, PolicyDocument=rest, SetAsDefault=True)
        try:
            yield
        finally:
            iam.set_default_policy_version(PolicyArn=arn, VersionId=whole)
            iam.delete_policy_version(PolicyArn=arn, VersionId=made["PolicyVersion"]["VersionId"])

    @contextlib.contextmanager
    def _inline(self, output: str, sid: str) -> Iterator[None]:
        iam, name = self.admin("iam"), self.outputs[output]
        (policy,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        rest = json.dumps(_without(document, sid))
        iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=rest)
        try:
            yield
        finally:
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))


def _without(document: Mapping[str, Any], sid: str) -> dict[str, Any]:
    sid, _, action = sid.partition(" ")
    found = [statement for statement in document["Statement"] if statement["Sid"] == sid]
    assert len(found) == 1, f"there is no statement {sid}"
    rest = [statement for statement in document["Statement"] if statement["Sid"] != sid]
    if action:
        assert action in found[0]["Action"]
        rest.append({**found[0], "Action": [each for each in found[0]["Action"] if each != action]})
    return {**document, "Statement": rest}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One account for all tests of the module."""
    folder = tmp_path_factory.mktemp("account")
    with Emulator(state_dir=folder / "emulator", timing=Timing(idle_s=5), iam=True) as emulator:
        outputs = deployment.deploy(emulator.client("cloudformation"), sleep=lambda _: None).outputs
        iam = emulator.client("iam")
        iam.create_user(UserName="ada")
        iam.attach_user_policy(UserName="ada", PolicyArn=outputs["SubmitterPolicy"])
        key = iam.create_access_key(UserName="ada")["AccessKey"]
        credentials = folder / "credentials"
        credentials.write_text(
            f"[{PROFILE}]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n"
        )
        yield Account(emulator, outputs, str(credentials), key)


Make = Callable[..., CirroBatchExecutor]


@pytest.fixture
def executor(account: Account, tmp_path: Path) -> Make:
    """Makes executors with the submitter's key, whose job definition nobody has registered before."""

    def make(**options: Any) -> CirroBatchExecutor:
        return CirroBatchExecutor(
            **{
                **settings_from_outputs(dict(account.outputs)),
                "endpoint_url": account.emulator.endpoint_url,
                "credentials": account.credentials,
                "profile": PROFILE,
                "container_image_uri": f"image:{uuid.uuid4()}",
                "vcpu": 1,
                "memory": 0.5,
                "cache_dir": str(tmp_path / "cache"),
                **options,
            }
        )

    return make


def place() -> dict[str, Any]:
    """An electron's place in a dispatch of its own."""
    return {"dispatch_id": str(uuid.uuid4()), "node_id": 3}


def add(x: int, y: int) -> int:
    """An electron."""
    print("adding", x, y)
    return x + y


def reverse(data: bytes) -> bytes:
    """An electron with a large input and output."""
    return data[::-1]


def sleep() -> None:
    """An electron to be cancelled."""
    time.sleep(600)


# --- what an executor does, all of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["BatchQueue", "BatchGpuQueue", "BatchOnDemandQueue", "BatchGpuOnDemandQueue"])
async def test_electrons_run_in_every_queue(account: Account, executor: Make, queue: str) -> None:
    """With what they print and return."""
    gpu = "Gpu" in queue
    options = {"batch_gpu_queue": account.outputs[queue], "num_gpus": 1} if gpu else {}
    made = executor(**{"batch_queue": account.outputs[queue], **options})
    assert await made.run(add, [20], {"y": 22}, place()) == 42


async def test_large_data_in_parts(executor: Make) -> None:
    """Multipart uploads from the server's side and from the job's."""
    noise = random.Random(7).randbytes(LARGE_BYTES)
    assert await executor().run(reverse, [noise], {}, place()) == noise[::-1]


async def test_a_cancel(account: Account, executor: Make) -> None:
    """A job that waits or runs is ended."""
    await _cancels(account, executor)


async def test_the_log_of_a_job_that_left_no_outcome(executor: Make) -> None:
    """Its end is shown with the error."""
    with pytest.raises(TaskRuntimeError, match="these are the last words"):
        await executor().run(take_the_runner_along, ["these are the last words"], {}, place())


async def test_a_retry(account: Account, executor: Make) -> None:
    """A host that is lost: the job's second attempt has the role too."""
    account.emulator.faults.add("lose_host", count=1)
    try:
        assert await executor().run(add, [1, 2], {}, place()) == 3
    finally:
        account.emulator.faults.clear()


async def test_the_commands_about_electrons(
    account: Account, executor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are listed, told of and stopped, and logs are read, of an electron with an outcome and of one without."""
    made, places = executor(), [place(), place(), place()]
    settings = {**settings_from_outputs(dict(account.outputs)), "endpoint_url": account.emulator.endpoint_url}
    settings |= {"credentials": account.credentials, "profile": PROFILE}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (tmp_path / "covalent.conf").write_text("\n".join(["[executors.cirro]", *lines]))
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(tmp_path))

    async def cirro(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert await made.run(add, [1, 2], {}, places[0]) == 3
    with pytest.raises(TaskRuntimeError):
        await made.run(take_the_runner_along, ["these are the last words"], {}, places[1])
    await made._upload_task(sleep, [], {}, places[2])
    job_id = await made.submit_task(places[2], {})
    names = [f"{where['dispatch_id']}:{where['node_id']}" for where in places]
    assert "adding 1 2" in await cirro("logs", names[0])
    assert "these are the last words" in await cirro("logs", names[1])
    assert job_id in await cirro("jobs", "--all", "--json")
    assert job_id in await cirro("show", names[2])
    assert job_id in await cirro("stop", names[2], places[0]["dispatch_id"])
    while (await made.get_status(job_id))[0] != "FAILED":
        await asyncio.sleep(0.1)


async def test_an_old_blob_is_renewed(account: Account, executor: Make) -> None:
    """In place, by a copy onto itself; one that is gone is told from one that is denied."""
    settings = executor().settings
    store = (await engine_of(access_of(settings))).store
    old, gone = (blob_key(settings.key_prefix, digit * 64) for digit in "01")
    account.admin("s3").put_object(Bucket=settings.s3_bucket_name, Key=old, Body=b"old")
    assert await store.renew(settings.s3_bucket_name, old)
    assert not await store.renew(settings.s3_bucket_name, gone)


def test_a_submitter_registers_models(executor: Make) -> None:
    """And goes back to an earlier version; reading and listing take no more."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    first, second = (
        models.register("layers", {"weight": np.zeros(size)}, files={"notes": b"x"}, executor=executor())
        for size in (1, 2)
    )
    assert models.point("layers", first.version, executor=executor()) == models.current("layers", executor=executor())
    assert sorted(models.versions("layers", executor=executor())) == sorted([first, second])
    assert models.read("layers", second.version, "notes", executor=executor()) == b"x"
    with pytest.raises(ModelError, match="no such model"):
        models.current("another", executor=executor())


# --- no statement is idle ------------------------------------------------------------------------------------------


async def _runs(account: Account, executor: Make) -> None:
    assert await executor().run(add, [1, 2], {}, place()) == 3


async def _holds(account: Account, executor: Make) -> None:
    """A job that needs a licence."""
    admin, name = account.admin("batch"), f"license-{uuid.uuid4().hex}"
    admin.create_consumable_resource(consumableResourceName=name, totalQuantity=1)
    assert await executor(consumable_resources={name: 1}).run(add, [1, 2], {}, place()) == 3


async def _sees_consumables(account: Account, executor: Make) -> None:
    """Why a job waits for one is told without what may not be asked; here that is said to the test."""
    admin, name = account.admin("batch"), f"license-{uuid.uuid4().hex}"
    admin.create_consumable_resource(consumableResourceName=name, totalQuantity=1)
    engine = await engine_of(access_of(executor().settings))
    found, denied = await engine.capacity.consumables({name: 1})
    if denied:
        account.submitter("batch").describe_consumable_resource(consumableResource=name)
    assert [(each.name, each.needed, each.available, each.total) for each in found] == [(name, 1, 1, 1)]


async def _finds_calls(account: Account, executor: Make) -> None:
    """As the next server does after one that died, and `submit_task` of the stock class."""
    made, where = executor(), place()
    await made._upload_task(add, [1, 2], {}, where)
    await made.cancel(where, await made.submit_task(where, {}))


async def _cancels(account: Account, executor: Make) -> None:
    """An executor that cannot cancel says so in the server's log; here it is said to the test."""
    made, where = executor(), place()
    await made._upload_task(sleep, [], {}, where)
    job_id = await made.submit_task(where, {})
    cancelled = await made.cancel(where, job_id)
    if not cancelled:
        account.admin("batch").terminate_job(jobId=job_id, reason="the test is over")
    while (await made.get_status(job_id))[0] != "FAILED":
        await asyncio.sleep(0.1)
    if not cancelled:
        account.submitter("batch").terminate_job(jobId=job_id, reason="the same again")


async def _tags(account: Account, executor: Make) -> None:
    """An executor that may set no tags goes on without; here that is said to the test."""
    made, where = executor(), place()
    await made._upload_task(add, [1, 2], {}, where)
    job_id = await made.submit_task(where, {})
    (job,) = account.admin("batch").describe_jobs(jobs=[job_id])["jobs"]
    retire(await engine_of(access_of(made.settings)))  # it goes on without from now on
    if not job["tags"]:
        account.submitter("batch").register_job_definition(**definition("cirro-tagged"), tags={"a": "b"})
        raise AssertionError("it may set tags, and the job has none")


async def _reads_logs(account: Account, executor: Make) -> None:
    """The log is there to explain another error, so the executor goes on without it: ask as it does."""
    with pytest.raises(TaskRuntimeError) as caught:
        await executor().run(take_the_runner_along, ["these are the last words"], {}, place())
    if "these are the last words" not in str(caught.value):
        group = account.outputs["BatchJobLogGroupName"]
        stream = account.admin("logs").describe_log_streams(logGroupName=group)["logStreams"][0]["logStreamName"]
        account.submitter("logs").get_log_events(logGroupName=group, logStreamName=stream)


async def _reads_labels(account: Account, executor: Make) -> None:
    """An image that cannot work is refused; one that cannot be looked at is used unchecked, so ask as it does."""
    image = pushed(account, **{LABEL_PYTHON: "2.7.18"})
    unchecked = False
    with contextlib.suppress(ImageError):
        await executor(container_image_uri=image).run(add, [1, 2], {}, place())
        unchecked = True
    if unchecked:
        repository, tag = image.partition("/")[2].split(":")
        account.submitter("ecr").batch_get_image(repositoryName=repository, imageIds=[{"imageTag": tag}])


async def _explains_waits(account: Account, executor: Make) -> None:
    """Why a job waits is told without what may not be asked; here that is said to the test."""
    engine = await engine_of(access_of(executor().settings))
    seen = await engine.capacity.look(account.outputs["BatchQueue"])
    assert seen.queue is not None
    if "batch:GetJobQueueSnapshot" in seen.denied:
        account.submitter("batch").get_job_queue_snapshot(jobQueue=account.outputs["BatchQueue"])
    if "ec2:DescribeInstanceTypes" in seen.denied:
        account.submitter("ec2").describe_instance_types(InstanceTypes=["m6i.large"])
    assert seen.denied == ()
    assert seen.types
    assert seen.front == ()


async def _sees_machines(account: Account, executor: Make) -> None:
    """Where a job runs is left out where it may not be asked; here that is said to the test."""
    made, where = executor(), place()
    await made._upload_task(sleep, [], {}, where)
    job_id = await made.submit_task(where, {})
    while (await made.get_status(job_id))[0] != "RUNNING":
        await asyncio.sleep(0.1)
    (job,) = account.admin("batch").describe_jobs(jobs=[job_id])["jobs"]
    cluster, host = job["container"]["containerInstanceArn"].split("/")[1:]
    record = parse_record(job)
    assert record is not None
    try:
        with History(access_of(made.settings), "cirro", made.settings) as history:
            if not Instances(history).of([record]):
                account.submitter("ecs").describe_container_instances(cluster=cluster, containerInstances=[host])
    finally:
        await made.cancel(where, job_id)


async def _reads_prices(account: Account, executor: Make) -> None:
    """A report takes the table of the package for what may not be asked; here that is said to the test."""
    prices = Prices(Clients(access_of(executor().settings)), account.emulator.region)
    prices.on_demand(["m6i.large"])
    now = time.time()
    history = prices.spot(["m6i.large"], now - 3600, now)
    if prices.notes:
        assert len(prices.notes) == 2, "one of the two actions is allowed by another statement"
        account.submitter("pricing").get_products(ServiceCode="AmazonEC2")
    assert history.price("m6i.large", "", now, now) is not None


async def _tries_to_write(account: Account, executor: Make) -> None:
    """As `cirro doctor` does: what it writes, it deletes."""
    settings = executor().settings
    write_probe(Clients(access_of(settings)), settings.s3_bucket_name, settings.key_prefix)


def pushed(account: Account, **labels: str) -> str:
    """The URI of a new image in the deployment's repository."""
    uri, tag = account.outputs["ImageRepository"], str(uuid.uuid4())
    Pushes(account.emulator).image(uri.partition("/")[2], tag, labels=labels)
    return f"{uri}:{tag}"


Uses = Callable[[Account, Make], Awaitable[None]]

SUBMITTER: dict[str, tuple[Uses, str]] = {
    "SubmitJobs": (_runs, "batch:SubmitJob"),
    "DefineJobs": (_runs, "batch:RegisterJobDefinition"),
    "SubmitJobs batch:TagResource": (_tags, "batch:TagResource"),
    "SubmitJobs batch:GetJobQueueSnapshot": (_explains_waits, "batch:GetJobQueueSnapshot"),
    "UseConsumableResources batch:RegisterJobDefinition": (_holds, "batch:RegisterJobDefinition"),
    "UseConsumableResources batch:DescribeConsumableResource": (_sees_consumables, "batch:DescribeConsumableResource"),
    "StopJobs": (_cancels, "batch:TerminateJob"),
    "WatchJobs": (_runs, "batch:DescribeJob"),
    "SeeMachines": (_sees_machines, "ecs:DescribeContainerInstances"),
    "ReadTypesAndPrices": (_reads_prices, "pricing:GetProducts"),
    "PassTheTwoRolesToJobs": (_runs, "iam:PassRole"),
    "Data": (_runs, "s3:PutObject"),
    "DeleteProbe": (_tries_to_write, "s3:DeleteObject"),
    "TellMissingFromDenied": (_finds_calls, "s3:ListBucket"),
    "ReadLogs": (_reads_logs, "logs:GetLogEvents"),
    "ReadImageLabels": (_reads_labels, "ecr:BatchGetImage"),
}
"""By statement of the submitter's policy, or by an action of one whose actions serve different things: what works with
it, and the action that is refused without it."""


def test_every_statement_of_the_submitter_is_tried() -> None:
    """The table names each statement of the template, and no other."""
    assert {sid.partition(" ")[0] for sid in SUBMITTER} == set(statements_of("SubmitterPolicy"))


@pytest.mark.parametrize("sid", SUBMITTER)
async def test_the_submitter_needs_every_statement(account: Account, executor: Make, sid: str) -> None:
    """Without it something fails, and AWS's words name the action."""
    use, action = SUBMITTER[sid]
    with account.without(sid, "SubmitterPolicy"):
        with pytest.raises((AccessDenied, PollFailed, ClientError)) as caught:
            await use(account, executor)
        assert f"/ada is not authorized to perform: {action}" in str(caught.value)
    await use(account, executor)


# --- the policy that the stock plugin's documentation prints ---------------------------------------------------------


STOCK = """
[
{"Sid": "BatchJobMgmt", "Effect": "Allow", "Resource": "*",
 "Action": ["batch:TerminateJob", "batch:DescribeJobs", "batch:SubmitJob", "batch:RegisterJobDefinition"]},
{"Sid": "ECRAuth", "Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*"},
{"Sid": "ECRUpload", "Effect": "Allow", "Resource": ["<repository>"],
 "Action": ["ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"]},
{"Sid": "IAMRoles", "Effect": "Allow", "Action": ["iam:GetRole", "iam:PassRole"],
 "Resource": ["<job role>", "<execution role>"]},
{"Sid": "ObjectStore", "Effect": "Allow", "Action": ["s3:ListBucket", "s3:PutObject", "s3:GetObject"],
 "Resource": ["arn:aws:s3:::<bucket>/*", "arn:aws:s3:::<bucket>"]},
{"Sid": "LogRead", "Effect": "Allow", "Action": ["logs:GetLogEvents"], "Resource": ["<streams>"]}
]
"""
"""Statements of "AWS Batch IAM Job Policy" in the documentation of covalent-awsbatch-plugin, with its placeholders."""


@pytest.fixture(scope="module")
def stock_user(account: Account) -> dict[str, str]:
    """Options of an executor for a user who has that policy and no other."""
    group = account.outputs["BatchJobLogGroupName"]
    text = STOCK
    for placeholder, value in {
        "<repository>": account.outputs["ImageRepositoryArn"],
        "<job role>": account.role("BatchJobRoleName"),
        "<execution role>": account.role("BatchExecutionRoleName"),
        "<bucket>": account.outputs["S3BucketName"],
        "<streams>": account.arn("logs", f"log-group:{group}:log-stream:*"),
    }.items():
        text = text.replace(placeholder, value)
    iam = account.admin("iam")
    iam.create_user(UserName="stock")
    document = json.dumps({"Version": "2012-10-17", "Statement": json.loads(text)})
    iam.put_user_policy(UserName="stock", PolicyName="stock", PolicyDocument=document)
    key = iam.create_access_key(UserName="stock")["AccessKey"]
    path = Path(account.credentials).with_name("stock")
    lines = (f"aws_access_key_id = {key['AccessKeyId']}", f"aws_secret_access_key = {key['SecretAccessKey']}")
    path.write_text("\n".join(["[stock]", *lines]))
    return {"credentials": str(path), "profile": "stock"}


async def test_the_stock_plugins_policy_is_enough(
    account: Account, executor: Make, stock_user: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever changes the class's name and nothing else runs, cancels and sees logs; what is missing is told once."""
    made = executor(**stock_user)
    assert await made.run(add, [20], {"y": 22}, place()) == 42
    assert await executor(**stock_user, memory=0.6).run(add, [1, 2], {}, place()) == 3
    with pytest.raises(TaskRuntimeError, match="these are the last words"):
        await made.run(take_the_runner_along, ["these are the last words"], {}, place())
    await _cancels(account, lambda **options: executor(**stock_user, **options))
    for action in ("batch:DescribeJobDefinitions", "batch:TagResource"):
        told = [each for each in caplog.messages if each.startswith(f"Going on without {action}")]
        assert len(told) == 1, action
        assert "/stock is not authorized to perform" in told[0]


async def test_a_lost_answer_with_the_stock_plugins_policy(
    account: Account, executor: Make, stock_user: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """The job cannot be looked for: it is submitted again, and one result comes back."""
    account.emulator.faults.add("cut", service="batch", operation="SubmitJob", when="after", count=1)
    try:
        assert await executor(**stock_user).run(add, [20], {"y": 22}, place()) == 42
    finally:
        account.emulator.faults.clear()
    assert "Going on without batch:ListJobs" in caplog.text


async def test_an_electron_without_tags_is_known(account: Account, executor: Make, stock_user: dict[str, str]) -> None:
    """By its call and its job's name: commands of somebody who may list jobs tell of it."""
    where = place()
    made = executor(**stock_user)
    assert await made.run(add, [20], {"y": 22}, where) == 42
    with History(access_of(executor().settings), "cirro", executor().settings) as history:
        (record,) = [each for each in find.recent(history) if each.dispatch_id == where["dispatch_id"]]
    assert (record.node_id, record.electron, record.lattice) == (3, "add", "")


async def _expired(account: Account, executor: Make) -> None:
    """A call that the bucket's lifecycle deleted while its job waited: the job must say so."""
    made, where = executor(), place()
    await made._upload_task(add, [1, 2], {}, where)
    bucket, s3 = account.outputs["S3BucketName"], account.admin("s3")
    prefix = f"{account.outputs['S3Prefix']}/jobs/{where['dispatch_id']}/"
    (call,) = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    account.emulator.faults.add("stuck")
    job_id = await made.submit_task(where, {})
    s3.delete_object(Bucket=bucket, Key=call)
    account.emulator.faults.clear()
    while (await made.get_status(job_id))[0] != "FAILED":
        await asyncio.sleep(0.1)
    (job,) = account.admin("batch").describe_jobs(jobs=[job_id])["jobs"]
    log = account.admin("logs").get_log_events(
        logGroupName=account.outputs["BatchJobLogGroupName"], logStreamName=job["container"]["logStreamName"]
    )
    text = "\n".join(event["message"] for event in log["events"])
    if "expired by the bucket's lifecycle rule" not in text:
        raise TaskRuntimeError(text)


async def _pulls(account: Account, executor: Make) -> None:
    assert await executor(container_image_uri=pushed(account)).run(add, [1, 2], {}, place()) == 3


def remember() -> None:
    """An electron with two checkpoints, of which the first is replaced."""
    from covalent_cirro import checkpoint

    for text in ("one", "two"):
        (checkpoint.folder() / "place").write_text(text)
        checkpoint.save()


def give_up(bucket: str, key: str) -> None:
    """An electron that begins to send a blob in parts and ends it, as awscrt does when it is stopped."""
    import boto3

    s3 = boto3.client("s3")
    begun = s3.create_multipart_upload(Bucket=bucket, Key=key)
    s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun["UploadId"])


async def _gives_up(account: Account, executor: Make) -> None:
    key = blob_key(f"{account.outputs['S3Prefix']}/", "2" * 64)
    await executor().run(give_up, [account.outputs["S3BucketName"], key], {}, place())


def noise(size: int) -> bytes:
    """An electron whose result is a blob."""
    return random.randbytes(size)


async def _stores_a_blob(account: Account, executor: Make) -> None:
    assert len(await executor().run(noise, [100_000], {}, place())) == 100_000


async def _stores_a_large_blob(account: Account, executor: Make) -> None:
    assert len(await executor().run(noise, [9_000_000], {}, place())) == 9_000_000


async def _replaces_checkpoints(account: Account, executor: Make) -> None:
    """What cannot be deleted costs storage until the bucket's lifecycle rule takes it: the job's log says so."""
    made, where = executor(), place()
    await made._upload_task(remember, [], {}, where)
    job_id = await made.submit_task(where, {})
    while (await made.get_status(job_id))[0] != "SUCCEEDED":
        await asyncio.sleep(0.1)
    (job,) = account.admin("batch").describe_jobs(jobs=[job_id])["jobs"]
    log = account.admin("logs").get_log_events(
        logGroupName=account.outputs["BatchJobLogGroupName"], logStreamName=job["container"]["logStreamName"]
    )
    text = "\n".join(event["message"] for event in log["events"])
    if "could not be deleted" in text:
        raise TaskRuntimeError(text)


JOB: dict[str, tuple[Uses, str]] = {
    "Read": (_runs, "perform: s3:GetObject"),
    "WriteBlobsOnce": (_stores_a_blob, "perform: s3:PutObject"),
    "SendPartsOfBlobs": (_stores_a_large_blob, "perform: s3:PutObject"),
    "Write": (_runs, "perform: s3:PutObject"),
    "GiveUpUploads": (_gives_up, "perform: s3:AbortMultipartUpload"),
    "ReplaceCheckpoints": (_replaces_checkpoints, "perform: s3:DeleteObject"),
    "TellMissingFromDenied": (_expired, "perform: s3:ListBucket"),
}
EXECUTION: dict[str, tuple[Uses, str]] = {
    "LogInToRegistry": (_pulls, "perform: ecr:GetAuthorizationToken"),
    "PullImage": (_pulls, "perform: ecr:BatchGetImage"),
    # The reason is cut at 255 characters, before the action.
    "WriteLog": (_runs, "failed to create Cloudwatch log stream: AccessDeniedException: User: arn:aws:sts:"),
}


@pytest.mark.parametrize(
    ("resource", "output", "sid", "use", "words"),
    [
        (resource, output, sid, *uses[sid])
        for resource, output, uses in (
            ("JobRole", "BatchJobRoleName", JOB),
            ("ExecutionRole", "BatchExecutionRoleName", EXECUTION),
        )
        for sid in statements_of(resource)
    ],
)
async def test_jobs_need_every_statement(
    account: Account, executor: Make, resource: str, output: str, sid: str, use: Uses, words: str
) -> None:
    """Of the role that they have, and of the one that starts them; the electron's error has AWS's words."""
    with account.without(sid, output):
        with pytest.raises(TaskRuntimeError) as caught:
            await use(account, executor)
        assert words in str(caught.value)
    await use(account, executor)


# --- and no more than that ------------------------------------------------------------------------------------------


def refused(call: Callable[[], Any]) -> str:
    """The action that a call is refused for."""
    try:
        call()
    except ClientError as error:
        words = str(error)
        return words.partition("not authorized to perform: ")[2].partition(" ")[0] or words
    return "it may"


def attempts(bucket: str, call_key: str, definition: str, queue: str) -> dict[str, str]:
    """An electron that tries more than it needs."""
    import boto3

    s3, batch = boto3.client("s3"), boto3.client("batch")
    body = {"Bucket": bucket, "Body": b"mine"}
    node = call_key.rsplit("/", 2)[0]
    new = {**body, "IfNoneMatch": "*"}
    blob = call_key.partition("/jobs/")[0] + "/blobs/" + "0" * 64
    tries = {
        "write a call below a log": lambda: s3.put_object(Key=f"{node}/log/call.json", **body),
        "write a call below a checkpoint": lambda: s3.put_object(Key=f"{node}/checkpoint/call.json", **body),
        "take earlier work": lambda: s3.put_object(Key=call_key.replace("call.json", "reused.json"), **body),
        "write over an outcome": lambda: s3.put_object(Key=call_key.replace("call.json", "outcome.json"), **body),
        "replace the outcome that it read": lambda: s3.put_object(
            Key=call_key.replace("call.json", "outcome.json"), IfMatch='"etag"', **body
        ),
        "copy over an outcome": lambda: s3.copy_object(
            Bucket=bucket,
            Key=call_key.replace("call.json", "outcome.json"),
            CopySource={"Bucket": bucket, "Key": call_key},
        ),
        "write over a blob": lambda: s3.put_object(Key=blob, **body),
        "put a new blob": lambda: s3.put_object(Key=f"{blob}0", **new),
        "delete an outcome": lambda: s3.delete_object(Bucket=bucket, Key=call_key.replace("call.json", "outcome.json")),
        "write a new outcome": lambda: s3.put_object(Key=call_key.replace("call.json", "outcome.json"), **new),
        "submit": lambda: batch.submit_job(jobName="j", jobQueue=queue, jobDefinition=definition),
        "watch": lambda: batch.describe_jobs(jobs=["x"]),
        "register a model": lambda: s3.put_object(
            Key=call_key.partition("/jobs/")[0] + "/models/m/20261130T081500Z-0a1b2c3d/model.json", **new
        ),
        "make a version current": lambda: s3.put_object(
            Key=call_key.partition("/jobs/")[0] + "/models/m/current.json", **new
        ),
        "write a call": lambda: s3.put_object(Key=call_key, **body),
        "write outside": lambda: s3.put_object(Key="other/x", **body),
        "read outside": lambda: s3.get_object(Bucket=bucket, Key="other/secret"),
        "delete": lambda: s3.delete_object(Bucket=bucket, Key=call_key),
        "list outside": lambda: s3.list_objects_v2(Bucket=bucket, Prefix="other/"),
        "roles": lambda: boto3.client("iam").list_roles(),
        "read a call": lambda: s3.get_object(Bucket=bucket, Key=call_key),
    }
    return {name: refused(call) for name, call in tries.items()}


async def test_what_an_electron_may_not_do(account: Account, executor: Make) -> None:
    """Submit or watch jobs, change or delete a call or an outcome, touch what is not under the prefix."""
    bucket, where = account.outputs["S3BucketName"], place()
    account.admin("s3").put_object(Bucket=bucket, Key="other/secret", Body=b"secret")
    key = f"{account.outputs['S3Prefix']}/jobs/{uuid.uuid4()}/3/018f5e2b7c00c0ffee01/call.json"
    account.admin("s3").put_object(Bucket=bucket, Key=key, Body=b"{}")
    assert await executor().run(attempts, [bucket, key, "cirro-x", account.outputs["BatchQueue"]], {}, where) == {
        "write a call below a log": "s3:PutObject",
        "write a call below a checkpoint": "s3:PutObject",
        "take earlier work": "s3:PutObject",
        "write over an outcome": "s3:PutObject",
        "replace the outcome that it read": "s3:PutObject",
        "copy over an outcome": "s3:PutObject",
        "write over a blob": "s3:PutObject",
        "put a new blob": "it may",
        "delete an outcome": "s3:DeleteObject",
        "write a new outcome": "it may",  # its own jobs must; whose it is, its code says (test_forged_outcomes.py)
        "submit": "batch:SubmitJob",
        "watch": "batch:DescribeJobs",
        "register a model": "s3:PutObject",
        "make a version current": "s3:PutObject",
        "write a call": "s3:PutObject",
        "write outside": "s3:PutObject",
        "read outside": "s3:GetObject",
        "delete": "s3:DeleteObject",
        "list outside": "s3:ListBucket",
        "roles": "iam:ListRoles",
        "read a call": "it may",
    }


def definition(name: str, **container: Any) -> dict[str, Any]:
    """A job definition."""
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}]
    properties = {"image": "image", "command": ["sleep", "60"], "resourceRequirements": needs, **container}
    return {"jobDefinitionName": name, "type": "container", "containerProperties": properties}


def test_what_the_submitter_may_not_do(account: Account) -> None:
    """Become another role, use another queue, be root on a host, stop others' jobs, touch what is not theirs."""
    admin, batch, s3 = account.admin("batch"), account.submitter("batch"), account.submitter("s3")
    bucket, mine = account.outputs["S3BucketName"], account.outputs["BatchQueue"]
    (environment,) = admin.describe_job_queues(jobQueues=[mine])["jobQueues"][0]["computeEnvironmentOrder"][:1]
    admin.create_job_queue(jobQueueName="others", priority=1, computeEnvironmentOrder=[environment])
    admin.register_job_definition(**definition("cirro-mine"))
    admin.register_job_definition(**definition("others"))
    others = admin.submit_job(jobName="j", jobQueue="others", jobDefinition="others", tags={"whose": "others"})
    other_role = account.admin("iam").create_role(
        RoleName="admin",
        AssumeRolePolicyDocument=json.dumps(
            {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]}
        ),
    )["Role"]["Arn"]
    account.admin("s3").put_object(Bucket=bucket, Key="other/secret", Body=b"secret")
    prefix = f"{account.outputs['S3Prefix']}/"
    model = model_version.file_key(prefix, "m", "20261130T081500Z-0a1b2c3d", model_version.DOCUMENT)
    pointer = model_version.pointer_key(prefix, "m")
    for key in (model, pointer):
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}", IfNoneMatch="*")
    group = account.outputs["BatchJobLogGroupName"]
    submit = {"jobName": "j", "jobQueue": mine, "jobDefinition": "cirro-mine"}
    register = batch.register_job_definition
    job = account.arn("batch", f"job/{others['jobId']}")
    tries: dict[str, Callable[[], Any]] = {
        "batch:SubmitJob another queue": lambda: batch.submit_job(**{**submit, "jobQueue": "others"}),
        "batch:SubmitJob another definition": lambda: batch.submit_job(**{**submit, "jobDefinition": "others"}),
        "iam:PassRole another role": lambda: register(**definition("cirro-x", jobRoleArn=other_role)),
        "iam:PassRole to start": lambda: register(**definition("cirro-x", executionRoleArn=other_role)),
        "batch:RegisterJobDefinition privileged": lambda: register(**definition("cirro-x", privileged=True)),
        "batch:RegisterJobDefinition another name": lambda: register(**definition("x")),
        "batch:TerminateJob another's": lambda: batch.terminate_job(jobId=others["jobId"], reason="r"),
        "batch:TagResource another's, to stop it": lambda: batch.tag_resource(
            resourceArn=job, tags={"covalent:dispatch": "x"}
        ),
        "batch:UpdateJobQueue": lambda: batch.update_job_queue(jobQueue=mine, state="DISABLED"),
        "s3:DeleteObject outside": lambda: s3.delete_object(Bucket=bucket, Key="other/secret"),
        "s3:GetObject outside": lambda: s3.get_object(Bucket=bucket, Key="other/secret"),
        "s3:PutObject outside": lambda: s3.put_object(Bucket=bucket, Key="other/x", Body=b""),
        "s3:ListBucket outside": lambda: s3.list_objects_v2(Bucket=bucket, Prefix="other/"),
        "s3:DeleteBucket": lambda: s3.delete_bucket(Bucket=bucket),
        "s3:PutBucketPolicy": lambda: s3.put_bucket_policy(Bucket=bucket, Policy="{}"),
        "s3:PutObject over a model": lambda: s3.put_object(Bucket=bucket, Key=model, Body=b""),
        "s3:DeleteObject a model": lambda: s3.delete_object(Bucket=bucket, Key=model),
        "s3:PutObject over a pointer": lambda: s3.put_object(Bucket=bucket, Key=pointer, Body=b""),
        "logs:GetLogEvents of others": lambda: account.submitter("logs").get_log_events(
            logGroupName=f"{group}x", logStreamName="x"
        ),
        "ecr:PutImage": lambda: account.submitter("ecr").put_image(repositoryName="xx", imageManifest="{}"),
        "iam:CreateAccessKey": lambda: account.submitter("iam").create_access_key(UserName="ada"),
        "iam:AttachUserPolicy": lambda: account.submitter("iam").attach_user_policy(
            UserName="ada", PolicyArn=account.outputs["SubmitterPolicy"]
        ),
        "sts:AssumeRole": lambda: account.submitter("sts").assume_role(
            RoleArn=account.role("BatchJobRoleName"), RoleSessionName="ada"
        ),
    }
    assert {name: refused(call) for name, call in tries.items()} == {name: name.split()[0] for name in tries}
    batch.submit_job(**submit)


def test_single_jobs_of_arrays_are_ended_with_a_policy_of_its_own(account: Account) -> None:
    """A child has no tags. With the policy, jobs that are no children of an array are as safe as before."""
    admin, batch, iam = account.admin("batch"), account.submitter("batch"), account.admin("iam")
    admin.register_job_definition(**definition("cirro-array"))
    submit = {"jobName": "j", "jobQueue": account.outputs["BatchQueue"], "jobDefinition": "cirro-array"}
    array = batch.submit_job(**submit, arrayProperties={"size": 2}, tags={"covalent:dispatch": "d"})["jobId"]
    others = admin.submit_job(**submit)["jobId"]

    def end(job_id: str) -> str:
        return refused(lambda: batch.terminate_job(jobId=job_id, reason="r"))

    assert end(f"{array}:1") == "batch:TerminateJob"
    policy = {"UserName": "ada", "PolicyArn": account.outputs["ItemStopperPolicy"]}
    iam.attach_user_policy(**policy)
    try:
        assert (end(f"{array}:1"), end(others)) == ("it may", "batch:TerminateJob")
    finally:
        iam.detach_user_policy(**policy)
        assert end(array) == "it may", "the parent has the tag"
        admin.terminate_job(jobId=others, reason="the test is over")


async def test_a_job_without_execution_role_is_started_by_the_machines_own(account: Account, executor: Make) -> None:
    """Which is nobody's to read data or images with, as containers can take its credentials: no log, no start."""
    with pytest.raises(TaskRuntimeError) as caught:
        await executor(batch_execution_role_name="").run(add, [1, 2], {}, place())
    assert "failed to create Cloudwatch log stream: AccessDeniedException" in str(caught.value)
    assert account.outputs["InstanceProfileArn"]
