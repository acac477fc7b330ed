"""Makes, changes and deletes stacks as CloudFormation does, inside moto's CloudFormation: order, events, rollback.

moto answers the API and resolves references; it makes resources in no order, knows no events of resources and turns a
failure into an HTTP 500. `stack_install` puts the functions here in the place of moto's. What a resource is, is
`formation`'s.
"""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation import template
from covalent_cirro.local.emulator.formation.stack_resource import Mended

DELETE_PASSES = 3
"""A resource that cannot be deleted is tried again after the others, so often."""

log = logging.getLogger("covalent_cirro.local.emulator")


class Failed(Exception):
    """A resource could not be made, changed or deleted; ``str`` is the reason that its event tells."""


# --- one resource -----------------------------------------------------------------------------------------------------


def _event(stack: Any, name: str, status: str, reason: str | None = None) -> None:
    from moto.cloudformation.models import Event

    resource_map = stack.resource_map
    resource = resource_map._parsed_resources.get(name)
    body = resource_map._resource_json_map.get(name) or resource_map.cirro_bodies.get(name) or {}
    stack.events.append(
        Event(
            stack_id=stack.stack_id,
            stack_name=stack.name,
            logical_resource_id=name,
            physical_resource_id=_physical_id(resource) or "",
            resource_type=body.get("Type", ""),
            resource_status=status,
            resource_status_reason=reason,
            resource_properties=None,
        )
    )


def _physical_id(resource: Any) -> str | None:
    found = getattr(resource, "physical_resource_id", None)
    return None if found is None else str(found)


def _reason(error: Exception) -> str:
    for attribute in ("text", "message", "description"):
        said = getattr(error, attribute, None)
        if isinstance(said, str) and said:
            return said
    return str(error) if isinstance(error, (Failed, template.Invalid)) else f"{type(error).__name__}: {error}"


def resolved(resource_map: Any, body: Json) -> Any:
    """A resource's properties, with references and functions replaced by their values."""
    from moto.cloudformation import parsing

    return parsing.clean_json(copy.deepcopy(body.get("Properties", {})), resource_map)


def active(resource_map: Any, body: Json) -> bool:
    """Whether a resource's condition holds."""
    name = body.get("Condition")
    return name is None or bool(resource_map.lazy_condition_map[name])


