"""Files of this machine: room is looked at first, and what goes wrong with one is told by its path."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path

import pytest

from covalent_cirro import local_files
from covalent_cirro.aws.sessions import Access, translate
from covalent_cirro.errors import AwsError, LocalFileError
from covalent_cirro.local_files import Disk

GB, MB = 1_000_000_000, 1_000_000
NOWHERE = Access(None, None, None, None)


class FakeDisk:
    """A file system of which a test says how much is free."""

    def __init__(self, free: int, total: int = 8 * GB) -> None:
        self.free, self.total = free, total

    def of(self, path: str) -> Disk:
        return Disk(1, self.total, self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    """A disk with 300 MB free."""
    made = FakeDisk(300 * MB)
    monkeypatch.setattr(local_files, "disk_of", made.of)
    return made


def test_a_file_without_room_is_refused_with_need_and_room(disk: FakeDisk) -> None:
    """The path, what it needs, what there is, and what to do; a reserve stays for Covalent's database."""
    local_files.require_room("/data/results.tobj", 200 * MB)
    disk.free = 210 * MB
    with pytest.raises(LocalFileError) as caught:
        local_files.require_room("/data/results.tobj", 200 * MB)
    assert caught.value.passes
    assert caught.value.path == "/data/results.tobj"
    assert "/data/results.tobj, which needs 200.0 MB: No space left on device. 210.0 MB of the 8.0 GB" in str(
        caught.value
    )
    assert "Make room there" in str(caught.value)


def test_files_that_are_written_at_the_same_time_do_not_take_each_others_room(disk: FakeDisk, tmp_path: Path) -> None:
    """What one has written already is not counted twice."""
    first = tmp_path / "first"
    with local_files.room_for(str(first), 150 * MB):
        with pytest.raises(LocalFileError, match=r"and 150\.0 MB for other files"):
            local_files.require_room(str(tmp_path / "second"), 150 * MB)
        os.truncate(_made(first), 100 * MB)
        disk.free -= 100 * MB
        local_files.require_room(str(tmp_path / "second"), 50 * MB)
        with pytest.raises(LocalFileError):
            local_files.require_room(str(tmp_path / "second"), 100 * MB)
    local_files.require_room(str(tmp_path / "second"), 100 * MB)


def _made(path: Path) -> Path:
    path.touch()
    return path


def test_a_small_file_system_keeps_a_small_reserve(disk: FakeDisk) -> None:
    """A tmpfs of 16 MB can be used."""
    disk.total, disk.free = 16 * MB, 10 * MB
    local_files.require_room("/tmp/x", 9 * MB)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    """Folders are made when they are needed."""
    assert local_files.disk_of(str(tmp_path / "a" / "b" / "c")).device == os.stat(tmp_path).st_dev


@pytest.mark.parametrize(
    ("number", "passes", "words"),
    [
        (errno.ENOSPC, True, "Make room"),
        (errno.EDQUOT, True, "quota"),
        (errno.EROFS, True, "read-only"),
        (errno.EIO, True, "dmesg"),
        (errno.EACCES, True, "user whom the Covalent server runs as"),
        (errno.EMFILE, True, "ulimit -n"),
        (errno.ENAMETOOLONG, False, "File name too long"),
        (errno.ENOENT, False, "No such file"),
    ],
)
def test_each_error_says_whether_waiting_helps_and_what_to_do(number: int, passes: bool, words: str) -> None:
    """In the system's own words, with the path."""
    with pytest.raises(LocalFileError) as caught, local_files.errors_about("/data/x"):
        raise OSError(number, os.strerror(number))
    assert caught.value.passes is passes
    assert "/data/x: " in str(caught.value)
    assert words in str(caught.value)


def test_a_disk_that_is_full_in_the_middle_of_a_file_is_told_as_that() -> None:
    """Linux's /dev/full is one."""
    refused = pytest.raises(LocalFileError, match=r"/dev/full.*No space left")
    with refused, local_files.errors_about("/dev/full"), open("/dev/full", "wb") as file:
        file.write(bytes(100))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/etc/ca.pem"),
        PermissionError(errno.EACCES, "Permission denied", "/data/blob"),
    ],
    ids=lambda error: type(error).__name__ + str(error.errno),
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped by botocore"])
def test_an_error_of_a_file_is_not_told_as_one_of_the_network(error: OSError, wrapped: bool) -> None:
    """It is not tried again for minutes, and nobody checks his network for it."""
    from botocore.exceptions import HTTPClientError

    with pytest.raises(LocalFileError, match=error.strerror), translate("s3:PutObject", access=NOWHERE):
        raise HTTPClientError(error=error) if wrapped else error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        PermissionError(errno.EACCES, "Permission denied"),  # a firewall's answer to connect()
        OSError(errno.EHOSTUNREACH, "No route to host"),
        socket.gaierror(errno.EIO, "a number of its own"),
        ssl.SSLError(errno.EIO, "a number of its own"),
        TimeoutError("The read operation timed out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_network_still_is_one(error: OSError) -> None:
    """It is worth another try."""
    with pytest.raises(AwsError, match="could not reach AWS") as caught, translate("s3:GetObject", access=NOWHERE):
        raise error
    assert caught.value.retryable
