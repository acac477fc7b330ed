"""What CloudFormation's functions, conditions, rules and parameter declarations come to. Pure.

The deployment asks here what a template will do before it asks AWS, and the emulated CloudFormation asks here while it
does it: there is no other evaluator. What a name stands for is said by `Names`; a value that is not known yet is
`UNKNOWN`, and so is everything that depends on it.

Source: CloudFormation User Guide, intrinsic functions, condition functions, rule-specific functions, parameters.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

MAX_VALUE_CHARS = 4096
"""Longest value of a parameter (CloudFormation User Guide, quotas)."""

NO_VALUE = "AWS::NoValue"
"""A ``Ref`` to it removes the property or the list's entry that has it as value."""

_SUBSTITUTED = re.compile(r"\$\{(!?)([^}]*)\}")


class TemplateError(Exception):
    """CloudFormation refuses a template or the values of its parameters; ``str`` is the text of the refusal."""


class Unknown(Enum):
    """The type of `UNKNOWN`."""

    UNKNOWN = "not known yet"


UNKNOWN: Final = Unknown.UNKNOWN


class Names(Protocol):
    """What the names in a template stand for. Each method may return `UNKNOWN`."""

    def ref(self, name: str) -> Any:
        """Value of a parameter, of a pseudo parameter, or the physical id of a resource."""

    def attribute(self, resource: str, attribute: str) -> Any:
        """Attribute of a resource."""

    def condition(self, name: str) -> bool | Unknown:
        """Whether a condition of the template holds."""

    def mapping(self, name: str) -> Any:
        """A mapping of the template: values by second-level key, by top-level key."""

    def exported(self, name: str) -> Any:
        """Output that another stack exports."""

    def zones(self, region: str) -> Any:
        """Names of the availability zones of a region; ``""`` is the region of the stack."""


class ParameterNames:
    """Names of a template of which nothing but values of parameters is known.

    Args:
        template: The template.
        values: Values of its parameters, as far as they are known, as text.
    """

    def __init__(self, template: Mapping[str, Any], values: Mapping[str, str]) -> None:
        self._declarations = template.get("Parameters") or {}
        self._conditions = template.get("Conditions") or {}
        self._mappings = template.get("Mappings") or {}
        self._values = values

    def ref(self, name: str) -> Any:
        """A parameter's value; of a list, its parts."""
        if name == NO_VALUE:
            return None
        value = self._values.get(name)
        if value is None:
            return UNKNOWN
        return split_list(value) if is_list(self._declarations.get(name, {})) else value

    def attribute(self, resource: str, attribute: str) -> Any:
        """Not known before the resource is made."""
        return UNKNOWN

    def condition(self, name: str) -> bool | Unknown:
        """Whether a condition holds."""
        if name not in self._conditions:
            raise TemplateError(f"Template validation error: condition {name} does not exist")
        return holds(self._conditions[name], self)

    def mapping(self, name: str) -> Any:
        """A mapping of the template."""
        return self._mappings[name]

    def exported(self, name: str) -> Any:
        """Not known here."""
        return UNKNOWN

    def zones(self, region: str) -> Any:
        """Not known here."""
        return UNKNOWN


# --- values -----------------------------------------------------------------------------------------------------------


def as_text(value: object) -> str:
    """A value as CloudFormation compares and joins it: text; lists with commas between their parts."""
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def evaluate(value: Any, names: Names) -> Any:
    """A value of a template with its references and functions replaced by what they come to.

    Returns:
        The value. `None` for ``AWS::NoValue``, which is left out of maps and lists. `UNKNOWN` where a part of the
        value is not known.

    Raises:
        TemplateError: A function is used in a form that it does not have.
    """
    if isinstance(value, list):
        parts = [evaluate(each, names) for each in value]
        return UNKNOWN if UNKNOWN in parts else [each for each in parts if each is not None]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        name, argument = next(iter(value.items()))
        if name in _FUNCTIONS:
            try:
                return _FUNCTIONS[name](argument, names)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise TemplateError(f"Template error: {name} cannot be evaluated: {error!r}") from error
    made = {key: evaluate(each, names) for key, each in value.items()}
    if UNKNOWN in made.values():
        return UNKNOWN
    return {key: each for key, each in made.items() if each is not None}


def _ref(argument: Any, names: Names) -> Any:
    return names.ref(argument)


