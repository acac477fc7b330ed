"""Calls checked against their caller's policies: which actions and resources AWS asks for, and how it refuses."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.http.authentication import UNKNOWN
from covalent_cirro.local.emulator.http.operations import Operation
from covalent_cirro.local.emulator.iam.enforcement import IamEnforcement

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1}, signature_version="v4")
TRUST = json.dumps({"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]})

_numbers = itertools.count(1)


def allow(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    """A statement."""
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def document(*statements: dict[str, Any]) -> str:
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


class Account:
    """An emulator that enforces IAM, with a queue, a definition, a bucket, a role and a log stream in it."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        batch = self.admin("batch")
        batch.create_compute_environment(
            computeEnvironmentName="ce",
            type="MANAGED",
            computeResources={
                "type": "EC2",
                "maxvCpus": 8,
                "instanceTypes": ["m6i"],
                "instanceRole": "arn:aws:iam::123456789012:instance-profile/machine",
                "subnets": ["subnet-1"],
                "securityGroupIds": ["sg-1"],
            },
        )
        order = [{"order": 1, "computeEnvironment": "ce"}]
        batch.create_job_queue(jobQueueName="queue", priority=1, computeEnvironmentOrder=order)
        self.role = self.admin("iam").create_role(RoleName="electron", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        batch.register_job_definition(**self.definition("definition"))
        self.admin("s3").create_bucket(Bucket="results")
        self.admin("s3").put_object(Bucket="results", Key="cirro/a", Body=b"a")
        self.admin("logs").create_log_group(logGroupName="/jobs")
        self.admin("logs").create_log_stream(logGroupName="/jobs", logStreamName="cirro/1")

    @staticmethod
    def definition(name: str, **container: Any) -> dict[str, Any]:
        """A job definition."""
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}]
        properties = {"image": "image", "command": ["sleep", "60"], "resourceRequirements": needs, **container}
        return {"jobDefinitionName": name, "type": "container", "containerProperties": properties}

    def admin(self, service: str) -> Any:
        """A client that may do all."""
        return self.emulator.client(service, config=ONCE)

    def user(self, *statements: dict[str, Any]) -> User:
        """A new user with a policy of these statements."""
        iam, name = self.admin("iam"), f"user-{next(_numbers)}"
        iam.create_user(UserName=name)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
        return User(self.emulator, name, iam.create_access_key(UserName=name)["AccessKey"])

    def arn(self, service: str, resource: str) -> str:
        """An ARN of the account."""
        return f"arn:aws:{service}:us-east-1:{self.emulator.account}:{resource}"

    def job(self, **tags: str) -> str:
        """A new job's id."""
        made = self.admin("batch").submit_job(jobName="j", jobQueue="queue", jobDefinition="definition", tags=tags)
        return str(made["jobId"])


class User(NamedTuple):
    """A user with an access key."""

    emulator: Emulator
    name: str
    key: dict[str, str]

    def client(self, service: str) -> Any:
        """A client with the user's key."""
        return self.emulator.client(
            service,
            config=ONCE,
            aws_access_key_id=self.key["AccessKeyId"],
            aws_secret_access_key=self.key["SecretAccessKey"],
        )


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One account for all tests; each makes users of its own."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(scale=0.02), iam=True) as emulator:
        yield Account(emulator)


