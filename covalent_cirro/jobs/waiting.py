"""Why a job waits for an instance, by what AWS says of its queue. Pure; `remedies.py` says what to change.

AWS's own reason comes first and is passed on verbatim. AWS gives one only to the job at the head of a queue (User
Guide, Jobs stuck in RUNNABLE). For other jobs, the jobs before them and what their queue may start show the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from covalent_cirro.jobs.formatting import minutes
from covalent_cirro.jobs.machines import InstanceType, Need, of_environment, shortfall
from covalent_cirro.jobs.queue_snapshots import FRONT_JOBS, QueueSnapshot
from covalent_cirro.jobs.queues import Environment
from covalent_cirro.jobs.remedies import Remedies
from covalent_cirro.jobs.waiting_reasons import Reason, Why

DEADLINE_S = 600.0
"""Seconds before AWS is asked why a job waits: a new instance takes 2 to 5 minutes until its first job."""

SCALING_DEADLINES = 2
"""Deadlines within which a new instance should join its cluster. After half an hour without one, AWS Batch makes the
compute environment INVALID (User Guide, Troubleshooting, INVALID compute environment)."""

_AWS_REASONS = {
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": Why.NO_TYPE_FITS,
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": Why.MAX_VCPUS_BELOW_JOB,
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY": Why.NO_CAPACITY,
    "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED": Why.INSTANCE_REFUSED,
    "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS": Why.SERVICE_ROLE,
    "ACTION_REQUIRED": Why.ENVIRONMENT_INVALID,
}
"""Beginnings of AWS's reasons (User Guide, Jobs stuck in RUNNABLE). ``UNDETERMINED``: AWS does not know."""

_FOR_WAITING = ("CAPACITY:", "MISCONFIGURATION:", "ACTION_REQUIRED", "UNDETERMINED")


def aws_reason(status_reason: str) -> str:
    """A statusReason if it says why a job waits; after a retry it may be that of the last attempt, which is none."""
    return status_reason if status_reason.startswith(_FOR_WAITING) else ""


class Waiting(NamedTuple):
    """A job that waits.

    Attributes:
        job_id: Id of the job.
        need: vCPUs, memory and GPUs that it asks for; of a multi-node job, each node.
        status_reason: The job's statusReason.
        since: Epoch seconds when it began to wait.
        nodes: Nodes of a multi-node job, which start together, each on an instance that has no other job.
    """

    job_id: str
    need: Need
    status_reason: str
    since: float
    nodes: int = 1


def explain(
    job: Waiting,
    seen: QueueSnapshot,
    queue: str,
    region: str,
    profile: str | None,
    now: float,
    deadline_s: float = DEADLINE_S,
) -> Reason:
    """Find out why a job waits.

    Args:
        job: The job.
        seen: What AWS says of its queue.
        queue: Name or ARN of the queue, as in the setting.
        region, profile: Options of the commands in remedies.
        now: Epoch seconds.
        deadline_s: Seconds that a job at the head of a queue may wait although nothing is wrong.
    """
    return _Case(job, seen, queue.rpartition("/")[2], region, profile, now, deadline_s).reason()


