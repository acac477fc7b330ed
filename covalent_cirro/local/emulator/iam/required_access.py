"""Which actions on which resources a request needs to be allowed, with its condition keys.

Source: Service Authorization Reference (2026). Where AWS was seen to do otherwise, this module does so, and names
the source. `serving_access` has the services of what is served. It must not know policies or principals.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote

from covalent_cirro.local.emulator.batch import batch_api, resource_operations
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.http.operations import Operation
from covalent_cirro.local.emulator.http.server import Environ
from covalent_cirro.local.emulator.iam import serving_access
from covalent_cirro.local.emulator.iam.policies import Access, Context


class Request(NamedTuple):
    """A request, and where to look up what it names.

    Attributes:
        environ: Its method, path, query and headers.
        body: Reads its body; it can be called more than once.
        account: Account of the caller.
        region: Region of the request.
        batch: AWS Batch of that region.
        missing: Whether an S3 bucket exists and has no such key.
    """

    environ: Environ
    body: Callable[[], bytes]
    account: str
    region: str
    batch: Batch
    missing: Callable[[str, str], bool]

    def arn(self, service: str, resource: str) -> str:
        """An ARN of the account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def query(self) -> dict[str, str]:
        """The query's parameters, the first of each name."""
        return {
            name: values[0] for name, values in parse_qs(self.environ["QUERY_STRING"], keep_blank_values=True).items()
        }


def accesses(asked: Operation, request: Request) -> list[Access]:
    """What the caller must be allowed to do, in the order in which AWS checks it."""
    if asked.service == "batch":
        return _batch(asked.name, request)
    if asked.service == "s3":
        return _s3(asked.name, request)
    action = f"{PREFIXES.get(asked.service, asked.service)}:{asked.name}"
    if action in ALWAYS_ALLOWED:
        return []
    given = _parameters(request)
    serving = serving_access.accesses(asked.service, asked.name, given, request.arn)
    if serving is not None:
        return serving
    resources_of = RESOURCES.get(asked.service)
    found = ["*"] if resources_of is None else resources_of(asked.name, given, request)
    return [Access(action, resource) for resource in found]


ALWAYS_ALLOWED = frozenset(("sts:GetCallerIdentity", "sts:GetSessionToken"))
"""Actions that need no permission (STS API Reference)."""
PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}
"""Prefix of the actions of a service, where it is not the name by which its requests are signed."""


def _parameters(request: Request) -> Json:
    """The parameters of a request of the JSON or the query protocol."""
    body = request.body().decode("utf-8", "replace")
    if body.startswith("{"):
        try:
            return dict(json.loads(body))
        except ValueError:
            return {}
    return {**request.query(), **dict(parse_qsl(body))}


# --- AWS Batch ----------------------------------------------------------------------------------------------------

_BY_JOB = {"CancelJob": "CancelJob", "TerminateJob": "TerminateJob"}
_BY_JOBS = {"CancelJobs": "CancelJob", "TerminateJobs": "TerminateJob"}
"""Bulk calls have no action of their own. AWS refuses each job separately; here one refused job refuses the call."""
_BY_NAME = {
    "CreateComputeEnvironment": ("compute-environment", "computeEnvironmentName"),
    "UpdateComputeEnvironment": ("compute-environment", "computeEnvironment"),
    "DeleteComputeEnvironment": ("compute-environment", "computeEnvironment"),
    "CreateJobQueue": ("job-queue", "jobQueueName"),
    "UpdateJobQueue": ("job-queue", "jobQueue"),
    "DeleteJobQueue": ("job-queue", "jobQueue"),
    "GetJobQueueSnapshot": ("job-queue", "jobQueue"),
    "CreateSchedulingPolicy": ("scheduling-policy", "name"),
    "UpdateSchedulingPolicy": ("scheduling-policy", "arn"),
    "DeleteSchedulingPolicy": ("scheduling-policy", "arn"),
    "CreateConsumableResource": ("consumable-resource", "consumableResourceName"),
    "DescribeConsumableResource": ("consumable-resource", "consumableResource"),
    "UpdateConsumableResource": ("consumable-resource", "consumableResource"),
    "DeleteConsumableResource": ("consumable-resource", "consumableResource"),
    "ListJobsByConsumableResource": ("consumable-resource", "consumableResource"),
    "RegisterJobDefinition": ("job-definition", "jobDefinitionName"),
    "DeregisterJobDefinition": ("job-definition", "jobDefinition"),
    "TagResource": ("", "resourceArn"),
    "UntagResource": ("", "resourceArn"),
    "ListTagsForResource": ("", "resourceArn"),
}
"""Operations on one resource: its kind, and the parameter that names it. All others but those on jobs are on ``*``."""


