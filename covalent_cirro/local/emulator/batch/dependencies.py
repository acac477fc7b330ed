"""Which jobs a job waits for, by its ``dependsOn``. Pure. It must not know states, nor what follows from an end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from covalent_cirro.local.emulator.batch.model import Job


def pairs(job: Job, jobs: Mapping[str, Job]) -> Iterator[tuple[Job, Job]]:
    """Pairs (needed, waiting) of a job and of its children.

    Args:
        job: The job that depends on others.
        jobs: All jobs by id; a dependency on one that is not there is none.
    """
    for entry in job.depends_on:
        kind, needed = entry.get("type"), jobs.get(entry.get("jobId", ""))
        if kind == "SEQUENTIAL" and needed is None:
            yield from zip(job.children, job.children[1:], strict=False)
        elif needed is not None and kind == "N_TO_N" and job.children and needed.children:
            yield from zip(needed.children, job.children, strict=False)
        elif needed is not None:
            yield needed, job
