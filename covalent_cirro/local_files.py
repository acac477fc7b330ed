"""Files of this machine: checks that there is room for a file, and makes errors that name the file.

All files on the Covalent server's host are written with these functions, so that an error says that the disk is full
and which file did not fit. This module must not know S3 or electrons.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import NamedTuple

from covalent_cirro.errors import LocalFileError

RESERVE_BYTES = 64 * 1024 * 1024
"""Bytes that stay free for Covalent's database, which is written at every change of an electron's status: a server
whose disk is completely full fails electrons whose jobs succeeded."""

RESERVE_SHARE = 20
"""Divisor for a small file system, of which a twentieth stays free instead."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_PASSES = _FULL | {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE, errno.ENFILE}
"""Errors that the user can fix while the server waits: room, mounts, permissions, limits."""

_NEVER_NETWORK = _FULL | {errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
"""Errors that never come from a network connection."""

_NEXT = {
    errno.ENOSPC: "Make room there (`df -h` and `df -i` show what is left).",
    errno.EDQUOT: "Make room there: the quota of the user whom the Covalent server runs as is used up.",
    errno.EROFS: "Its file system is mounted read-only: mount it writable (`dmesg` says why it is not).",
    errno.EIO: "Its disk or file system has a fault: `dmesg` says which.",
    errno.EACCES: "Let the user whom the Covalent server runs as read and write there.",
    errno.EPERM: "Let the user whom the Covalent server runs as read and write there.",
    errno.ESTALE: "Mount its network file system anew.",
    errno.EMFILE: "Start the Covalent server with a higher limit of open files (`ulimit -n`).",
    errno.ENFILE: "Raise the machine's limit of open files (`sysctl fs.file-max`).",
}


class Disk(NamedTuple):
    """The file system that a path is on.

    Attributes:
        device: Device number.
        total: Size in bytes.
        free: Bytes that this user may still write.
    """

    device: int
    total: int
    free: int

    @property
    def room(self) -> int:
        """Bytes that may be written without using the reserve; negative if the reserve is in use already."""
        return self.free - min(RESERVE_BYTES, self.total // RESERVE_SHARE)


def disk_of(path: str) -> Disk:
    """The file system of a path, which need not exist yet.

    Raises:
        OSError: The file system cannot be read.
    """
    here = os.path.abspath(path)
    while not os.path.lexists(here) and here != os.path.dirname(here):
        here = os.path.dirname(here)
    found = os.statvfs(here)
    return Disk(os.stat(here).st_dev, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


class _Writing(NamedTuple):
    """A file that is being written, with the bytes that it will need in total."""

    device: int
    path: str
    need: int

    @property
    def left(self) -> int:
        """Bytes that are still to be written to the file."""
        try:
            return max(0, self.need - os.stat(self.path).st_size)
        except OSError:
            return self.need


_writing: list[_Writing] = []
_lock = threading.Lock()


@contextlib.contextmanager
def room_for(path: str, need: int, *, growing: str = "") -> Iterator[None]:
    """Check that there is room for a file besides all files that are being written, and reserve it for the block.

    Args:
        path: The file.
        need: Its size in bytes.
        growing: The temporary file that becomes ``path`` in the end, if there is one.

    Raises:
        LocalFileError: There is no room. Nothing was written.
    """
    with errors_about(path, need=need):
        disk = disk_of(path)
    mine = _Writing(disk.device, growing or path, need)
    with _lock:
        promised = sum(other.left for other in _writing if other.device == disk.device)
        if need > disk.room - promised:
            raise error_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path, need, promised)
        _writing.append(mine)
    try:
        yield
    finally:
        with _lock:
            _writing.remove(mine)


def require_room(path: str, need: int = 0) -> None:
    """Check that there is room for so many more bytes in the file system of a path, besides the reserve.

    Raises:
        LocalFileError: There is no room.
    """
    with room_for(path, need):
        pass


@contextlib.contextmanager
def errors_about(path: str, *, need: int = 0) -> Iterator[None]:
    """Convert an `OSError` inside the block to a `LocalFileError`. The block may use files, but no network.

    Args:
        path: The file or folder that the block is about.
        need: Bytes that are to be written; 0 if that is not known.

    Raises:
        LocalFileError: It has the path, the bytes that are needed and free, the system's message, and what to do.
    """
    try:
        yield
    except OSError as error:
        raise error_of(error, path, need) from error


def error_of(error: OSError, path: str, need: int = 0, promised: int = 0) -> LocalFileError:
    """Make a `LocalFileError` of an `OSError` about a file.

    Args:
        error: The error of the operating system.
        path: The file, if the error names none.
        need: Bytes that are to be written.
        promised: Bytes that other files which are being written still need.
    """
    number = error.errno or 0
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else path
    needs = f", which needs {_size(need)}" if need else ""
    has = ""
    if number in _FULL:
        with contextlib.suppress(OSError):
            disk = disk_of(where)
            has = (
                f" {_size(disk.free)} of the {_size(disk.total)} of its file system are free, of which "
                f"{_size(disk.free - disk.room)} are kept for Covalent's database"
                + (f" and {_size(promised)} for other files that are being written." if promised else ".")
            )
    said = error.strerror or str(error) or type(error).__name__
    return LocalFileError(
        f"{where}{needs}: {said}.{has} {_NEXT.get(number, 'It is a file of the machine that runs this.')}",
        path=where,
        passes=number in _PASSES,
    )


def in_an_answer(error: BaseException) -> OSError | None:
    """The `OSError` about a local file or limit inside an error of a network library; `None` if there is none.

    botocore reads uploads from files, and wraps errors of reading in its own (``HTTPClientError``).
    """
    wrapped = getattr(error, "kwargs", {}).get("error") if not isinstance(error, OSError) else error
    if not isinstance(wrapped, OSError) or isinstance(wrapped, (socket.gaierror, ssl.SSLError, ConnectionError)):
        return None  # the first two have numbers that are no errno
    return wrapped if wrapped.errno in _NEVER_NETWORK or wrapped.filename is not None else None


def _size(count: int) -> str:
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= bytes_each:
            return f"{count / bytes_each:.1f} {unit}"
    return f"{count} bytes"