def _batch(name: str, request: Request) -> list[Access]:
    batch, environ = request.batch, request.environ
    try:
        given = dict(json.loads(request.body() or b"{}"))
    except ValueError:
        given = {}  # malformed: AWS Batch refuses it
    found = batch_api.route(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    given.update(found[1] if found is not None else {})
    tags: dict[str, str] = given.get("tags") or {}
    asked = {f"aws:RequestTag/{key}": [str(value)] for key, value in tags.items()}
    if tags:
        asked["aws:TagKeys"] = list(tags)
    if name == "SubmitJob":
        return _submit_job(batch, given, asked)
    if name in _BY_JOB or name in _BY_JOBS:
        action = _BY_JOB.get(name) or _BY_JOBS[name]
        ids = [given.get("jobId", "")] if name in _BY_JOB else given.get("jobs") or []
        return [Access(f"batch:{action}", arn, _tags_of(batch, arn)) for arn in (_arn(batch, "job", i) for i in ids)]
    if name not in _BY_NAME:
        return [Access(f"batch:{name}")]
    kind, key = _BY_NAME[name]
    arn = _arn(batch, kind, str(given.get(key, "")))
    needed = [Access(f"batch:{name}", arn, {**_tags_of(batch, arn), **asked})]
    if name == "RegisterJobDefinition":
        containers = _containers(given)
        needed = [needed[0]._replace(context={**asked, **_definition_keys(each)}) for each in containers]
        roles = {each[key]: None for each in containers for key in ("jobRoleArn", "executionRoleArn") if each.get(key)}
        passed = {"iam:PassedToService": [serving_access.TASKS]}
        needed += [Access("iam:PassRole", _role(request.account, role), passed) for role in roles]
        needed += _consumables(batch, name, given.get("consumableResourceProperties"))
    if tags and name != "TagResource":
        needed.append(Access("batch:TagResource", arn, asked))
    return needed


def _submit_job(batch: Batch, given: Json, asked: Context) -> list[Access]:
    """SubmitJob needs the definition and the queue (User Guide, "Resource: Restrict to a job queue").

    The reference has ``job`` among the required resource types as well; policies without it work (aws/aws-cdk,
    BatchSubmitJob). With tags, the same two are asked for ``batch:TagResource`` too: AWS was seen to name the
    definition (wri/gfw-data-api#175), and a role that has it on both and on no ``job/*`` to submit
    (TerraConstructs/base#137). Whether it asks it of the queue is unverified.
    """
    definition = _arn(batch, "job-definition", str(given.get("jobDefinition", "")))
    queue = _arn(batch, "job-queue", str(given.get("jobQueue", "")))
    share = {"batch:ShareIdentifier": [given["shareIdentifier"]]} if given.get("shareIdentifier") else {}
    # Without a revision the definition's tags do not count (User Guide, Restrict job submission by resource tags).
    found = ((definition, _tags_of(batch, definition)), (queue, _tags_of(batch, queue)))
    needed = [Access("batch:SubmitJob", arn, {**tags, **asked, **share}) for arn, tags in found]
    needed += _consumables(batch, "SubmitJob", given.get("consumableResourcePropertiesOverride"))
    return needed + [Access("batch:TagResource", arn, {**tags, **asked}) for arn, tags in found if asked]


def _consumables(batch: Batch, name: str, given: Json | None) -> list[Access]:
    """The consumable resources that a request names; that those of the definition are not asked for is unverified."""
    entries = (given or {}).get("consumableResourceList") or []
    arns = [_arn(batch, "consumable-resource", str(each.get("consumableResource", ""))) for each in entries]
    return [Access(f"batch:{name}", arn, _tags_of(batch, arn)) for arn in arns]


def _containers(definition: Json) -> list[Json]:
    """The containers of a definition; that a multi-node one is asked for each of its ranges is unverified."""
    ranges = (definition.get("nodeProperties") or {}).get("nodeRangeProperties") or []
    return [each.get("container") or {} for each in ranges] or [definition.get("containerProperties") or {}]


def _definition_keys(container: Json) -> Context:
    """Condition keys of RegisterJobDefinition. What it leaves out has no key (unverified for ``batch:Privileged``)."""
    log = container.get("logConfiguration") or {}
    options = log.get("options") or {}
    values = {
        "batch:Image": container.get("image"),
        "batch:User": container.get("user"),
        "batch:Privileged": str(container["privileged"]).lower() if container.get("privileged") is not None else None,
        "batch:LogDriver": log.get("logDriver"),
        "batch:AWSLogsGroup": options.get("awslogs-group"),
        "batch:AWSLogsRegion": options.get("awslogs-region"),
        "batch:AWSLogsStreamPrefix": options.get("awslogs-stream-prefix"),
        "batch:AWSLogsCreateGroup": options.get("awslogs-create-group"),
    }
    return {key: [value] for key, value in values.items() if value is not None}


def _arn(batch: Batch, kind: str, name: str) -> str:
    return name if name.startswith("arn:") else batch.arn(kind, name)


def _role(account: str, name: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:iam::{account}:role/{name}"


def _tags_of(batch: Batch, arn: str) -> Context:
    """``aws:ResourceTag/...`` of what has tags; an array's children have none."""
    try:
        tags = resource_operations.list_tags_for_resource(batch, {"resourceArn": arn})["tags"]
    except ServiceError:
        return {}
    return {f"aws:ResourceTag/{key}": [value] for key, value in tags.items()}


# --- S3 -----------------------------------------------------------------------------------------------------------

_ON_OBJECT = {
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "GetObjectAttributes": "GetObjectAttributes",
    "PutObject": "PutObject",
    "PostObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
    "ListParts": "ListMultipartUploadParts",
    "DeleteObject": "DeleteObject",
    "GetObjectTagging": "GetObjectTagging",
    "PutObjectTagging": "PutObjectTagging",
    "DeleteObjectTagging": "DeleteObjectTagging",
    "GetObjectAcl": "GetObjectAcl",
    "PutObjectAcl": "PutObjectAcl",
}
"""Action by operation (S3 User Guide, Required permissions for S3 API operations)."""
_ON_BUCKET = {
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeleteBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "GetBucketCors": "GetBucketCORS",
    "PutBucketCors": "PutBucketCORS",
}
"""Action by operation, where their names differ."""
_VERSIONED = {"GetObject": "GetObjectVersion", "DeleteObject": "DeleteObjectVersion"}
_NO_OBJECT_YET = frozenset(("CreateMultipartUpload", "UploadPart", "UploadPartCopy"))
"""Operations without conditional headers; for them ``s3:ObjectCreationOperation`` is false (S3 User Guide, Enforce
conditional writes on Amazon S3 buckets)."""
_HEADER_KEYS = {
    "s3:if-none-match": "HTTP_IF_NONE_MATCH",
    "s3:if-match": "HTTP_IF_MATCH",
    "s3:x-amz-server-side-encryption": "HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION",
    "s3:x-amz-acl": "HTTP_X_AMZ_ACL",
    "s3:x-amz-storage-class": "HTTP_X_AMZ_STORAGE_CLASS",
    "s3:x-amz-copy-source": "HTTP_X_AMZ_COPY_SOURCE",
    "s3:x-amz-metadata-directive": "HTTP_X_AMZ_METADATA_DIRECTIVE",
}


def _s3(name: str, request: Request) -> list[Access]:
    environ, query = request.environ, request.query()
    bucket, _, key = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace").lstrip("/").partition("/")
    if name == "ListBuckets":
        return [Access("s3:ListAllMyBuckets")]
    if name == "DeleteObjects":
        # AWS refuses each key separately, inside its answer; here one refused key refuses the call.
        return [Access("s3:DeleteObject", f"arn:aws:s3:::{bucket}/{each}") for each in _keys(request.body())]
    if name not in _ON_OBJECT:
        names = {f"s3:{each}": [query[each]] for each in ("prefix", "delimiter", "max-keys") if each in query}
        return [Access(f"s3:{_ON_BUCKET.get(name, name)}", f"arn:aws:s3:::{bucket}", names)]
    context = {key: [environ[header]] for key, header in _HEADER_KEYS.items() if header in environ}
    action = _ON_OBJECT[name]
    if action == "PutObject":
        context["s3:ObjectCreationOperation"] = [str(name not in _NO_OBJECT_YET).lower()]
    if "versionId" in query:
        action = _VERSIONED.get(action, action)
    needed = [Access(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}", context)]
    if name in ("PutObject", "CopyObject", "CreateMultipartUpload"):
        extra = {"PutObjectTagging": "HTTP_X_AMZ_TAGGING", "PutObjectAcl": "HTTP_X_AMZ_ACL"}
        needed += [needed[0]._replace(action=f"s3:{each}") for each, header in extra.items() if header in environ]
    read = (bucket, key) if name in ("GetObject", "HeadObject", "GetObjectTagging", "GetObjectAttributes") else None
    if name in ("CopyObject", "UploadPartCopy"):
        source = unquote(environ["HTTP_X_AMZ_COPY_SOURCE"]).lstrip("/").partition("?")[0]
        needed.insert(0, Access("s3:GetObject", f"arn:aws:s3:::{source}"))
        from_bucket, _, from_key = source.partition("/")
        read = (from_bucket, from_key)
    if read is not None and request.missing(*read):
        # Without s3:ListBucket the answer is 403, not 404, with no condition key s3:prefix (S3 API, GetObject).
        needed.append(Access("s3:ListBucket", f"arn:aws:s3:::{read[0]}"))
    return needed


def _keys(body: bytes) -> list[str]:
    return [html.unescape(key) for key in re.findall(r"<Key>([^<]*)</Key>", body.decode("utf-8", "replace"))]


# --- the others ---------------------------------------------------------------------------------------------------


def _logs(name: str, given: Json, request: Request) -> list[str]:
    """ARN of a stream; for a group, that of a stream without a name, as AWS writes it (mweagle/Sparta#7)."""
    group = given.get("logGroupName") or str(given.get("logGroupIdentifier", "")).rpartition("log-group:")[2]
    if name == "DescribeLogGroups":
        return [request.arn("logs", "log-group::log-stream:")]
    stream = given.get("logStreamName", "") if name in ("GetLogEvents", "PutLogEvents", "CreateLogStream") else ""
    return [request.arn("logs", f"log-group:{group}:log-stream:{stream}")]


def _ecr(name: str, given: Json, request: Request) -> list[str]:
    if name == "GetAuthorizationToken":
        return ["*"]
    repositories = given.get("repositoryNames") or [given.get("repositoryName") or "*"]
    return [request.arn("ecr", f"repository/{repository}") for repository in repositories]


def _cloudformation(name: str, given: Json, request: Request) -> list[str]:
    stack = str(given.get("StackName") or "")
    if not stack:
        return ["*"]
    return [stack if stack.startswith("arn:") else request.arn("cloudformation", f"stack/{stack}/*")]


def _iam(name: str, given: Json, request: Request) -> list[str]:
    kinds: Mapping[str, str] = {"RoleName": "role", "UserName": "user", "InstanceProfileName": "instance-profile"}
    if name == "CreateServiceLinkedRole":
        service = str(given.get("AWSServiceName"))
        return [f"arn:aws:iam::{request.account}:role/aws-service-role/{service}/*"]
    if given.get("PolicyArn") and not any(key in given for key in kinds):
        return [str(given["PolicyArn"])]
    found = [f"arn:aws:iam::{request.account}:{kind}/{given[key]}" for key, kind in kinds.items() if given.get(key)]
    return found or ["*"]


def _sts(name: str, given: Json, request: Request) -> list[str]:
    return [str(given.get("RoleArn") or "*")]


def _secretsmanager(name: str, given: Json, request: Request) -> list[str]:
    if not given.get("SecretId"):
        return [request.arn("secretsmanager", f"secret:{given['Name']}-??????")] if given.get("Name") else ["*"]
    secret = str(given["SecretId"])
    # By its name, AWS asks for the whole ARN, whose end is random: a policy has question marks in its place.
    return [secret if secret.startswith("arn:") else request.arn("secretsmanager", f"secret:{secret}-??????")]


def _ssm(name: str, given: Json, request: Request) -> list[str]:
    names = given.get("Names") or [given.get("Name") or given.get("ResourceId")]
    if name == "DescribeParameters" or not all(names):
        return ["*"]
    return [each if each.startswith("arn:") else request.arn("ssm", f"parameter/{each.lstrip('/')}") for each in names]


RESOURCES: dict[str, Callable[[str, Any, Request], list[str]]] = {
    "logs": _logs,
    "ecr": _ecr,
    "cloudformation": _cloudformation,
    "iam": _iam,
    "sts": _sts,
    "secretsmanager": _secretsmanager,
    "ssm": _ssm,
}
"""By service, the resources of a request; an action of any other service is on ``*``."""
