"""Change sets of the emulated CloudFormation: what would change, in AWS's form, before anything changes.

moto compares the texts of templates, whatever their conditions and parameters; it calls the functions here instead
(`moto_internals.moto_cloudformation`). `stack_engine` carries out changes.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from covalent_cirro.deployment.template_functions import references
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation import stack_engine
from covalent_cirro.local.emulator.formation.batch_kinds import ComputeEnvironmentResource
from covalent_cirro.local.emulator.formation.stack_resource import (
    MotoResource,
    StackResource,
    differ,
    until_it_waits,
)
from covalent_cirro.local.emulator.formation.template_checks import order
from covalent_cirro.local.emulator.moto_internals import moto_stacks, moto_templates
from covalent_cirro.local.emulator.moto_internals.moto_stacks import MotoStack, parameter_values

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
NEW, UPDATABLE = ("REVIEW_IN_PROGRESS",), re.compile(r"(CREATE|UPDATE|UPDATE_ROLLBACK|IMPORT|IMPORT_ROLLBACK)_COMPLETE")


@dataclass
class ChangeSet:
    """A change set; its attributes have the names by which moto serializes them.

    Attributes:
        change_set_type: ``"CREATE"`` or ``"UPDATE"``.
        template: Text of the template.
        values: Values of its parameters, as text.
        given_tags: Tags of the stack.
        changes: Changes in the form of the API.
    """

    change_set_id: str
    change_set_name: str
    change_set_type: str
    stack_id: str
    stack_name: str
    description: str | None
    template: str
    values: dict[str, str]
    given_tags: dict[str, str]
    changes: list[Json]
    status: str = "CREATE_COMPLETE"
    execution_status: str = "AVAILABLE"
    status_reason: str | None = None
    creation_time: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc))

    def described(self, *, with_paths: bool) -> Json:
        """The answer of DescribeChangeSet.

        Args:
            with_paths: IncludePropertyValues is true: details have the path within a property.
        """
        shown: Json = {
            "ChangeSetId": self.change_set_id,
            "ChangeSetName": self.change_set_name,
            "StackId": self.stack_id,
            "StackName": self.stack_name,
            "Description": self.description,
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in self.values.items()],
            "CreationTime": self.creation_time,
            "ExecutionStatus": self.execution_status,
            "Status": self.status,
            "StatusReason": self.status_reason,
            "Capabilities": [],
            "Tags": [{"Key": key, "Value": value} for key, value in self.given_tags.items()],
            "Changes": [
                {"Type": "Resource", "ResourceChange": change if with_paths else _without_paths(change)}
                for change in self.changes
            ],
        }
        return {key: value for key, value in shown.items() if value is not None}


def _without_paths(change: Json) -> Json:
    details = [
        {**detail, "Target": {key: value for key, value in detail["Target"].items() if key != "Path"}}
        for detail in change["Details"]
    ]
    return {**change, "Details": details}


def create(backend: Any, request: Json) -> ChangeSet:
    """CreateChangeSet.

    Args:
        backend: moto's CloudFormation of one account and region.
        request: The parameters of the request.

    Raises:
        Exception: `moto_templates.validation_error`: the stack is in no status for it, or the template is refused.
    """
    name, kind = request["StackName"], request.get("ChangeSetType", "UPDATE")
    new_id = moto_stacks.change_set_id(backend, request["ChangeSetName"])
    stack = moto_stacks.find_stack(backend, name)
    if kind == "UPDATE":
        if stack is None or stack.status in NEW:
            raise moto_templates.validation_error(f"Stack [{name}] does not exist")
        if UPDATABLE.fullmatch(stack.status) is None:
            raise moto_templates.validation_error(
                f"Stack:{stack.id} is in {stack.status} state and can not be updated."
            )
    elif stack is not None and stack.status not in NEW:
        raise moto_templates.validation_error(
            f"Stack [{name}] already exists and cannot be created again with the changeSet "
            f"[{request['ChangeSetName']}]."
        )
    tags = {each["Key"]: each["Value"] for each in request.get("Tags") or []}
    text = request["TemplateBody"]
    values = _values(stack if kind == "UPDATE" else None, request.get("Parameters") or [])
    planned = moto_stacks.unregistered_stack(backend, name, None if stack is None else stack.id, text, values, tags)
    if kind == "UPDATE":
        assert stack is not None
        changes = _changes(stack, planned)
        is_same = not changes and _is_same(stack, planned, tags)
    else:
        changes, is_same = _additions(planned), False
    if stack is None:
        stack = moto_stacks.reserve_stack(backend, name, planned.id)
    made = ChangeSet(
        change_set_id=new_id,
        change_set_name=request["ChangeSetName"],
        change_set_type=kind,
        stack_id=stack.id,
        stack_name=stack.name,
        description=request.get("Description"),
        template=text,
        values=values,
        given_tags=tags,
        changes=changes,
    )
    if is_same:
        made.status, made.execution_status, made.status_reason = "FAILED", "UNAVAILABLE", NO_CHANGES
    backend.change_sets[made.change_set_id] = made
    return made


def find(backend: Any, name_or_id: str, stack_name: str | None = None) -> ChangeSet:
    """A change set by its ARN, or by its name and the name of its stack."""
    for each in backend.change_sets.values():
        if each.change_set_id == name_or_id or (
            each.change_set_name == name_or_id and stack_name in (each.stack_name, each.stack_id)
        ):
            found: ChangeSet = each
            return found
    raise moto_templates.api_error("ChangeSetNotFound", f"ChangeSet [{name_or_id}] does not exist")


def delete(backend: Any, name_or_id: str, stack_name: str | None = None) -> None:
    """DeleteChangeSet. A stack that it reserved is not deleted."""
    del backend.change_sets[find(backend, name_or_id, stack_name).change_set_id]


def execute(backend: Any, name_or_id: str, stack_name: str | None = None) -> None:
    """ExecuteChangeSet: all change sets of the stack are deleted. What waits for a service goes on after the answer."""
    change_set = find(backend, name_or_id, stack_name)
    if change_set.execution_status != "AVAILABLE":
        raise moto_templates.api_error(
            "InvalidChangeSetStatus",
            f"ChangeSet [{change_set.change_set_id}] cannot be executed in its current status of [{change_set.status}]",
        )
    stack = MotoStack(backend.stacks[change_set.stack_id])
    for each in [each for each in backend.change_sets.values() if each.stack_id == stack.id]:
        del backend.change_sets[each.change_set_id]
    until_it_waits(lambda: _carry_out(backend, change_set, stack), f"stack-{stack.name}")


def _carry_out(backend: Any, change_set: ChangeSet, stack: MotoStack) -> None:
    text, values, tags = change_set.template, change_set.values, change_set.given_tags
    if change_set.change_set_type == "CREATE":
        stack.take_over(moto_stacks.unregistered_stack(backend, stack.name, stack.id, text, values, tags))
        stack.set_status("CREATE_IN_PROGRESS", "User Initiated")
        stack_engine.create(stack)
    else:
        stack_engine.update(stack, text, values, tags or None)


def _values(stack: MotoStack | None, given: list[Json]) -> dict[str, str]:
    before = {} if stack is None else stack.parameter_values()
    return {
        each["ParameterKey"]: before.get(each["ParameterKey"], "")
        if str(each.get("UsePreviousValue", "")).lower() == "true"
        else each["ParameterValue"]
        for each in given
    }


# --- what changes -----------------------------------------------------------------------------------------------------


def _is_same(stack: MotoStack, planned: MotoStack, tags: dict[str, str]) -> bool:
    before, now = stack.parsed(stack.text), planned.parsed(planned.text)
    values = parameter_values(before, stack.given), parameter_values(now, planned.given)
    return bool(before == now and values[0] == values[1] and tags in ({}, stack.tags))


def _additions(planned: MotoStack) -> list[Json]:
    return [
        {"Action": "Add", "LogicalResourceId": name, "ResourceType": body["Type"], "Scope": [], "Details": []}
        for name, body in planned.bodies.items()
        if planned.is_wanted(body)
    ]


def _changes(stack: MotoStack, planned: MotoStack) -> list[Json]:
    """What an update does: what is new, what has other properties, what refers to what changes, what is removed."""
    made = stack.made
    planned.use_resources(stack)
    bodies = {name: body for name, body in planned.bodies.items() if planned.is_wanted(body)}
    changes: dict[str, Json] = {}
    for name in order(bodies):
        body = bodies[name]
        if name not in made.order:
            changes[name] = _change("Add", name, body)
            continue
        before, now = made.properties[name], planned.properties(body)
        details = [*_static(before, now), *_dynamic(body, changes)]
        if details or body["Type"] != made.bodies[name]["Type"]:
            replacement = _replacement(made.bodies[name], body, before, now, details)
            changes[name] = _change("Modify", name, body, stack.physical_id(name), details, replacement)
    for name in made.order:
        if name not in bodies:
            changes[name] = _change("Remove", name, made.bodies[name], stack.physical_id(name))
    return list(changes.values())


def _change(
    action: str, name: str, body: Json, physical_id: str = "", details: list[Json] | None = None, replacement: str = ""
) -> Json:
    made: Json = {
        "Action": action,
        "LogicalResourceId": name,
        "ResourceType": body["Type"],
        "Scope": ["Properties"] if details else [],
        "Details": details or [],
    }
    return (
        made
        | ({"PhysicalResourceId": physical_id} if physical_id else {})
        | ({"Replacement": replacement} if replacement else {})
    )


def _static(before: Json, now: Json) -> list[Json]:
    return [
        {
            "Target": {"Attribute": "Properties", "Name": name, "Path": path},
            "Evaluation": "Static",
            "ChangeSource": "DirectModification",
        }
        for name in {**before, **now}
        for path in _paths(f"/Properties/{name}", before.get(name), now.get(name))
    ]


def _paths(path: str, before: Any, now: Any) -> Iterator[str]:
    """The paths at which two values of a property differ: by keys of maps; other values as a whole."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _paths(f"{path}/{key}", before.get(key), now.get(key))
    elif before != now:
        yield path


