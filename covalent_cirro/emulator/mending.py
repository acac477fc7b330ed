"""CloudFormation resources that moto does by half, or not at all: what it drops is set through the service's own API.

Calls go to the emulator itself with boto3, signed with `KEY`, so that they are neither counted nor hit by faults.
"""

from __future__ import annotations

import functools
import json
from typing import Any, ClassVar

from covalent_cirro.emulator.emulator import emulator_of
from covalent_cirro.emulator.formation import Resource
from covalent_cirro.emulator.front import OWN_KEY
from covalent_cirro.emulator.model import Json


@functools.lru_cache(maxsize=32)
def client(service: str, account: str, region: str, endpoint_url: str) -> Any:
    """A client of the emulator, for itself."""
    emulator = emulator_of(account)
    assert emulator is not None
    return emulator.client(service, region_name=region, endpoint_url=endpoint_url, aws_access_key_id=OWN_KEY)


def api(service: str, account: str, region: str) -> Any:
    """A client of the emulator that has the account."""
    emulator = emulator_of(account)
    assert emulator is not None
    return client(service, account, region, emulator.endpoint_url)


class Mended:
    """moto's resource, completed after it was made, changed in place, and deleted with an error where AWS has one."""

    cirro_leaves_old = False

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def create_from_cloudformation_json(
        self, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
    ) -> Any:
        """moto makes it, `complete` sets the rest."""
        made = self.base.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **more
        )
        self.complete(made, cloudformation_json.get("Properties", {}), account_id, region_name)
        return made

    def update_from_cloudformation_json(
        self,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Any:
        """All that can be changed is set anew."""
        self.complete(original_resource, cloudformation_json.get("Properties", {}), account_id, region_name)
        return original_resource

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Set what moto leaves out."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        raise NotImplementedError


class Bucket(Mended):
    """``AWS::S3::Bucket``."""

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Lifecycle, public access, ownership, versioning."""
        s3, name = api("s3", account, region), resource.name
        rules = (properties.get("LifecycleConfiguration") or {}).get("Rules") or []
        if rules:
            s3.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": [lifecycle_rule(rule) for rule in rules]}
            )
        else:
            s3.delete_bucket_lifecycle(Bucket=name)
        block = properties.get("PublicAccessBlockConfiguration")
        if block:
            s3.put_public_access_block(
                Bucket=name, PublicAccessBlockConfiguration={key: _true(value) for key, value in block.items()}
            )
        if properties.get("OwnershipControls"):
            s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
        if properties.get("VersioningConfiguration"):
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it; S3 refuses unless it is empty."""
        api("s3", account, region).delete_bucket(Bucket=resource.name)


def lifecycle_rule(rule: Json) -> Json:
    """A rule of ``LifecycleConfiguration`` in the form of S3's API."""
    made: Json = {"ID": rule.get("Id", ""), "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    for key, field in (
        ("NoncurrentVersionExpiration", "NoncurrentDays"),
        ("AbortIncompleteMultipartUpload", "DaysAfterInitiation"),
    ):
        if key in rule:
            made[key] = {field: int(rule[key][field])}
    return made


class Repository(Mended):
    """``AWS::ECR::Repository``."""

    def create_from_cloudformation_json(
        self, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
    ) -> Any:
        """Names that CloudFormation makes up are in lower case, as ECR wants them."""
        return super().create_from_cloudformation_json(
            resource_name.lower(), cloudformation_json, account_id, region_name, **more
        )

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Lifecycle policy and scanning."""
        ecr, name = api("ecr", account, region), resource.physical_resource_id
        policy = (properties.get("LifecyclePolicy") or {}).get("LifecyclePolicyText")
        if policy:
            ecr.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=policy)
        scanning = properties.get("ImageScanningConfiguration")
        if scanning:
            ecr.put_image_scanning_configuration(
                repositoryName=name, imageScanningConfiguration={"scanOnPush": _true(scanning["ScanOnPush"])}
            )

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it, with its images only if EmptyOnDelete says so."""
        api("ecr", account, region).delete_repository(
            repositoryName=resource.physical_resource_id, force=_true(properties.get("EmptyOnDelete", False))
        )


class LogGroup(Mended):
    """``AWS::Logs::LogGroup``."""

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Retention."""
        logs, name = api("logs", account, region), resource.physical_resource_id
        if properties.get("RetentionInDays"):
            logs.put_retention_policy(logGroupName=name, retentionInDays=int(properties["RetentionInDays"]))
        else:
            logs.delete_retention_policy(logGroupName=name)

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        api("logs", account, region).delete_log_group(logGroupName=resource.physical_resource_id)


class Role(Mended):
    """``AWS::IAM::Role``."""

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Trust, inline and managed policies as they should be now."""
        iam, name = api("iam", account, region), resource.name
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]))
        wanted = {each["PolicyName"]: each["PolicyDocument"] for each in properties.get("Policies") or []}
        known = json.loads(resource.__dict__.setdefault("cirro_inline", "[]"))
        for policy in set(known) - set(wanted):
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for policy, document in wanted.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
        resource.cirro_inline = json.dumps(sorted(wanted))
        managed = set(properties.get("ManagedPolicyArns") or [])
        attached = {each["PolicyArn"] for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]}
        for arn in managed - attached:
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)
        for arn in set(resource.__dict__.get("cirro_managed", ())) - managed:
            iam.detach_role_policy(RoleName=name, PolicyArn=arn)
        resource.cirro_managed = sorted(managed)

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it, with what hangs on it."""
        iam, name = api("iam", account, region), resource.name
        for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=each["PolicyArn"])
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)


class ManagedPolicy(Mended):
    """``AWS::IAM::ManagedPolicy``."""

    def update_from_cloudformation_json(
        self,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Any:
        """A new default version; the one before goes."""
        iam, arn = api("iam", account_id, region_name), original_resource.arn
        document = json.dumps(cloudformation_json["Properties"]["PolicyDocument"])
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)
        for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        return original_resource

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Detach it everywhere, then delete it."""
        iam = api("iam", account, region)
        users = iam.list_entities_for_policy(PolicyArn=resource.arn)
        for role in users["PolicyRoles"]:
            iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=resource.arn)
        for user in users["PolicyUsers"]:
            iam.detach_user_policy(UserName=user["UserName"], PolicyArn=resource.arn)
        for group in users["PolicyGroups"]:
            iam.detach_group_policy(GroupName=group["GroupName"], PolicyArn=resource.arn)
        iam.delete_policy(PolicyArn=resource.arn)


