"""The data path against the emulator's S3: once up, checked down, renewed in time, and never held whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro.aws import blob_objects
from covalent_cirro.aws import store as store_module
from covalent_cirro.aws.blob_objects import BlobObjects
from covalent_cirro.aws.blobs import Source
from covalent_cirro.aws.clients import Awaited, run_blocking
from covalent_cirro.aws.sessions import Access
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import checksums
from covalent_cirro.contract.references import Blob, Inline
from covalent_cirro.electron.engine.engine import close_engines, engine_of
from covalent_cirro.errors import CirroError, DigestMismatch
from tests.plugin.conftest import PROFILE, Account


@pytest.fixture
async def store(account: Account) -> AsyncIterator[Store]:
    """The store of a fresh engine."""
    access = Access(PROFILE, account.credentials, account.emulator.region, account.emulator.endpoint_url)
    yield (await engine_of(access)).store
    await close_engines()


class Files:
    """Makes Covalent's files in a folder, and sends them."""

    def __init__(self, account: Account, store: Store, folder: Path) -> None:
        self.account = account
        self.store = store
        self.folder = folder
        self.made = 0

    def source(self, value: Any) -> Source:
        self.made += 1
        path = self.folder / f"{self.made}.tobj"
        path.write_bytes(TransportableObject(value).serialize())
        return Source(str(path), is_tobj=True)

    async def put(self, source: Source, *, inline: bool = True) -> Any:
        bucket = self.account.settings["s3_bucket_name"]
        return await self.store.put(source, bucket, "cirro/", str(self.folder / "cache"), inline=inline)

    def calls(self) -> dict[str, int]:
        counts = self.account.emulator.calls.counts()
        return {operation: entry["count"] for operation, entry in counts.items() if operation.startswith("s3:")}

    def bytes_put(self) -> int:
        counts = self.account.emulator.calls.counts()
        return sum(entry["bytes_in"] for name, entry in counts.items() if name in ("s3:PutObject", "s3:UploadPart"))


@pytest.fixture
def files(account: Account, store: Store, tmp_path: Path) -> Files:
    """Files to send; the emulator counts from zero."""
    account.emulator.calls.reset()
    return Files(account, store, tmp_path)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, other ones for each test."""
    return random.Random(f"{size}-{seed}").randbytes(size)


async def test_a_small_value_rides_inline_and_costs_nothing(files: Files) -> None:
    """No call at all."""
    assert isinstance(await files.put(files.source([1, 2, 3])), Inline)
    assert files.calls() == {}


async def test_a_file_that_forty_electrons_share_goes_up_once(files: Files) -> None:
    """All at the same time, and again later."""
    data = noise(3_000_000, 1)
    source = files.source(data)
    blobs = await asyncio.gather(*(files.put(source) for _ in range(40)))
    assert len(set(blobs)) == 1
    await files.put(source)
    assert files.bytes_put() < 1.01 * len(data)
    assert files.calls()["s3:HeadObject"] == 1


async def test_equal_values_in_forty_files_go_up_once(files: Files) -> None:
    """Covalent keeps a file for each argument of each electron."""
    data = noise(500_000, 2)
    blobs = await asyncio.gather(*(files.put(files.source(data)) for _ in range(40)))
    assert len(set(blobs)) == 1
    assert files.bytes_put() < 1.01 * len(data)


async def test_a_blob_that_another_server_sent_is_not_sent_again(files: Files) -> None:
    """Found by its name."""
    data = noise(400_000, 3)
    first = await files.put(files.source(data))
    await close_engines()
    access = Access(PROFILE, files.account.credentials, "us-east-1", files.account.emulator.endpoint_url)
    files.store = (await engine_of(access)).store
    files.account.emulator.calls.reset()
    assert await files.put(files.source(data)) == first
    assert files.calls() == {"s3:HeadObject": 1}


async def test_a_file_that_was_written_again_is_another_blob(files: Files) -> None:
    """What was learnt about the old content is not believed of the new one."""
    source = files.source(noise(100_000, 4))
    first = await files.put(source)
    Path(source.path).write_bytes(TransportableObject(noise(100_000, 5)).serialize())
    assert await files.put(source) != first


async def test_an_old_blob_is_renewed_without_sending_it(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must outlive the job that is about to wait for it."""
    source = files.source(noise(200_000, 6))
    blob = await files.put(source)
    monkeypatch.setattr(store_module, "TRUSTED_FOR_S", -1.0)
    monkeypatch.setattr(blob_objects, "REFRESH_AFTER_S", -1.0)
    files.account.emulator.calls.reset()
    assert await files.put(source) == blob
    assert files.calls() == {"s3:HeadObject": 1, "s3:CopyObject": 1}
    assert await content(files, blob) == await asyncio.to_thread(source.read)


