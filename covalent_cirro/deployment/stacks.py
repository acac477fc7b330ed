"""The gateway to CloudFormation stacks: finds, reads and deletes one, and maps outputs to settings.

Knows neither templates nor which stacks make a deployment. Writes no config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import Access, translate
from covalent_cirro.errors import AwsError, StackError

OURS = "covalent-cirro"
"""First word of the description of the templates, by which stacks of covalent-cirro are recognised."""

SETTINGS = (
    "s3_bucket_name",
    "s3_prefix",
    "batch_queue",
    "batch_job_role_name",
    "batch_execution_role_name",
    "batch_job_log_group_name",
    "region",
)
"""Settings of the executor that every deployment has as outputs."""

OPTIONAL_SETTINGS = (
    "batch_gpu_queue",
    "batch_on_demand_queue",
    "batch_gpu_on_demand_queue",
    "batch_fargate_queue",
    "cpu_architecture",
    "batch_multi_node_queue",
    "share_identifier",
    "shared_files",
)
"""Settings of the executor that a deployment has as outputs if it has what they name."""

BY_PARAMETER = ("batch_multi_node_queue", "batch_fargate_queue", "share_identifier", "shared_files")
"""Those of the optional settings that a deployment has only if a parameter asks for what they name."""

NOT_SETTINGS = frozenset(
    {
        *("VpcId", "SubnetIds", "SecurityGroupIds", "ImageRepository", "ImageRepositoryArn"),
        *("FileSystemArn", "AccessPointArn", "InstanceProfileArn", "SubmitterPolicy", "ItemStopperPolicy"),
    }
)
"""Outputs that are no settings; their descriptions say what they are for."""


class Stack(NamedTuple):
    """A stack as CloudFormation describes it.

    Attributes:
        name: Name of the stack.
        stack_id: ARN of the stack.
        status: Status, ``"UPDATE_COMPLETE"``.
        reason: Why it has that status, in AWS's words; mostly empty.
        description: Description of its template.
        parameters: Values of its parameters.
        outputs: Values of its outputs.
        tags: Its tags.
        changed_at: Time of its creation or last update, ISO 8601 in UTC.
    """

    name: str
    stack_id: str
    status: str
    reason: str
    description: str
    parameters: dict[str, str]
    outputs: dict[str, str]
    tags: dict[str, str]
    changed_at: str = ""

    @property
    def is_changing(self) -> bool:
        """Whether CloudFormation is changing it."""
        return self.status.endswith("_IN_PROGRESS") and not self.is_empty_shell

    @property
    def is_empty_shell(self) -> bool:
        """Whether it has no resources, because its first change set was not executed."""
        return self.status == "REVIEW_IN_PROGRESS"

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        return self.status == "DELETE_COMPLETE"

    @property
    def is_ready(self) -> bool:
        """Whether it is complete, and can be updated."""
        return self.status in _READY


_READY = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    }
)


class Resource(NamedTuple):
    """A resource of a stack.

    Attributes:
        logical_id: Name in the template.
        resource_type: Type, ``"AWS::S3::Bucket"``.
        physical_id: Name, id or ARN in AWS, depending on the type.
        status: Status, ``"CREATE_COMPLETE"``.
    """

    logical_id: str
    resource_type: str
    physical_id: str
    status: str


# --- names ----------------------------------------------------------------------------------------


def output_key(setting: str) -> str:
    """The output of a setting: ``S3BucketName`` for ``s3_bucket_name``."""
    return "".join(word.capitalize() for word in setting.split("_"))


def settings_from_outputs(outputs: Mapping[str, str]) -> dict[str, str]:
    """The settings of the executor in the outputs of a deployment.

    Unknown outputs are left out: an older executor must work with a newer template.

    Raises:
        StackError: An output is missing that every deployment has.
    """
    settings = {
        setting: outputs[output_key(setting)]
        for setting in (*SETTINGS, *OPTIONAL_SETTINGS)
        if output_key(setting) in outputs
    }
    missing = [output_key(setting) for setting in SETTINGS if setting not in settings]
    if missing:
        raise StackError(
            f"the deployment has no output {', '.join(missing)}: it is not ready yet, was made from an older "
            "template, or is not one of covalent-cirro. Deploy it again."
        )
    return settings


# --- AWS ------------------------------------------------------------------------------------------


def find(client: Any, name_or_id: str) -> Stack | None:
    """A stack; `None` where it does not exist. By its ARN a deleted stack is found too.

    Args:
        client: A boto3 CloudFormation client.
        name_or_id: Name or ARN of the stack.

    Raises:
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    try:
        found = call(client, "DescribeStacks", name_or_id, StackName=name_or_id)["Stacks"]
    except AwsError as error:
        # CloudFormation has no error code for a stack that does not exist.
        if error.code == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return _stack(found[0]) if found else None


