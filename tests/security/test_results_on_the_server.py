"""What a result may do that is opened on the server's host: run there, and find nothing worth having.

Each attack is a real object that runs code when it is unpickled, in the real process (`host_process.run`). What it
found is its value, and so the output of the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro.contract.protocol import STORED_VARIABLE
from covalent_cirro.electron import host_process, result_writer
from covalent_cirro.electron.host_process import PASSED_ON, BrokenProcess, NodeRun
from covalent_cirro.electron.launches import Launch

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIASECRET",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
    "AWS_SESSION_TOKEN": "very-secret",
    "AWS_PROFILE": "admin",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/secrets/token",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/token",
    "COVALENT_CONFIG_DIR": "/home/somebody/.config/covalent",
    "HTTPS_PROXY": "http://user:very-secret@proxy",
    "MY_DATABASE": "postgres://user:very-secret@host",
}


class Attack:
    """Runs an expression where it is unpickled, and is what that gives; an error is its text."""

    def __init__(self, expression: str) -> None:
        self._source = (
            "def run():\n"
            "    import os, sys, socket, signal, subprocess, resource, ctypes, json\n"
            f"    try:\n        return {expression}\n"
            "    except BaseException as error:\n        return f'{type(error).__name__}: {error}'\n"
        )

    def __reduce__(self) -> Any:
        return eval, (f"(lambda space: (exec({self._source!r}, space), space['run']())[1])({{}})",)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's environment full of secrets, and a home folder with the usual files."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text("[default]\naws_secret_access_key = very-secret\n")
    monkeypatch.setenv("HOME", str(home))
    return home


async def opened(tmp_path: Path, value: Any, function: Any = None) -> list[NodeRun] | BrokenProcess:
    """What becomes of a node that opens a value; the files stay."""
    files = {"function": function or (lambda x: x), "value": value}
    for name, each in files.items():
        (tmp_path / f"{name}.tobj").write_bytes(written(each))
    task = {
        "node_id": 0,
        "name": ":make.__getitem__",
        "function": str(tmp_path / "function.tobj"),
        "hands_on": False,
        "args": [{"tobj": str(tmp_path / "value.tobj")}],
        "kwargs": {},
    }
    launch = Launch("d", [0])
    try:
        async with host_process.run(launch, [task], "0.240.0", str(tmp_path / "cache")) as ended:
            if not isinstance(ended, BrokenProcess):
                with contextlib.suppress(ValueError):
                    result_writer.take_file(ended[0].file("output"), str(tmp_path / "output"))
            return ended
    finally:
        launch.close()


def written(value: Any) -> bytes:
    """The file of a value. Its text is that of the class: `str` would not run the attack either."""
    return TransportableObject(value).serialize()


async def found(tmp_path: Path, expression: str) -> Any:
    """What an attack found."""
    ended = await opened(tmp_path, Attack(expression))
    assert not isinstance(ended, BrokenProcess), ended
    assert ended[0].failure is None, ended[0].failure
    return TransportableObject.deserialize((tmp_path / "output").read_bytes()).get_deserialized()


@pytest.fixture(scope="module")
def shut_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """What the kernel of this machine can keep a process from; nothing where it is not Linux."""
    folder = tmp_path_factory.mktemp("probe")
    outcome = {}

    async def probe() -> None:
        (folder / "f.tobj").write_bytes(written(lambda: 0))
        path = str(folder / "f.tobj")
        task = {"node_id": 0, "name": "", "function": path, "hands_on": False, "args": [], "kwargs": {}}
        launch = Launch("probe", [0])
        async with host_process.run(launch, [task], "", str(folder)) as ended:
            assert not isinstance(ended, BrokenProcess)
            outcome.update(json.loads(Path(ended[0].folder, "outcome.json").read_text())["sandbox"])
        launch.close()

    asyncio.run(probe())
    return outcome


@pytest.fixture
def _files(shut_in: dict[str, bool]) -> None:
    if not shut_in["files"]:
        pytest.skip("the kernel has no Landlock")


@pytest.fixture
def _network(shut_in: dict[str, bool]) -> None:
    if not shut_in["network"]:
        pytest.skip("the kernel has no seccomp, or the processor is another one")


async def test_the_environment_has_nothing_of_the_servers(home: Path, tmp_path: Path) -> None:
    """Only names of the list; no secret in any value; AWS's clients do not ask the metadata service."""
    environment = await found(tmp_path, "dict(os.environ)")
    assert not any(value in json.dumps(environment) for value in ("very-secret", "AKIASECRET", str(home)))
    ours = {"HOME", "TMPDIR", "AWS_EC2_METADATA_DISABLED", "PYTHONUSERBASE", STORED_VARIABLE}
    assert environment.keys() <= {*PASSED_ON, *ours, "LC_CTYPE"}  # Python itself sets that one (PEP 538)
    assert environment["AWS_EC2_METADATA_DISABLED"] == "true"


