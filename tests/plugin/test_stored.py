"""Stored values against the emulator's S3: stored once, given to jobs in place of handles, kept, refused if gone."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from covalent._workflow.transportable_object import TransportableObject
from covalent.executor.utils.wrappers import wrapper_fn

from covalent_cirro import CirroBatchExecutor, stored
from covalent_cirro.aws import blob_objects
from covalent_cirro.electron import without_server
from covalent_cirro.errors import CirroError, DigestMismatch, SettingsError, StoredError
from tests.plugin.conftest import Account

Executor = Callable[..., CirroBatchExecutor]


@dataclass
class Config:
    """An argument that has a handle inside."""

    data: Any
    lr: float


def counts(account: Account) -> dict[str, int]:
    """S3 calls by operation."""
    return {name: each["count"] for name, each in account.emulator.calls.counts().items() if name.startswith("s3:")}


def test_a_value_is_uploaded_once_and_looked_up_by_one_call(account: Account, executor: Executor) -> None:
    """The same content gives an equal handle with the same bytes, which another process can use."""
    value = np.arange(3_000_000, dtype=np.float64) + 0.1
    first = stored(value, executor=executor())
    account.emulator.calls.reset()
    again = stored(value.copy(), executor=executor())
    assert counts(account) == {"s3:HeadObject": 1}
    assert again == first
    assert cloudpickle.dumps(again) == cloudpickle.dumps(first)
    assert len(pickle.dumps(first)) < 600
    assert str(first) == "stored array float64 (3000000,), 24 MB"
    assert repr(first) == "Stored(array float64 (3000000,), 24 MB)"
    assert pickle.loads(pickle.dumps(first)) == first


async def test_an_electron_gets_the_value_wherever_the_handle_is(executor: Executor, metadata: dict[str, Any]) -> None:
    """As an argument, in lists and dicts, in an object, in a closure, in another stored value."""
    made = executor()
    data = stored(np.arange(100_000, dtype=np.float64), executor=made)
    outer = stored({"inner": data, "scale": 2}, executor=made)

    def total(array: Any, many: Any, config: Any, outer: Any = None) -> Any:
        sums = [array.sum(), many["all"][1].sum(), config.data.sum(), outer["inner"].sum() * outer["scale"]]
        return [float(each) for each in (*sums, data.sum())]

    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["x"]))
    try:
        found = await made.run(total, [data, {"all": [1, data]}, Config(data, 0.1)], {"outer": outer}, metadata)
    finally:
        cloudpickle.unregister_pickle_by_value(__import__(__name__, fromlist=["x"]))
    whole = 4999950000.0
    assert found == [whole, whole, whole, 2 * whole, whole]


async def test_a_file_arrives_as_a_path_with_its_name(
    executor: Executor, metadata: dict[str, Any], tmp_path: Path
) -> None:
    """And a folder with all that is in it, links followed; both cannot be written to by their modes."""
    made = executor()
    source = tmp_path / "table é.csv"
    source.write_text("a,b\n" * 50_000)
    folder = tmp_path / "images"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "deep" / "one.bin").write_bytes(os.urandom(1000))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "linked.csv").symlink_to(source)

    def look(file: str, images: str) -> Any:
        import stat
        from pathlib import Path

        paths = sorted(Path(images).rglob("*"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (Path(file), *paths) if path.is_file()}
        return Path(file).name, len(Path(file).read_text()), [str(p.relative_to(images)) for p in paths], modes

    csv, images = stored(path=source, executor=made), stored(path=str(folder), executor=made)
    assert str(csv) == "stored file table é.csv, 200 kB"
    assert str(images).startswith("stored folder images (3 files), ")
    name, size, paths, modes = await made.run(look, [csv, images], {}, metadata)
    assert (name, size) == ("table é.csv", 200_000)
    assert paths == ["deep", "deep/empty", "deep/one.bin", "linked.csv", "run.sh"]
    assert modes == {"table é.csv": 0o444, "one.bin": 0o444, "linked.csv": 0o444, "run.sh": 0o555}


async def test_a_value_that_is_gone_is_refused_before_there_is_a_job(
    account: Account, executor: Executor, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With words; and stored again, it is there for the same handle."""
    made = executor()
    data = stored(b"gone" * 100_000, executor=made)
    bucket, key = data.uri.removeprefix("s3://").split("/", 1)
    account.client("s3").delete_object(Bucket=bucket, Key=key)
    with pytest.raises(StoredError, match=r"The stored bytes, 400 kB .* not in the bucket .* No job was submitted"):
        await without_server.upload(made.settings, len, [data], {}, metadata)
    assert stored(b"gone" * 100_000, executor=made) == data
    assert await made.run(len, [data], {}, metadata) == 400_000