def all_beginning_with(client: Any, start: str) -> list[Stack]:
    """The stacks of covalent-cirro whose names begin with a text, in the order of their names.

    Raises:
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    found = []
    token: dict[str, str] = {}
    while True:
        page = call(client, "DescribeStacks", f"{start}*", **token)
        found += [_stack(each) for each in page["Stacks"] if each["StackName"].startswith(start)]
        if not page.get("NextToken"):
            ours = [stack for stack in found if stack.description.startswith(OURS)]
            return sorted(ours, key=lambda stack: stack.name)
        token = {"NextToken": page["NextToken"]}


def get(client: Any, stack_id: str) -> Stack:
    """A stack that should exist.

    Raises:
        StackError: It does not exist.
    """
    stack = find(client, stack_id)
    if stack is None:
        raise StackError(
            f"stack {stack_id} does not exist any more: somebody deleted it while it was waited for. Deploy again."
        )
    return stack


def require_ours(stack: Stack) -> None:
    """Refuse the stacks of others, except an empty one, in which nothing could be lost.

    Raises:
        StackError: It is not one of covalent-cirro.
    """
    if stack.is_empty_shell and not stack.description:
        return
    if not stack.description.startswith(OURS):
        raise StackError(
            f"stack {stack.name!r} is not one of covalent-cirro (its description does not begin with {OURS!r}), so it "
            "is left alone. Choose another name with --stack-name."
        )


def resources(client: Any, stack: Stack) -> list[Resource]:
    """The resources of a stack that exist."""
    found = []
    for page in _pages(client, "ListStackResources", stack.stack_id, StackName=stack.stack_id):
        found += [
            Resource(
                each["LogicalResourceId"], each["ResourceType"], each["PhysicalResourceId"], each["ResourceStatus"]
            )
            for each in page["StackResourceSummaries"]
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
        ]
    return found


def begin_delete(client: Any, stack: Stack) -> None:
    """Begin to delete a stack; CloudFormation goes on by itself."""
    call(client, "DeleteStack", stack.name, StackName=stack.stack_id)


def call(client: Any, operation: str, stack_name: str, **request: Any) -> dict[str, Any]:
    """Call an operation of CloudFormation.

    Args:
        client: A boto3 CloudFormation client.
        operation: Name of the operation, ``"DescribeStacks"``.
        stack_name: Name of the stack, for messages.
        request: Parameters of the call.

    Raises:
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
    with translate(f"cloudformation:{operation}", access=access_of_client(client), of=f"stack {stack_name!r}"):
        response: dict[str, Any] = getattr(client, method)(**request)
        return response


def access_of_client(client: Any) -> Access:
    """Region and endpoint of a client, for messages."""
    endpoint = str(client.meta.endpoint_url)
    return Access(None, None, client.meta.region_name, None if ".amazonaws.com" in endpoint else endpoint)


def _pages(client: Any, operation: str, stack_name: str, **request: Any) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        page = call(client, operation, stack_name, **request, **token)
        yield page
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def _stack(described: Mapping[str, Any]) -> Stack:
    changed = described.get("LastUpdatedTime") or described.get("CreationTime")
    return Stack(
        name=described["StackName"],
        stack_id=described["StackId"],
        status=described["StackStatus"],
        reason=described.get("StackStatusReason") or "",
        description=described.get("Description") or "",
        parameters={each["ParameterKey"]: each.get("ParameterValue", "") for each in described.get("Parameters") or []},
        outputs={each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs") or []},
        tags={each["Key"]: each["Value"] for each in described.get("Tags") or []},
        changed_at="" if changed is None else changed.isoformat(timespec="seconds"),
    )
