"""Whether the kernel killed processes of a container because they exceeded its memory limit.

Not every engine says so: podman 4.3 leaves ``State.OOMKilled`` false with cgroup v1. The kernel's count vanishes with
the container's cgroup, some 50 ms after its last process, so it is read at the end of PID 1. There is no count where
the engine is on another machine or in a virtual one. It must not know what runs in the container.
"""

from __future__ import annotations

import contextlib
import os
import select

from covalent_cirro.runner.usage import Cgroup, find_cgroup


class MemoryWatch:
    """Counts the kernel's kills in one container.

    Args:
        container_id: The whole id that the engine gave it.
    """

    def __init__(self, container_id: str) -> None:
        self._id = container_id
        self._cgroup = Cgroup("", "", "", "")
        self._process = -1

    def begin(self, pid: int) -> None:
        """Watch from now on, if this machine sees PID 1 of the container as ``pid``. A second call does nothing."""
        cgroup = find_cgroup(own=f"/proc/{pid}/cgroup")
        # An engine in a virtual machine has pids of its own: only the id of the container identifies its cgroup.
        if self._process < 0 and self._id in cgroup.events and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # it has ended already
                self._process = os.pidfd_open(pid)
                self._cgroup = cgroup

    def kills_at_the_end(self) -> int | None:
        """Block until PID 1 ended; returns how many processes were killed. Without a count `None`, at once."""
        if self._process < 0:
            return None
        select.select([self._process], [], [])
        kills = self._cgroup.oom_kills()
        os.close(self._process)
        self._process = -1
        return kills
