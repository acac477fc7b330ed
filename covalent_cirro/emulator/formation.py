"""CloudFormation resources of our own: ``AWS::Batch::*``, and those that moto lacks. Made through the same API as all.

`mending` has those that moto has and does by half. It must not know stacks: order, events and rollback are
`stack_engine`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from botocore.model import ListShape, MapShape, Shape, StructureShape

from covalent_cirro.emulator import resources, shapes
from covalent_cirro.emulator.batch import Batch
from covalent_cirro.emulator.emulator import emulator_of
from covalent_cirro.emulator.model import Json
from covalent_cirro.emulator.validation import Refused


def to_api(shape: Shape | None, value: Any) -> Any:
    """A property in the form of the API: its key's case, and its type, are those of the operation's shape.

    Keys that the shape lacks are left out; keys of maps (tags, options, parameters) stay as they are.
    """
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        members = {name.lower(): (name, member) for name, member in shape.members.items()}
        return {
            members[key.lower()][0]: to_api(members[key.lower()][1], each)
            for key, each in value.items()
            if key.lower() in members
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [to_api(shape.member, each) for each in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: to_api(shape.value, each) for key, each in value.items()}
    if shape is not None and shape.type_name in ("integer", "long") and isinstance(value, str):
        return int(value)
    if shape is not None and shape.type_name == "boolean" and isinstance(value, str):
        return value.lower() == "true"
    if shape is not None and shape.type_name == "string" and not isinstance(value, (str, list, dict)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def request(operation: str, properties: Json, **more: Any) -> Json:
    """The request of an operation from a resource's properties.

    Raises:
        Refused: It does not have the operation's shape.
    """
    shape = shapes.operation(operation).input_shape
    made: Json = {**to_api(shape, properties), **more}
    mistake = shapes.mistake(shape, made)
    if mistake is not None:
        raise Refused(mistake)
    return made


def batch_of(account: str, region: str) -> Batch:
    """The AWS Batch of a stack."""
    emulator = emulator_of(account)
    assert emulator is not None, f"no emulator has account {account}"
    return emulator.batch(region)


class Resource:
    """A resource of a stack, in the form that moto's CloudFormation asks for."""

    kind: ClassVar[str]
    name_property: ClassVar[str | None] = None
    attributes: ClassVar[tuple[str, ...]] = ()
    cf_resource_type: str
    logical_resource_id: str
    cirro_leaves_old = True
    """A replacement is beside the old one, which the stack deletes once nothing uses it."""

    def __init__(self, physical_resource_id: str) -> None:
        self.physical_resource_id = physical_resource_id

    @classmethod
    def cloudformation_type(cls) -> str:
        """``AWS::Service::Resource``."""
        return cls.kind

    @classmethod
    def cloudformation_name_type(cls) -> str | None:
        """The property that names it."""
        return cls.name_property

    @classmethod
    def has_cfn_attr(cls, attribute: str) -> bool:
        """Whether ``Fn::GetAtt`` knows the attribute."""
        return attribute in cls.attributes

    def get_cfn_attribute(self, attribute: str) -> str:
        """An attribute; all of those here are what ``Ref`` gives."""
        if attribute not in self.attributes:
            from moto.cloudformation.exceptions import UnformattedGetAttTemplateException

            raise UnformattedGetAttTemplateException
        return self.physical_resource_id

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_: Any
    ) -> Resource:
        """Make it."""
        properties = cloudformation_json.get("Properties", {})
        return cls(cls.make(resource_name, properties, account_id, region_name))

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Resource,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Resource:
        """Change it in place, or make one that replaces it."""
        properties = cloudformation_json.get("Properties", {})
        physical_id = original_resource.physical_resource_id
        if not cls.replaces(physical_id, properties, account_id, region_name):
            changed = cls.change(physical_id, properties, account_id, region_name)
            if changed == physical_id:
                return original_resource
            replaced = cls(changed)
            replaced.cirro_leaves_old = False
            return replaced
        custom = None if cls.name_property is None else properties.get(cls.name_property)
        if custom is not None and custom == cls.name_of(physical_id):
            raise Refused(
                "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename "
                f"{custom} and update the stack again."
            )
        return cls(cls.make(new_resource_name, properties, account_id, region_name))

    def delete(self, account_id: str, region_name: str) -> None:
        """Delete it; one that is gone already is no error."""
        self.remove(self.physical_resource_id, account_id, region_name)

    @staticmethod
    def name_of(physical_id: str) -> str:
        """The name in an ARN."""
        return physical_id.rsplit("/", 1)[-1]

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Make one; returns its physical id."""
        raise NotImplementedError

    @classmethod
    def replaces(cls, physical_id: str, properties: Json, account: str, region: str) -> bool:
        """Whether the new properties need a new one."""
        return False

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Change one in place; returns its physical id."""
        raise NotImplementedError

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Delete one."""
        raise NotImplementedError


class ComputeEnvironment(Resource):
    """``AWS::Batch::ComputeEnvironment``."""

    kind = "AWS::Batch::ComputeEnvironment"
    name_property = "ComputeEnvironmentName"
    attributes = ("ComputeEnvironmentArn",)
    SCALING = frozenset(("minvcpus", "maxvcpus", "desiredvcpus", "updatetolatestimageversion"))
    """Members of ComputeResources that change in place in any case (User Guide, Updating compute environments)."""

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Make one."""
        batch = batch_of(account, region)
        made = request("CreateComputeEnvironment", properties, computeEnvironmentName=name)
        return str(resources.create_compute_environment(batch, made)["computeEnvironmentArn"])

    @classmethod
    def replaces(cls, physical_id: str, properties: Json, account: str, region: str) -> bool:
        """Its type, tags and Spot role never change; the rest in place only with ReplaceComputeEnvironment false.

        Source: CloudFormation registry schema, createOnlyProperties and conditionalCreateOnlyProperties.
        """
        now = batch_of(account, region).fleet.environments[physical_id]
        wanted = request("CreateComputeEnvironment", properties, computeEnvironmentName=now.name)
        machines, new = now.resources, wanted.get("computeResources", {})
        if wanted["type"] != now.body["type"] or (wanted.get("tags") or {}) != now.tags:
            return True
        if properties.get(cls.name_property, now.name) != now.name:
            return True
        if machines.get("spotIamFleetRole") != new.get("spotIamFleetRole"):
            return True
        differs = {key for key in {*machines, *new} if machines.get(key) != new.get(key)}
        in_place = str(properties.get("ReplaceComputeEnvironment", "true")).lower() == "false"
        return not in_place and any(key.lower() not in cls.SCALING for key in differs)

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Change one in place."""
        made = request("UpdateComputeEnvironment", properties, computeEnvironment=physical_id)
        resources.update_compute_environment(batch_of(account, region), made)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Disable, then delete."""
        batch = batch_of(account, region)
        if physical_id in batch.fleet.environments:
            resources.update_compute_environment(batch, {"computeEnvironment": physical_id, "state": "DISABLED"})
            resources.delete_compute_environment(batch, {"computeEnvironment": physical_id})


