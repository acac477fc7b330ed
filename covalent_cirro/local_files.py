"""Files of this machine: whether there is room for one, and what went wrong with one, told by its path.

Everything that is written where the Covalent server runs goes through here, so that a full disk is told as a full disk.
Knows nothing of S3 and electrons.
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
"""What is left free for Covalent's database, in which every change of an electron's status is a write: a server whose
disk is full to the last byte fails electrons whose jobs succeeded."""

RESERVE_SHARE = 20
"""Of a small file system, a twentieth is left free instead."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_PASSES = _FULL | {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE, errno.ENFILE}
"""What somebody can put right while who waits goes on: room, mounts, permissions, limits."""

_NEVER_NETWORK = _FULL | {errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
"""No connection fails with these."""

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
        device: Its number.
        total: Its size in bytes.
        free: Bytes that this user may still write.
    """

    device: int
    total: int
    free: int

    @property
    def room(self) -> int:
        """Bytes that may be written without touching the reserve; negative where that is touched already."""
        return self.free - min(RESERVE_BYTES, self.total // RESERVE_SHARE)


def disk_of(path: str) -> Disk:
    """The file system that a path is on, or will be once its folders are made.

    Raises:
        OSError: It cannot be asked.
    """
    here = os.path.abspath(path)
    while not os.path.lexists(here) and here != os.path.dirname(here):
        here = os.path.dirname(here)
    found = os.statvfs(here)
    return Disk(os.stat(here).st_dev, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


class _Writing(NamedTuple):
    """A file that is being written: what it will need in all."""

    device: int
    path: str
    need: int

    @property
    def left(self) -> int:
        """Bytes that are still to be written to it."""
        try:
            return max(0, self.need - os.stat(self.path).st_size)
        except OSError:
            return self.need


_writing: list[_Writing] = []
_lock = threading.Lock()


@contextlib.contextmanager
def room_for(path: str, need: int, *, growing: str = "") -> Iterator[None]:
    """See that a file of so many bytes has room beside all that are being written, and keep it for the block.

    Args:
        path: The file.
        need: Its size in bytes.
        growing: The file that becomes ``path`` in the end, if that is another one meanwhile.

    Raises:
        LocalFileError: It has none. Nothing was written.
    """
    with told(path, need=need):
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
    """See that so many bytes more can be written where a path is, with the reserve left.

    Raises:
        LocalFileError: They cannot.
    """
    with room_for(path, need):
        pass


@contextlib.contextmanager
def told(path: str, *, need: int = 0) -> Iterator[None]:
    """Turn errors of the operating system inside the block into ours. Only files may be touched in it, no network.

    Args:
        path: The file or folder that the block is about.
        need: Bytes that are to be written; 0 where that is not known.

    Raises:
        LocalFileError: With the path, what it needs and what there is, the system's own words, and what to do.
    """
    try:
        yield
    except OSError as error:
        raise error_of(error, path, need) from error


def error_of(error: OSError, path: str, need: int = 0, promised: int = 0) -> LocalFileError:
    """Our error for one of the operating system about a file.

    Args:
        error: The system's.
        path: The file, where the error names none.
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
    """The error about a file of this machine, or its limits, behind an error of a network library; `None` otherwise.

    botocore reads what it sends from files, and wraps whatever comes of that as its own (``HTTPClientError``).
    """
    wrapped = getattr(error, "kwargs", {}).get("error") if not isinstance(error, OSError) else error
    if not isinstance(wrapped, OSError) or isinstance(wrapped, (socket.gaierror, ssl.SSLError, ConnectionError)):
        return None  # the numbers of the first two are no errno
    return wrapped if wrapped.errno in _NEVER_NETWORK or wrapped.filename is not None else None


def _size(count: int) -> str:
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= bytes_each:
            return f"{count / bytes_each:.1f} {unit}"
    return f"{count} bytes"
