"""Reads the state of a deployment's services: tasks, targets, versions, requests and latency. It changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment import plans, stacks
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import AccessDenied, NotFound, ServingError
from covalent_cirro.serving import service_values, task_ends

MODEL_VARIABLE = "CIRRO_MODEL"
"""Variable in a task's environment with the place of its model (``infra/serving.yaml``)."""

TRAFFIC_S = 3600
"""Seconds of the past for which requests are counted."""

PERIOD_S = 300
"""Seconds of a point of a metric. CloudWatch keeps finer ones for 15 days only, and percentiles cannot be added up."""


class RunningTask(NamedTuple):
    """A task of a service.

    Attributes:
        task_id: Id of the task.
        zone: Its availability zone.
        status: ECS's status, ``"RUNNING"``.
        started_at: When it began to run, in epoch seconds; `None` before that.
        image: URI of its image.
        model: Model that it serves, NAME/VERSION; empty where it serves none.
        is_new: Whether it has the task definition that the service is to have.
    """

    task_id: str
    zone: str
    status: str
    started_at: float | None
    image: str
    model: str
    is_new: bool


class TargetState(NamedTuple):
    """A target of the load balancer: its address, its state (``"healthy"``), and why, in ELB's words."""

    address: str
    state: str
    reason: str


class Traffic(NamedTuple):
    """What a load balancer counted in the last hour.

    Attributes:
        requests: Requests.
        errors: Answers of 500 and more, of the tasks and of the load balancer itself.
        p50_s: Median latency of the last `PERIOD_S` seconds with requests, in seconds; `None` without requests.
        p99_s: The latency that 99 of 100 requests do not exceed.
        capacity_units: Capacity units that it used an hour; `None` where CloudWatch does not say.
    """

    requests: int
    errors: int
    p50_s: float | None
    p99_s: float | None
    capacity_units: float | None


class RunningService(NamedTuple):
    """The state of a service.

    Attributes:
        name: Name of the service.
        stack: Its stack.
        url: Where its load balancer answers; empty where the stack has none yet.
        desired, running, pending: Numbers of its tasks.
        rollout: ECS's state of the last change, ``"COMPLETED"``, with its reason.
        tasks: Its tasks.
        targets: Targets of its load balancer.
        traffic: What the load balancer counted; `None` where CloudWatch may not be asked.
        last_message: ECS's last message about it.
    """

    name: str
    stack: Stack
    url: str = ""
    desired: int = 0
    running: int = 0
    pending: int = 0
    rollout: str = ""
    tasks: tuple[RunningTask, ...] = ()
    targets: tuple[TargetState, ...] = ()
    traffic: Traffic | None = None
    last_message: str = ""

    @property
    def healthy(self) -> int:
        """How many targets are healthy."""
        return sum(each.state == "healthy" for each in self.targets)

    @property
    def target_counts(self) -> Counter[str]:
        """How many targets are in which state."""
        return Counter(each.state for each in self.targets)


# --- stacks -----------------------------------------------------------------------------------------------------------


def find_all(clients: Clients, deployment: str) -> dict[str, Stack]:
    """The stacks of all services of a deployment, by name of the service.

    Raises:
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    found = {}
    for stack in stacks.all_beginning_with(clients("cloudformation"), plans.services_prefix(deployment)):
        name = service_values.service_name(deployment, stack.name)
        if name is not None and stack.parameters.get(plans.NAME_PARAMETER) == deployment:
            found[name] = stack
    return dict(sorted(found.items()))


def choose(clients: Clients, deployment: str, name: str | None) -> tuple[str, Stack]:
    """Name and stack of a service; without a name, of the only one.

    Raises:
        ServingError: It does not exist; or there are several, and none is named.
        StackError: The stack is not one of covalent-cirro.
    """
    if name is not None:
        stack = stacks.find(clients("cloudformation"), service_values.stack_name(deployment, name))
        if stack is not None:
            stacks.require_ours(stack)
            return name, stack
    found = find_all(clients, deployment)
    there = f"it has {', '.join(found)}" if found else "it has none"
    if name is not None:
        raise ServingError(f"the deployment {deployment!r} has no service {name!r}: {there}. {_MAKE}")
    if len(found) != 1:
        raise ServingError(
            f"the deployment {deployment!r} has several services: {', '.join(found)}. Say which."
            if found
            else f"the deployment {deployment!r} has no service. {_MAKE}"
        )
    return next(iter(found.items()))


_MAKE = "`cirro serve deploy` makes one."


# --- one service ------------------------------------------------------------------------------------------------------


def look(
    clients: Clients, name: str, stack: Stack, *, now: Callable[[], float] = time.time, with_traffic: bool = True
) -> RunningService:
    """Read the state of a service.

    Args:
        clients: Clients of the account.
        name: Name of the service.
        stack: Its stack.
        now: The time, in epoch seconds.
        with_traffic: Ask CloudWatch for requests and latency.

    Raises:
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    outputs = stack.outputs
    if "ClusterName" not in outputs:
        return RunningService(name, stack)
    seen = RunningService(name, stack, url=outputs["Url"], targets=targets(clients, outputs["TargetGroup"]))
    described = describe(clients, outputs)
    if described is not None:
        newest: list[dict[str, Any]] = [each for each in described["deployments"] if each.get("status") == "PRIMARY"]
        primary = newest[0] if newest else {}
        rollout = " ".join(str(primary.get(key) or "") for key in ("rolloutState", "rolloutStateReason")).strip()
        messages = described.get("events") or [{}]
        seen = seen._replace(
            desired=int(described.get("desiredCount") or 0),
            running=int(described.get("runningCount") or 0),
            pending=int(described.get("pendingCount") or 0),
            rollout=rollout,
            tasks=_tasks(clients, outputs, str(described.get("taskDefinition") or "")),
            last_message=str(messages[0].get("message") or ""),
        )
    if with_traffic and outputs.get("LoadBalancer"):
        seen = seen._replace(traffic=_traffic(clients, outputs, now()))
    return seen


