"""Background processes are started, known again and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from covalent_cirro.local import processes
from covalent_cirro.local.processes import ProcessIdentity

STUBBORN_PARENT = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def start(tmp_path: Path, *command: str) -> ProcessIdentity:
    """Start a Python process with a log in ``tmp_path``."""
    return processes.start(
        [sys.executable, *command], log=tmp_path / "logs" / "log", environment=os.environ, folder=tmp_path
    )


def wait_until_ended(identity: ProcessIdentity) -> None:
    """Wait until a process that ends by itself has done so."""
    deadline = time.monotonic() + 90
    while processes.is_alive(identity):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_is_started_in_a_session_of_its_own(tmp_path: Path) -> None:
    """Neither the terminal's Ctrl-C nor its end reaches it, and ending it returns True once."""
    identity = start(tmp_path, "-c", "import time; time.sleep(600)")
    assert processes.is_alive(identity)
    assert os.getsid(identity.pid) == identity.pid
    assert processes.end(identity, patience_s=10) is True
    assert not psutil.pid_exists(identity.pid)
    assert processes.end(identity, patience_s=10) is False


def test_a_process_that_ended_by_itself_is_not_alive(tmp_path: Path) -> None:
    """It is reaped as well: no zombie stays behind."""
    identity = start(tmp_path, "-c", "print('said'); print('last words')")
    wait_until_ended(identity)
    assert not psutil.pid_exists(identity.pid)
    assert processes.log_end(tmp_path / "logs" / "log", lines=1) == "last words"


def test_ending_takes_the_children_along(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed after the patience, and its child in another session with it."""
    pid_file = tmp_path / "child"
    identity = start(tmp_path, "-c", STUBBORN_PARENT, str(pid_file))
    deadline = time.monotonic() + 90
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = psutil.Process(int(pid_file.read_text()))
    assert processes.end(identity, patience_s=0.3) is True
    assert not psutil.pid_exists(identity.pid)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


FORKING = """
import os, pathlib, sys, time
{first}
child = os.fork()
if child:
    pathlib.Path(sys.argv[1]).write_text(f"{{child}}.")
elif {forks_again}:
    os.fork()
time.sleep(600)
"""


@pytest.mark.parametrize("forks_again", [False, True])
def test_what_a_killed_process_left_is_ended(tmp_path: Path, forks_again: bool) -> None:
    """Its forks, and theirs: they have its session."""
    pid_file = tmp_path / "child"
    identity = start(tmp_path, "-c", FORKING.format(first="", forks_again=forks_again), str(pid_file))
    child = forked(pid_file)
    os.kill(identity.pid, signal.SIGKILL)
    wait_until_ended(identity)
    assert child.is_running()
    assert processes.end(identity, patience_s=10) is True
    assert not running_in(identity.pid)
    assert processes.end(identity, patience_s=10) is False


@pytest.mark.parametrize("forks_again", [False, True])
def test_forks_of_the_covalent_server_end_with_it(tmp_path: Path, forks_again: bool) -> None:
    """Also when it is killed: they would hold its port."""
    pid_file = tmp_path / "child"
    first = "from covalent_cirro.local import covalent_process; covalent_process._end_forks_with_this_process()"
    identity = start(tmp_path, "-c", FORKING.format(first=first, forks_again=forks_again), str(pid_file))
    forked(pid_file)
    os.kill(identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while running_in(identity.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def forked(pid_file: Path) -> psutil.Process:
    """The fork that a process of `FORKING` tells of."""
    deadline = time.monotonic() + 90
    while not (text := pid_file.read_text() if pid_file.exists() else "").endswith("."):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(text.rstrip(".")))


def running_in(session: int) -> list[psutil.Process]:
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_reused_pid_is_not_ended(tmp_path: Path) -> None:
    """A process with the right pid and another start is somebody else's."""
    identity = start(tmp_path, "-c", "import time; time.sleep(600)")
    earlier = identity._replace(started=identity.started - 60)
    try:
        assert not processes.is_alive(earlier)
        assert processes.end(earlier, patience_s=1) is False
        assert processes.is_alive(identity)
    finally:
        processes.end(identity, patience_s=10)


@pytest.mark.parametrize("content", [None, ""])
def test_a_log_without_lines_says_so(tmp_path: Path, content: str | None) -> None:
    """An error message never shows just nothing."""
    log = tmp_path / "log"
    if content is not None:
        log.write_text(content)
    assert str(log) in processes.log_end(log)
