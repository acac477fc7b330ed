"""What jobs print, and who they are: CloudWatch streams, and credentials the way ECS gives them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError


def _logging(**options: str) -> dict[str, Any]:
    return {"logConfiguration": {"logDriver": "awslogs", "options": {f"awslogs-{k}": v for k, v in options.items()}}}


def test_lines_are_logged_in_their_order(aws: Any) -> None:
    """stdout and stderr in one stream, without their line ends; a last line without one too."""
    job = aws.done(aws.submit("sh", "-c", "echo one; echo two >&2; echo; printf three"))
    assert aws.log(job) == ["one", "two", "three"]


def test_lines_appear_while_the_job_runs(aws: Any, poll: Any) -> None:
    """Not only at its end."""
    job_id = aws.submit("sh", "-c", "echo first; sleep 30")
    job = aws.reach(job_id, "RUNNING")
    poll(lambda: aws.log(job) == ["first"], "the first line")
    aws.batch.terminate_job(jobId=job_id, reason="enough")


def test_the_default_group_and_stream(aws: Any) -> None:
    """``/aws/batch/job``, and the definition's name before the task's id."""
    definition = aws.definition("echo", "x")
    job = aws.done(aws.submit(definition=definition))
    task_id = job["container"]["taskArn"].rsplit("/", 1)[1]
    assert len(task_id) == 32
    assert job["container"]["logStreamName"] == f"{definition.split(':')[0]}/default/{task_id}"
    assert aws.log(job) == ["x"]


def test_group_and_prefix_of_the_definition(aws: Any) -> None:
    """Where logConfiguration says."""
    group = f"/group/{aws.name()}"
    aws.logs.create_log_group(logGroupName=group)
    configuration = _logging(**{"group": group, "stream-prefix": "mine"})
    job = aws.done(aws.submit(definition=aws.definition("echo", "x", **configuration)))
    assert job["container"]["logStreamName"].startswith("mine/default/")
    assert aws.log(job, group) == ["x"]


def test_a_missing_group_keeps_the_container_from_starting(aws: Any) -> None:
    """As the log driver does it."""
    job = aws.done(aws.submit(definition=aws.definition("true", **_logging(group="/no/such"))))
    assert job["statusReason"] == "Task failed to start"
    assert "The specified log group does not exist." in job["container"]["reason"]
    assert len(job["container"]["reason"]) <= 255
    assert "exitCode" not in job["container"]


def test_a_missing_group_is_made_if_asked(aws: Any) -> None:
    """awslogs-create-group."""
    group = f"/group/{aws.name()}"
    configuration = _logging(**{"group": group, "create-group": "true"})
    job = aws.done(aws.submit(definition=aws.definition("echo", "x", **configuration)))
    assert aws.log(job, group) == ["x"]


def test_another_driver_has_no_stream(aws: Any) -> None:
    """And the job runs all the same."""
    job = aws.done(aws.submit(definition=aws.definition("true", logConfiguration={"logDriver": "json-file"})))
    assert job["status"] == "SUCCEEDED"
    assert "logStreamName" not in job["container"]


def test_a_very_long_line_becomes_several_events(aws: Any) -> None:
    """None is lost."""
    job = aws.done(aws.submit("python", "-c", "print('x' * 600_000)"))
    lines = aws.log(job)
    assert len(lines) == 3
    assert sum(map(len, lines)) == 600_000


def test_boto3_in_a_job_is_the_jobs_role(aws: Any) -> None:
    """Found by botocore's default chain; no key is in the environment."""
    script = (
        "import os, boto3\n"
        "assert 'AWS_ACCESS_KEY_ID' not in os.environ\n"
        "print(boto3.client('sts').get_caller_identity()['Arn'])\n"
        "print(boto3.Session().get_credentials().method)\n"
    )
    role = aws.role()
    job = aws.done(aws.submit(definition=aws.definition("python", "-c", script, jobRoleArn=role)))
    task_id = job["container"]["taskArn"].rsplit("/", 1)[1]
    assert aws.log(job) == [
        f"arn:aws:sts::{aws.emulator.account}:assumed-role/{role.rsplit('/', 1)[1]}/{task_id}",
        "container-role",
    ]


