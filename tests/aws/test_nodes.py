"""What only a real account can show of electrons on several machines: addresses, the security group, AWS's own states.

On a deployment of its own, which goes when they end.
"""

from __future__ import annotations

import sys

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from tests.aws.conftest import Make, deploy, executors, metadata
from tests.aws.walk import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def executor(account: Account, parameters: dict[str, object]) -> Make:
    """Makes executors of small jobs on two machines."""
    return executors(account, deploy(account, {**parameters, "MultiNodeMaxVcpus": 4}), num_nodes=2)


def gather() -> list[str]:
    """The main node's process gets a word of each other one, over the port that all have been given."""
    import os
    import socket
    import time

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    print(f"rank {rank} of {world}", flush=True)
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    own = f"{rank} on {socket.gethostname()}"
    if rank:
        while True:
            try:
                with socket.create_connection(where, 5) as connection:
                    connection.sendall(own.encode())
                return []
            except OSError:
                time.sleep(1)
    found = [own]
    with socket.create_server(("", where[1])) as server:
        while len(found) < world:
            connection, _ = server.accept()
            with connection, connection.makefile("r") as file:
                found.append(file.read())
    return sorted(found)


async def test_processes_on_two_machines_reach_one_another(executor: Make, account: Account) -> None:
    """Through the security group of the deployment; the log of the other node can be read."""
    place = metadata()
    found = await executor(processes_per_node=2).run(gather, [], {}, place)
    assert [each.split()[0] for each in found] == ["0", "1", "2", "3"]
    assert len({each.split()[-1] for each in found}) == 2
    told = account.cirro("show", f"{place['dispatch_id']}:0")
    assert [each["end"] for each in told["nodes"]] == ["done", "done"]
    assert len(told["cost"]["attempts"]) == 2


async def test_error_of_another_machine_ends_all(executor: Make) -> None:
    """It is the electron's error."""

    def fail() -> None:
        import os
        import time

        if os.environ["RANK"] == "1":
            raise ValueError("no such luck")
        time.sleep(600)

    with pytest.raises(TaskRuntimeError, match="rank 1 on node 1: ValueError: no such luck"):
        await executor().run(fail, [], {}, metadata())
