"""Reads the templates of this package: their parameters, rules, conditions and resources.

Rules and conditions are evaluated as CloudFormation does, before AWS is asked. This module must not call AWS.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from covalent_cirro.errors import StackError

Template = Mapping[str, Any]

MAX_TEMPLATE_BYTES = 51_200
"""Largest template sent without a bucket (CloudFormation API Reference, CreateChangeSet, TemplateBody)."""

MAX_VALUE_CHARS = 4096
"""Longest value of a parameter (CloudFormation User Guide, quotas)."""


_SUBSTITUTED = re.compile(r"\$\{([A-Za-z0-9]+)\}")


class Foreseen(NamedTuple):
    """A resource that a template makes.

    Attributes:
        logical_id: Name in the template.
        resource_type: Type, ``"AWS::EC2::VPC"``.
        certain: False where its condition depends on a value that is not known yet.
    """

    logical_id: str
    resource_type: str
    certain: bool


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with CloudFormation's short forms, ``!Ref x`` for ``{"Ref": "x"}``."""


def _short_form(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def body(name: str) -> str:
    """The text of a template.

    Args:
        name: File name without ``.yaml``.

    Raises:
        StackError: The template does not exist.
    """
    folder = importlib.resources.files("covalent_cirro.infra")
    files = [entry.name for entry in folder.iterdir()]
    names = sorted(file.removesuffix(".yaml") for file in files if file.endswith(".yaml"))
    if name not in names:
        raise StackError(f"there is no template {name!r}; installed are: {', '.join(names) or 'none'}")
    return folder.joinpath(f"{name}.yaml").read_text("utf-8")


@functools.cache
def load(name: str) -> Template:
    """A parsed template. The result is shared: do not change it."""
    loaded: Template = yaml.load(body(name), _Loader)  # noqa: S506  (a SafeLoader, of our own files)
    return loaded


# --- parameters and rules -----------------------------------------------------------------------------------------


def parameters(template: Template) -> dict[str, Mapping[str, Any]]:
    """The declarations of its parameters, by name."""
    return dict(template.get("Parameters") or {})


def as_text(value: object) -> str:
    """A parameter's value as CloudFormation has it: text, lists with commas."""
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def possible(declaration: Mapping[str, Any]) -> str:
    """Possible values of a parameter, in words; empty where any value is possible."""
    if "AllowedValues" in declaration:
        return "one of " + ", ".join(as_text(each) for each in declaration["AllowedValues"])
    if "ConstraintDescription" in declaration:
        return str(declaration["ConstraintDescription"])
    if declaration["Type"] == "Number":
        least, most = declaration.get("MinValue"), declaration.get("MaxValue")
        if least is not None and most is not None:
            return f"{least} to {most}"
        return "a number" if least is most is None else f"{least} or more" if most is None else f"{most} or less"
    return str(declaration.get("AllowedPattern", ""))


def is_possible(declaration: Mapping[str, Any], value: str) -> bool:
    """Whether CloudFormation accepts a value; in a list, each item must be possible (User Guide, Parameters)."""
    if len(value) > MAX_VALUE_CHARS:
        return False
    listed = "List" in declaration["Type"]
    return (
        all(_part_is_possible(declaration, part.strip()) for part in value.split(","))
        if listed
        else (_part_is_possible(declaration, value))
    )


def _part_is_possible(declaration: Mapping[str, Any], value: str) -> bool:
    allowed = declaration.get("AllowedValues")
    if allowed is not None and value not in [as_text(each) for each in allowed]:
        return False
    pattern = declaration.get("AllowedPattern")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        return False
    if not int(declaration.get("MinLength", 0)) <= len(value) <= int(declaration.get("MaxLength", MAX_VALUE_CHARS)):
        return False
    if declaration["Type"] in ("Number", "List<Number>"):
        try:
            number = float(value)
        except ValueError:
            return False
        return float(declaration.get("MinValue", "-inf")) <= number <= float(declaration.get("MaxValue", "inf"))
    return True


def broken_rules(template: Template, values: Mapping[str, str]) -> list[str]:
    """Descriptions of the template's rules that the values break.

    Args:
        template: The template.
        values: Known values of its parameters; CloudFormation checks a rule that needs another value.
    """
    broken = []
    for rule in (template.get("Rules") or {}).values():
        if "RuleCondition" in rule and _holds(rule["RuleCondition"], values, {}) is not True:
            continue
        broken += [
            str(each.get("AssertDescription", each["Assert"]))
            for each in rule["Assertions"]
            if _holds(each["Assert"], values, {}) is False
        ]
    return broken


# --- conditions and resources -------------------------------------------------------------------------------------


def foresee(template: Template, values: Mapping[str, str]) -> list[Foreseen]:
    """The resources that a template would make.

    Args:
        template: The template.
        values: Known values of its parameters.
    """
    conditions = template.get("Conditions") or {}
    foreseen = []
    for name, resource in template["Resources"].items():
        made = True if "Condition" not in resource else _holds({"Condition": resource["Condition"]}, values, conditions)
        if made is not False:
            foreseen.append(Foreseen(name, resource["Type"], made is True))
    return foreseen


def _holds(value: Any, values: Mapping[str, str], conditions: Mapping[str, Any]) -> bool | None:
    """Whether a condition holds; `None` where that depends on an unknown value."""
    if not (isinstance(value, dict) and len(value) == 1):
        return value if isinstance(value, bool) else None
    function, argument = next(iter(value.items()))
    if function == "Condition":
        return _holds(conditions[argument], values, conditions) if argument in conditions else None
    if function == "Fn::Equals":
        left, right = (_value(each, values) for each in argument)
        return None if left is None or right is None else left == right
    if function == "Fn::Not":
        inner = _holds(argument[0], values, conditions)
        return None if inner is None else not inner
    if function in ("Fn::And", "Fn::Or"):
        parts = [_holds(each, values, conditions) for each in argument]
        decisive = function == "Fn::Or"
        return decisive if decisive in parts else None if None in parts else not decisive
    return None


def _value(value: Any, values: Mapping[str, str]) -> str | None:
    """A value as text; `None` where it is not known."""
    if not isinstance(value, dict):
        return as_text(value)
    function, argument = next(iter(value.items()))
    if function == "Ref":
        return values.get(argument)
    if function == "Fn::Join":
        parts = _values(argument[1], values)
        return None if parts is None else str(argument[0]).join(parts)
    if function == "Fn::Sub" and isinstance(argument, str):
        names = set(_SUBSTITUTED.findall(argument))
        known = names <= values.keys()
        return _SUBSTITUTED.sub(lambda found: values[found[1]], argument) if known else None
    if function == "Fn::Select":
        parts = _values(argument[1], values)
        return None if parts is None else parts[int(argument[0])]
    return None


def _values(value: Any, values: Mapping[str, str]) -> list[str] | None:
    """A list of values as text; `None` where one of them is not known."""
    if isinstance(value, list):
        found = [_value(each, values) for each in value]
        return None if None in found else [each for each in found if each is not None]
    function, argument = next(iter(value.items()))
    if function == "Fn::Split":
        joined = _value(argument[1], values)
        return None if joined is None else joined.split(argument[0])
    joined = _value(value, values)
    return None if joined is None else joined.split(",")
