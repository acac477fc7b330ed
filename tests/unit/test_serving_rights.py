"""The policy that infra/README.md has for who serves: AWS's own actions, and enough of them for what is called."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

from tests.unit.template_facts import IAM_ACTIONS, INFRA, as_list

PACKAGE = Path(__file__).parents[2] / "covalent_cirro"
POLICY: dict[str, Any] = json.loads(
    (INFRA / "README.md").read_text().split("## What who serves may do\n")[1].split("```json\n")[1].split("```")[0]
)
ALLOWED = {action for statement in POLICY["Statement"] for action in as_list(statement["Action"])}


def test_every_action_is_one_of_aws() -> None:
    """As the service authorization reference has it."""
    unknown = []
    for action in ALLOWED:
        service, _, name = action.partition(":")
        actions = {each.lower() for each in IAM_ACTIONS[service]["Actions"]}
        if name.lower() not in actions:
            unknown.append(action)
    assert unknown == []


def test_what_the_commands_call_is_allowed() -> None:
    """Each call that is made there by its name; who asks STS who it is needs no right."""
    called: set[str] = set()
    for path in (PACKAGE / "serving").glob("*.py"):
        called |= set(re.findall(r'asking\("([a-z0-9-]+:\w+)"', path.read_text()))
    assert "ecs:DescribeServices" in called
    assert called - ALLOWED == {"sts:GetCallerIdentity"}


def test_no_action_is_a_pattern() -> None:
    """Each one is there because something needs it."""
    assert [action for action in ALLOWED if "*" in action] == []


def test_roles_are_made_and_passed_for_services_only() -> None:
    """Whoever makes any role, and passes it to a task, may do everything."""
    for statement in POLICY["Statement"]:
        if any(fnmatch.fnmatch(action, "iam:*Role*") for action in as_list(statement["Action"])):
            assert all(
                "cirro-serving-" in each or "aws-service-role" in each for each in as_list(statement["Resource"])
            )
