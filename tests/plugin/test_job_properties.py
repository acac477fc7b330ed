"""Properties, shares, tags, consumable resources and shared files of jobs, with the submitter's policy and no more."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.electron.engine.engine import engine_of
from covalent_cirro.errors import AccessDenied, SettingsError
from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.batch.model import Timing

Make = Callable[..., CirroBatchExecutor]
PROFILE = "ada"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulator, dict[str, Any]]]:
    """An account that checks policies, with fair queues and shared files, and options of a submitter's executors."""
    folder = tmp_path_factory.mktemp("account")
    with Emulator(state_dir=folder / "emulator", timing=Timing(idle_s=5), iam=True) as emulator:
        wanted = {"FairShare": "true", "SharedFileSystem": "true"}
        made = deployment.deploy(emulator.client("cloudformation"), parameters=wanted, sleep=lambda _: None)
        iam = emulator.client("iam")
        iam.create_user(UserName=PROFILE)
        iam.attach_user_policy(UserName=PROFILE, PolicyArn=made.outputs["SubmitterPolicy"])
        key = iam.create_access_key(UserName=PROFILE)["AccessKey"]
        credentials = folder / "credentials"
        lines = (f"aws_access_key_id = {key['AccessKeyId']}", f"aws_secret_access_key = {key['SecretAccessKey']}")
        credentials.write_text("\n".join((f"[{PROFILE}]", *lines)))
        given = {
            **made.settings,
            "endpoint_url": emulator.endpoint_url,
            "credentials": str(credentials),
            "profile": PROFILE,
            "vcpu": 1,
            "memory": 0.5,
            "container_image_uri": "image",
            "cache_dir": str(folder / "cache"),
        }
        yield emulator, given


@pytest.fixture
def executor(aws: tuple[Emulator, dict[str, Any]]) -> Make:
    """Makes executors of the submitter."""
    return lambda **options: CirroBatchExecutor(**{**aws[1], **options})


def place() -> dict[str, Any]:
    """An electron's place in a dispatch of its own."""
    return {"dispatch_id": str(uuid.uuid4()), "node_id": 3}


def limits_and_folder() -> tuple[tuple[int, int], str]:
    """An electron that tells what it has."""
    return resource.getrlimit(resource.RLIMIT_NOFILE), os.environ["CIRRO_SHARED_FILES"]


def write(name: str) -> str:
    """An electron that leaves a file for others."""
    path = Path(os.environ["CIRRO_SHARED_FILES"], name)
    path.write_text("from another electron")
    return path.name


def read(name: str) -> str:
    """An electron that reads it."""
    return Path(os.environ["CIRRO_SHARED_FILES"], name).read_text()


async def job_of(aws: tuple[Emulator, dict[str, Any]], made: CirroBatchExecutor) -> dict[str, Any]:
    """The job of an electron that has ended, as AWS Batch describes it."""
    where = place()
    await made.run(len, ["abc"], {}, where)
    batch = aws[0].client("batch")
    queue = made.settings.queue
    named = [{"name": "JOB_NAME", "values": [f"len-{where['dispatch_id'][:8]}*"]}]
    [found] = batch.list_jobs(jobQueue=queue, filters=named)["jobSummaryList"]
    [job] = batch.describe_jobs(jobs=[found["jobId"]])["jobs"]
    return dict(job)


async def test_an_electron_has_its_limits_and_the_shared_files(executor: Make) -> None:
    """Of the definition that the executor registers, on a process too."""
    made = executor(job_properties={"ulimits": [{"name": "nofile", "softLimit": 300, "hardLimit": 400}]})
    limits, folder = await made.run(limits_and_folder, [], {}, place())
    assert limits == (300, 400)
    assert Path(folder).name == "cirro"
    assert await executor().run(write, ["note"], {}, place()) == "note"
    assert await executor().run(read, ["note"], {}, place()) == "from another electron"


async def test_a_job_has_share_priority_and_tags(aws: tuple[Emulator, dict[str, Any]], executor: Make) -> None:
    """The share of the deployment, unless it names its own; its tags besides those of the executor."""
    job = await job_of(aws, executor())
    assert job["shareIdentifier"] == "common"
    assert job["jobQueue"].endswith("/cirro-cpu-fair")
    job = await job_of(aws, executor(share_identifier="physics", scheduling_priority=7, tags={"team": "a b"}))
    assert (job["shareIdentifier"], job["schedulingPriority"]) == ("physics", 7)
    assert job["tags"]["team"] == "a b"
    assert "covalent:dispatch" in job["tags"]
    assert job["propagateTags"] is True
    assert (await job_of(aws, executor(propagate_tags=False)))["propagateTags"] is False


async def test_a_queue_with_a_policy_refuses_a_job_without_a_share(executor: Make) -> None:
    """In AWS's words, with the option."""
    with pytest.raises(
        SettingsError, match=r"shareIdentifier is required.*share_identifier is None, and batch_queue is"
    ):
        await executor(share_identifier="").run(len, ["abc"], {}, place())


async def test_a_resource_that_is_not_there_is_told_with_the_command_that_makes_it(executor: Make) -> None:
    """Before anything is paid for."""
    with pytest.raises(SettingsError, match=r"license does not exist.*aws batch create-consumable-resource"):
        await executor(consumable_resources={"license": 1}).run(len, ["abc"], {}, place())


async def test_what_a_job_waits_for_is_known(aws: tuple[Emulator, dict[str, Any]], executor: Make) -> None:
    """Of the first job of its queue, with the submitter's rights."""
    batch = aws[0].client("batch")
    batch.create_consumable_resource(consumableResourceName="busy", totalQuantity=1)
    made, where = executor(consumable_resources={"busy": 2}), place()
    await made._upload_task(len, ["abc"], {}, where)
    job_id = await made.submit_task(where, {})
    engine = await engine_of(access_of(made.settings))
    while not (seen := await engine.capacity.look(made.settings.queue)).front:
        await asyncio.sleep(0.05)
    assert [str(each) for each in seen.head_lacks] == ["2 of busy, of which 1 of 1 are free"]
    assert seen.denied == ()
    await made.cancel(where, job_id)


async def test_a_privileged_container_is_refused_with_what_to_change(executor: Make) -> None:
    """The submitter's policy refuses it: such a container is root on its host."""
    with pytest.raises(AccessDenied, match=r"batch:RegisterJobDefinition.*leave job_properties\[\"privileged\"\] out"):
        await executor(job_properties={"privileged": True}).run(len, ["abc"], {}, place())


async def test_a_conflict_costs_nothing(aws: tuple[Emulator, dict[str, Any]], executor: Make) -> None:
    """It is refused before anything is stored."""
    s3, bucket = aws[0].client("s3"), aws[1]["s3_bucket_name"]
    before = s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0)
    made = executor(job_properties={"jobRoleArn": "arn:aws:iam::123456789012:role/other"})
    with pytest.raises(SettingsError, match="batch_job_role_name"):
        await made.run(len, ["abc"], {}, place())
    assert s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0) == before


def test_an_executor_with_properties_survives_the_way_to_the_server() -> None:
    """Covalent sends executors as JSON."""
    properties = {"linuxParameters": {"tmpfs": [{"containerPath": "/fast", "size": 64}]}}
    made = CirroBatchExecutor(job_properties=properties, tags={"team": "a"}, consumable_resources={"l": 2})
    there = CirroBatchExecutor().from_dict(json.loads(json.dumps(made.to_dict())))
    assert there.settings.job_properties == properties
    assert (there.settings.tags, there.settings.consumable_resources) == ({"team": "a"}, {"l": 2})
