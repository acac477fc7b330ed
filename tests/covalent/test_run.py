"""``cirro run`` against a real Covalent server: dispatched, watched, and the dispatch's end is the command's."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# A process that a shell has put into the background ignores SIGINT, and so do its children unless they say otherwise.
CIRRO = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from covalent_cirro.cli import main; main()",
)
FILE = """
import time
import covalent as ct
from covalent_cirro import CirroBatchExecutor, ElectronFailed

small = CirroBatchExecutor(vcpu=1, memory=1)

@ct.electron(executor=small)
def add(x, y):
    return x + y

@ct.electron(executor=small)
def nap(seconds):
    time.sleep(seconds)

@ct.electron(executor=small)
def fail():
    raise ValueError("no such luck")

@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1, on_error="return"))
def inverse(x):
    return 1 / x

@ct.electron(executor=small)
def largest(*found):
    return max(each for each in found if not isinstance(each, ElectronFailed))

@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1, secrets={"PASSWORD": "ssm:/not/there"}))
def connect():
    return "not reached"

@ct.lattice
def secretive():
    return connect()

@ct.lattice
def forgiving():
    return largest(*[inverse(x) for x in (0, 1, 2)])

@ct.lattice
def total(x, y=1):
    return add(add(x, y), y)

@ct.lattice
def sleeping(seconds):
    return nap(seconds)

@ct.lattice
def failing():
    return fail()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of lattices."""
    path = tmp_path / "flows.py"
    path.write_text(FILE)
    return path


def run(stack: Any, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, as in a terminal of the local stack."""
    command = [*CIRRO, "run", *map(str, arguments)]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=200, check=False)


def test_a_dispatch_that_completes(stack: Any, file: Path) -> None:
    """Its electrons, its status, and exit code 0."""
    done = run(stack, "--json", f"{file}:total", "--x", "40")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["status"] == "COMPLETED"
    assert [(row["electron"], row["state"]) for row in said["electrons"]] == [("add", "SUCCEEDED")] * 2


def test_a_dispatch_that_fails(stack: Any, file: Path) -> None:
    """The electron's error is told, and the exit code is 1."""
    done = run(stack, f"{file}:failing")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "no such luck" in done.stderr


def test_an_electron_that_is_refused_has_no_job(stack: Any, file: Path) -> None:
    """What is wrong is told, in place of a job that would come yet."""
    done = run(stack, f"{file}:secretive")
    assert done.returncode == 1
    assert "FAILED: no job\n" in done.stdout
    assert "connect (node 0): secrets: 'PASSWORD' names ssm:/not/there, which is not there" in done.stderr


def test_an_electron_that_returns_its_error_fails_no_dispatch(stack: Any, file: Path) -> None:
    """The results of the others count; the failure is told, with the result, the cost and what to type next."""
    done = run(stack, f"{file}:forgiving")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"inverse: ZeroDivisionError: division by zero \(`cirro show (\w{8}):0`\)", done.stderr + done.stdout
    )
    assert re.search(r"^result +1\.0 *$", done.stdout, re.MULTILINE)
    assert re.search(r"^cost +.*\$0\.0", done.stdout, re.MULTILINE)
    assert re.search(r"cirro report \w{8} ", done.stdout)
    assert re.search(rf"cirro run --reuse \w{{8}} {re.escape(str(file))}:forgiving ", done.stdout)


def test_ctrl_c_cancels_the_dispatch_and_waits_for_its_end(stack: Any, file: Path, tmp_path: Path) -> None:
    """No job goes on, and the exit code is a shell's."""
    command = [*CIRRO, "run", f"{file}:sleeping", "--seconds", "600"]
    shown = tmp_path / "shown"
    with shown.open("w") as stdout:
        process = subprocess.Popen(command, env=stack.environment, stdout=stdout, stderr=subprocess.PIPE, text=True)
    try:
        batch, deadline = stack.client("batch"), time.monotonic() + 100
        jobs: list[dict[str, Any]] = []
        # That the job runs does not say that the command watches it already: it does once it has shown it.
        while (not jobs or "RUNNING" not in shown.read_text()) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
            found = batch.list_jobs(jobQueue=stack.settings["batch_queue"], jobStatus="RUNNING")["jobSummaryList"]
            jobs = [job for job in found if "nap" in job["jobName"]]
        assert jobs, "no job of the dispatch ran"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130, (shown.read_text(), err)
    assert "cancelling" in err
    assert "CANCELLED" in err
    ended = batch.describe_jobs(jobs=[jobs[0]["jobId"]])["jobs"][0]
    assert ended["status"] == "FAILED"


def test_wrong_usage_is_told_before_anything_is_dispatched(stack: Any, file: Path) -> None:
    """Exit code 2, with the arguments that there are."""
    done = run(stack, f"{file}:total", "--z", "1")
    assert done.returncode == 2
    assert "has no argument z and needs --x" in done.stderr


def test_results_are_found_although_the_stack_lies_in_a_folder_with_a_space_and_an_accent(
    stack: Any, file: Path
) -> None:
    """Covalent would look for each file where the path is quoted, and find none."""
    assert "my lab é" in str(stack.playground.state_dir)
    file.with_name("my results é.py").write_text(
        f"{FILE}\ndispatch_id = ct.dispatch(total)(40)\nprint(ct.get_result(dispatch_id, wait=True).result)\n"
    )
    done = stack.script(file.with_name("my results é.py"))
    assert done.stdout.splitlines()[-1:] == ["42"], done.stderr


def test_without_waiting(stack: Any, file: Path) -> None:
    """The id only; the dispatch goes on."""
    done = run(stack, "--detach", f"{file}:total", "--x", "1")
    assert done.returncode == 0
    assert len(done.stdout.strip()) == 36
