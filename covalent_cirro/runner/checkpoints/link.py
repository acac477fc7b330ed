"""A Unix socket in a folder, reached by any process of the container, however long the folder's name is.

Knows sockets only; not what is said through them.
"""

from __future__ import annotations

import os
import socket
import sys

_BACKLOG = 64


def listen(folder: str, name: str) -> socket.socket:
    """Make the socket. It appears under its name when it can be connected to."""
    made = socket.socket(socket.AF_UNIX)
    try:
        with _Address(folder, name + ".new") as address:
            made.bind(address)
        made.listen(_BACKLOG)
        os.rename(os.path.join(folder, name + ".new"), os.path.join(folder, name))
    except OSError:
        made.close()
        raise
    return made


def connect(folder: str, name: str) -> socket.socket:
    """A connection to it.

    Raises:
        OSError: There is no such socket (yet), or nobody listens.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        with _Address(folder, name) as address:
            made.connect(address)
    except OSError:
        made.close()
        raise
    return made


class _Address:
    """A short path of the socket while it is bound or connected to: the kernel takes 107 characters (unix(7))."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._name = name
        self._fd: int | None = None

    def __enter__(self) -> str:
        if sys.platform != "linux":
            return os.path.join(self._folder, self._name)
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._fd}/{self._name}"

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
