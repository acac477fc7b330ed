"""Ends the job that computes an item of a map, without a Covalent server: the items that it has not computed fail.

A Covalent server that waits for the map goes on with it, as `maps.Mapped.on_error` says (`electron/maps`).
"""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.contract import chunk_records
from covalent_cirro.history import archive, batch_jobs, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import CallHistory
from covalent_cirro.history.map_items import job_of_item
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.reuse_texts import REUSED
from covalent_cirro.jobs.states import ITEMS_STOPPED_REASON

STOPPED = "STOPPED"
"""The job was terminated, or had been before; a container has 30 s from SIGTERM to SIGKILL."""

DONE = "DONE"
"""The item has a result, or has failed: its job is left as it is."""

ENDED = "ENDED"
"""The job had ended before."""

REFUSED = "REFUSED"
"""AWS did not terminate the job."""


class ItemStop(NamedTuple):
    """What became of the job that computes an item.

    Attributes:
        dispatch_id, node_id, electron: Ids and name of the map.
        item: The item.
        length: Number of items of the map.
        job_id: Id of the job; empty for an electron that has reused results.
        jobs: Number of jobs of the try that the job belongs to.
        first, stop: Items of the job: ``first <= i < stop``.
        done: How many of these have a result or have failed, as far as that is stored.
        on_error: What happens to the map (`maps.Mapped.on_error`).
        end: `STOPPED`, `DONE`, `ENDED`, `REFUSED`, or `reuse_texts.REUSED`.
        words: State of a job that has ended, or AWS's words of a refusal; else empty.
    """

    dispatch_id: str
    node_id: int
    electron: str
    item: int
    length: int
    job_id: str
    jobs: int
    first: int
    stop: int
    done: int
    on_error: str
    end: str
    words: str = ""


def stop(account: Account, wanted: Wanted, by: str) -> ItemStop:
    """Terminate the job that computes an item, unless the item is done or the job has ended.

    Args:
        account: The account.
        wanted: The item.
        by: User and host, for the reason that AWS Batch keeps.

    Raises:
        NoSuchElectron: There is no such electron, it is no map, or has no such item.
        AccessDenied, AwsError: AWS did not describe the job.
    """
    electron = find.electron(account, wanted._replace(item=None))
    of, mapped, number = job_of_item(electron, wanted)
    first, last = mapped.children[number]
    found = ItemStop(
        electron.dispatch_id,
        electron.node_id,
        electron.name,
        wanted.item or 0,
        mapped.length,
        "",
        len(mapped.children),
        first,
        last,
        last - first,
        mapped.on_error,
        REUSED,
    )
    if of.reused is not None:  # the job is that of another dispatch
        return found
    alone = len(mapped.children) == 1
    found = found._replace(done=min(_done(account, of, None if alone else number), last - first))
    if not of.records:
        return found._replace(end=ENDED, words="AWS Batch knows no job of it")
    parent = of.records[-1]
    job_id = parent.job_id if alone else f"{parent.job_id}:{number}"
    found = found._replace(job_id=job_id)
    record = next(iter(batch_jobs.describe(account, [job_id])), parent)
    if found.item < first + found.done:
        return found._replace(end=DONE, words=record.state if record.has_ended else "")
    if record.has_ended:
        reason = record.detail.status_reason
        return found._replace(end=ENDED, words=f"{record.state}{f' ({reason})' if reason else ''}")
    refused = batch_jobs.terminate(account, [job_id], f"{ITEMS_STOPPED_REASON} (cirro stop, by {by})")
    return found._replace(end=REFUSED, words=refused[job_id]) if refused else found._replace(end=STOPPED)


def _done(account: Account, of: CallHistory, number: int | None) -> int:
    """How many items of a job are done, as the records say that it has stored."""
    place = of.place if number is None else of.place.child(number)
    base = place.chunk_key("")
    names = (key.removeprefix(base) for key in archive.objects(account, place.bucket, base))
    furthest = chunk_records.furthest(names)
    return furthest.done if furthest is not None else 0
