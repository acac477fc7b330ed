"""Target tracking of Application Auto Scaling: the desired count of a service follows the requests of its targets.

Scaling out follows at once; scaling in after many looks in a row below nine tenths of the value, as the alarms of AWS's
target tracking have it (Application Auto Scaling User Guide, Target tracking).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.moto_internals import moto_target_tracking
from covalent_cirro.local.emulator.moto_internals.moto_target_tracking import TargetTracking
from covalent_cirro.local.emulator.serving.service_model import Cluster, Service

PERIOD_S = 60.0
"""The metric is that of one minute."""
LEAST_PERIOD_S = 1.0
"""Shortest such minute in seconds here: requests are counted every half second."""
LOOKS_TO_SCALE_IN = 15
"""Periods of the alarm that scales in."""
SCALE_IN_BELOW = 0.9
"""Share of the target value below which that alarm counts a period."""


def desired_count(policy: TargetTracking, count: int, requests: float, low_looks: int) -> int:
    """The number of tasks that a policy wants. Pure.

    Args:
        policy: The policy.
        count: Tasks now.
        requests: Requests of all targets in the last minute.
        low_looks: How many looks in a row there were few requests.
    """
    wanted = count
    if requests > policy.value * max(1, count):
        wanted = math.ceil(requests / policy.value)
    elif low_looks >= LOOKS_TO_SCALE_IN:
        wanted = min(count, max(1, math.ceil(requests / policy.value)))
    return max(policy.least, min(policy.most, wanted))


@dataclass
class Scaling:
    """Follows the policies of one region.

    Attributes:
        where: Account and region.
        timing: Durations.
        requests_since: Gives the requests of a target group since a time of `time.monotonic`.
    """

    where: tuple[str, str]
    timing: Timing
    requests_since: Callable[[str, float], int]
    _due: float = 0.0
    _low_looks: dict[str, int] = field(default_factory=dict)
    _quiet_until: dict[str, float] = field(default_factory=dict)

    def look(self, clusters: dict[str, Cluster], now: float) -> None:
        """Set desired counts, once a minute; called with the state of ECS locked."""
        at = time.monotonic()
        if at < self._due:
            return
        period_s = max(LEAST_PERIOD_S, self.timing.scaled(PERIOD_S))
        self._due = at + period_s
        for policy in moto_target_tracking.policies(*self.where):
            cluster = clusters.get(policy.cluster)
            service = None if cluster is None else cluster.services.get(policy.service)
            if service is not None and service.status == "ACTIVE":
                self._follow(policy, service, at, at - period_s, now)

    def _follow(self, policy: TargetTracking, service: Service, at: float, since: float, now: float) -> None:
        groups = [each for each in service.target_groups if each.endswith(policy.group)]
        requests = sum(self.requests_since(group, since) for group in groups)
        count = service.desired
        low = requests < SCALE_IN_BELOW * policy.value * count
        looks = self._low_looks[service.arn] = self._low_looks.get(service.arn, 0) + 1 if low else 0
        wanted = desired_count(policy, count, requests, looks)
        in_bounds = policy.least <= count <= policy.most
        if wanted == count or (in_bounds and at < self._quiet_until.get(service.arn, 0.0)):
            return
        cooldown_s = policy.out_s if wanted > count else policy.in_s
        self._quiet_until[service.arn] = at + self.timing.scaled(cooldown_s)
        service.body = {**service.body, "desiredCount": wanted}
        service.steady = False
        service.tell(now, f"has set the desired count to {wanted}: {requests} requests in the last minute.")
