"""What queues run on, as far as a report needs it: markets and instance types, from their compute environments."""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.aws.clients import run_blocking
from covalent_cirro.aws.prices import ON_DEMAND, SPOT, shipped
from covalent_cirro.errors import CirroError
from covalent_cirro.history.account import Account
from covalent_cirro.history.report.runs import QueueMachines
from covalent_cirro.jobs.machines import of_environment
from covalent_cirro.jobs.queues import Environment

MARKETS = {"SPOT": SPOT, "EC2": ON_DEMAND, "FARGATE_SPOT": SPOT, "FARGATE": ON_DEMAND}
"""Markets by the type of a compute environment (Batch API Reference, ComputeResource)."""


def machines_of(account: Account, queues: Iterable[str], notes: list[str]) -> dict[str, QueueMachines]:
    """The machines of queues, by name; none, and a note, where AWS does not say."""
    try:
        found = environments(account, queues)
    except CirroError as error:
        notes.append(f"What queues run on could not be seen: {error}")
        return {}
    return {name: queue_machines(each) for name, each in found.items()}


def environments(account: Account, queues: Iterable[str]) -> dict[str, list[Environment]]:
    """The compute environments of queues, by the queue's name, in their order.

    Raises:
        AccessDenied, AwsError: AWS did not describe them.
    """
    names = list(queues)
    return account.ask(
        "batch:DescribeComputeEnvironments", lambda: run_blocking(account.capacity.environments_of(names))
    )


def queue_machines(found: list[Environment]) -> QueueMachines:
    """The instances of a queue, from its compute environments."""
    markets = {MARKETS.get(each.kind, "") for each in found}
    first = found[0].instance_types if found else ()
    return QueueMachines(
        market_of_cluster={each.cluster.rpartition("/")[2]: MARKETS.get(each.kind, "") for each in found},
        market=markets.pop() if len(markets) == 1 else "",
        kinds=of_environment(first, shipped().types),
    )
