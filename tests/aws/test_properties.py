"""What only a real account can show of properties of jobs, shares, consumable resources and shared files.

On a deployment of its own, which goes when they end; the file system is deleted with it.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator

import cloudpickle
import pytest

from tests.aws.conftest import Make, deploy, executors, metadata
from tests.aws.walk import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def executor(account: Account, parameters: dict[str, object]) -> Iterator[Make]:
    """Makes executors of small jobs, in fair queues, with shared files."""
    settings = deploy(account, {**parameters, "FairShare": "true", "SharedFileSystem": "true"})
    try:
        yield executors(account, settings)
    finally:
        deploy(account, {"SharedFileSystem": "false"})
        account.client("efs").delete_file_system(FileSystemId=settings["shared_files"].partition("/")[0])


async def test_electrons_share_files(executor: Make) -> None:
    """What one wrote, another reads: TLS, the access point and the job role's right work together."""

    def write(text: str) -> None:
        with open("/shared/note", "w") as file:
            file.write(text)

    def read() -> str:
        with open("/shared/note") as file:
            return file.read()

    await executor().run(write, ["from another job"], {}, metadata())
    assert await executor().run(read, [], {}, metadata()) == "from another job"


async def test_a_read_only_root_with_a_tmpfs_and_limits(executor: Make) -> None:
    """As the container engine of ECS applies them."""

    def look() -> tuple[tuple[int, int], bool]:
        import os
        import resource
        import tempfile

        with tempfile.NamedTemporaryFile():
            return resource.getrlimit(resource.RLIMIT_NOFILE), os.access("/usr/local", os.W_OK)

    properties = {
        "readonlyRootFilesystem": True,
        "ulimits": [{"name": "nofile", "softLimit": 500, "hardLimit": 600}],
        "linuxParameters": {"tmpfs": [{"containerPath": "/tmp", "size": 64, "mountOptions": ["mode=1777"]}]},
    }
    assert await executor(job_properties=properties).run(look, [], {}, metadata()) == ((500, 600), False)


async def test_a_share_with_a_priority_and_tags(executor: Make) -> None:
    """AWS Batch takes them on a queue with a scheduling policy."""
    made = executor(share_identifier="physics", scheduling_priority=5, tags={"project": "a b"})
    assert await made.run(len, ["abc"], {}, metadata()) == 3


async def test_a_licence_is_held_by_one_job_at_a_time(executor: Make, account: Account) -> None:
    """Two jobs and one licence: their times do not overlap."""

    def hold() -> tuple[float, float]:
        import time

        begin = time.time()
        time.sleep(5)
        return begin, time.time()

    batch, name = account.client("batch"), f"cirro-test-{uuid.uuid4().hex[:8]}"
    batch.create_consumable_resource(consumableResourceName=name, totalQuantity=1)
    try:
        made = executor(consumable_resources={name: 1})
        first, second = sorted(await asyncio.gather(*(made.run(hold, [], {}, metadata()) for _ in range(2))))
        assert first[1] <= second[0]
    finally:
        batch.delete_consumable_resource(consumableResource=name)
