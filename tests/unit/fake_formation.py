"""A CloudFormation of our own, whose stacks change by one status at each look; and a clock that only sleeping moves."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

Event = tuple[str, str, str, str]
"""Logical id, resource type, status, reason."""

STACK = "AWS::CloudFormation::Stack"


def refusal(operation: str, message: str, code: str = "ValidationError") -> ClientError:
    """What botocore raises where AWS says no."""
    said: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(said, operation)


class FakeFormation:
    """The part of CloudFormation that is used here.

    Attributes:
        stacks: All stacks, by ARN, deleted ones too.
        change_sets: Those that are there, by ARN, with the request that made each.
        done: Operations that changed something, in order: verb and stack's name.
        runs: Statuses, each with events, that the next operation on a stack runs through, by the stack's name. Without
            one it succeeds at once.
        changes: Changes of a stack's next change set, in the API's form, by the stack's name; `None`: no changes.
        outputs: Outputs that a stack has once it is made or updated, by its name.
        listed: Resources of a stack, as ListStackResources has them, by its name.
    """

    PAGE = 3

    def __init__(self) -> None:
        self.meta = SimpleNamespace(
            region_name="eu-west-1", endpoint_url="https://cloudformation.eu-west-1.amazonaws.com"
        )
        self.stacks: dict[str, dict[str, Any]] = {}
        self.change_sets: dict[str, dict[str, Any]] = {}
        self.done: list[tuple[str, str]] = []
        self.runs: dict[str, list[tuple[str, list[Event]]]] = {}
        self.changes: dict[str, list[dict[str, Any]] | None] = {}
        self.outputs: dict[str, dict[str, str]] = {}
        self.listed: dict[str, list[dict[str, str]]] = {}
        self.reason = "The submitted information didn't contain changes."
        self._events: dict[str, list[dict[str, str]]] = {}
        self._under_way: dict[str, list[tuple[str, list[Event]]]] = {}
        self._ids = itertools.count(1)

    # --- what a test does -----------------------------------------------------------------------------------------

    def add(self, name: str, status: str, description: str = "covalent-cirro, a stack", **more: Any) -> dict[str, Any]:
        """A stack that is there already."""
        stack_id = f"arn:aws:cloudformation:eu-west-1:123456789012:stack/{name}/{next(self._ids)}"
        stack = {"StackName": name, "StackId": stack_id, "StackStatus": status, "Description": description, **more}
        self.stacks[stack_id] = stack
        self._events[stack_id] = []
        return stack

    def happen(self, stack: dict[str, Any], *events: Event) -> None:
        """Write events into a stack's history."""
        for logical_id, kind, status, reason in events:
            event = {"EventId": str(next(self._ids)), "LogicalResourceId": logical_id, "ResourceType": kind}
            event |= {"ResourceStatus": status} | ({"ResourceStatusReason": reason} if reason else {})
            self._events[stack["StackId"]].insert(0, event)

    def run(self, stack: dict[str, Any], *run: tuple[str, list[Event]]) -> None:
        """What an operation that somebody else began goes through."""
        self._under_way[stack["StackId"]] = list(run)

    def alive(self) -> dict[str, str]:
        """The stacks that are there: name and status."""
        return {
            each["StackName"]: each["StackStatus"]
            for each in self.stacks.values()
            if each["StackStatus"] != "DELETE_COMPLETE"
        }

    def _find(self, name: str) -> dict[str, Any] | None:
        if name in self.stacks:
            return self.stacks[name]
        return next(
            (
                each
                for each in self.stacks.values()
                if each["StackName"] == name and each["StackStatus"] != "DELETE_COMPLETE"
            ),
            None,
        )

    def _begin(self, stack: dict[str, Any], verb: str) -> None:
        name = stack["StackName"]
        self.done.append((verb.lower(), name))
        stack["StackStatus"] = f"{verb}_IN_PROGRESS"
        self.happen(stack, (name, STACK, f"{verb}_IN_PROGRESS", "User Initiated"))
        self._under_way[stack["StackId"]] = self.runs.pop(name, [(f"{verb}_COMPLETE", [])])

    # --- what CloudFormation answers ------------------------------------------------------------------------------

    def describe_stacks(self, StackName: str = "") -> dict[str, Any]:
        if not StackName:
            return {"Stacks": [each for each in self.stacks.values() if each["StackStatus"] != "DELETE_COMPLETE"]}
        stack = self._find(StackName)
        if stack is None:
            raise refusal("DescribeStacks", f"Stack with id {StackName} does not exist")
        seen = dict(stack)
        steps = self._under_way.get(stack["StackId"])
        if steps:
            status, events = steps.pop(0)
            stack["StackStatus"] = status
            self.happen(stack, *events)
            if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
                given = self.outputs.get(stack["StackName"], {})
                stack["Outputs"] = [{"OutputKey": key, "OutputValue": value} for key, value in given.items()]
        return {"Stacks": [seen]}

    def describe_stack_events(self, StackName: str, NextToken: str = "0") -> dict[str, Any]:
        start, events = int(NextToken), self._events[StackName]
        page: dict[str, Any] = {"StackEvents": events[start : start + self.PAGE]}
        return page | ({"NextToken": str(start + self.PAGE)} if start + self.PAGE < len(events) else {})

    def list_stack_resources(self, StackName: str, NextToken: str = "0") -> dict[str, Any]:
        stack = self._find(StackName)
        assert stack is not None
        start, listed = int(NextToken), self.listed.get(stack["StackName"], [])
        page: dict[str, Any] = {"StackResourceSummaries": listed[start : start + self.PAGE]}
        return page | ({"NextToken": str(start + self.PAGE)} if start + self.PAGE < len(listed) else {})

    def create_change_set(self, **request: Any) -> dict[str, Any]:
        name = request["StackName"]
        stack = self._find(name)
        assert (request["ChangeSetType"] == "CREATE") == (stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS")
        if stack is None:
            stack = self.add(name, "REVIEW_IN_PROGRESS", description="")
            self.happen(stack, (name, STACK, "REVIEW_IN_PROGRESS", "User Initiated"))
        change_set_id = f"arn:aws:cloudformation:eu-west-1:123456789012:changeSet/{request['ChangeSetName']}"
        self.change_sets[change_set_id] = {
            "request": request,
            "stack": stack["StackId"],
            "changes": self.changes.get(name, [] if request["ChangeSetType"] == "CREATE" else None),
            "looks": 0,
        }
        return {"Id": change_set_id, "StackId": stack["StackId"]}

    def describe_change_set(
        self, ChangeSetName: str, StackName: str, IncludePropertyValues: bool, NextToken: str = "0"
    ) -> dict[str, Any]:
        made = self.change_sets[ChangeSetName]
        made["looks"] += 1
        if made["looks"] == 1:
            return {"Status": "CREATE_IN_PROGRESS"}
        if made["changes"] is None:
            return {"Status": "FAILED", "StatusReason": self.reason}
        start, changes = int(NextToken), made["changes"]
        shown = [{"Type": "Resource", "ResourceChange": each} for each in changes[start : start + self.PAGE]]
        page: dict[str, Any] = {"Status": "CREATE_COMPLETE", "Changes": shown}
        return page | ({"NextToken": str(start + self.PAGE)} if start + self.PAGE < len(changes) else {})

    def delete_change_set(self, ChangeSetName: str, StackName: str) -> dict[str, Any]:
        if self.change_sets.pop(ChangeSetName, None) is None:
            raise refusal("DeleteChangeSet", "ChangeSet does not exist", "ChangeSetNotFound")
        return {}

    def execute_change_set(self, ChangeSetName: str, StackName: str) -> dict[str, Any]:
        made = self.change_sets.pop(ChangeSetName)
        stack, request = self.stacks[made["stack"]], made["request"]
        before = {each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])}
        values = {
            each["ParameterKey"]: before[each["ParameterKey"]]
            if each.get("UsePreviousValue")
            else each["ParameterValue"]
            for each in request["Parameters"]
        }
        stack["Parameters"] = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
        stack["Tags"] = request["Tags"]
        stack["Description"] = "covalent-cirro, a stack"
        self._begin(stack, "CREATE" if stack["StackStatus"] == "REVIEW_IN_PROGRESS" else "UPDATE")
        return {}

    def delete_stack(self, StackName: str) -> dict[str, Any]:
        stack = self._find(StackName)
        assert stack is not None
        if stack["StackStatus"] == "REVIEW_IN_PROGRESS":
            stack["StackStatus"] = "DELETE_COMPLETE"
            return {}
        self._begin(stack, "DELETE")
        return {}


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Wait, in no time."""
        self.sleeps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        """Seconds since the beginning."""
        return self.now
