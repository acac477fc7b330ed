"""A stack of a test, made of a template that is a dict."""

from __future__ import annotations

import json
from typing import Any


class Stacks:
    """A stack of a test, and what it says."""

    def __init__(self, aws: Any) -> None:
        self.client = aws.client("cloudformation")
        self.name = aws.name("stack")
        self.id = ""

    def create(self, body: Any, **parameters: str) -> str:
        """Make it; returns its status."""
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        self.id = self.client.create_stack(
            StackName=self.name, TemplateBody=json.dumps(body), Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )["StackId"]
        return self.status()

    def update(self, body: Any, **parameters: str) -> str:
        """Change it; returns its status."""
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        self.client.update_stack(StackName=self.name, TemplateBody=json.dumps(body), Parameters=given)
        return self.status()

    def delete(self) -> str:
        """Delete it; returns its status."""
        self.client.delete_stack(StackName=self.name)
        return self.status()

    def status(self) -> str:
        """Of the stack."""
        return str(self.client.describe_stacks(StackName=self.id)["Stacks"][0]["StackStatus"])

    def outputs(self) -> dict[str, str]:
        """By key."""
        stack = self.client.describe_stacks(StackName=self.id)["Stacks"][0]
        return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}

    def events(self, resource: str) -> list[tuple[str, str]]:
        """Status and reason of a resource, oldest first."""
        events = self.client.describe_stack_events(StackName=self.id)["StackEvents"]
        return [
            (each["ResourceStatus"], each.get("ResourceStatusReason", ""))
            for each in reversed(events)
            if each["LogicalResourceId"] == resource
        ]
