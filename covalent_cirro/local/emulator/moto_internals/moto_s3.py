"""Reads buckets of moto's S3, and replaces how it keeps, describes and permits objects.

moto reads an object anew for every GET: 100 parallel reads of a dataset would hold 100 copies.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from typing import Any

from covalent_cirro.local.emulator.moto_internals.loading import once, preload, replace

CACHE_BYTES = 256 * 1024 * 1024
"""The bodies that were read last stay in memory, up to this size together."""
SMALL_BYTES = 1024 * 1024
"""Bodies up to this size are not kept: reading them again costs next to nothing."""


def bucket_policy(bucket: str) -> str | None:
    """The policy of a bucket; `None` if it has none, or there is no such bucket."""
    found = _bucket(bucket)
    return None if found is None or found.policy is None else str(found.policy.decode())


def object_is_missing(bucket: str, key: str) -> bool:
    """Whether a bucket exists and has no such key."""
    found = _bucket(bucket)
    return found is not None and found.keys.get(key) is None


def _bucket(name: str) -> Any:
    preload()
    from moto.s3.models import s3_backends

    owner = s3_backends.bucket_accounts.get(name)
    return None if owner is None else s3_backends[owner[1]][owner[0]].buckets.get(name)


# --- replacements -----------------------------------------------------------------------------------------------------


@once
def install() -> None:
    """Replace what moto's S3 does otherwise than AWS."""
    _share_bodies()
    _number_parts()
    _leave_policies_to_iam()


class _Cache:
    """Bodies of moto's keys that were read last, by the key object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[int, bytes] = {}
        self._size = 0

    def get(self, key: Any) -> bytes | None:
        with self._lock:
            data = self._bodies.pop(id(key), None)
            if data is not None:
                self._bodies[id(key)] = data
            return data

    def put(self, key: Any, data: bytes) -> None:
        if not SMALL_BYTES < len(data) <= CACHE_BYTES:
            return
        with self._lock:
            if id(key) not in self._bodies:
                weakref.finalize(key, self.drop, id(key))
                self._bodies[id(key)] = data
                self._size += len(data)
            while self._size > CACHE_BYTES:
                oldest = next(iter(self._bodies))
                self._size -= len(self._bodies.pop(oldest))

    def drop(self, number: int) -> None:
        with self._lock:
            self._size -= len(self._bodies.pop(number, b""))


_cache = _Cache()


def _share_bodies() -> None:
    """Keys share one copy of a body among all who read it."""
    from moto.s3.models import FakeKey

    key_type: Any = FakeKey
    write = key_type.value.fset

    def get_value(self: Any) -> bytes:
        with self.lock:
            data = _cache.get(self)
            if data is None:
                self._value_buffer.seek(0)
                data = self._value_buffer.read()
                _cache.put(self, data)
            return data

    def set_value(self: Any, new: bytes) -> None:
        _cache.drop(id(self))
        if self._etag is None and isinstance(new, bytes):
            # moto would compute it later, moving the file's position under a parallel read.
            self._etag = hashlib.md5(new, usedforsecurity=False).hexdigest()
        write(self, new)

    replace(key_type, "value", property(get_value, set_value))


def _number_parts() -> None:
    """HeadObject gives the checksum of an object that was sent in parts with the number of parts, as S3 does.

    moto 5.2.5 does so in GetObject only.
    """
    from moto.s3.models import S3Backend

    complete: Any = S3Backend.complete_multipart_upload

    def complete_multipart_upload(self: Any, *arguments: Any, **options: Any) -> Any:
        key = complete(self, *arguments, **options)
        if key is not None and key.checksum_type == "COMPOSITE" and key.checksum_value:
            key.checksum_value, key.checksum_type = f"{key.checksum_value}-{key.checksum_parts}", None
        return key

    replace(S3Backend, "complete_multipart_upload", complete_multipart_upload)


def _leave_policies_to_iam() -> None:
    """moto decides on bucket policies without their conditions; `iam.enforcement` decides on them before."""
    from moto.iam.access_control import PermissionResult
    from moto.s3.models import FakeBucket

    def get_permission(bucket: Any, action: str, resource: str) -> Any:
        return PermissionResult.NEUTRAL

    replace(FakeBucket, "get_permission", get_permission)
