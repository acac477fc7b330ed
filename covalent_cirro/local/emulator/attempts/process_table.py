"""The machine's processes: parents, memory, and a way to kill a process that was seen, and no later one of its pid.

On Linux it reads ``/proc``, at a tenth of psutil's cost; elsewhere it uses psutil. It must not know jobs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from typing import NamedTuple

_LINUX = sys.platform.startswith("linux")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessEntry(NamedTuple):
    """A process at one moment; ``started`` distinguishes it from a later one with the same pid."""

    pid: int
    parent: int
    started: float
    resident_bytes: int


def table() -> dict[int, ProcessEntry]:
    """All processes by pid."""
    if not _LINUX:
        return _psutil_table()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            seen = _read(int(name))
            if seen is not None:
                found[seen.pid] = seen
    return found


def descendants(of: int, processes: dict[int, ProcessEntry]) -> list[ProcessEntry]:
    """All below a process, nearest first; itself is not among them."""
    children: dict[int, list[ProcessEntry]] = {}
    for seen in processes.values():
        children.setdefault(seen.parent, []).append(seen)
    found: list[ProcessEntry] = []
    todo = [of]
    while todo:
        below = children.get(todo.pop(0), [])
        found.extend(below)
        todo.extend(seen.pid for seen in below)
    return found


def kill(seen: ProcessEntry) -> None:
    """SIGKILL to this process, if it still runs; not to a later one with its pid."""
    now = _read(seen.pid) if _LINUX else _psutil_table().get(seen.pid)
    if now is not None and now.started == seen.started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(seen.pid, signal.SIGKILL)


def memory_bytes(pids: Iterable[int], processes: dict[int, ProcessEntry]) -> int:
    """Memory of processes together; shared pages count once where the system knows them (proportional set size)."""
    total = 0
    for pid in pids:
        resident = processes[pid].resident_bytes if pid in processes else 0
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                lines = [line for line in file if line.startswith("Pss:")]
            total += int(lines[0].split()[1]) * 1024
        except (OSError, IndexError, ValueError):
            total += resident
    return total


def _read(pid: int) -> ProcessEntry | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # "pid (name) state ppid ...": the name may hold spaces and parentheses, so count from its end (proc(5)).
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessEntry(pid, int(fields[1]), float(fields[19]), int(fields[21]) * _PAGE)


def _psutil_table() -> dict[int, ProcessEntry]:
    import psutil

    found = {}
    for process in psutil.process_iter(["pid", "ppid", "create_time", "memory_info"]):
        info = process.info
        resident = 0 if info["memory_info"] is None else info["memory_info"].rss
        found[info["pid"]] = ProcessEntry(info["pid"], info["ppid"] or 0, info["create_time"] or 0.0, resident)
    return found
