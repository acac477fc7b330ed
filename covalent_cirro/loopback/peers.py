"""Which user owns the other end of a connection over the loopback, on Linux. It must not know HTTP.

Source: sock_diag(7): the kernel looks up one socket in microseconds, however many there are. ``/proc/net/tcp`` has the
same, but takes milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("!HH16s16s4x8s")
_ANSWER = struct.Struct("=BBBB48sIIIII")
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_TIMEOUT_S = 1.0

Address = tuple[str, int]


class CannotTell(Exception):
    """The system does not say who owns a socket."""


def can_tell() -> bool:
    """Whether this system says who owns a socket."""
    try:
        owner(("127.0.0.1", 0), ("127.0.0.1", 0))
    except CannotTell:
        return False
    return True


def owner(client: Address, server: Address) -> int | None:
    """The user who owns the client's socket of a connection between two IPv4 addresses of this machine.

    Args:
        client: Address and port of the end that connected.
        server: Address and port of the end that listened.

    Returns:
        The uid. `None`: there is no such socket, or no process has it open.

    Raises:
        CannotTell: This is not Linux, or its kernel has no ``inet_diag``.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise CannotTell("only Linux says who owns a socket")
    ends = [(socket.inet_aton(host), port) for host, port in (client, server)]
    (source, source_port), (target, target_port) = ends
    sought = _ID.pack(source_port, target_port, source, target, _NO_COOKIE)
    request = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + sought
    head = _NLMSG.pack(_NLMSG.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    try:
        with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)) as kernel:
            kernel.settimeout(_TIMEOUT_S)
            kernel.send(head + request)
            answer = kernel.recv(8192)
    except OSError as error:
        raise CannotTell(f"the kernel does not say who owns a socket: {error}") from error
    _, kind, *_ = _NLMSG.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        number = -struct.unpack_from("=i", answer, _NLMSG.size)[0]
        if number == errno.ENOENT:
            return None
        raise CannotTell(f"the kernel does not say who owns a socket: {os.strerror(number)}")
    family, _, _, _, identity, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _NLMSG.size)
    found = _ID.unpack(identity)
    # A socket for IPv6 with an IPv4 address has that in its last four bytes.
    where = slice(12, 16) if family == socket.AF_INET6 else slice(0, 4)
    if (found[0], found[1], found[2][where], found[3][where]) != (source_port, target_port, source, target):
        return None  # the kernel found a socket that listens on the client's port: the client's own is closed
    return int(uid) if inode else None  # without a process the kernel says root
