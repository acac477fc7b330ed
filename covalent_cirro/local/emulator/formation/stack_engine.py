"""Makes, changes and deletes stacks as CloudFormation does: order, events, rollback, and what is left behind.

moto's CloudFormation calls the functions here in the place of its own (`moto_internals.moto_cloudformation`). What a
resource is, `stack_resource` and the modules of kinds say.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from covalent_cirro.deployment.template_functions import TemplateError
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation.stack_resource import MotoResource, NotStabilized, StackResource
from covalent_cirro.local.emulator.formation.template_checks import order
from covalent_cirro.local.emulator.moto_internals import moto_stacks, moto_templates
from covalent_cirro.local.emulator.moto_internals.moto_stacks import MotoStack, parameter_values

DELETE_PASSES = 3
"""How often a resource that cannot be deleted is tried again, each time after all others."""

RETAINED = ("Retain", "RetainExceptOnCreate")
"""Policies by which a resource stays when the stack no longer has it. A failed creation deletes it all the same."""

log = logging.getLogger("covalent_cirro.local.emulator")


class Obsolete(NamedTuple):
    """A resource that the template no longer wants, or that was replaced.

    Attributes:
        name: Its logical id.
        resource: The resource.
        body: What the template said of it.
        properties: Its properties; `None` where it is not known what it has.
    """

    name: str
    resource: Any
    body: Json
    properties: Any = None


class ResourceFailed(Exception):
    """A resource could not be made, changed or deleted; ``str`` is the reason that the stack's event gives."""


# --- one resource -----------------------------------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    for attribute in ("text", "message", "description"):
        reason = getattr(error, attribute, None)
        if isinstance(reason, str) and reason:
            return reason
    return str(error) if isinstance(error, (ResourceFailed, TemplateError)) else f"{type(error).__name__}: {error}"


def _make(stack: MotoStack, name: str) -> None:
    stack.add_resource_event(name, "CREATE_IN_PROGRESS")
    try:
        if not stack.make(name):
            raise ResourceFailed(f"{stack.bodies[name]['Type']} is not emulated")
    except Exception as error:
        log.debug("creating %s", name, exc_info=True)
        if isinstance(error, NotStabilized):
            stack.adopt(name, error.resource)
        stack.add_resource_event(name, "CREATE_FAILED", _reason(error))
        raise ResourceFailed(f"The following resource(s) failed to create: [{name}].") from error
    stack.add_resource_event(name, "CREATE_COMPLETE")


def _change(stack: MotoStack, name: str) -> Obsolete | None:
    """Bring a resource up to date; returns the old one where it was replaced and still exists."""
    body, old_body, old_properties = stack.bodies[name], stack.made.bodies[name], stack.made.properties[name]
    if body["Type"] == old_body["Type"] and stack.properties(body) == old_properties:
        stack.made.bodies[name] = body
        return None
    stack.add_resource_event(name, "UPDATE_IN_PROGRESS")
    try:
        changed = stack.change(name)
        if changed is None:
            raise ResourceFailed(f"Updates of {body['Type']} are not emulated")
    except Exception as error:
        log.debug("updating %s", name, exc_info=True)
        stack.add_resource_event(name, "UPDATE_FAILED", _reason(error))
        stack.made.properties[name] = None
        raise ResourceFailed(f"The following resource(s) failed to update: [{name}].") from error
    stack.add_resource_event(name, "UPDATE_COMPLETE")
    before, after = changed
    is_left = after is not before and getattr(after, "cirro_leaves_old", False)
    return Obsolete(name, before, old_body, old_properties) if is_left else None


def _delete(stack: MotoStack, resource: Any, body: Json) -> None:
    model = moto_stacks.resource_class(body["Type"])
    if isinstance(model, MotoResource):
        model.delete_resource(resource, stack.account, stack.region)
    elif isinstance(resource, StackResource):
        resource.delete(stack.account, stack.region)
    else:
        stack.delete_resource(resource, body)


# --- one stack --------------------------------------------------------------------------------------------------------


def create(stack: MotoStack) -> None:
    """Make all resources, or none."""
    stack.set_status("CREATE_IN_PROGRESS", event=False)
    stack.tag_resources()
    try:
        for name in order(stack.bodies):
            if stack.is_wanted(stack.bodies[name]):
                _make(stack, name)
    except (ResourceFailed, TemplateError) as error:
        stack.set_status("ROLLBACK_IN_PROGRESS", f"{error} Rollback requested by user.")
        left = _remove(stack, list(stack.made.order), keep_retained=False)
        stack.drop_outputs()
        stack.set_status("ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE")
        return
    stack.set_status("CREATE_COMPLETE")


