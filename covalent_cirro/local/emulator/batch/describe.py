"""The shapes in which AWS Batch shows jobs, definitions, queues and others. Pure: no lookups, no clock."""

from __future__ import annotations

from typing import Any

from covalent_cirro.local.emulator.batch.model import (
    NODE_ADDRESS,
    STATES,
    Attempt,
    ComputeEnvironment,
    Job,
    JobDefinition,
    JobQueue,
    Json,
    SchedulingPolicy,
    epoch_ms,
)


def present(**values: Any) -> Json:
    """The values that are not `None`."""
    return {key: value for key, value in values.items() if value is not None}


def container_properties(given: Json) -> Json:
    """The container of a definition: a list that was not given is empty."""
    lists = ("command", "volumes", "environment", "mountPoints", "ulimits", "resourceRequirements", "secrets")
    return {**{key: [] for key in lists}, **given}


def attempt(of: Attempt) -> Json:
    """One entry of ``attempts``: an attempt that ended."""
    container = present(
        exitCode=of.exit_code,
        reason=of.reason,
        logStreamName=of.log_stream if of.started_at is not None else None,
        taskArn=of.task_arn,
        containerInstanceArn=None if of.host.single_use else of.host.arn,
        networkInterfaces=[],
    )
    return present(
        container=container,
        startedAt=epoch_ms(of.started_at),
        stoppedAt=epoch_ms(of.stopped_at),
        statusReason=of.status_reason,
        taskProperties=[],
    )


def array_properties(of: Job) -> Json | None:
    """``arrayProperties`` of a parent or a child."""
    if of.array_size is not None:
        return present(
            statusSummary={state: of.summary[state] for state in STATES},
            size=of.array_size,
            statusSummaryLastUpdatedAt=epoch_ms(of.summary_at),
        )
    return None if of.array_index is None else {"index": of.array_index}


def network_interfaces(of: Job) -> list[Json] | None:
    """``networkInterfaces`` of a node, which has one of its own (API model, NetworkInterface), or `None`."""
    return None if of.node_index is None else [{"privateIpv4Address": NODE_ADDRESS}]


def node_summary(of: Job) -> Json | None:
    """``nodeProperties`` of a node, or of its job, in ListJobs."""
    if of.node_properties is not None:
        return {"numNodes": of.node_properties["numNodes"]}
    if of.node_index is None or of.parent is None:
        return None
    return {"isMainNode": of.is_main_node, "numNodes": len(of.parent.nodes), "nodeIndex": of.node_index}


def job(of: Job) -> Json:
    """One entry of DescribeJobs."""
    container = None if of.nodes else {**of.container}
    last = of.last_attempt
    if last is not None and container is not None:
        container.update(
            present(
                exitCode=last.exit_code,
                reason=last.reason,
                taskArn=last.task_arn,
                containerInstanceArn=None if last.host.single_use else last.host.arn,
                logStreamName=last.log_stream if last.started_at is not None else None,
                instanceType=None if of.node_index is None else last.host.instance_type,
                networkInterfaces=network_interfaces(of),
            )
        )
    return present(
        jobArn=of.arn,
        jobName=of.name,
        jobId=of.id,
        jobQueue=of.queue.arn,
        status=of.status,
        statusReason=of.status_reason,
        shareIdentifier=of.share,
        schedulingPriority=of.scheduling_priority,
        attempts=[attempt(each) for each in of.attempts],
        createdAt=epoch_ms(of.created_at),
        retryStrategy=of.retry,
        startedAt=epoch_ms(of.started_at),
        stoppedAt=epoch_ms(of.stopped_at),
        dependsOn=of.depends_on,
        jobDefinition=of.definition.arn,
        parameters=of.parameters,
        container=container,
        arrayProperties=array_properties(of),
        nodeProperties=of.node_properties,
        nodeDetails=None if of.node_index is None else {"nodeIndex": of.node_index, "isMainNode": of.is_main_node},
        timeout=None if of.timeout_s is None else {"attemptDurationSeconds": of.timeout_s},
        tags=of.tags,
        propagateTags=of.propagate_tags,
        platformCapabilities=of.definition.body.get("platformCapabilities", ["EC2"]),
        consumableResourceProperties=of.definition.body.get("consumableResourceProperties"),
        eksAttempts=[],
        isCancelled=of.cancelled,
        isTerminated=of.terminated,
    )


def job_summary(of: Job) -> Json:
    """One entry of ListJobs."""
    last = of.last_attempt
    return present(
        jobArn=of.arn,
        jobId=of.id,
        jobName=of.name,
        createdAt=epoch_ms(of.created_at),
        status=of.status,
        statusReason=of.status_reason,
        startedAt=epoch_ms(of.started_at),
        stoppedAt=epoch_ms(of.stopped_at),
        container=None if last is None else present(exitCode=last.exit_code, reason=last.reason),
        arrayProperties=array_properties(of),
        nodeProperties=node_summary(of),
        jobDefinition=of.definition.arn,
        shareIdentifier=of.share,
        isCancelled=True if of.cancelled else None,
        isTerminated=True if of.terminated else None,
    )


def job_definition(of: JobDefinition) -> Json:
    """One entry of DescribeJobDefinitions."""
    return {
        **of.body,
        "jobDefinitionArn": of.arn,
        "revision": of.revision,
        "status": of.status,
        "tags": of.tags,
        "containerOrchestrationType": "ECS",
    }


def compute_environment(of: ComputeEnvironment, cluster_arn: str) -> Json:
    """One entry of DescribeComputeEnvironments."""
    return {
        **of.body,
        "computeEnvironmentArn": of.arn,
        "ecsClusterArn": cluster_arn,
        "state": of.state,
        "status": of.status,
        "statusReason": of.status_reason,
        "tags": of.tags,
        "uuid": of.uuid,
        "containerOrchestrationType": "ECS",
    }


def job_queue(of: JobQueue) -> Json:
    """One entry of DescribeJobQueues."""
    return present(
        jobQueueName=of.name,
        jobQueueArn=of.arn,
        state=of.state,
        schedulingPolicyArn=of.policy_arn,
        status=of.status,
        statusReason="JobQueue Healthy",
        priority=of.priority,
        computeEnvironmentOrder=[
            {"order": order, "computeEnvironment": arn} for order, arn in enumerate(of.order, start=1)
        ],
        serviceEnvironmentOrder=[],
        jobQueueType=of.body.get("jobQueueType"),
        tags=of.tags,
        jobStateTimeLimitActions=of.body.get("jobStateTimeLimitActions", []),
    )


def scheduling_policy(of: SchedulingPolicy) -> Json:
    """One entry of DescribeSchedulingPolicies."""
    return {"name": of.name, "arn": of.arn, "fairsharePolicy": of.fairshare, "tags": of.tags}
