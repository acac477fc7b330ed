"""Reads the templates of this package: their parameters, rules, conditions and resources.

Rules and conditions are evaluated as CloudFormation does, before AWS is asked. This module must not call AWS.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from covalent_cirro.deployment import template_functions
from covalent_cirro.deployment.template_functions import ParameterNames, TemplateError, as_text, parameter_mistake
from covalent_cirro.errors import StackError

Template = Mapping[str, Any]

MAX_TEMPLATE_BYTES = 51_200
"""Largest template sent without a bucket (CloudFormation API Reference, CreateChangeSet, TemplateBody)."""

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class ForeseenResource(NamedTuple):
    """A resource that a template makes.

    Attributes:
        logical_id: Name in the template.
        resource_type: Type, ``"AWS::EC2::VPC"``.
        certain: False where its condition depends on a value that is not known yet.
    """

    logical_id: str
    resource_type: str
    certain: bool


@functools.cache
def _loader() -> Any:
    """A loader of YAML with CloudFormation's short forms, ``!Ref x`` for ``{"Ref": "x"}``; a date is text, as there."""
    import yaml  # type: ignore[import-untyped]

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012  (yaml's own form)
            first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_multi_constructor("!", _short_form)
    return Loader


def _short_form(loader: Any, suffix: str, node: Any) -> Any:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


def body(name: str) -> str:
    """The text of a template.

    Args:
        name: File name without ``.yaml``.

    Raises:
        StackError: The template does not exist.
    """
    folder = _folder()
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise StackError(f"there is no template {name!r}; installed are: {', '.join(names) or 'none'}")
    return folder.joinpath(f"{name}.yaml").read_text("utf-8")


def _folder() -> Path:
    """The folder ``infra/`` of the installed package or of the checkout."""
    package = Path(str(importlib.resources.files("covalent_cirro")))
    installed = package / "infra"
    return installed if installed.is_dir() else package.parent / "infra"


@functools.cache
def load(name: str) -> Template:
    """A parsed template. The result is shared: do not change it."""
    return parse(body(name))


def parse(text: str) -> dict[str, Any]:
    """A template as CloudFormation reads it, from YAML or JSON.

    Raises:
        TemplateError: The text is neither.
    """
    import yaml

    try:
        parsed: Any = json.loads(text)
    except ValueError:
        try:
            parsed = yaml.load(text, _loader())  # noqa: S506  (a SafeLoader)
        except yaml.YAMLError as error:
            raise TemplateError(f"Template format error: the template is not well-formed: {error}") from error
    if not isinstance(parsed, dict):
        raise TemplateError("Template format error: unsupported structure.")
    return parsed


# --- parameters and rules -----------------------------------------------------------------------------------------


def parameters(template: Template) -> dict[str, Mapping[str, Any]]:
    """The declarations of its parameters, by name."""
    return dict(template.get("Parameters") or {})


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
    return parameter_mistake("", declaration, value) is None


def broken_rules(template: Template, values: Mapping[str, str]) -> list[str]:
    """Descriptions of the template's rules that the values break.

    Args:
        template: The template.
        values: Known values of its parameters; CloudFormation checks a rule that needs another value.
    """
    return [broken.text for broken in template_functions.broken_rules(template, ParameterNames(template, values))]


# --- conditions and resources -------------------------------------------------------------------------------------


def foresee(template: Template, values: Mapping[str, str]) -> list[ForeseenResource]:
    """The resources that a template would make.

    Args:
        template: The template.
        values: Known values of its parameters.
    """
    names = ParameterNames(template, values)
    foreseen = []
    for logical_id, resource in template["Resources"].items():
        made = names.condition(resource["Condition"]) if "Condition" in resource else True
        if made is not False:
            foreseen.append(ForeseenResource(logical_id, resource["Type"], made is True))
    return foreseen
