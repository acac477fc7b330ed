"""Reads the target tracking policies of ECS services from Application Auto Scaling of moto."""

from __future__ import annotations

import sys
from typing import NamedTuple

from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING

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
