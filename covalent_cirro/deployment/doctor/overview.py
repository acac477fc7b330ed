"""The state of a deployment, for ``cirro status``: its stacks, queues and compute environments, with their jobs.

It asks for all facts at the same time. This module must not know the terminal.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from covalent_cirro.aws.capacity import Capacity, JobCount
from covalent_cirro.aws.clients import Clients, run_blocking
from covalent_cirro.aws.sessions import Access
from covalent_cirro.deployment import stacks
from covalent_cirro.deployment.plans import BUDGET, STACKS, stack_name
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import AccessDenied
from covalent_cirro.jobs.queues import Environment, Queue
from covalent_cirro.jobs.states import ACTIVE_STATES, TERMINAL_STATES

THREADS = 16
"""Calls at the same time; most are ListJobs, one for each queue and state."""

QUEUE_OUTPUTS = (
    "BatchQueue",
    "BatchOnDemandQueue",
    "BatchGpuQueue",
    "BatchGpuOnDemandQueue",
    "BatchMultiNodeQueue",
)


class QueueView(NamedTuple):
    """A queue, with its jobs by state; `None` for a state that the credentials do not allow to count."""

    queue: Queue
    jobs: dict[str, JobCount | None]


class EnvironmentView(NamedTuple):
    """A compute environment, with its number of instances; `None` where the credentials do not allow to see it."""

    environment: Environment
    instances: int | None


class Overview(NamedTuple):
    """The state of a deployment.

    Attributes:
        name: Name of the deployment.
        region: Region of the deployment.
        stacks: Stacks by part; `None` for a stack that does not exist.
        queues: The deployment's queues that exist.
        environments: Compute environments of these queues.
    """

    name: str
    region: str
    stacks: dict[str, Stack | None]
    queues: list[QueueView]
    environments: list[EnvironmentView]

    @property
    def deployed(self) -> bool:
        """Whether any of its stacks exists."""
        return any(stack is not None for stack in self.stacks.values())


def look(access: Access, name: str) -> Overview:
    """Read the state of a deployment.

    Args:
        access: Credentials and region.
        name: Name of the deployment.

    Raises:
        AccessDenied, AwsError: CloudFormation or AWS Batch refused or could not be reached.
    """
    clients = Clients(access)
    capacity = Capacity(clients.awaited, access)
    formation, region = clients("cloudformation"), clients.region
    with ThreadPoolExecutor(THREADS, thread_name_prefix="status") as pool:
        all_queues = pool.submit(lambda: run_blocking(capacity.queues()))
        found = pool.map(lambda part: stacks.find(formation, stack_name(name, part)), STACKS)
        there = {
            part: None if stack is None or stack.is_empty_shell else stack
            for part, stack in zip(STACKS, found, strict=True)
        }
        parts = {part: stack for part, stack in there.items() if stack is not None or part != BUDGET}
        compute = parts["compute"]
        outputs = {} if compute is None else compute.outputs
        names = [outputs[output] for output in QUEUE_OUTPUTS if output in outputs]
        queues = [queue for wanted in names for queue in all_queues.result() if queue.name == wanted]
        counts = {
            (queue.name, state): pool.submit(_count, capacity, queue.name, state)
            for queue in queues
            for state in (*ACTIVE_STATES, *TERMINAL_STATES)
        }
        arns = {arn: None for queue in queues for arn in queue.environments}
        environments = run_blocking(capacity.environments(list(arns)))
        instances = _instances(capacity, [each.cluster for each in environments if each.cluster])
        return Overview(
            name=name,
            region=region,
            stacks=parts,
            queues=[
                QueueView(queue, {state: future.result() for (of, state), future in counts.items() if of == queue.name})
                for queue in queues
            ],
            environments=[
                EnvironmentView(each, None if instances is None else instances.get(each.cluster, 0))
                for each in environments
            ],
        )


def _count(capacity: Capacity, queue: str, state: str) -> JobCount | None:
    try:
        return run_blocking(capacity.count_jobs(queue, state))
    except AccessDenied:
        return None


def _instances(capacity: Capacity, clusters: list[str]) -> dict[str, int] | None:
    try:
        return run_blocking(capacity.instances(clusters))
    except AccessDenied:
        return None
