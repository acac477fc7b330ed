"""The templates of ``infra/`` as tests look at them: read once, and with their conditions decided."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cfnlint  # type: ignore[import-untyped]
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

INFRA = Path(__file__).parents[2] / "infra"
NO_VALUE = {"Ref": "AWS::NoValue"}
EXAMPLES = {
    "S3BucketName": "cirro-storage-bucket-abcdefghijkl",
    "BatchJobLogGroupName": "cirro-storage-JobLogGroup-ABCDEFGHIJKL",
    "ImageRepositoryArn": "arn:aws:ecr:us-east-1:123456789012:repository/cirro-storage-imagerepository-abcdefghijkl",
    "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "SecurityGroupIds": "sg-0123456789abcdef0",
    "FileSystemArn": "none",
    "AccessPointArn": "none",
    "InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/cirro-roles-InstanceProfile-ABCDEFGHIJKL",
    "VpcId": "vpc-0123456789abcdef0",
    "ServiceName": "recommender",
    "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/cirro-storage-imagerepository-abcdefghijkl@sha256:"
    + 64 * "a",
}
"""A value for each parameter that has no default: outputs of earlier stacks, and what a service is."""

IAM_ACTIONS: dict[str, Any] = json.loads(
    (Path(cfnlint.__file__).parent / "data/AdditionalSpecs/Policies.json").read_text()
)
"""AWS's service authorization reference, as cfn-lint carries it: actions, and the resources each can be limited to."""


def walk(value: Any) -> Iterator[Any]:
    """The value and all that is in it."""
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(item)


def as_list(value: Any) -> list[Any]:
    """CloudFormation and IAM allow one thing in place of a list of one."""
    return value if isinstance(value, list) else [value]


class Template:
    """One of them.

    Attributes:
        path: Its file.
        body: All of it, with functions in their long form.
        parameters, rules, conditions, resources, outputs: Its sections.
        defaults: Of the parameters that have one.
    """

    def __init__(self, part: str) -> None:
        self.path = INFRA / f"{part}.yaml"
        self.body: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(self.path))))
        self.parameters: dict[str, Any] = self.body["Parameters"]
        self.rules: dict[str, Any] = self.body.get("Rules", {})
        self.conditions: dict[str, Any] = self.body.get("Conditions", {})
        self.resources: dict[str, Any] = self.body["Resources"]
        self.outputs: dict[str, Any] = self.body.get("Outputs", {})
        self.defaults = {name: each["Default"] for name, each in self.parameters.items() if "Default" in each}

    def properties(self, name: str) -> dict[str, Any]:
        """The properties of a resource."""
        found: dict[str, Any] = self.resources[name]["Properties"]
        return found

    def of_type(self, kind: str) -> dict[str, Any]:
        """The resources of a type, by logical id."""
        return {name: resource for name, resource in self.resources.items() if resource["Type"] == kind}

    def with_values(self, **given: object) -> Stack:
        """The template with values for its parameters; those of earlier stacks have examples."""
        return Stack(self, given)


