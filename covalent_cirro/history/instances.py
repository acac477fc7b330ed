"""The EC2 instances that jobs run on, by their ECS container instances. ECS is asked once for each.

AWS Batch names only the container instance; an outcome has type and zone, but is written at a job's end. Commands show
what they have without ECS: an ECS that fails is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from covalent_cirro.errors import AwsError, CirroError
from covalent_cirro.history.account import Account
from covalent_cirro.history.records import Record

MAX_DESCRIBED = 100
"""Container instances in one DescribeContainerInstances call (ECS API Reference)."""

PATIENCE_S = 2.0
"""Seconds for which a call that fails is repeated."""

AGAIN_S = 30.0
"""Seconds after which an ECS that failed is asked again."""

TYPE, ZONE = "ecs.instance-type", "ecs.availability-zone"
"""Attributes of a container instance (ECS Developer Guide, Container instance attributes)."""


class Instance(NamedTuple):
    """An EC2 instance. Empty: not known."""

    instance_type: str = ""
    zone: str = ""
    instance_id: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.instance_type, self.zone) if part)


ContainerInstance = tuple[str, str]
"""Name of an ECS cluster, and id of a container instance in it."""


def places(record: Record) -> list[ContainerInstance]:
    """Container instances of a job's attempts, oldest first; the last one is that of the attempt that runs."""
    return [*((each.cluster, each.host) for each in record.attempts), (record.cluster, record.host)]


class Instances:
    """Instances of the jobs of an account.

    Args:
        account: The account.
        clock: Seconds that only grow.

    Attributes:
        problem: Why instances are left out now; empty where ECS answered.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._account = account
        self._clock = clock
        self._known: dict[ContainerInstance, Instance] = {}
        self._silent_until = 0.0
        self.problem = ""

    def of(self, records: Iterable[Record]) -> dict[str, Instance]:
        """Instances by job id, for the jobs that have one now: a call for each cluster with new container instances."""
        running = {each.job_id: (each.cluster, each.host) for each in records if each.has_machine}
        found = self.at(running.values())
        return {job_id: found[place] for job_id, place in running.items() if place in found}

    def of_attempts(self, record: Record) -> dict[str, Instance]:
        """Instances of a job's attempts by ``host`` of the attempt; ECS forgets an instance minutes after its end."""
        return {place[1]: host for place, host in self.at(places(record)).items()}

    def at(self, wanted: Iterable[ContainerInstance]) -> dict[ContainerInstance, Instance]:
        """Instances by container instance.

        Those that ECS does not know, or that a policy hides, are left out; all new ones while ECS fails (`problem`).
        """
        asked = {(cluster, each) for cluster, each in wanted if cluster and each and not each.startswith("i-")}
        missing: dict[str, set[str]] = {}
        for cluster, each in asked - self._known.keys():
            missing.setdefault(cluster, set()).add(each)
        if self._clock() >= self._silent_until:
            self._learn_all(missing)
        found = {place: self._known.get(place, Instance()) for place in asked}
        return {place: instance for place, instance in found.items() if instance.instance_type}

    def _learn_all(self, missing: dict[str, set[str]]) -> None:
        self.problem = ""
        try:
            for cluster, ids in missing.items():
                self._learn(cluster, sorted(ids))
        except AwsError as error:  # clusters that were not asked for yet would have to be waited for as well
            self._silent_until = self._clock() + AGAIN_S
            self.problem = f"where jobs run is not shown: {error}"

    def _learn(self, cluster: str, ids: list[str]) -> None:
        found = {}
        for begin in range(0, len(ids), MAX_DESCRIBED):
            for each in self._described(cluster, ids[begin : begin + MAX_DESCRIBED]):
                found[cluster, str(each["containerInstanceArn"]).rpartition("/")[2]] = _host(each)
        # A container instance that cannot be seen is not asked for again.
        self._known |= {**{(cluster, each): Instance() for each in ids}, **found}

    def _described(self, cluster: str, ids: list[str]) -> list[dict[str, Any]]:
        ecs = self._account.clients("ecs", briefly=True)
        try:
            answer = self._account.ask(
                "ecs:DescribeContainerInstances",
                lambda: ecs.describe_container_instances(cluster=cluster, containerInstances=ids),
                of=f"cluster {cluster!r}",
                patience_s=PATIENCE_S,
            )
        except CirroError as error:
            if isinstance(error, AwsError) and error.retryable:
                raise
            return []
        return list(answer["containerInstances"])


def _host(described: dict[str, Any]) -> Instance:
    told = {str(each["name"]): str(each.get("value") or "") for each in described.get("attributes") or ()}
    return Instance(told.get(TYPE, ""), told.get(ZONE, ""), str(described.get("ec2InstanceId") or ""))