class _Case:
    """A job that waits, and its queue."""

    def __init__(
        self,
        job: Waiting,
        seen: QueueSnapshot,
        queue: str,
        region: str,
        profile: str | None,
        now: float,
        deadline_s: float,
    ) -> None:
        self.job, self.seen, self.queue, self.now, self.deadline_s = job, seen, queue, now, deadline_s
        self.remedies = Remedies(queue, region, profile)
        self.words = aws_reason(job.status_reason)
        self.usable = [each for each in seen.environments if each.state == "ENABLED" and each.status == "VALID"]

    def reason(self) -> Reason:
        why, seen, remedy = self._by_aws() or self._not_learnt() or self._broken() or self._cannot_run() or self._turn()
        return Reason(why, seen, self.words, remedy, self._position())

    def _not_learnt(self) -> tuple[Why, str, str] | None:
        if self.seen.queue is not None or not self.seen.denied:
            return None
        return (
            Why.NOT_LEARNT,
            f"why was not to be learnt: the server's credentials may not call {', '.join(self.seen.denied)}",
            "The managed policy for submitters that `cirro deploy` makes allows it.",
        )

    # --- what AWS says ---

    def _by_aws(self) -> tuple[Why, str, str] | None:
        for begin, why in _AWS_REASONS.items():
            if self.words.startswith(begin):
                return self._by_aws_reason(why)
        if self.words and not self.words.startswith("UNDETERMINED"):
            return Why.AWS_SAYS, f"the job is blocked in {self.queue}", self.remedies.doctor()
        return None

    def _by_aws_reason(self, why: Why) -> tuple[Why, str, str]:
        """A reason that AWS gave, with figures about the queue."""
        if why is Why.NO_CAPACITY:
            spot = all(each.spot for each in self.usable)
            if self.usable and all(each.on_fargate for each in self.usable):
                return (
                    why,
                    f"Fargate has no {'Spot ' if spot else ''}capacity now for {self.queue}",
                    "Capacity may come back by itself"
                    + (", or use Fargate on demand (FargateMaxVcpus)." if spot else "."),
                )
            return (
                why,
                f"EC2 has no {'Spot ' if spot else ''}capacity now for the instance types behind {self.queue}",
                f"Capacity may come back by itself. {self.remedies.more_types()}"
                + (", or use the on-demand queue." if spot else "."),
            )
        if why is Why.INSTANCE_REFUSED:
            return why, f"EC2 refused the instances' configuration behind {self.queue}", self.remedies.doctor()
        if why is Why.SERVICE_ROLE:
            return why, f"AWS Batch's service role may not start instances for {self.queue}", self.remedies.doctor()
        if why is Why.ENVIRONMENT_INVALID:
            return (self.seen.queue and self._broken()) or (
                why,
                f"the compute environments behind {self.queue} are INVALID",
                self.remedies.doctor(),
            )
        # The queue may have changed since AWS gave the reason; AWS's words count.
        if why is Why.NO_TYPE_FITS:
            # Of several compute environments AWS's words are about the first, which may be Spot.
            found = self._cannot_run() if self.job.nodes > 1 else None
            return found or self._no_type_fits(self._kinds(self.usable))
        return self._max_below_job(self.usable)

    # --- configurations that cannot work ---

    def _broken(self) -> tuple[Why, str, str] | None:
        queue = self.seen.queue
        if queue is None:
            return Why.QUEUE_GONE, f"there is no queue {self.queue} any more", self.remedies.doctor()
        if queue.status == "INVALID":
            return Why.QUEUE_INVALID, f"queue {self.queue} is INVALID: {queue.reason}", self.remedies.doctor()
        if self.usable:
            return None
        said = "; ".join(
            f"{each.name} is {each.status if each.status != 'VALID' else each.state}"
            + (f" ({each.reason})" if each.reason and each.status != "VALID" else "")
            for each in self.seen.environments
        )
        said = f"no compute environment behind {self.queue} can start instances: {said or 'it has none'}"
        statuses = {each.status for each in self.seen.environments}
        if "UPDATING" in statuses or "CREATING" in statuses:
            return Why.ENVIRONMENT_UPDATING, said, "Wait until it is VALID."
        disabled = [each for each in self.seen.environments if each.status == "VALID"]
        if disabled:
            return Why.ENVIRONMENT_DISABLED, said, f"{self.remedies.enable(disabled[0])}."
        return Why.ENVIRONMENT_INVALID, said, self.remedies.doctor()

    def _cannot_run(self) -> tuple[Why, str, str] | None:
        if found := self._not_for_nodes():
            return found
        fitting = [each for each in self.usable if self._fits(each)]
        if not fitting:
            return self._no_type_fits(self._kinds(self.usable))
        if all(self._least_vcpus(each) > each.max_vcpus for each in fitting):
            return self._max_below_job(fitting)
        return None

    def _vcpus_for_nodes(self, environment: Environment, nodes: int) -> float:
        """vCPUs of the smallest instances of a compute environment on which so many nodes have one each."""
        sizes = [kind.vcpus for kind in self._kinds([environment]) or () if self.job.need.fits(kind)]
        return nodes * min(sizes, default=self.job.need.vcpus)

    def _least_vcpus(self, environment: Environment) -> float:
        """vCPUs that a compute environment must have room for, at least, to start the job.

        The last instance counts with what is asked for: AWS Batch may exceed the maximum by one instance (Batch API
        Reference, ComputeResource, maxvCpus).
        """
        others = self.job.nodes - 1
        return self.job.need.vcpus + (self._vcpus_for_nodes(environment, others) if others else 0)

    def _on_each(self) -> str:
        """Of a multi-node job: what each node has of what the job asks for."""
        nodes = self.job.nodes
        return f" ({self.job.need.vcpus:g} on each of {nodes} machines, which have no other job)" if nodes > 1 else ""

    def _fits(self, environment: Environment) -> bool:
        if self.job.nodes > 1 and not environment.runs_several_nodes:
            return False
        if not environment.has_instances:
            return not self.job.need.gpus  # Fargate has no GPUs; of an unmanaged environment nothing is known
        kinds = self._kinds([environment])
        return kinds is None or any(self.job.need.fits(kind) for kind in kinds)

    def _kinds(self, environments: Sequence[Environment]) -> list[InstanceType] | None:
        if self.seen.types is None:
            return None
        return [kind for each in environments for kind in of_environment(each.instance_types, self.seen.types)]

    def _no_type_fits(self, kinds: Sequence[InstanceType] | None) -> tuple[Why, str, str]:
        lacks = "" if kinds is None else f": {shortfall(self.job.need, kinds)}"
        # AWS may say that no type fits although one does by our figures: then there is nothing to name.
        if kinds is not None and any(self.job.need.fits(kind) for kind in kinds):
            lacks = ""
        return (
            Why.NO_TYPE_FITS,
            f"the job's {self.job.need} fit on no instance type behind {self.queue}{lacks}",
            "Ask for less (vcpu, memory, num_gpus; a machine's system keeps up to 7 % of its memory), or "
            + _lower(self.remedies.more_types("larger"))
            + ".",
        )

    def _max_below_job(self, environments: Sequence[Environment]) -> tuple[Why, str, str]:
        most = max((each.max_vcpus for each in environments), default=0)
        nodes = self.job.nodes
        wanted = self.job.need.vcpus
        if nodes > 1:
            wanted = max((self._vcpus_for_nodes(each, nodes) for each in environments), default=nodes * wanted)
        less = "vcpu" if nodes == 1 else "vcpu, num_nodes"
        return (
            Why.MAX_VCPUS_BELOW_JOB,
            f"the job asks for {self.job.need.vcpus * nodes:g} vCPU{self._on_each()}; the compute environments behind "
            f"{self.queue} may have {most}",
            f"Ask for less ({less}), or {_lower(self.remedies.more_vcpus(environments, math.ceil(wanted)))}.",
        )

    def _not_for_nodes(self) -> tuple[Why, str, str] | None:
        """A multi-node job that waits where only Spot or Fargate is."""
        if self.job.nodes == 1 or not self.usable or any(each.runs_several_nodes for each in self.usable):
            return None
        kinds = ", ".join(f"{each.name} ({each.kind})" for each in self.usable)
        return (
            Why.NOT_FOR_NODES,
            f"AWS Batch runs jobs on several machines on demand only, and behind {self.queue} is {kinds}",
            f"{self.remedies.queue_for_nodes()}, or set batch_multi_node_queue to one with on-demand instances.",
        )

    # --- the order in the queue ---

    def _turn(self) -> tuple[Why, str, str]:
        place = self._place()
        head = aws_reason(self.seen.head_reason)
        front = self.seen.front
        if front and place != 0 and any(head.startswith(begin) for begin in _AWS_REASONS):
            return (
                Why.BEHIND_STUCK_JOB,
                f"AWS Batch starts jobs in order, and the first in {self.queue}, {front[0].job_id}, gets no machine: "
                f"{head.rstrip('.')}",
                "Stop that job, or correct what it waits for.",
            )
        if front and self.seen.head_lacks:
            return self._lacks(", and ".join(map(str, self.seen.head_lacks)), place)
        running = self.seen.running
        able = [each for each in self.usable if self._fits(each) and self._least_vcpus(each) <= each.max_vcpus]
        wanted = sum(each.vcpus for each in able)
        if running != 0 and all(each.vcpus + self._least_vcpus(each) > each.max_vcpus for each in able):
            return self._full(able)
        waited_s = self.now - (self.job.since if not front or place is None else front[place].since)
        if running == 0 and wanted:
            if waited_s < SCALING_DEADLINES * self.deadline_s:
                return Why.SCALING_UP, f"AWS Batch is starting instances behind {self.queue}, {wanted} vCPUs so far", ""
            return (
                Why.INSTANCES_DO_NOT_JOIN,
                f"AWS Batch has wanted {wanted} vCPUs behind {self.queue} for {minutes(waited_s)}, and no job got one: "
                "instances that do not start, do not reach ECS (a subnet without a way out, security group, instance "
                "profile), or are too small once their system has its part",
                self.remedies.doctor(),
            )
        if place or (place is None and front):
            return (
                Why.BEHIND_OTHERS,
                f"other jobs are before it in {self.queue}, and AWS Batch starts jobs in order",
                "",
            )
        if waited_s < self.deadline_s:
            # The queue's snapshot lags behind: it may not list the job yet, or no longer.
            what = f"it is the next one in {self.queue}" if place == 0 else f"it waits for a machine of {self.queue}"
            return Why.SCALING_UP, f"{what}, since {minutes(waited_s)}", ""
        most = sum(each.max_vcpus for each in able)
        if able and all(each.on_fargate for each in able):
            return (
                Why.NO_INSTANCE,
                f"Fargate gave no machine to {self.queue} for {minutes(waited_s)}, though it may have {most} vCPUs: "
                "the account's quota of vCPUs on Fargate (6 in new accounts), jobs that run already, or no capacity",
                self.remedies.doctor(),
            )
        return (
            Why.NO_INSTANCE,
            f"EC2 gave no instance to {self.queue} for {minutes(waited_s)}, though it may have {most} vCPUs and has "
            f"{wanted or 'none'}: the account's quota of vCPUs (0 for GPUs in new accounts), or no capacity",
            f"{self.remedies.doctor()} {self.remedies.more_types()}.",
        )

    def _lacks(self, what: str, place: int | None) -> tuple[Why, str, str]:
        """Consumable resources are not free: AWS Batch gives no reason for it, and lets the jobs behind wait too."""
        who = "it" if place == 0 else f"the first job in {self.queue}, before it,"
        impossible = [each for each in self.seen.head_lacks if each.total is None or each.needed > each.total]
        if not impossible:
            return Why.NO_CONSUMABLE, f"{who} waits for {what}", ""
        remedy = (
            f"batch update-consumable-resource --consumable-resource {impossible[0].name} --operation SET --quantity N"
        )
        if impossible[0].total is None:
            remedy = (
                f"batch create-consumable-resource --consumable-resource-name {impossible[0].name} --total-quantity N"
            )
        return (
            Why.MISSING_CONSUMABLE,
            f"{who} can never get {what}",
            f"Ask for less (consumable_resources), or make more: `aws {remedy}`.",
        )

    def _full(self, able: Sequence[Environment]) -> tuple[Why, str, str]:
        """The compute environments may start no more instances. The vCPUs of instances are not those of jobs."""
        have, most = sum(each.vcpus for each in able), sum(each.max_vcpus for each in able)
        if have > most:
            # Batch API Reference, ComputeResource, maxvCpus.
            figures = f"{_vcpus(have)}, its maximum is {most}, which AWS Batch may exceed by one instance"
        else:
            figures = f"{have} of at most {_vcpus(most)}"
            all_nodes = self.job.need.vcpus * self.job.nodes
            asked = f", too few are left for the {all_nodes:g} that the job asks for{self._on_each()}"
            figures += asked if have < most else ""
        running, used = self.seen.running, self.seen.running_vcpus
        jobs = ""
        if running is not None:
            jobs = "; " + ("1 job" if running == 1 else f"{running}{'+' if running >= FRONT_JOBS else ''} jobs")
            jobs += " of the queue " + ("runs" if running == 1 else "run")
            jobs += f", with {_vcpus(used)}" if used is not None else ""
        return (
            Why.MAX_VCPUS_REACHED,
            f"queue {self.queue} starts no more instances: those it has have {figures}{jobs}",
            f"It starts when a job ends. To run more at once, {_lower(self.remedies.more_vcpus(able, 2 * most))}.",
        )

    def _place(self) -> int | None:
        """How many jobs are before this one; `None` where that is not known."""
        for index, each in enumerate(self.seen.front or ()):
            if each.job_id == self.job.job_id:
                return index
        return None

    def _position(self) -> str:
        front, place = self.seen.front, self._place()
        if place is not None:
            return f"It is number {place + 1} in the queue."
        if front is not None and len(front) >= FRONT_JOBS:
            return f"It is behind the first {FRONT_JOBS} in the queue."
        if front is None and self.seen.queue is not None and self.seen.denied:
            return f"Its place in the queue is not known ({', '.join(self.seen.denied)} is not allowed)."
        return ""


def _vcpus(number: float) -> str:
    return f"{number:g} vCPU" + ("s" if number != 1 else "")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
