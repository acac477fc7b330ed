"""What the job uses on this compute node, for the outcome: time and memory of its processes, GPUs, and the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.protocol import ComputeNode, Usage
from covalent_cirro.runner import exits, usage
from covalent_cirro.runner.process import Ended


class JobUsage:
    """What the job uses on this node, since this object was made.

    Args:
        pids: Ids of the job's processes (`usage.Memory`).
        environ: The environment.

    Attributes:
        ended: How the electron's process ended; `None` until its end. Set by the one who waits for the process.
    """

    def __init__(self, pids: set[int], environ: Mapping[str, str]) -> None:
        self.ended: Ended | None = None
        self._environ = environ
        self._memory = usage.Memory(pids)
        self._host: usage.HostFacts | None = None
        self._gpu_watch: usage.GpuWatch | None = None
        self._gpus: tuple[dict[str, Any], ...] = ()

    def begin(self) -> None:
        """Look at the host, and at the GPUs until `finish`. A second call does nothing."""
        if self._host is None:
            self._host = usage.HostFacts(self._environ)
            self._gpu_watch = usage.GpuWatch(self._environ)

    def finish(self) -> None:
        """Stop looking at the GPUs: all electrons have ended."""
        if self._gpu_watch is not None:
            self._gpus = self._gpu_watch.finish()

    def cgroup_limit_bytes(self) -> int | None:
        """Memory limit of this process's cgroup; `None` without one. Does not wait."""
        return self._memory.limit_bytes()

    def died(self, ended: Ended, task: str) -> Failure:
        """The failure of an electron whose process ended without a result.

        Args:
            ended: How it ended.
            task: Name of the electron.
        """
        limit = self._limit_bytes()
        return exits.died(ended, task, self._memory.ran_out(ended.max_rss_bytes, limit), limit)

    def hint_at_memory(self, failure: Failure) -> Failure:
        """Say that a process of the electron may have run out of memory: the electron only sees a broken pipe."""
        if not self._memory.oom_kills():
            return failure
        hint = " (meanwhile the kernel killed a process in this container for want of memory)"
        return failure._replace(message=failure.message + hint)

    def host_facts(self) -> dict[str, str]:
        """Facts about the host; empty if no electron ran."""
        return {} if self._host is None else self._host.facts()

    def of_job(self, wall_s: float, nodes: tuple[ComputeNode, ...], others_oom_kills: tuple[int, ...]) -> Usage:
        """What the outcome says.

        Args:
            wall_s: Seconds that the runner took.
            nodes: All nodes of a multi-node job; empty for any other job.
            others_oom_kills: How many processes the kernel killed for want of memory, on each other node that told it.
        """
        peak = self._peak_bytes()
        if nodes:  # the most of any node: each has the same memory
            peak = max((each.peak_memory_bytes or 0 for each in nodes), default=0) or None
        known = [each for each in (self._memory.oom_kills(), *others_oom_kills) if each is not None]
        return Usage(
            wall_s=wall_s,
            cpu_s=self._cpu_s(),
            peak_memory_bytes=peak,
            memory_limit_bytes=self._limit_bytes(),
            gpus=self._gpus,
            oom_kills=sum(known) if known else None,
        )

    def of_node(self) -> dict[str, Any]:
        """What this node used, for the main node of the job."""
        facts = self.host_facts()
        return {
            "cpu_s": self._cpu_s(),
            "peak_memory_bytes": self._peak_bytes(),
            "oom_kills": self._memory.oom_kills(),
            "instance_type": facts.get("instance_type", ""),
            "instance_id": facts.get("instance_id", ""),
        }

    def _cpu_s(self) -> float:
        return 0.0 if self.ended is None else self.ended.cpu_s

    def _limit_bytes(self) -> int | None:
        """Memory limit of the container, by its cgroup or by ECS; waits a moment for ECS."""
        found = self._memory.limit_bytes()
        return self._host.memory_limit_bytes() if found is None and self._host is not None else found

    def _peak_bytes(self) -> int | None:
        peak = self._memory.peak_bytes()
        if self.ended is not None:
            peak = max(peak or 0, self.ended.max_rss_bytes)
        limit = self._limit_bytes()
        if peak is not None and limit is not None:
            peak = min(peak, limit)  # a container has no more; an emulated one may, for a moment
        return peak
