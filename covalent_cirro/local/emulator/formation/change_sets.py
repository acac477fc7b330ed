"""Change sets of the emulated CloudFormation: what would change, told before anything does, as AWS tells it.

moto compares the texts of templates, whatever their conditions and parameters. `stack_install` puts these functions in
the place of moto's. What a stack or a resource does is `stack_engine`'s and `formation`'s.
"""

from __future__ import annotations

import copy
import datetime
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation import stack_engine, stack_resource, template
from covalent_cirro.local.emulator.formation.formation import ComputeEnvironment
from covalent_cirro.local.emulator.formation.stack_resource import Mended, Resource, differ

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
NEW, UPDATABLE = ("REVIEW_IN_PROGRESS",), re.compile(r"(CREATE|UPDATE|UPDATE_ROLLBACK|IMPORT|IMPORT_ROLLBACK)_COMPLETE")


@dataclass
class ChangeSet:
    """A change set; its attributes are named as moto's API serializes them.

    Attributes:
        change_set_type: ``"CREATE"`` or ``"UPDATE"``.
        template: Text of the template.
        values: Of its parameters, as text.
        given_tags: Of the stack.
        changes: In the form of the API.
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
            with_paths: IncludePropertyValues was asked for: details say where in a property they are.
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


def create(backend: Any, asked: Json) -> ChangeSet:
    """CreateChangeSet.

    Args:
        backend: moto's, of one account and region.
        asked: The request.
    """
    from moto.cloudformation.exceptions import ValidationError
    from moto.cloudformation.utils import generate_changeset_id, validate_create_change_set

    name, kind = asked["StackName"], asked.get("ChangeSetType", "UPDATE")
    validate_create_change_set(asked["ChangeSetName"])
    stack = next((each for each in backend.stacks.values() if name in (each.name, each.stack_id)), None)
    if kind == "UPDATE":
        if stack is None or stack.status in NEW:
            raise ValidationError(message=f"Stack [{name}] does not exist")
        if UPDATABLE.fullmatch(stack.status) is None:
            raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")
    elif stack is not None and stack.status not in NEW:
        raise ValidationError(
            message=f"Stack [{name}] already exists and cannot be created again with the changeSet "
            f"[{asked['ChangeSetName']}]."
        )
    tags = {each["Key"]: each["Value"] for each in asked.get("Tags") or []}
    body = asked["TemplateBody"]
    values = _values(stack if kind == "UPDATE" else None, asked.get("Parameters") or [])
    shell = _stack(backend, name, None if stack is None else stack.stack_id, body, values, tags)
    changes = _additions(shell) if kind == "CREATE" else _changes(stack, shell)
    if stack is None:
        stack = _reserved(backend, name, shell.stack_id)
    made = ChangeSet(
        change_set_id=generate_changeset_id(asked["ChangeSetName"], backend.region_name, backend.account_id),
        change_set_name=asked["ChangeSetName"],
        change_set_type=kind,
        stack_id=stack.stack_id,
        stack_name=stack.name,
        description=asked.get("Description"),
        template=body,
        values=values,
        given_tags=tags,
        changes=changes,
    )
    if kind == "UPDATE" and not changes and _is_same(stack, shell, tags):
        made.status, made.execution_status, made.status_reason = "FAILED", "UNAVAILABLE", NO_CHANGES
    backend.change_sets[made.change_set_id] = made
    return made


def find(backend: Any, name_or_id: str, stack_name: str | None = None) -> ChangeSet:
    """A change set by its ARN, or by its name and its stack's."""
    for each in backend.change_sets.values():
        if each.change_set_id == name_or_id or (
            each.change_set_name == name_or_id and stack_name in (each.stack_name, each.stack_id)
        ):
            found: ChangeSet = each
            return found
    raise _error("ChangeSetNotFound", f"ChangeSet [{name_or_id}] does not exist")


