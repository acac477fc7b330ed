"""Commands that change a setting of a queue whose jobs wait. Pure.

A queue that `cirro deploy` made is changed by `cirro deploy`, any other by the AWS CLI. This module must not know why a
job waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from covalent_cirro.jobs.findings import Where
from covalent_cirro.jobs.queues import Environment

OWN_QUEUES = {
    "-gpu-on-demand-fair": "Gpu",
    "-cpu-on-demand-fair": "Cpu",
    "-multi-node-fair": "MultiNode",
    "-gpu-fair": "Gpu",
    "-cpu-fair": "Cpu",
    "-gpu-on-demand": "Gpu",
    "-cpu-on-demand": "Cpu",
    "-multi-node": "MultiNode",
    "-gpu": "Gpu",
    "-cpu": "Cpu",
    "-fargate-fair": "Fargate",
    "-fargate": "Fargate",
}
"""Ends of the names of a deployment's queues, and beginnings of their parameters (``infra/compute.yaml``)."""


def deployment_of(queue: str, region: str, profile: str | None) -> Where | None:
    """The deployment of a queue, by the queue's name; `None` for a queue that `cirro deploy` did not make."""
    name = queue.rpartition("/")[2]
    for end in OWN_QUEUES:
        if name.endswith(end) and len(name) > len(end):
            return Where(name.removesuffix(end), region, profile)
    return None


class Remedies:
    """Remedies for a queue. Each is a sentence without its full stop, except that of `doctor`.

    Args:
        queue: Name of the queue.
        region, profile: Options of the commands.
    """

    def __init__(self, queue: str, region: str, profile: str | None) -> None:
        self._queue = queue
        self._deployment = deployment_of(queue, region, profile)
        self._where = self._deployment or Where(queue, region, profile)

    def enable(self, environment: Environment) -> str:
        """Enable a compute environment."""
        command = f"batch update-compute-environment --compute-environment {environment.name} --state ENABLED"
        return f"Enable it: `{self._where.aws(command)}`"

    def doctor(self) -> str:
        """The command that looks for the cause."""
        if self._deployment is None:
            return "`cirro doctor` looks for the cause."
        return f"`{self._deployment.cirro('doctor')}` looks for the cause."

    def _parameter(self) -> str:
        return next(begin for end, begin in OWN_QUEUES.items() if self._queue.endswith(end))

    def more_types(self, which: str = "more") -> str:
        """The command that gives the queue other instance types; ``which`` says how they differ."""
        if self._deployment is None:
            return f"Give the compute environments {which} instance types"
        command = self._deployment.cirro(f"deploy --parameter {self._parameter()}InstanceTypes=...")
        return f"Give it {which} instance types: `{command}`"

    def more_vcpus(self, environments: Sequence[Environment], vcpus: int) -> str:
        """The command that raises the maximum of the largest of the compute environments to ``vcpus``."""
        one = max(environments, key=lambda each: each.max_vcpus, default=None)
        if self._deployment is not None:
            parameter = self._parameter()
            if parameter != "MultiNode":  # which is on demand alone
                on_demand = "" if one is not None and one.on_fargate else "OnDemand"
                parameter += "Spot" if one is not None and one.spot else on_demand
            command = self._deployment.cirro(f"deploy --parameter {parameter}MaxVcpus={vcpus}")
        else:
            name = one.name if one is not None else "..."
            command = self._where.aws(
                f"batch update-compute-environment --compute-environment {name} --compute-resources maxvCpus={vcpus}"
            )
        return f"Raise the maximum: `{command}`"

    def queue_for_nodes(self) -> str:
        """The command that makes a queue for jobs on several machines."""
        command = self._deployment.cirro if self._deployment is not None else "cirro {}".format
        return f"Make a queue for them: `{command('deploy --parameter MultiNodeMaxVcpus=...')}`"
