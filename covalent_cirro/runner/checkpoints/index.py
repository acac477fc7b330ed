"""The index of a checkpoint: which files the checkpoint has, and under which names they are stored. Written last.

Pure: it converts values to JSON and back, and must not know S3 or the disk.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.contract.protocol import CHECKPOINT_FORMAT

MAX_FILES = 20_000
"""Most files that a checkpoint may have: each file is a request to S3."""

_NAME = re.compile(r"[0-9a-f]{16,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class NotAnIndex(ValueError):
    """A document that is not the index of a checkpoint."""


class Owner(NamedTuple):
    """The attempt that wrote a checkpoint.

    Attributes:
        job_id: AWS_BATCH_JOB_ID.
        attempt: Number of the attempt, over all tries.
        started: Epoch seconds of the runner's start. If two attempts write at the same time, the later one's is kept.
    """

    job_id: str
    attempt: int
    started: float


class File(NamedTuple):
    """A file of a checkpoint.

    Attributes:
        name: Name under which its bytes are stored; empty for an empty file.
        sha256: SHA-256 of its bytes, in hex.
        size: Number of bytes.
        mode: Permission bits.
        mtime_ns: Time of its last change.
    """

    name: str
    sha256: str
    size: int
    mode: int
    mtime_ns: int


class Index(NamedTuple):
    """A checkpoint. Paths are relative to the folder.

    Attributes:
        owner: The attempt that wrote it.
        files: Files, by path.
        links: Targets of symbolic links, by path.
        folders: All folders.
    """

    owner: Owner
    files: dict[str, File]
    links: dict[str, str]
    folders: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """Names under which its files are stored."""
        return {file.name for file in self.files.values() if file.name}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def dump(index: Index) -> bytes:
    """The bytes of ``index.json``."""
    body = {
        "format": CHECKPOINT_FORMAT,
        "owner": index.owner._asdict(),
        "files": {path: list(file) for path, file in index.files.items()},
        "links": index.links,
        "folders": index.folders,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def parse(data: bytes) -> Index:
    """The checkpoint that a document describes.

    Raises:
        NotAnIndex: The document is no index, has another format, or has a path that leads out of the folder.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise NotAnIndex(f"the checkpoint's index has {len(data)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        body = json.loads(data)
        if body["format"] != CHECKPOINT_FORMAT:
            raise NotAnIndex(
                f"the checkpoint has format {body['format']!r}, this runner understands {CHECKPOINT_FORMAT}: use the "
                "image that wrote it, or dispatch the electron anew"
            )
        owner = body["owner"]
        found = Index(
            Owner(str(owner["job_id"]), int(owner["attempt"]), float(owner["started"])),
            {_path(path): _file(entry) for path, entry in body["files"].items()},
            {_path(path): str(target) for path, target in body["links"].items()},
            tuple(_path(path) for path in body["folders"]),
        )
    except NotAnIndex:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise NotAnIndex(f"the checkpoint's index cannot be read: {error!r}") from error
    for link in found.links:
        # Otherwise files below a link would be restored to the place that the link points to.
        if any(path.startswith(link + "/") for path in (*found.files, *found.links, *found.folders)):
            raise NotAnIndex(f"the checkpoint has files below the link {link!r}")
    return found


def _path(path: Any) -> str:
    if not isinstance(path, str) or not path or "\0" in path or {"", ".", ".."} & set(path.split("/")):
        raise NotAnIndex(f"{path!r} is not a path inside of the checkpoint's folder")
    return path


def _file(entry: Any) -> File:
    name, sha256, size, mode, mtime_ns = entry
    numbers = all(isinstance(number, int) and 0 <= number < 2**63 for number in (size, mode, mtime_ns))
    if not numbers or not _SHA256.fullmatch(sha256) or not (_NAME.fullmatch(name) if size else name == ""):
        raise NotAnIndex(f"{entry!r} is not a file of a checkpoint")
    return File(name, sha256, size, mode & 0o7777, mtime_ns)