def _dynamic(body: Json, changes: dict[str, Json]) -> list[Json]:
    """Properties that refer to a resource that is new, may get another id, or may get other attributes."""
    details = []
    for name, value in (body.get("Properties") or {}).items():
        for path, resource, attribute in references(value, f"/Properties/{name}"):
            change = changes.get(resource)
            if change is None or (not attribute and change.get("Replacement") not in ("True", "Conditional")):
                continue
            details.append(
                {
                    "Target": {"Attribute": "Properties", "Name": name, "Path": path},
                    "Evaluation": "Dynamic",
                    "ChangeSource": "ResourceAttribute" if attribute else "ResourceReference",
                    "CausingEntity": f"{resource}.{attribute}" if attribute else resource,
                }
            )
    return details


def _replacement(old_body: Json, body: Json, before: Json, after: Json, details: list[Json]) -> str:
    """Whether a new resource replaces the old one; Conditional where AWS knows that only when it updates it."""
    if body["Type"] != old_body["Type"]:
        return "True"
    model = moto_stacks.resource_class(body["Type"])
    if isinstance(model, MotoResource):
        replaces, create_only = differ(model.create_only, before, after), model.create_only
    elif isinstance(model, type) and issubclass(model, StackResource):
        replaces, create_only = model.replaces(before, after), model.create_only
    else:
        return "False"
    if replaces:
        return "True"
    changed = {detail["Target"]["Name"] for detail in details}
    dynamic = {detail["Target"]["Name"] for detail in details if detail["Evaluation"] == "Dynamic"}
    if dynamic & {path.split("/")[0] for path in create_only if "/" not in path}:
        return "Conditional"
    # CloudFormation does not look at ReplaceComputeEnvironment before it does it (conditionalCreateOnlyProperties).
    if model is ComputeEnvironmentResource and "ComputeResources" in changed:
        parts = ComputeEnvironmentResource.in_place_on_request
        return "Conditional" if "ComputeResources" in dynamic or differ(parts, before, after) else "False"
    return "False"
