"""Which job of a queue with a scheduling policy starts next: fair shares. Pure.

A queue without a policy starts its jobs in order. It must not know hosts or time.
"""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.local.emulator.batch.model import Job, Json


def first(waiting: list[Job], active: Iterable[Job], fairshare: Json) -> Job:
    """The share with the least weighted use goes first; inside it the highest priority, then the oldest.

    Args:
        waiting: Jobs of one queue, the oldest first.
        active: Jobs that have a host, of any queue.
        fairshare: ``fairsharePolicy`` of the queue's scheduling policy.
    """
    weights = {
        entry["shareIdentifier"]: float(entry.get("weightFactor", 1.0))
        for entry in fairshare.get("shareDistribution", [])
    }

    def weight(share: str) -> float:
        for prefix, factor in weights.items():
            if share == prefix or (prefix.endswith("*") and share.startswith(prefix[:-1])):
                return factor
        return 1.0

    use: dict[str, float] = {}
    for job in active:
        if job.queue is waiting[0].queue and job.share is not None:
            use[job.share] = use.get(job.share, 0.0) + job.needs.vcpus * weight(job.share)
    return min(
        waiting,
        key=lambda job: (use.get(job.share or "", 0.0), -(job.scheduling_priority or 0)),
    )