def _get_att(argument: Any, names: Names) -> Any:
    resource, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
    attribute = evaluate(attribute, names)
    return UNKNOWN if attribute is UNKNOWN else names.attribute(resource, attribute)


def _if(argument: Any, names: Names) -> Any:
    name, if_true, if_false = argument
    met = names.condition(name)
    return UNKNOWN if met is UNKNOWN else evaluate(if_true if met else if_false, names)


def _join(argument: Any, names: Names) -> Any:
    delimiter, parts = argument[0], evaluate(argument[1], names)
    return UNKNOWN if parts is UNKNOWN else str(delimiter).join(as_text(each) for each in _list(parts))


def _split(argument: Any, names: Names) -> Any:
    delimiter, joined = argument[0], evaluate(argument[1], names)
    return UNKNOWN if joined is UNKNOWN else as_text(joined).split(delimiter)


def _select(argument: Any, names: Names) -> Any:
    index, parts = evaluate(argument[0], names), evaluate(argument[1], names)
    if index is UNKNOWN or parts is UNKNOWN:
        return UNKNOWN
    return _list(parts)[int(index)]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _sub(argument: Any, names: Names) -> Any:
    text, variables = (argument, {}) if isinstance(argument, str) else argument
    found: dict[str, Any] = {}
    for literal, name in _SUBSTITUTED.findall(text):
        if literal:
            continue
        if name in variables:
            found[name] = evaluate(variables[name], names)
        else:
            found[name] = _get_att(name, names) if "." in name else names.ref(name)
    if UNKNOWN in found.values():
        return UNKNOWN
    return _SUBSTITUTED.sub(lambda each: f"${{{each[2]}}}" if each[1] else as_text(found[each[2]]), text)


def _find_in_map(argument: Any, names: Names) -> Any:
    name, *keys = (evaluate(each, names) for each in argument)
    if UNKNOWN in (name, *keys):
        return UNKNOWN
    found = names.mapping(name)
    for key in keys:
        found = found[as_text(key)]
    return found


def _import_value(argument: Any, names: Names) -> Any:
    name = evaluate(argument, names)
    return UNKNOWN if name is UNKNOWN else names.exported(name)


def _get_azs(argument: Any, names: Names) -> Any:
    region = evaluate(argument, names)
    return UNKNOWN if region is UNKNOWN else names.zones(region or "")


def _base64(argument: Any, names: Names) -> Any:
    text = evaluate(argument, names)
    return UNKNOWN if text is UNKNOWN else base64.b64encode(text.encode()).decode()


def _to_json_string(argument: Any, names: Names) -> Any:
    value = evaluate(argument, names)
    return UNKNOWN if value is UNKNOWN else json.dumps(value)


_FUNCTIONS: dict[str, Callable[[Any, Names], Any]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::If": _if,
    "Fn::Join": _join,
    "Fn::Split": _split,
    "Fn::Select": _select,
    "Fn::Sub": _sub,
    "Fn::FindInMap": _find_in_map,
    "Fn::ImportValue": _import_value,
    "Fn::GetAZs": _get_azs,
    "Fn::Base64": _base64,
    "Fn::ToJsonString": _to_json_string,
}


# --- conditions and rules ---------------------------------------------------------------------------------------------


def holds(condition: Any, names: Names) -> bool | Unknown:
    """Whether a condition holds; `UNKNOWN` where that depends on a value that is not known.

    Raises:
        TemplateError: It is not a condition.
    """
    if isinstance(condition, bool):
        return condition
    if isinstance(condition, Mapping) and len(condition) == 1:
        function, argument = next(iter(condition.items()))
        if function == "Condition":
            return names.condition(argument)
        if function == "Fn::Equals":
            left, right = (evaluate(each, names) for each in argument)
            return UNKNOWN if UNKNOWN in (left, right) else as_text(left) == as_text(right)
        if function == "Fn::Not":
            inner = holds(argument[0], names)
            return UNKNOWN if inner is UNKNOWN else not inner
        if function in ("Fn::And", "Fn::Or"):
            parts = [holds(each, names) for each in argument]
            decisive = function == "Fn::Or"
            return decisive if decisive in parts else UNKNOWN if UNKNOWN in parts else not decisive
        if function == "Fn::Contains":
            listed, value = evaluate(argument[0], names), evaluate(argument[1], names)
            return UNKNOWN if UNKNOWN in (listed, value) else as_text(value) in [as_text(each) for each in listed]
    raise TemplateError(f"Template validation error: {condition!r} is not a condition")


