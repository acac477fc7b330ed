"""A deployment at a glance, for ``cirro status``: its stacks, queues and compute environments, and how full they are.

Asks all at once and gives facts; knows neither the terminal nor what to do about them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from covalent_cirro.aws.sessions import Access
from covalent_cirro.deployment import stacks
from covalent_cirro.deployment.doctor import capacity
from covalent_cirro.deployment.doctor.account_facts import Clients
from covalent_cirro.deployment.doctor.capacity import ACTIVE_STATES, TERMINAL_STATES, Count
from covalent_cirro.deployment.plans import BUDGET, STACKS, stack_name
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import AccessDenied
from covalent_cirro.jobs.queues import Environment, Queue

THREADS = 16
"""Calls at a time; most are ListJobs, one for each queue and state."""

QUEUE_OUTPUTS = ("BatchQueue", "BatchOnDemandQueue", "BatchGpuQueue", "BatchGpuOnDemandQueue")


class QueueView(NamedTuple):
    """A queue, and its jobs by state; `None` for a state that these credentials may not count."""

    queue: Queue
    jobs: dict[str, Count | None]


class EnvironmentView(NamedTuple):
    """A compute environment, and how many instances it has; `None` where these credentials may not see it."""

    environment: Environment
    instances: int | None


class Overview(NamedTuple):
    """A deployment.

    Attributes:
        name: Its name.
        region: Where it is.
        stacks: By part; `None` where there is none.
        queues: Those of the deployment that exist.
        environments: Those behind these queues.
    """

    name: str
    region: str
    stacks: dict[str, Stack | None]
    queues: list[QueueView]
    environments: list[EnvironmentView]

    @property
    def deployed(self) -> bool:
        """Whether there is anything of it."""
        return any(stack is not None for stack in self.stacks.values())


def look(access: Access, name: str) -> Overview:
    """Ask for everything, at once where nothing depends on it.

    Args:
        access: Credentials and region.
        name: Name of the deployment.

    Raises:
        AccessDenied, AwsError: CloudFormation or AWS Batch refused or could not be reached.
    """
    clients = Clients(access)
    formation, region = clients("cloudformation"), clients.region
    with ThreadPoolExecutor(THREADS, thread_name_prefix="status") as pool:
        all_queues = pool.submit(capacity.queues, clients)
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
            (queue.name, state): pool.submit(_count, clients, queue.name, state)
            for queue in queues
            for state in (*ACTIVE_STATES, *TERMINAL_STATES)
        }
        environments = capacity.environments(
            clients, list({arn: None for queue in queues for arn in queue.environments})
        )
        instances = _instances(clients, [each.cluster for each in environments if each.cluster])
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


def _count(clients: Clients, queue: str, state: str) -> Count | None:
    try:
        return capacity.count_jobs(clients, queue, state)
    except AccessDenied:
        return None


def _instances(clients: Clients, clusters: list[str]) -> dict[str, int] | None:
    try:
        return capacity.instances(clients, clusters)
    except AccessDenied:
        return None