def refused(call: Callable[[], Any]) -> tuple[str, str, int]:
    """Code, message and HTTP status of a call that fails."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


QUEUE, DEFINITION = "arn:aws:batch:us-east-1:{0}:job-queue/queue", "arn:aws:batch:us-east-1:{0}:job-definition/"
OBJECT, BUCKET = "arn:aws:s3:::results/cirro/*", "arn:aws:s3:::results"
STREAM = "arn:aws:logs:us-east-1:{0}:log-group:/jobs:log-stream:cirro/1"
SUBMIT = {"jobName": "j", "jobQueue": "queue", "jobDefinition": "definition:1"}

NEEDED: dict[str, tuple[str, str, dict[str, Any], list[tuple[str, str]]]] = {
    "submit": (
        "batch",
        "submit_job",
        SUBMIT,
        [("batch:SubmitJob", DEFINITION + "definition:1"), ("batch:SubmitJob", QUEUE)],
    ),
    "submit the newest revision": (
        "batch",
        "submit_job",
        {**SUBMIT, "jobDefinition": "definition"},
        [("batch:SubmitJob", DEFINITION + "definition"), ("batch:SubmitJob", QUEUE)],
    ),
    "submit with tags": (
        "batch",
        "submit_job",
        {**SUBMIT, "tags": {"a": "b"}},
        [
            ("batch:SubmitJob", DEFINITION + "definition:1"),
            ("batch:SubmitJob", QUEUE),
            ("batch:TagResource", DEFINITION + "definition:1"),
            ("batch:TagResource", QUEUE),
        ],
    ),
    "describe jobs": ("batch", "describe_jobs", {"jobs": ["x"]}, [("batch:DescribeJobs", "*")]),
    "list jobs": ("batch", "list_jobs", {"jobQueue": "queue"}, [("batch:ListJobs", "*")]),
    "place in queue": (
        "batch",
        "get_job_queue_snapshot",
        {"jobQueue": "queue"},
        [("batch:GetJobQueueSnapshot", QUEUE)],
    ),
    "terminate": (
        "batch",
        "terminate_job",
        {"jobId": "x", "reason": "r"},
        [("batch:TerminateJob", "arn:aws:batch:us-east-1:{0}:job/x")],
    ),
    "terminate many": (
        "batch",
        "terminate_jobs",
        {"jobs": ["x", "y"], "reason": "r"},
        [
            ("batch:TerminateJob", "arn:aws:batch:us-east-1:{0}:job/x"),
            ("batch:TerminateJob", "arn:aws:batch:us-east-1:{0}:job/y"),
        ],
    ),
    "update a queue": (
        "batch",
        "update_job_queue",
        {"jobQueue": "queue", "priority": 2},
        [("batch:UpdateJobQueue", QUEUE)],
    ),
    "read": ("s3", "get_object", {"Bucket": "results", "Key": "cirro/a"}, [("s3:GetObject", OBJECT)]),
    "head": ("s3", "head_object", {"Bucket": "results", "Key": "cirro/a"}, [("s3:GetObject", OBJECT)]),
    "write": ("s3", "put_object", {"Bucket": "results", "Key": "cirro/b", "Body": b"b"}, [("s3:PutObject", OBJECT)]),
    "begin parts": (
        "s3",
        "create_multipart_upload",
        {"Bucket": "results", "Key": "cirro/c"},
        [("s3:PutObject", OBJECT)],
    ),
    "copy": (
        "s3",
        "copy_object",
        {"Bucket": "results", "Key": "cirro/d", "CopySource": {"Bucket": "results", "Key": "cirro/a"}},
        [("s3:GetObject", OBJECT), ("s3:PutObject", OBJECT)],
    ),
    "delete": ("s3", "delete_object", {"Bucket": "results", "Key": "cirro/x"}, [("s3:DeleteObject", OBJECT)]),
    "delete many": (
        "s3",
        "delete_objects",
        {"Bucket": "results", "Delete": {"Objects": [{"Key": "cirro/x"}, {"Key": "cirro/<y>"}]}},
        [("s3:DeleteObject", OBJECT)],
    ),
    "list": ("s3", "list_objects_v2", {"Bucket": "results", "Prefix": "cirro/"}, [("s3:ListBucket", BUCKET)]),
    "location": ("s3", "get_bucket_location", {"Bucket": "results"}, [("s3:GetBucketLocation", BUCKET)]),
    "all buckets": ("s3", "list_buckets", {}, [("s3:ListAllMyBuckets", "*")]),
    "log events": (
        "logs",
        "get_log_events",
        {"logGroupName": "/jobs", "logStreamName": "cirro/1"},
        [("logs:GetLogEvents", STREAM)],
    ),
    "all log events": (
        "logs",
        "filter_log_events",
        {"logGroupName": "/jobs"},
        [("logs:FilterLogEvents", "arn:aws:logs:us-east-1:{0}:log-group:/jobs:*")],
    ),
    "registry token": ("ecr", "get_authorization_token", {}, [("ecr:GetAuthorizationToken", "*")]),
    "a role": ("iam", "get_role", {"RoleName": "electron"}, [("iam:GetRole", "arn:aws:iam::{0}:role/electron")]),
    "stacks": ("cloudformation", "describe_stacks", {}, [("cloudformation:DescribeStacks", "*")]),
    "instance types": (
        "ec2",
        "describe_instance_types",
        {"InstanceTypes": ["m6i.large"]},
        [("ec2:DescribeInstanceTypes", "*")],
    ),
}


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_call_needs(account: Account, name: str) -> None:
    """With exactly these permissions it is made; without any one of them it is refused, and that one is named."""
    service, operation, arguments, needed = NEEDED[name]
    statements = [allow(action, arn.format(account.emulator.account)) for action, arn in needed]
    getattr(account.user(*statements).client(service), operation)(**arguments)
    for missing, (action, _) in enumerate(needed):
        rest = statements[:missing] + statements[missing + 1 :]
        code, message, status = refused(
            lambda rest=rest: getattr(account.user(*rest).client(service), operation)(**arguments)  # type: ignore[misc]
        )
        assert status in (400, 403)
        if operation == "head_object":
            assert code == "403"
        else:
            assert code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
            assert f"is not authorized to perform: {action} on resource: " in message
            assert message.endswith(f"because no identity-based policy allows the {action} action")


def test_who_is_asking(account: Account) -> None:
    """Users have their policies; the emulator's own key is the administrator's; other keys are unknown."""
    powerless = account.user()
    assert powerless.client("sts").get_caller_identity()["Arn"].endswith(f"user/{powerless.name}")
    code, message, status = refused(lambda: powerless.client("batch").describe_jobs(jobs=["x"]))
    assert (code, status) == ("AccessDeniedException", 403)
    assert message.startswith(f"User: arn:aws:iam::{account.emulator.account}:user/{powerless.name} is not authorized")
    unknown = {"config": ONCE, "aws_access_key_id": "AKIA" + "Q" * 16}
    assert refused(lambda: account.emulator.client("s3", **unknown).list_buckets())[0] == "InvalidAccessKeyId"
    assert refused(lambda: account.emulator.client("batch", **unknown).list_jobs(jobQueue="queue"))[0] == (
        "UnrecognizedClientException"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{account.emulator.endpoint_url}/results/cirro/a", timeout=10)
    assert caught.value.code == 403


def test_a_key_whose_session_is_gone_is_nobodys(account: Account) -> None:
    """Not the administrator's, as the emulator's own key is: a job's key outlives what IAM and STS know of it."""
    emulator = account.emulator
    iam = IamEnforcement(emulator.account, emulator.region, emulator.batch, True, emulator.key.ids)

    def refused_to(access_key: str) -> Any:
        return iam.refusal(Operation("batch", "ListJobs", "us-east-1", access_key), {}, bytes)

    assert refused_to("ASIA" + "Q" * 16) == UNKNOWN
    assert [refused_to(own) for own in emulator.key.ids] == [None, None]


