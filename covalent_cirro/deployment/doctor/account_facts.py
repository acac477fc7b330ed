"""The gateway to facts about an account: caller, permissions, roles, bucket, log group, quotas, cost tags.

It changes nothing, except for one test object; `verdicts` decides what the facts mean.
"""

from __future__ import annotations

import datetime
import email.utils
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.aws.clients import Clients
from covalent_cirro.aws.secret_lookups import to_be_deleted
from covalent_cirro.aws.sessions import translate
from covalent_cirro.deployment.doctor.verdicts.caller import Caller
from covalent_cirro.deployment.doctor.verdicts.data import Security, tls_only
from covalent_cirro.errors import AwsError, CirroError, NotFound
from covalent_cirro.settings.variables import SecretReference

PROBE = b"written and deleted by cirro doctor\n"


class Role(NamedTuple):
    """A role: its ARN and trust policy."""

    arn: str
    trust: Mapping[str, Any]


# --- the caller -------------------------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """The error about missing or refused credentials, with the clock's deviation, which may be the cause."""

    error: CirroError
    clock_ahead_s: float | None


def identity(clients: Clients) -> Caller | Refusal:
    """The caller as AWS knows it, and the deviation of this machine's clock."""
    began = time.time()
    try:
        with clients.asking("sts:GetCallerIdentity") as sts:
            signer = sts._request_signer._credentials  # the credentials that the chain found
            began = time.time()
            answer = sts.get_caller_identity()
    except CirroError as error:
        response = getattr(error.__cause__, "response", None) or {}
        return Refusal(error, _ahead(response, began))
    return Caller(
        account=str(answer["Account"]),
        arn=str(answer["Arn"]),
        method=str(getattr(signer, "method", None) or "the environment"),
        expires_in_s=_expires_in_s(signer),
        clock_ahead_s=_ahead(answer, began),
    )


def _ahead(response: Mapping[str, Any], began: float) -> float | None:
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None:
        return None
    try:
        theirs = email.utils.parsedate_to_datetime(str(date)).timestamp()
    except ValueError:
        return None
    return (began + time.time()) / 2 - theirs


def _expires_in_s(credentials: Any) -> float | None:
    # botocore's public API says only whether they expire soon; the attribute exists since 2014.
    expiry = getattr(credentials, "_expiry_time", None)
    if not isinstance(expiry, datetime.datetime):
        return None
    return (expiry - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


def denied(
    clients: Clients, arn: str, questions: Sequence[tuple[Sequence[str], Sequence[str], Mapping[str, str]]]
) -> list[tuple[str, str, str]]:
    """The actions that IAM would refuse to the caller.

    Args:
        clients: Clients of the account.
        arn: ARN of the caller, from STS.
        questions: For each simulation: actions, resources, and values of context keys.

    Returns:
        Action, resource and decision (``"implicitDeny"``) for each refusal.
    """
    source = _policy_source(clients, arn)
    refused = []
    for actions, resources, context in questions:
        with clients.asking("iam:SimulatePrincipalPolicy", of=source) as iam:
            pages = iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=source,
                ActionNames=list(actions),
                ResourceArns=list(resources),
                ContextEntries=[
                    {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
                    for key, value in context.items()
                ],
            )
            for result in [each for page in pages for each in page["EvaluationResults"]]:
                by_resource = result.get("ResourceSpecificResults") or [
                    {
                        "EvalResourceName": result.get("EvalResourceName", "*"),
                        "EvalResourceDecision": result["EvalDecision"],
                    }
                ]
                refused += [
                    (result["EvalActionName"], each["EvalResourceName"], each["EvalResourceDecision"])
                    for each in by_resource
                    if each["EvalResourceDecision"] != "allowed"
                ]
    return refused


def _policy_source(clients: Clients, arn: str) -> str:
    """The ARN to simulate: for a role's session that of the role, whose path only IAM knows."""
    head, _, rest = arn.partition(":assumed-role/")
    return role(clients, rest.split("/")[0]).arn if rest else head


# --- roles ------------------------------------------------------------------------------------------------------------


def role(clients: Clients, name_or_arn: str) -> Role:
    """A role.

    Raises:
        NotFound: It does not exist.
    """
    name = name_or_arn.rpartition("/")[2]
    with clients.asking("iam:GetRole", of=f"role {name!r}") as iam:
        found = iam.get_role(RoleName=name)["Role"]
    return Role(str(found["Arn"]), found["AssumeRolePolicyDocument"])


def role_of_profile(clients: Clients, name_or_arn: str) -> Role:
    """The role of an instance profile.

    Raises:
        NotFound: The profile does not exist, or has no role.
    """
    name = name_or_arn.rpartition("/")[2]
    with clients.asking("iam:GetInstanceProfile", of=f"instance profile {name!r}") as iam:
        roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    if not roles:
        raise NotFound(f"instance profile {name!r} has no role", operation="iam:GetInstanceProfile", code="NoRole")
    return Role(str(roles[0]["Arn"]), roles[0]["AssumeRolePolicyDocument"])


def find_secret(clients: Clients, found: SecretReference) -> str:
    """Look a secret up, without its value.

    Returns:
        Since when it is to be deleted, and cannot be read; empty where it is not.

    Raises:
        AwsError: It is not there (`secret_lookups.MISSING_CODES`), or the caller may not look.
    """
    access = clients.access._replace(region=found.region or clients.access.region)
    if found.service == "secretsmanager":
        with translate("secretsmanager:DescribeSecret", access=access, of=f"secret {found.id!r}"):
            return to_be_deleted(clients("secretsmanager", found.region or None).describe_secret(SecretId=found.id))
    with translate("ssm:ListTagsForResource", access=access, of=f"parameter {found.name!r}"):
        ssm = clients("ssm", found.region or None)
        ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=found.name)
    return ""


