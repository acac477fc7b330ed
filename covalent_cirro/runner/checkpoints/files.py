"""A checkpoint's folder on the disk: its files, whether a process writes to them, digests and copies.

Knows files only; it must not know S3, nor when a checkpoint is due.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

_CHUNK = 1024 * 1024


class Seen(NamedTuple):
    """State of a file. If a later state is equal, the file has the same bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int


class Scan(NamedTuple):
    """State of a folder. Paths are relative to the folder, with slashes.

    Attributes:
        files: Regular files, by path.
        links: Targets of symbolic links, by path.
        folders: All folders in it.
        changed_ns: Time of the last change in it, by the file system's clock, in ns; 0 for an empty folder.
    """

    files: dict[str, Seen]
    links: dict[str, str]
    folders: tuple[str, ...]
    changed_ns: int


class Changed(Exception):
    """The folder changed while it was being read; the message names the file."""


def scan(root: str) -> Scan:
    """Read the state of a folder. Sockets, pipes and devices are left out.

    Raises:
        Changed: A file was deleted meanwhile.
    """
    files: dict[str, Seen] = {}
    links: dict[str, str] = {}
    folders: list[str] = []
    changed_ns = 0
    todo = [""]
    while todo:
        below = todo.pop()
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    found = entry.stat(follow_symlinks=False)
                    changed_ns = max(changed_ns, found.st_mtime_ns, found.st_ctime_ns)
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(path)
                        todo.append(path)
                    elif stat.S_ISLNK(found.st_mode):
                        links[path] = os.readlink(entry.path)
                    elif stat.S_ISREG(found.st_mode):
                        files[path] = Seen(
                            found.st_size,
                            found.st_mtime_ns,
                            found.st_ctime_ns,
                            found.st_ino,
                            stat.S_IMODE(found.st_mode),
                        )
        except FileNotFoundError as error:
            raise Changed(f"{error.filename} went away") from error
    return Scan(files, links, tuple(sorted(folders)), changed_ns)


def is_written_to(root: str, proc: str = "/proc") -> bool:
    """Whether a process that this one may inspect has a file of the folder open for writing. False without /proc."""
    inside = os.path.realpath(root) + os.sep
    for pid in _names(proc):
        if not pid.isdigit():
            continue
        fds = os.path.join(proc, pid, "fd")
        for fd in _names(fds):
            try:
                if not os.readlink(os.path.join(fds, fd)).startswith(inside):
                    continue
                with open(os.path.join(proc, pid, "fdinfo", fd)) as file:
                    # proc_pid_fdinfo(5): a line "flags:" with the octal flags of open(2).
                    flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
            except (OSError, ValueError, StopIteration):
                continue  # it went away
            if flags & os.O_ACCMODE != os.O_RDONLY:
                return True
    return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def digest(path: str, copy_to: str = "") -> str:
    """SHA-256 of a file, in hex; a copy of it is made on the way if asked for.

    Raises:
        Changed: The file was deleted.
        OSError: The file cannot be read, or there is no room for the copy.
    """
    import hashlib

    found = hashlib.sha256()
    try:
        source = open(path, "rb")  # noqa: SIM115  (closed below)
    except FileNotFoundError as error:
        raise Changed(f"{path} went away") from error
    with source:
        if not copy_to:
            while chunk := source.read(_CHUNK):
                found.update(chunk)
        else:
            with open(copy_to, "wb") as target:
                while chunk := source.read(_CHUNK):
                    found.update(chunk)
                    target.write(chunk)
    return found.hexdigest()
