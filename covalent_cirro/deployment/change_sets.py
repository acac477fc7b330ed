"""Change sets: CloudFormation says what a template and its parameters would change in a stack, before it changes.

Knows one stack at a time, and asks no user.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from covalent_cirro.deployment import stacks
from covalent_cirro.deployment.stack_events import FIRST_POLL_S, Watch, advice, because
from covalent_cirro.deployment.stacks import Stack, call
from covalent_cirro.errors import AwsError, StackError

NOTHING_TO_DO = ("didn't contain changes", "No updates are to be performed")
"""Reasons of a failed change set that mean that it is empty (DescribeChangeSet, StatusReason)."""


class Change(NamedTuple):
    """The change of one resource.

    Attributes:
        action: ``"Add"``, ``"Modify"`` or ``"Remove"`` (CloudFormation has three rarer ones).
        logical_id: Name of the resource in the template.
        resource_type: Type of the resource, ``"AWS::S3::Bucket"``.
        physical_id: Its name, id or ARN now; empty where it does not exist.
        replacement: For ``"Modify"``: ``"False"``: changed in place; ``"True"``: replaced by a new resource;
            ``"Conditional"``: known only when it is done. Else empty.
        properties: Names of the properties that change.
        paths: Paths of what changes, ``"ComputeResources/MaxvCpus"``; the property where CloudFormation has no path.
    """

    action: str
    logical_id: str
    resource_type: str
    physical_id: str = ""
    replacement: str = ""
    properties: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class ChangeSet(NamedTuple):
    """A change set that can be executed.

    Attributes:
        change_set_id: ARN of the change set.
        stack_id: ARN of its stack.
        made_stack: Whether creating the change set created the stack, which is empty until it is executed.
        changes: Changes of resources; empty where only tags or outputs change.
    """

    change_set_id: str
    stack_id: str
    made_stack: bool
    changes: tuple[Change, ...]


def build_request(
    stack_name: str,
    stack: Stack | None,
    *,
    body: str,
    values: Mapping[str, str],
    kept: tuple[str, ...],
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """The request of CreateChangeSet, without its name.

    Args:
        stack_name: Name of the stack.
        stack: The stack as it is; a stack that is not ready is created.
        body: Text of the template.
        values: Values of parameters.
        kept: Names of parameters that keep their value.
        tags: Tags that are added to those of the stack.
    """
    new = stack is None or not stack.is_ready
    return {
        "StackName": stack_name,
        "ChangeSetType": "CREATE" if new else "UPDATE",
        "TemplateBody": body,
        "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [
            *({"ParameterKey": key, "ParameterValue": value} for key, value in values.items()),
            *({"ParameterKey": key, "UsePreviousValue": True} for key in kept),
        ],
        "Tags": [{"Key": key, "Value": value} for key, value in {**(stack.tags if stack else {}), **tags}.items()],
    }


def make(client: Any, watch: Watch, request: Mapping[str, Any], stack: Stack | None) -> ChangeSet | None:
    """Create a change set and wait until it is ready; where nothing would change, delete it and return `None`.

    Args:
        client: A boto3 CloudFormation client.
        watch: Waits for CloudFormation.
        request: From `build_request`.
        stack: The stack as it is.

    Raises:
        StackError: CloudFormation could not create it; with its words.
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    name = request["StackName"]
    change_set_name = f"covalent-cirro-{uuid.uuid4().hex[:16]}"
    made = call(client, "CreateChangeSet", name, ChangeSetName=change_set_name, **request)
    change_set = ChangeSet(made["Id"], made["StackId"], stack is None, ())
    try:
        described = _described(client, watch, name, change_set)
    except BaseException:
        discard(client, change_set)
        raise
    reason = str(described.get("StatusReason") or "")
    if described["Status"] == "CREATE_COMPLETE":
        return change_set._replace(changes=tuple(described["Changes"]))
    discard(client, change_set)
    if any(words in reason for words in NOTHING_TO_DO):
        return None
    raise StackError(
        f"the change set of stack {name!r} is {described['Status']}{because(reason)}. "
        f"{advice(reason) or 'Nothing was changed: correct the cause and deploy again.'}"
    )


def execute(client: Any, stack_name: str, change_set: ChangeSet) -> None:
    """Begin to execute a change set. CloudFormation then deletes all change sets of the stack."""
    call(client, "ExecuteChangeSet", stack_name, **_named(change_set))


def discard(client: Any, change_set: ChangeSet) -> None:
    """Delete a change set, and the empty stack that it created. It is no error if they do not exist any more."""
    try:
        call(client, "DeleteChangeSet", change_set.stack_id, **_named(change_set))
    except AwsError as error:
        gone = error.code == "ValidationError" and "does not exist" in str(error)  # the stack is
        if error.code not in ("ChangeSetNotFound", "ChangeSetNotFoundException") and not gone:
            raise
    if change_set.made_stack:
        stack = stacks.find(client, change_set.stack_id)
        if stack is not None and stack.is_empty_shell:
            stacks.begin_delete(client, stack)


def _named(change_set: ChangeSet) -> dict[str, str]:
    """A change set in a request; with its stack, for which a policy may allow the call."""
    return {"ChangeSetName": change_set.change_set_id, "StackName": change_set.stack_id}


def _described(client: Any, watch: Watch, stack_name: str, change_set: ChangeSet) -> dict[str, Any]:
    asked = {**_named(change_set), "IncludePropertyValues": True}  # without it there are no paths
    page, pause_s = call(client, "DescribeChangeSet", stack_name, **asked), FIRST_POLL_S
    while page["Status"] in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
        pause_s = watch.pause(f"the change set of stack {stack_name!r} is still being made", pause_s)
        page = call(client, "DescribeChangeSet", stack_name, **asked)
    changes = [*page.get("Changes", [])]
    last = page
    while last.get("NextToken"):
        last = call(client, "DescribeChangeSet", stack_name, **asked, NextToken=last["NextToken"])
        changes += last.get("Changes", [])
    return {**page, "Changes": [_change(each["ResourceChange"]) for each in changes if "ResourceChange" in each]}


def _change(said: Mapping[str, Any]) -> Change:
    targets = [detail.get("Target", {}) for detail in said.get("Details") or []]
    names = [target.get("Name") or target.get("Attribute", "") for target in targets]
    paths = [target.get("Path", "").removeprefix("/Properties/") for target in targets]
    return Change(
        action=said["Action"],
        logical_id=said["LogicalResourceId"],
        resource_type=said["ResourceType"],
        physical_id=said.get("PhysicalResourceId") or "",
        replacement=said.get("Replacement") or "",
        properties=tuple(dict.fromkeys(name for name in names if name)),
        paths=tuple(dict.fromkeys(path or name for path, name in zip(paths, names, strict=True) if path or name)),
    )
