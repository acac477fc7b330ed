"""The folder for temporary files on the Covalent server: one that is this user's alone, with a folder for each process.

A process that is killed leaves its folder behind, and the next process removes it. Knows paths and locks only.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from covalent_cirro import local_files, private
from covalent_cirro.errors import SettingsError

STOCK_DEFAULT = "/tmp/covalent"  # noqa: S108  (what is not used)
"""The stock plugin's default of ``cache_dir``, which its users have in their config. Any user of the machine can make
this folder first, so that it counts as unset."""

FOLDER = "cirro"
"""Name of our folder in Covalent's cache folder."""

PREFIX = "cirro-process-"
LOCK = "lock"
"""Name of the file in a process's folder that the process locks while it runs."""


class _Ours(NamedTuple):
    pid: int
    path: str
    lock: IO[bytes]


log = logging.getLogger(__name__)

_guard = threading.Lock()
_ours: dict[Path, _Ours] = {}


def scratch(cache_dir: str | None) -> str:
    """The folder of this process for temporary files; it is removed when the process ends.

    Args:
        cache_dir: The option ``cache_dir``; `None`: below Covalent's cache folder.

    Raises:
        SettingsError: Another user can reach the folder of the option, or it cannot be made.
        LocalFileError: The folder cannot be written: the disk is full, or the server's user has no permission.
    """
    shared = common_folder(cache_dir)
    with _guard:
        ours = _ours.get(shared)
        with local_files.errors_about(str(shared)):
            try:
                private.folder(shared)
            except private.NotPrivate as error:
                raise SettingsError(
                    f"cache_dir={str(shared)!r} cannot be used: {error} It is the folder for what is on its way to S3, "
                    "on the machine of the Covalent server; it has to be a folder of that server's user."
                ) from error
            if ours is None or ours.pid != os.getpid() or not os.path.isdir(ours.path):
                with _alone(shared):
                    _clear(shared)
                    ours = _ours[shared] = _make(shared)
    return ours.path


def clear(cache_dir: str | None) -> None:
    """Remove the folders of processes that were killed from ``cache_dir``. Never raises."""
    try:
        shared = common_folder(cache_dir)
        private.require_ours(shared)
        with _guard, _alone(shared):
            _clear(shared)
    except FileNotFoundError:
        return
    except Exception as error:
        log.warning("What an earlier server may have left in cache_dir=%r was not cleared: %s", cache_dir, error)


def common_folder(cache_dir: str | None) -> Path:
    """Path of the folder that the processes of this user have their folders in; it need not exist.

    Args:
        cache_dir: As for `scratch`.
    """
    if cache_dir and os.path.normpath(cache_dir) != STOCK_DEFAULT:
        return Path(os.path.abspath(os.path.expanduser(cache_dir)))
    from covalent._shared_files.config import get_config

    return Path(os.path.abspath(get_config("dispatcher.cache_dir")), FOLDER)


def _make(shared: Path) -> _Ours:
    path = tempfile.mkdtemp(prefix=PREFIX, dir=shared)
    lock = open(os.path.join(path, LOCK), "ab")  # noqa: SIM115  (locked while the process runs)
    with contextlib.suppress(OSError):  # a file system without locks: no folder is removed there
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made = _Ours(os.getpid(), path, lock)
    atexit.register(_remove, made)
    return made


def _remove(made: _Ours) -> None:
    if made.pid == os.getpid():  # not in a process that was forked from this one
        shutil.rmtree(made.path, ignore_errors=True)


def _clear(shared: Path) -> None:
    ours = {made.path for made in _ours.values() if made.pid == os.getpid()}
    for left in shared.glob(f"{PREFIX}*"):
        # Closing a second descriptor of a file ends this process's lock on it (fcntl(2)).
        if str(left) not in ours and _is_left(left):
            shutil.rmtree(left, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether the process of a folder has ended."""
    try:
        with (folder / LOCK).open("ab") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True  # the process was killed while it made or removed the folder
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _alone(shared: Path) -> Iterator[None]:
    """Keep other processes from making or removing folders: one without a lock yet looks like one that was left."""
    with open(shared / LOCK, "ab", opener=private.opener) as lock:
        with contextlib.suppress(OSError):
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