def update(stack: MotoStack, text: str, given: dict[str, Any], tags: dict[str, str] | None) -> None:
    """Change the stack to a template and parameters, or leave it as it was.

    Args:
        stack: The stack.
        text: Text of the template.
        given: Values of its parameters.
        tags: Tags of the stack; `None` keeps them.

    Raises:
        Exception: CloudFormation's ``ValidationError``: nothing would change, or template or parameters are refused.
    """
    stack.keep_outputs()
    before = (stack.text, stack.given)
    wanted = stack.parsed(text)
    unchanged = wanted == stack.template and parameter_values(wanted, given) == stack.parameter_values()
    if unchanged and tags in (None, stack.tags):
        raise moto_templates.validation_error("No updates are to be performed.")
    try:
        stack.load(text, given)
    except Exception:
        stack.load(*before)
        raise
    stack.set_status("UPDATE_IN_PROGRESS", "User Initiated")
    obsolete: list[Obsolete] = []
    try:
        _apply(stack, obsolete)
    except (ResourceFailed, TemplateError) as error:
        stack.set_status("UPDATE_ROLLBACK_IN_PROGRESS", str(error))
        stack.load(*before)
        obsolete = _put_back(stack, obsolete)
        try:
            _apply(stack, obsolete)
        except (ResourceFailed, TemplateError) as worse:
            stack.set_status("UPDATE_ROLLBACK_FAILED", str(worse))
            return
        _clean_up(stack, obsolete)
        stack.set_status("UPDATE_ROLLBACK_COMPLETE")
        return
    stack.set_status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    _clean_up(stack, obsolete)
    stack.renew_outputs()
    if tags is not None:
        stack.tags = tags
    stack.set_status("UPDATE_COMPLETE")


def delete(stack: MotoStack) -> None:
    """Delete what the stack made, last made first."""
    stack.set_status("DELETE_IN_PROGRESS", "User Initiated")
    left = _remove(stack, list(stack.made.order), keep_retained=True)
    if left:
        stack.set_status("DELETE_FAILED", f"The following resource(s) failed to delete: [{', '.join(left)}].")
        return
    stack.drop_outputs()
    stack.set_status("DELETE_COMPLETE")


def _apply(stack: MotoStack, obsolete: list[Obsolete]) -> None:
    """Make and change what the template asks for; adds what it no longer wants to the list, oldest first."""
    wanted = []
    for name in order(stack.bodies):
        if not stack.is_wanted(stack.bodies[name]):
            continue
        wanted.append(name)
        if name in stack.made.order:
            old = _change(stack, name)
            if old is not None:
                obsolete.append(old)
        else:
            _make(stack, name)
    for name in [each for each in stack.made.order if each not in wanted]:
        body = stack.made.bodies[name]
        obsolete.append(Obsolete(name, stack.drop(name), body))


def _put_back(stack: MotoStack, replaced: list[Obsolete]) -> list[Obsolete]:
    """Give the stack the resources that an update replaced before it failed; returns their replacements."""
    replacements = []
    for old in replaced:
        body = stack.made.bodies[old.name]
        replacements.append(Obsolete(old.name, stack.put_back(old.name, old.resource, old.body, old.properties), body))
        stack.add_resource_event(old.name, "UPDATE_COMPLETE")
    return replacements


def _clean_up(stack: MotoStack, obsolete: list[Obsolete]) -> None:
    """Delete what is no longer wanted. A failure leaves a resource behind and does not fail the stack, as on AWS.

    What another one still uses is tried again: a resource that was replaced may use one that the template has no more.
    """
    left = list(reversed(obsolete))
    for final in [*[False] * (DELETE_PASSES - 1), True]:
        tried, left = left, []
        for each in tried:
            replaced = each.name in stack.made.order
            if each.body.get("UpdateReplacePolicy" if replaced else "DeletionPolicy") in RETAINED:
                continue
            try:
                _delete(stack, each.resource, each.body)
                stack.add_resource_event(each.name, "DELETE_COMPLETE")
            except Exception as error:
                left.append(each)
                if final:
                    log.debug("deleting %s", each.name, exc_info=True)
                    stack.add_resource_event(each.name, "DELETE_FAILED", _reason(error))


def _remove(stack: MotoStack, names: list[str], *, keep_retained: bool) -> list[str]:
    """Delete resources, last made first; returns those that are left."""
    left = list(reversed(names))
    for final in [*[False] * (DELETE_PASSES - 1), True]:
        tried, left = left, []
        for name in tried:
            body = stack.made.bodies[name]
            if keep_retained and body.get("DeletionPolicy") in RETAINED:
                stack.add_resource_event(name, "DELETE_SKIPPED")
            else:
                try:
                    _delete(stack, stack.resource(name), body)
                except Exception as error:
                    left.append(name)
                    if final:
                        log.debug("deleting %s", name, exc_info=True)
                        stack.add_resource_event(name, "DELETE_FAILED", _reason(error))
                    continue
                stack.add_resource_event(name, "DELETE_COMPLETE")
            stack.drop(name)
    return list(reversed(left))