class BrokenRule(NamedTuple):
    """An assertion of a rule that does not hold.

    Attributes:
        name: Name of the rule.
        text: The assertion's description; the rule's name where it has none.
    """

    name: str
    text: str


def broken_rules(template: Mapping[str, Any], names: Names) -> Iterator[BrokenRule]:
    """The assertions of a template's rules that do not hold. What depends on an unknown value is left out.

    Raises:
        TemplateError: What a rule has in the place of a condition is none.
    """
    for name, rule in (template.get("Rules") or {}).items():
        if "RuleCondition" in rule and holds(rule["RuleCondition"], names) is not True:
            continue
        for assertion in rule["Assertions"]:
            if holds(assertion["Assert"], names) is False:
                yield BrokenRule(name, str(assertion.get("AssertDescription", name)))


# --- references -------------------------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """A place in a template that refers to a parameter or a resource.

    Attributes:
        path: Keys of maps on the way to the place, after the path that was asked about; functions are no keys.
        name: What it refers to.
        attribute: The attribute; ``""`` where it is not to an attribute.
    """

    path: str
    name: str
    attribute: str


def references(value: Any, path: str = "") -> Iterator[Reference]:
    """What a value of a template refers to, by ``Ref``, ``Fn::GetAtt`` and ``Fn::Sub``."""
    if isinstance(value, list):
        for each in value:
            yield from references(each, path)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if key == "Ref":
                yield Reference(path, each, "")
            elif key == "Fn::GetAtt":
                name, attribute = each.split(".", 1) if isinstance(each, str) else each
                yield Reference(path, name, str(attribute))
            elif key == "Fn::Sub":
                text, variables = (each, {}) if isinstance(each, str) else each
                for literal, found in _SUBSTITUTED.findall(text):
                    if not literal and found not in variables:
                        name, _, attribute = found.partition(".")
                        yield Reference(path, name, attribute)
                for variable in variables.values():
                    yield from references(variable, path)
            else:
                yield from references(each, path if key.startswith("Fn::") else f"{path}/{key}")


# --- parameters -------------------------------------------------------------------------------------------------------


def is_list(declaration: Mapping[str, Any]) -> bool:
    """Whether a parameter's value is a list."""
    return "List" in declaration.get("Type", "")


def split_list(value: str) -> list[str]:
    """The parts of a list that is given as text, with commas between them."""
    return [part.strip() for part in value.split(",")]


def parameter_mistake(name: str, declaration: Mapping[str, Any], value: str) -> str | None:
    """Why CloudFormation refuses a value of a parameter; `None` where it takes it.

    Args:
        name: Name of the parameter.
        declaration: Its declaration in the template.
        value: The value as text. Of a list each part is checked (User Guide, Parameters).
    """
    parts = split_list(value) if is_list(declaration) else [value]
    found = (_part_mistake(name, declaration, part) for part in parts)
    mistake = next((each for each in found if each is not None), None)
    if mistake is None and len(value) > MAX_VALUE_CHARS:
        mistake = f"Parameter '{name}' must contain 0 to {MAX_VALUE_CHARS} characters"
    explanation = declaration.get("ConstraintDescription")
    if mistake is None or explanation is None:
        return mistake
    return f"Parameter {name} failed to satisfy constraint: {explanation}"


def _part_mistake(name: str, declaration: Mapping[str, Any], value: str) -> str | None:
    allowed = declaration.get("AllowedValues")
    if allowed is not None and value not in [as_text(each) for each in allowed]:
        return f"Parameter '{name}' must be one of AllowedValues"
    pattern = declaration.get("AllowedPattern")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        return f"Parameter '{name}' must match pattern {pattern}"
    shortest, longest = int(declaration.get("MinLength", 0)), int(declaration.get("MaxLength", MAX_VALUE_CHARS))
    if not shortest <= len(value) <= longest:
        return f"Parameter '{name}' must contain {shortest} to {longest} characters"
    if declaration["Type"] in ("Number", "List<Number>"):
        try:
            number = float(value)
        except ValueError:
            return f"Parameter '{name}' must be a number."
        least, most = declaration.get("MinValue", "-inf"), declaration.get("MaxValue", "inf")
        if not float(least) <= number <= float(most):
            return f"Parameter '{name}' must be a number not less than {least} and not greater than {most}"
    return None
