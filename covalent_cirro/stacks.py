"""The gateway to CloudFormation: makes, updates, reads and deletes the stacks of ``infra/``.

Knows templates, parameters and outputs, and which executor's setting an output feeds. Writes no config.
"""

from __future__ import annotations

import importlib.resources
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from covalent_cirro.aws import Access, translate
from covalent_cirro.errors import AwsError, NotFound, StackError

MAX_TEMPLATE_BYTES = 51_200
"""Largest template sent without a bucket (CloudFormation API Reference, CreateStack, TemplateBody)."""

MAX_DELETED_OBJECTS = 1000
"""Keys in one DeleteObjects call (S3 API Reference, DeleteObjects)."""

DEPLOY_TIMEOUT_S = 1800.0
"""A new stack takes minutes; an update of compute environments waits for jobs that still run."""

FIRST_POLL_S = 0.2
LONGEST_POLL_S = 5.0
"""Seconds between two looks at a stack: from the first, doubling, to the longest."""

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
"""Executor's settings that every stack gives."""

OPTIONAL_SETTINGS = ("batch_gpu_queue",)
"""Executor's settings that a stack gives where it has machines for them."""

NOT_SETTINGS = frozenset({"OnDemandQueue", "OnDemandGpuQueue", "ImageRepository", "SubmitterPolicy"})
"""Outputs that are no setting by themselves: what they are for is said in their description."""

_UPDATABLE = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    }
)


class StackEvent(NamedTuple):
    """One line of a stack's history.

    Attributes:
        event_id: Unique.
        logical_id: Name of the resource in the template, or of the stack itself.
        resource_type: ``"AWS::Batch::JobQueue"``.
        status: ``"CREATE_FAILED"``.
        reason: AWS's own words; mostly empty where nothing went wrong.
    """

    event_id: str
    logical_id: str
    resource_type: str
    status: str
    reason: str


class StackOutputs(NamedTuple):
    """A stack that is ready.

    Attributes:
        stack_name: Its name.
        stack_id: Its ARN.
        values: Its outputs.
        changed: Whether anything was made or changed.
    """

    stack_name: str
    stack_id: str
    values: dict[str, str]
    changed: bool

    @property
    def settings(self) -> dict[str, str]:
        """The executor's settings (`settings_from_outputs`)."""
        return settings_from_outputs(self.values)


# --- names and templates --------------------------------------------------------------------------


