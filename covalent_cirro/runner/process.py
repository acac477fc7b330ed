"""The electron's process, for the supervisor: forks it, exchanges messages over pipes, waits for it, kills it.

It must not know S3, calls or logs. `child.py` is the code of the forked process.

Pipes: requests (supervisor to child) and replies (child to supervisor) carry one JSON object a line; stdout and stderr
carry whatever the electron, its C code and its subprocesses write.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple, NoReturn

_READ_BYTES = 64 * 1024
_STOPS = (signal.SIGTERM, signal.SIGINT)


class Ended(NamedTuple):
    """How the process ended.

    Attributes:
        exit_code: Its exit code; `None` if a signal killed it.
        signal: Name of that signal, ``"SIGKILL"``; empty otherwise.
        cpu_s: User and system time of it and of the children that it waited for.
        max_rss_bytes: Largest resident size of one of these processes.
    """

    exit_code: int | None
    signal: str
    cpu_s: float
    max_rss_bytes: int


class ElectronProcess:
    """A forked child that runs electrons, in a process group of its own.

    Attributes:
        pid: Its process id, also the id of its process group.
        stdout: Read end of its stdout, non-blocking.
        stderr: Read end of its stderr, non-blocking.
        replies: Read end of its replies, non-blocking.
        ended: How it ended; `None` while it runs.
    """

    def __init__(self, pid: int, requests: int, replies: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.replies = replies
        self.ended: Ended | None = None
        self._requests = requests
        self._unread = b""
        for fd in (replies, stdout, stderr):
            os.set_blocking(fd, False)

    def send(self, message: dict[str, Any]) -> bool:
        """Send a request; `False` if the child is gone."""
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._requests, data) :]
        except OSError:
            return False
        return True

    def close_requests(self) -> None:
        """Close the pipe of requests: the child ends in an orderly way."""
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1

    def read_replies(self) -> list[dict[str, Any]]:
        """Replies that have arrived completely; never blocks."""
        while True:
            try:
                chunk = os.read(self.replies, _READ_BYTES)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def poll(self) -> Ended | None:
        """Collect the exit status if the process has ended; never blocks."""
        if self.ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid == self.pid:
                number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                self.ended = Ended(
                    exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                    signal=_signal_name(number) if number else "",
                    cpu_s=usage.ru_utime + usage.ru_stime,
                    # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
                    max_rss_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
                )
        return self.ended

    def signal_group(self, number: int) -> None:
        """Send a signal to the child and to all processes of its group."""
        # No process is left; macOS answers EPERM if only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        # By its own id if the electron has left the group; never twice, because the electron may count signals.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.ended is None and os.getpgid(self.pid) != self.pid:
                os.kill(self.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def fork() -> ElectronProcess:
    """Fork the electron's process. Returns in the parent only; the child runs `child.serve` and exits."""
    requests_r, requests_w = os.pipe()
    replies_r, replies_w = os.pipe()
    stdout_r, stdout_w = os.pipe()
    stderr_r, stderr_w = os.pipe()
    parent = os.getpid()
    # Blocked until `listen_to_stops` is called: process 1 of a container that neither
    # blocks nor handles a signal does not get it at all.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        for fd in (requests_w, replies_r, stdout_r, stderr_r):
            os.close(fd)
        _become_child(parent, requests_r, replies_w, stdout_w, stderr_w)
    for fd in (requests_r, replies_w, stdout_w, stderr_w):
        os.close(fd)
    # Also here, so that a signal that is sent to the group at once reaches the child.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    return ElectronProcess(pid, requests_w, replies_r, stdout_r, stderr_r)


def listen_to_stops(listener: Callable[[int, FrameType | None], None]) -> None:
    """Have SIGTERM and SIGINT call ``listener``, also for a signal that came since `fork`."""
    for number in _STOPS:
        signal.signal(number, listener)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def _become_child(parent: int, requests: int, replies: int, stdout: int, stderr: int) -> NoReturn:
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, target)
        os.close(fd)
    from covalent_cirro.runner import child

    # Not os._exit: libraries that the electron used expect their atexit functions to run.
    sys.exit(child.serve(parent, requests, replies))
