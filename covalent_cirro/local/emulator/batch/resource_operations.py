"""The operations on definitions, compute environments, queues, policies and tags. `shapes` has checked their requests.

CloudFormation makes its resources by the same functions (`formation.batch_kinds`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import TypeVar

from covalent_cirro.local.emulator.batch import consumable_operations, describe, lookup, node_properties, validation
from covalent_cirro.local.emulator.batch.describe import present
from covalent_cirro.local.emulator.batch.model import (
    ComputeEnvironment,
    JobDefinition,
    JobQueue,
    Json,
    SchedulingPolicy,
)
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError

PAGE = 100
"""Results of the Describe operations of this module (API model, maxResults)."""
MAX_QUEUES = 50
"""User Guide, Service quotas: job queues."""
MAX_COMPUTE_ENVIRONMENTS = 50
"""User Guide, Service quotas: compute environments."""

Item = TypeVar("Item")


# --- job definitions ----------------------------------------------------------------------------------------------


def register_job_definition(batch: Batch, request: Json, size: int) -> Json:
    """RegisterJobDefinition: the number of revisions of that name, plus 1."""
    validation.register_job_definition(request, size)
    body = {"parameters": {}, "platformCapabilities": ["EC2"], **request}
    body.pop("tags", None)
    if request["type"] == "container":
        body["containerProperties"] = describe.container_properties(request["containerProperties"])
    else:
        node_properties.check(request["nodeProperties"])
        ranges = [
            {**each, "container": describe.container_properties(each["container"])}
            for each in request["nodeProperties"]["nodeRangeProperties"]
        ]
        body["nodeProperties"] = {**request["nodeProperties"], "nodeRangeProperties": ranges}
    name = request["jobDefinitionName"]
    with batch.lock:
        consumable_operations.properties(batch, request.get("consumableResourceProperties"))
        revisions = batch.definitions.setdefault(name, [])
        revision = len(revisions) + 1
        definition = JobDefinition(
            name=name,
            revision=revision,
            arn=batch.arn("job-definition", f"{name}:{revision}"),
            body=body,
            tags=dict(request.get("tags") or {}),
        )
        revisions.append(definition)
    return {"jobDefinitionName": name, "jobDefinitionArn": definition.arn, "revision": revision}


def deregister_job_definition(batch: Batch, request: Json) -> Json:
    """DeregisterJobDefinition: the revision becomes INACTIVE; jobs that use it go on."""
    with batch.lock:
        found, revision = lookup.revisions(batch, request["jobDefinition"])
        named = [each for each in found if each.revision == revision]
        if not named:
            name = request["jobDefinition"]
            raise ServiceError(f"JobDefinition {name} does not exist: name:revision or ARN is needed")
        named[0].status = "INACTIVE"
    return {}


def describe_job_definitions(batch: Batch, request: Json) -> Json:
    """DescribeJobDefinitions: by name and state, or by a list of up to 100 names with revisions or ARNs."""
    with batch.lock:
        if request.get("jobDefinitions"):
            if len(request["jobDefinitions"]) > PAGE:
                raise ServiceError(f"jobDefinitions must have at most {PAGE} entries")
            found = []
            for name in request["jobDefinitions"]:
                revisions, revision = lookup.revisions(batch, name)
                found += [each for each in revisions if revision in (None, each.revision)]
        elif request.get("jobDefinitionName"):
            found = list(lookup.revisions(batch, request["jobDefinitionName"])[0])
        else:
            found = [each for revisions in batch.definitions.values() for each in revisions]
        if request.get("status"):
            found = [each for each in found if each.status == request["status"]]
        found.sort(key=lambda each: (each.name, -each.revision))
        return _paged("jobDefinitions", found, lambda each: each.arn, describe.job_definition, request)


# --- compute environments -----------------------------------------------------------------------------------------


def create_compute_environment(batch: Batch, request: Json) -> Json:
    """CreateComputeEnvironment: VALID at once."""
    validation.create_compute_environment(request)
    name = request["computeEnvironmentName"]
    arn = batch.arn("compute-environment", name)
    with batch.lock:
        if arn in batch.fleet.environments:
            raise ServiceError(f"Object already exists: ComputeEnvironment {name}")
        if len(batch.fleet.environments) >= MAX_COMPUTE_ENVIRONMENTS:
            raise ServiceError(f"Limit of {MAX_COMPUTE_ENVIRONMENTS} compute environments reached")
        batch.fleet.environments[arn] = ComputeEnvironment(
            name=name,
            arn=arn,
            uuid=str(uuid.uuid4()),
            body={key: value for key, value in request.items() if key not in ("tags", "state")},
            state=request.get("state") or "ENABLED",
            tags=dict(request.get("tags") or {}),
        )
        batch.advance()
    return {"computeEnvironmentName": name, "computeEnvironmentArn": arn}


INFRASTRUCTURE = (
    *("allocationStrategy", "bidPercentage", "ec2Configuration", "ec2KeyPair", "imageId", "instanceRole"),
    *("instanceTypes", "launchTemplate", "placementGroup", "securityGroupIds", "subnets", "tags", "type"),
)
"""Of ``computeResources``, what only new instances have (User Guide, Updating compute environments)."""
JOB_EXECUTION_TIMEOUT_MINUTES = 30
"""How long jobs may go on then, where ``updatePolicy`` does not say (API model, UpdatePolicy)."""


def update_compute_environment(batch: Batch, request: Json) -> Json:
    """UpdateComputeEnvironment. Where instances have to be replaced, it is UPDATING until the old ones have no job."""
    validation.state(request.get("state"))
    with batch.lock:
        environment = lookup.environment(batch, request["computeEnvironment"])
        _refuse_while_updating(environment, "update")
        asked = request.get("computeResources") or {}
        # What the update is to do, not a property of the compute environment.
        changed = {**environment.resources, **{k: v for k, v in asked.items() if k != "updateToLatestImageVersion"}}
        validation.compute_resources(changed)
        replaces = any(changed.get(key) != environment.resources.get(key) for key in INFRASTRUCTURE)
        environment.body = {**environment.body, "computeResources": changed}
        for key in ("serviceRole", "updatePolicy", "context"):
            if request.get(key) is not None:
                environment.body[key] = request[key]
        environment.state = request.get("state") or environment.state
        if replaces and not environment.fargate:
            policy = environment.body.get("updatePolicy") or {}
            minutes = policy.get("jobExecutionTimeoutMinutes", JOB_EXECUTION_TIMEOUT_MINUTES)
            left_s = 0.0 if policy.get("terminateJobsOnUpdate") else batch.context.timing.scaled(60.0 * minutes)
            batch.fleet.replace(environment, batch.now() + left_s)
        batch.advance()
    return {"computeEnvironmentName": environment.name, "computeEnvironmentArn": environment.arn}


def _refuse_while_updating(environment: ComputeEnvironment, verb: str) -> None:
    if environment.jobs_end_at is not None:
        raise ServiceError(f"Cannot {verb}, resource is being modified.")


def delete_compute_environment(batch: Batch, request: Json) -> Json:
    """DeleteComputeEnvironment: it must be DISABLED, and of no queue."""
    with batch.lock:
        environment = lookup.environment(batch, request["computeEnvironment"])
        if environment.state != "DISABLED":
            raise ServiceError("Cannot delete, state must be DISABLED")
        if any(environment.arn in queue.order for queue in batch.scheduler.queues.values()):
            raise ServiceError("Cannot delete, found existing JobQueue relationship")
        _refuse_while_updating(environment, "delete")
        for host in batch.fleet.of(environment):
            batch.scheduler.lose(host, batch.now())
        del batch.fleet.environments[environment.arn]
        batch.advance()
    return {}


def describe_compute_environments(batch: Batch, request: Json) -> Json:
    """DescribeComputeEnvironments."""

    def shown(of: ComputeEnvironment) -> Json:
        cluster = f"arn:aws:ecs:{batch.region}:{batch.context.account}:cluster/{of.name}_Batch_{of.uuid}"
        desired = sum(host.vcpus for host in batch.fleet.of(of))
        entry = describe.compute_environment(of, cluster)
        if not of.fargate:
            entry["computeResources"] = {**of.resources, "desiredvCpus": int(desired)}
        return entry

    with batch.lock:
        names = request.get("computeEnvironments")
        found = _named(batch.fleet.environments.values(), names, lambda each: (each.name, each.arn))
        return _paged("computeEnvironments", found, lambda each: each.arn, shown, request)


# --- job queues ---------------------------------------------------------------------------------------------------


def create_job_queue(batch: Batch, request: Json) -> Json:
    """CreateJobQueue: VALID at once."""
    validation.job_queue(request)
    name = request["jobQueueName"]
    arn = batch.arn("job-queue", name)
    with batch.lock:
        if arn in batch.scheduler.queues:
            raise ServiceError(f"Object already exists: JobQueue {name}")
        if len(batch.scheduler.queues) >= MAX_QUEUES:
            raise ServiceError(f"Limit of {MAX_QUEUES} job queues reached")
        policy = request.get("schedulingPolicyArn")
        if policy is not None:
            lookup.policy(batch, policy)
        batch.scheduler.queues[arn] = JobQueue(
            name=name,
            arn=arn,
            priority=request["priority"],
            order=_order(batch, request["computeEnvironmentOrder"]),
            body=_given(request, "jobStateTimeLimitActions", "jobQueueType"),
            state=request.get("state") or "ENABLED",
            policy_arn=policy,
            tags=dict(request.get("tags") or {}),
        )
    return {"jobQueueName": name, "jobQueueArn": arn}


def update_job_queue(batch: Batch, request: Json) -> Json:
    """UpdateJobQueue."""
    with batch.lock:
        queue = lookup.queue(batch, request["jobQueue"])
        current = [{"order": i, "computeEnvironment": arn} for i, arn in enumerate(queue.order)]
        order = request.get("computeEnvironmentOrder") or current
        priority = request.get("priority", queue.priority)
        checked = {
            **_given(request, "state", "jobStateTimeLimitActions"),
            "jobQueueName": queue.name,
            "priority": priority,
            "computeEnvironmentOrder": order,
        }
        validation.job_queue(checked)
        policy = request.get("schedulingPolicyArn")
        if policy is not None:
            lookup.policy(batch, policy)
            if queue.policy_arn is None:
                raise ServiceError(f"JobQueue {queue.name} was made without a scheduling policy and can never have one")
            queue.policy_arn = policy
        queue.order = _order(batch, order)
        queue.priority = priority
        queue.state = request.get("state") or queue.state
        if "jobStateTimeLimitActions" in request:
            queue.body["jobStateTimeLimitActions"] = request["jobStateTimeLimitActions"]
        batch.advance()
    return {"jobQueueName": queue.name, "jobQueueArn": queue.arn}


def delete_job_queue(batch: Batch, request: Json) -> Json:
    """DeleteJobQueue: it must be DISABLED; its jobs are terminated."""
    with batch.lock:
        queue = lookup.queue(batch, request["jobQueue"])
        if queue.state != "DISABLED":
            raise ServiceError("Cannot delete, state must be DISABLED")
        for job in lookup.not_done(batch, queue):
            if job.parent is None:
                batch.scheduler.terminate(job, f"JobQueue {queue.name} was deleted", batch.now())
        batch.advance()
        del batch.scheduler.queues[queue.arn]
    return {}


def describe_job_queues(batch: Batch, request: Json) -> Json:
    """DescribeJobQueues."""
    with batch.lock:
        found = _named(batch.scheduler.queues.values(), request.get("jobQueues"), lambda each: (each.name, each.arn))
        return _paged("jobQueues", found, lambda each: each.arn, describe.job_queue, request)


def _order(batch: Batch, entries: list[Json]) -> list[str]:
    environments = [
        lookup.environment(batch, entry["computeEnvironment"])
        for entry in sorted(entries, key=lambda entry: int(entry["order"]))
    ]
    if len({environment.fargate for environment in environments}) > 1:
        raise ServiceError("A job queue cannot mix EC2 and Fargate compute environments")
    kinds = set().union(*(validation.architectures(environment.resources) for environment in environments))
    if len(kinds) > 1:
        raise ServiceError("A job queue cannot mix compute environments of several architectures")
    return [environment.arn for environment in environments]


# --- scheduling policies ------------------------------------------------------------------------------------------


def create_scheduling_policy(batch: Batch, request: Json) -> Json:
    """CreateSchedulingPolicy."""
    validation.resource_name("name", request["name"])
    validation.tags(request.get("tags"))
    arn = batch.arn("scheduling-policy", request["name"])
    with batch.lock:
        if arn in batch.fleet.policies:
            raise ServiceError(f"Object already exists: SchedulingPolicy {request['name']}")
        batch.fleet.policies[arn] = SchedulingPolicy(
            name=request["name"],
            arn=arn,
            fairshare=request.get("fairsharePolicy") or {},
            tags=dict(request.get("tags") or {}),
        )
    return {"name": request["name"], "arn": arn}


def update_scheduling_policy(batch: Batch, request: Json) -> Json:
    """UpdateSchedulingPolicy."""
    with batch.lock:
        lookup.policy(batch, request["arn"]).fairshare = request.get("fairsharePolicy") or {}
        batch.advance()
    return {}


def delete_scheduling_policy(batch: Batch, request: Json) -> Json:
    """DeleteSchedulingPolicy: no queue may use it."""
    with batch.lock:
        policy = lookup.policy(batch, request["arn"])
        if any(queue.policy_arn == policy.arn for queue in batch.scheduler.queues.values()):
            raise ServiceError(f"Cannot delete, SchedulingPolicy {policy.name} is used by a job queue")
        del batch.fleet.policies[policy.arn]
    return {}


def describe_scheduling_policies(batch: Batch, request: Json) -> Json:
    """DescribeSchedulingPolicies."""
    with batch.lock:
        found = [batch.fleet.policies[arn] for arn in request["arns"] if arn in batch.fleet.policies]
        return {"schedulingPolicies": [describe.scheduling_policy(each) for each in found]}


def list_scheduling_policies(batch: Batch, request: Json) -> Json:
    """ListSchedulingPolicies."""
    with batch.lock:
        found = list(batch.fleet.policies.values())
        return _paged("schedulingPolicies", found, lambda each: each.arn, lambda each: {"arn": each.arn}, request)


# --- tags ---------------------------------------------------------------------------------------------------------


def tag_resource(batch: Batch, request: Json) -> Json:
    """TagResource."""
    with batch.lock:
        tags = _tags(batch, request["resourceArn"])
        validation.tags({**tags, **request["tags"]})
        tags.update(request["tags"])
    return {}


def untag_resource(batch: Batch, request: Json) -> Json:
    """UntagResource."""
    with batch.lock:
        tags = _tags(batch, request["resourceArn"])
        for key in request["tagKeys"]:
            tags.pop(key, None)
    return {}


def list_tags_for_resource(batch: Batch, request: Json) -> Json:
    """ListTagsForResource."""
    with batch.lock:
        return {"tags": dict(_tags(batch, request["resourceArn"]))}


def _tags(batch: Batch, arn: str) -> dict[str, str]:
    job = batch.scheduler.jobs.get(arn.split(":job/", 1)[-1])
    if job is not None and job.parent is not None:
        raise ServiceError(f"{arn} is an array's child or a node: tags are not supported")
    if job is not None:
        return job.tags
    for found in (
        batch.scheduler.queues.get(arn),
        batch.fleet.environments.get(arn),
        batch.fleet.policies.get(arn),
        batch.fleet.consumables.get(arn),
        next((each for many in batch.definitions.values() for each in many if each.arn == arn), None),
    ):
        if found is not None:
            tags: dict[str, str] = found.tags
            return tags
    raise ServiceError(f"Resource {arn} does not exist")


def _given(request: Json, *keys: str) -> Json:
    return {key: request[key] for key in keys if key in request}


# --- lists --------------------------------------------------------------------------------------------------------


def _named(items: Iterable[Item], names: list[str] | None, keys: Callable[[Item], tuple[str, str]]) -> list[Item]:
    everything = list(items)
    return everything if not names else [each for each in everything if set(keys(each)) & set(names)]


def _paged(
    field: str, items: list[Item], key: Callable[[Item], str], shape: Callable[[Item], Json], request: Json
) -> Json:
    limit = min(request.get("maxResults") or PAGE, PAGE)
    shown, token = lookup.page(items, key, limit, request.get("nextToken"))
    return present(**{field: [shape(each) for each in shown]}, nextToken=token)
