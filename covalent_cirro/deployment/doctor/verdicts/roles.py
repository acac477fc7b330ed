"""Findings about roles: which services they trust, and what the caller may do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.optional_actions import COSTS

ON_ANYTHING = (
    "batch:DescribeJobDefinitions",
    "batch:ListJobs",
    "batch:DescribeJobQueues",
    "batch:DescribeComputeEnvironments",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
)
"""Optional actions that no policy can limit to a resource (Service Authorization Reference)."""

TASKS_SERVICE, INSTANCES_SERVICE = "ecs-tasks.amazonaws.com", "ec2.amazonaws.com"


def trust(
    id: str, name: str, document: Mapping[str, Any], service: str, *, account: str, region: str, where: Where
) -> Finding:
    """Whether a service may assume a role, under conditions that its calls meet.

    Args:
        id: Id of the check.
        name: Name of the role.
        document: Trust policy of the role.
        service: Service principal, ``"ecs-tasks.amazonaws.com"``.
        account: Account of the service's calls.
        region: Region of the service's calls.
        where: The deployment.
    """
    remedy = f"`{where.cirro('deploy')}` makes roles that are right; or correct this one's trust policy."
    statements = document.get("Statement", [])
    statements = statements if isinstance(statements, list) else [statements]
    trusting = [each for each in statements if each.get("Effect") == "Allow" and _trusts(each, service)]
    if not trusting:
        return Finding(id, name, FAILURE, f"it does not trust {service}", remedy)
    context = {"aws:sourceaccount": account, "aws:sourcearn": f"arn:aws:ecs:{region}:{account}:task/a/b"}
    unmet = [_unmet(each.get("Condition") or {}, context) for each in trusting]
    if None not in unmet:
        return Finding(id, name, FAILURE, f"it trusts {service} only where {unmet[0]}: that never holds", remedy)
    if service == TASKS_SERVICE and all(not each.get("Condition") for each in trusting):
        return Finding(
            id,
            name,
            WARNING,
            f"it trusts {service} for tasks of any account (no condition on aws:SourceAccount)",
            "Add the condition aws:SourceAccount to its trust policy (IAM User Guide, the confused deputy problem).",
        )
    return Finding(id, name, OK, f"it exists and trusts {service}")


def _trusts(statement: Mapping[str, Any], service: str) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, Mapping) else []
    actions = _texts(statement.get("Action", []))
    # In China the names end in .amazonaws.com.cn.
    trusted = any(each == service or each.startswith(f"{service}.") for each in _texts(services))
    return trusted and any(_like("sts:AssumeRole", action) for action in actions)


def _unmet(condition: Mapping[str, Any], context: Mapping[str, str]) -> str | None:
    """The first condition that the calls do not meet. A condition on other keys counts as met."""
    for operator, tests in condition.items():
        for key, values in tests.items():
            value = context.get(key.lower())
            if value is None:
                continue
            value = re.sub(r"^arn:aws[a-z-]*:", "arn:aws:", value)
            wanted = [re.sub(r"^arn:aws[a-z-]*:", "arn:aws:", each) for each in _texts(values)]
            like = "Like" in operator or operator.startswith("Arn")
            met = any(_like(value, each) if like else value == each for each in wanted)
            if met == ("Not" in operator):
                return f"{key} {operator} {' or '.join(_texts(values))}"
    return None


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _like(value: str, pattern: str) -> bool:
    translated = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(translated, value, re.IGNORECASE) is not None


def not_simulated(arn: str, words: str) -> Finding:
    """A caller for whom IAM's simulator does not work."""
    return Finding(
        "permissions",
        arn,
        WARNING,
        f"IAM cannot tell what this caller may do: {words}",
        "Use an IAM user or role, which can be given no more than it needs.",
    )


def permissions(arn: str, denied: Sequence[tuple[str, str, str]], policy_arn: str | None, where: Where) -> Finding:
    """Whether the caller may call what the executor calls.

    Args:
        arn: ARN of the caller.
        denied: Action, resource and IAM's decision for each refusal.
        policy_arn: ARN of the deployment's policy for submitters.
        where: The deployment.
    """
    if not denied:
        return Finding("permissions", arn, OK, "may do all that the executor does")
    needed = [each for each in denied if each[0] not in COSTS]
    spared = dict.fromkeys(action for action, _, _ in denied if action in COSTS)
    told = "; ".join(
        [f"{action} on {resource}: {decision}" for action, resource, decision in needed]
        + [f"without {action} {COSTS[action]}" for action in spared]
    )
    if not needed:
        told = f"electrons run, but {told}"
    if policy_arn is None:
        remedy = f"`{where.cirro('deploy')}` makes a policy for submitters: attach it to this user or role."
    else:
        kind, _, name = arn.rpartition(":")[2].partition("/")
        verb = f"attach-{'role' if kind in ('role', 'assumed-role') else 'user'}-policy"
        noun = "role" if kind in ("role", "assumed-role") else "user"
        short = name.split("/")[0] if kind == "assumed-role" else name.split("/")[-1]
        profile = f" --profile {where.profile}" if where.profile else ""
        remedy = f"`aws iam {verb} --{noun}-name {short} --policy-arn {policy_arn}{profile}`"
    return Finding("permissions", arn, FAILURE if needed else WARNING, told, remedy)