def setting_name(output_key: str) -> str:
    """The setting that an output feeds: ``S3BucketName``, ``s3_bucket_name``. Inverse of `output_key`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", output_key).lower()


def output_key(setting: str) -> str:
    """The output that feeds a setting: ``s3_bucket_name``, ``S3BucketName``. Inverse of `setting_name`."""
    return "".join(word.capitalize() for word in setting.split("_"))


def settings_from_outputs(outputs: Mapping[str, str]) -> dict[str, str]:
    """The executor's settings that a stack's outputs give.

    Outputs that this version does not know are left out: a newer template must not break an older executor.

    Raises:
        StackError: An output is missing that every stack of ours has.
    """
    settings = {
        setting: outputs[output_key(setting)]
        for setting in (*SETTINGS, *OPTIONAL_SETTINGS)
        if output_key(setting) in outputs
    }
    missing = [output_key(setting) for setting in SETTINGS if setting not in settings]
    if missing:
        raise StackError(
            f"the stack has no output {', '.join(missing)}: it is not ready yet, was made from an older "
            "template, or is not one of covalent-cirro. Deploy it again."
        )
    return settings


def template_body(name: str = "cirro") -> str:
    """The text of a template that is installed with this package.

    Args:
        name: File name without ``.yaml``.

    Raises:
        StackError: There is no such template.
    """
    folder = importlib.resources.files("covalent_cirro.infra")
    files = [entry.name for entry in folder.iterdir()]
    names = sorted(file.removesuffix(".yaml") for file in files if file.endswith(".yaml"))
    if name not in names:
        raise StackError(f"there is no template {name!r}; installed are: {', '.join(names) or 'none'}")
    return folder.joinpath(f"{name}.yaml").read_text("utf-8")


def build_parameters(
    given: Mapping[str, object], known: Iterable[str], previous: Iterable[str]
) -> list[dict[str, Any]]:
    """The ``Parameters`` of CreateStack or UpdateStack.

    Args:
        given: Values that the caller wants; a list becomes text with commas, `None` counts as not given.
        known: Parameters that the template has. Others that are given go along, for AWS to refuse by name.
        previous: Parameters that the stack has now; those not given keep their value.
    """
    values = {key: value for key, value in given.items() if value is not None}
    kept = [key for key in known if key in set(previous) and key not in values]
    return [
        *({"ParameterKey": key, "ParameterValue": _parameter_text(value)} for key, value in values.items()),
        *({"ParameterKey": key, "UsePreviousValue": True} for key in kept),
    ]


def _parameter_text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)


def first_failure(events: Iterable[StackEvent]) -> StackEvent | None:
    """The event that explains why an operation failed: the first failed one that is not a mere consequence.

    Args:
        events: Oldest first.
    """
    failed = [event for event in events if event.status.endswith("_FAILED")]
    causes = [event for event in failed if event.reason and "cancelled" not in event.reason.lower()]
    return next(iter(causes or failed), None)


# --- AWS ------------------------------------------------------------------------------------------


def deploy(
    client: Any,
    stack_name: str,
    parameters: Mapping[str, object] | None = None,
    *,
    template: str | None = None,
    tags: Mapping[str, str] | None = None,
    on_event: Callable[[StackEvent], None] | None = None,
    timeout_s: float = DEPLOY_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> StackOutputs:
    """Make a stack, or bring it up to date, and wait until it is ready.

    A stack that is already as asked for stays untouched. One that somebody else changes just now is waited
    for. One whose first creation was rolled back, so that nothing of it is left, is deleted and made anew.

    Args:
        client: A boto3 CloudFormation client.
        stack_name: 1 to 119 letters, digits and hyphens, beginning with a letter (queues are named after it).
        parameters: Of the template. Those left out keep the stack's value, or get the template's default.
        template: Text of the template; unset: ``infra/cirro.yaml``.
        tags: Of the stack, which CloudFormation puts on most of its resources. Unset: as they are.
        on_event: Called with each event of the stack, in order, while waiting.
        timeout_s: Seconds to wait in all. The stack goes on changing after that.
        sleep: Waits for seconds.
        clock: Seconds, monotonic.

    Raises:
        StackError: It failed, with the first failed resource and AWS's reason; it is not one of ours; its
            state forbids updates; or the time is over.
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    body = template_body() if template is None else template
    wait = _Wait(client, on_event, clock() + timeout_s, timeout_s, sleep, clock)
    stack = _find(client, stack_name)
    if stack is not None:
        _require_ours(stack)
        stack = wait.settled(stack)
        if stack["StackStatus"] == "ROLLBACK_COMPLETE":
            stack = _delete(client, wait, stack)
        if stack["StackStatus"] == "DELETE_COMPLETE":
            stack = None
    if stack is not None and stack["StackStatus"] not in _UPDATABLE:
        raise StackError(
            f"stack {stack_name!r} is {stack['StackStatus']} and cannot be updated"
            f"{_because(stack.get('StackStatusReason', ''))}. Delete it, then deploy again."
        )
    request: dict[str, Any] = {
        "StackName": stack_name,
        "TemplateBody": body,
        "Capabilities": ["CAPABILITY_IAM"],
        "ClientRequestToken": uuid.uuid4().hex,
    }
    if tags is not None:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    summary = _call(client, "GetTemplateSummary", stack_name, TemplateBody=body)
    known = [parameter["ParameterKey"] for parameter in summary.get("Parameters", [])]
    previous = [] if stack is None else [p["ParameterKey"] for p in stack.get("Parameters", [])]
    request["Parameters"] = build_parameters(parameters or {}, known, previous)
    wait.begin(None if stack is None else stack["StackId"])
    if stack is None:
        verb, stack_id = "created", str(_call(client, "CreateStack", stack_name, **request)["StackId"])
    else:
        verb, stack_id = "updated", str(stack["StackId"])
        try:
            _call(client, "UpdateStack", stack_name, **request)
        except AwsError as error:
            if "No updates are to be performed" not in str(error):
                raise
            return StackOutputs(stack_name, stack_id, _outputs_of(stack), changed=False)
    done = wait.settled(_get(client, stack_id))
    if done["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise wait.failure(done, verb)
    return StackOutputs(stack_name, stack_id, _outputs_of(done), changed=True)


def outputs(client: Any, stack_name: str) -> dict[str, str]:
    """The outputs of a stack of ours, by their key.

    Raises:
        NotFound: There is no such stack in this account and region.
        StackError: A stack of that name is not one of ours.
    """
    stack = _find(client, stack_name)
    if stack is None:
        raise NotFound(
            f"there is no stack {stack_name!r} in {client.meta.region_name}. Check its name and the region, "
            "or deploy it.",
            operation="cloudformation:DescribeStacks",
            code="ValidationError",
        )
    _require_ours(stack)
    return _outputs_of(stack)


def delete(
    client: Any,
    stack_name: str,
    *,
    empty_bucket_with: Any = None,
    on_event: Callable[[StackEvent], None] | None = None,
    timeout_s: float = DEPLOY_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Delete a stack of ours and wait until it is gone. Jobs that still run are terminated by AWS Batch.

    Args:
        client: A boto3 CloudFormation client.
        stack_name: Name of the stack.
        empty_bucket_with: A boto3 S3 client, with which everything in the bucket is deleted first. Without it
            the deletion stops at a bucket that holds anything, after all that costs by the hour is gone.
        on_event: Called with each event of the stack, in order, while waiting.
        timeout_s: Seconds to wait. The deletion goes on after that.
        sleep: Waits for seconds.
        clock: Seconds, monotonic.

    Returns:
        Whether there was such a stack.

    Raises:
        StackError: A resource could not be deleted, with AWS's reason; the stack is not one of ours; or
            the time is over.
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    stack = _find(client, stack_name)
    if stack is None:
        return False
    _require_ours(stack)
    if empty_bucket_with is not None:
        for bucket in _buckets(client, stack):
            _empty(empty_bucket_with, bucket)
    wait = _Wait(client, on_event, clock() + timeout_s, timeout_s, sleep, clock)
    _delete(client, wait, stack)
    return True


def _delete(client: Any, wait: _Wait, stack: Mapping[str, Any]) -> dict[str, Any]:
    wait.begin(stack["StackId"])
    _call(client, "DeleteStack", stack["StackName"], StackName=stack["StackId"])
    done = wait.settled(_get(client, stack["StackId"]))
    if done["StackStatus"] != "DELETE_COMPLETE":
        raise wait.failure(done, "deleted")
    return done


class _Wait:
    """Waits for one stack, and remembers which of its events were seen."""

    def __init__(
        self,
        client: Any,
        on_event: Callable[[StackEvent], None] | None,
        deadline: float,
        timeout_s: float,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._on_event = on_event
        self._deadline = deadline
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._seen: set[str] = set()
        self._new: list[StackEvent] = []

    def begin(self, stack_id: str | None) -> None:
        """A new operation: what the stack said so far, if there is one, belongs to an earlier one."""
        if stack_id is not None:
            self._read_events(stack_id)
        self._new.clear()

    def settled(self, stack: dict[str, Any]) -> dict[str, Any]:
        """The stack once it no longer changes."""
        pause_s = FIRST_POLL_S
        while stack["StackStatus"].endswith("_IN_PROGRESS"):
            if self._on_event is not None:
                for event in self._read_events(stack["StackId"]):
                    self._on_event(event)
            left_s = self._deadline - self._clock()
            if left_s <= 0:
                raise StackError(
                    f"stack {stack['StackName']!r} is still {stack['StackStatus']} after "
                    f"{self._timeout_s:g} s. It goes on in AWS: do the same again to wait on."
                )
            self._sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_POLL_S)
            stack = _get(self._client, stack["StackId"])
        if self._on_event is not None:
            for event in self._read_events(stack["StackId"]):
                self._on_event(event)
        return stack

    def failure(self, stack: dict[str, Any], verb: str) -> StackError:
        """Why the operation that was waited for failed."""
        self._read_events(stack["StackId"])
        status = stack["StackStatus"]
        event = first_failure(self._new)
        why = (
            _because(stack.get("StackStatusReason", ""))
            if event is None
            else f": {event.logical_id} ({event.resource_type}) is {event.status}{_because(event.reason)}"
        )
        next_step = _NEXT_STEP.get(status, f"The stack is {status}.")
        return StackError(f"stack {stack['StackName']!r} could not be {verb}{why}. {next_step}")

    def _read_events(self, stack_id: str) -> list[StackEvent]:
        fresh = []
        for event in _events(self._client, stack_id):
            if event.event_id in self._seen:
                break
            fresh.append(event)
        fresh.reverse()
        self._seen.update(event.event_id for event in fresh)
        self._new.extend(fresh)
        return fresh


_NEXT_STEP = {
    "ROLLBACK_COMPLETE": "All that was made is removed again: mend the cause and deploy again.",
    "ROLLBACK_FAILED": "Some of what was made is left: delete the stack, mend the cause and deploy again.",
    "UPDATE_ROLLBACK_COMPLETE": "The stack is as it was before: mend the cause and deploy again.",
    "UPDATE_ROLLBACK_FAILED": "Continue its rollback in the CloudFormation console, then deploy again.",
    "DELETE_FAILED": "The rest is gone. Mend the cause (a bucket must be empty), then delete it again.",
}


def _because(reason: str) -> str:
    return f": {reason.rstrip('.')}" if reason else ""


def _access(client: Any) -> Access:
    endpoint = str(client.meta.endpoint_url)
    return Access(None, None, client.meta.region_name, None if ".amazonaws.com" in endpoint else endpoint)


def _call(client: Any, operation: str, stack_name: str, **request: Any) -> dict[str, Any]:
    method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
    with translate(f"cloudformation:{operation}", access=_access(client), of=f"stack {stack_name!r}"):
        response: dict[str, Any] = getattr(client, method)(**request)
        return response


def _find(client: Any, name_or_id: str) -> dict[str, Any] | None:
    try:
        found = _call(client, "DescribeStacks", name_or_id, StackName=name_or_id)["Stacks"]
    except AwsError as error:
        # CloudFormation has no code of its own for a stack that is not there.
        if error.code == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return dict(found[0]) if found else None


def _get(client: Any, stack_id: str) -> dict[str, Any]:
    stack = _find(client, stack_id)
    if stack is None:
        raise StackError(f"stack {stack_id} has vanished while it was waited for: somebody deleted it. Deploy again.")
    return stack


def _require_ours(stack: Mapping[str, Any]) -> None:
    if not str(stack.get("Description", "")).startswith(OURS):
        raise StackError(
            f"stack {stack['StackName']!r} is not one of covalent-cirro (its description does not begin with "
            f"{OURS!r}), so it is left alone. Choose another name."
        )


def _outputs_of(stack: Mapping[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def _events(client: Any, stack_id: str) -> Iterator[StackEvent]:
    """Newest first; only as many pages as are asked for."""
    token: dict[str, str] = {}
    while True:
        page = _call(client, "DescribeStackEvents", stack_id, StackName=stack_id, **token)
        for event in page["StackEvents"]:
            yield StackEvent(
                event["EventId"],
                event.get("LogicalResourceId", ""),
                event.get("ResourceType", ""),
                event.get("ResourceStatus", ""),
                event.get("ResourceStatusReason", ""),
            )
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def _buckets(client: Any, stack: Mapping[str, Any]) -> list[str]:
    resources = _call(client, "DescribeStackResources", stack["StackName"], StackName=stack["StackId"])
    return [
        resource["PhysicalResourceId"]
        for resource in resources["StackResources"]
        if resource.get("ResourceType") == "AWS::S3::Bucket"
        and resource.get("PhysicalResourceId")
        and resource.get("ResourceStatus") != "DELETE_COMPLETE"
    ]


def _empty(s3: Any, bucket: str) -> None:
    """Delete every version of every object."""
    with translate("s3:DeleteObjects", access=_access(s3), of=f"bucket {bucket!r}"):
        pages = s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": MAX_DELETED_OBJECTS}
        )
        for page in pages:
            objects = [
                {"Key": item["Key"], "VersionId": item["VersionId"]}
                for item in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
            ]
            if not objects:
                continue
            response = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for refused in response.get("Errors", []):
                raise StackError(
                    f"bucket {bucket!r} could not be emptied: {refused.get('Key')}: {refused.get('Code')}: "
                    f"{refused.get('Message')}. The stack was left as it is."
                )
