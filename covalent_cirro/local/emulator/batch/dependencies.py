"""Which jobs a job waits for, by its ``dependsOn``. Pure. It must not know what follows from an end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from covalent_cirro.local.emulator.batch.model import FAILED, SUCCEEDED, Job


def wait(job: Job, jobs: Mapping[str, Job], dependents: dict[str, list[Job]]) -> None:
    """Record what a job that was submitted, and its children, wait for (`Job.waits_for`).

    Args:
        job: The job.
        jobs: All jobs by id.
        dependents: By id, the jobs that wait for that one; these are added.
    """
    for needed, waiting in _pairs(job, jobs):
        if needed.status == FAILED:
            job.waits_for.add("failed")
        elif needed.status != SUCCEEDED:
            waiting.waits_for.add(needed.id)
            dependents.setdefault(needed.id, []).append(waiting)
    for child in job.children:
        child.waits_for |= job.waits_for
        for needed_id in job.waits_for - {"failed"}:
            dependents.setdefault(needed_id, []).append(child)


def _pairs(job: Job, jobs: Mapping[str, Job]) -> Iterator[tuple[Job, Job]]:
    """Pairs (needed, waiting) of a job and of its children; a dependency on a job that is not there is none."""
    for entry in job.depends_on:
        kind, needed = entry.get("type"), jobs.get(entry.get("jobId", ""))
        if kind == "SEQUENTIAL" and needed is None:
            yield from zip(job.children, job.children[1:], strict=False)
        elif needed is not None and kind == "N_TO_N" and job.children and needed.children:
            yield from zip(needed.children, job.children, strict=False)
        elif needed is not None:
            yield needed, job