class JobQueue(Resource):
    """``AWS::Batch::JobQueue``."""

    kind = "AWS::Batch::JobQueue"
    name_property = "JobQueueName"
    attributes = ("JobQueueArn",)

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Make one."""
        made = request("CreateJobQueue", properties, jobQueueName=name)
        return str(resources.create_job_queue(batch_of(account, region), made)["jobQueueArn"])

    @classmethod
    def replaces(cls, physical_id: str, properties: Json, account: str, region: str) -> bool:
        """Its name and type never change."""
        queue = batch_of(account, region).scheduler.queues[physical_id]
        name = properties.get(cls.name_property, queue.name)
        return bool(name != queue.name or properties.get("JobQueueType") != queue.body.get("jobQueueType"))

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Change one in place."""
        batch = batch_of(account, region)
        resources.update_job_queue(batch, request("UpdateJobQueue", properties, jobQueue=physical_id))
        batch.scheduler.queues[physical_id].tags = dict(properties.get("Tags") or {})
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Disable, then delete with all its jobs."""
        batch = batch_of(account, region)
        if physical_id in batch.scheduler.queues:
            resources.update_job_queue(batch, {"jobQueue": physical_id, "state": "DISABLED"})
            resources.delete_job_queue(batch, {"jobQueue": physical_id})


class JobDefinition(Resource):
    """``AWS::Batch::JobDefinition``: each update is a new revision."""

    kind = "AWS::Batch::JobDefinition"
    name_property = "JobDefinitionName"
    attributes = ("JobDefinitionArn",)

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Register one."""
        made = request("RegisterJobDefinition", properties, jobDefinitionName=name)
        size = len(json.dumps(made))
        return str(resources.register_job_definition(batch_of(account, region), made, size)["jobDefinitionArn"])

    @classmethod
    def replaces(cls, physical_id: str, properties: Json, account: str, region: str) -> bool:
        """Its name never changes."""
        now = cls.name_of(physical_id)
        return bool(properties.get(cls.name_property, now) != now)

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Register the next revision and deregister this one, unless SkipDeregisterOnUpdate is set."""
        arn = cls.make(cls.name_of(physical_id), properties, account, region)
        policy = properties.get("ResourceRetentionPolicy") or {}
        if str(policy.get("SkipDeregisterOnUpdate", "false")).lower() != "true":
            resources.deregister_job_definition(batch_of(account, region), {"jobDefinition": physical_id})
        return arn

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Deregister every revision of the name."""
        for definition in batch_of(account, region).definitions.get(cls.name_of(physical_id), []):
            definition.status = "INACTIVE"

    @staticmethod
    def name_of(physical_id: str) -> str:
        """The name in an ARN with a revision."""
        return physical_id.rsplit("/", 1)[-1].split(":")[0]


