"""CloudFormation resources of S3, ECR, Logs and IAM that moto does by half, and those that it lacks.

Each is set through its service's own API (`mended`); those of EC2 are in `mending_network`. It must not know stacks.
"""

from __future__ import annotations

import json
from typing import Any

from covalent_cirro.emulator.formation import Resource
from covalent_cirro.emulator.mended import Mended, api, true
from covalent_cirro.emulator.mending_network import NETWORK
from covalent_cirro.emulator.model import Json


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
                Bucket=name, PublicAccessBlockConfiguration={key: true(value) for key, value in block.items()}
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
                repositoryName=name, imageScanningConfiguration={"scanOnPush": true(scanning["ScanOnPush"])}
            )

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it, with its images only if EmptyOnDelete says so."""
        api("ecr", account, region).delete_repository(
            repositoryName=resource.physical_resource_id, force=true(properties.get("EmptyOnDelete", False))
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


MENDED: dict[str, type[Mended]] = {
    **NETWORK,
    "AWS::S3::Bucket": Bucket,
    "AWS::ECR::Repository": Repository,
    "AWS::Logs::LogGroup": LogGroup,
    "AWS::IAM::Role": Role,
    "AWS::IAM::ManagedPolicy": ManagedPolicy,
    "AWS::IAM::InstanceProfile": InstanceProfile,
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