class Stack:
    """A template with values for its parameters: conditions decided, ``Fn::If`` and parameters replaced.

    Attributes:
        resources: Properties of what is made, by logical id.
        outputs: Values of its outputs.
    """

    def __init__(self, template: Template, given: dict[str, object]) -> None:
        self._template = template
        examples = {name: value for name, value in EXAMPLES.items() if name in template.parameters}
        self._values = {name: str(value) for name, value in {**template.defaults, **examples, **given}.items()}
        self.resources = {
            name: self._settle(resource.get("Properties", {}))
            for name, resource in template.resources.items()
            if self.holds(resource.get("Condition"))
        }
        self.outputs = {
            name: self._settle(output["Value"])
            for name, output in template.outputs.items()
            if self.holds(output.get("Condition"))
        }

    def of_type(self, kind: str) -> dict[str, Any]:
        """The properties of what is made of a type, by logical id."""
        return {name: each for name, each in self.resources.items() if self._template.resources[name]["Type"] == kind}

    def holds(self, condition: str | None) -> bool:
        """Whether a named condition is true; no condition is."""
        return condition is None or self.decide(self._template.conditions[condition])

    def decide(self, expression: dict[str, Any]) -> bool:
        """The value of a condition function."""
        [(function, argument)] = expression.items()
        if function == "Condition":
            return self.holds(argument)
        if function == "Fn::Not":
            return not self.decide(argument[0])
        if function in ("Fn::Or", "Fn::And"):
            return (any if function == "Fn::Or" else all)([self.decide(item) for item in argument])
        if function == "Fn::Contains":
            listed, value = (self._settle(item) for item in argument)
            return value in (listed.split(",") if isinstance(listed, str) else listed)
        assert function == "Fn::Equals"
        left, right = (self._settle(item) for item in argument)
        return str(left) == str(right)

    def broken_rules(self) -> list[str]:
        """What its rules say against the values."""
        return [
            assertion["AssertDescription"]
            for rule in self._template.rules.values()
            if "RuleCondition" not in rule or self.decide(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self.decide(assertion["Assert"])
        ]

    def references(self) -> set[str]:
        """Names of all resources that something refers to."""
        found = set()
        for item in walk([self.resources, self.outputs]):
            if isinstance(item, dict):
                found |= {item["Ref"]} if isinstance(item.get("Ref"), str) else set()
                if "Fn::GetAtt" in item:
                    found.add(as_list(item["Fn::GetAtt"])[0].split(".")[0])
                text, own = [*as_list(item.get("Fn::Sub", "")), {}][:2]
                names = set(re.findall(r"\$\{([^}]+)\}", text)) - set(own)
                found |= {name.split(".")[0] for name in names}
        return {name for name in found if not name.startswith("AWS::")} - set(self._template.parameters)

    def _settle(self, value: Any) -> Any:
        if isinstance(value, list):
            return [settled for item in value if (settled := self._settle(item)) != NO_VALUE]
        if not isinstance(value, dict):
            return value
        if value.get("Ref") in self._values:
            return self._values[value["Ref"]]
        if "Fn::If" in value:
            condition, then, otherwise = value["Fn::If"]
            return self._settle(then if self.holds(condition) else otherwise)
        if "Fn::FindInMap" in value:
            table, first, second = (self._settle(item) for item in value["Fn::FindInMap"])
            return self._template.body["Mappings"][table][first][second]
        if "Fn::Split" in value:
            separator, text = (self._settle(item) for item in value["Fn::Split"])
            return text.split(separator) if isinstance(text, str) else {"Fn::Split": [separator, text]}
        text = value.get("Fn::Sub")
        if isinstance(text, str) and set(re.findall(r"\$\{([^}]+)\}", text)) <= set(self._values):
            return re.sub(r"\$\{([^}]+)\}", lambda found: self._values[found[1]], text)
        if "Fn::Select" in value:
            index, parts = (self._settle(item) for item in value["Fn::Select"])
            return parts[int(index)] if isinstance(parts, list) else {"Fn::Select": [index, parts]}
        if "Fn::Join" in value:
            separator, parts = (self._settle(item) for item in value["Fn::Join"])
            if isinstance(parts, str):  # a parameter that is a list
                return separator.join(parts.split(","))
            return separator.join(parts) if all(isinstance(part, str) for part in parts) else {"Fn::Join": parts}
        return {key: settled for key, item in value.items() if (settled := self._settle(item)) != NO_VALUE}


PARTS = ("network", "storage", "roles", "budget", "compute")
"""The stacks of a deployment, in the order in which they are made."""

SERVING = "serving"
"""The template of a service. A deployment has any number of its stacks; they are no part of it."""

TEMPLATES = {part: Template(part) for part in (*PARTS, SERVING)}