def describe(clients: Clients, outputs: Mapping[str, str]) -> dict[str, Any] | None:
    """ECS's description of a service; `None` where there is none.

    Args:
        clients: Clients of the account.
        outputs: Outputs of the service's stack.
    """
    cluster, service = outputs["ClusterName"], outputs["ServiceName"]
    try:
        with clients.asking("ecs:DescribeServices", of=service) as ecs:
            found: list[dict[str, Any]] = ecs.describe_services(cluster=cluster, services=[service])["services"]
    except NotFound:
        return None
    return found[0] if found and found[0].get("status") != "INACTIVE" else None


def targets(clients: Clients, group: str) -> tuple[TargetState, ...]:
    """The targets of a load balancer.

    Args:
        clients: Clients of the account.
        group: ARN of the target group.
    """
    with clients.asking("elasticloadbalancing:DescribeTargetHealth", of=group) as elb:
        found = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    return tuple(
        TargetState(
            f"{each['Target']['Id']}:{each['Target'].get('Port', '')}",
            str(each["TargetHealth"].get("State") or ""),
            str(each["TargetHealth"].get("Description") or each["TargetHealth"].get("Reason") or ""),
        )
        for each in found
    )


def _tasks(clients: Clients, outputs: Mapping[str, str], wanted: str) -> tuple[RunningTask, ...]:
    cluster = outputs["ClusterName"]
    with clients.asking("ecs:ListTasks", of=cluster) as ecs:
        arns = [arn for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster) for arn in page["taskArns"]]
    found: list[dict[str, Any]] = []
    for start in range(0, len(arns), 100):
        with clients.asking("ecs:DescribeTasks", of=cluster) as ecs:
            found += ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])["tasks"]
    definitions = {arn: _definition(clients, arn) for arn in {str(task["taskDefinitionArn"]) for task in found}}
    made = []
    for task in sorted(found, key=lambda each: (str(each.get("availabilityZone")), str(each["taskArn"]))):
        arn = str(task["taskDefinitionArn"])
        image, model = definitions[arn]
        started = task.get("startedAt")
        made.append(
            RunningTask(
                task_ends.task_id(str(task["taskArn"])),
                str(task.get("availabilityZone") or ""),
                str(task.get("lastStatus") or ""),
                None if started is None else started.timestamp(),
                image,
                model,
                arn == wanted,
            )
        )
    return tuple(made)


def _definition(clients: Clients, arn: str) -> tuple[str, str]:
    """Image and model of a task definition."""
    with clients.asking("ecs:DescribeTaskDefinition", of=arn) as ecs:
        said = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    [container] = [each for each in said["containerDefinitions"] if each["name"] == task_ends.CONTAINER] or [{}]
    environment = {each["name"]: each["value"] for each in container.get("environment", [])}
    return str(container.get("image") or ""), model_of(environment.get(MODEL_VARIABLE, ""))


def model_of(uri: str) -> str:
    """NAME/VERSION of the model at a place in S3, ``s3://bucket/<prefix>/models/NAME/VERSION``."""
    return "/".join(uri.rsplit("/", 2)[1:]) if uri.count("/") > 3 else uri


# --- metrics ----------------------------------------------------------------------------------------------------------


def _traffic(clients: Clients, outputs: Mapping[str, str], now: float) -> Traffic | None:
    balancer, group = outputs["LoadBalancer"], outputs["TargetGroup"].rsplit(":", 1)[-1]
    wanted = {
        "requests": ("RequestCount", "Sum"),
        "target_errors": ("HTTPCode_Target_5XX_Count", "Sum"),
        "balancer_errors": ("HTTPCode_ELB_5XX_Count", "Sum"),
        "p50": ("TargetResponseTime", "p50"),
        "p99": ("TargetResponseTime", "p99"),
        "units": ("ConsumedLCUs", "Sum"),
    }
    queries = []
    for id, (metric, statistic) in wanted.items():
        dimensions = [{"Name": "LoadBalancer", "Value": balancer}]
        if not metric.startswith(("HTTPCode_ELB", "ConsumedLCUs")):
            dimensions.append({"Name": "TargetGroup", "Value": group})
        named = {"Namespace": "AWS/ApplicationELB", "MetricName": metric, "Dimensions": dimensions}
        queries.append({"Id": id, "MetricStat": {"Metric": named, "Period": PERIOD_S, "Stat": statistic}})
    try:
        with clients.asking("cloudwatch:GetMetricData", of=balancer) as cloudwatch:
            answer = cloudwatch.get_metric_data(
                MetricDataQueries=queries,
                StartTime=now - TRAFFIC_S,
                EndTime=now,
                ScanBy="TimestampDescending",
            )
    except AccessDenied:
        return None
    found = {each["Id"]: [float(value) for value in each["Values"]] for each in answer["MetricDataResults"]}
    hours = TRAFFIC_S / 3600

    def newest(id: str) -> float | None:
        return next(iter(found.get(id, [])), None)

    return Traffic(
        requests=round(sum(found.get("requests", []))),
        errors=round(sum(found.get("target_errors", [])) + sum(found.get("balancer_errors", []))),
        p50_s=newest("p50"),
        p99_s=newest("p99"),
        capacity_units=sum(found["units"]) / hours if found.get("units") else None,
    )
