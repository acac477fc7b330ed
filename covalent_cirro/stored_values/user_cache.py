"""Reads stored values outside of jobs, by a folder of this user with the bytes that were fetched.

The folder is ``cirro/stored`` in Covalent's cache folder, private to the user. Bytes are checked against their digest
when they come in. What has not been used for `KEPT_S` is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from covalent_cirro import local_files, private
from covalent_cirro.aws import blobs
from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.electron import cache_folder
from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import Settings
from covalent_cirro.stored_values import unpacking
from covalent_cirro.stored_values.buckets import Bucket, settings_of
from covalent_cirro.stored_values.progress_bar import progress

KEPT_S = 30 * 24 * 3600.0
"""Seconds for which bytes are kept after their last use."""

FOLDER = "stored"

_outer: ContextVar[Settings | None] = ContextVar("outer", default=None)
"""Settings with which a value is read whose inner handles are unpickled now."""


def load(reference: StoredReference, executor: Any = None) -> Any:
    """The value of a reference, or the path of its file or folder; see `handles.Stored.load`."""
    settings = (_outer.get() if executor is None else None) or settings_of(executor)
    place = _folder(settings.cache_dir)
    path = place / f"{reference.blob.sha256}.bytes"
    with _alone(place, reference.blob.sha256):
        if not path.exists() or path.stat().st_size != reference.blob.raw_size:
            _fetch(Bucket(settings, reference.bucket, reference.prefix), reference, place, path)
            _clear(place)
        os.utime(path)
        if os.path.isdir(place / reference.blob.sha256):
            os.utime(place / reference.blob.sha256)
    token = _outer.set(settings)
    try:
        return unpacking.opened(reference, str(path), str(place))
    finally:
        _outer.reset(token)


def _folder(cache_dir: str | None) -> Path:
    place = cache_folder.common_folder(cache_dir)
    try:
        with local_files.errors_about(str(place)):
            return private.folder(private.folder(place) / FOLDER)
    except private.NotPrivate as error:
        raise SettingsError(f"stored values cannot be kept in {place}: {error}") from error


def _fetch(bucket: Bucket, reference: StoredReference, place: Path, path: Path) -> None:
    blob = reference.blob
    with local_files.errors_about(str(place)):
        local_files.require_room(str(place), blob.size + blob.raw_size)
        made = tempfile.mkdtemp(prefix=".fetch-", dir=place)
    try:
        stored, decoded = os.path.join(made, "stored"), os.path.join(made, "decoded")
        with progress(f"fetching {reference.label}", blob.size) as received:
            bucket.download(blob, reference.label, stored, received)
        with local_files.errors_about(str(place)), open(stored, "rb") as source, open(decoded, "wb") as target:
            blobs.decode(iter(lambda: source.read(blobs.CHUNK_BYTES), b""), blob, target.write)
        os.chmod(decoded, unpacking.FILE_MODE)
        os.replace(decoded, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove what has not been used for long."""
    for each in place.iterdir():
        with contextlib.suppress(OSError):  # another process removes it too
            if time.time() - each.stat().st_mtime > KEPT_S:
                shutil.rmtree(each) if each.is_dir() else each.unlink()


@contextlib.contextmanager
def _alone(place: Path, sha256: str) -> Iterator[None]:
    """Keep other processes from fetching the same bytes at the same time."""
    with open(place / f"{sha256}.lock", "ab", opener=private.opener) as lock:
        with contextlib.suppress(OSError):  # a file system without locks: then both fetch
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