def delete(backend: Any, name_or_id: str, stack_name: str | None = None) -> None:
    """DeleteChangeSet. The stack that it made stays."""
    del backend.change_sets[find(backend, name_or_id, stack_name).change_set_id]


def execute(backend: Any, name_or_id: str, stack_name: str | None = None) -> None:
    """ExecuteChangeSet: it and all others of the stack go. What has to wait for AWS Batch goes on after the answer."""
    change_set = find(backend, name_or_id, stack_name)
    if change_set.execution_status != "AVAILABLE":
        raise _error(
            "InvalidChangeSetStatus",
            f"ChangeSet [{change_set.change_set_id}] cannot be executed in its current status of [{change_set.status}]",
        )
    stack = backend.stacks[change_set.stack_id]
    for each in [each for each in backend.change_sets.values() if each.stack_id == stack.stack_id]:
        del backend.change_sets[each.change_set_id]
    answer = threading.Event()
    failed: list[Exception] = []

    def carry_out() -> None:
        stack_resource.waits.begin = answer.set
        try:
            _carry_out(backend, change_set, stack)
        except Exception as error:
            failed.append(error)
        finally:
            answer.set()

    threading.Thread(target=carry_out, name=f"stack-{stack.name}", daemon=True).start()
    answer.wait()
    if failed:
        raise failed[0]


def _carry_out(backend: Any, change_set: ChangeSet, stack: Any) -> None:
    if change_set.change_set_type == "CREATE":
        made = _stack(
            backend, stack.name, stack.stack_id, change_set.template, change_set.values, change_set.given_tags
        )
        for name in ("template", "template_dict", "parameters", "description", "tags", "resource_map", "output_map"):
            setattr(stack, name, getattr(made, name))
        stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
        stack_engine.create(stack)
    else:
        tags = change_set.given_tags or None
        stack_engine.update(stack, change_set.template, parameters=change_set.values, tags=tags)


def _error(code: str, text: str) -> Exception:
    from moto.cloudformation.exceptions import CloudFormationError

    error: Any = CloudFormationError(text)
    error.code = code
    return error  # type: ignore[no-any-return]


def _values(stack: Any, given: list[Json]) -> dict[str, str]:
    before = {} if stack is None else stack_engine.parameter_values(stack.template_dict, stack.parameters)
    return {
        each["ParameterKey"]: before.get(each["ParameterKey"], "")
        if str(each.get("UsePreviousValue", "")).lower() == "true"
        else each["ParameterValue"]
        for each in given
    }


def _stack(
    backend: Any, name: str, stack_id: str | None, body: str, values: dict[str, str], tags: dict[str, str]
) -> Any:
    """A stack that nobody knows, of which nothing is made: to look at. Refuses what CloudFormation refuses at once."""
    from moto.cloudformation.models import Stack
    from moto.cloudformation.utils import generate_stack_id

    return Stack(
        stack_id=stack_id or generate_stack_id(name, backend.region_name, backend.account_id),
        name=name,
        template=body,
        parameters=values,
        account_id=backend.account_id,
        region_name=backend.region_name,
        tags=dict(tags),
        cross_stack_resources=backend.exports,
    )


def _reserved(backend: Any, name: str, stack_id: str) -> Any:
    """The stack that a change set of type CREATE makes: it has a name, and nothing else."""
    from moto.cloudformation.models import Stack

    made = Stack(stack_id, name, {}, {}, backend.account_id, backend.region_name)
    made.status = "REVIEW_IN_PROGRESS"
    made._add_stack_event("REVIEW_IN_PROGRESS", resource_status_reason="User Initiated")
    backend.stacks[stack_id] = made
    return made


# --- what changes -----------------------------------------------------------------------------------------------------


