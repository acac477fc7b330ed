"""Layers of images as files that are named by their digests, and the uploads that become layers.

It must not know rules of repositories, nor images. Refusals have ECR's error codes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

PIECE_BYTES = 1 << 20
"""Layers are read and written in pieces of this size."""
DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
"""The form of ECR's digests."""

RepositoryKey = tuple[str, str]
"""Region and name of a repository."""


class EcrError(Exception):
    """ECR refuses a request; ``code`` is ECR's error code, without the ``Exception`` at its end."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Upload:
    """A blob that is being uploaded to a file. One request at a time writes to it."""

    def __init__(self, folder: Path) -> None:
        self.id = str(uuid.uuid4())
        self.path = folder / self.id
        self.size = 0
        self.hash = hashlib.sha256()
        self.lock = threading.Lock()
        self.path.touch()

    def append(self, read: Callable[[int], bytes], start: int | None = None) -> int:
        """Append all that ``read`` gives; returns the size of the upload after that.

        Raises:
            EcrError: ``start`` is not where the last part ended.
        """
        with self.lock:
            if start is not None and start != self.size:
                raise EcrError(
                    "InvalidLayerPart", f"The part begins at {start}, the last one ended before {self.size}."
                )
            with self.path.open("r+b") as file:
                file.seek(self.size)
                while data := read(PIECE_BYTES):
                    file.write(data)
                    self.hash.update(data)
                    self.size += len(data)
            return self.size


class Layers:
    """The files of one registry. Safe for threads.

    Args:
        folder: Folder of the files, made when the first upload begins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._uploads: dict[tuple[RepositoryKey, str], Upload] = {}

    def begin(self, repository: RepositoryKey) -> Upload:
        """A new upload."""
        for name in ("uploads", "blobs"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        upload = Upload(self._folder / "uploads")
        with self._lock:
            self._uploads[repository, upload.id] = upload
        return upload

    def upload(self, repository: RepositoryKey, upload_id: str) -> Upload:
        """An upload that has begun.

        Raises:
            EcrError: UploadNotFound.
        """
        found = self._uploads.get((repository, upload_id))
        if found is None:
            text = f"Upload with id '{upload_id}' could not be found for the repository with name '{repository[1]}'"
            raise EcrError("UploadNotFound", text)
        return found

    def drop(self, repository: RepositoryKey, upload_id: str) -> None:
        """Remove an upload and its file."""
        upload = self.upload(repository, upload_id)
        with self._lock:
            self._uploads.pop((repository, upload_id), None)
        upload.path.unlink(missing_ok=True)

    def drop_all(self, repository: RepositoryKey) -> None:
        """Remove all uploads of a repository."""
        for key in [key for key in list(self._uploads) if key[0] == repository]:
            with contextlib.suppress(EcrError):
                self.drop(*key)

    def finish(self, repository: RepositoryKey, upload_id: str, digest: str | None) -> tuple[str, int]:
        """Make an upload a layer; returns its digest and size.

        Raises:
            EcrError: The upload has another digest than ``digest``; it is removed then.
        """
        upload = self.upload(repository, upload_id)
        if not upload.lock.acquire(blocking=False):
            raise EcrError("InvalidLayer", f"Another request still writes to upload '{upload_id}'.")
        try:
            found = f"sha256:{upload.hash.hexdigest()}"
            if digest not in (None, found):
                self.drop(repository, upload_id)
                raise EcrError("InvalidLayer", f"The layer has digest {found}, not {digest}.")
            with self._lock:
                self._uploads.pop((repository, upload_id), None)
            os.replace(upload.path, self.path(found))
        finally:
            upload.lock.release()
        return found, upload.size

    def path(self, digest: str) -> Path:
        """The file of a layer."""
        return self._folder / "blobs" / digest.removeprefix("sha256:")

    def remove(self, digests: Iterable[str]) -> None:
        """Remove layers."""
        for digest in digests:
            self.path(digest).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)
