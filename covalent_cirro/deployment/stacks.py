"""The gateway to one CloudFormation stack: finds, reads and deletes it, and tells which setting an output feeds.

Knows neither templates nor the other stacks of a deployment. Writes no config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from covalent_cirro.aws.sessions import Access, translate
from covalent_cirro.errors import AwsError, StackError

OURS = "covalent-cirro"
"""First word of the description of our templates: what tells our stacks from others of the same name."""

SETTINGS = (
    "s3_bucket_name",
    "s3_prefix",
    "batch_queue",
    "batch_job_role_name",
    "batch_execution_role_name",
    "batch_job_log_group_name",
    "region",
)
"""Executor's settings that every deployment gives."""

OPTIONAL_SETTINGS = ("batch_gpu_queue", "batch_on_demand_queue", "batch_gpu_on_demand_queue")
"""Executor's settings that a deployment gives where it has machines for them."""

NOT_SETTINGS = frozenset(
    {
        *("VpcId", "SubnetIds", "SecurityGroupIds", "ImageRepository", "ImageRepositoryArn"),
        *("InstanceProfileArn", "SubmitterPolicy"),
    }
)
"""Outputs that are no setting by themselves: what they are for is said in their description."""


class Stack(NamedTuple):
    """A stack as CloudFormation describes it.

    Attributes:
        name: Its name.
        stack_id: Its ARN.
        status: ``"UPDATE_COMPLETE"``.
        reason: Why it has that status, in AWS's words; mostly empty.
        description: Of its template.
        parameters: Values of its parameters.
        outputs: Values of its outputs.
        tags: Its tags.
        changed_at: When it was made or last updated, ISO 8601 in UTC.
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
        """Whether CloudFormation is at work on it."""
        return self.status.endswith("_IN_PROGRESS") and not self.is_empty_shell

    @property
    def is_empty_shell(self) -> bool:
        """Whether it has a name only, made by a change set that was not executed."""
        return self.status == "REVIEW_IN_PROGRESS"

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        return self.status == "DELETE_COMPLETE"

    @property
    def is_ready(self) -> bool:
        """Whether it is whole, and can be updated."""
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
    """A resource that a stack has.

    Attributes:
        logical_id: Its name in the template.
        resource_type: ``"AWS::S3::Bucket"``.
        physical_id: Its name, id or ARN in AWS, whichever its type has.
        status: ``"CREATE_COMPLETE"``.
    """

    logical_id: str
    resource_type: str
    physical_id: str
    status: str


# --- names ----------------------------------------------------------------------------------------


def setting_name(output_key: str) -> str:
    """The setting that an output feeds: ``S3BucketName``, ``s3_bucket_name``. Inverse of `output_key`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", output_key).lower()


def output_key(setting: str) -> str:
    """The output that feeds a setting: ``s3_bucket_name``, ``S3BucketName``. Inverse of `setting_name`."""
    return "".join(word.capitalize() for word in setting.split("_"))


def settings_from_outputs(outputs: Mapping[str, str]) -> dict[str, str]:
    """The executor's settings that the outputs of a deployment give.

    Outputs that this version does not know are left out: a newer template must not break an older executor.

    Raises:
        StackError: An output is missing that every deployment of ours has.
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
    """A stack; `None` where there is none of this name. By its ARN a deleted one is found too.

    Args:
        client: A boto3 CloudFormation client.
        name_or_id: Its name or ARN.

    Raises:
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    try:
        found = call(client, "DescribeStacks", name_or_id, StackName=name_or_id)["Stacks"]
    except AwsError as error:
        # CloudFormation has no code of its own for a stack that is not there.
        if error.code == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return _stack(found[0]) if found else None


def get(client: Any, stack_id: str) -> Stack:
    """A stack that is known to be there.

    Raises:
        StackError: It is not.
    """
    stack = find(client, stack_id)
    if stack is None:
        raise StackError(f"stack {stack_id} has vanished while it was waited for: somebody deleted it. Deploy again.")
    return stack


def require_ours(stack: Stack) -> None:
    """Leave the stacks of others alone. One that is only reserved by a change set has nothing that could be lost.

    Raises:
        StackError: It is not one of ours.
    """
    if stack.is_empty_shell and not stack.description:
        return
    if not stack.description.startswith(OURS):
        raise StackError(
            f"stack {stack.name!r} is not one of covalent-cirro (its description does not begin with {OURS!r}), so it "
            "is left alone. Choose another name with --stack-name."
        )


def resources(client: Any, stack: Stack) -> list[Resource]:
    """What a stack has made and not deleted."""
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
    """Ask for a stack's deletion, which then goes on in AWS."""
    call(client, "DeleteStack", stack.name, StackName=stack.stack_id)


def call(client: Any, operation: str, stack_name: str, **request: Any) -> dict[str, Any]:
    """One call of CloudFormation's.

    Args:
        client: A boto3 CloudFormation client.
        operation: ``"DescribeStacks"``.
        stack_name: For errors.
        request: Its parameters.

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