async def test_a_value_in_another_bucket_is_refused(executor: Executor, metadata: dict[str, Any]) -> None:
    """The job could not read it."""
    data = stored([1], executor=executor(s3_prefix="cirro/elsewhere"))
    with pytest.raises(SettingsError, match=r"s3://.*/cirro/elsewhere/.*executor="):
        await without_server.upload(executor().settings, len, [data], {}, metadata)


async def test_what_a_waiting_job_names_is_renewed_and_listed(
    account: Account, executor: Executor, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the send, where it is old; its key is among those that are renewed while the job waits."""
    made = executor()
    data = stored(b"kept" * 100_000, executor=made)
    monkeypatch.setattr(blob_objects, "REFRESH_AFTER_S", -1.0)
    account.emulator.calls.reset()
    written = await without_server.upload(made.settings, len, [data], {}, metadata)
    assert counts(account)["s3:CopyObject"] == 1
    assert data.uri.split("/", 3)[3] in written.keys
    assert [each.label for each in written.call.stored] == ["bytes, 400 kB"]


def test_a_handle_is_read_where_its_user_wants_it(account: Account, executor: Executor, tmp_path: Path) -> None:
    """From the bucket once, then from a private folder, with the values inside."""
    made = executor()
    inner = stored([1, 2], executor=made)
    handle = stored({"x": inner, "y": np.arange(50_000)}, executor=made)
    loaded = handle.load(executor=made)
    assert loaded["x"] == [1, 2]
    assert loaded["y"].sum() == np.arange(50_000).sum()
    assert oct((tmp_path / "cache" / "stored").stat().st_mode)[-3:] == "700"
    account.emulator.calls.reset()
    assert handle.load(executor=made)["x"] == [1, 2]
    assert counts(account) == {}
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    copy = Path(stored(path=folder, executor=made).load(executor=made))
    assert (copy.name, (copy / "a.txt").read_text()) == ("pictures", "a")
    with pytest.raises(AttributeError, match=r"handle, which has no 'shape'.*load\(\)"):
        _ = handle.shape


def test_covalents_other_executors_give_the_value_and_their_own_nodes_the_handle(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Dask's workers run electrons, and nodes that make lists."""
    made = executor()
    monkeypatch.setattr("covalent_cirro.stored_values.user_cache.settings_of", lambda _: made.settings)
    handle = stored([1, 2, 3], executor=made)

    def _auto_list_node(*values: Any) -> list[Any]:
        return list(values)

    def electron(values: list[int], more: Any) -> int:
        return sum(values) + sum(more["x"])

    def run(function: Any, *args: Any) -> Any:
        return wrapper_fn(TransportableObject(function), [], [], *map(TransportableObject, args)).get_deserialized()

    assert run(electron, handle, {"x": handle}) == 12
    assert run(_auto_list_node, handle, 4) == [handle, 4]


def test_tensors_come_back_as_they_were(executor: Executor) -> None:
    """Views, parameters, types that NumPy lacks, and empty ones."""
    torch = pytest.importorskip("torch")
    made = executor()
    given = {
        "view": torch.arange(200_000).reshape(2, -1).t(),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0),
        "weight": torch.nn.Parameter(torch.rand(4)),
    }
    handle = stored(given, executor=made)
    loaded = handle.load(executor=made)
    assert all(torch.equal(loaded[name], each) for name, each in given.items())
    assert loaded["weight"].requires_grad
    loaded["view"][0, 0] = 7  # memory that can be written to
    assert str(stored(given["view"], executor=made)).startswith("stored tensor int64 (100000, 2), ")


def test_changed_bytes_are_refused_where_they_are_read(account: Account, executor: Executor) -> None:
    """And what is gone, with words; nothing of it stays in the folder."""
    made = executor()
    handle = stored(b"mine" * 50_000, executor=made)
    bucket, key = handle.uri.removeprefix("s3://").split("/", 1)
    account.client("s3").put_object(Bucket=bucket, Key=key, Body=b"other")
    with pytest.raises(DigestMismatch, match="is damaged"):
        handle.load(executor=made)
    account.client("s3").delete_object(Bucket=bucket, Key=key)
    with pytest.raises(StoredError, match=r"not in the bucket any more.*Call stored"):
        handle.load(executor=made)
    assert stored(b"mine" * 50_000, executor=made).load(executor=made) == b"mine" * 50_000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one thing to store"),
        ({"value": 1, "path": "x"}, "one thing to store"),
        ({"path": "/nowhere"}, "no such file or folder"),
        ({"path": "/dev/null"}, "neither a file nor a folder"),
        ({"value": open}, None),
        ({"value": (each for each in ())}, "cannot be pickled"),
        ({"value": 1, "executor": "dask"}, "has no bucket"),
    ],
)
def test_what_cannot_be_stored_is_refused(executor: Executor, given: dict[str, Any], said: str | None) -> None:
    """With a reason."""
    if said is None:
        assert stored(**{"executor": executor(), **given})
        return
    with pytest.raises(CirroError, match=said):
        stored(**{"executor": executor(), **given})