class InstanceProfile(Mended):
    """``AWS::IAM::InstanceProfile``."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        iam, name = api("iam", account, region), resource.physical_resource_id
        for role in iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
            iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role["RoleName"])
        iam.delete_instance_profile(InstanceProfileName=name)


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
                    VpcId=resource.physical_resource_id, **{name: {"Value": _true(properties[name])}}
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
                MapPublicIpOnLaunch={"Value": _true(properties["MapPublicIpOnLaunch"])},
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


MENDED: dict[str, type[Mended]] = {
    "AWS::S3::Bucket": Bucket,
    "AWS::ECR::Repository": Repository,
    "AWS::Logs::LogGroup": LogGroup,
    "AWS::IAM::Role": Role,
    "AWS::IAM::ManagedPolicy": ManagedPolicy,
    "AWS::IAM::InstanceProfile": InstanceProfile,
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


class BucketPolicy(Resource):
    """``AWS::S3::BucketPolicy``."""

    kind = "AWS::S3::BucketPolicy"

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Set it."""
        bucket = str(properties["Bucket"])
        policy = json.dumps(properties["PolicyDocument"])
        api("s3", account, region).put_bucket_policy(Bucket=bucket, Policy=policy)
        return bucket

    @classmethod
    def replaces(cls, physical_id: str, properties: Json, account: str, region: str) -> bool:
        """Its bucket never changes."""
        return bool(properties["Bucket"] != physical_id)

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Set it anew."""
        return cls.make("", properties, account, region)

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Remove it."""
        api("s3", account, region).delete_bucket_policy(Bucket=physical_id)


class QueuePolicy(Resource):
    """``AWS::SQS::QueuePolicy``."""

    kind = "AWS::SQS::QueuePolicy"

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Set it on all its queues."""
        policy = json.dumps(properties["PolicyDocument"])
        for url in properties["Queues"]:
            api("sqs", account, region).set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return name

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Set it anew."""
        return cls.make(physical_id, properties, account, region)

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Nothing: it goes with its queues."""


LACKING: tuple[type[Resource], ...] = (BucketPolicy, QueuePolicy)


def _true(value: Any) -> bool:
    return str(value).lower() == "true"
