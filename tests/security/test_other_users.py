"""Other users of the machine: they neither reach the Covalent server of a local stack, nor read or plant its files."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from covalent_cirro import private
from covalent_cirro.errors import CirroError
from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.local_stack import LocalStack
from covalent_cirro.local.server_guard import Guard
from covalent_cirro.loopback import peers
from covalent_cirro.private import NotPrivate

NOBODY = 65534
ANOTHER = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
LINUX = pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="only Linux tells whose a socket is")


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket of ours that listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@contextlib.contextmanager
def as_nobody(act: Callable[[], None]) -> Iterator[None]:
    """Another user's process that does something, then lives until the block ends."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
            signal.pause()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@LINUX
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_our_own_connection_is_ours(listener: socket.socket, family: socket.AddressFamily) -> None:
    """Also that of a socket for IPv6, as some programs open for everything."""
    with socket.socket(family) as client:
        try:
            host = "127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1"
            client.connect((host, listener.getsockname()[1]))
        except OSError:
            pytest.skip("there is no IPv6 here")
        _, address = listener.accept()
        assert peers.owner(address, listener.getsockname()) == os.geteuid()


@LINUX
@ANOTHER
def test_another_users_connection_is_his(listener: socket.socket) -> None:
    """Told by the kernel, whatever he sends; also when he has said that nothing more comes from him."""
    held: list[socket.socket] = []

    def connect(half: bool) -> None:
        held.append(socket.socket())
        held[-1].connect(listener.getsockname())
        held[-1].send(b"x")
        if half:
            held[-1].shutdown(socket.SHUT_WR)

    for half in (False, True):
        with as_nobody(lambda half=half: connect(half)):  # type: ignore[misc]
            ours, address = listener.accept()
            assert ours.recv(1) == b"x"
            assert peers.owner(address, listener.getsockname()) == NOBODY


@LINUX
def test_who_is_gone_is_nobody(listener: socket.socket) -> None:
    """The kernel shows sockets that no process has as root's: who sends and closes must not be taken for root."""
    client = socket.create_connection(listener.getsockname())
    ours, address = listener.accept()
    client.send(b"x")
    client.close()
    assert ours.recv(1) == b"x"
    assert peers.owner(address, listener.getsockname()) is None  # orphaned
    ours.close()
    assert peers.owner(address, listener.getsockname()) is None  # in TIME_WAIT
    assert peers.owner(("127.0.0.1", 1), listener.getsockname()) is None  # never was
    # Nothing but a listener has this port: the kernel gives that one.
    assert peers.owner(listener.getsockname(), ("127.0.0.1", 1)) is None


@pytest.fixture
def guarded() -> Iterator[tuple[str, int]]:
    """Where a server answers 200 to whom the guard lets through."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-length", b"0"), (b"Access-Control-Allow-Origin", b"*")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(Guard(app), port=0, log_level="critical", lifespan="off", forwarded_allow_ips="")
    server = uvicorn.Server(config)
    ours = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [ours]}, daemon=True)
    thread.start()
    yield ours.getsockname()
    server.should_exit = True
    thread.join(timeout=30)


REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Forwarded-For: 127.0.0.1:%d\r\nConnection: close\r\n\r\n"


def status(address: tuple[str, int], forwarded: int = 0) -> bytes:
    """The first line of the answer to a request on a connection of its own."""
    client = socket.socket()
    client.settimeout(60)
    client.connect(address)
    client.sendall(REQUEST % (address[1], forwarded))
    received = b""
    while data := client.recv(4096):
        received += data
    client.close()
    return received.split(b"\r\n")[0]


def test_the_guard_lets_its_user_through(guarded: tuple[str, int]) -> None:
    """Whatever system this is."""
    assert status(guarded) == b"HTTP/1.1 200 OK"


@LINUX
@ANOTHER
def test_the_guard_refuses_another_user(guarded: tuple[str, int]) -> None:
    """Also if he says that he is a proxy, and names a connection of ours."""
    ours = socket.create_connection(guarded)
    readable, writable = os.pipe()

    def ask() -> None:
        for forwarded in (0, ours.getsockname()[1]):
            os.write(writable, status(guarded, forwarded) + b"\n")

    with as_nobody(ask):
        said = b""
        while said.count(b"\n") < 2:
            said += os.read(readable, 4096)
    assert said.splitlines() == [b"HTTP/1.1 403 Forbidden"] * 2
    ours.close()


def test_the_guard_lets_nobody_in_because_it_is_busy(guarded: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It could ask when it started: a kernel that does not answer now is no reason to believe anybody."""

    def cannot(*_: object) -> int:
        raise peers.CannotTell("too many open files")

    if not peers.can_tell():
        pytest.skip("this system never tells")
    monkeypatch.setattr(peers, "owner", cannot)
    assert status(guarded) == b"HTTP/1.1 403 Forbidden"


