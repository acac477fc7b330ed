"""Reads Application Auto Scaling of moto: target tracking of ECS services; has it look for services where they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from covalent_cirro.local.emulator import open_emulators
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING, once, replace

REQUESTS = "ALBRequestCountPerTarget"
"""The only predefined metric that is followed (API Reference, PredefinedMetricSpecification)."""


class TargetTracking(NamedTuple):
    """A policy that keeps the requests a minute and target near a value.

    Attributes:
        cluster, service: Names.
        group: End of the target group's ARN: ``targetgroup/<name>/<id>``.
        value: Requests a minute and target.
        least, most: Bounds of the desired count.
        in_s, out_s: Cooldowns after scaling in and out.
    """

    cluster: str
    service: str
    group: str
    value: float
    least: int
    most: int
    in_s: float
    out_s: float


def policies(account: str, region: str) -> list[TargetTracking]:
    """The policies of target tracking on requests; none where no call has set any yet."""
    if "moto.applicationautoscaling.models" not in sys.modules:  # the import takes long, and callers hold a lock
        return []
    with IMPORTING:
        from moto.applicationautoscaling.models import applicationautoscaling_backends

    backend = applicationautoscaling_backends[account][region]
    targets = backend.targets.get("ecs:service:DesiredCount", {})
    found = []
    for policy in list(backend.policies.values()):
        config = policy.target_tracking_scaling_policy_configuration or {}
        metric = config.get("PredefinedMetricSpecification") or {}
        target = targets.get(policy.resource_id)
        if metric.get("PredefinedMetricType") != REQUESTS or target is None:
            continue
        _, cluster, service = policy.resource_id.split("/")
        found.append(
            TargetTracking(
                cluster,
                service,
                "/".join(str(metric["ResourceLabel"]).split("/")[-3:]),
                float(config["TargetValue"]),
                int(target.min_capacity),
                int(target.max_capacity),
                float(config.get("ScaleInCooldown") or 0),
                float(config.get("ScaleOutCooldown") or 0),
            )
        )
    return found


@once
def install() -> None:
    """Look for services in the emulated ECS, since moto looks into its own, and keep their counts within the bounds.

    Application Auto Scaling brings a count within them when they are set, whatever the alarms say: "minimum capacity
    was set to 2" is then the cause of a scaling activity.
    """
    from moto.applicationautoscaling.exceptions import AWSValidationException
    from moto.applicationautoscaling.models import ApplicationAutoscalingBackend

    register: Any = ApplicationAutoscalingBackend.register_scalable_target

    def service_exists(self: Any, resource_id: str) -> bool:
        if _service(self, resource_id) is None:
            raise AWSValidationException(f"ECS service doesn't exist: {resource_id}")
        return True

    def register_scalable_target(self: Any, namespace: str, resource_id: str, *more: Any, **options: Any) -> Any:
        target = register(self, namespace, resource_id, *more, **options)
        service = _service(self, resource_id) if namespace == "ecs" else None
        if service is not None:
            count = min(max(service["desiredCount"], int(target.min_capacity)), int(target.max_capacity))
            if count != service["desiredCount"]:
                where = {"cluster": service["clusterArn"], "service": service["serviceArn"]}
                _ecs(self)("UpdateService", {**where, "desiredCount": count})
        return target

    replace(ApplicationAutoscalingBackend, "_ecs_service_exists_for_target", service_exists)
    replace(ApplicationAutoscalingBackend, "register_scalable_target", register_scalable_target)


def _ecs(backend: Any) -> Callable[[str, Json], Json]:
    return open_emulators.get(backend.account_id).serving_in(backend.region_name).ecs


def _service(backend: Any, resource_id: str) -> Json | None:
    """A service that was not deleted, by ``service/<cluster>/<name>``."""
    _, cluster, name = resource_id.split("/")
    try:
        found = _ecs(backend)("DescribeServices", {"cluster": cluster, "services": [name]})["services"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ClusterNotFoundException":
            raise
        return None
    return next((each for each in found if each["status"] == "ACTIVE"), None)