def _make(stack: Any, name: str) -> None:
    resource_map = stack.resource_map
    body = resource_map._resource_json_map[name]
    _event(stack, name, "CREATE_IN_PROGRESS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resource_map.cirro_maker = threading.get_ident()
            try:
                resource = resource_map[name]
            finally:
                resource_map.cirro_maker = None
        if resource is None:
            raise Failed(f"{body['Type']} is not emulated")
    except Exception as error:
        log.debug("creating %s", name, exc_info=True)
        _event(stack, name, "CREATE_FAILED", _reason(error))
        raise Failed(f"The following resource(s) failed to create: [{name}].") from error
    _remember(resource_map, name, body)
    _event(stack, name, "CREATE_COMPLETE")


def _remember(resource_map: Any, name: str, body: Json) -> None:
    resource_map.cirro_bodies[name] = body
    resource_map.cirro_resolved[name] = resolved(resource_map, body)
    if name not in resource_map.cirro_order:
        resource_map.cirro_order.append(name)


def _change(stack: Any, name: str) -> tuple[Any, Json] | None:
    """Bring a resource up to date; returns the old one, with its body, where it was replaced and is still there."""
    from moto.cloudformation import parsing

    resource_map = stack.resource_map
    body = resource_map._resource_json_map[name]
    old_body = resource_map.cirro_bodies[name]
    if body["Type"] == old_body["Type"] and resolved(resource_map, body) == resource_map.cirro_resolved[name]:
        resource_map.cirro_bodies[name] = body
        return None
    old = resource_map._parsed_resources[name]
    _event(stack, name, "UPDATE_IN_PROGRESS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            new = _updated(resource_map, name, copy.deepcopy(body), old, parsing)
    except Exception as error:
        log.debug("updating %s", name, exc_info=True)
        _event(stack, name, "UPDATE_FAILED", _reason(error))
        resource_map.cirro_resolved[name] = None  # nobody knows what it has now: the rollback sets it anew
        raise Failed(f"The following resource(s) failed to update: [{name}].") from error
    resource_map._parsed_resources[name] = new
    _remember(resource_map, name, body)
    _event(stack, name, "UPDATE_COMPLETE")
    left = new is not old and getattr(new, "cirro_leaves_old", False)
    return (old, old_body) if left else None


def _updated(resource_map: Any, name: str, body: Json, old: Any, parsing: Any) -> Any:
    model, resolved, new_name = parsing.parse_resource_and_generate_name(name, body, resource_map)
    account, region = resource_map._account_id, resource_map._region_name
    if hasattr(model.update_from_cloudformation_json, "__isabstractmethod__"):
        raise Failed(f"Updates of {body['Type']} are not emulated")
    new = model.update_from_cloudformation_json(
        original_resource=old,
        new_resource_name=new_name,
        cloudformation_json=resolved,
        account_id=account,
        region_name=region,
    )
    if new is None:
        return old
    new.cf_resource_type = body["Type"]
    new.logical_resource_id = name
    return new


def _delete(resource_map: Any, resource: Any, body: Json) -> None:
    from moto.cloudformation import parsing

    model: Any = parsing.resource_class_from_type(body["Type"])
    account, region = resource_map._account_id, resource_map._region_name
    if isinstance(model, Mended):
        model.delete_resource(resource, account, region)
    else:
        resource_map._delete_resource(resource, body)


# --- one stack --------------------------------------------------------------------------------------------------------


def create(stack: Any) -> None:
    """Make all resources, or none."""
    resource_map = stack.resource_map
    stack.status = "CREATE_IN_PROGRESS"
    resource_map.tags.update(
        {"aws:cloudformation:stack-name": stack.name, "aws:cloudformation:stack-id": stack.stack_id}
    )
    try:
        for name in template.order(resource_map._resource_json_map):
            if active(resource_map, resource_map._resource_json_map[name]):
                _make(stack, name)
    except (Failed, template.Invalid) as error:
        _status(stack, "ROLLBACK_IN_PROGRESS", f"{error} Rollback requested by user.")
        left = _remove(stack, list(resource_map.cirro_order), keep_retained=False)
        _no_outputs(stack)
        _status(stack, "ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE")
        return
    _status(stack, "CREATE_COMPLETE")


def update(stack: Any, body: str, role_arn: str | None = None, parameters: Any = None, tags: Any = None) -> None:
    """Change the stack to a template and parameters, or leave it as it was."""
    from moto.cloudformation.exceptions import ValidationError

    stack.outputs  # noqa: B018  (read now: they are what is told of them until the update is over)
    before = (stack.template, stack.parameters)
    wanted = stack.parse_template(body)
    given = stack.parameters if parameters is None else parameters
    unchanged = wanted == stack.template_dict and parameter_values(wanted, given) == parameter_values(
        stack.template_dict, before[1]
    )
    if unchanged and tags in (None, stack.tags):
        raise ValidationError(message="No updates are to be performed.")
    try:
        _load(stack, body, given)
    except Exception:
        _load(stack, *before)
        raise
    stack.events.append(_stack_event(stack, "UPDATE_IN_PROGRESS", "User Initiated"))
    stack.status = "UPDATE_IN_PROGRESS"
    try:
        obsolete = _apply(stack)
    except (Failed, template.Invalid) as error:
        _status(stack, "UPDATE_ROLLBACK_IN_PROGRESS", str(error))
        _load(stack, *before)
        try:
            obsolete = _apply(stack)
        except (Failed, template.Invalid) as worse:
            _status(stack, "UPDATE_ROLLBACK_FAILED", str(worse))
            return
        _clean_up(stack, obsolete)
        _status(stack, "UPDATE_ROLLBACK_COMPLETE")
        return
    _status(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    _clean_up(stack, obsolete)
    stack.output_map = stack._create_output_map()
    if tags is not None:
        stack.tags = tags
    _status(stack, "UPDATE_COMPLETE")


def delete(stack: Any) -> None:
    """Delete what the stack made, last made first."""
    _status(stack, "DELETE_IN_PROGRESS", "User Initiated")
    left = _remove(stack, list(stack.resource_map.cirro_order), keep_retained=True)
    if left:
        _status(stack, "DELETE_FAILED", f"The following resource(s) failed to delete: [{', '.join(left)}].")
        return
    _no_outputs(stack)
    _status(stack, "DELETE_COMPLETE")


def _no_outputs(stack: Any) -> None:
    from moto.cloudformation.parsing import OutputMap

    stack.output_map = OutputMap(stack.resource_map, {"Outputs": {}}, stack.stack_id)


def parameter_values(body: Json, given: dict[str, Any]) -> dict[str, str]:
    """The values of a template's parameters, given ones and defaults."""
    slots = body.get("Parameters") or {}
    return {name: template.text(given.get(name, slot.get("Default"))) for name, slot in slots.items()}


def _load(stack: Any, body: Any, parameters: Any) -> None:
    stack.template = body
    stack._parse_template()
    stack.parameters = parameters
    stack.description = stack.template_dict.get("Description")
    resource_map = stack.resource_map
    resource_map._template = stack.template_dict
    resource_map._resource_json_map = stack.template_dict["Resources"]
    resource_map.input_parameters = parameters
    for name in list(resource_map.resolved_parameters):
        resource_map._parsed_resources.pop(name, None)
    resource_map.resolved_parameters = {}
    resource_map.load()


def _apply(stack: Any) -> list[tuple[str, Any, Json]]:
    """Make and change what the template asks for; returns what is no longer wanted, oldest first."""
    resource_map = stack.resource_map
    bodies = resource_map._resource_json_map
    obsolete: list[tuple[str, Any, Json]] = []
    wanted = []
    for name in template.order(bodies):
        if not active(resource_map, bodies[name]):
            continue
        wanted.append(name)
        if name in resource_map.cirro_order:
            old = _change(stack, name)
            if old is not None:
                obsolete.append((name, *old))
        else:
            _make(stack, name)
    for name in [each for each in resource_map.cirro_order if each not in wanted]:
        obsolete.append((name, resource_map._parsed_resources.pop(name), resource_map.cirro_bodies[name]))
        _forget(resource_map, name)
    return obsolete


def _forget(resource_map: Any, name: str) -> None:
    resource_map.cirro_order.remove(name)
    resource_map.cirro_bodies.pop(name, None)
    resource_map.cirro_resolved.pop(name, None)


def _clean_up(stack: Any, obsolete: list[tuple[str, Any, Json]]) -> None:
    """Failures here leave a resource behind and do not fail the stack, as on AWS."""
    for name, resource, body in reversed(obsolete):
        replaced = name in stack.resource_map.cirro_order
        if body.get("UpdateReplacePolicy" if replaced else "DeletionPolicy") == "Retain":
            continue
        try:
            _delete(stack.resource_map, resource, body)
            _event(stack, name, "DELETE_COMPLETE")
        except Exception as error:
            _event(stack, name, "DELETE_FAILED", _reason(error))


def _remove(stack: Any, names: list[str], *, keep_retained: bool) -> list[str]:
    """Delete resources, last made first; returns those that are left."""
    resource_map = stack.resource_map
    left = list(reversed(names))
    for final in [*[False] * (DELETE_PASSES - 1), True]:
        tried, left = left, []
        for name in tried:
            body = resource_map.cirro_bodies[name]
            resource = resource_map._parsed_resources[name]
            if keep_retained and body.get("DeletionPolicy") == "Retain":
                _event(stack, name, "DELETE_SKIPPED")
            else:
                try:
                    _delete(resource_map, resource, body)
                except Exception as error:
                    left.append(name)
                    if final:
                        log.debug("deleting %s", name, exc_info=True)
                        _event(stack, name, "DELETE_FAILED", _reason(error))
                    continue
                _event(stack, name, "DELETE_COMPLETE")
            resource_map._parsed_resources.pop(name, None)
            _forget(resource_map, name)
    return list(reversed(left))


def _stack_event(stack: Any, status: str, reason: str | None) -> Any:
    from moto.cloudformation.models import Event

    return Event(
        stack_id=stack.stack_id,
        stack_name=stack.name,
        logical_resource_id=stack.name,
        physical_resource_id=stack.stack_id,
        resource_type="AWS::CloudFormation::Stack",
        resource_status=status,
        resource_status_reason=reason,
        resource_properties=None,
    )


def _status(stack: Any, status: str, reason: str | None = None) -> None:
    stack.status = status
    stack.events.append(_stack_event(stack, status, reason))
