"""Secrets of jobs: the agent reads them with the execution role, and a job without one of them fails as on AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro.jobs.ends import End, end_of_job
from covalent_cirro.jobs.states import parse_job
from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.attempts import container_secrets
from covalent_cirro.local.emulator.attempts.runtime import StartFailed
from tests.emulator.conftest import Aws

TRUST = json.dumps({"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]})


class Secrets:
    """An account that enforces IAM, with two secrets, a parameter, and an execution role that may read some."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        manager, ssm, iam = aws.client("secretsmanager"), aws.client("ssm"), aws.client("iam")
        made = manager.create_secret(Name="team/db", SecretString=json.dumps({"user": "ada", "password": "hunter2"}))
        self.arn = str(made["ARN"])
        self.other = str(manager.create_secret(Name="other", SecretString="not for jobs")["ARN"])
        self.key = str(aws.client("kms").create_key()["KeyMetadata"]["Arn"])
        self.encrypted = str(
            manager.create_secret(Name="own-key", SecretString="encrypted-value", KmsKeyId=self.key)["ARN"]
        )
        for name in ("/team/token", "/team/denied"):
            ssm.put_parameter(Name=name, Value="abcd-1234", Type="SecureString")
        self.role = str(iam.create_role(RoleName="execution", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"])
        parameter = f"arn:aws:ssm:us-east-1:{aws.emulator.account}:parameter/team"
        self.allow(
            {
                "Effect": "Allow",
                "Action": ["secretsmanager:GetSecretValue", "ssm:GetParameters"],
                "Resource": [
                    self.arn,
                    f"{self.arn[:-11]}-gone-??????",
                    self.encrypted,
                    f"{parameter}/token",
                    f"{parameter}/gone",
                ],
            }
        )
        self.queue = aws.queue()

    def allow(self, *statements: dict[str, Any], name: str = "secrets") -> None:
        """Give the execution role a policy."""
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        logs = {"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}
        self.aws.iam.put_role_policy(RoleName="execution", PolicyName=name, PolicyDocument=document)
        document = json.dumps({"Version": "2012-10-17", "Statement": [logs]})
        self.aws.iam.put_role_policy(RoleName="execution", PolicyName="logs", PolicyDocument=document)

    def run(self, *value_from: str, role: str | None = None) -> dict[str, Any]:
        """Run a job that prints its secrets; returns it once it has ended."""
        entries = [{"name": f"S{i}", "valueFrom": each} for i, each in enumerate(value_from)]
        definition = self.aws.definition(
            *("sh", "-c", 'printf "%s|" "$S0" "$S1"'), executionRoleArn=role or self.role, secrets=entries
        )
        return self.aws.done(self.aws.submit(queue=self.queue, definition=definition))

    def printed(self, *value_from: str) -> list[str]:
        """What such a job prints: one line."""
        job = self.run(*value_from)
        assert job["status"] == "SUCCEEDED", job
        return self.aws.log(job)[0].split("|")[: len(value_from)]

    def reason(self, value_from: str) -> str:
        """Why a job with this secret does not start."""
        job = self.run(value_from)
        assert job["status"] == "FAILED"
        assert "startedAt" not in job or not job["startedAt"]
        [attempt] = job["attempts"]
        assert "reason" not in attempt["container"]
        assert attempt["statusReason"] == job["statusReason"]
        return str(job["statusReason"])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secrets]:
    """One account for all tests of this file."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(scale=0.02), iam=True) as emulator:
        yield Secrets(Aws(emulator))


def test_a_job_has_the_values_under_their_names(secrets: Secrets) -> None:
    """Whole secrets, keys of their JSON, and parameters by name or ARN."""
    whole = json.dumps({"user": "ada", "password": "hunter2"})
    parameter = f"arn:aws:ssm:us-east-1:{secrets.aws.emulator.account}:parameter/team/token"
    assert secrets.printed(secrets.arn, f"{secrets.arn}:password::") == [whole, "hunter2"]
    assert secrets.printed("/team/token", parameter) == ["abcd-1234"] * 2
    assert secrets.printed(f"{secrets.arn}:user:AWSCURRENT:") == ["ada"]


def test_no_answer_of_aws_batch_has_a_value(secrets: Secrets) -> None:
    """Definitions and jobs name the secrets."""
    job = secrets.run(f"{secrets.arn}:password::")
    definition = secrets.aws.batch.describe_job_definitions(jobDefinitions=[job["jobDefinition"]])
    assert job["container"]["secrets"] == [{"name": "S0", "valueFrom": f"{secrets.arn}:password::"}]
    assert "hunter2" not in json.dumps([job, definition], default=str)


def test_a_job_without_one_of_its_secrets_does_not_start(secrets: Secrets) -> None:
    """In the words of the ECS agent, and in those of AWS IAM where the role may not read it."""
    reading = "Fetching secret data from AWS Secrets Manager in region us-east-1: "
    gone = f"{secrets.arn[:-11]}-gone-AbCdEf"
    assert secrets.reason(gone).startswith(f"{reading}secret {gone}: ResourceNotFoundException: ")
    assert (
        secrets.reason("/team/gone")
        == "Fetching secret data from SSM Parameter Store in us-east-1: invalid parameters: /team/gone"
    )
    assert f"{secrets.other}: AccessDeniedException: User: arn:aws:sts::" in secrets.reason(secrets.other)
    assert "not authorized to perform: ssm:GetParameters" in secrets.reason("/team/denied")
    assert "did not contain json key pasword" in secrets.reason(f"{secrets.arn}:pasword::")
    assert "secret value for staging label: AWSPREVIOUS" in secrets.reason(f"{secrets.arn}::AWSPREVIOUS:")


@pytest.mark.parametrize(
    ("value_from", "words"),
    [
        ("/team/gone", "unable to retrieve secrets from ssm: service call has been retried 1 time(s): invalid ssm "),
        ("arn", "retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret arn:"),
    ],
)
def test_fargate_says_it_in_its_own_words(secrets: Secrets, value_from: str, words: str) -> None:
    """Which the executor knows too."""
    value_from = f"{secrets.arn[:-11]}-gone-AbCdEf" if value_from == "arn" else value_from
    container = {"secrets": [{"name": "S", "valueFrom": value_from}]}
    with pytest.raises(StartFailed) as failed:
        container_secrets.read(container, secrets.aws.emulator.account, "us-east-1", lambda _: None, fargate=True)
    assert failed.value.status_reason.startswith(
        "ResourceInitializationError: unable to pull secrets or registry auth: "
    )
    assert words in failed.value.status_reason
    detail = parse_job({"jobId": "1", "status": "FAILED", "statusReason": failed.value.status_reason})
    assert end_of_job(detail) is End.SECRET_UNREADABLE


def test_a_customers_key_must_let_the_role_decrypt(secrets: Secrets) -> None:
    """Only by way of the two services, as infra/roles.yaml allows it."""
    assert "Access to KMS is not allowed" in secrets.reason(secrets.encrypted)
    via = {"StringLike": {"kms:ViaService": ["secretsmanager.*.amazonaws.com", "ssm.*.amazonaws.com"]}}
    key = f"arn:aws:kms:*:{secrets.aws.emulator.account}:key/*"
    secrets.allow({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key, "Condition": via}, name="key")
    assert secrets.printed(secrets.encrypted) == ["encrypted-value"]


def test_a_definition_with_secrets_needs_an_execution_role(secrets: Secrets) -> None:
    """ECS reads them with it."""
    with pytest.raises(ClientError, match="executionRoleArn"):
        secrets.aws.definition("true", secrets=[{"name": "S", "valueFrom": secrets.arn}])


def test_services_that_have_secrets_ask_for_rights_on_them(secrets: Secrets) -> None:
    """A user may look at one, and not at its value nor at others."""
    iam = secrets.aws.iam
    iam.create_user(UserName="looker")
    statement = {"Effect": "Allow", "Action": ["secretsmanager:DescribeSecret", "ssm:ListTagsForResource"]}
    resources = [secrets.arn, f"arn:aws:ssm:us-east-1:{secrets.aws.emulator.account}:parameter/team/token"]
    document = json.dumps({"Version": "2012-10-17", "Statement": [{**statement, "Resource": resources}]})
    iam.put_user_policy(UserName="looker", PolicyName="look", PolicyDocument=document)
    key = iam.create_access_key(UserName="looker")["AccessKey"]
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    manager = secrets.aws.emulator.client("secretsmanager", **keys)
    ssm = secrets.aws.emulator.client("ssm", **keys)
    assert manager.describe_secret(SecretId=secrets.arn)["Name"] == "team/db"
    assert ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/team/token")["TagList"] == []
    for call in (
        lambda: manager.get_secret_value(SecretId=secrets.arn),
        lambda: manager.describe_secret(SecretId=secrets.other),
        lambda: ssm.get_parameters(Names=["/team/token"]),
        lambda: ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/team/denied"),
    ):
        with pytest.raises(ClientError, match="not authorized"):
            call()
