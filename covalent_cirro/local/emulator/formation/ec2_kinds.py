"""CloudFormation's types of EC2 that moto makes incompletely: attributes, tags, rules, versions, endpoints, deletion.

It must not know stacks.
"""

from __future__ import annotations

from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.stack_resource import MotoResource, StackLocation, StackResource, true
from covalent_cirro.local.emulator.moto_internals import moto_ec2


class LaunchTemplateResource(MotoResource):
    """``AWS::EC2::LaunchTemplate``."""

    name_property = "LaunchTemplateName"
    create_only = ("LaunchTemplateName",)
    deletion = ("ec2", "delete_launch_template", "LaunchTemplateId")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Make a new version for a change."""
        if before is not None:
            moto_ec2.add_launch_template_version(resource, properties["LaunchTemplateData"])


class SecurityGroupResource(MotoResource):
    """``AWS::EC2::SecurityGroup``."""

    name_property = "GroupName"
    create_only = ("GroupName", "GroupDescription", "VpcId")
    deletion = ("ec2", "delete_security_group", "GroupId")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set its rules; those for egress replace the one that EC2 gives each new group."""
        ec2, group = at.api("ec2"), resource.physical_resource_id
        if before is None and "VpcId" in properties:
            ec2.describe_vpcs(VpcIds=[properties["VpcId"]])  # moto accepts a VPC that does not exist
        egress = properties.get("SecurityGroupEgress")
        if egress is not None:
            now = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissionsEgress"]
            if now:
                ec2.revoke_security_group_egress(GroupId=group, IpPermissions=now)
            ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission(rule) for rule in egress])
        if before is None:
            return  # moto has set the rules for ingress
        was, should = (each.get("SecurityGroupIngress") or [] for each in (before, properties))
        if gone := [permission(rule) for rule in was if rule not in should]:
            ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=gone)
        if new := [permission(rule) for rule in should if rule not in was]:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=new)


def permission(rule: Json) -> Json:
    """A rule of a security group in the form of EC2's API."""
    made: Json = {"IpProtocol": str(rule["IpProtocol"])}
    for field in ("FromPort", "ToPort"):
        if field in rule:
            made[field] = int(rule[field])
    if "CidrIp" in rule:
        made["IpRanges"] = [{"CidrIp": rule["CidrIp"], "Description": rule.get("Description", "")}]
    for field in ("DestinationSecurityGroupId", "SourceSecurityGroupId"):
        if field in rule:
            made["UserIdGroupPairs"] = [{"GroupId": rule[field]}]
    return made


class _Tagged(MotoResource):
    """A type whose tags moto leaves out."""

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set its tags."""
        tags = properties.get("Tags")
        if tags:
            at.api("ec2").create_tags(Resources=[resource.physical_resource_id], Tags=tags)


class InternetGatewayResource(_Tagged):
    """``AWS::EC2::InternetGateway``."""

    deletion = ("ec2", "delete_internet_gateway", "InternetGatewayId")


class VpcResource(_Tagged):
    """``AWS::EC2::VPC``."""

    create_only = ("CidrBlock", "Ipv4IpamPoolId", "Ipv4NetmaskLength", "VpcEncryptionControl")
    deletion = ("ec2", "delete_vpc", "VpcId")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set DNS and tags."""
        super().complete(resource, properties, before, at)
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            if name in properties:
                at.api("ec2").modify_vpc_attribute(
                    VpcId=resource.physical_resource_id, **{name: {"Value": true(properties[name])}}
                )


