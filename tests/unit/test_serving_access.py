"""Which rights the emulator demands for calls about services, load balancers and scaling."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro.local.emulator.iam.serving_access import accesses
from tests.unit.template_facts import IAM_ACTIONS

SERVICE = "arn:aws:ecs:us-east-1:1:service/shop/web"
BALANCER = "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/shop/0a1b"


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:us-east-1:1:{resource}"


CALLS: list[tuple[str, str, dict[str, Any], list[tuple[str, str]]]] = [
    ("ecs", "DescribeServices", {"cluster": "shop", "services": ["web"]}, [("ecs:DescribeServices", SERVICE)]),
    (
        "ecs",
        "UpdateService",
        {"cluster": arn("ecs", "cluster/shop"), "service": SERVICE},
        [("ecs:UpdateService", SERVICE)],
    ),
    ("ecs", "ListTasks", {"cluster": "shop"}, [("ecs:ListTasks", arn("ecs", "container-instance/shop/*"))]),
    ("ecs", "DescribeTasks", {"cluster": "shop", "tasks": ["0a"]}, [("ecs:DescribeTasks", arn("ecs", "task/shop/0a"))]),
    ("ecs", "DescribeClusters", {"clusters": ["shop"]}, [("ecs:DescribeClusters", arn("ecs", "cluster/shop"))]),
    ("ecs", "DescribeTaskDefinition", {"taskDefinition": "web:3"}, [("ecs:DescribeTaskDefinition", "*")]),
    (
        "ecs",
        "RegisterTaskDefinition",
        {"family": "web", "taskRoleArn": "arn:aws:iam::1:role/task", "executionRoleArn": "arn:aws:iam::1:role/agent"},
        [
            ("ecs:RegisterTaskDefinition", arn("ecs", "task-definition/web:*")),
            ("iam:PassRole", "arn:aws:iam::1:role/task"),
            ("iam:PassRole", "arn:aws:iam::1:role/agent"),
        ],
    ),
    (
        "elasticloadbalancing",
        "DescribeTargetHealth",
        {"TargetGroupArn": "a"},
        [("elasticloadbalancing:DescribeTargetHealth", "*")],
    ),
    (
        "elasticloadbalancing",
        "CreateLoadBalancer",
        {"Name": "shop"},
        [("elasticloadbalancing:CreateLoadBalancer", arn("elasticloadbalancing", "loadbalancer/app/shop/*"))],
    ),
    (
        "elasticloadbalancing",
        "CreateListener",
        {"LoadBalancerArn": BALANCER},
        [("elasticloadbalancing:CreateListener", BALANCER)],
    ),
    (
        "elasticloadbalancing",
        "AddTags",
        {"ResourceArns.member.1": BALANCER},
        [("elasticloadbalancing:AddTags", BALANCER)],
    ),
    (
        "application-autoscaling",
        "DescribeScalableTargets",
        {"ServiceNamespace": "ecs"},
        [("application-autoscaling:DescribeScalableTargets", "*")],
    ),
    (
        "wafv2",
        "AssociateWebACL",
        {"WebACLArn": "acl", "ResourceArn": BALANCER},
        [
            ("wafv2:AssociateWebACL", "acl"),
            ("wafv2:AssociateWebACL", BALANCER),
            ("elasticloadbalancing:SetWebACL", "*"),
        ],
    ),
]


@pytest.mark.parametrize(("service", "name", "given", "needed"), CALLS, ids=[each[1] for each in CALLS])
def test_a_call_needs_rights(service: str, name: str, given: dict[str, Any], needed: list[tuple[str, str]]) -> None:
    """Actions and resources of the Service Authorization Reference."""
    found = accesses(service, name, given, arn)
    assert found is not None
    assert [(each.action, each.resource) for each in found] == needed


@pytest.mark.parametrize(("service", "name", "given", "needed"), CALLS, ids=[each[1] for each in CALLS])
def test_what_has_resource_types_is_what_the_reference_says(
    service: str, name: str, given: dict[str, Any], needed: list[tuple[str, str]]
) -> None:
    """An action that AWS limits to resources is asked for on one, any other on ``*``."""
    for action, resource in needed:
        prefix, _, which = action.partition(":")
        actions = {each.lower(): about for each, about in IAM_ACTIONS[prefix]["Actions"].items()}
        types = actions[which.lower()].get("Resources", [])
        assert bool(types) == (resource != "*"), f"{action} on {resource}; the reference has {types}"


def test_a_cluster_can_be_a_condition() -> None:
    """``ecs:cluster`` has the cluster's ARN, whether the call gives that or its name."""
    for cluster in ("shop", arn("ecs", "cluster/shop")):
        [found] = accesses("ecs", "ListTasks", {"cluster": cluster}, arn) or []
        assert found.context == {"ecs:cluster": [arn("ecs", "cluster/shop")]}


def test_other_services_are_not_known() -> None:
    """`required_access` has them."""
    assert accesses("s3", "GetObject", {}, arn) is None
