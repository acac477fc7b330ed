"""Operations of ECS on services and tasks."""

from __future__ import annotations

import re

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.moto_internals import moto_elb
from covalent_cirro.local.emulator.serving import descriptions
from covalent_cirro.local.emulator.serving.definition_operations import cluster_named, definition_named
from covalent_cirro.local.emulator.serving.ecs import Ecs
from covalent_cirro.local.emulator.serving.service_model import (
    BY_USER,
    IN_PROGRESS,
    Cluster,
    Deployment,
    Service,
    ServiceTask,
    TaskDefinition,
)

SERVICE_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""API Reference, CreateService.serviceName."""
MAX_DESCRIBED = 10
"""API Reference, DescribeServices.services."""
MAX_TASKS = 100
"""API Reference, DescribeTasks.tasks."""
NEW_DEPLOYMENT = ("taskDefinition", "networkConfiguration", "loadBalancers", "platformVersion", "enableExecuteCommand")
"""A service of which one of these changes gets a new deployment (API Reference, UpdateService)."""


def invalid(text: str) -> ServiceError:
    """A parameter of a request is wrong."""
    return ServiceError(text, code="InvalidParameterException")


def service_named(cluster: Cluster, name: str) -> Service:
    """A service of a cluster, by name or ARN.

    Raises:
        ServiceError: There is none, or it was deleted.
    """
    found = cluster.services.get(name.rpartition("/")[2])
    if found is None:
        raise ServiceError("Service not found.", code="ServiceNotFoundException")
    if found.status != "ACTIVE":
        raise ServiceError("Service was not ACTIVE.", code="ServiceNotActiveException")
    return found


# --- services -------------------------------------------------------------------------------------------------------


def create_service(ecs: Ecs, request: Json) -> Json:
    """CreateService."""
    name = request["serviceName"]
    if not SERVICE_NAME.fullmatch(name):
        raise invalid("Service name contains invalid characters.")
    cluster = cluster_named(ecs, request.get("cluster"))
    known = cluster.services.get(name)
    if known is not None and known.status != "INACTIVE":
        if known.status == "DRAINING":
            raise invalid("Unable to Start a service that is still Draining.")
        raise invalid("Creation of service was not idempotent.")
    if (request.get("schedulingStrategy") or "REPLICA") != "REPLICA":
        raise invalid("the emulator has no scheduling strategy but REPLICA")
    if (request.get("deploymentController") or {}).get("type", "ECS") != "ECS":
        raise invalid("the emulator has no deployment controller but ECS")
    definition = _definition(ecs, request.get("taskDefinition"))
    body = {"desiredCount": 0, **request}
    _check(ecs, body, definition)
    arn = ecs.arn("service", f"{cluster.name}/{name}")
    made = cluster.services[name] = Service(name, arn, cluster, body, ecs.now())
    _deploy(ecs, made, definition)
    return {"service": descriptions.service(made)}


def update_service(ecs: Ecs, request: Json) -> Json:
    """UpdateService."""
    found = service_named(cluster_named(ecs, request.get("cluster")), request["service"])
    new = {key: value for key, value in request.items() if key not in ("cluster", "service", "forceNewDeployment")}
    body = {**found.body, **new}
    current = found.primary.task_definition
    definition = _definition(ecs, new["taskDefinition"]) if "taskDefinition" in new else current
    _check(ecs, body, definition)
    before = {**found.body, "taskDefinition": current.arn}
    now = {**body, "taskDefinition": definition.arn}
    replaced = request.get("forceNewDeployment") or any(before.get(key) != now.get(key) for key in NEW_DEPLOYMENT)
    found.body = body
    if replaced:
        _deploy(ecs, found, definition)
    else:
        found.primary.updated_at, found.steady = ecs.now(), False
        ecs.changed()
    return {"service": descriptions.service(found)}


def _definition(ecs: Ecs, name: str | None) -> TaskDefinition:
    if not name:
        raise invalid("TaskDefinition should not be null or empty.")
    try:
        found = definition_named(ecs, name)
    except ServiceError:
        raise ServiceError("TaskDefinition not found.") from None
    if found.status != "ACTIVE":
        raise ServiceError("TaskDefinition is inactive")
    return found


def _check(ecs: Ecs, body: Json, definition: TaskDefinition) -> None:
    """What a service refers to must exist, and belong together.

    Raises:
        ServiceError: It does not.
    """
    if definition.body.get("networkMode") == "awsvpc" and not body.get("networkConfiguration"):
        raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    container = definition.container
    ports = {int(each["containerPort"]) for each in container.get("portMappings") or []}
    for balancer in body.get("loadBalancers") or []:
        group = balancer.get("targetGroupArn")
        if not group:
            raise invalid("the emulator has load balancers with target groups only")
        if balancer.get("containerName") != container["name"]:
            raise invalid(f"The container {balancer.get('containerName')} does not exist in the task definition.")
        if int(balancer.get("containerPort") or 0) not in ports:
            raise invalid(
                f"The container {container['name']} did not have a container port {balancer.get('containerPort')} "
                "defined."
            )
        where = (ecs.context.account, ecs.region)
        if not moto_elb.has_group(*where, group):
            raise invalid(f"Unable to assume role and validate the specified targetGroupArn {group}: not found")
        if not moto_elb.balancers_of(*where, group):
            raise invalid(f"The target group with targetGroupArn {group} does not have an associated load balancer.")


def _deploy(ecs: Ecs, service: Service, definition: TaskDefinition) -> None:
    """Begin a new deployment of a service."""
    now = ecs.now()
    made = Deployment(definition, service.body.get("networkConfiguration") or {}, now, now)
    made.rollout_reason = f"ECS deployment {made.id} in progress."
    for each in service.deployments:
        each.status = "ACTIVE"
    if service.deployments and service.primary.rollout_state == IN_PROGRESS:
        service.primary.rollout_reason = f"ECS deployment {service.primary.id} was replaced."
    service.deployments = [made, *service.deployments]
    service.latest = made
    service.failures, service.start_after, service.steady = 0, 0.0, False
    ecs.changed()


def delete_service(ecs: Ecs, request: Json) -> Json:
    """DeleteService."""
    found = service_named(cluster_named(ecs, request.get("cluster")), request["service"])
    if found.desired and not request.get("force"):
        raise invalid("The service cannot be stopped while it is scaled above 0.")
    found.status = "DRAINING"
    found.body = {**found.body, "desiredCount": 0}
    ecs.changed()
    return {"service": descriptions.service(found)}


def describe_services(ecs: Ecs, request: Json) -> Json:
    """DescribeServices."""
    cluster = cluster_named(ecs, request.get("cluster"))
    asked = request["services"]
    if len(asked) > MAX_DESCRIBED:
        raise invalid(f"Services cannot have more than {MAX_DESCRIBED} elements.")
    found, failures = [], []
    for name in asked:
        service = cluster.services.get(name.rpartition("/")[2])
        if service is None:
            arn = ecs.arn("service", f"{cluster.name}/{name.rpartition('/')[2]}")
            failures.append({"arn": arn, "reason": "MISSING"})
            continue
        tags = {"tags": service.body.get("tags") or []} if "TAGS" in (request.get("include") or []) else {}
        found.append({**descriptions.service(service), **tags})
    return {"services": found, "failures": failures}


def list_services(ecs: Ecs, request: Json) -> Json:
    """ListServices, on one page."""
    services = cluster_named(ecs, request.get("cluster")).services.values()
    return {"serviceArns": [each.arn for each in services if each.status == "ACTIVE"]}


# --- tasks ----------------------------------------------------------------------------------------------------------


def _tasks(cluster: Cluster) -> list[tuple[str, ServiceTask]]:
    running = [(service.name, task) for service in cluster.services.values() for task in service.tasks]
    return [*running, *cluster.stopped]


def list_tasks(ecs: Ecs, request: Json) -> Json:
    """ListTasks, on one page."""
    status = request.get("desiredStatus") or "RUNNING"
    service = (request.get("serviceName") or "").rpartition("/")[2]
    family, started_by = request.get("family"), request.get("startedBy")
    found = [
        task.arn
        for name, task in _tasks(cluster_named(ecs, request.get("cluster")))
        if task.desired_status == status
        and service in ("", name)
        and family in (None, task.deployment.task_definition.family)
        and started_by in (None, task.deployment.id)
    ]
    return {"taskArns": found}


def describe_tasks(ecs: Ecs, request: Json) -> Json:
    """DescribeTasks."""
    cluster = cluster_named(ecs, request.get("cluster"))
    if len(request["tasks"]) > MAX_TASKS:
        raise invalid(f"Tasks cannot have more than {MAX_TASKS} elements.")
    known = {task.id: (name, task) for name, task in _tasks(cluster)}
    found, failures = [], []
    for asked in request["tasks"]:
        task_id = asked.rpartition("/")[2]
        if task_id not in known:
            failures.append({"arn": ecs.arn("task", f"{cluster.name}/{task_id}"), "reason": "MISSING"})
            continue
        name, task = known[task_id]
        # The emulator has no health checks of containers: those of targets are Elastic Load Balancing's to tell.
        found.append(descriptions.task(task, name, cluster.arn, "UNKNOWN"))
    return {"tasks": found, "failures": failures}


def stop_task(ecs: Ecs, request: Json) -> Json:
    """StopTask."""
    cluster = cluster_named(ecs, request.get("cluster"))
    task_id = request["task"].rpartition("/")[2]
    for name, task in _tasks(cluster):
        if task.id == task_id:
            task.ask_to_stop(ecs.now(), BY_USER, request.get("reason") or "Task stopped by user")
            ecs.changed()
            return {"task": descriptions.task(task, name, cluster.arn, "UNKNOWN")}
    raise invalid("The referenced task was not found.")
