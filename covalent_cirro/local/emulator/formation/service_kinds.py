"""CloudFormation's types of S3, ECR, Logs, SQS and Budgets that moto makes incompletely, or not at all.

They are set by the API of their service. `ec2_kinds` has those of EC2, `iam_kinds` those of IAM. It must not know
stacks.
"""

from __future__ import annotations

import json
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.ec2_kinds import MADE, NETWORK
from covalent_cirro.local.emulator.formation.file_kinds import FILES
from covalent_cirro.local.emulator.formation.iam_kinds import IAM, OidcProviderResource, RolePolicyResource
from covalent_cirro.local.emulator.formation.stack_resource import (
    MotoResource,
    StackLocation,
    StackResource,
    to_api,
    true,
)


class BucketResource(MotoResource):
    """``AWS::S3::Bucket``."""

    name_property = "BucketName"
    create_only = ("BucketName", "BucketNamePrefix", "BucketNamespace")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set lifecycle, public access, ownership and versioning."""
        s3, name = at.api("s3"), resource.name
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

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it; S3 refuses unless it is empty."""
        at.api("s3").delete_bucket(Bucket=resource.name)


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


class RepositoryResource(MotoResource):
    """``AWS::ECR::Repository``."""

    name_property = "RepositoryName"
    create_only = (
        *("EncryptionConfiguration", "EncryptionConfiguration/EncryptionType", "EncryptionConfiguration/KmsKey"),
        "RepositoryName",
    )

    def create_from_cloudformation_json(
        self, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
    ) -> Any:
        """Generated names are in lower case: ECR accepts no others."""
        return super().create_from_cloudformation_json(
            resource_name.lower(), cloudformation_json, account_id, region_name, **more
        )

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set lifecycle policy, scanning, immutable tags, encryption and tags of the repository."""
        ecr, name = at.api("ecr"), resource.physical_resource_id
        policy = (properties.get("LifecyclePolicy") or {}).get("LifecyclePolicyText")
        if policy:
            ecr.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=policy)
        elif resource.lifecycle_policy:
            ecr.delete_lifecycle_policy(repositoryName=name)
        mutability = properties.get("ImageTagMutability", "MUTABLE")
        if mutability != resource.image_tag_mutability:
            ecr.put_image_tag_mutability(repositoryName=name, imageTagMutability=mutability)
        encryption = properties.get("EncryptionConfiguration")
        if encryption:  # moto keeps CloudFormation's names
            resource.encryption_configuration = {key[0].lower() + key[1:]: each for key, each in encryption.items()}
        if properties.get("Tags"):
            ecr.tag_resource(resourceArn=resource.arn, tags=properties["Tags"])
        scanning = properties.get("ImageScanningConfiguration")
        if scanning:
            ecr.put_image_scanning_configuration(
                repositoryName=name, imageScanningConfiguration={"scanOnPush": true(scanning["ScanOnPush"])}
            )

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it, with its images only if EmptyOnDelete says so."""
        at.api("ecr").delete_repository(
            repositoryName=resource.physical_resource_id, force=true(properties.get("EmptyOnDelete", False))
        )


class LogGroupResource(MotoResource):
    """``AWS::Logs::LogGroup``."""

    name_property = "LogGroupName"
    create_only = ("LogGroupName",)
    deletion = ("logs", "delete_log_group", "logGroupName")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set retention."""
        logs, name = at.api("logs"), resource.physical_resource_id
        if properties.get("RetentionInDays"):
            logs.put_retention_policy(logGroupName=name, retentionInDays=int(properties["RetentionInDays"]))
        else:
            logs.delete_retention_policy(logGroupName=name)


class BucketPolicyResource(StackResource):
    """``AWS::S3::BucketPolicy``."""

    kind = "AWS::S3::BucketPolicy"
    create_only = ("Bucket",)

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Set it."""
        bucket = str(properties["Bucket"])
        at.api("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(properties["PolicyDocument"]))
        return bucket

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set it again."""
        return cls.make("", properties, at)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Remove it."""
        at.api("s3").delete_bucket_policy(Bucket=physical_id)


class QueuePolicyResource(StackResource):
    """``AWS::SQS::QueuePolicy``."""

    kind = "AWS::SQS::QueuePolicy"

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Set it on all its queues."""
        policy = json.dumps(properties["PolicyDocument"])
        for url in properties["Queues"]:
            at.api("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return name

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set it again."""
        return cls.make(physical_id, properties, at)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Do nothing: a deleted queue has no policy."""


class BudgetResource(StackResource):
    """``AWS::Budgets::Budget``."""

    kind = "AWS::Budgets::Budget"
    create_only = ("Budget/BudgetName", "NotificationsWithSubscribers")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make a budget with the name of the template, or else a generated one."""
        refused = at.new.no_budget(at.account, name)
        if refused is not None:
            raise ServiceError(refused)
        budgets = at.api("budgets")
        shape = budgets.meta.service_model.operation_model("CreateBudget").input_shape
        made: Json = to_api(shape, {**properties, "AccountId": at.account})
        named = str(made["Budget"].setdefault("BudgetName", name))
        budgets.create_budget(**made)
        return named

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Delete it and make it again with the same name: moto lacks UpdateBudget."""
        cls.remove(physical_id, at)
        return cls.make(physical_id, properties, at)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it."""
        at.api("budgets").delete_budget(AccountId=at.account, BudgetName=physical_id)


COMPLETED: dict[str, type[MotoResource]] = {
    **NETWORK,
    **IAM,
    "AWS::S3::Bucket": BucketResource,
    "AWS::ECR::Repository": RepositoryResource,
    "AWS::Logs::LogGroup": LogGroupResource,
}
"""Types that moto makes and that are completed here."""

KINDS: tuple[type[StackResource], ...] = (
    BucketPolicyResource,
    QueuePolicyResource,
    BudgetResource,
    OidcProviderResource,
    *MADE,
    RolePolicyResource,
    *FILES,
)
"""Types of other services than AWS Batch that moto lacks."""
