"""CloudFormation's types of IAM that moto makes incompletely, or not at all. It must not know stacks."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.stack_resource import MotoResource, StackLocation, StackResource


class RoleResource(MotoResource):
    """``AWS::IAM::Role``."""

    name_property = "RoleName"
    create_only = ("Path", "RoleName")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set trust policy, inline and managed policies."""
        iam, name = at.api("iam"), resource.name
        trust = document_text(properties["AssumeRolePolicyDocument"])
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        known, inline = (
            {policy["PolicyName"]: policy["PolicyDocument"] for policy in (each or {}).get("Policies") or []}
            for each in (before, properties)
        )
        for policy in set(known) - set(inline):
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for policy, document in inline.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document_text(document))
        was, managed = (set((each or {}).get("ManagedPolicyArns") or []) for each in (before, properties))
        attached = {each["PolicyArn"] for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]}
        for arn in managed - attached:
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)
        for arn in (was - managed) & attached:
            iam.detach_role_policy(RoleName=name, PolicyArn=arn)

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it, with its inline policies and attachments."""
        iam, name = at.api("iam"), resource.name
        for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=each["PolicyArn"])
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)


def document_text(document: Json | str) -> str:
    """A policy as text for IAM's API. A template may have text too, where it makes keys from parameters."""
    return document if isinstance(document, str) else json.dumps(document)


class ManagedPolicyResource(MotoResource):
    """``AWS::IAM::ManagedPolicy``."""

    name_property = "ManagedPolicyName"
    create_only = ("Description", "ManagedPolicyName", "Path")

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Make a new default version of a changed policy, and delete the one before."""
        if before is None:
            return
        iam, arn = at.api("iam"), resource.arn
        document = document_text(properties["PolicyDocument"])
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)
        for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Detach it everywhere, then delete it."""
        iam = at.api("iam")
        users = iam.list_entities_for_policy(PolicyArn=resource.arn)
        for role in users["PolicyRoles"]:
            iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=resource.arn)
        for user in users["PolicyUsers"]:
            iam.detach_user_policy(UserName=user["UserName"], PolicyArn=resource.arn)
        for group in users["PolicyGroups"]:
            iam.detach_group_policy(GroupName=group["GroupName"], PolicyArn=resource.arn)
        iam.delete_policy(PolicyArn=resource.arn)


class InstanceProfileResource(MotoResource):
    """``AWS::IAM::InstanceProfile``."""

    name_property = "InstanceProfileName"
    create_only = ("InstanceProfileName", "Path")

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it."""
        iam, name = at.api("iam"), resource.physical_resource_id
        for role in iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
            iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role["RoleName"])
        iam.delete_instance_profile(InstanceProfileName=name)


class RolePolicyResource(StackResource):
    """``AWS::IAM::RolePolicy``: an inline policy of a role of the template."""

    kind = "AWS::IAM::RolePolicy"
    create_only = ("PolicyName", "RoleName")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Set it."""
        role, policy = str(properties["RoleName"]), str(properties["PolicyName"])
        document = document_text(properties["PolicyDocument"])
        at.api("iam").put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=document)
        return f"{policy}|{role}"

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set it again."""
        return cls.make("", properties, at)

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it; its role may have gone with it."""
        policy, _, role = physical_id.partition("|")
        iam = at.api("iam")
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            iam.delete_role_policy(RoleName=role, PolicyName=policy)


class OidcProviderResource(StackResource):
    """``AWS::IAM::OIDCProvider``."""

    kind = "AWS::IAM::OIDCProvider"
    attributes = ("Arn",)
    create_only = ("Url",)

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make it; an account has at most one for an issuer."""
        made = at.api("iam").create_open_id_connect_provider(
            Url=properties["Url"],
            ClientIDList=properties.get("ClientIdList") or [],
            ThumbprintList=properties.get("ThumbprintList") or [],
            Tags=properties.get("Tags") or [],
        )
        return str(made["OpenIDConnectProviderArn"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set its tags. moto cannot change audiences."""
        iam = at.api("iam")
        now = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=physical_id)["ClientIDList"]
        if set(now) != set(properties.get("ClientIdList") or []):
            raise ServiceError("another ClientIdList of an OIDC provider is not emulated")
        if properties.get("Tags"):
            iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=physical_id, Tags=properties["Tags"])
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it."""
        at.api("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=physical_id)


IAM: dict[str, type[MotoResource]] = {
    "AWS::IAM::Role": RoleResource,
    "AWS::IAM::ManagedPolicy": ManagedPolicyResource,
    "AWS::IAM::InstanceProfile": InstanceProfileResource,
}