async def test_boto3_finds_no_credentials(home: Path, tmp_path: Path) -> None:
    """Not in variables, not in files, not from a service."""
    assert await found(tmp_path, "__import__('boto3').Session().get_credentials()") is None


async def test_the_home_folder_is_an_empty_one(home: Path, tmp_path: Path) -> None:
    """With nothing but the options by which Covalent builds a sublattice; gone afterwards."""
    place = await found(tmp_path, "os.path.expanduser('~')")
    files = await found(tmp_path, "[f for _, _, files in os.walk(os.path.expanduser('~')) for f in files]")
    assert files == ["covalent.conf"]
    assert not Path(place).exists()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    "attack",
    [
        "open({secret!r}).read()",
        "os.listdir({home!r})",
        "open({home!r} + '/.bashrc', 'a').write('x')",
        "os.symlink({secret!r}, os.environ['HOME'] + '/link') or open(os.environ['HOME'] + '/link').read()",
        "os.link({secret!r}, os.environ['HOME'] + '/link')",
        "subprocess.run(['cat', {secret!r}], capture_output=True, check=True)",
        "open(json.__file__, 'a')",
        # Not the home of the test but that of who runs it. The system's own secrets are readable for root alone.
        "open('/etc/shadow').read()" if os.getuid() else f"os.listdir({str(Path.home())!r})",
    ],
)
async def test_files_of_the_servers_user_are_out_of_reach(home: Path, tmp_path: Path, attack: str) -> None:
    """Neither read nor listed nor written, by no way round, by no child process; Python's modules are not written."""
    said = await found(tmp_path, attack.format(secret=str(home / ".aws" / "credentials"), home=str(home)))
    assert str(said).startswith(("PermissionError", "CalledProcessError", "OSError: [Errno 18]")), said
    assert not (home / ".bashrc").exists()


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("file", ["environ", "mem", "maps"])
async def test_the_server_itself_is_out_of_reach(home: Path, tmp_path: Path, file: str) -> None:
    """Its environment, with all keys, and its memory: also where the server runs as root."""
    said = await found(tmp_path, f"open(f'/proc/{{os.getppid()}}/{file}', 'rb').read(1)")
    assert str(said).startswith("PermissionError"), said