async def test_a_blob_that_expired_meanwhile_is_sent_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was once seen is not believed for ever."""
    source = files.source(noise(200_000, 7))
    blob = await files.put(source)
    s3, bucket = files.account.client("s3"), files.account.settings["s3_bucket_name"]
    s3.delete_object(Bucket=bucket, Key=f"cirro/blobs/{blob.sha256}")
    monkeypatch.setattr(store_module, "TRUSTED_FOR_S", -1.0)
    assert await files.put(source) == blob
    assert await content(files, blob) == await asyncio.to_thread(source.read)


async def test_who_leaves_while_a_blob_goes_up_does_not_stop_the_others(files: Files) -> None:
    """The upload belongs to all who wait for it."""
    source = files.source(noise(2_000_000, 8))
    first, second = (asyncio.ensure_future(files.put(source)) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert isinstance(await second, Blob)
    with pytest.raises(asyncio.CancelledError):
        await first


async def content(files: Files, blob: Blob) -> bytes:
    """What a blob decodes to."""
    pieces: list[bytes] = []

    @contextmanager
    def begin() -> Iterator[Any]:
        pieces.clear()
        yield pieces.append

    await files.store.read_into(blob, files.account.settings["s3_bucket_name"], "cirro/", begin)
    return b"".join(pieces)


async def test_a_large_blob_passes_in_pieces_both_ways(files: Files) -> None:
    """No piece is larger than a megabyte (the server's memory is watched in tests/covalent)."""
    source = files.source(noise(20_000_000, 9))
    sizes: list[int] = []

    @contextmanager
    def begin() -> Iterator[Any]:
        yield lambda chunk: sizes.append(len(chunk))

    blob = await files.put(source)
    await files.store.read_into(blob, files.account.settings["s3_bucket_name"], "cirro/", begin)
    assert sum(sizes) == blob.raw_size
    assert max(sizes) <= 1024 * 1024


async def test_a_blob_that_is_gone_is_named(files: Files) -> None:
    """Bucket and key."""
    with pytest.raises(CirroError, match="cirro/blobs/" + "0" * 64):
        await content(files, Blob("0" * 64, 1, "raw", 1))


async def test_a_changed_blob_is_refused(files: Files) -> None:
    """Whoever changed it."""
    blob = await files.put(files.source(noise(300_000, 10)))
    s3, bucket = files.account.client("s3"), files.account.settings["s3_bucket_name"]
    s3.put_object(Bucket=bucket, Key=f"cirro/blobs/{blob.sha256}", Body=b"another" * 50_000)
    with pytest.raises(DigestMismatch):
        await content(files, blob)


@pytest.mark.parametrize("size", [300_000, 20_000_000], ids=["in one piece", "in parts"])
async def test_a_blob_that_was_changed_to_other_bytes_of_its_length_is_sent_again(
    files: Files, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's own checksum tells it, at no other call than the HEAD that is made anyway."""
    source = files.source(noise(size, 13))
    blob = await files.put(source)
    s3, bucket, key = files.account.client("s3"), files.account.settings["s3_bucket_name"], "cirro/blobs/"
    s3.put_object(Bucket=bucket, Key=key + blob.sha256, Body=noise(blob.size, 14))
    monkeypatch.setattr(store_module, "TRUSTED_FOR_S", -1.0)
    assert await files.put(source) == blob
    assert await content(files, blob) == await asyncio.to_thread(source.read)
    files.account.emulator.calls.reset()
    assert await files.put(source) == blob
    assert set(files.calls()) == {"s3:HeadObject"}


@pytest.mark.parametrize("size", [300_000, 20_000_000], ids=["in one piece", "in parts"])
async def test_a_blob_that_was_renewed_still_is_that_blob(
    files: Files, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy in place has a checksum of the whole, whatever the original was sent in."""
    source = files.source(noise(size, 15))
    blob = await files.put(source)
    assert await files.store.renew(files.account.settings["s3_bucket_name"], f"cirro/blobs/{blob.sha256}")
    monkeypatch.setattr(store_module, "TRUSTED_FOR_S", -1.0)
    files.account.emulator.calls.reset()
    assert await files.put(source) == blob
    assert files.calls() == {"s3:HeadObject": 1}


async def test_a_blob_of_an_older_version_is_sent_once_more_and_has_its_checksum(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had none, or one of another algorithm, which tells less."""
    source = files.source(noise(300_000, 16))
    blob = await files.put(source)
    s3, bucket, key = files.account.client("s3"), files.account.settings["s3_bucket_name"], f"cirro/blobs/{blob.sha256}"
    s3.put_object(Bucket=bucket, Key=key, Body=s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert "ChecksumSHA256" not in s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    monkeypatch.setattr(store_module, "TRUSTED_FOR_S", -1.0)
    assert await files.store.holds(blob, bucket, "cirro/")
    await files.put(source)
    assert "ChecksumSHA256" in s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")


async def test_results_of_earlier_work_that_were_changed_are_not_there_any_more(files: Files) -> None:
    """They are computed again."""
    blob = await files.put(files.source(noise(300_000, 17)))
    s3, bucket = files.account.client("s3"), files.account.settings["s3_bucket_name"]
    assert await files.store.holds(blob, bucket, "cirro/")
    s3.put_object(
        Bucket=bucket, Key=f"cirro/blobs/{blob.sha256}", Body=noise(blob.size, 18), ChecksumAlgorithm="SHA256"
    )
    assert not await files.store.holds(blob, bucket, "cirro/")


async def test_no_temporary_file_is_left(files: Files) -> None:
    """Neither after success nor after a failure."""
    await files.put(files.source(noise(100_000, 11)))
    with pytest.raises(CirroError):
        await files.store.put(
            files.source(noise(100_000, 12)), "no-such-bucket-here", "", str(files.folder / "cache"), inline=False
        )
    assert list((files.folder / "cache").iterdir()) == []


class RefusesLargeCopies(Awaited):
    """A client of an S3 that takes every object for one of more than 5 GB."""

    async def copy_object(self, **_: Any) -> None:
        said = {
            "Code": "InvalidRequest",
            "Message": "The specified copy source is larger than the maximum allowable size",
        }
        raise ClientError({"Error": said}, "CopyObject")


def test_an_object_that_is_too_large_for_one_copy_is_renewed_in_parts(account: Account, tmp_path: Path) -> None:
    """With the checksum that it had; one that is gone is told as such, and no upload is left over."""
    s3, bucket, access = account.client("s3"), account.settings["s3_bucket_name"], Access(None, None, None, None)
    path = tmp_path / "large"
    path.write_bytes(noise(checksums.PART_BYTES * 2 + 5, 77))
    blob = Blob("ab" * 32, path.stat().st_size, "raw", path.stat().st_size)
    key = f"cirro/blobs/{blob.sha256}"
    blob_objects.upload(s3, blob, str(path), bucket, key, access)
    objects = BlobObjects(RefusesLargeCopies(s3), access)
    before = run_blocking(objects.head(bucket, key))
    account.emulator.calls.reset()
    assert run_blocking(objects.renew(bucket, key))
    assert account.emulator.calls.counts()["s3:UploadPartCopy"]["count"] == 3
    after = run_blocking(objects.head(bucket, key))
    assert before is not None
    assert after is not None
    assert after["ChecksumSHA256"] == before["ChecksumSHA256"]
    assert blob_objects.is_whole(after, blob, str(path))
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == path.read_bytes()
    s3.delete_object(Bucket=bucket, Key=key)
    assert not run_blocking(objects.renew(bucket, key))
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
