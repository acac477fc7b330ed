"""Measures what the job uses (memory, GPUs), and reads on which host it runs.

Everything here is best effort: it returns less rather than raise. It costs a few file reads, and more only on a machine
with GPUs or with ECS's metadata endpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import threading

_UNLIMITED_BYTES = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63
_GPU_FIRST_S = 2.0
_GPU_INTERVAL_S = 15.0
_GPU_TIMEOUT_S = 10.0
_METADATA_TIMEOUT_S = 2.0
_LIMIT_S = 1.0  # ECS answers within milliseconds, on the same machine
_IMDS = "http://169.254.169.254"
_IMDS_TOKEN_S = 60
FARGATE = "AWS_ECS_FARGATE"
"""``AWS_EXECUTION_ENV`` of a task on Fargate (ECS Developer Guide, Fargate task metadata)."""
_IMDS_FACTS = {
    "instance_type": "instance-type",
    "instance_id": "instance-id",
    "zone": "placement/availability-zone",
    "life_cycle": "instance-life-cycle",
}
"""Paths in EC2's instance metadata service, by the name of the fact (EC2 User Guide, Instance metadata categories)."""
_NVIDIA_QUERY = "index,name,memory.total,memory.used,utilization.gpu"
_MIB = 1024 * 1024
_DMI = "/sys/class/dmi/id"
_SAME_AS_LIMIT = 0.9


# --- memory -----------------------------------------------------------------------------------------------------


class Cgroup(NamedTuple):
    """Files of the memory cgroup of this process, version 1 or 2; empty paths if there is none."""

    limit: str
    peak: str
    events: str
    processes: str

    def limit_bytes(self) -> int | None:
        """The memory limit; `None` without one."""
        limit = _number(self.limit)
        return None if limit is None or limit >= _UNLIMITED_BYTES else limit

    def peak_bytes(self) -> int | None:
        """Peak use of the cgroup in bytes, page cache included; `None` if the kernel has no such file."""
        return _number(self.peak)

    def oom_kills(self) -> int | None:
        """Number of processes that the kernel killed here because memory ran out; `None` if it does not count them."""
        for line in _read(self.events).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.strip().isdigit():
                return int(count)
        return None

    def is_ours(self, pids: set[int]) -> bool:
        """Whether the cgroup has no other processes than these, so that its peak is the job's."""
        found = _read(self.processes).split()
        return bool(found) and all(pid.isdigit() and int(pid) in pids for pid in found)


def find_cgroup(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> Cgroup:
    """Find the memory cgroup of this process. In a container its files are at the root, whatever its path says."""
    paths = {}
    for line in _read(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            paths[controller] = path
    if "memory" in paths:
        names = ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control", "cgroup.procs")
        places = [os.path.join(root, "memory") + paths["memory"], os.path.join(root, "memory")]
    else:
        names = ("memory.max", "memory.peak", "memory.events", "cgroup.procs")
        places = [root + paths.get("", "/"), root]
    for place in places:
        if os.path.exists(os.path.join(place, names[0])):
            return Cgroup(*(os.path.join(place, name) for name in names))
    return Cgroup("", "", "", "")


def out_of_memory(
    kills_before: int | None, kills_now: int | None, max_rss: int, limit: int | None, *, own: bool = True
) -> bool:
    """Whether a SIGKILL was for lack of memory: the kernel's count rose or, without a count, the limit was near.

    ``own``: whether the count is the job's own. If not, the kernel does not count there what is over the job's limit.
    """
    if kills_before is not None and kills_now is not None and (own or kills_now > kills_before):
        return kills_now > kills_before
    return limit is not None and max_rss >= _SAME_AS_LIMIT * limit


class Memory:
    """The job's memory, by its cgroup, since this object was made.

    Args:
        pids: Ids of the job's processes, to check whether the cgroup is the job's own.
    """

    def __init__(self, pids: set[int]) -> None:
        self._cgroup = find_cgroup()
        self._kills = self._cgroup.oom_kills()
        self._own = self._cgroup.is_ours(pids)

    def limit_bytes(self) -> int | None:
        """The memory limit; `None` without one."""
        return self._cgroup.limit_bytes()

    def peak_bytes(self) -> int | None:
        """Peak use in bytes; `None` if the cgroup has no limit or other processes: the peak is not the job's."""
        return self._cgroup.peak_bytes() if self._own and self.limit_bytes() is not None else None

    def oom_kills(self) -> int | None:
        """Number of processes that the kernel killed because memory ran out; `None` if it does not count them."""
        now = self._cgroup.oom_kills()
        return None if self._kills is None or now is None else max(0, now - self._kills)

    def ran_out(self, max_rss: int, limit: int | None) -> bool:
        """Whether a SIGKILL was for lack of memory; ``limit`` is the container's limit in bytes, from any source."""
        return out_of_memory(self._kills, self._cgroup.oom_kills(), max_rss, limit, own=self._own)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


# --- GPUs -------------------------------------------------------------------------------------------------------


def gpus_visible(environ: Mapping[str, str]) -> bool:
    """Whether this container has NVIDIA GPUs (NVIDIA Container Toolkit: "void" and "none" hide them) and their tool."""
    visible = environ.get("NVIDIA_VISIBLE_DEVICES")
    if visible in ("void", "none", "") or (visible is None and not os.path.exists("/dev/nvidiactl")):
        return False
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(folder, "nvidia-smi"), os.X_OK) for folder in folders)


