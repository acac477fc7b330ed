"""CloudFormation's types of AWS Batch, made by the functions of its API.

`service_kinds` has those of other services. It must not know stacks: order, events and rollback are `stack_engine`'s.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from covalent_cirro.local.emulator.batch import resource_operations, shapes
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.stack_resource import (
    StackLocation,
    StackResource,
    begin_to_wait,
    differ,
    to_api,
    true,
)

HANDLER_TIMEOUT_S = 7200.0
"""How long CloudFormation waits for one resource (CloudFormation CLI User Guide, resource type schema,
``handlers.timeoutInMinutes``: 120 where the type says nothing, which AWS::Batch::ComputeEnvironment does not)."""


def request(operation: str, properties: Json, **more: Any) -> Json:
    """The request of an operation from a resource's properties.

    Raises:
        ServiceError: It does not have the operation's shape.
    """
    shape = shapes.operation(operation).input_shape
    made: Json = {**to_api(shape, properties), **more}
    mistake = shapes.mistake(shape, made)
    if mistake is not None:
        raise ServiceError(mistake)
    return made


class ComputeEnvironmentResource(StackResource):
    """``AWS::Batch::ComputeEnvironment``."""

    kind = "AWS::Batch::ComputeEnvironment"
    name_property = "ComputeEnvironmentName"
    attributes = ("ComputeEnvironmentArn",)
    create_only = (
        "ComputeEnvironmentName",
        "ComputeResources/ManagedInstancesProvider/InstanceLaunchTemplate/CapacityOptionType",
        "ComputeResources/ManagedInstancesProvider/InstanceLaunchTemplate/FipsEnabled",
        "ComputeResources/SpotIamFleetRole",
        "EksConfiguration/EksClusterArn",
        "EksConfiguration/KubernetesNamespace",
        "Tags",
        "Type",
    )
    in_place_on_request = tuple(
        f"ComputeResources/{name}"
        for name in (
            "AllocationStrategy",
            "BidPercentage",
            "Ec2Configuration",
            "Ec2KeyPair",
            "ImageId",
            "InstanceRole",
            "InstanceTypes",
            "LaunchTemplate",
            "PlacementGroup",
            "ScalingPolicy",
            "SecurityGroupIds",
            "Subnets",
            "Tags",
            "Type",
        )
    )
    """Changed in place only with ReplaceComputeEnvironment false (registry schema, conditionalCreateOnlyProperties)."""

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one."""
        refused = at.new.no_cluster(at.account)
        if refused is not None:
            raise ServiceError(refused)
        made = request("CreateComputeEnvironment", properties, computeEnvironmentName=name)
        return str(resource_operations.create_compute_environment(at.batch, made)["computeEnvironmentArn"])

    @classmethod
    def replaces(cls, before: Json, now: Json) -> bool:
        """Properties that cannot be changed; and most others, unless ReplaceComputeEnvironment is false."""
        in_place = not true(now.get("ReplaceComputeEnvironment", True))
        return differ(cls.create_only if in_place else cls.create_only + cls.in_place_on_request, before, now)

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change one in place, and wait until that is done."""
        batch, made = at.batch, request("UpdateComputeEnvironment", properties, computeEnvironment=physical_id)
        resource_operations.update_compute_environment(batch, made)
        environment = batch.fleet.environments[physical_id]
        if environment.status == "UPDATING":
            begin_to_wait()
        if not batch.updated(environment, batch.context.timing.scaled(HANDLER_TIMEOUT_S)):
            raise ServiceError(
                'Resource handler returned message: "Exceeded attempts to wait" (RequestToken: '
                f"{uuid.uuid4()}, HandlerErrorCode: NotStabilized)"
            )
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Disable, then delete."""
        if physical_id in at.batch.fleet.environments:
            resource_operations.update_compute_environment(
                at.batch, {"computeEnvironment": physical_id, "state": "DISABLED"}
            )
            resource_operations.delete_compute_environment(at.batch, {"computeEnvironment": physical_id})


class JobQueueResource(StackResource):
    """``AWS::Batch::JobQueue``."""

    kind = "AWS::Batch::JobQueue"
    name_property = "JobQueueName"
    attributes = ("JobQueueArn",)
    create_only = ("JobQueueName", "JobQueueType")

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one."""
        made = request("CreateJobQueue", properties, jobQueueName=name)
        return str(resource_operations.create_job_queue(at.batch, made)["jobQueueArn"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change one in place."""
        resource_operations.update_job_queue(at.batch, request("UpdateJobQueue", properties, jobQueue=physical_id))
        at.batch.scheduler.queues[physical_id].tags = dict(properties.get("Tags") or {})
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Disable, then delete with all its jobs."""
        if physical_id in at.batch.scheduler.queues:
            resource_operations.update_job_queue(at.batch, {"jobQueue": physical_id, "state": "DISABLED"})
            resource_operations.delete_job_queue(at.batch, {"jobQueue": physical_id})


class JobDefinitionResource(StackResource):
    """``AWS::Batch::JobDefinition``: each update is a new revision."""

    kind = "AWS::Batch::JobDefinition"
    name_property = "JobDefinitionName"
    attributes = ("JobDefinitionArn",)
    create_only = ("JobDefinitionName",)

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Register one."""
        made = request("RegisterJobDefinition", properties, jobDefinitionName=name)
        return str(
            resource_operations.register_job_definition(at.batch, made, len(json.dumps(made)))["jobDefinitionArn"]
        )

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Register the next revision and deregister this one, unless SkipDeregisterOnUpdate is set."""
        arn = cls.make(_name(physical_id), properties, at)
        policy = properties.get("ResourceRetentionPolicy") or {}
        if not true(policy.get("SkipDeregisterOnUpdate", False)):
            resource_operations.deregister_job_definition(at.batch, {"jobDefinition": physical_id})
        return arn

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Deregister every revision of the name."""
        for definition in at.batch.definitions.get(_name(physical_id), []):
            definition.status = "INACTIVE"


def _name(arn: str) -> str:
    """The name in an ARN with a revision."""
    return arn.rsplit("/", 1)[-1].split(":")[0]


class SchedulingPolicyResource(StackResource):
    """``AWS::Batch::SchedulingPolicy``."""

    kind = "AWS::Batch::SchedulingPolicy"
    name_property = "Name"
    attributes = ("Arn",)
    create_only = ("Name",)

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one."""
        made = request("CreateSchedulingPolicy", properties, name=name)
        return str(resource_operations.create_scheduling_policy(at.batch, made)["arn"])

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change one in place."""
        resource_operations.update_scheduling_policy(
            at.batch, request("UpdateSchedulingPolicy", properties, arn=physical_id)
        )
        return physical_id

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete one."""
        if physical_id in at.batch.fleet.policies:
            resource_operations.delete_scheduling_policy(at.batch, {"arn": physical_id})


KINDS: tuple[type[StackResource], ...] = (
    ComputeEnvironmentResource,
    JobQueueResource,
    JobDefinitionResource,
    SchedulingPolicyResource,
)
"""The types of AWS Batch."""
