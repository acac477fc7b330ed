"""What jobs on Fargate have to know of their queue: whether it is one for Fargate, and whether they need an address.

A job in a public subnet reaches nothing, not even its image, without a public address; an instance there gets one from
its subnet, a job on Fargate by its job definition (AWS Batch User Guide, AWS Fargate).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from covalent_cirro.aws.capacity import Capacity
from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.errors import AccessDenied, SettingsError
from covalent_cirro.jobs.optional_actions import COSTS
from covalent_cirro.jobs.queues import Environment
from covalent_cirro.jobs.tags import DEPLOYMENT_TAG

log = logging.getLogger(__name__)

FRESH_S = 3600.0
"""Seconds for which an answer holds: a deployment hardly ever gets other subnets."""


class FargateQueue(NamedTuple):
    """What jobs on Fargate have to know of their queue.

    Attributes:
        public_ip: Whether they need a public address. What policies hide counts as a public subnet.
        deployment: Name of the deployment that the queue belongs to; empty where it is not known.
    """

    public_ip: bool
    deployment: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """Tags of its jobs: on Fargate no instance bears the deployment's, by which the bill counts."""
        return {DEPLOYMENT_TAG: self.deployment} if self.deployment else {}


class FargateQueues:
    """The queues for Fargate of one account. Each is looked at once in `FRESH_S`.

    Args:
        capacity: Asks AWS.
        clock: Seconds, monotonic.
    """

    def __init__(self, capacity: Capacity, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._known: dict[str, tuple[float, FargateQueue]] = {}
        self._looks = SingleFlight[str, FargateQueue]()

    async def of(self, queue: str, option: str) -> FargateQueue:
        """What jobs have to know of a queue.

        Args:
            queue: Name or ARN of the queue.
            option: The executor's option that names it, for messages.

        Raises:
            SettingsError: Its compute environments start instances: it takes no job for Fargate.
            AwsError: AWS could not be reached.
        """
        asked_at, found = self._known.get(queue, (float("-inf"), FargateQueue(public_ip=True)))
        if self._clock() - asked_at >= FRESH_S:
            found = await self._looks.run(queue, lambda: self._look(queue, option))
            self._known[queue] = self._clock(), found
        return found

    async def _look(self, queue: str, option: str) -> FargateQueue:
        deployment = ""
        try:
            found = next(iter(await self._capacity.queues([queue])), None)
            deployment = found.deployment if found is not None else ""
            environments = await self._capacity.environments(found.environments) if found is not None else []
            refuse_instances(queue, option, environments)
            subnets = {subnet for each in environments for subnet in each.subnets}
            return FargateQueue(await self._capacity.are_public(subnets), deployment)
        except AccessDenied as error:
            log.warning("Queue %s cannot be looked at: %s. %s", queue, COSTS["ec2:DescribeSubnets"], error)
            return FargateQueue(public_ip=True, deployment=deployment)


def refuse_instances(queue: str, option: str, environments: Sequence[Environment]) -> None:
    """Refuse a queue whose compute environments start instances.

    Raises:
        SettingsError: They do.
    """
    instances = [each.name for each in environments if each.has_instances]
    if instances:
        raise SettingsError(
            f'{option}={queue!r} cannot run an electron with platform="FARGATE": {", ".join(instances)} behind it '
            "starts instances. Set batch_fargate_queue to a queue for Fargate; `cirro deploy --parameter "
            "FargateMaxVcpus=64` makes one and sets it."
        )
