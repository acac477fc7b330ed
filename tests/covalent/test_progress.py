"""What the Covalent UI and API show of an electron while its job waits and runs, on a real server."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import covalent as ct

from covalent_cirro import CirroBatchExecutor

PATIENCE_S = 180.0
"""Several times what a slow, busy machine takes."""


def api(stack: Any, path: str) -> Any:
    """An answer of the API that the UI uses."""
    with urllib.request.urlopen(f"{stack.server_url}/api/v1/dispatches/{path}", timeout=30) as answer:
        return json.load(answer)


def panel(stack: Any, dispatch_id: str, node_id: int) -> dict[str, Any]:
    """What the UI asks for to fill an electron's panel."""
    details = f"{dispatch_id}/electron/{node_id}"
    return {
        **api(stack, details),
        "executor": api(stack, f"{details}/details/executor")["executor_details"].get("attributes", {}),
        "stdout": api(stack, f"{details}/details/stdout")["data"] or "",
    }


def once(stack: Any, dispatch_id: str, node_id: int, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The panel, once it fulfils the condition."""
    until = time.monotonic() + PATIENCE_S
    while True:
        shown = panel(stack, dispatch_id, node_id)
        if condition(shown):
            return panel(stack, dispatch_id, node_id)  # its parts are read one after the other: now all are as new
        assert time.monotonic() < until, shown
        time.sleep(0.5)


@ct.electron(executor="cirro")
def train(epochs: int, seen: str) -> int:
    """An electron that prints as it goes, and whose last epochs wait until somebody has seen the first."""
    import os
    import time as clock

    for epoch in range(epochs):
        print(f"epoch {epoch}", flush=True)
        while epoch == 3 and not os.path.exists(seen):
            clock.sleep(0.1)
    return epochs


@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=4000))
def simulate() -> None:
    """An electron that no machine is large enough for."""


def test_a_running_electron_shows_its_job_and_its_log(stack: Any, tmp_path: Path) -> None:
    """Job, state, attempt and log in the panel, and stdout growing, before the end; then all of it."""
    dispatch_id = ct.dispatch(ct.lattice(lambda path: train(30, path)))(str(tmp_path / "seen"))
    shown = once(stack, dispatch_id, 0, lambda each: "epoch 3" in each["stdout"])
    assert shown["status"] == "RUNNING"
    assert "epoch 29" not in shown["stdout"]
    (job,) = stack.client("batch").describe_jobs(jobs=[shown["executor"]["job"].split()[0]])["jobs"]
    assert job["status"] == "RUNNING"
    assert job["tags"]["covalent:dispatch"] == dispatch_id
    assert shown["executor"]["state"].startswith("RUNNING since 20")
    assert shown["executor"]["attempt"] == "1 of at most 3"
    assert shown["executor"]["called_with"].startswith("epochs=30, seen=/")
    assert shown["executor"]["log"].endswith(job["container"]["logStreamName"])
    assert list(shown["executor"])[:3] == ["job", "state", "attempt"]
    assert f"job: {job['jobId']} in queue" in shown["description"]
    # get_result fetches the file that grows, by its size in Covalent's database.
    (node,) = [each for each in ct.get_result(dispatch_id).get_all_node_results() if each["node_id"] == 0]
    assert "epoch 3\n" in node["stdout"]
    (tmp_path / "seen").touch()
    result = ct.get_result(dispatch_id, wait=True)
    assert result.result == 30
    (node,) = [each for each in result.get_all_node_results() if each["node_id"] == 0]
    assert node["stdout"] == "".join(f"epoch {epoch}\n" for epoch in range(30))
    ended = once(stack, dispatch_id, 0, lambda each: each["executor"]["state"].startswith("SUCCEEDED since 20"))
    assert "waits_for" not in ended["executor"]


def test_an_electron_that_waits_shows_why(stack: Any) -> None:
    """In the panel, in the server's log once, and with the setting to change; it is not ended for it."""
    dispatch_id = ct.dispatch(ct.lattice(lambda: simulate()))()
    try:
        shown = once(stack, dispatch_id, 0, lambda each: "Ask for less" in each["executor"].get("waits_for", ""))
        assert shown["status"] == "STARTING"
        assert shown["executor"]["state"].startswith("RUNNABLE since 20")
        assert shown["executor"]["memory"] == 4000
        job_id = shown["executor"]["job"].split()[0]
        assert "waits for: The job's 1 vCPU, 4096000 MiB fit on no instance type" in shown["description"]
        assert "--parameter CpuInstanceTypes=..." in shown["description"]
        assert stack.server_log.read_text().count(f"Job {job_id} of queue") == 1
        (job,) = stack.client("batch").describe_jobs(jobs=[job_id])["jobs"]
        assert job["status"] == "RUNNABLE"
    finally:
        ct.cancel(dispatch_id)
    assert str(ct.get_result(dispatch_id, wait=True).status) == "CANCELLED"
