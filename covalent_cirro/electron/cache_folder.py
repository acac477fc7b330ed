"""Where things lie on the Covalent server on their way: a folder that is this user's alone, in it one for each process.

A process that is killed leaves its folder behind; the next one clears it. Knows paths and locks, nothing of blobs.
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
"""The stock plugin's ``cache_dir``, which configs have pinned. Any user of the machine can make it before us, so it
counts as unset."""

FOLDER = "cirro"
"""Our folder in Covalent's own cache folder."""

PREFIX = "cirro-process-"
LOCK = "lock"
"""A process holds the lock on this file in its folder while it lives."""


class _Ours(NamedTuple):
    pid: int
    path: str
    lock: IO[bytes]


log = logging.getLogger(__name__)

_guard = threading.Lock()
_ours: dict[Path, _Ours] = {}


def scratch(cache_dir: str | None) -> str:
    """This process's own folder for what is on its way; it goes with the process.

    Args:
        cache_dir: The option; `None`: below Covalent's own cache folder.

    Raises:
        SettingsError: The option's folder is also another user's, or cannot be made.
        LocalFileError: Nothing can be written there: the disk is full, or the server's user may not.
    """
    shared = _folder(cache_dir)
    with _guard:
        ours = _ours.get(shared)
        with local_files.told(str(shared)):
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
    """Remove what processes that were killed left in the folder of ``cache_dir``. Never raises."""
    try:
        shared = _folder(cache_dir)
        private.require_ours(shared)
        with _guard, _alone(shared):
            _clear(shared)
    except FileNotFoundError:
        return
    except Exception as error:
        log.warning("What an earlier server may have left in cache_dir=%r was not cleared: %s", cache_dir, error)


def _folder(cache_dir: str | None) -> Path:
    if cache_dir and os.path.normpath(cache_dir) != STOCK_DEFAULT:
        return Path(os.path.abspath(os.path.expanduser(cache_dir)))
    from covalent._shared_files.config import get_config

    return Path(os.path.abspath(get_config("dispatcher.cache_dir")), FOLDER)


def _make(shared: Path) -> _Ours:
    path = tempfile.mkdtemp(prefix=PREFIX, dir=shared)
    lock = open(os.path.join(path, LOCK), "ab")  # noqa: SIM115  (held while the process lives)
    with contextlib.suppress(OSError):  # a file system without locks: nobody clears anything there
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made = _Ours(os.getpid(), path, lock)
    atexit.register(_remove, made)
    return made


def _remove(made: _Ours) -> None:
    if made.pid == os.getpid():  # a process that was forked from ours ends too
        shutil.rmtree(made.path, ignore_errors=True)


def _clear(shared: Path) -> None:
    ours = {made.path for made in _ours.values() if made.pid == os.getpid()}
    for left in shared.glob(f"{PREFIX}*"):
        # Closing a second descriptor of our own lock would give the lock up (fcntl(2)).
        if str(left) not in ours and _is_left(left):
            shutil.rmtree(left, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether the process whose folder this is has ended."""
    try:
        with (folder / LOCK).open("ab") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True  # it was killed while it made the folder, or while it removed it
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _alone(shared: Path) -> Iterator[None]:
    """No other process makes or clears a folder meanwhile: one that is not locked yet looks like one that is left."""
    with open(shared / LOCK, "ab", opener=private.opener) as lock:
        with contextlib.suppress(OSError):
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
