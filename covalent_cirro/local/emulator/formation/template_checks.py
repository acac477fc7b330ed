"""What CloudFormation checks in a template before it makes anything: parameters, rules, circles of references. Pure.

Functions and conditions are evaluated by `deployment.template_functions`. It must not know stacks or resources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from covalent_cirro.deployment.template_functions import (
    Names,
    TemplateError,
    as_text,
    broken_rules,
    parameter_mistake,
    references,
)
from covalent_cirro.local.emulator.batch.model import Json


def order(resources: Json) -> list[str]:
    """The resources in an order in which each comes after all that it refers to.

    Raises:
        TemplateError: They refer to each other in a circle.
    """
    needs = {
        name: {each for each in _needed(body) if each in resources and each != name} for name, body in resources.items()
    }
    result: list[str] = []
    while needs:
        ready = [name for name, needed in needs.items() if not needed - set(result)]
        if not ready:
            raise TemplateError(f"Circular dependency between resources: [{', '.join(sorted(needs))}]")
        result += ready
        for name in ready:
            del needs[name]
    return result


def _needed(body: Json) -> Iterator[str]:
    yield from (each.name for each in references(body))
    depends_on = body.get("DependsOn", [])
    yield from [depends_on] if isinstance(depends_on, str) else depends_on


def check_parameters(declarations: Json, given: Mapping[str, Any]) -> None:
    """Check the values that are given for a template's parameters.

    Args:
        declarations: ``Parameters`` of the template.
        given: Values by name.

    Raises:
        TemplateError: One is unknown, missing, or not possible.
    """
    unknown = sorted(set(given) - set(declarations))
    if unknown:
        raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    missing = [name for name, each in declarations.items() if name not in given and "Default" not in each]
    if missing:
        raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
    for name, declaration in declarations.items():
        mistake = parameter_mistake(name, declaration, as_text(given.get(name, declaration.get("Default"))))
        if mistake is not None:
            raise TemplateError(mistake)


def check_rules(template: Json, names: Names) -> None:
    """Check the rules of a template.

    Raises:
        TemplateError: An assertion does not hold.
    """
    for rule in broken_rules(template, names):
        raise TemplateError(f"Template error: Rule {rule.name} failed: {rule.text}")
