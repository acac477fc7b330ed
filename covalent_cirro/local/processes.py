"""Background processes of this machine: starts one in its own session, finds it again, ends it with its children.

It must not know what the processes are for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

from covalent_cirro import private
from covalent_cirro.errors import CirroError

SAME_START_S = 2.0
"""A process with the pid that started this much earlier or later is another one: the kernel uses pids again."""

POLL_S = 0.05
"""Seconds between two checks of a process that starts or ends."""

T = TypeVar("T")


class ProcessIdentity(NamedTuple):
    """What identifies a process, also after its pid was used again.

    Attributes:
        pid: Process id.
        started: Its start, in seconds since the epoch.
    """

    pid: int
    started: float


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path) -> ProcessIdentity:
    """Start a command in a session of its own, so that it outlives this process and the terminal.

    Only this user can read files that it makes, and its log.

    Args:
        command: Program and arguments.
        log: File that its stdout and stderr are appended to; made with its folder if there is none.
        environment: Its whole environment.
        folder: Its working folder.

    Raises:
        OSError: The program or the folder does not exist.
    """
    private.folder(log.parent)
    with open(log, "ab", opener=private.opener) as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            umask=private.UMASK,
        )
    process.returncode = 0  # It outlives this object: without this, Popen warns when the object is deleted.
    return ProcessIdentity(process.pid, psutil.Process(process.pid).create_time())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether the process still runs. A child of this process that has ended is reaped."""
    return _find(identity) is not None


def ends_within(identity: ProcessIdentity, limit_s: float) -> bool:
    """Wait at most ``limit_s`` seconds for the end of a process; returns whether it has ended."""
    deadline = time.monotonic() + limit_s
    while (alive := is_alive(identity)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return not alive


def end(identity: ProcessIdentity, *, patience_s: float) -> bool:
    """End a process and every process it started, and wait for their end.

    The process gets SIGTERM and ``patience_s`` seconds to end its children itself; then all that still run get SIGKILL.
    Where the process itself was killed before, the processes of its session get SIGKILL.

    Returns:
        False where all had ended before.
    """
    process = _find(identity)
    if process is None:
        left = _left_of(identity)
        for each in left:
            _signal(each, signal.SIGKILL)
        psutil.wait_procs(left, timeout=patience_s)
        return bool(left)
    family = {process}
    with contextlib.suppress(psutil.Error):
        family.update(process.children(recursive=True))
    _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and _find(identity) is not None:
        with contextlib.suppress(psutil.Error):
            family.update(process.children(recursive=True))
        time.sleep(POLL_S)
    for left in family:
        _signal(left, signal.SIGKILL)
    psutil.wait_procs(family, timeout=patience_s)
    return True


def wait_for(
    probe: Callable[[], T | None], identity: ProcessIdentity, log: Path, limit_s: float, error: type[CirroError]
) -> T:
    """Wait until a process that was started is ready.

    Args:
        probe: Gives `None` until the process is ready, then the result; called every `POLL_S` seconds.
        identity: The process.
        log: Its log, whose end goes into the error.
        limit_s: Seconds to wait.
        error: Class of the error to raise.

    Raises:
        CirroError: ``error``: the process ended by itself, or the time is over.
    """
    deadline = time.monotonic() + limit_s
    while True:
        found = probe()
        ended = not is_alive(identity)
        if found is not None and not ended:
            return found
        if ended or time.monotonic() > deadline:
            what = "ended by itself" if ended else f"was not ready within {limit_s:.0f} s"
            raise error(f"the process of {log.stem} (pid {identity.pid}) {what}. The end of {log}:\n{log_end(log)}")
        time.sleep(POLL_S)


def log_end(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message; a note where there is no log."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return f"(there is no log at {path})"
    return "\n".join(text.splitlines()[-lines:]) or f"(the log at {path} is empty)"


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find(identity: ProcessIdentity) -> psutil.Process | None:
    try:
        process = psutil.Process(identity.pid)
        if abs(process.create_time() - identity.started) > SAME_START_S:
            return None
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.Error:
        return None
    with contextlib.suppress(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)
    return None


def _left_of(identity: ProcessIdentity) -> list[psutil.Process]:
    """The processes of the session of a process that has ended, which `start` made the leader of its session.

    The kernel gives the pid to no other process as long as a process of the session runs (pid_namespaces(7) and
    ``alloc_pid``: a ``struct pid`` is in use as long as it is anybody's pid, group or session).
    """
    with contextlib.suppress(psutil.Error):
        if psutil.Process(identity.pid).status() != psutil.STATUS_ZOMBIE:
            return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == identity.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
