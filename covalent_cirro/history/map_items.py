"""Counts the items of a map that are done, from what its jobs have stored."""

from __future__ import annotations

from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron
from covalent_cirro.jobs import map_progress
from covalent_cirro.jobs.map_progress import ItemCounts


def count(account: Account, electron: Electron, at: float) -> ItemCounts | None:
    """The items of a map; `None` for any other electron, and for one that has reused results.

    Args:
        account: The account.
        electron: The electron.
        at: Epoch seconds of now; of a map that has ended, its end counts.
    """
    of, record = electron.newest, electron.record
    task = of.call.tasks[0] if of.call is not None and of.call.tasks else None
    if task is None or task.mapped is None or of.reused is not None:
        return None
    ended = record.detail.stopped_at if record is not None and record.has_ended else None
    below = archive.objects(account, of.place.bucket, of.place.base)
    return map_progress.counted(below, of.place, task.mapped, ended or at)