class GpuWatch:
    """Calls ``nvidia-smi`` regularly while electrons run. Does nothing without GPUs."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._gpus: dict[str, dict[str, Any]] = {}
        self._samples: dict[str, list[float]] = {}
        # Not at the top: the electron waits for the imports of this module.
        import threading

        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if gpus_visible(environ):
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def finish(self) -> tuple[dict[str, Any], ...]:
        """Stop, and return what was measured (`protocol.Usage.gpus`)."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_GPU_TIMEOUT_S)
        gpus = []
        for index, gpu in self._gpus.items():
            seen = self._samples[index]
            gpus.append({**gpu, "utilization": round(sum(seen) / len(seen), 1) if seen else None})
        return tuple(gpus)

    def _watch(self) -> None:
        wait_s = _GPU_FIRST_S
        while self._sample():
            if self._stop.wait(wait_s):
                return
            wait_s = min(_GPU_INTERVAL_S, wait_s * 1.5)

    def _sample(self) -> bool:
        import subprocess

        command = ["nvidia-smi", f"--query-gpu={_NVIDIA_QUERY}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S)
        except (OSError, ValueError, subprocess.SubprocessError):
            return False
        for index, name, total, used, utilization in parse_gpus(done.stdout):
            gpu = self._gpus.setdefault(index, {"name": name, "memory_bytes": total, "peak_memory_bytes": used})
            if used is not None:
                gpu["peak_memory_bytes"] = max(used, gpu["peak_memory_bytes"] or 0)
            self._samples.setdefault(index, [])
            if utilization is not None:
                self._samples[index].append(utilization)
        return done.returncode == 0 and bool(self._gpus)


def parse_gpus(text: str) -> list[tuple[str, str, int | None, int | None, float | None]]:
    """Index, name, memory and used memory in bytes, utilization in percent; `None` for "[N/A]", as with MIG."""
    gpus = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(_NVIDIA_QUERY.split(",")):
            index, name, *rest = fields
            total, used, utilization = (float(field) if field.isdigit() else None for field in rest)
            gpus.append(
                (
                    index,
                    name,
                    None if total is None else int(total * _MIB),
                    None if used is None else int(used * _MIB),
                    utilization,
                )
            )
    return gpus


# --- the host ---------------------------------------------------------------------------------------------------


class HostFacts:
    """Facts about the machine: from its firmware's tables, and in a thread from the metadata of ECS and EC2."""

    def __init__(self, environ: Mapping[str, str], dmi: str = _DMI) -> None:
        self._facts = {"hostname": os.uname().nodename}
        self._memory_limit: int | None = None
        named = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        if not named and "Amazon" in _read(os.path.join(dmi, "sys_vendor")):
            # On EC2's Nitro machines these files have the same values as IMDS, and need no network.
            found = {"instance_type": "product_name", "instance_id": "board_asset_tag"}
            self._facts.update({key: _read(os.path.join(dmi, name)).strip() for key, name in found.items()})
        self._thread: threading.Thread | None = None
        self._limit_asked: threading.Event | None = None
        uri = environ.get("ECS_CONTAINER_METADATA_URI_V4", "")
        if uri.startswith("http://"):
            import threading

            self._limit_asked = threading.Event()
            on_fargate = environ.get("AWS_EXECUTION_ENV") == FARGATE
            if on_fargate:
                # By its name and ECS's answer; it has no instance, and no instance metadata service.
                self._facts = {**self._facts, "instance_type": "Fargate", "instance_id": ""}
            imds = "" if on_fargate else named or _IMDS
            self._thread = threading.Thread(target=self._ask, args=(uri, imds), daemon=True)
            self._thread.start()

    def facts(self) -> dict[str, str]:
        """The facts so far; does not wait for the endpoints."""
        return {key: value for key, value in list(self._facts.items()) if value}

    def memory_limit_bytes(self) -> int | None:
        """Memory limit of the container in bytes, from ECS; `None` if ECS did not answer.

        Asked for at the end of an electron. One that ends at once is waited for: ECS is asked at its start.
        """
        if self._limit_asked is not None:
            self._limit_asked.wait(_LIMIT_S)
        return self._memory_limit

    def _ask(self, uri: str, imds: str) -> None:
        self._ask_ecs(uri)
        if not imds:
            return
        try:
            token = _request(imds, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": _IMDS_TOKEN_S})
            for key, path in _IMDS_FACTS.items():
                if not self._facts.get(key):
                    found = _request(imds, "GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})
                    self._facts[key] = found
        except Exception:
            return

    def _ask_ecs(self, uri: str) -> None:
        try:
            container = _get_json(uri)
            # ECS-UG task-metadata-endpoint-v4: Limits.Memory is in MiB.
            memory = (container.get("Limits") or {}).get("Memory")
            if isinstance(memory, (int, float)) and memory > 0:
                self._memory_limit = int(memory * _MIB)
            self._answered()
            self._facts["zone"] = str(_get_json(uri + "/task").get("AvailabilityZone") or "")
        except Exception:
            return
        finally:
            self._answered()

    def _answered(self) -> None:
        if self._limit_asked is not None:
            self._limit_asked.set()


def _get_json(uri: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(_request(uri, "GET", "", {}))
    return found


def _request(uri: str, method: str, path: str, headers: Mapping[str, object]) -> str:
    """The body of an answer; ``path`` is appended to the path of ``uri``.

    Raises:
        OSError: No answer, or an error.
    """
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(uri)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_METADATA_TIMEOUT_S)
    try:
        connection.request(method, (parts.path + path) or "/", headers={k: str(v) for k, v in headers.items()})
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise OSError(f"{method} {path} was answered {answer.status}")
        return body
    finally:
        connection.close()