def _is_same(stack: Any, shell: Any, tags: dict[str, str]) -> bool:
    # Read again: moto writes into what it has read.
    before, now = stack.parse_template(stack.template), shell.parse_template(shell.template)
    values = [stack_engine.parameter_values(body, of.parameters) for body, of in ((before, stack), (now, shell))]
    return bool(before == now and values[0] == values[1] and tags in ({}, stack.tags))


def _additions(shell: Any) -> list[Json]:
    return [
        {"Action": "Add", "LogicalResourceId": name, "ResourceType": body["Type"], "Scope": [], "Details": []}
        for name, body in shell.resource_map._resource_json_map.items()
        if stack_engine.active(shell.resource_map, body)
    ]


def _changes(stack: Any, shell: Any) -> list[Json]:
    """What an update does: what is new, what has other properties, what refers to what changes, what is gone."""
    now, new = stack.resource_map, shell.resource_map
    for name in now.cirro_order:
        new._parsed_resources[name] = now._parsed_resources[name]
    bodies = {name: body for name, body in new._resource_json_map.items() if stack_engine.active(new, body)}
    changes: dict[str, Json] = {}
    for name in template.order(bodies):
        body = bodies[name]
        if name not in now.cirro_order:
            changes[name] = _change("Add", name, body)
            continue
        physical_id = str(getattr(now._parsed_resources[name], "physical_resource_id", "") or "")
        details = [*_static(now.cirro_resolved[name], stack_engine.resolved(new, body)), *_dynamic(body, changes)]
        if details or body["Type"] != now.cirro_bodies[name]["Type"]:
            replacement = _replacement(now.cirro_bodies[name], body, now.cirro_resolved[name], new, details)
            changes[name] = _change("Modify", name, body, physical_id, details, replacement)
    for name in now.cirro_order:
        if name not in bodies:
            physical_id = str(getattr(now._parsed_resources[name], "physical_resource_id", "") or "")
            changes[name] = _change("Remove", name, now.cirro_bodies[name], physical_id)
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
    """Where two values of a property differ: keys of maps, as a whole what is none."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _paths(f"{path}/{key}", before.get(key), now.get(key))
    elif before != now:
        yield path


def _dynamic(body: Json, changes: dict[str, Json]) -> list[Json]:
    """Properties that refer to what is new, may get another id, or has another attribute then."""
    details = []
    for name, value in (body.get("Properties") or {}).items():
        for path, resource, attribute in _references(f"/Properties/{name}", value):
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


def _references(path: str, value: Any) -> Iterator[tuple[str, str, str]]:
    """Paths, and names of the resources that the values there refer to, with the attribute, if it is one."""
    if isinstance(value, list):
        for each in value:
            yield from _references(path, each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "Ref":
                yield path, each, ""
            elif key == "Fn::GetAtt":
                name, attribute = each.split(".", 1) if isinstance(each, str) else each
                yield path, name, attribute
            elif key == "Fn::Sub":
                text = each if isinstance(each, str) else each[0]
                for found in re.findall(r"\$\{([^!}][^}]*)\}", text):
                    name, _, attribute = found.partition(".")
                    yield path, name, attribute
            else:
                yield from _references(path if key.startswith("Fn::") else f"{path}/{key}", each)


def _replacement(old_body: Json, body: Json, before: Json, new: Any, details: list[Json]) -> str:
    """Whether a new resource takes the place of the old one; Conditional where AWS knows only when it does it."""
    from moto.cloudformation import parsing

    if body["Type"] != old_body["Type"]:
        return "True"
    model: Any = parsing.resource_class_from_type(body["Type"])
    after = copy.deepcopy(stack_engine.resolved(new, body))
    if isinstance(model, Mended):
        replaces, create_only = differ(model.create_only, before, after), model.create_only
    elif isinstance(model, type) and issubclass(model, Resource):
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
    if model is ComputeEnvironment and "ComputeResources" in changed:
        parts = ComputeEnvironment.in_place_on_request
        return "Conditional" if "ComputeResources" in dynamic or differ(parts, before, after) else "False"
    return "False"