class SchedulingPolicy(Resource):
    """``AWS::Batch::SchedulingPolicy``."""

    kind = "AWS::Batch::SchedulingPolicy"
    name_property = "Name"
    attributes = ("Arn",)

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> str:
        """Make one."""
        made = request("CreateSchedulingPolicy", properties, name=name)
        return str(resources.create_scheduling_policy(batch_of(account, region), made)["arn"])

    @classmethod
    def replaces(cls, physical_id: str, properties: Json, account: str, region: str) -> bool:
        """Its name never changes."""
        return bool(properties.get("Name", cls.name_of(physical_id)) != cls.name_of(physical_id))

    @classmethod
    def change(cls, physical_id: str, properties: Json, account: str, region: str) -> str:
        """Change one in place."""
        made = request("UpdateSchedulingPolicy", properties, arn=physical_id)
        resources.update_scheduling_policy(batch_of(account, region), made)
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, account: str, region: str) -> None:
        """Delete one."""
        batch = batch_of(account, region)
        if physical_id in batch.fleet.policies:
            resources.delete_scheduling_policy(batch, {"arn": physical_id})


OWN: tuple[type[Resource], ...] = (ComputeEnvironment, JobQueue, JobDefinition, SchedulingPolicy)


def install(parsing: Any) -> None:
    """Make moto's CloudFormation look here first for the class of a resource."""
    from covalent_cirro.emulator import mending

    registry: dict[str, Any] = {each.kind: each for each in (*OWN, *mending.LACKING)}
    theirs: Callable[[str], Any] = parsing.resource_class_from_type
    name_property: Callable[[str], Any] = parsing.resource_name_property_from_type
    mended: dict[str, Any] = {}

    def resource_class_from_type(kind: str) -> Any:
        if kind in registry:
            return registry[kind]
        if kind in mending.MENDED:
            if kind not in mended:
                mended[kind] = mending.MENDED[kind](theirs(kind))
            return mended[kind]
        return theirs(kind)

    def resource_name_property_from_type(kind: str) -> Any:
        return registry[kind].cloudformation_name_type() if kind in registry else name_property(kind)

    parsing.resource_class_from_type = resource_class_from_type
    parsing.resource_name_property_from_type = resource_name_property_from_type
