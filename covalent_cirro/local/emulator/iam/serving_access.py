"""Which actions on which resources the requests of ECS, load balancers, scaling and AWS WAF need to be allowed. Pure.

Source: Service Authorization Reference (2026). It must not know policies or principals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.iam.policies import Access, Context

Arn = Callable[[str, str], str]
"""Gives the ARN in the request's account and region, of a service and a resource (`required_access.Request.arn`)."""

TASKS = "ecs-tasks.amazonaws.com"
"""The service that the roles of tasks and jobs are passed to (ECS Developer Guide, Amazon ECS task IAM role)."""


def accesses(service: str, name: str, given: Json, arn: Arn) -> list[Access] | None:
    """What the caller must be allowed to do; `None` for a service that this module does not know.

    Args:
        service: Name by which the request is signed.
        name: Of the operation.
        given: Its parameters; in the query protocol, with keys such as ``ResourceArns.member.1``.
        arn: Makes ARNs.
    """
    known = SERVICES.get(service)
    return None if known is None else known(name, given, arn)


# --- ECS ----------------------------------------------------------------------------------------------------------

_ON_CLUSTER = frozenset(("CreateCluster", "DeleteCluster", "DescribeClusters", "UpdateCluster"))
_ON_SERVICE = frozenset(
    ("CreateService", "DeleteService", "DescribeServices", "ListServiceDeployments", "UpdateService")
)
_ON_TASK = frozenset(("DescribeTasks", "StopTask"))
_ON_INSTANCE = frozenset(("DescribeContainerInstances", "ListTasks"))
"""ListTasks is on the cluster's instances, also where tasks run on Fargate."""


def _ecs(name: str, given: Json, arn: Arn) -> list[Access]:
    action, cluster = f"ecs:{name}", _last(given.get("cluster") or "default")
    context: Context = {"ecs:cluster": [arn("ecs", f"cluster/{cluster}")]}
    if name in _ON_CLUSTER:
        names = [*_listed(given.get("clusters")), *_listed(given.get("clusterName") or given.get("cluster"))]
        return [Access(action, arn("ecs", f"cluster/{_last(each)}")) for each in names] or [Access(action)]
    if name in _ON_SERVICE:
        names = [*_listed(given.get("services")), *_listed(given.get("serviceName") or given.get("service"))]
        return [Access(action, arn("ecs", f"service/{cluster}/{_last(each)}"), context) for each in names]
    if name in _ON_TASK:
        names = [*_listed(given.get("tasks")), *_listed(given.get("task"))]
        return [Access(action, arn("ecs", f"task/{cluster}/{_last(each)}"), context) for each in names]
    if name in _ON_INSTANCE:
        names = _listed(given.get("containerInstances")) or ["*"]
        return [Access(action, arn("ecs", f"container-instance/{cluster}/{_last(each)}"), context) for each in names]
    if name in ("TagResource", "UntagResource", "ListTagsForResource"):
        return [Access(action, str(given.get("resourceArn") or "*"))]
    if name == "RegisterTaskDefinition":
        roles = [str(given[key]) for key in ("taskRoleArn", "executionRoleArn") if given.get(key)]
        passed = [Access("iam:PassRole", role, {"iam:PassedToService": [TASKS]}) for role in roles]
        return [Access(action, arn("ecs", f"task-definition/{given.get('family', '*')}:*")), *passed]
    return [Access(action, context=context if "cluster" in given else {})]


def _listed(value: Any) -> list[str]:
    """One text or many, as many."""
    return [str(each) for each in (value if isinstance(value, list) else [value] if value else [])]


def _last(name_or_arn: str) -> str:
    return name_or_arn.rpartition("/")[2]


# --- Elastic Load Balancing -----------------------------------------------------------------------------------------

_BY_ARN = ("ListenerArn", "RuleArn", "TargetGroupArn", "LoadBalancerArn")
_MADE = {"CreateLoadBalancer": "loadbalancer/app/{}/*", "CreateTargetGroup": "targetgroup/{}/*"}


def _balancing(name: str, given: Json, arn: Arn) -> list[Access]:
    """Actions that read have no resource types."""
    action = f"elasticloadbalancing:{name}"
    if name.startswith("Describe"):
        return [Access(action)]
    if name in _MADE:
        return [Access(action, arn("elasticloadbalancing", _MADE[name].format(given.get("Name", "*"))))]
    tagged = [str(value) for key, value in given.items() if key.startswith("ResourceArns.member.")]
    found = tagged or [str(given[key]) for key in _BY_ARN if given.get(key)][:1]
    return [Access(action, each) for each in found] or [Access(action)]


# --- scaling and firewall -------------------------------------------------------------------------------------------


def _scaling(name: str, given: Json, arn: Arn) -> list[Access]:
    """A scalable target has an id that only AWS knows; actions that read have no resource types."""
    action = f"application-autoscaling:{name}"
    if name.startswith("Describe"):
        return [Access(action)]
    context: Context = {
        f"application-autoscaling:{key}": [str(given[member])]
        for key, member in (("service-namespace", "ServiceNamespace"), ("scalable-dimension", "ScalableDimension"))
        if member in given
    }
    return [Access(action, arn("application-autoscaling", "scalable-target/*"), context)]


def _firewall(name: str, given: Json, arn: Arn) -> list[Access]:
    """A web ACL is associated with a load balancer by a right on each, and one of Elastic Load Balancing."""
    action = f"wafv2:{name}"
    found = [str(given[key]) for key in ("WebACLArn", "ResourceArn") if given.get(key)]
    needed = [Access(action, each) for each in found] or [Access(action)]
    if name in ("AssociateWebACL", "DisassociateWebACL"):
        needed.append(Access("elasticloadbalancing:SetWebACL"))
    return needed


SERVICES: dict[str, Callable[[str, Json, Arn], list[Access]]] = {
    "ecs": _ecs,
    "elasticloadbalancing": _balancing,
    "application-autoscaling": _scaling,
    "wafv2": _firewall,
}
"""By the name by which requests are signed."""
