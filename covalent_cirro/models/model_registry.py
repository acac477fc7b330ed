"""The registry of models in a bucket: registers versions, finds them, and moves the pointer to the current one.

A version is complete or not there: its document is put last, and nothing is put over anything. Of several that move
the pointer at the same time, S3 decides who is the first (`model_objects`); no move is lost without a word.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import IO, Any, NamedTuple

from covalent_cirro.aws.sessions import Access
from covalent_cirro.errors import ModelError
from covalent_cirro.models import model_version
from covalent_cirro.models.model_objects import BucketObjects, Objects
from covalent_cirro.models.model_version import DOCUMENT, WEIGHTS, Listing, ModelFile, ModelVersion
from covalent_cirro.settings import Settings

MAX_MOVES = 20
"""Times that a new version is made the current one, at most, while others move the pointer."""

_POINTER_BYTES = 1024
_CHUNK = 1024 * 1024
_THREADS = 8

Content = bytes | str | os.PathLike[str]
"""Bytes of a file of a version, or the path of a file that has them."""


class ModelRegistry:
    """Models under one prefix of a bucket. Its calls block.

    Args:
        objects: The bucket.
        bucket: Name of the bucket.
        prefix: Prefix of its keys: empty, or ends with a slash.
        now: The time, in UTC.
    """

    def __init__(
        self,
        objects: Objects,
        bucket: str,
        prefix: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._objects = objects
        self._bucket = bucket
        self._prefix = prefix
        self._now = now

    # --- what is there ---

    def names(self) -> list[str]:
        """Names of all models."""
        found = self._objects.folders(model_version.models_base(self._prefix))
        return sorted(each for each in found if model_version.is_name(each))

    def listing(self, name: str) -> Listing:
        """Names of the versions of a model, the newest first; none where there is no such model."""
        base = model_version.model_base(self._prefix, name)
        return model_version.listing(self._objects.keys(base), base)

    def versions(self, name: str) -> list[ModelVersion]:
        """The versions of a model, the newest first; none where there is no such model.

        Raises:
            ModelError: A document cannot be read.
        """
        complete = self.listing(name).complete
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="cirro-models") as threads:
            return list(threads.map(lambda version: self.version(name, version), complete))

    def version(self, name: str, version: str) -> ModelVersion:
        """One version of a model.

        Raises:
            ModelError: There is no such version, or its document cannot be read.
        """
        key = model_version.file_key(self._prefix, name, version, DOCUMENT)
        found = self._objects.read(key, model_version.MAX_DOCUMENT_BYTES)
        if found is None:
            raise ModelError(f"the model {name!r} has no version {version}. {self.what_there_is(name)}")
        return model_version.parse(found[0], name, version)._replace(uri=self._uri(name, version))

    def current(self, name: str) -> ModelVersion:
        """The version that the pointer of a model names.

        Raises:
            ModelError: There is no such model, it has no current version, or the pointer names one that is not there.
        """
        version = self.current_name(name)
        if version is None:
            raise ModelError(f"the model {name!r} has no current version. {self.what_there_is(name)}")
        return self.version(name, version)

    def current_name(self, name: str) -> str | None:
        """Name of the version that the pointer of a model names; `None` where there is no pointer.

        Raises:
            ModelError: The pointer names no version: something else has written it.
        """
        pointer = self._pointer(name)
        if pointer.version is None and pointer.etag is not None:
            raise ModelError(
                f"s3://{self._bucket}/{model_version.pointer_key(self._prefix, name)} names no version: something else "
                f"than covalent-cirro has written it. `cirro models {name} --point VERSION` writes it anew."
            )
        return pointer.version

    def read(self, name: str, version: str, file: str) -> bytes:
        """The bytes of a file of a version, checked against their digest.

        Raises:
            ModelError: There is no such version or file, or it has other bytes than were registered.
        """
        listed = self.version(name, version).files
        if file not in listed:
            raise ModelError(f"version {version} of the model {name!r} has no {file}: it has {', '.join(listed)}.")
        found = self._objects.read(model_version.file_key(self._prefix, name, version, file), listed[file].size)
        if found is None or hashlib.sha256(found[0]).hexdigest() != listed[file].sha256:
            what = "is not there any more" if found is None else "has other bytes than were registered"
            raise ModelError(
                f"{self._uri(name, version)}/{file} {what}: somebody who may do so has changed the bucket. Use another "
                f"version (`cirro models {name}` lists them), or register the model again."
            )
        return found[0]

    def what_there_is(self, name: str) -> str:
        """The versions of a model; where there are none, the models that there are. For messages."""
        listing = self.listing(name)
        if listing.complete:
            return f"It has {', '.join(listing.complete[:5])}{' and older ones' if len(listing.complete) > 5 else ''}."
        others = self.names()
        has = f"that has {', '.join(others)}" if others else "that has no models"
        return f"There is no such model in s3://{self._bucket}/{model_version.models_base(self._prefix)}, {has}."

    # --- changes ---

    def register(
        self,
        name: str,
        weights: bytes,
        files: Mapping[str, Content],
        *,
        dispatch: str | None,
        node: int | None,
        data_digest: str | None,
        metrics: Mapping[str, Any],
        parameters: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> ModelVersion:
        """Put a new version, and make it the current one.

        If a newer version has become the current one meanwhile, that one stays it.

        Args:
            name: Name of the model.
            weights: Bytes of the file ``weights.safetensors``.
            files: Other files, by name.
            dispatch: As in `ModelVersion`, like what follows.

        Raises:
            ModelError: A name cannot be one, a file is too large, or a fact cannot be written as JSON.
            OSError: A file cannot be read.
            AwsError: S3 refuses, or cannot be reached. There is no half version then.
        """
        for file in files:
            if file in (WEIGHTS, DOCUMENT):
                raise ModelError(f"a version has a file {file} of its own: call yours otherwise.")
        contents: dict[str, Content] = {WEIGHTS: weights, **files}
        made = model_version.made(
            name,
            self._now(),
            {file: _facts(file, content) for file, content in contents.items()},
            dispatch=dispatch,
            node=node,
            data_digest=data_digest,
            metrics=metrics,
            parameters=parameters,
            versions=versions,
        )
        keys = {file: model_version.file_key(self._prefix, name, made.version, file) for file in contents}
        before = self._pointer(name)
        for file, content in contents.items():
            with _opened(content) as body:
                self._objects.put_new(keys[file], body, *made.files[file])
        document = model_version.encode(made)
        self._objects.put_new(
            model_version.file_key(self._prefix, name, made.version, DOCUMENT),
            io.BytesIO(document),
            hashlib.sha256(document).hexdigest(),
            len(document),
        )
        self._advance(name, made.version, before)
        return made._replace(uri=self._uri(name, made.version))

    def point(self, name: str, version: str) -> ModelVersion:
        """Make a version the current one.

        Raises:
            ModelError: There is no such version; or somebody else has moved the pointer at the same time.
        """
        before = self._pointer(name)
        found = self.version(name, version)
        if before.version == version or self._swap(name, version, before.etag):
            return found
        now = self.current_name(name)
        if now != version:
            raise ModelError(
                f"{version} is not the current version of {name!r}: at the same time, somebody else has made {now} "
                f"the current one. Call `cirro models {name} --point {version}` again if that is not to stay."
            )
        return found

    def _advance(self, name: str, version: str, before: _Pointer) -> None:
        """Make a new version the current one, unless a newer one has become it since ``before`` was read."""
        for _ in range(MAX_MOVES):
            if self._swap(name, version, before.etag):
                return
            before = self._pointer(name)
            if before.version is not None and before.version >= version:
                return
        raise ModelError(
            f"{version} of the model {name!r} is registered, but not the current version: others move the pointer all "
            f"the time. `cirro models {name} --point {version}` makes it that."
        )

    # --- the pointer ---

    def _pointer(self, name: str) -> _Pointer:
        found = self._objects.read(model_version.pointer_key(self._prefix, name), _POINTER_BYTES)
        return _Pointer(None, None) if found is None else _Pointer(model_version.parse_pointer(found[0]), found[1])

    def _swap(self, name: str, version: str, etag: str | None) -> bool:
        key = model_version.pointer_key(self._prefix, name)
        return self._objects.swap(key, model_version.encode_pointer(version), etag)

    def _uri(self, name: str, version: str) -> str:
        return f"s3://{self._bucket}/{model_version.model_base(self._prefix, name)}{version}"


class _Pointer(NamedTuple):
    """The pointer as it was read.

    Attributes:
        version: The version that it names; `None` where it names none, or there is no pointer.
        etag: Its ETag; `None` where there is no pointer.
    """

    version: str | None
    etag: str | None


def registry_of(access: Access, settings: Settings) -> ModelRegistry:
    """The registry in the bucket of an executor's settings, under their prefix."""
    objects = BucketObjects(access, settings.s3_bucket_name)
    return ModelRegistry(objects, settings.s3_bucket_name, settings.key_prefix)


def _opened(content: Content) -> contextlib.AbstractContextManager[IO[bytes]]:
    return io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb")


def _facts(file: str, content: Content) -> ModelFile:
    """Digest and size of a file."""
    digest, size = hashlib.sha256(), 0
    with _opened(content) as body:
        while chunk := body.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    if size > model_version.MAX_FILE_BYTES:
        raise ModelError(
            f"{file} has {size} bytes, more than the {model_version.MAX_FILE_BYTES} of a file of a model: split it."
        )
    return ModelFile(digest.hexdigest(), size)
