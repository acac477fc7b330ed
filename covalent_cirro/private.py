"""Folders and files that nobody but their owner reaches. Knows paths, owners and modes; not what is kept in them."""

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
"""Of the processes of a local stack."""


class NotPrivate(CirroError):
    """A folder is not only its user's: what lies there could be another user's."""


def folder(path: str | Path) -> Path:
    """Make a folder with mode 0700, like those above it that are missing, or see that the one that is there is ours.

    Raises:
        NotPrivate: It is a link or a file, belongs to another user, or others may write to it.
        OSError: It cannot be made.
    """
    path = Path(path)
    if not _made(path):
        require_ours(path)
    return path


def own(path: Path) -> None:
    """Make a folder with mode 0700, or take the one of ours that is there from all other users, with all in it.

    Raises:
        NotPrivate: It is a link or a file, or it or what lies in it belongs to another user.
        OSError: It cannot be made.
    """
    if _made(path):
        return
    mode = stat.S_IMODE(owned(path).st_mode)
    if not mode & UMASK:
        return
    path.chmod(FOLDER)  # first: nobody puts anything into it while we look
    try:
        for place, folders, files in os.walk(path):
            for name in (*folders, *files):
                _tighten(os.path.join(place, name))
    except BaseException:
        path.chmod(mode)  # so that the next look is at all of it again
        raise


def require_ours(path: Path) -> None:
    """See that a folder that exists is this user's, and that nobody else may write to it.

    Raises:
        NotPrivate: It is a link or a file, belongs to another user, or others may write to it.
        OSError: It does not exist.
    """
    mode = owned(path).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotPrivate(
            f"other users may write to {path} (mode {stat.S_IMODE(mode):04o}): name another folder, or run "
            f"`chmod go-w {path}` if you trust all that lies in it."
        )


def owned(path: Path) -> os.stat_result:
    """See that a folder that exists is this user's, whoever else may write to it; returns what is known of it.

    Raises:
        NotPrivate: It is a link or a file, or belongs to another user.
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
    """Make a folder, and those above it; False: it was there."""
    try:
        path.mkdir(FOLDER)
    except FileExistsError:
        return False
    except FileNotFoundError:
        _made(path.parent)
        return _made(path)
    return True


def _tighten(entry: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it went meanwhile
        found = os.lstat(entry)
        if found.st_uid != os.geteuid():
            raise NotPrivate(f"{entry} belongs to {_user(found.st_uid)}: remove it, or name another folder.")
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return
        # By its descriptor: who still has a folder in here open could put a link in the place of the name.
        descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~UMASK)
        finally:
            os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a file with mode 0600, in one step: a reader sees all of it, or what was there before."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # it has that mode
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
