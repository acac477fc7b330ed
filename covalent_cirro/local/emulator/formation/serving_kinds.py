"""CloudFormation's types of a service: ECS, Application Auto Scaling, and the association of a web ACL.

They are made by the API of their service. `balancer_kinds` has the load balancer's. It must not know stacks.
"""

from __future__ import annotations

import time

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.api_calls import call, delete, handler_text, set_tags
from covalent_cirro.local.emulator.formation.stack_resource import (
    NotStabilized,
    StackLocation,
    StackResource,
    begin_to_wait,
    differ,
)

STEADY_S = 3 * 3600.0
"""How long CloudFormation waits for a service's steady state (AWS re:Post, on services that fail to stabilize)."""

POLL_S = 0.1
"""Seconds between two looks at a service that is waited for."""

BREAKER = "Error occurred during operation 'ECS Deployment Circuit Breaker was triggered'."
"""aws/copilot-cli#5296 has it with the frame of `handler_text` and the code GeneralServiceException."""


# --- ECS --------------------------------------------------------------------------------------------------------------


class ClusterResource(StackResource):
    """``AWS::ECS::Cluster``."""

    kind = "AWS::ECS::Cluster"
    name_property = "ClusterName"
    attributes = ("Arn",)
    create_only = ("ClusterName",)

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make it."""
        refused = at.new.no_cluster(at.account)
        if refused is not None:
            raise ServiceError(refused)
        settings = {"settings": properties["ClusterSettings"]} if "ClusterSettings" in properties else {}
        made = call(at, "ecs", "CreateCluster", {**properties, **settings}, clusterName=name)
        return str(made["cluster"]["clusterName"])

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """Its ARN."""
        return f"arn:aws:ecs:{at.region}:{at.account}:cluster/{physical_id}"

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change its settings and tags in place."""
        settings = {"settings": properties.get("ClusterSettings") or []}
        call(at, "ecs", "UpdateCluster", {**properties, **settings}, cluster=physical_id)
        set_tags(at, "ecs", cls.value("Arn", physical_id, at), properties)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it; ECS refuses while services or tasks are in it."""
        delete(at, "ecs", "DeleteCluster", cluster=physical_id)


class TaskDefinitionResource(StackResource):
    """``AWS::ECS::TaskDefinition``: each change but that of tags makes another one."""

    kind = "AWS::ECS::TaskDefinition"
    name_property = "Family"
    attributes = ("TaskDefinitionArn",)
    create_only = (
        *("ContainerDefinitions", "Cpu", "EnableFaultInjection", "EphemeralStorage", "ExecutionRoleArn", "Family"),
        *("InferenceAccelerators", "IpcMode", "Memory", "NetworkMode", "PidMode", "PlacementConstraints"),
        *("ProxyConfiguration", "RequiresCompatibilities", "RuntimePlatform", "TaskRoleArn", "Volumes"),
    )
    may_keep_name = True

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Register it: with the family of one before, as its next revision."""
        made = call(at, "ecs", "RegisterTaskDefinition", properties, family=name)
        return str(made["taskDefinition"]["taskDefinitionArn"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change its tags."""
        set_tags(at, "ecs", physical_id, properties)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Deregister it; tasks and services that have it go on."""
        delete(at, "ecs", "DeregisterTaskDefinition", taskDefinition=physical_id)


class ServiceResource(StackResource):
    """``AWS::ECS::Service``, for which CloudFormation waits until it is in a steady state."""

    kind = "AWS::ECS::Service"
    name_property = "ServiceName"
    attributes = ("Name", "ServiceArn")
    create_only = ("Cluster", "Role", "SchedulingStrategy", "ServiceName")
    replaced_on_request = ("LaunchType",)
    """Another value may need a replacement (registry schema, conditionalCreateOnlyProperties); here it always does."""

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make it, with one task where the template does not say how many.

        Raises:
            NotStabilized: It was made, and its tasks do not run.
        """
        given = {"DesiredCount": 1, **properties}
        service = call(at, "ecs", "CreateService", given, serviceName=name)["service"]
        try:
            _await_deployment(service, at)
        except ServiceError as error:
            raise NotStabilized(error.text, service["serviceArn"]) from error
        return str(service["serviceArn"])

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """Its name or its ARN."""
        return physical_id.rsplit("/", 1)[-1] if attribute == "Name" else physical_id

    @classmethod
    def replaces(cls, before: Json, now: Json) -> bool:
        """Whether cluster, name or the like have changed."""
        return differ(cls.create_only + cls.replaced_on_request, before, now)

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change it in place, by a deployment that replaces its tasks. Without a DesiredCount it keeps its own."""
        cluster = _cluster(physical_id)
        service = call(at, "ecs", "UpdateService", properties, cluster=cluster, service=physical_id)["service"]
        set_tags(at, "ecs", physical_id, properties)
        _await_deployment(service, at)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it, and wait until its tasks have ended."""
        cluster = _cluster(physical_id)
        if not delete(at, "ecs", "DeleteService", cluster=cluster, service=physical_id, force=True):
            return
        last = _last_moment(at)
        while time.monotonic() < last:
            found = call(at, "ecs", "DescribeServices", {}, cluster=cluster, services=[physical_id])["services"]
            if not found or found[0]["status"] == "INACTIVE":
                return
            begin_to_wait()
            time.sleep(POLL_S)
        raise ServiceError(handler_text("Exceeded attempts to wait", "NotStabilized"))


def _cluster(service_arn: str) -> str:
    """The cluster in the ARN of a service, ``arn:aws:ecs:<region>:<account>:service/<cluster>/<name>``."""
    return service_arn.rsplit("/", 2)[-2]


def _last_moment(at: StackLocation) -> float:
    return time.monotonic() + at.batch.context.timing.scaled(STEADY_S)


def _await_deployment(service: Json, at: StackLocation) -> None:
    """Wait until the deployment that a call has begun is over; if it failed, until the one that undoes it is over too.

    ECS undoes it before CloudFormation does (aws/containers-roadmap#1205).

    Args:
        service: The answer of the call.
        at: Account and region.

    Raises:
        ServiceError: It failed, or goes on for longer than CloudFormation waits.
    """
    arn = service["serviceArn"]
    begun = next(each["id"] for each in service["deployments"] if each["status"] == "PRIMARY")
    last = _last_moment(at)
    while time.monotonic() < last:
        found = call(at, "ecs", "DescribeServices", {}, cluster=_cluster(arn), services=[arn])["services"]
        states = {each["id"]: each["rolloutState"] for each in found[0]["deployments"]} if found else {}
        if states.get(begun) == "COMPLETED":
            return
        if states.get(begun) != "IN_PROGRESS" and "IN_PROGRESS" not in states.values():
            raise ServiceError(handler_text(BREAKER, "GeneralServiceException"))
        begin_to_wait()
        time.sleep(POLL_S)
    raise ServiceError(handler_text("Exceeded attempts to wait", "NotStabilized"))


# --- scaling and firewall ---------------------------------------------------------------------------------------------


class ScalableTargetResource(StackResource):
    """``AWS::ApplicationAutoScaling::ScalableTarget``; its id is ``<resource>|<dimension>|<namespace>``."""

    kind = "AWS::ApplicationAutoScaling::ScalableTarget"
    attributes = ("Id",)
    create_only = ("ResourceId", "ScalableDimension", "ServiceNamespace")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Register it."""
        call(at, "application-autoscaling", "RegisterScalableTarget", properties)
        return "|".join(str(properties[key]) for key in cls.create_only)

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Register it again, with other capacities."""
        return cls.make("", properties, at)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Deregister it, with its policies."""
        delete(at, "application-autoscaling", "DeregisterScalableTarget", **_target(physical_id))


def _target(scalable_target: str) -> Json:
    """What the id of a scalable target says, as parameters of the API."""
    return dict(zip(("ResourceId", "ScalableDimension", "ServiceNamespace"), scalable_target.split("|"), strict=True))


class ScalingPolicyResource(StackResource):
    """``AWS::ApplicationAutoScaling::ScalingPolicy``."""

    kind = "AWS::ApplicationAutoScaling::ScalingPolicy"
    name_property = "PolicyName"
    attributes = ("Arn",)
    create_only = ("PolicyName", "ResourceId", "ScalableDimension", "ScalingTargetId", "ServiceNamespace")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Put it."""
        named = dict(properties)
        if "ScalingTargetId" in named:
            named.update(_target(str(named.pop("ScalingTargetId"))))
        return str(call(at, "application-autoscaling", "PutScalingPolicy", named, PolicyName=name)["PolicyARN"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Put it again."""
        return cls.make(str(properties["PolicyName"]), properties, at)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it. Its ARN ends with ``:resource/<namespace>/<resource>:policyName/<name>``."""
        resource, _, name = physical_id.partition(":resource/")[2].partition(":policyName/")
        namespace, _, resource_id = resource.partition("/")
        for policy in call(
            at, "application-autoscaling", "DescribeScalingPolicies", {}, ServiceNamespace=namespace, PolicyNames=[name]
        )["ScalingPolicies"]:
            if policy["ResourceId"] == resource_id:
                keys = ("PolicyName", "ServiceNamespace", "ResourceId", "ScalableDimension")
                given = {key: policy[key] for key in keys}
                delete(at, "application-autoscaling", "DeleteScalingPolicy", **given)


class WebAclAssociationResource(StackResource):
    """``AWS::WAFv2::WebACLAssociation``; its id is ``<web ACL>|<resource>``."""

    kind = "AWS::WAFv2::WebACLAssociation"
    create_only = ("ResourceArn", "WebACLArn")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Put the web ACL before the resource."""
        call(at, "wafv2", "AssociateWebACL", properties)
        return f"{properties['WebACLArn']}|{properties['ResourceArn']}"

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Take it away."""
        delete(at, "wafv2", "DisassociateWebACL", ResourceArn=physical_id.partition("|")[2])


KINDS: tuple[type[StackResource], ...] = (
    ClusterResource,
    TaskDefinitionResource,
    ServiceResource,
    ScalableTargetResource,
    ScalingPolicyResource,
    WebAclAssociationResource,
)
"""The types of ECS, Application Auto Scaling and AWS WAF."""
