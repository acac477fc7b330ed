"""A Unix socket in a folder, for all processes of the container, however long the path of the folder is.

Knows sockets only; it must not know what is sent through them.
"""

from __future__ import annotations

import os
import socket
import sys

_BACKLOG = 64


def listen(folder: str, name: str) -> socket.socket:
    """Make the socket. Its name appears only when it accepts connections."""
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
    """Connect to the socket.

    Raises:
        OSError: There is no such socket (yet), or no process listens to it.
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
    """A short path to the socket, for bind and connect: the kernel takes at most 107 characters (unix(7))."""

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
