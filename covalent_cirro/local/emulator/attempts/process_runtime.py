"""Runs an attempt as a process of this machine: its own session, working folder, environment and memory limit.

It takes the place of a container: the job gets nothing of the emulator's own environment. On Linux a `reaper` above the
process ends all its descendants with it; elsewhere those that were seen are killed. It must not know jobs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from covalent_cirro.local.emulator.attempts import full_disk, own_python, process_table, reaper
from covalent_cirro.local.emulator.attempts.process_table import ProcessEntry
from covalent_cirro.local.emulator.attempts.runtime import (
    OUT_OF_MEMORY,
    AttemptSpec,
    Exit,
    ImageConfig,
    StartFailed,
    image_config,
    scratch,
)
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.runner.times import TIMES_VARIABLE

START_S = 10.0
"""How long `ProcessRuntime.close` waits for processes that are being started; one needs a few milliseconds."""
UMASK = 0o022
"""The umask of a container, whatever that of the emulator is: jobs also write into folders of the user."""
WATCH_S = 0.1
"""Shortest time between two measurements of memory."""
KEPT_VARIABLES = frozenset(
    (
        *("LANG", "LANGUAGE", "TZ", "TERM", "USER", "LOGNAME", "SHELL", "TMPDIR"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
        TIMES_VARIABLE,
    )
)
"""Variables of this machine that a job gets, with ``LC_*``, ``PIP_*`` and ``UV_*``. A container gets none of them; a
process needs them to find its libraries and the network. By the last, tests have runners wait less."""
KEPT_PREFIXES = ("LC_", "PIP_", "UV_")

REAPED = sys.platform.startswith("linux")
"""Whether attempts run below a `reaper`."""


def base_environment(folder: Path, programs: Path) -> dict[str, str]:
    """The environment of a process before AWS's and the job's variables.

    ``python`` is the attempt's own, in ``programs`` (`own_python`). HOME is the working folder, as in a container that
    starts from its image; the user's AWS files are not found there (botocore would prefer them to the job's role),
    pip's settings and cache are.
    """
    home = Path.home()
    kept = {key: value for key, value in os.environ.items() if key in KEPT_VARIABLES or key.startswith(KEPT_PREFIXES)}
    path = os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1")))
    made = {
        "PATH": path,
        "HOME": str(folder),
        "PWD": str(folder),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(home / ".cache"),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    pip_config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    if pip_config.is_file():
        kept.setdefault("PIP_CONFIG_FILE", str(pip_config))
    return {**kept, **made}


class ProcessAttempt:
    """A process that runs, with all its descendants. Made by `ProcessRuntime.start`.

    Attributes:
        pid: Process id of the process, or of the reaper above it.
        descendants: All descendants that were seen, by pid.
    """

    def __init__(
        self, spec: AttemptSpec, process: subprocess.Popen[bytes], folder: Path, output: Callable[[bytes], None]
    ) -> None:
        self.pid = process.pid
        self.limit = spec.memory_mib * 1024 * 1024
        self.descendants: dict[int, ProcessEntry] = {}
        self.ended = threading.Event()
        self._out_of_memory = False
        self._process = process
        self._folder = folder
        self._output = output
        self._timer: threading.Timer | None = None
        self._reader = threading.Thread(target=self._read, name=f"output-{spec.task_id[:8]}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while True:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                return
            if not data:
                return
            self._output(data)

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the process, as to a container's PID 1; SIGKILL to all descendants after the grace period."""
        if self._timer is not None or self.ended.is_set():
            return
        self._signal(signal.SIGTERM)
        self._timer = threading.Timer(grace_s, self.kill)
        self._timer.daemon = True
        self._timer.start()

    def kill(self) -> None:
        """SIGKILL to the process and all its descendants."""
        if REAPED:
            self._signal(reaper.KILL)
        elif not self.ended.is_set():
            self._kill_group()
        self._kill_descendants()

    def kill_for_memory(self, largest: ProcessEntry) -> None:
        """Kill a process as the kernel does in a container that exceeds its memory limit: the largest, not all.

        ECS tells of it at the container's end, also if the first process went on and ended by itself.
        """
        if not self.ended.is_set():
            self._out_of_memory = True
            process_table.kill(largest)

    def wait(self) -> Exit:
        """Block until the process ended; its descendants are killed then, as in a container."""
        if not REAPED and hasattr(os, "waitid"):  # keeps the pid in use, so that no other group has its number
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self._kill_group()
        code = self._process.wait()
        self.ended.set()
        if self._timer is not None:
            self._timer.cancel()
        self._kill_descendants()
        self._reader.join(timeout=2.0)  # a descendant that was not seen may keep the pipe open
        if self._reader.is_alive() and self._process.stdout is not None:
            os.set_blocking(self._process.stdout.fileno(), False)
        elif self._process.stdout is not None:
            self._process.stdout.close()
        _remove(self._folder)
        return Exit(code if code >= 0 else 128 - code, OUT_OF_MEMORY if self._out_of_memory else None)

    def _signal(self, number: int) -> None:
        # Not by Popen, which would first poll the process, and so take its exit code from `wait`.
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _kill_descendants(self) -> None:
        for seen in list(self.descendants.values()):
            process_table.kill(seen)


