"""What the emulated AWS Batch refuses, and how it says so."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator.batch import shapes, validation
from tests.access import signed

REQUIREMENTS = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]
SUBMIT: dict[str, Any] = {"jobName": "job", "jobQueue": "queue", "jobDefinition": "definition"}
REGISTER: dict[str, Any] = {
    "jobDefinitionName": "definition",
    "type": "container",
    "containerProperties": {"image": "image", "resourceRequirements": REQUIREMENTS},
}


def _container(**properties: Any) -> dict[str, Any]:
    return {"containerProperties": {**REGISTER["containerProperties"], **properties}}


def _on_fargate(**properties: Any) -> dict[str, Any]:
    return {**_container(executionRoleArn="arn:x", **properties), "platformCapabilities": ["FARGATE"]}


def _needs(*pairs: tuple[str, str]) -> dict[str, Any]:
    return _container(resourceRequirements=[{"type": kind, "value": value} for kind, value in pairs])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"jobName": "-x"}, "valid pattern"),
        ({"jobName": ""}, "valid pattern"),
        ({"jobName": "x" * 129}, "valid pattern"),
        ({"jobName": "a b"}, "valid pattern"),
        ({"retryStrategy": {"attempts": 0}}, "between 1 and 10"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"retryStrategy": {"evaluateOnExit": [{"action": "RETRY"}]}}, "requires attempts"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "EXIT"}] * 6}}, "at most 5"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "STOP"}]}}, "RETRY or EXIT"),
        (
            {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "Host (x)*", "action": "EXIT"}]}},
            "not allowed",
        ),
        (
            {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onExitCode": "1-3", "action": "EXIT"}]}},
            "not allowed",
        ),
        ({"timeout": {"attemptDurationSeconds": 59}}, "at least 60"),
        ({"arrayProperties": {"size": 1}}, "between 2 and 10000"),
        ({"arrayProperties": {"size": 10_001}}, "between 2 and 10000"),
        ({"dependsOn": [{"jobId": "x"}] * 21}, "Maximum is 20"),
        ({"dependsOn": [{"type": "SEQUENTIAL"}]}, "only valid for array jobs"),
        ({"dependsOn": [{"jobId": "x", "type": "N_TO_N"}]}, "only valid for array jobs"),
        ({"containerOverrides": {"environment": [{"name": "AWS_BATCH_X", "value": "1"}]}}, "AWS_BATCH"),
        ({"containerOverrides": {"command": ["a", ""]}}, "empty string"),
        ({"tags": {f"k{i}": "v" for i in range(51)}}, "at most 50"),
        ({"tags": {"aws:x": "v"}}, "not valid"),
        ({"tags": {"k": "v" * 257}}, "not valid"),
        ({"shareIdentifier": "a-b"}, "alphanumeric"),
        ({"eksPropertiesOverride": {"podProperties": {}}}, "not emulated"),
    ],
)
def test_submit_job_is_refused(change: dict[str, Any], text: str) -> None:
    """Each limit of SubmitJob, one beyond it."""
    with pytest.raises(validation.ServiceError, match=re.escape(text)):
        validation.submit_job({**SUBMIT, **change}, 100)


@pytest.mark.parametrize(
    "change",
    [
        {"jobName": "a"},
        {"jobName": "x" * 128},
        {"retryStrategy": {"attempts": 10, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "retry"}] * 5}},
        {"timeout": {"attemptDurationSeconds": 60}},
        {"arrayProperties": {"size": 2}},
        {"arrayProperties": {"size": 10_000}, "dependsOn": [{"type": "SEQUENTIAL"}]},
        {"tags": {"covalent:dispatch": "a b/c@d+e=f", "k": ""}},
        {"containerOverrides": {"environment": [{"name": "AWS_REGION", "value": ""}]}},
    ],
)
def test_submit_job_is_accepted_at_its_limits(change: dict[str, Any]) -> None:
    """Each limit of SubmitJob, just inside."""
    validation.submit_job({**SUBMIT, **change}, 30 * 1024)


def test_a_job_of_more_than_30_kib_is_refused_in_awss_words(aws: Any) -> None:
    """At once, with the size."""
    queue, definition = aws.queue(), aws.definition("true")
    with pytest.raises(ClientError) as refused:
        aws.submit(queue=queue, definition=definition, parameters={"payload": "x" * 47 * 1024})
    error = refused.value.response["Error"]
    assert error["Code"] == "ClientException"
    assert re.fullmatch(
        r"Error executing request, Exception : Job size must be less than 30 KiB, got 48 KiB, RequestId: [0-9a-f-]{36}",
        error["Message"],
    )


def test_overrides_of_more_than_8192_characters_fail_late(aws: Any) -> None:
    """The job is accepted, and then FAILED without a start."""
    overrides = {"environment": [{"name": "LONG", "value": "x" * 8200}]}
    job = aws.done(aws.submit("true", containerOverrides=overrides))
    assert (job["status"], job["attempts"]) == ("FAILED", [])
    assert job["statusReason"] == "Container Overrides length must be at most 8192"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"jobDefinitionName": "a b"}, "1 to 128 letters"),
        ({"jobDefinitionName": "x" * 129}, "1 to 128 letters"),
        ({"type": "multinode"}, "nodeProperties must be provided"),
        ({"ecsProperties": {"taskProperties": [{"containers": []}]}}, "not emulated"),
        (_container(image=""), "image"),
        (_container(resourceRequirements=[]), "must specify VCPU"),
        (_needs(("VCPU", "1")), "must specify MEMORY"),
        (_needs(("VCPU", "0"), ("MEMORY", "64")), "VCPU must be a whole number of at least 1"),
        (_needs(("VCPU", "0.5"), ("MEMORY", "64")), "VCPU must be a whole number"),
        (_needs(("VCPU", "1"), ("MEMORY", "3")), "MEMORY must be a whole number of at least 4"),
        (_needs(("VCPU", "1"), ("MEMORY", "64"), ("GPU", "0")), "GPU must be a whole number of at least 1"),
        (_needs(("VCPU", "1"), ("VCPU", "2"), ("MEMORY", "64")), "more than once"),
        (_needs(("VCPU", "1"), ("MEMORY", "64"), ("TPU", "1")), "TPU is not valid"),
        (_container(vcpus=2), "deprecated key"),
        (_container(environment=[{"name": "AWS_BATCH_X", "value": ""}]), "AWS_BATCH"),
        ({"platformCapabilities": ["FARGATE"]}, "EXECUTION_ROLE_ARN"),
        (_on_fargate(), "Fargate resource requirements (1.00 vCPU, 64 MiB) not valid."),
        (
            _on_fargate(ulimits=[{"name": "nofile", "softLimit": 1, "hardLimit": 1}]),
            "ulimits is not applicable for Fargate",
        ),
        (_on_fargate(linuxParameters={"sharedMemorySize": 64}), "sharedMemorySize is not applicable for Fargate"),
        (_on_fargate(volumes=[{"name": "v", "host": {"sourcePath": "/"}}]), "sourcePath is not applicable for Fargate"),
        (_on_fargate(logConfiguration={"logDriver": "json-file"}), "logDriver json-file is not applicable"),
        (
            _container(networkConfiguration={"assignPublicIp": "ENABLED"}),
            "networkConfiguration is not applicable for EC2",
        ),
        ({"platformCapabilities": ["LAMBDA"]}, "EC2, FARGATE"),
        ({"timeout": {"attemptDurationSeconds": 1}}, "at least 60"),
        ({"retryStrategy": {"attempts": 50}}, "between 1 and 10"),
    ],
)
def test_a_definition_is_refused(change: dict[str, Any], text: str) -> None:
    """Each rule of RegisterJobDefinition."""
    with pytest.raises(validation.ServiceError, match=re.escape(text)):
        validation.register_job_definition({**REGISTER, **change}, 100)


def test_a_definition_of_more_than_24_kib_is_refused() -> None:
    """Service quota."""
    with pytest.raises(validation.ServiceError, match="less than 24 KiB, got 25 KiB"):
        validation.register_job_definition(REGISTER, 24 * 1024 + 1)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({}, "jobName must not be null"),
        ({**SUBMIT, "jobNam": "x"}, "Unrecognized field 'jobNam'"),
        ({**SUBMIT, "jobName": 3}, "jobName must be of type string"),
        ({**SUBMIT, "arrayProperties": {"size": "3"}}, "arrayProperties.size must be of type integer"),
        ({**SUBMIT, "arrayProperties": {"size": True}}, "arrayProperties.size must be of type integer"),
        ({**SUBMIT, "dependsOn": {}}, "dependsOn must be a list"),
        ({**SUBMIT, "dependsOn": [{"job": "x"}]}, "dependsOn[0]"),
        ({**SUBMIT, "parameters": {"a": 1}}, "parameters['a'] must be of type string"),
        ({**SUBMIT, "propagateTags": "yes"}, "propagateTags must be of type boolean"),
        ([], "must be an object"),
    ],
)
def test_the_service_model_is_checked(request_: Any, text: str) -> None:
    """Missing, unknown and wrongly typed members are named with their place."""
    found = shapes.mistake(shapes.operation("SubmitJob").input_shape, request_)
    assert found is not None
    assert text in found


def test_a_member_that_is_null_is_as_if_absent() -> None:
    """As JSON clients send it."""
    assert shapes.mistake(shapes.operation("SubmitJob").input_shape, {**SUBMIT, "timeout": None}) is None


def test_what_does_not_exist_is_refused(aws: Any) -> None:
    """The error names it."""
    queue, definition = aws.queue(), aws.definition("true")
    with pytest.raises(ClientError, match="JobQueue no-queue does not exist"):
        aws.submit(queue="no-queue", definition=definition)
    with pytest.raises(ClientError, match="JobDefinition nothing:3 does not exist"):
        aws.submit(queue=queue, definition="nothing:3")
    with pytest.raises(ClientError, match="ComputeEnvironment none does not exist"):
        aws.queue("none")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"instanceTypes": ["m99.large"]}, "m99.large is not valid"),
        ({"instanceTypes": []}, "must not be empty"),
        ({"maxvCpus": 0}, "maxvCpus"),
        ({"minvCpus": 32}, "minvCpus"),
        ({"type": "SPOT"}, "spotIamFleetRole"),
        ({"securityGroupIds": []}, "securityGroupIds"),
        ({"subnets": []}, "subnets"),
    ],
)
def test_a_compute_environment_is_refused(aws: Any, change: dict[str, Any], text: str) -> None:
    """What AWS would make INVALID or not make at all."""
    with pytest.raises(ClientError, match=re.escape(text)):
        aws.environment(**change)


def test_a_bundle_of_instance_types_is_known(aws: Any) -> None:
    """``default_x86_64`` and ``optimal``, and families of GPU machines."""
    for given in (["default_x86_64"], ["optimal"], ["g4dn", "g5"]):
        made = aws.environment(instanceTypes=given)
        found = aws.batch.describe_compute_environments(computeEnvironments=[made])["computeEnvironments"]
        assert [(each["status"], each["computeResources"]["instanceTypes"]) for each in found] == [("VALID", given)]
        assert aws.done(aws.submit("true", queue=aws.queue(made)))["status"] == "SUCCEEDED"


def test_errors_have_awss_form(aws: Any) -> None:
    """HTTP 400, the code in a header, a request id."""
    url = f"{aws.emulator.endpoint_url}/v1/submitjob"
    headers = signed(aws.emulator.key, "POST", url, b"{not json", service="batch")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, b"{not json", headers, method="POST"))
    answer = refused.value
    assert (answer.code, answer.headers["x-amzn-errortype"]) == (400, "ClientException")
    assert answer.headers["x-amzn-RequestId"] in answer.read().decode()


def test_submit_job_is_throttled_above_its_rate(aws: Any) -> None:
    """HTTP 429 with the code that is in no model; it passes with time."""
    aws.emulator.limits.set({"ListJobs": 2.0})
    try:
        queue = aws.queue()
        codes = []
        for _ in range(6):
            try:
                aws.batch.list_jobs(jobQueue=queue)
            except ClientError as error:
                codes.append((error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]))
        assert (429, "TooManyRequestsException") in codes
        retrying = aws.emulator.client("batch", config=Config(retries={"mode": "standard", "total_max_attempts": 8}))
        retrying.list_jobs(jobQueue=queue)
    finally:
        aws.emulator.limits.set({"SubmitJob": 50.0})
