"""A script run twice, the second time with the results of the first, against a real Covalent server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

CIRRO = (sys.executable, "-c", "from covalent_cirro.cli import main; main()")

FILE = """
import covalent as ct
from covalent_cirro import CirroBatchExecutor

SEEDS = {"a", "b", "c"}

@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1))
def load(n):
    print("loading", n)
    return list(range(n)) * len(SEEDS)

@ct.electron(executor="cirro")
def smallest(numbers):
    return min(numbers)

@ct.electron(executor="cirro")
def largest(numbers):
    return max(numbers)

@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1))
def total(numbers):
    return sum(numbers)

@ct.lattice
def flow(n):
    numbers = load(n)
    return total([smallest(numbers), largest(numbers)])
"""

EDITED = FILE.replace("    return max(numbers)", "    most = max(numbers)\n    return most + 1")


def cirro(stack: Any, *arguments: str | Path) -> Any:
    """What a command says as JSON."""
    command = [*CIRRO, *map(str, arguments)]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_what_was_edited_and_what_depends_on_it_runs_again(stack: Any, tmp_path: Path) -> None:
    """And which were reused and why the others were not is seen with every command, also under another name."""
    import covalent as ct

    file = tmp_path / "flow.py"
    file.write_text(FILE)
    first = json.loads(cirro(stack, "run", "--json", f"{file}:flow", "--n", "4"))
    jobs = {row["electron"]: row["job_id"] for row in first["electrons"]}
    file = tmp_path / "another.py"
    file.write_text(EDITED)
    said = cirro(stack, "run", "--reuse", first["dispatch_id"][:13], f"{file}:flow", "--n", "4")
    assert f"2 of 4 electrons reused from {first['dispatch_id']}" in said
    assert "largest: not reused: its function changed, or what of its script it uses\n" in said
    assert "total: not reused: argument numbers is another one\n" in said
    second = said.partition("dispatch ")[2].partition(":")[0]
    assert ct.get_result(second, wait=True).result == 4

    rows = {row["electron"]: row for row in json.loads(cirro(stack, "jobs", "--dispatch", second, "--json"))["jobs"]}
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {"load": "REUSED", "smallest": "REUSED", "largest": "SUCCEEDED", "total": "SUCCEEDED"}
    arguments = {name: row["arguments"] for name, row in rows.items()}
    assert arguments["load"] == {"n": "4"}
    assert arguments["smallest"] == arguments["largest"] == {"numbers": "load()"}
    where = f"reused from job {jobs['load']} of dispatch {first['dispatch_id']}, node {rows['load']['node_id']}"
    assert rows["load"]["why"] == where
    load = f"{second}:{rows['load']['node_id']}"
    story = json.loads(cirro(stack, "show", "--json", load))
    assert (story["state"], story["why"], story["electron"]) == ("REUSED", where, "load")
    assert story["not_reused"] == ""
    shown = cirro(stack, "show", f"{second}:{rows['total']['node_id']}")
    assert re.search(r"not reused +argument numbers is another one", shown)
    assert "total: not reused: argument numbers is another one\n" in cirro(stack, "jobs", "--dispatch", second)
    url = f"{stack.server_url}/api/v1/dispatches/{second}/electron/{rows['total']['node_id']}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert "not reused: argument numbers is another one" in json.load(answer)["description"]
    assert cirro(stack, "logs", load) == "loading 4\n"
    assert ct.get_result(second).get_node_result(rows["load"]["node_id"])["stdout"] == "loading 4\n"
    report = json.loads(cirro(stack, "report", "--json", second))
    assert report["reused"] == 2
    lines = {each["name"]: each for each in report["electrons"]}
    assert lines["load"]["attempts"] == []
    assert lines["load"]["job_id"] == jobs["load"]


def test_a_dispatch_that_nobody_knows_is_refused_by_the_command(stack: Any, tmp_path: Path) -> None:
    """Before anything is dispatched."""
    file = tmp_path / "flow.py"
    file.write_text(FILE)
    command = [*CIRRO, "run", "--reuse", "no-such-dispatch", f"{file}:flow", "--n", "4"]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert "no-such-dispatch" in done.stderr
    assert "dispatch " not in done.stdout
