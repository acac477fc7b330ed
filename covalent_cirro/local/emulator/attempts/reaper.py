"""Ends all descendants of a process when the process ends, as the end of PID 1 does in a container.

A program, run by its path: ``python -I -S reaper.py <fd> <limits> <command...>``, limits such as
``nofile=1024:2048,core=0:0`` or empty. It runs the command as its child, and becomes
the parent of every descendant that loses its own (prctl(2), PR_SET_CHILD_SUBREAPER), whatever the session, group or
environment of that descendant. When the child ends, it kills all processes that are left, and ends with the child's
exit code. The child is killed when the reaper ends, and when the thread that started the reaper does: a program that
serves would outlive an emulator that was killed.

It passes SIGTERM to the child; SIGUSR1 kills the child. If the command cannot be run, the number of the error is
written to the file descriptor. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
"""linux/prctl.h."""
PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h."""

LAST_S = 10.0
"""How long to wait for processes after SIGKILL: one that lasts longer is blocked in the kernel."""

KILL = signal.SIGUSR1
"""The signal that ends all processes."""


def main(report: int, limits: str, command: list[str]) -> int:
    """Run a command with limits; returns its exit code, 128 + n for signal n."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked = {signal.SIGTERM, KILL}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    prctl(PR_SET_PDEATHSIG, KILL, 0, 0, 0)
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _become(report, limits, command, asked)
    os.close(report)
    signal.signal(signal.SIGTERM, lambda *_: _signal(child, signal.SIGTERM))
    signal.signal(KILL, lambda *_: _signal(child, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)  # from now on another process may have its pid
    _end_all()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(report: int, limits: str, command: list[str], asked: set[signal.Signals]) -> None:
    """In the child: run the command, or report why it cannot be run."""
    try:
        os.setsid()
        os.set_inheritable(report, False)
        # Python ignores these two signals; the command gets the default.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
        _limit(limits)
        os.execvp(command[0], command)  # noqa: S606  (no shell is wanted)
    except OSError as error:
        os.write(report, str(error.errno).encode())
    finally:
        os._exit(127)


def _limit(limits: str) -> None:
    """Set limits of this process. What is above its own hard limit, only root may have: it gets its own."""
    for each in filter(None, limits.split(",")):
        name, _, values = each.partition("=")
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            continue
        most = resource.getrlimit(number)[1]
        soft, hard = (_least(int(value), most) for value in values.split(":"))
        resource.setrlimit(number, (soft, hard))


def _least(value: int, most: int) -> int:
    if resource.RLIM_INFINITY in (value, most):
        return most if value == resource.RLIM_INFINITY else value
    return min(value, most)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _end_all() -> None:
    """Kill all processes that are left: a descendant that loses its parent becomes a child of this process."""
    until = time.monotonic() + LAST_S
    while time.monotonic() < until:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _children() -> list[int]:
    own, found = os.getpid(), []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            text = file.read()
            # "pid (name) state ppid ...": the name may hold spaces and parentheses, so count from its end (proc(5)).
            if int(text[text.rindex(b")") + 2 :].split()[1]) == own:
                found.append(int(name))
    return found


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
