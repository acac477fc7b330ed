"""What is registered and submitted: compared whole, so that every member is a decision."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Mapping
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.aws.batch import MAX_NAME, REPLACED, BatchGateway, Submission, build_submit, job_name, tag_value
from covalent_cirro.aws.sessions import Access
from covalent_cirro.contract.limits import MAX_TASKS
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.electron import call_writer as calls
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.engine.definitions import Definitions
from covalent_cirro.electron.engine.job_definition import build_definition, digest
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.settings import resolve

MODEL = botocore.session.get_session().get_service_model("batch")


def refused(operation: str, body: Mapping[str, Any]) -> str:
    """What botocore's own model says against a request; empty if nothing."""
    report = ParamValidator().validate(dict(body), MODEL.operation_model(operation).input_shape)
    return str(report.generate_report())


def definition(**options: object) -> dict[str, Any]:
    """A definition for these options."""
    return build_definition(
        resolve(options, {}), region="eu-west-1", job_role_arn="arn:job", execution_role_arn="arn:x"
    )


def test_the_definition_of_a_job_on_fargate() -> None:
    """It has a size that Fargate has and nothing that Fargate refuses; botocore's model takes it."""
    on_ec2 = definition(vcpu=2, memory=17)["containerProperties"]
    options = {"vcpu": 2, "memory": 17, "platform": "FARGATE", "cpu_architecture": "arm64"}
    found = build_definition(
        resolve(options, {}), region="eu-west-1", job_role_arn="arn:job", execution_role_arn="arn:x", public_ip=True
    )
    assert refused("RegisterJobDefinition", found) == ""
    assert found["platformCapabilities"] == ["FARGATE"]
    assert found["containerProperties"] == {
        **on_ec2,
        "resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "17408"}],
        "linuxParameters": {"initProcessEnabled": True},
        "networkConfiguration": {"assignPublicIp": "ENABLED"},
        "fargatePlatformConfiguration": {"platformVersion": "1.4.0"},
        "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "ARM64"},
    }


@pytest.mark.parametrize("vcpu", [0.25, 2, 2.0])
def test_vcpus_are_written_as_aws_writes_them(vcpu: float) -> None:
    """2 and 2.0 are one definition."""
    found = definition(vcpu=vcpu, memory=2, platform="FARGATE" if vcpu < 1 else "EC2")
    assert found["containerProperties"]["resourceRequirements"][0]["value"] == f"{vcpu:g}"


def test_the_whole_definition() -> None:
    """Every need is in it, and nothing of a dispatch."""
    found = definition(vcpu=4, memory=16, num_gpus=1, container_image_uri="img:1", batch_job_log_group_name="lg")
    name = found.pop("jobDefinitionName")
    assert found == {
        "type": "container",
        "platformCapabilities": ["EC2"],
        "propagateTags": True,
        "tags": {"cirro:made-by": "covalent-cirro"},
        "containerProperties": {
            "image": "img:1",
            "command": ["python", "-m", "covalent_cirro.runner", "Ref::call"],
            "jobRoleArn": "arn:job",
            "executionRoleArn": "arn:x",
            "resourceRequirements": [
                {"type": "VCPU", "value": "4"},
                {"type": "MEMORY", "value": "16384"},
                {"type": "GPU", "value": "1"},
            ],
            "environment": [
                {"name": "AWS_DEFAULT_REGION", "value": "eu-west-1"},
                {"name": "PYTHONUNBUFFERED", "value": "1"},
            ],
            "linuxParameters": {"sharedMemorySize": 8192, "initProcessEnabled": True},
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": "lg",
                    "awslogs-region": "eu-west-1",
                    "awslogs-stream-prefix": "cirro",
                },
            },
        },
    }
    assert name == f"cirro-{digest(found)}"
    assert refused("RegisterJobDefinition", {**found, "jobDefinitionName": name}) == ""


def test_no_execution_role_where_none_is_wanted() -> None:
    """An empty ARN would be refused by AWS."""
    body = build_definition(resolve({}, {}), region="r", job_role_arn="arn:job", execution_role_arn="")
    assert "executionRoleArn" not in body["containerProperties"]


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_digest_does_not_depend_on_the_order_of_keys(order: list[str]) -> None:
    """Canonical JSON."""
    body = {key: {"x": 1, "y": [key]} for key in order}
    assert digest(body) == digest({key: {"y": [key], "x": 1} for key in "abcd"})