@dataclass
class ProcessRuntime:
    """Runs attempts as processes.

    Attributes:
        folder: Folder of their working folders; each is removed when its attempt ended.
        images: Configurations of images, by name (`runtime.image_config`).
    """

    folder: Path
    images: Mapping[str, ImageConfig] = field(default_factory=dict)
    _attempts: dict[int, ProcessAttempt] = field(default_factory=dict)
    _change: threading.Condition = field(default_factory=threading.Condition)
    _starting: int = 0
    _closed: bool = False
    _watch: threading.Thread | None = None

    def start(self, spec: AttemptSpec, output: Callable[[bytes], None]) -> ProcessAttempt:
        """Start a process in a session of its own (`attempts.Runtime.start`)."""
        folder = scratch(self.folder, spec.task_id)
        image = image_config(self.images, spec.image)
        own = base_environment(folder, own_python.make(_python_of(folder)))
        environment = {**own, **image.environment, **_with_folders(spec)}
        environment.setdefault("AWS_CONFIG_FILE", str(folder / ".aws" / "config"))
        environment.setdefault("AWS_SHARED_CREDENTIALS_FILE", str(folder / ".aws" / "credentials"))
        # A container sees only its GPUs; a process would see all GPUs of the machine.
        environment.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, spec.gpus)))
        if spec.disk_full_s is not None:
            environment = full_disk.fill(folder, spec.disk_full_s, environment)
        if spec.entrypoint is None:
            command = [*image.entrypoint, *(spec.command or image.command)]
        else:
            command = [*spec.entrypoint, *spec.command]
        if not command:
            _remove(folder)
            raise StartFailed(
                "CannotCreateContainerError: Error response from daemon: no command specified (a process has no image "
                "whose command could be run)"
            )
        with self._change:
            if self._closed:
                raise StartFailed("CannotStartContainerError: the emulator ends")
            self._starting += 1
        try:
            process = _run(command, folder, environment, limits(spec.options))
            attempt = ProcessAttempt(spec, process, folder, output)
            with self._change:
                self._attempts[attempt.pid] = attempt
                if self._watch is None:
                    self._watch = threading.Thread(target=self._watch_memory, name="memory", daemon=True)
                    self._watch.start()
        except OSError as error:
            _remove(folder)
            detail = (
                "executable file not found in $PATH"
                if isinstance(error, FileNotFoundError)
                else (error.strerror or str(error)).lower()
            )
            raise StartFailed(
                "CannotStartContainerError: Error response from daemon: failed to create task for container: failed to "
                f'create shim task: OCI runtime create failed: exec: "{command[0]}": {detail}: unknown'
            ) from None
        finally:
            with self._change:
                self._starting -= 1
                self._change.notify_all()
        return attempt

    def close(self) -> None:
        """Kill all attempts, also those that are being started."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            self._change.wait_for(lambda: not self._starting, timeout=START_S)
            attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.kill()

    def _watch_memory(self) -> None:
        """Measure memory: one reading of the process table for all attempts, none while nothing runs."""
        while True:
            with self._change:
                ended = [pid for pid, attempt in self._attempts.items() if attempt.ended.is_set()]
                for pid in ended:
                    del self._attempts[pid]
                while not self._attempts and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                attempts = list(self._attempts.values())
            before = time.perf_counter()
            _check_memory(attempts)
            cost = time.perf_counter() - before
            with self._change:
                if not self._closed:
                    self._change.wait_for(lambda: self._closed, timeout=max(WATCH_S, 20 * cost))


def _python_of(folder: Path) -> Path:
    """Where the Python of an attempt is: beside its working folder, which begins empty."""
    return folder.with_name(f"{folder.name}-python")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(_python_of(folder), ignore_errors=True)


def _with_folders(spec: AttemptSpec) -> dict[str, str]:
    """The job's variables: one whose value is the path of a mount has the folder behind the mount in its place.

    A process sees the files of this machine and no mounts: by such a variable it finds its files all the same.
    """
    points = spec.options.get("mountPoints") or []
    behind = {
        point["containerPath"]: str(spec.folders[point["sourceVolume"]])
        for point in points
        if point["sourceVolume"] in spec.folders
    }
    return {name: behind.get(value, value) for name, value in spec.environment.items()}


def limits(container: Json) -> str:
    """``ulimits`` as the reaper takes them: ``nofile=1024:2048,core=0:0``."""
    asked = container.get("ulimits") or []
    return ",".join(f"{each['name']}={each['softLimit']}:{each['hardLimit']}" for each in asked)


def _run(
    command: list[str], folder: Path, environment: Mapping[str, str], ulimits: str = ""
) -> subprocess.Popen[bytes]:
    """Start a command, in a session of its own. Limits are set on Linux only.

    Raises:
        OSError: It could not be run.
    """

    def start(words: list[str], pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=UMASK,
            pass_fds=pass_fds,
        )

    if not REAPED:
        return start(command)
    reported, report = os.pipe()
    try:
        # Isolated: the job's variables, site packages and start-up files are not for the reaper.
        process = start([sys.executable, "-I", "-S", reaper.__file__, str(report), ulimits, *command], (report,))
    except BaseException:
        os.close(reported)
        raise
    finally:
        os.close(report)
    with open(reported, "rb") as file:
        number = file.read()  # returns once the command runs, which closes the other end
    if number:
        assert process.stdout is not None
        process.stdout.close()
        process.wait()
        raise OSError(int(number), os.strerror(int(number)), command[0])
    return process


def _check_memory(attempts: list[ProcessAttempt]) -> None:
    processes = process_table.table()
    for attempt in attempts:
        below = process_table.descendants(attempt.pid, processes)
        attempt.descendants.update((seen.pid, seen) for seen in below)
        alive = [*(() if REAPED else (attempt.pid,)), *(seen.pid for seen in below)]
        # Resident sizes count shared pages for each process: an upper bound that costs little.
        resident = sum(processes[pid].resident_bytes for pid in alive if pid in processes)
        if resident > attempt.limit and process_table.memory_bytes(alive, processes) > attempt.limit:
            largest = max((processes[pid] for pid in alive if pid in processes), key=lambda seen: seen.resident_bytes)
            attempt.kill_for_memory(largest)
