"""The electron's process: output as it appears, violent ends, SIGTERM, what it leaves behind, what it used."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.limits import LOG_TAIL_BYTES
from covalent_cirro.contract.protocol import ExitCode

cloudpickle.register_pickle_by_value(sys.modules[__name__])


# --- output ---------------------------------------------------------------------------------------------------------


def test_output_is_forwarded_as_it_appears_and_stored(runs: Any, tmp_path: Path) -> None:
    """A line is on the container's stdout while the electron still runs; short logs need no part."""
    go = tmp_path / "go"

    def electron() -> None:
        import os
        import sys
        import time

        print("before")
        print("warned", file=sys.stderr)
        while not os.path.exists(str(go)):
            time.sleep(0.02)
        print("after")

    runs.make_call(runs.task(electron))
    process = runs.start()

    assert process.stdout.readline() == b"before\n"
    assert process.stderr.readline() == b"warned\n"
    go.touch()
    ran = runs.finish(process)

    assert ran.stdout == "after\n"
    assert (ran.result.stdout.tail, ran.result.stderr.tail) == ("before\nafter\n", "warned\n")
    assert (ran.result.stdout.size, ran.result.stdout.parts) == (13, ())


def test_growing_log_is_stored_in_parts_while_it_runs(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """New text is in S3 after the interval; in the end the parts are the whole text, cut between characters."""
    go = tmp_path / "go"

    def electron() -> None:
        import os
        import sys
        import time

        # Half of a tree, so that the first part would end inside it.
        sys.stdout.buffer.write("first 🌲".encode() + "🌲".encode()[:2])
        sys.stdout.buffer.flush()
        while not os.path.exists(str(go)):
            time.sleep(0.02)
        sys.stdout.buffer.write("🌲".encode()[2:] + b" last")

    runs.make_call(runs.task(electron))
    process = runs.start({"CIRRO_RUNNER_SECONDS": "log_interval=0.2"})
    part = runs.location.log_key("01/stdout.000000")
    eventually(lambda: part.removeprefix(runs.prefix) in runs.stored())
    assert runs.get(part).decode() == "first 🌲"
    go.touch()
    ran = runs.finish(process)

    log = ran.result.stdout
    assert log.parts == ("01/stdout.000000", "01/stdout.000001")
    assert runs.text(log).decode() == log.tail == "first 🌲🌲 last"
    assert log.size == len(log.tail.encode())


def test_200_mb_of_output_do_not_grow_the_supervisor(runs: Any) -> None:
    """All of it is forwarded and stored in parts; the supervisor's peak memory stays small."""

    def electron() -> int:
        import os
        import sys

        line = b"x" * 999 + b"\n"
        for _ in range(200):
            sys.stdout.buffer.write(line * 1000)
        sys.stdout.buffer.flush()
        with open(f"/proc/{os.getppid()}/status") as file:
            peak = next(row for row in file if row.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024

    runs.make_call(runs.task(electron))
    ran = runs.finish(runs.start(stdout=subprocess.DEVNULL), timeout_s=120)

    log = ran.result.stdout
    assert log.size == 200_000_000, ran
    assert len(log.tail) == LOG_TAIL_BYTES
    keys = {runs.prefix + key for key in runs.stored()}
    assert {runs.location.log_key(part) for part in log.parts} < keys
    stored = [runs.s3.head_object(Bucket="runner-tests", Key=runs.location.log_key(part)) for part in log.parts]
    assert sum(head["ContentLength"] for head in stored) == log.size
    assert runs.value(ran) < 150_000_000


def test_parts_of_packed_electrons_do_not_collide(runs: Any) -> None:
    """Numbers go on from one electron of the call to the next; each log lists its own."""
    texts = [letter * (LOG_TAIL_BYTES + 10) for letter in "ab"]

    ran = runs(*(runs.task(lambda text: print(text, end=""), text, node_id=i) for i, text in enumerate(texts)))

    logs = [result.stdout for result in ran.outcome.results]
    assert [log.parts for log in logs] == [("01/stdout.000000",), ("01/stdout.000001",)]
    assert [runs.text(log).decode() for log in logs] == texts


def test_what_many_packed_electrons_print_is_stored_where_the_outcome_has_no_room(runs: Any) -> None:
    """Nothing is lost, and the one that failed keeps the end of what it printed in the outcome."""
    text = "x" * 20_000

    def electron(text: str, fails: bool) -> None:
        print(text, end="")
        if fails:
            raise ValueError

    ran = runs(*(runs.task(electron, text, i == 15, node_id=i) for i in range(16)))

    *returned, failed = [result.stdout for result in ran.outcome.results]
    assert [runs.text(log).decode() for log in (*returned, failed)] == [text] * 16
    assert {len(log.parts) for log in returned} == {1}
    assert {len(log.tail) for log in returned} == {8192}
    assert (failed.parts, failed.tail) == ((), text)


# --- violent ends ---------------------------------------------------------------------------------------------------


def segfault() -> None:
    import ctypes

    print("last words")
    ctypes.string_at(0)


def kill_itself() -> None:
    import os
    import signal

    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)


def exit_at_once() -> None:
    import os

    print("last words", flush=True)
    os._exit(5)


@pytest.mark.parametrize(
    ("function", "kind", "signal_name", "exit_code", "words"),
    [
        (segfault, Kind.KILLED, "SIGSEGV", None, "segmentation fault"),
        (kill_itself, Kind.KILLED, "SIGKILL", None, "killed by SIGKILL"),
        (exit_at_once, Kind.EXITED, "", 5, "exit code 5"),
    ],
)
def test_violent_end_leaves_an_outcome(
    runs: Any, function: Any, kind: str, signal_name: str, exit_code: int | None, words: str
) -> None:
    """The outcome says how it ended, and has the last words."""
    ran = runs(runs.task(function))

    assert ran.code == ExitCode.RAISED
    assert (ran.failure.kind, ran.failure.signal, ran.failure.exit_code) == (kind, signal_name, exit_code)
    assert words in ran.failure.message
    assert ran.result.stdout.tail == "last words\n"
    if function is segfault:
        assert "in segfault" in ran.result.stderr.tail


def test_copy_of_the_electron_that_comes_back_is_not_heard(runs: Any) -> None:
    """An electron that forks and lets its child return gives one result, its own."""

    def electron() -> str:
        import os
        import time

        if os.fork() == 0:
            return "child"
        time.sleep(0.3)
        return "parent"

    assert runs.value(runs(runs.task(electron))) == "parent"


def test_electron_that_leaves_its_process_group_is_stopped_all_the_same(runs: Any) -> None:
    """SIGTERM finds it by its id."""

    def electron() -> None:
        import os
        import time

        os.setpgid(0, os.getppid())
        print("running", flush=True)
        time.sleep(300)

    ran = start_and_stop(runs, electron)

    assert (ran.code, ran.failure.signal) == (ExitCode.TERMINATED, "SIGTERM")


def test_electron_that_closes_all_files_is_told(runs: Any) -> None:
    """Even the runner's own pipes: the process then ends without a result."""

    def electron() -> None:
        import os

        os.closerange(3, 100)

    ran = runs(runs.task(electron))

    assert ran.failure.kind == Kind.EXITED


def test_background_process_does_not_keep_the_job(runs: Any) -> None:
    """One that the electron leaves behind ends with it, whether it stays in the group or not."""

    def electron() -> list[int]:
        import subprocess

        command = ["sleep", "300"]
        return [subprocess.Popen(command, start_new_session=apart).pid for apart in (False, True)]

    began = time.monotonic()
    ran = runs(runs.task(electron))

    stays, apart = runs.value(ran)
    assert time.monotonic() - began < 100  # they last three times as long
    os.kill(apart, signal.SIGKILL)
    assert not psutil.pid_exists(stays) or psutil.Process(stays).status() == psutil.STATUS_ZOMBIE


def test_exit_functions_run_and_their_output_is_kept(runs: Any) -> None:
    """Libraries that the electron used may flush at exit; a thread that never ends is cut off."""

    def electron() -> str:
        import atexit
        import threading
        import time

        atexit.register(lambda: print("flushed"))
        if threading.active_count() == 1:
            threading.Thread(target=time.sleep, args=(0.2,)).start()
        return "done"

    def never_ends() -> str:
        import threading
        import time

        threading.Thread(target=time.sleep, args=(300,)).start()
        return "done"

    orderly = runs(runs.task(electron))
    assert (runs.value(orderly), orderly.result.stdout.tail) == ("done", "flushed\n")

    runs.location = runs.location.sibling("018f5e2b7c00c0ffee02")
    stuck = runs(runs.task(never_ends), env={"CIRRO_RUNNER_SECONDS": "exit=0.5"})
    assert (stuck.code, runs.value(stuck)) == (ExitCode.OK, "done")


def test_killed_runner_takes_the_electron_along(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """SIGKILL to the runner alone ends its child too."""
    pid_file = tmp_path / "pid"

    def electron() -> None:
        import os
        import time

        with open(f"{pid_file}.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{pid_file}.new", pid_file)
        time.sleep(300)

    runs.make_call(runs.task(electron))
    process = runs.start()
    eventually(pid_file.exists)
    child = psutil.Process(int(pid_file.read_text()))
    process.kill()
    process.communicate()

    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


# --- SIGTERM --------------------------------------------------------------------------------------------------------


def start_and_stop(runs: Any, electron: Any, env: dict[str, str] | None = None) -> Any:
    """Run an electron, send SIGTERM to the runner's group after its first line, return how it ended."""
    runs.make_call(runs.task(electron))
    process = runs.start(env)
    assert process.stdout.readline() == b"running\n"
    os.killpg(process.pid, signal.SIGTERM)
    return runs.finish(process)


def sleep_for_ever() -> None:
    import time

    print("running", flush=True)
    time.sleep(300)


def ignore_sigterm() -> None:
    import signal
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("running", flush=True)
    time.sleep(300)


def save_and_exit() -> None:
    import signal
    import sys
    import time

    def save(*_: Any) -> None:
        print("saved a checkpoint")
        sys.exit(1)

    signal.signal(signal.SIGTERM, save)
    print("running", flush=True)
    time.sleep(300)


@pytest.mark.parametrize(
    ("electron", "log", "signal_name"),
    [
        (sleep_for_ever, "running\n", "SIGTERM"),
        (ignore_sigterm, "running\n", "SIGKILL"),
        (save_and_exit, "running\nsaved a checkpoint\n", ""),
    ],
)
def test_sigterm_reaches_the_electron_and_logs_are_stored(runs: Any, electron: Any, log: str, signal_name: str) -> None:
    """The electron may save its work; one that does not listen is killed in time. Exit code 143."""
    ran = start_and_stop(runs, electron, {"CIRRO_RUNNER_SECONDS": "stop=1"})

    assert ran.code == ExitCode.TERMINATED == 143
    assert (ran.failure.kind, ran.failure.signal) == (Kind.TERMINATED, signal_name)
    assert "stopped by SIGTERM" in ran.failure.message
    assert ran.result.stdout.tail == log


def test_electron_that_finishes_within_its_grace_keeps_its_result(runs: Any) -> None:
    """A result that came after SIGTERM is not thrown away."""

    def electron() -> str:
        import signal
        import time

        stopped = []
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
        print("running", flush=True)
        while not stopped:
            time.sleep(0.01)
        return "in time"

    ran = start_and_stop(runs, electron)

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, "in time")


def test_sigterm_while_inputs_are_fetched_ends_at_once(runs: Any, eventually: Any) -> None:
    """Nothing runs any more, and the outcome says so."""
    blob = runs.blob(cloudpickle.dumps(b"x"))
    asked = []

    def slow(request: Any) -> None:
        if "/blobs/" in request.path:
            asked.append(request)
            time.sleep(3)

    runs.proxy.intercept = slow
    runs.make_call(runs.task(print, blob))
    process = runs.start()
    eventually(lambda: asked)
    process.terminate()
    ran = runs.finish(process)

    assert (ran.code, ran.failure.kind) == (ExitCode.TERMINATED, Kind.TERMINATED)
    assert ran.stdout == ""


# --- usage ----------------------------------------------------------------------------------------------------------


def test_gpus_are_asked_for_only_where_they_are_visible(runs: Any, tmp_path: Path) -> None:
    """The figures of nvidia-smi are in the outcome; without a visible device it is not even called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    tool = folder / "nvidia-smi"
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'echo "0, NVIDIA A10G, 23028, 1024, 50"\necho "1, NVIDIA A10G, 23028, [N/A], [N/A]"\n'
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    path = f"{folder}:{runs.env['PATH']}"

    with_gpus = runs(runs.task(time.sleep, 0.3), env={"PATH": path, "NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2"})
    mib = 1024 * 1024
    assert with_gpus.outcome.usage.gpus == (
        {"name": "NVIDIA A10G", "memory_bytes": 23028 * mib, "peak_memory_bytes": 1024 * mib, "utilization": 50.0},
        {"name": "NVIDIA A10G", "memory_bytes": 23028 * mib, "peak_memory_bytes": None, "utilization": None},
    )

    (tmp_path / "asked").unlink()
    runs.location = runs.location.sibling("018f5e2b7c00c0ffee02")
    without = runs(runs.task(time.sleep, 0.1), env={"PATH": path, "NVIDIA_VISIBLE_DEVICES": "void"})
    assert without.outcome.usage.gpus == ()
    assert not (tmp_path / "asked").exists()


def test_broken_gpu_tool_never_fails_the_job(runs: Any, tmp_path: Path) -> None:
    """A tool that ends with an error is not asked again."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho no driver >&2\nexit 9\n")
    tool.chmod(0o755)

    env = {"PATH": f"{tmp_path}:{runs.env['PATH']}", "NVIDIA_VISIBLE_DEVICES": "all"}
    ran = runs(runs.task(time.sleep, 0.1), env=env)

    assert (ran.code, ran.outcome.usage.gpus) == (ExitCode.OK, ())
