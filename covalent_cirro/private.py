"""Folders and files that only their owner can access. Knows paths, owners and modes; not what the files contain."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import tempfile
from pathlib import Path

from covalent_cirro.errors import CirroError

FOLDER = 0o700
FILE = 0o600
UMASK = 0o077
"""Umask of the processes of a local stack."""


class NotPrivate(CirroError):
    """Another user owns a folder or may write to it, so that its content cannot be trusted."""


def folder(path: str | Path) -> Path:
    """Make a folder with mode 0700, and missing folders above it; check a folder that exists (`require_ours`).

    Raises:
        NotPrivate: The path is a link or a file, belongs to another user, or others may write to it.
        OSError: The folder cannot be made.
    """
    path = Path(path)
    if not _made(path):
        require_ours(path)
    return path


def own(path: Path) -> None:
    """Make a folder with mode 0700; remove the rights of other users from a folder that exists, and from all in it.

    Raises:
        NotPrivate: The path is a link or a file, or the folder or a file in it belongs to another user.
        OSError: The folder cannot be made.
    """
    if _made(path):
        return
    mode = stat.S_IMODE(owned(path).st_mode)
    if not mode & UMASK:
        return
    path.chmod(FOLDER)  # first, so that nobody adds files during the walk
    try:
        for place, folders, files in os.walk(path):
            for name in (*folders, *files):
                _tighten(os.path.join(place, name))
    except BaseException:
        path.chmod(mode)  # so that the next call checks everything again
        raise


def require_ours(path: Path) -> None:
    """Check that a folder belongs to this user, and that nobody else may write to it.

    Raises:
        NotPrivate: The path is a link or a file, belongs to another user, or others may write to it.
        OSError: It does not exist.
    """
    mode = owned(path).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotPrivate(
            f"other users may write to {path} (mode {stat.S_IMODE(mode):04o}): name another folder, or run "
            f"`chmod go-w {path}` if you trust all that lies in it."
        )


def owned(path: Path) -> os.stat_result:
    """Check that a folder belongs to this user, whoever else may write to it; returns its status.

    Raises:
        NotPrivate: The path is a link or a file, or belongs to another user.
        OSError: It does not exist.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise NotPrivate(f"{path} is a link to {os.readlink(path)}: name that folder itself.")
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivate(f"{path} is not a folder.")
    if found.st_uid != os.geteuid():
        raise NotPrivate(f"{path} belongs to {_user(found.st_uid)}, not to {_user(os.geteuid())}: name another folder.")
    return found


def _made(path: Path) -> bool:
    """Make a folder, and missing folders above it; False if it exists."""
    try:
        path.mkdir(FOLDER)
    except FileExistsError:
        return False
    except FileNotFoundError:
        _made(path.parent)
        return _made(path)
    return True


def _tighten(entry: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
        found = os.lstat(entry)
        if found.st_uid != os.geteuid():
            raise NotPrivate(f"{entry} belongs to {_user(found.st_uid)}: remove it, or name another folder.")
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return
        # By its descriptor: a process that has a folder in here open could replace the name by a link.
        descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~UMASK)
        finally:
            os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a file with mode 0600, in one step: a reader sees the whole new content, or the old one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # it makes files with that mode
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def opener(path: str, flags: int) -> int:
    """For ``open(..., opener=opener)``: a file that is made gets mode 0600."""
    return os.open(path, flags, FILE)


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"the user with uid {uid}"
