"""CloudFormation resources of EC2 that moto does by half: attributes, tags, egress, versions, and deletion.

As `mending`, which has those of other services; it must not know stacks.
"""

from __future__ import annotations

from typing import Any, ClassVar

from covalent_cirro.emulator.mended import Mended, api, true
from covalent_cirro.emulator.model import Json


class LaunchTemplate(Mended):
    """``AWS::EC2::LaunchTemplate``."""

    def update_from_cloudformation_json(
        self,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Any:
        """A new version."""
        original_resource.create_version(cloudformation_json["Properties"]["LaunchTemplateData"], "")
        return original_resource

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        api("ec2", account, region).delete_launch_template(LaunchTemplateId=resource.physical_resource_id)


class SecurityGroup(Mended):
    """``AWS::EC2::SecurityGroup``."""

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Its egress, in the place of the one that EC2 gives to each new group."""
        rules = properties.get("SecurityGroupEgress")
        if rules is None:
            return
        ec2, group = api("ec2", account, region), resource.physical_resource_id
        now = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissionsEgress"]
        if now:
            ec2.revoke_security_group_egress(GroupId=group, IpPermissions=now)
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission(rule) for rule in rules])

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        api("ec2", account, region).delete_security_group(GroupId=resource.physical_resource_id)


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


class _Ec2(Mended):
    """A resource of EC2 that one call deletes."""

    operation: ClassVar[str]
    parameter: ClassVar[str]

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Tags."""
        tags = properties.get("Tags")
        if tags:
            api("ec2", account, region).create_tags(Resources=[resource.physical_resource_id], Tags=tags)

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        getattr(api("ec2", account, region), self.operation)(**{self.parameter: resource.physical_resource_id})


class InternetGateway(_Ec2):
    """``AWS::EC2::InternetGateway``."""

    operation, parameter = "delete_internet_gateway", "InternetGatewayId"


class Vpc(_Ec2):
    """``AWS::EC2::VPC``."""

    operation, parameter = "delete_vpc", "VpcId"

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """DNS, and tags."""
        super().complete(resource, properties, account, region)
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            if name in properties:
                api("ec2", account, region).modify_vpc_attribute(
                    VpcId=resource.physical_resource_id, **{name: {"Value": true(properties[name])}}
                )


class Subnet(_Ec2):
    """``AWS::EC2::Subnet``."""

    operation, parameter = "delete_subnet", "SubnetId"

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Public addresses, and tags."""
        super().complete(resource, properties, account, region)
        if "MapPublicIpOnLaunch" in properties:
            api("ec2", account, region).modify_subnet_attribute(
                SubnetId=resource.physical_resource_id,
                MapPublicIpOnLaunch={"Value": true(properties["MapPublicIpOnLaunch"])},
            )


class RouteTable(_Ec2):
    """``AWS::EC2::RouteTable``."""

    operation, parameter = "delete_route_table", "RouteTableId"


class Endpoint(_Ec2):
    """``AWS::EC2::VPCEndpoint``."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it: moto keeps it as ``deleted``, EC2 forgets it."""
        from moto.ec2.models import ec2_backends

        ec2_backends[account][region].vpc_end_points.pop(resource.physical_resource_id, None)


class Association(Mended):
    """``AWS::EC2::SubnetRouteTableAssociation``."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Undo it."""
        ec2 = api("ec2", account, region)
        tables = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [resource.subnet_id]}])
        for table in tables["RouteTables"]:
            for each in table["Associations"]:
                if each.get("SubnetId") == resource.subnet_id:
                    ec2.disassociate_route_table(AssociationId=each["RouteTableAssociationId"])


class Route(Mended):
    """``AWS::EC2::Route``."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        api("ec2", account, region).delete_route(
            RouteTableId=properties["RouteTableId"], DestinationCidrBlock=properties["DestinationCidrBlock"]
        )


class GatewayAttachment(Mended):
    """``AWS::EC2::VPCGatewayAttachment``."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Detach it."""
        api("ec2", account, region).detach_internet_gateway(
            InternetGatewayId=properties["InternetGatewayId"], VpcId=properties["VpcId"]
        )


NETWORK: dict[str, type[Mended]] = {
    "AWS::EC2::LaunchTemplate": LaunchTemplate,
    "AWS::EC2::SecurityGroup": SecurityGroup,
    "AWS::EC2::VPC": Vpc,
    "AWS::EC2::Subnet": Subnet,
    "AWS::EC2::InternetGateway": InternetGateway,
    "AWS::EC2::RouteTable": RouteTable,
    "AWS::EC2::Route": Route,
    "AWS::EC2::SubnetRouteTableAssociation": Association,
    "AWS::EC2::VPCGatewayAttachment": GatewayAttachment,
    "AWS::EC2::VPCEndpoint": Endpoint,
}