@pytest.mark.usefixtures("_network")
async def test_there_is_no_network(home: Path, tmp_path: Path) -> None:
    """No Covalent API on this host, no AWS, no metadata service, no Docker socket: no socket of any kind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = await found(tmp_path, f"socket.create_connection(('127.0.0.1', {port}), 5)")
    assert said.startswith("PermissionError")
    for family in ("AF_INET6", "AF_UNIX", "AF_NETLINK"):
        assert (await found(tmp_path, f"socket.socket(socket.{family}, socket.SOCK_DGRAM)")).startswith(
            "PermissionError"
        )
    said = await found(tmp_path, "__import__('urllib.request').request.urlopen('http://169.254.169.254/', timeout=2)")
    assert "Permission denied" in said


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize(
    "attack", ["os.setsid()", "os.setpgid(0, 0)", "subprocess.Popen(['sleep', '60'], start_new_session=True)"]
)
async def test_nothing_outlives_the_process(home: Path, tmp_path: Path, attack: str) -> None:
    """Whatever it starts stays in its group, which is ended with it."""
    assert "Permission denied" in await found(tmp_path, attack)


async def test_what_it_leaves_running_is_ended(home: Path, tmp_path: Path) -> None:
    """A process of its own group."""
    pid = await found(tmp_path, "subprocess.Popen(['sleep', '60']).pid")
    for _ in range(200):
        if not _runs(pid):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it still runs")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("_files")
async def test_nothing_awaits_the_next_process(home: Path, tmp_path: Path) -> None:
    """One that is killed is started again: no module that the first one left is imported by it."""
    mark = home / "mark"
    module = f"open({str(mark)!r}, 'a').write('x')"
    script = f'for f in . ..; do for m in json cloudpickle sitecustomize; do echo "{module}" > $f/$m.py; done; done'
    attack = f"(subprocess.call(['sh', '-c', {script!r}]), os.kill(os.getpid(), signal.SIGKILL))"
    ended = await opened(tmp_path, Attack(attack))
    assert isinstance(ended, BrokenProcess)
    assert ended.code == -signal.SIGKILL
    assert not mark.exists()


async def test_what_it_says_is_not_held_by_the_server(home: Path, tmp_path: Path) -> None:
    """Of 100 MB that it writes where its last words are looked for, the end is read."""
    kept = "[fd for fd in range(3, 9) if os.path.realpath(f'/proc/self/fd/{fd}').endswith('said')][0]"
    tracemalloc.start()
    ended = await opened(tmp_path, Attack(f"([os.write({kept}, b'x' * 1000000) for _ in range(100)], os._exit(3))"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(ended, BrokenProcess)
    assert (ended.code, ended.said) == (3, "x" * 2000)
    assert peak < 10_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
async def test_limits(home: Path, tmp_path: Path) -> None:
    """No core file of what it holds, private files, an end to computing, and memory that leaves the server some."""
    limits = "[resource.getrlimit(getattr(resource, f'RLIMIT_{name}'))[1] for name in ('CORE', 'CPU', 'DATA')]"
    core, cpu, data = await found(tmp_path, limits)
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert (core, cpu) == (0, 3600)
    assert 0 < data < total
    assert await found(tmp_path, "os.umask(0o077)") == 0o077
    assert await found(tmp_path, "open('/proc/self/oom_score_adj').read().strip()") == "1000"
    said = await found(tmp_path, "[line for line in open('/proc/self/status') if line.startswith('Cap')]")
    assert all(int(line.split()[1], 16) == 0 for line in said if line.startswith(("CapPrm", "CapEff", "CapInh")))
    assert len(await found(tmp_path, "os.listdir('/proc/self/fd')")) < 10


def swaps(what: str) -> Any:
    """A node that puts something else where its output is expected, once that is written."""

    def function(value: Any) -> Any:
        import atexit
        import os

        def swap() -> None:
            os.unlink("0.output")
            if what == "link":
                os.symlink("/etc/passwd", "0.output")
            elif what == "pipe":
                os.mkfifo("0.output")
            elif what == "folder":
                os.mkdir("0.output")

        atexit.register(swap)
        return value

    return function


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "nothing"])
async def test_the_server_is_not_led_astray(home: Path, tmp_path: Path, what: str) -> None:
    """It reads what the process left as a stranger's: no link is followed, on no pipe is waited."""
    ended = await opened(tmp_path, 3, swaps(what))
    assert not isinstance(ended, BrokenProcess)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "forged",
    [
        "os.symlink('/etc/passwd', path)",
        "os.mkfifo(path)",
        "open(path, 'w').write('{')",
        "open(path, 'w').write('[' * 100000)",
        "json.dump({'sandbox': {}, 'results': [{'node_id': 7, 'failure': None, 'elsewhere': 0}]}, open(path, 'w'))",
        "json.dump({'sandbox': {}, 'results': [{'node_id': 0, 'failure': {}, 'elsewhere': 0}]}, open(path, 'w'))",
        "json.dump({'sandbox': {}, 'results': [{'node_id': 0, 'failure': 'x', 'elsewhere': 0}]}, open(path, 'w'))",
    ],
)
async def test_a_forged_outcome_is_refused(home: Path, tmp_path: Path, forged: str) -> None:
    """One that is none of the protocol's ends the node, and nothing else."""
    ended = await opened(tmp_path, Attack(f"(lambda path: ({forged}, os._exit(0)))('outcome.json')"))
    assert isinstance(ended, BrokenProcess)
