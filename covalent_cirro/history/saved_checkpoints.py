"""The checkpoint that an electron has saved for its next attempt, as S3 lists it. The runner reads its content."""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron


class SavedCheckpoint(NamedTuple):
    """A complete checkpoint: its index, which is written last, exists.

    Attributes:
        saved_at: Epoch seconds when its index was written.
        files: Number of files with a content.
        stored_bytes: Size of these files in S3.
        uri: URI of its index.
    """

    saved_at: float
    files: int
    stored_bytes: int
    uri: str


def latest(account: Account, electron: Electron) -> SavedCheckpoint | None:
    """The checkpoint from which the next attempt starts; `None` without one. A ListObjectsV2 for each call."""
    for call in reversed(electron.calls):
        base = call.place.checkpoint_key(electron.node_id, "")
        index = call.place.checkpoint_key(electron.node_id, "index.json")
        found = archive.objects(account, call.place.bucket, base)
        if index in found:
            files = [size for key, (size, _) in found.items() if key.startswith(f"{base}files/")]
            return SavedCheckpoint(found[index][1], len(files), sum(files), f"s3://{call.place.bucket}/{index}")
    return None