def test_policies_of_groups_and_managed_policies(account: Account) -> None:
    """Attached to the user or the group; the default version holds, from the moment it changes."""
    iam, user = account.admin("iam"), account.user()
    read = document(allow("s3:GetObject", OBJECT))
    arn = iam.create_policy(PolicyName="read", PolicyDocument=read)["Policy"]["Arn"]
    iam.create_group(GroupName="people")
    iam.add_user_to_group(GroupName="people", UserName=user.name)
    get = {"Bucket": "results", "Key": "cirro/a"}
    assert refused(lambda: user.client("s3").get_object(**get))[0] == "AccessDenied"
    iam.attach_group_policy(GroupName="people", PolicyArn=arn)
    user.client("s3").get_object(**get)
    nothing = document(allow("s3:ListAllMyBuckets"))
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=nothing, SetAsDefault=True)
    assert refused(lambda: user.client("s3").get_object(**get))[0] == "AccessDenied"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    iam.detach_group_policy(GroupName="people", PolicyArn=arn)
    iam.attach_user_policy(UserName=user.name, PolicyArn=arn)
    user.client("s3").get_object(**get)


def test_a_role_that_is_assumed(account: Account) -> None:
    """A session has the role's policies, within its own, and is named as a session."""
    iam, user = account.admin("iam"), account.user(allow("sts:AssumeRole", account.role))
    iam.put_role_policy(RoleName="electron", PolicyName="p", PolicyDocument=document(allow("s3:*", OBJECT)))
    within = document(allow("s3:GetObject"))
    for policy, may_write in ((None, True), (within, False)):
        more = {} if policy is None else {"Policy": policy}
        given = user.client("sts").assume_role(RoleArn=account.role, RoleSessionName="ada", **more)["Credentials"]
        s3 = account.emulator.client(
            "s3",
            config=ONCE,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )
        s3.get_object(Bucket="results", Key="cirro/a")
        if may_write:
            s3.put_object(Bucket="results", Key="cirro/e", Body=b"")
        else:
            message = refused(lambda s3=s3: s3.put_object(Bucket="results", Key="cirro/e", Body=b""))[1]  # type: ignore[misc]
            assert "assumed-role/electron/ada is not authorized" in message
            assert "no session policy allows" in message
    iam.delete_role_policy(RoleName="electron", PolicyName="p")


