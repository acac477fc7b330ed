"""CloudFormation templates, the parts that moto gets wrong or leaves out. Pure: order, conditions, parameters, rules.

It must not know stacks or resources; what a template makes is `formation`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json

Resolve = Callable[[Any], Any]


class Invalid(Exception):
    """CloudFormation refuses the template or its parameters; ``str`` is its text."""


def normalised(template: Json) -> Json:
    """The template with ``!Condition X`` as JSON has it, ``{"Condition": "X"}``; moto's reader misses that."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"Fn::Condition"}:
                return {"Condition": value["Fn::Condition"]}
            return {key: walk(each) for key, each in value.items()}
        return [walk(each) for each in value] if isinstance(value, list) else value

    result: Json = walk(template)
    return result


def text(value: Any) -> str:
    """A parameter's value as CloudFormation compares it: as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def condition(value: Any, resolve: Resolve, named: Callable[[str], bool]) -> bool:
    """Whether a condition holds.

    Args:
        value: The condition.
        resolve: Gives the value of references and functions.
        named: Gives another condition by name.

    Raises:
        Invalid: Not a condition.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, dict) and len(value) == 1:
        function, argument = next(iter(value.items()))
        if function == "Condition":
            return named(argument)
        if function == "Fn::Equals":
            left, right = (resolve(each) for each in argument)
            return text(left) == text(right)
        if function == "Fn::Not":
            return not condition(argument[0], resolve, named)
        if function == "Fn::And":
            return all(condition(each, resolve, named) for each in argument)
        if function == "Fn::Or":
            return any(condition(each, resolve, named) for each in argument)
        if function == "Fn::Contains":
            return text(resolve(argument[1])) in [text(resolve(each)) for each in argument[0]]
    raise Invalid(f"Template validation error: {value!r} is not a condition")


def order(resources: Json) -> list[str]:
    """The resources in an order in which each comes after all that it refers to.

    Raises:
        Invalid: They refer to each other in a circle.
    """
    needs = {
        name: {each for each in _references(body) if each in resources and each != name}
        for name, body in resources.items()
    }
    result: list[str] = []
    while needs:
        ready = [name for name, needed in needs.items() if not needed - set(result)]
        if not ready:
            raise Invalid(f"Circular dependency between resources: [{', '.join(sorted(needs))}]")
        result += ready
        for name in ready:
            del needs[name]
    return result


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    if not isinstance(value, dict):
        return
    for key, each in value.items():
        if key == "Ref":
            yield each
        elif key == "Fn::GetAtt":
            yield each.split(".")[0] if isinstance(each, str) else each[0]
        elif key == "DependsOn":
            yield from [each] if isinstance(each, str) else each
        elif key == "Fn::Sub":
            body = each if isinstance(each, str) else each[0]
            yield from (name.split(".")[0] for name in re.findall(r"\$\{([^!}][^}]*)\}", body))
            yield from _references([] if isinstance(each, str) else each[1])
        else:
            yield from _references(each)


def check_parameters(slots: Json, given: dict[str, Any]) -> None:
    """The values of a stack's parameters.

    Raises:
        Invalid: One is unknown, missing, or not allowed.
    """
    unknown = sorted(set(given) - set(slots))
    if unknown:
        raise Invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    missing = [name for name, slot in slots.items() if name not in given and "Default" not in slot]
    if missing:
        raise Invalid(f"Parameters: [{', '.join(missing)}] must have values")
    for name, slot in slots.items():
        value = text(given.get(name, slot.get("Default")))
        listed = "List" in slot["Type"]
        for each in value.split(",") if listed else [value]:
            problem = _problem(name, slot, each.strip() if listed else each)
            if problem is not None:
                explanation = slot.get("ConstraintDescription")
                raise Invalid(
                    problem if explanation is None else f"Parameter {name} failed to satisfy constraint: {explanation}"
                )


def _problem(name: str, slot: Json, value: str) -> str | None:
    allowed = slot.get("AllowedValues")
    if allowed is not None and value not in [text(each) for each in allowed]:
        return f"Parameter '{name}' must be one of AllowedValues"
    pattern = slot.get("AllowedPattern")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        return f"Parameter '{name}' must match pattern {pattern}"
    if not int(slot.get("MinLength", 0)) <= len(value) <= int(slot.get("MaxLength", 4096)):
        return f"Parameter '{name}' must contain {slot.get('MinLength', 0)} to {slot.get('MaxLength', 4096)} characters"
    if slot["Type"] == "Number":
        try:
            number = float(value)
        except ValueError:
            return f"Parameter '{name}' must be a number."
        if not float(slot.get("MinValue", "-inf")) <= number <= float(slot.get("MaxValue", "inf")):
            least, most = slot.get("MinValue", "-inf"), slot.get("MaxValue", "inf")
            return f"Parameter '{name}' must be a number not less than {least} and not greater than {most}"
    return None


def check_rules(rules: Json, resolve: Resolve) -> None:
    """The assertions of a template's rules.

    Raises:
        Invalid: One does not hold.
    """

    def named(name: str) -> bool:
        raise Invalid(f"Template validation error: a rule cannot use condition {name}")

    for name, rule in rules.items():
        if "RuleCondition" in rule and not condition(rule["RuleCondition"], resolve, named):
            continue
        for assertion in rule["Assertions"]:
            if not condition(assertion["Assert"], resolve, named):
                said = assertion.get("AssertDescription", name)
                raise Invalid(f"Template error: Rule {name} failed: {said}")
