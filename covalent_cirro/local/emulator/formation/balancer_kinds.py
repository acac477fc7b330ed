"""CloudFormation's types of Elastic Load Balancing, made by the functions of its API. It must not know stacks."""

from __future__ import annotations

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.api_calls import call, delete, set_tags
from covalent_cirro.local.emulator.formation.stack_resource import NotStabilized, StackLocation, StackResource


class LoadBalancerResource(StackResource):
    """``AWS::ElasticLoadBalancingV2::LoadBalancer``."""

    kind = "AWS::ElasticLoadBalancingV2::LoadBalancer"
    name_property = "Name"
    attributes = ("CanonicalHostedZoneID", "DNSName", "LoadBalancerArn", "LoadBalancerFullName", "LoadBalancerName")
    create_only = ("Name", "Scheme", "Type")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make it, and set its attributes."""
        made = call(at, "elbv2", "CreateLoadBalancer", properties, Name=name)
        arn = str(made["LoadBalancers"][0]["LoadBalancerArn"])
        try:
            cls._set_attributes(arn, properties, at)
        except ServiceError as error:
            raise NotStabilized(error.text, arn) from error
        return arn

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """What is in its ARN, or what Elastic Load Balancing says of it."""
        if attribute == "LoadBalancerArn":
            return physical_id
        if attribute == "LoadBalancerFullName":
            return physical_id.partition(":loadbalancer/")[2]
        if attribute == "LoadBalancerName":
            return physical_id.rsplit("/", 2)[-2]
        found = call(at, "elbv2", "DescribeLoadBalancers", {}, LoadBalancerArns=[physical_id])["LoadBalancers"][0]
        return str(found["DNSName" if attribute == "DNSName" else "CanonicalHostedZoneId"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change subnets, security groups, addresses, attributes and tags in place."""
        for operation, names in (
            ("SetSubnets", ("Subnets", "SubnetMappings")),
            ("SetSecurityGroups", ("SecurityGroups",)),
            ("SetIpAddressType", ("IpAddressType",)),
        ):
            if any(name in properties for name in names):
                call(at, "elbv2", operation, properties, LoadBalancerArn=physical_id)
        cls._set_attributes(physical_id, properties, at)
        set_tags(at, "elbv2", physical_id, properties)
        return physical_id

    @classmethod
    def _set_attributes(cls, arn: str, properties: Json, at: StackLocation) -> None:
        attributes = properties.get("LoadBalancerAttributes")
        if attributes:
            given = {"Attributes": attributes}
            call(at, "elbv2", "ModifyLoadBalancerAttributes", given, LoadBalancerArn=arn)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it, with its listeners."""
        delete(at, "elbv2", "DeleteLoadBalancer", LoadBalancerArn=physical_id)


class TargetGroupResource(StackResource):
    """``AWS::ElasticLoadBalancingV2::TargetGroup``."""

    kind = "AWS::ElasticLoadBalancingV2::TargetGroup"
    name_property = "Name"
    attributes = ("TargetGroupArn", "TargetGroupFullName", "TargetGroupName")
    create_only = ("IpAddressType", "Name", "Port", "Protocol", "ProtocolVersion", "TargetType", "VpcId")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make it, and set its attributes."""
        made = call(at, "elbv2", "CreateTargetGroup", properties, Name=name)
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        try:
            cls._set_attributes(arn, properties, at)
        except ServiceError as error:
            raise NotStabilized(error.text, arn) from error
        return arn

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """What is in its ARN."""
        if attribute == "TargetGroupFullName":
            return physical_id.rsplit(":", 1)[-1]
        return physical_id.rsplit("/", 2)[-2] if attribute == "TargetGroupName" else physical_id

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change health check, attributes and tags in place."""
        call(at, "elbv2", "ModifyTargetGroup", properties, TargetGroupArn=physical_id)
        cls._set_attributes(physical_id, properties, at)
        set_tags(at, "elbv2", physical_id, properties)
        return physical_id

    @classmethod
    def _set_attributes(cls, arn: str, properties: Json, at: StackLocation) -> None:
        attributes = properties.get("TargetGroupAttributes")
        if attributes:
            given = {"Attributes": attributes}
            call(at, "elbv2", "ModifyTargetGroupAttributes", given, TargetGroupArn=arn)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it; Elastic Load Balancing refuses while a listener forwards to it."""
        delete(at, "elbv2", "DeleteTargetGroup", TargetGroupArn=physical_id)


class ListenerResource(StackResource):
    """``AWS::ElasticLoadBalancingV2::Listener``."""

    kind = "AWS::ElasticLoadBalancingV2::Listener"
    attributes = ("ListenerArn",)
    create_only = ("LoadBalancerArn",)

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make it."""
        return str(call(at, "elbv2", "CreateListener", properties)["Listeners"][0]["ListenerArn"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change port, protocol, certificate, actions and tags in place."""
        call(at, "elbv2", "ModifyListener", properties, ListenerArn=physical_id)
        set_tags(at, "elbv2", physical_id, properties)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it."""
        delete(at, "elbv2", "DeleteListener", ListenerArn=physical_id)


KINDS: tuple[type[StackResource], ...] = (LoadBalancerResource, TargetGroupResource, ListenerResource)
"""The types of Elastic Load Balancing."""