def test_a_missing_key_is_missing_only_to_who_may_list(account: Account) -> None:
    """403 for 404 without s3:ListBucket; a condition on s3:prefix is not met by a read, unless it may be absent."""
    read = allow("s3:GetObject", OBJECT)
    key = {"Bucket": "results", "Key": "cirro/none"}
    prefix = {"s3:prefix": "cirro/*"}
    lists = allow("s3:ListBucket", BUCKET)
    for listing, seen in (
        (None, "AccessDenied"),
        (lists, "NoSuchKey"),
        ({**lists, "Condition": {"StringLike": prefix}}, "AccessDenied"),
        ({**lists, "Condition": {"StringLikeIfExists": prefix}}, "NoSuchKey"),
    ):
        s3 = account.user(read, *([listing] if listing else [])).client("s3")
        code, message, _ = refused(lambda s3=s3: s3.get_object(**key))  # type: ignore[misc]
        assert code == seen
        if seen == "AccessDenied":
            assert f'perform: s3:ListBucket on resource: "{BUCKET}"' in message
        expected = "403" if seen == "AccessDenied" else "404"
        assert refused(lambda s3=s3: s3.head_object(**key))[0] == expected  # type: ignore[misc]


def test_a_listing_is_bound_to_its_prefix(account: Account) -> None:
    """``s3:prefix`` is what the request gives."""
    s3 = account.user(allow("s3:ListBucket", BUCKET, Condition={"StringLike": {"s3:prefix": "cirro/*"}})).client("s3")
    s3.list_objects_v2(Bucket="results", Prefix="cirro/jobs/")
    assert refused(lambda: s3.list_objects_v2(Bucket="results", Prefix="other/"))[0] == "AccessDenied"
    assert refused(lambda: s3.list_objects_v2(Bucket="results"))[0] == "AccessDenied"


def test_every_part_of_a_large_object_is_a_write(account: Account) -> None:
    """Create, upload, complete are s3:PutObject; abort is not."""
    s3 = account.user(allow("s3:PutObject", OBJECT)).client("s3")
    where = {"Bucket": "results", "Key": "cirro/large"}
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    assert "s3:AbortMultipartUpload" in refused(lambda: s3.abort_multipart_upload(**upload))[1]
    assert "s3:ListMultipartUploadParts" in refused(lambda: s3.list_parts(**upload))[1]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})


def test_roles_of_a_definition_are_passed(account: Account) -> None:
    """iam:PassRole on each, to ecs-tasks and to no other service."""
    register = allow("batch:RegisterJobDefinition")
    body = account.definition("passing", jobRoleArn=account.role)
    service = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    passing = allow("iam:PassRole", account.role, Condition={"StringEquals": service})
    account.user(register, passing).client("batch").register_job_definition(**body)
    wrong = allow("iam:PassRole", account.role, Condition={"StringEquals": {**service, "iam:PassedToService": "ec2"}})
    for statements in ([register], [register, wrong]):
        batch = account.user(*statements).client("batch")
        message = refused(lambda batch=batch: batch.register_job_definition(**body))[1]  # type: ignore[misc]
        assert f"perform: iam:PassRole on resource: {account.role} because" in message


@pytest.mark.parametrize(
    ("container", "condition", "may"),
    [
        ({"privileged": True}, {"BoolIfExists": {"batch:Privileged": "false"}}, False),
        ({"privileged": False}, {"BoolIfExists": {"batch:Privileged": "false"}}, True),
        ({}, {"BoolIfExists": {"batch:Privileged": "false"}}, True),
        ({"image": "evil"}, {"StringLike": {"batch:Image": "image*"}}, False),
        ({"user": "root"}, {"StringNotEqualsIfExists": {"batch:User": "root"}}, False),
    ],
)
def test_conditions_on_a_definition(
    account: Account, container: dict[str, Any], condition: dict[str, Any], may: bool
) -> None:
    """What it says of its container are condition keys."""
    batch = account.user(allow("batch:RegisterJobDefinition", Condition=condition)).client("batch")
    body = account.definition("conditional", **container)
    if may:
        batch.register_job_definition(**body)
    else:
        assert refused(lambda: batch.register_job_definition(**body))[0] == "AccessDeniedException"


def test_each_container_of_a_definition_with_nodes_counts(account: Account) -> None:
    """Its conditions, and the roles that are passed: nodes are no way around them."""
    body = account.definition("nodes")
    container = body.pop("containerProperties")

    def with_nodes(**more: Any) -> dict[str, Any]:
        ranges = [
            {"targetNodes": "0", "container": container},
            {"targetNodes": "1", "container": {**container, **more}},
        ]
        properties = {"numNodes": 2, "mainNode": 0, "nodeRangeProperties": ranges}
        return {**body, "type": "multinode", "nodeProperties": properties}

    register = allow("batch:RegisterJobDefinition", Condition={"BoolIfExists": {"batch:Privileged": "false"}})
    batch = account.user(register).client("batch")
    batch.register_job_definition(**with_nodes())
    for more in ({"privileged": True}, {"jobRoleArn": account.role}):
        assert (
            refused(lambda more=more: batch.register_job_definition(**with_nodes(**more)))[0] == "AccessDeniedException"
        )  # type: ignore[misc]