# --- tags and quotas --------------------------------------------------------------------------------------------------


def cost_tag_status(clients: Clients, tag: str) -> str | None:
    """Status of a cost allocation tag, ``"Active"`` or ``"Inactive"``; `None` where the account does not know it."""
    with clients.asking("ce:ListCostAllocationTags", of=f"tag {tag!r}") as explorer:
        found = explorer.list_cost_allocation_tags(TagKeys=[tag], Type="UserDefined")["CostAllocationTags"]
    return next((str(each["Status"]) for each in found if each["TagKey"] == tag), None)


def vcpu_quota(clients: Clients, code: str, service: str = "ec2") -> float:
    """The value of a quota of EC2 or Fargate; AWS's default where the account has no value of its own."""
    try:
        with clients.asking("servicequotas:GetServiceQuota", of=f"quota {code}") as quotas:
            return float(quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])
    except AwsError as error:
        if error.code != "NoSuchResourceException":
            raise
    with clients.asking("servicequotas:GetAWSDefaultServiceQuota", of=f"quota {code}") as quotas:
        return float(quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])


# --- data -------------------------------------------------------------------------------------------------------------


def bucket_region(clients: Clients, name: str) -> str:
    """The region of a bucket.

    Raises:
        NotFound: It does not exist.
        AccessDenied: It belongs to another account, or may not be listed.
    """
    with clients.asking("s3:HeadBucket", of=f"bucket {name!r}") as s3:
        return _head(s3, name).get("x-amz-bucket-region") or clients.region


def bucket_security(clients: Clients, name: str) -> Security:
    """Encryption and policy of a bucket."""
    of = f"bucket {name!r}"
    encryption = _absent_is_none(
        clients, "s3:GetBucketEncryption", of, lambda s3: s3.get_bucket_encryption(Bucket=name)
    )
    policy = _absent_is_none(clients, "s3:GetBucketPolicy", of, lambda s3: s3.get_bucket_policy(Bucket=name))
    rules = (encryption or {}).get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    algorithms = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules]
    return Security(next((str(each) for each in algorithms if each), None), tls_only((policy or {}).get("Policy")))


def _head(s3: Any, name: str) -> dict[str, str]:
    from botocore.exceptions import ClientError

    try:
        answer = s3.head_bucket(Bucket=name)
    except ClientError as error:
        headers: dict[str, str] = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 301 and "x-amz-bucket-region" in headers:
            return headers
        raise
    return dict(answer["ResponseMetadata"]["HTTPHeaders"])


_NOT_SET = frozenset({"ServerSideEncryptionConfigurationNotFoundError", "NoSuchBucketPolicy"})


def _absent_is_none(clients: Clients, operation: str, of: str, call: Callable[[Any], Any]) -> dict[str, Any] | None:
    try:
        with clients.asking(operation, of=of) as s3:
            return dict(call(s3))
    except AwsError as error:
        if error.code in _NOT_SET:
            return None
        raise


def write_probe(clients: Clients, bucket: str, key_prefix: str) -> None:
    """Put an object under the prefix, read it back and delete it.

    Raises:
        AccessDenied, NotFound, AwsError: One of the three calls failed.
    """
    # Under jobs/, so that it expires like these if it may not be deleted.
    key = f"{key_prefix}jobs/doctor/{uuid.uuid4().hex}"
    of = f"s3://{bucket}/{key}"
    with clients.asking("s3:PutObject", of=of) as s3:
        s3.put_object(Bucket=bucket, Key=key, Body=PROBE)
    try:
        with clients.asking("s3:GetObject", of=of) as s3:
            s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    finally:
        with clients.asking("s3:DeleteObject", of=of) as s3:
            s3.delete_object(Bucket=bucket, Key=key)


def log_retention_days(clients: Clients, name: str) -> int | None:
    """Days after which a log group deletes its events; `None` if it keeps them for ever.

    Raises:
        NotFound: The log group does not exist.
    """
    with clients.asking("logs:DescribeLogGroups", of=f"log group {name!r}") as logs:
        pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
        for group in (each for page in pages for each in page["logGroups"]):
            if group["logGroupName"] == name:
                days = group.get("retentionInDays")
                return None if days is None else int(days)
    raise NotFound(
        f"logs:DescribeLogGroups: there is no log group {name!r}",
        operation="logs:DescribeLogGroups",
        code="ResourceNotFoundException",
    )
