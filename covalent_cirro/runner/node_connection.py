"""What the compute nodes of a multi-node job say to one another, and the connections by which they do (`team.py`).

Messages are JSON, one in a line. From a node: ``hello`` (its index) with ``mac``, ``failed``, ``left``. From the main
node: ``go`` (the port for `MASTER_PORT`), ``end``.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import random
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.protocol import mac

_READ_BYTES = 256 * 1024
_MAX_LINE_BYTES = 1024 * 1024

_MAX_SHORT_BYTES = 1024
"""Bytes in a line of the main node, and of somebody who has not yet shown to be a node: a ``hello`` has some 100."""

LOOK_S = 1.0
"""Seconds between two looks at whether a wait is to stop."""

LINGER_S = 3.0
"""Seconds that the processes of the other nodes have to return once the main node is done."""

_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}
"""A machine that is gone without a word is noticed after 45 s (tcp(7))."""

_PORTS = (20_000, 30_000)
"""Ports that no system gives to outgoing connections by itself (ip(7), ip_local_port_range)."""

_NAMES_NODE = re.compile(r"(rank \d+ on )?node \d+\b")

DONE, FAILED, LOST, MISSING, ENDED = "done", "failed", "lost", "missing", "ended"
"""What became of a node (`protocol.ComputeNode.state`)."""


class NotMet(Exception):
    """The nodes of the job have not all met; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Meeting(NamedTuple):
    """Where the processes of the electron find one another."""

    address: str
    port: int


class NodeConnection:
    """A connection that carries messages.

    Attributes:
        index: Node at the other end, once it is known.
        state: What became of that node; empty while it goes on.
        used: What it used, once it has left.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.index = -1
        self.state = ""
        self.used: dict[str, Any] = {}
        self.is_open = True
        self._unread = b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, **message: Any) -> None:
        """Send a message; a node that is gone is noticed when its connection is read."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Iterator[dict[str, Any]]:
        """Messages that have come. Blocks where the socket does; at its end ``is_open`` is false."""
        try:
            data = self.socket.recv(_READ_BYTES)
            has_ended = not data
        except (BlockingIOError, TimeoutError):
            data, has_ended = b"", False
        except OSError:
            data, has_ended = b"", True
        if has_ended:
            self.close()
        self._unread += data
        while True:
            line, end, rest = self._unread.partition(b"\n")
            # Asked for each line: the line before may have been a node's hello.
            if len(line) > (_MAX_LINE_BYTES if self.index >= 0 else _MAX_SHORT_BYTES):
                self.close()
                return
            if not end:
                return
            self._unread = rest
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):  # the second one for brackets in brackets
                message = None
            if not isinstance(message, dict):
                self.close()
                return
            yield message

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        self.socket.close()


def free_port() -> int:
    """A port on which nobody listens now."""
    numbers = random.SystemRandom()
    while True:
        port = numbers.randrange(*_PORTS)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", port))
            return port


def sign(said: Mapping[str, Any], mac_key: str) -> str:
    """The message authentication code of what was said."""
    return mac(json.dumps(said, sort_keys=True).encode(), mac_key)


def is_signed(said: Mapping[str, Any], proof: object, mac_key: str) -> bool:
    """Whether ``proof`` is what `sign` gives; it may be anything that JSON can say."""
    # As bytes: of texts that are not ASCII, compare_digest raises.
    return hmac.compare_digest(str(proof).encode(errors="replace"), sign(said, mac_key).encode())


def of_node(failure: Failure, index: int) -> Failure:
    """A failure whose message says on which node it was, if it does not say so already."""
    if _NAMES_NODE.match(failure.message):
        return failure
    return failure._replace(message=f"node {index}: {failure.message}")