def test_a_job_is_told_by_its_tags(account: Account) -> None:
    """``aws:ResourceTag`` holds the tags that the job has."""
    stop = allow(
        "batch:TerminateJob",
        account.arn("batch", "job/*"),
        Condition={"Null": {"aws:ResourceTag/covalent:dispatch": "false"}},
    )
    batch = account.user(stop).client("batch")
    batch.terminate_job(jobId=account.job(**{"covalent:dispatch": "d"}), reason="r")
    other = account.job(other="d")
    assert refused(lambda: batch.terminate_job(jobId=other, reason="r"))[0] == "AccessDeniedException"
    account.admin("batch").terminate_job(jobId=other, reason="r")


def test_tags_of_a_request(account: Account) -> None:
    """``aws:RequestTag`` and ``aws:TagKeys`` hold those that are asked for."""
    conditions = {"StringEquals": {"aws:RequestTag/team": "a"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}
    batch = account.user(allow(["batch:SubmitJob", "batch:TagResource"], Condition=conditions)).client("batch")
    batch.submit_job(**SUBMIT, tags={"team": "a"})
    for tags in ({"team": "b"}, {"team": "a", "more": "x"}, {}):
        assert refused(lambda tags=tags: batch.submit_job(**SUBMIT, tags=tags))[0] == "AccessDeniedException"  # type: ignore[misc]


def test_a_bucket_policy(account: Account) -> None:
    """It can allow who has no policy of their own, and deny who has; the loopback counts as TLS."""
    s3, user, other = account.admin("s3"), account.user(), account.user(allow("s3:*"))
    s3.create_bucket(Bucket="shared")
    s3.put_object(Bucket="shared", Key="k", Body=b"")
    arn = f"arn:aws:iam::{account.emulator.account}:user/{{}}"
    everything = {"Action": "s3:*", "Resource": "arn:aws:s3:::shared/*"}
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": arn.format(user.name)}, **everything},
        {"Effect": "Deny", "Principal": {"AWS": arn.format(other.name)}, **everything},
        {"Effect": "Deny", "Principal": "*", **everything, "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
    ]
    other.client("s3").get_object(Bucket="shared", Key="k")
    s3.put_bucket_policy(Bucket="shared", Policy=document(*statements))
    user.client("s3").get_object(Bucket="shared", Key="k")
    message = refused(lambda: other.client("s3").get_object(Bucket="shared", Key="k"))[1]
    assert message.endswith("with an explicit deny in a resource-based policy")


def test_what_cannot_be_decided_is_said(account: Account) -> None:
    """Not allowed in silence, and not retried as if it might pass."""
    later = allow("batch:ListJobs", Condition={"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}})
    code, message, status = refused(lambda: account.user(later).client("batch").list_jobs(jobQueue="queue"))
    assert (code, status) == ("NotImplemented", 501)
    assert "DateGreaterThan" in message


def test_the_emulators_own_process_checks_when_it_is_told_to(tmp_path: Path, poll: Callable[..., Any]) -> None:
    """``--iam``."""
    command = [sys.executable, "-m", "covalent_cirro.emulator", "--state-dir", str(tmp_path), "--iam"]
    note = tmp_path / "emulator.json"
    process = subprocess.Popen(command)
    try:
        poll(note.exists, "the emulator's answer", 60.0)
        batch = boto3.client(
            "batch",
            endpoint_url=json.loads(note.read_text())["endpoint_url"],
            region_name="us-east-1",
            aws_access_key_id="AKIA" + "Q" * 16,
            aws_secret_access_key="x",
            config=ONCE,
        )
        assert refused(lambda: batch.describe_jobs(jobs=["x"]))[0] == "UnrecognizedClientException"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_nothing_is_checked_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Without ``iam=True`` a user without policies may do everything."""
    with Emulator(state_dir=tmp_path) as emulator:
        iam = emulator.client("iam")
        iam.create_user(UserName="ada")
        ada = User(emulator, "ada", iam.create_access_key(UserName="ada")["AccessKey"])
        assert ada.client("batch").describe_jobs(jobs=["x"])["jobs"] == []
        assert ada.client("s3").list_buckets()["Buckets"] == []
