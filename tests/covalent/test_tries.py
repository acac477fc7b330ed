"""An electron that runs out of memory and is submitted again, in a lattice on a real Covalent server."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import covalent as ct

from covalent_cirro import CirroBatchExecutor
from tests.covalent.test_progress import once


@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=0.25, memory_max=1))
def load(mib: int, seen: str) -> int:
    """Want more memory than the first try has; the second one waits until somebody has seen it."""
    from covalent_cirro import checkpoint

    held = b"x" * (mib * 1024 * 1024)
    while checkpoint.attempt() == 1 or not os.path.exists(seen):
        time.sleep(0.1)
    return len(held) // (1024 * 1024)


@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=0.25))
def add(x: int) -> int:
    """What goes on with the result."""
    return x + 1


def test_a_lattice_goes_on_with_the_result_of_the_next_try(stack: Any, tmp_path: Path) -> None:
    """Panel and server's log tell of the first try while the second runs; in the end the electron's stderr does."""
    seen = tmp_path / "seen"
    dispatch_id = ct.dispatch(ct.lattice(lambda mib, path: add(load(mib, path))))(300, str(seen))
    shown = once(stack, dispatch_id, 0, lambda each: each["executor"].get("tried") and each["status"] == "RUNNING")
    first = shown["executor"]["tried"].partition("in job ")[2].partition(". ")[0]
    second = shown["executor"]["job"].split()[0]
    # Measured is the largest process; what the runner itself had belongs to the limit as well.
    found = re.fullmatch(
        rf"Try 1 (ran out of memory at 0\.25 GB \(it had reached 0\.2[3-5] GB\) in job {first})\. Try 2 has 0\.5 GB\.",
        shown["executor"]["tried"],
    )
    assert found is not None, shown["executor"]["tried"]
    happened = found[1]
    assert f"tried: Try 1 {happened}" in shown["description"]
    assert f"{happened}. It was submitted again" in stack.server_log.read_text()
    seen.touch()

    result = ct.get_result(dispatch_id, wait=True)
    assert (str(result.status), result.result) == ("COMPLETED", 301)
    (node,) = [each for each in result.get_all_node_results() if each["node_id"] == 0]
    assert node["stderr"].startswith(f"covalent-cirro: try 1 {happened}. ")
    assert not node["error"]
    jobs = stack.client("batch").describe_jobs(jobs=[first, second])["jobs"]
    assert {job["jobId"]: job["status"] for job in jobs} == {first: "FAILED", second: "SUCCEEDED"}
    (job,) = [job for job in jobs if job["jobId"] == second]
    assert job["tags"] == {**job["tags"], "covalent:dispatch": dispatch_id, "covalent:electron": "load"}
    assert json.loads(handle(stack, dispatch_id))["job_id"] == second


def handle(stack: Any, dispatch_id: str) -> str:
    """The handle that Covalent keeps of the first electron's job."""
    (path,) = Path(stack.playground.covalent_dir).rglob("dispatcher_db.sqlite")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        (row,) = connection.execute(
            "SELECT j.job_handle FROM jobs j JOIN electrons e ON e.job_id = j.id "
            "JOIN lattices l ON l.id = e.parent_lattice_id WHERE l.dispatch_id = ? AND e.transport_graph_node_id = 0",
            (dispatch_id,),
        ).fetchall()
    return str(row[0])