@pytest.mark.parametrize(
    "change",
    [{"vcpu": 3}, {"memory": 4}, {"num_gpus": 2}, {"container_image_uri": "b"}, {"shared_memory_gb": 1}],
)
def test_another_need_is_another_definition(change: dict[str, object]) -> None:
    """The name tells them apart."""
    assert definition(**change)["jobDefinitionName"] != definition()["jobDefinitionName"]


@pytest.mark.parametrize("change", [{"time_limit": 600}, {"retry_attempts": 1}, {"poll_freq": 1}, {"batch_queue": "q"}])
def test_what_is_said_at_submission_makes_no_new_definition(change: dict[str, object]) -> None:
    """Definitions do not multiply by what a job may override."""
    assert definition(**change) == definition()


async def test_a_definition_is_looked_up_and_registered_once_however_many_ask() -> None:
    """Twenty like electrons, one registration."""
    calls: list[str] = []

    async def find(name: str) -> None:
        calls.append(f"find {name}")
        await asyncio.sleep(0)

    async def register(body: Mapping[str, Any]) -> str:
        calls.append(f"register {body['jobDefinitionName']}")
        await asyncio.sleep(0)
        return f"{body['jobDefinitionName']}:1"

    definitions = Definitions(find, register)
    found = await asyncio.gather(*(definitions.ensure({"jobDefinitionName": "d"}) for _ in range(20)))
    assert set(found) == {"d:1"}
    assert calls == ["find d", "register d"]


async def test_a_definition_that_is_there_is_not_registered() -> None:
    """Also one that another server made."""

    async def find(name: str) -> str:
        return f"{name}:7"

    async def register(body: Mapping[str, Any]) -> str:
        raise AssertionError("registered")

    assert await Definitions(find, register).ensure({"jobDefinitionName": "d"}) == "d:7"


async def test_a_failed_registration_is_tried_again_by_the_next_electron() -> None:
    """A failure is not remembered, and neither is the impatience of one who asked."""
    outcomes = iter([RuntimeError("no"), "d:1"])

    async def find(name: str) -> None:
        return None

    async def register(body: Mapping[str, Any]) -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    definitions = Definitions(find, register)
    with pytest.raises(RuntimeError):
        await definitions.ensure({"jobDefinitionName": "d"})
    assert await definitions.ensure({"jobDefinitionName": "d"}) == "d:1"


SUBMISSION = Submission("n", "q", "batch_queue", "d:3", {"call": "s3://b/k"}, 3, 600, {"covalent:node": "1"})


def test_the_whole_submission() -> None:
    """Lost hosts are retried by AWS Batch; the last rule ends everything else (no match would mean retry)."""
    assert build_submit(SUBMISSION) == {
        "jobName": "n",
        "jobQueue": "q",
        "jobDefinition": "d:3",
        "parameters": {"call": "s3://b/k"},
        "retryStrategy": {
            "attempts": 3,
            "evaluateOnExit": [
                {"onStatusReason": "Host EC2*", "action": "RETRY"},
                {"onReason": "DockerTimeoutError*", "action": "RETRY"},
                {"onExitCode": "75", "action": "RETRY"},
                {"onReason": "*", "action": "EXIT"},
            ],
        },
        "timeout": {"attemptDurationSeconds": 600},
        "tags": {"covalent:node": "1"},
        "propagateTags": True,
    }
    assert refused("SubmitJob", build_submit(SUBMISSION)) == ""


def test_an_interrupted_job_on_fargate_spot_is_retried() -> None:
    """As one on an instance that is lost. AWS Batch takes five rules at most."""
    body = build_submit(SUBMISSION._replace(platform="FARGATE"))
    rules = body["retryStrategy"]["evaluateOnExit"]
    assert rules[0] == {"onStatusReason": "Your Spot Task was interrupted*", "action": "RETRY"}
    assert len(rules) <= 5
    assert refused("SubmitJob", body) == ""


