"""The form in which ECS describes clusters, task definitions, services and tasks. Pure."""

from __future__ import annotations

from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.serving.service_model import (
    Cluster,
    Deployment,
    Service,
    ServiceTask,
    TaskDefinition,
)

HOST = "127.0.0.1"
"""Address of every task."""


def cluster(found: Cluster) -> Json:
    """A cluster, as CreateCluster and DescribeClusters have it."""
    tasks = [task for service in found.services.values() for task in service.tasks]
    return {
        "clusterArn": found.arn,
        "clusterName": found.name,
        "status": found.status,
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": sum(task.last_status == "RUNNING" for task in tasks),
        "pendingTasksCount": sum(task.last_status in ("PROVISIONING", "PENDING") for task in tasks),
        "activeServicesCount": sum(service.status == "ACTIVE" for service in found.services.values()),
        "statistics": [],
        "tags": found.body.get("tags") or [],
        "settings": found.body.get("settings") or [{"name": "containerInsights", "value": "disabled"}],
        "capacityProviders": found.body.get("capacityProviders") or [],
        "defaultCapacityProviderStrategy": found.body.get("defaultCapacityProviderStrategy") or [],
    }


def task_definition(found: TaskDefinition) -> Json:
    """A revision of a task definition."""
    container = {
        "cpu": 0,
        "portMappings": [],
        "essential": True,
        "environment": [],
        "mountPoints": [],
        "volumesFrom": [],
        **found.container,
    }
    container["portMappings"] = [
        {"hostPort": each["containerPort"], "protocol": "tcp", **each} for each in container["portMappings"]
    ]
    body = {key: value for key, value in found.body.items() if key != "tags"}
    return _given(
        {
            **body,
            "containerDefinitions": [container],
            "taskDefinitionArn": found.arn,
            "family": found.family,
            "revision": found.revision,
            "status": found.status,
            "volumes": body.get("volumes") or [],
            "placementConstraints": body.get("placementConstraints") or [],
            "compatibilities": ["EC2", *(["FARGATE"] if "cpu" in body and "memory" in body else [])],
            "registeredAt": found.registered_at,
            "deregisteredAt": found.deregistered_at,
        }
    )


def deployment(of: Deployment, service: Service) -> Json:
    """A deployment of a service."""
    tasks = service.of(of)
    running = sum(task.last_status == "RUNNING" for task in tasks)
    return {
        "id": of.id,
        "status": of.status,
        "taskDefinition": of.task_definition.arn,
        "desiredCount": service.desired if of.status == "PRIMARY" else 0,
        "pendingCount": len(tasks) - running,
        "runningCount": running,
        "failedTasks": of.failed,
        "createdAt": of.created_at,
        "updatedAt": of.updated_at,
        "launchType": service.body.get("launchType") or "FARGATE",
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "networkConfiguration": of.network,
        "rolloutState": of.rollout_state,
        "rolloutStateReason": of.rollout_reason,
    }


def service(found: Service) -> Json:
    """A service, as CreateService and DescribeServices have it."""
    body = found.body
    active = [task for task in found.tasks if task.active]
    running = sum(task.last_status == "RUNNING" for task in found.tasks)
    return _given(
        {
            "serviceArn": found.arn,
            "serviceName": found.name,
            "clusterArn": found.cluster.arn,
            "loadBalancers": body.get("loadBalancers") or [],
            "serviceRegistries": [],
            "status": found.status,
            "desiredCount": found.desired,
            "runningCount": running,
            "pendingCount": sum(task.last_status != "RUNNING" for task in active),
            "launchType": body.get("launchType") or "FARGATE",
            "platformVersion": body.get("platformVersion") or "LATEST",
            "platformFamily": "Linux",
            "taskDefinition": found.primary.task_definition.arn,
            "deploymentConfiguration": {
                "deploymentCircuitBreaker": found.breaker,
                "maximumPercent": found.percent("maximumPercent"),
                "minimumHealthyPercent": found.percent("minimumHealthyPercent"),
            },
            "deployments": [deployment(each, found) for each in found.deployments],
            "events": found.events,
            "createdAt": found.created_at,
            "placementConstraints": [],
            "placementStrategy": [],
            "networkConfiguration": found.primary.network,
            "healthCheckGracePeriodSeconds": body.get("healthCheckGracePeriodSeconds"),
            "schedulingStrategy": "REPLICA",
            "deploymentController": {"type": "ECS"},
            "enableECSManagedTags": bool(body.get("enableECSManagedTags")),
            "propagateTags": body.get("propagateTags") or "NONE",
            "enableExecuteCommand": bool(body.get("enableExecuteCommand")),
            "availabilityZoneRebalancing": body.get("availabilityZoneRebalancing") or "DISABLED",
        }
    )


def task(found: ServiceTask, service_name: str, cluster_arn: str, health: str) -> Json:
    """A task, as DescribeTasks has it.

    Args:
        health: ``HEALTHY``, ``UNHEALTHY`` or ``UNKNOWN``, of the container.
    """
    definition = found.deployment.task_definition
    container_definition = definition.container
    container = _given(
        {
            "containerArn": f"{found.arn.replace(':task/', ':container/')}/{found.eni}",
            "taskArn": found.arn,
            "name": container_definition["name"],
            "image": container_definition["image"],
            "lastStatus": {"PROVISIONING": "PENDING", "DEACTIVATING": "RUNNING"}.get(
                found.last_status, found.last_status
            ),
            "exitCode": found.exit_code,
            "reason": found.container_reason,
            "networkBindings": [],
            "networkInterfaces": [{"attachmentId": found.eni, "privateIpv4Address": HOST}],
            "healthStatus": health,
            "cpu": str(container_definition.get("cpu") or 0),
        }
    )
    subnets = (found.deployment.network.get("awsvpcConfiguration") or {}).get("subnets") or []
    details = [{"name": "subnetId", "value": each} for each in subnets[:1]]
    return _given(
        {
            "attachments": [
                {
                    "id": found.eni,
                    "type": "ElasticNetworkInterface",
                    "status": "DELETED" if found.last_status == "STOPPED" else "ATTACHED",
                    "details": [*details, {"name": "privateIPv4Address", "value": HOST}],
                }
            ],
            "taskArn": found.arn,
            "clusterArn": cluster_arn,
            "taskDefinitionArn": definition.arn,
            "containers": [container],
            "cpu": definition.body.get("cpu"),
            "memory": definition.body.get("memory"),
            "createdAt": found.created_at,
            "startedAt": found.started_at,
            "stoppingAt": found.stopping_at,
            "stoppedAt": found.stopped_at,
            "stopCode": found.stop_code,
            "stoppedReason": found.stopped_reason,
            "desiredStatus": found.desired_status,
            "lastStatus": found.last_status,
            "healthStatus": health,
            "group": f"service:{service_name}",
            "startedBy": found.deployment.id,
            "launchType": "FARGATE",
            "platformVersion": "1.4.0",
            "platformFamily": "Linux",
            "connectivity": "CONNECTED",
            "version": 1,
        }
    )


def _given(values: dict[str, Any]) -> Json:
    """Without what has no value."""
    return {key: value for key, value in values.items() if value is not None}
