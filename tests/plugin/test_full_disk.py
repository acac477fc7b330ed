"""A full disk of the server, while electrons are sent and results fetched: told as that, waited for, nothing lost."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import platform
import random
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest
from covalent._shared_files import TaskCancelledError
from covalent._shared_files.util_classes import RESULT_STATUS
from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro import CirroBatchExecutor, local_files
from covalent_cirro.contract import tobj
from covalent_cirro.covalent_server import assets, view
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron.cache_folder import LOCK
from covalent_cirro.local_files import Disk
from tests.plugin.conftest import Account
from tests.plugin.dispatches import keep

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Make = Callable[..., CirroBatchExecutor]
PATIENCE_S = 60.0
SIZE = 300_000


def noise(seed: str, size: int) -> bytes:
    """An electron whose result does not compress."""
    return random.Random(seed).randbytes(size)


class Server(NamedTuple):
    """One electron in a server's files, whose database is all that is not there."""

    made: CirroBatchExecutor
    dispatch_id: str
    folder: Path
    said: pytest.LogCaptureFixture

    @property
    def metadata(self) -> dict[str, Any]:
        return {"dispatch_id": self.dispatch_id, "node_ids": [0], "task_group_id": 0}

    async def send(self) -> Any:
        spec = type("TaskSpec", (), {"electron_id": 0, "args": [1, 2], "kwargs": {}})
        return await self.made.send([spec], None, self.metadata)

    async def receive(self, polled: Any) -> Any:
        (update,) = await self.made.receive(self.metadata, polled)
        return update

    async def told(self, words: str) -> None:
        """Wait for a line of the log."""
        deadline = time.monotonic() + PATIENCE_S
        while not any(words in record.getMessage() for record in self.said.records):
            assert time.monotonic() < deadline, self.said.text
            await asyncio.sleep(0.02)

    def result(self) -> Any:
        return TransportableObject.deserialize((self.folder / "output").read_bytes()).get_deserialized()