def test_where_nobody_can_tell_the_log_says_so(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The guard then keeps web pages out, and other users not."""
    monkeypatch.delattr(socket, "AF_NETLINK", raising=False)
    Guard(None)  # type: ignore[arg-type]
    assert "its other users can use this server" in caplog.text


# --- files ------------------------------------------------------------------------------------------------------------


def open_to_others(folder: Path) -> list[str]:
    """What in a folder has a permission for anybody but its owner."""
    entries = [folder, *folder.rglob("*")]
    return [
        f"{path} {path.lstat().st_mode:o}" for path in entries if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """Of a user whose files everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_all_of_a_local_stack_is_its_users(tmp_path: Path, loose_umask: None) -> None:
    """Folders 0700 and files 0600, those that the emulator makes among them, whatever the umask is."""
    playground = LocalStack(tmp_path / "state")
    try:
        playground.up(vcpus=1)
        assert open_to_others(playground.state_dir) == []
        assert stat.S_IMODE(playground.state_dir.stat().st_mode) == 0o700
        assert {path.name for path in playground.state_dir.iterdir()} >= {"emulator", "logs", "local.json", "lock"}
    finally:
        playground.down()


def test_the_folder_of_an_older_version_is_taken_from_others(tmp_path: Path, loose_umask: None) -> None:
    """With all in it. What a link leads to is not touched."""
    folder, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    (folder / "covalent" / "data").mkdir(parents=True)
    (folder / "covalent" / "data" / "result.tobj").write_text("mine")
    elsewhere.write_text("")
    (folder / "link").symlink_to(elsewhere)
    private.own(folder)
    assert open_to_others(folder) == []
    assert os.access(folder / "covalent" / "data" / "result.tobj", os.R_OK | os.W_OK)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o666


@ANOTHER
@pytest.mark.parametrize("command", ["up", "down", "status", "environment"])
def test_another_users_folder_is_refused(tmp_path: Path, command: str) -> None:
    """What he wrote there would choose which processes we end, and to whom our pickles go."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "local.json").write_text('{"format": 1, "emulator": null, "server": null}')
    os.chown(folder, NOBODY, NOBODY)
    act = getattr(LocalStack(folder), command)
    with pytest.raises(NotPrivate, match=rf"{folder} belongs to user 'nobody', not to user 'root'"):
        act({}) if command == "environment" else act()
    assert sorted(path.name for path in folder.iterdir()) == ["local.json"]
    assert stat.S_IMODE(folder.stat().st_mode) != 0o700


@ANOTHER
def test_what_another_user_put_into_our_folder_is_refused(tmp_path: Path) -> None:
    """He could while an older version's folder was open."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    (folder / "local.json").write_text("{}")
    os.chown(folder / "local.json", NOBODY, NOBODY)
    playground = LocalStack(folder)
    for _ in range(2):
        with pytest.raises(NotPrivate, match=r"local\.json belongs to"):
            playground.down()
    with pytest.raises(NotPrivate, match="other users may write"):
        playground.status()


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Whoever may write beside it could lead it elsewhere at any time."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for act in (private.folder, private.own):
        with pytest.raises(NotPrivate, match=r"is a link to .*real"):
            act(tmp_path / "link")
    with pytest.raises(CirroError, match="is a link"):
        Emulator(state_dir=tmp_path / "link").start()


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Named."""
    (tmp_path / "file").touch()
    with pytest.raises(NotPrivate, match="file is not a folder"):
        private.folder(tmp_path / "file")


def test_a_file_is_written_whole_and_private(tmp_path: Path, loose_umask: None) -> None:
    """Over one that was open to others, too; a failed write leaves what was there, and nothing beside it."""
    path = tmp_path / "file"
    path.write_text("before")
    private.write(path, "caf\u00e9")
    assert path.read_text("utf-8") == "caf\u00e9"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UnicodeEncodeError):
        private.write(path, "\ud800")
    assert path.read_text("utf-8") == "caf\u00e9"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_jobs_files_are_as_in_a_container(tmp_path: Path, loose_umask: None) -> None:
    """Jobs write into folders of the user's too: their umask is a container's, not the emulator's."""
    from tests.emulator.conftest import Aws

    os.umask(0o077)
    with Emulator(state_dir=tmp_path / "state") as emulator:
        aws = Aws(emulator)
        aws.done(aws.submit("sh", "-c", f"touch {tmp_path / 'made'}"))
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o644
