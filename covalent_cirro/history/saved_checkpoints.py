"""What an electron has saved for its next attempt, as S3 lists it. Its content is the runner's matter."""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron


class SavedCheckpoint(NamedTuple):
    """A checkpoint that is whole: its index is there.

    Attributes:
        saved_at: Epoch seconds.
        files: Files with a content.
        stored_bytes: Their bytes.
        uri: Of its index.
    """

    saved_at: float
    files: int
    stored_bytes: int
    uri: str


def latest(account: Account, electron: Electron) -> SavedCheckpoint | None:
    """The checkpoint that the next attempt begins with; `None` where there is none. One ListObjectsV2 for each call."""
    for call in reversed(electron.calls):
        base = call.place.checkpoint_key(electron.node_id, "")
        index = call.place.checkpoint_key(electron.node_id, "index.json")
        found = archive.objects(account, call.place.bucket, base)
        if index in found:
            files = [size for key, (size, _) in found.items() if key.startswith(f"{base}files/")]
            return SavedCheckpoint(found[index][1], len(files), sum(files), f"s3://{call.place.bucket}/{index}")
    return None
