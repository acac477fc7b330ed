"""Evaluates templates with what moto's CloudFormation knows of a stack, and makes the errors that moto answers.

Functions are evaluated by `deployment.template_functions`; this module gives it parameters and resources.
"""

from __future__ import annotations

from typing import Any

from covalent_cirro.deployment.template_functions import Names, TemplateError, evaluate

ZONE_LETTERS = "abc"
"""``Fn::GetAZs`` gives a zone for each letter, in every region."""


class StackNames:
    """Values of the names in the template of a stack (`template_functions.Names`).

    Args:
        resource_map: moto's map of the stack's parameters and resources.
    """

    def __init__(self, resource_map: Any) -> None:
        self._map = resource_map

    def ref(self, name: str) -> Any:
        """A parameter's value, or a resource's physical id."""
        found = self._map[name]
        return getattr(found, "physical_resource_id", found)

    def attribute(self, resource: str, attribute: str) -> Any:
        """A resource's attribute. One that moto does not implement is left as the function that asks for it."""
        from moto.cloudformation.exceptions import UnformattedGetAttTemplateException

        found = self._map.get(resource)
        if found is None:
            raise TemplateError(f"Template error: instance of Fn::GetAtt references undefined resource {resource}")
        try:
            return found.get_cfn_attribute(attribute)
        except NotImplementedError:
            return {"Fn::GetAtt": [resource, attribute]}
        except UnformattedGetAttTemplateException as error:
            raise TemplateError(error.description.format(resource, attribute)) from error

    def condition(self, name: str) -> bool:
        """Whether a condition holds; rules are checked before there is any."""
        conditions = getattr(self._map, "lazy_condition_map", {})
        if name not in conditions:
            raise TemplateError(f"Template validation error: condition {name} does not exist")
        return bool(conditions[name])

    def mapping(self, name: str) -> Any:
        """A mapping. What ``AWS::Include`` brings into one, moto keeps beside it."""
        found = self._map[name]
        return self._map if "Fn::Transform" in found else found

    def exported(self, name: str) -> Any:
        """The value that another stack exports."""
        found = [each.value for each in self._map.cross_stack_resources.values() if each.name == name]
        if not found:
            raise TemplateError(f"No export named {name} found.")
        return found[0]

    def zones(self, region: str) -> list[str]:
        """Three zones of each region."""
        return [f"{region or self._map._region_name}{letter}" for letter in ZONE_LETTERS]


def evaluated(value: Any, names: Names) -> Any:
    """A value of a template with its references and functions replaced by what they come to.

    Raises:
        Exception: `validation_error`: the template has a mistake.
    """
    try:
        return evaluate(value, names)
    except TemplateError as error:
        raise validation_error(str(error)) from error


# --- errors -----------------------------------------------------------------------------------------------------------


def validation_error(text: str) -> Exception:
    """The error that CloudFormation answers as ``ValidationError``, with HTTP status 400."""
    from moto.cloudformation.exceptions import ValidationError

    error: Exception = ValidationError(message=text)
    return error


def api_error(code: str, text: str) -> Exception:
    """The error that CloudFormation answers with a code of its own, with HTTP status 400."""
    from moto.cloudformation.exceptions import CloudFormationError

    error: Any = CloudFormationError(text)
    error.code = code
    return error  # type: ignore[no-any-return]


def unknown_attribute() -> Exception:
    """The error that a resource raises for an attribute that it does not have."""
    from moto.cloudformation.exceptions import UnformattedGetAttTemplateException

    error: Exception = UnformattedGetAttTemplateException()
    return error