class SubnetResource(_Tagged):
    """``AWS::EC2::Subnet``."""

    create_only = (
        *("AvailabilityZone", "AvailabilityZoneId", "CidrBlock", "Ipv4IpamPoolId", "Ipv4NetmaskLength"),
        *("Ipv6IpamPoolId", "Ipv6Native", "Ipv6NetmaskLength", "OutpostArn", "VpcId"),
    )
    deletion = ("ec2", "delete_subnet", "SubnetId")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set public addresses and tags."""
        super().complete(resource, properties, before, at)
        if "MapPublicIpOnLaunch" in properties:
            at.api("ec2").modify_subnet_attribute(
                SubnetId=resource.physical_resource_id,
                MapPublicIpOnLaunch={"Value": true(properties["MapPublicIpOnLaunch"])},
            )


class RouteTableResource(_Tagged):
    """``AWS::EC2::RouteTable``."""

    create_only = ("VpcId",)
    deletion = ("ec2", "delete_route_table", "RouteTableId")


class VpcEndpointResource(_Tagged):
    """``AWS::EC2::VPCEndpoint``."""

    create_only = (
        *("DnsOptions/PrivateDnsPreference", "DnsOptions/PrivateDnsSpecifiedDomains", "ResourceConfigurationArn"),
        *("ServiceName", "ServiceNetworkArn", "ServiceRegion", "VpcEndpointType", "VpcId"),
    )

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set tags; after a change, route tables, subnets and groups. Refuse a zone without the service."""
        super().complete(resource, properties, before, at)
        if properties.get("VpcEndpointType") == "Interface":
            subnets = at.api("ec2").describe_subnets(SubnetIds=properties["SubnetIds"])["Subnets"]
            zones = sorted({each["AvailabilityZone"] for each in subnets})
            refused = at.new.no_endpoint(properties["ServiceName"], zones)
            if refused is not None:
                raise ServiceError(refused)
        if before is None:
            return
        changes: Json = {}
        for name in ("RouteTableIds", "SubnetIds", "SecurityGroupIds"):
            was, should = (each.get(name) or [] for each in (before, properties))
            changes[f"Add{name}"] = [each for each in should if each not in was]
            changes[f"Remove{name}"] = [each for each in was if each not in should]
        at.api("ec2").modify_vpc_endpoint(VpcEndpointId=resource.physical_resource_id, **changes)

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it, with its interfaces and routes."""
        moto_ec2.remove_vpc_endpoint(at.account, at.region, resource.physical_resource_id)


class RouteTableAssociationResource(MotoResource):
    """``AWS::EC2::SubnetRouteTableAssociation``."""

    create_only = ("RouteTableId", "SubnetId")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Associate them: moto makes the resource, but leaves the subnet with the VPC's main table."""
        at.api("ec2").associate_route_table(RouteTableId=properties["RouteTableId"], SubnetId=properties["SubnetId"])

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Disassociate them."""
        ec2 = at.api("ec2")
        tables = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [resource.subnet_id]}])
        for table in tables["RouteTables"]:
            for each in table["Associations"]:
                if each.get("SubnetId") == resource.subnet_id:
                    ec2.disassociate_route_table(AssociationId=each["RouteTableAssociationId"])


class RouteResource(MotoResource):
    """``AWS::EC2::Route``."""

    create_only = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId", "RouteTableId")

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it."""
        at.api("ec2").delete_route(
            RouteTableId=properties["RouteTableId"], DestinationCidrBlock=properties["DestinationCidrBlock"]
        )


class GatewayAttachmentResource(MotoResource):
    """``AWS::EC2::VPCGatewayAttachment``."""

    create_only = ("VpcId",)

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Detach it."""
        at.api("ec2").detach_internet_gateway(
            InternetGatewayId=properties["InternetGatewayId"], VpcId=properties["VpcId"]
        )


class PlacementGroupResource(StackResource):
    """``AWS::EC2::PlacementGroup``."""

    kind = "AWS::EC2::PlacementGroup"
    attributes = ("GroupName",)
    create_only = ("ParentGroupId", "PartitionCount", "SpreadLevel", "Strategy", "Tags")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one; CloudFormation gives it its name."""
        request: Json = {key: properties[key] for key in ("PartitionCount", "SpreadLevel") if key in properties}
        if properties.get("Tags"):
            request["TagSpecifications"] = [{"ResourceType": "placement-group", "Tags": properties["Tags"]}]
        at.api("ec2").create_placement_group(GroupName=name, Strategy=properties.get("Strategy", "cluster"), **request)
        return name

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """There is nothing that can change."""
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it."""
        at.api("ec2").delete_placement_group(GroupName=physical_id)


class SecurityGroupIngressResource(StackResource):
    """``AWS::EC2::SecurityGroupIngress``: moto makes a rule, and does not delete it."""

    kind = "AWS::EC2::SecurityGroupIngress"
    create_only = (
        *("CidrIp", "CidrIpv6", "FromPort", "GroupId", "GroupName", "IpProtocol", "SourcePrefixListId"),
        *("SourceSecurityGroupId", "SourceSecurityGroupName", "SourceSecurityGroupOwnerId", "ToPort"),
    )

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one, in a group that is given by its id."""
        made = at.api("ec2").authorize_security_group_ingress(
            GroupId=properties["GroupId"], IpPermissions=[permission(properties)]
        )
        return str(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Only its description can change, which is not kept."""
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it, unless its group is gone."""
        ec2 = at.api("ec2")
        for group in ec2.describe_security_groups()["SecurityGroups"]:
            rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}])
            if any(each["SecurityGroupRuleId"] == physical_id for each in rules["SecurityGroupRules"]):
                ec2.revoke_security_group_ingress(GroupId=group["GroupId"], SecurityGroupRuleIds=[physical_id])


NETWORK: dict[str, type[MotoResource]] = {
    "AWS::EC2::LaunchTemplate": LaunchTemplateResource,
    "AWS::EC2::SecurityGroup": SecurityGroupResource,
    "AWS::EC2::VPC": VpcResource,
    "AWS::EC2::Subnet": SubnetResource,
    "AWS::EC2::InternetGateway": InternetGatewayResource,
    "AWS::EC2::RouteTable": RouteTableResource,
    "AWS::EC2::Route": RouteResource,
    "AWS::EC2::SubnetRouteTableAssociation": RouteTableAssociationResource,
    "AWS::EC2::VPCGatewayAttachment": GatewayAttachmentResource,
    "AWS::EC2::VPCEndpoint": VpcEndpointResource,
}

MADE: tuple[type[StackResource], ...] = (PlacementGroupResource, SecurityGroupIngressResource)
"""Types of EC2 that moto lacks, or cannot delete."""