@pytest.fixture
def server(executor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Server:
    """An electron to be sent, with an input too large to travel inline."""
    caplog.set_level(logging.INFO)
    folder, dispatch_id = tmp_path / "node", str(uuid.uuid4())
    folder.mkdir()
    for name, value in {"function": noise, "1": dispatch_id + "x" * 30_000, "2": SIZE}.items():
        (folder / name).write_bytes(TransportableObject(value).serialize())
    node = Node(0, 0, "noise", {key: str(folder / key) for key in ("function", "output", "stdout", "stderr", "error")})
    group = Group({0: node}, {1: str(folder / "1"), 2: str(folder / "2")}, "flow", platform.python_version(), "0.240.0")
    monkeypatch.setattr(assets, "load_group", lambda *_: group)
    monkeypatch.setattr(assets, "write_statuses", lambda _: None)
    monkeypatch.setattr(view, "write_panels", lambda *_: None)
    monkeypatch.setattr(CirroBatchExecutor, "_keep_handle", keep)
    monkeypatch.setattr("covalent_cirro.electron.patience.FIRST_PAUSE_S", 0.02)
    return Server(executor(), dispatch_id, folder, caplog)


def bytes_read(account: Account) -> int:
    """Bytes that were read of objects since `calls.reset`."""
    return int(account.emulator.calls.counts().get("s3:GetObject", {"bytes_out": 0})["bytes_out"])


async def ended(server: Server) -> Any:
    """What `poll` gives of the electron's job."""
    return await server.made.poll(server.metadata, await server.send())


async def test_a_result_that_finds_the_disk_full_is_fetched_once_there_is_room(server: Server) -> None:
    """The first file that it is written to is Linux's /dev/full, which is removed as what is half written."""
    polled = await ended(server)
    half_written = server.folder / "output.new"
    half_written.symlink_to("/dev/full")
    update = await server.receive(polled)
    assert update.status == RESULT_STATUS.COMPLETED
    assert server.result() == noise(server.dispatch_id + "x" * 30_000, SIZE)
    (line,) = [
        record.getMessage() for record in server.said.records if "its result is kept in S3" in record.getMessage()
    ]
    assert "output, which needs" in line
    assert "No space left on device" in line
    assert not half_written.is_symlink()


async def test_a_disk_that_fills_up_halfway_is_no_reason_to_fetch_again_and_again(
    server: Server, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as what it is, nothing half written is left meanwhile, and the result comes once it is mended."""
    polled = await ended(server)
    write = tobj.PickleWriter.write
    is_full = True

    def until_full(self: tobj.PickleWriter, chunk: bytes) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, chunk)

    monkeypatch.setattr(tobj.PickleWriter, "write", until_full)
    monkeypatch.setattr("covalent_cirro.electron.patience.FIRST_PAUSE_S", 2.0)
    account.emulator.calls.reset()
    receiving = asyncio.create_task(server.receive(polled))
    await server.told("No space left on device")
    assert not (server.folder / "output.new").exists()
    is_full = False
    assert (await asyncio.wait_for(receiving, PATIENCE_S)).status == RESULT_STATUS.COMPLETED
    assert server.result() == noise(server.dispatch_id + "x" * 30_000, SIZE)
    assert bytes_read(account) < 2.2 * SIZE
    assert "could not reach AWS" not in server.said.text


async def test_nothing_is_fetched_for_a_result_that_has_no_room(
    server: Server, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is known from the outcome; it is fetched as soon as somebody made room."""
    polled = await ended(server)
    free = [local_files.RESERVE_BYTES + SIZE]
    monkeypatch.setattr(local_files, "disk_of", lambda path: Disk(1, 10**12, free[0]))
    account.emulator.calls.reset()
    receiving = asyncio.create_task(server.receive(polled))
    await server.told("output, which needs 410.0 kB")
    assert bytes_read(account) < SIZE
    assert not (server.folder / "output.new").exists()
    free[0] += SIZE
    assert (await asyncio.wait_for(receiving, PATIENCE_S)).status == RESULT_STATUS.COMPLETED
    assert bytes_read(account) > SIZE
    assert server.result() == noise(server.dispatch_id + "x" * 30_000, SIZE)


async def test_an_electron_whose_input_finds_no_room_is_submitted_once_there_is(
    server: Server, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left in the folder meanwhile, and no job is submitted."""
    free = [0]
    monkeypatch.setattr(local_files, "disk_of", lambda path: Disk(1, 10**12, free[0]))
    account.emulator.calls.reset()
    sending = asyncio.create_task(server.send())
    await server.told("Nothing was submitted yet")
    assert "batch:SubmitJob" not in account.emulator.calls.counts()
    cache = Path(server.made.settings.cache_dir)
    assert [path for path in cache.rglob("*") if path.is_file() and path.name != LOCK] == []
    free[0] = 10**12
    polled = await server.made.poll(server.metadata, await asyncio.wait_for(sending, PATIENCE_S))
    assert (await server.receive(polled)).status == RESULT_STATUS.COMPLETED
    assert account.emulator.calls.counts()["batch:SubmitJob"]["count"] == 1


async def test_who_waits_for_room_can_be_cancelled(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once."""
    monkeypatch.setattr(local_files, "disk_of", lambda path: Disk(1, 10**12, 0))
    sending = asyncio.create_task(server.send())
    await server.told("Nothing was submitted yet")
    assert await server.made.cancel({"dispatch_id": server.dispatch_id, "node_id": 0}, None)
    with pytest.raises(TaskCancelledError):
        await asyncio.wait_for(sending, PATIENCE_S)


async def test_a_package_that_finds_no_room_is_waited_for_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half of an archive is left, which the next would take for a whole one."""
    package = tmp_path / "mylab"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    server.made.__dict__["local_packages"] = [str(package)]
    cache = Path(server.made.settings.cache_dir)
    free = [local_files.RESERVE_BYTES]
    monkeypatch.setattr(local_files, "disk_of", lambda path: Disk(1, 10**12, free[0]))
    sending = asyncio.create_task(server.send())
    await server.told("Nothing was submitted yet")
    assert not list(cache.rglob("*.zip"))
    free[0] = 10**12
    sent = await asyncio.wait_for(sending, PATIENCE_S)
    assert (await server.receive(await server.made.poll(server.metadata, sent))).status == RESULT_STATUS.COMPLETED