async def test_more_electrons_than_an_outcome_can_tell_of_are_refused_before_anything_is_sent() -> None:
    """One job runs a whole task group; the message says what to change."""
    specs = [ElectronSpec(node_id, (), {}) for node_id in range(MAX_TASKS + 1)]
    group = Group(nodes={}, inputs={}, lattice="", python="", covalent="")
    nothing: Any = None
    with pytest.raises(SettingsError, match=f"has {MAX_TASKS + 1} electrons, and one job runs {MAX_TASKS} at most"):
        await calls.prepare_call(
            nothing,
            resolve({}, {}),
            "dispatch",
            group,
            specs,
            Pickled("3.11.7", "3.1.2"),
            covalent="0.240.0",
            allowed=nothing,
            image=nothing,
        )


@given(st.text(max_size=300), st.integers(0, 9999))
def test_any_electron_gives_a_name_that_aws_takes(electron: str, node_id: int) -> None:
    """128 characters of letters, digits, hyphens and underscores; the first a letter or digit."""
    name = job_name(electron, "0b1c2d3e-aaaa", node_id, "c0ffee123456")
    assert len(name) <= MAX_NAME
    assert name[0].isascii()
    assert name[0].isalnum()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert name.endswith(f"-0b1c2d3e-{node_id}-c0ffee123456")


@given(st.text(max_size=400))
def test_any_text_gives_a_tag_that_aws_takes(text: str) -> None:
    """256 characters of those that AWS allows, in the words of ECS's API model: \\p{L}\\p{Z}\\p{N}_.:/=+-@."""
    found = tag_value(text)
    assert len(found) <= 256
    assert all(unicodedata.category(c)[0] in "LN" or c in " +-=._:/@" for c in found)
    assert not found.lower().startswith("aws:")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_2", "train_2"),
        ("größe", "größe"),
        ("gro\u0308ße", "größe"),
        ("训练", "训练"),
        ("обучение №3", "обучение =3"),
        ("<lambda>", "=lambda="),
        ("🌲", "="),
        ("aws:x", "=ws:x"),
        ("x" * 300, "x" * 255 + "="),
    ],
)
def test_a_name_stays_as_it_is_as_far_as_aws_takes_it(name: str, value: str) -> None:
    """What it does not take is marked, so that a reader knows that the call has the name."""
    assert tag_value(name) == value
    assert (REPLACED in value) == (unicodedata.normalize("NFC", name) != value)


class FakeQueue:
    """AWS Batch whose answers to SubmitJob are lost, and whose lists come in pages.

    Attributes:
        pages: Of ListJobs: names of jobs.
        submitted: How often SubmitJob was called.
    """

    def __init__(self, *pages: list[str]) -> None:
        self.pages = pages
        self.submitted = 0

    async def submit_job(self, **_: Any) -> dict[str, Any]:
        self.submitted += 1
        raise EndpointConnectionError(endpoint_url="https://batch")

    async def list_jobs(self, jobQueue: str, filters: Any, nextToken: str = "0") -> dict[str, Any]:
        page = int(nextToken)
        told = {"jobSummaryList": [{"jobId": f"id-of-{name}", "jobName": name} for name in self.pages[page]]}
        return {**told, "nextToken": str(page + 1)} if page + 1 < len(self.pages) else told


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param((["train-1"],), id="one page"),
        pytest.param(([], [], ["train-1"]), id="AWS filters after it has read"),
        pytest.param((["train-10", "TRAIN-1"], ["train-1"]), id="names that AWS takes for the same"),
    ],
)
async def test_a_job_whose_submission_was_not_answered_is_found_on_any_page(pages: Any) -> None:
    """Else it would be submitted twice."""
    batch = FakeQueue(*pages)
    access = Access(None, None, "eu-west-1", None)
    gateway = BatchGateway(batch, batch, access, patience_s=60)
    submission = Submission("train-1", "queue", "batch_queue", "definition:1", {}, 1, 60, {})
    assert await gateway.submit(submission) == "id-of-train-1"
    assert batch.submitted == 1
    assert await gateway.find("queue", "batch_queue", "train-2") is None
