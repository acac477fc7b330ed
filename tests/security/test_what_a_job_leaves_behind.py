"""A job of the emulated AWS cannot leave a process running on the machine that the emulator runs on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from covalent_cirro.local.emulator import Emulator, Timing
from tests.emulator.conftest import SCALE, Aws, alive, poll

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel hands over orphans on Linux")

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()  # another session and group: no signal to the job's reaches it
    if os.fork() == 0:  # and no parent that anybody knows
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        {detach}
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], {{}})
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
{end}
"""
DETACHES = "os.closerange(0, 3)"


EMULATOR = """
import sys, time
from pathlib import Path
from covalent_cirro.local.emulator.attempts.process_runtime import ProcessRuntime
from covalent_cirro.local.emulator.attempts.runtime import AttemptSpec

job = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
spec = AttemptSpec("task", "image", ["python", "-c", job], {}, 512)
ProcessRuntime(Path(sys.argv[1])).start(spec, lambda data: print(data.decode(), end="", flush=True))
time.sleep(600)
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An emulator with short times."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(scale=SCALE)) as emulator:
        yield Aws(emulator)


def daemon(aws: Aws, told: Path, *, end: str = "", detach: str = DETACHES) -> tuple[str, int]:
    """A job that leaves a daemon, and the daemon."""
    script = DAEMON.format(end=end, detach=detach)
    job_id = aws.submit("python", "-c", script, str(told))
    poll(told.exists, "the daemon")
    return job_id, int(told.read_text())


def test_a_job_ends_with_an_emulator_that_is_killed(tmp_path: Path) -> None:
    """A service would serve for ever."""
    with subprocess.Popen(
        [sys.executable, "-c", EMULATOR, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as emulator:
        assert emulator.stdout is not None
        pid = int(emulator.stdout.readline())
        assert alive(pid)
        emulator.kill()
    poll(lambda: not alive(pid), "the job has ended")


@pytest.mark.parametrize("detach", [DETACHES, ""], ids=["detached", "with the job's output"])
def test_a_daemon_ends_with_its_job(aws: Aws, tmp_path: Path, detach: str) -> None:
    """It forked twice, has a session of its own and no environment, and the job ends before anybody looks."""
    job_id, pid = daemon(aws, tmp_path / "daemon", detach=detach)
    assert aws.done(job_id)["status"] == "SUCCEEDED"
    assert not alive(pid)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139),
        ("os.killpg(0, signal.SIGKILL)", 137),
    ],
)
def test_it_ends_however_its_job_ends(aws: Aws, tmp_path: Path, end: str, code: int) -> None:
    """By itself, or by a signal, also one to its whole group; and the exit code is the job's."""
    job_id, pid = daemon(aws, tmp_path / "daemon", end=end)
    assert aws.done(job_id)["container"]["exitCode"] == code
    assert not alive(pid)


def test_it_ends_with_a_job_that_is_terminated(aws: Aws, tmp_path: Path) -> None:
    """SIGTERM is for the job; the daemon, which ignores it, has no grace of its own."""
    job_id, pid = daemon(aws, tmp_path / "daemon", end="time.sleep(600)")
    assert alive(pid)
    aws.batch.terminate_job(jobId=job_id, reason="enough")
    assert aws.done(job_id)["statusReason"] == "enough"
    poll(lambda: not alive(pid), "its end")


def test_it_ends_with_its_host_and_with_the_emulator(tmp_path: Path) -> None:
    """Nobody waits for a job then: all of it is killed."""
    with Emulator(state_dir=tmp_path / "state", timing=Timing(scale=SCALE)) as emulator:
        aws = Aws(emulator)
        job_id, pid = daemon(aws, tmp_path / "lost", end="time.sleep(600)")
        batch = emulator.batch()
        [host] = [host for host in batch.fleet.hosts.values() if host.jobs]
        batch.lose_host(host.instance_id)
        assert aws.done(job_id)["statusReason"].startswith("Host EC2")
        poll(lambda: not alive(pid), "its end")
        _, pid = daemon(aws, tmp_path / "left", end="time.sleep(600)")
    poll(lambda: not alive(pid), "its end")


def test_a_family_that_grows_as_it_is_killed_ends(aws: Aws, tmp_path: Path) -> None:
    """Each of its processes makes two more, faster than one by one they could be found."""
    grow = (
        "import os, sys, time\n"
        "for _ in range(7):\n"
        "    if os.fork() == 0: os.setsid()\n"
        "open(os.path.join(sys.argv[1], str(os.getpid())), 'w').close()\n"
        "if os.getppid() == int(sys.argv[2]): sys.exit()\n"
        "time.sleep(600)\n"
    )
    folder = tmp_path / "family"
    folder.mkdir()
    run = f"subprocess.run([sys.executable, '-c', {grow!r}, {str(folder)!r}, str(os.getpid())])"
    script = f"import os, subprocess, sys; {run}"
    definition = aws.definition("python", "-c", script, memory=3000)  # 128 processes, each counted with what it shares
    job = aws.done(aws.submit(definition=definition))
    assert job["status"] == "SUCCEEDED", job
    pids = [int(each.name) for each in folder.iterdir()]
    assert pids
    assert not [pid for pid in pids if alive(pid)]