def test_awscrt_in_a_job_is_the_jobs_role(aws: Any) -> None:
    """Found by the default chain of the CRT, which the runner uses."""
    pytest.importorskip("awscrt")
    script = (
        "from awscrt import auth, io\n"
        "group = io.EventLoopGroup(1)\n"
        "bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))\n"
        "provider = auth.AwsCredentialsProvider.new_default_chain(bootstrap)\n"
        "print(provider.get_credentials().result(60).session_token is not None)\n"
    )
    job = aws.done(aws.submit(definition=aws.definition("python", "-c", script, jobRoleArn=aws.role())))
    assert aws.log(job) == ["True"]


def test_a_job_without_a_role_has_no_credentials(aws: Any) -> None:
    """Neither its own, nor those of the machine's user."""
    script = "import boto3; print(boto3.Session().get_credentials())"
    job = aws.done(aws.submit("python", "-c", script))
    assert aws.log(job) == ["None"]


def test_a_job_without_a_role_has_that_of_its_instance(aws: Any) -> None:
    """If the instance has one: a job shares the instance's network, and so reaches its metadata service."""
    name = aws.name("machine")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}]}
    aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    profile = aws.iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]
    aws.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    script = (
        "import boto3\n"
        "print(boto3.client('sts').get_caller_identity()['Arn'].rsplit('/', 1)[0])\n"
        "print(boto3.Session().get_credentials().method)\n"
    )
    queue = aws.queue(aws.environment(instanceRole=profile))
    before = aws.emulator.calls.counts("job").get("sts:GetCallerIdentity", {"count": 0})["count"]
    job = aws.done(aws.submit(queue=queue, definition=aws.definition("python", "-c", script)))
    assert aws.log(job) == [f"arn:aws:sts::{aws.emulator.account}:assumed-role/{name}", "iam-role"]
    assert aws.emulator.calls.counts("job")["sts:GetCallerIdentity"]["count"] == before + 1


def test_credentials_end_with_the_task(aws: Any) -> None:
    """And an unknown task has none."""
    job = aws.done(
        aws.submit(definition=aws.definition("printenv", "AWS_CONTAINER_CREDENTIALS_FULL_URI", jobRoleArn=aws.role()))
    )
    (uri,) = aws.log(job)
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(uri)
    assert missing.value.code == 404


@pytest.mark.parametrize("field", ["jobRoleArn", "executionRoleArn"])
def test_a_role_that_ecs_cannot_assume_keeps_the_task_from_starting(aws: Any, field: str) -> None:
    """One that does not exist, or does not trust ecs-tasks."""
    missing = f"arn:aws:iam::{aws.emulator.account}:role/missing"
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}]}
    wrong = aws.iam.create_role(RoleName=aws.name("role"), AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    queue = aws.queue()
    for role in (missing, wrong):
        job = aws.done(aws.submit(queue=queue, definition=aws.definition("true", **{field: role})))
        assert job["statusReason"].startswith(f"ECS was unable to assume the role '{role}'")


def test_a_task_can_read_its_limits_and_its_machine(aws: Any) -> None:
    """ECS's task metadata, and the instance metadata service of its host."""
    script = (
        "import json, os, urllib.request as u\n"
        "print(json.load(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4']))['Limits'])\n"
        "base = os.environ['AWS_EC2_METADATA_SERVICE_ENDPOINT'] + '/latest/'\n"
        "token = u.urlopen(u.Request(base + 'api/token', method='PUT')).read().decode()\n"
        "print(u.urlopen(base + 'meta-data/instance-type').read().decode())\n"
    )
    queue = aws.queue(aws.environment(instanceTypes=["m6i.large"]))
    job = aws.done(aws.submit(queue=queue, definition=aws.definition("python", "-c", script, vcpus=2, memory=128)))
    assert aws.log(job) == ["{'CPU': 2048, 'Memory': 128}", "m6i.large"]


def test_log_groups_are_real_ones(aws: Any) -> None:
    """A stream that does not exist is the usual error."""
    with pytest.raises(ClientError) as missing:
        aws.logs.get_log_events(logGroupName="/aws/batch/nothing", logStreamName="x")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"
