"""What jobs on Fargate have to know of their queue: whether it is one for Fargate, and whether they need an address.

A job in a public subnet reaches nothing, not even its image, without a public address; an instance there gets one from
its subnet, a job on Fargate by its job definition (AWS Batch User Guide, AWS Fargate).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from covalent_cirro.aws.capacity import Capacity
from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.errors import AccessDenied, SettingsError
from covalent_cirro.jobs.optional_actions import COSTS
from covalent_cirro.jobs.queues import Environment

log = logging.getLogger(__name__)

FRESH_S = 3600.0
"""Seconds for which an answer holds: a deployment hardly ever gets other subnets."""


class FargateQueues:
    """The queues for Fargate of one account. Each is looked at once in `FRESH_S`.

    Args:
        capacity: Asks AWS.
        clock: Seconds, monotonic.
    """

    def __init__(self, capacity: Capacity, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._known: dict[str, tuple[float, bool]] = {}
        self._looks = SingleFlight[str, bool]()

    async def public_ip(self, queue: str, option: str) -> bool:
        """Whether jobs in a queue need a public address. What policies hide counts as a public subnet.

        Args:
            queue: Name or ARN of the queue.
            option: The executor's option that names it, for messages.

        Raises:
            SettingsError: Its compute environments start instances: it takes no job for Fargate.
            AwsError: AWS could not be reached.
        """
        asked_at, needed = self._known.get(queue, (float("-inf"), True))
        if self._clock() - asked_at >= FRESH_S:
            needed = await self._looks.run(queue, lambda: self._look(queue, option))
            self._known[queue] = self._clock(), needed
        return needed

    async def _look(self, queue: str, option: str) -> bool:
        try:
            found = await self._capacity.environments_of([queue])
            environments = next(iter(found.values()), [])
            refuse_instances(queue, option, environments)
            return await self._capacity.are_public({subnet for each in environments for subnet in each.subnets})
        except AccessDenied as error:
            log.warning("Jobs in queue %s get public addresses: %s. %s", queue, COSTS.get(error.operation, ""), error)
            return True


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
