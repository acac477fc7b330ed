"""CloudFormation's types of EFS, made by its API, which is moto's. It must not know stacks."""

from __future__ import annotations

import json
import uuid
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation.stack_resource import StackLocation, StackResource, true


def _arn(at: StackLocation, kind: str, physical_id: str) -> str:
    return f"arn:aws:elasticfilesystem:{at.region}:{at.account}:{kind}/{physical_id}"


class FileSystemResource(StackResource):
    """``AWS::EFS::FileSystem``."""

    kind = "AWS::EFS::FileSystem"
    attributes = ("FileSystemId", "Arn")
    create_only = ("AvailabilityZoneName", "Encrypted", "KmsKeyId", "PerformanceMode")

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """The ARN, or the id."""
        return _arn(at, "file-system", physical_id) if attribute == "Arn" else physical_id

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one."""
        made = at.api("efs").create_file_system(
            CreationToken=str(uuid.uuid4()),
            PerformanceMode=properties.get("PerformanceMode", "generalPurpose"),
            ThroughputMode=properties.get("ThroughputMode", "bursting"),
            Encrypted=true(properties.get("Encrypted", False)),
            Tags=properties.get("FileSystemTags") or [],
        )
        return cls.change(str(made["FileSystemId"]), properties, at)

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set lifecycle, policy, backup and tags."""
        efs = at.api("efs")
        policies = [dict(each) for each in properties.get("LifecyclePolicies") or []]
        efs.put_lifecycle_configuration(FileSystemId=physical_id, LifecyclePolicies=policies)
        if properties.get("FileSystemPolicy"):
            document = json.dumps(properties["FileSystemPolicy"])
            efs.put_file_system_policy(FileSystemId=physical_id, Policy=document)
        if properties.get("FileSystemTags"):
            efs.tag_resource(ResourceId=physical_id, Tags=properties["FileSystemTags"])
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it; EFS refuses while it has mount targets."""
        at.api("efs").delete_file_system(FileSystemId=physical_id)


class AccessPointResource(StackResource):
    """``AWS::EFS::AccessPoint``."""

    kind = "AWS::EFS::AccessPoint"
    attributes = ("AccessPointId", "Arn")
    create_only = (
        *("ClientToken", "FileSystemId", "PosixUser", "PosixUser/Gid", "PosixUser/SecondaryGids", "PosixUser/Uid"),
        *("RootDirectory", "RootDirectory/CreationInfo", "RootDirectory/CreationInfo/OwnerGid"),
        *("RootDirectory/CreationInfo/OwnerUid", "RootDirectory/CreationInfo/Permissions", "RootDirectory/Path"),
    )

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """The ARN, or the id."""
        return _arn(at, "access-point", physical_id) if attribute == "Arn" else physical_id

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one."""
        made = at.api("efs").create_access_point(
            ClientToken=str(uuid.uuid4()),
            FileSystemId=properties["FileSystemId"],
            PosixUser=_whole(properties.get("PosixUser") or {}),
            RootDirectory=_whole(properties.get("RootDirectory") or {"Path": "/"}),
            Tags=properties.get("AccessPointTags") or [],
        )
        return str(made["AccessPointId"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set its tags."""
        if properties.get("AccessPointTags"):
            at.api("efs").tag_resource(ResourceId=physical_id, Tags=properties["AccessPointTags"])
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it."""
        at.api("efs").delete_access_point(AccessPointId=physical_id)


class MountTargetResource(StackResource):
    """``AWS::EFS::MountTarget``."""

    kind = "AWS::EFS::MountTarget"
    attributes = ("Id",)
    create_only = ("FileSystemId", "IpAddress", "IpAddressType", "Ipv6Address", "SubnetId")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one, and with it a network interface."""
        made = at.api("efs").create_mount_target(
            FileSystemId=properties["FileSystemId"],
            SubnetId=properties["SubnetId"],
            SecurityGroups=properties["SecurityGroups"],
        )
        return str(made["MountTargetId"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Set its security groups."""
        groups = properties["SecurityGroups"]
        at.api("efs").modify_mount_target_security_groups(MountTargetId=physical_id, SecurityGroups=groups)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete it, with its network interface."""
        at.api("efs").delete_mount_target(MountTargetId=physical_id)


def _whole(properties: Any) -> Any:
    """Ids of users and groups as numbers: a template has them as text."""
    if not isinstance(properties, dict):
        return properties
    return {
        key: int(value) if key in ("Uid", "Gid", "OwnerUid", "OwnerGid") else _whole(value)
        for key, value in properties.items()
    }


FILES: tuple[type[StackResource], ...] = (FileSystemResource, AccessPointResource, MountTargetResource)
"""The types of EFS."""
